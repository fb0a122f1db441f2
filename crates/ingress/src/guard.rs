//! Limits of requests: rate limits, and requests in flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Clients that are counted apart. When there are more, those that have not used up anything are forgotten; if all have, new
/// ones share one count.
const KEYS_MAX: usize = 65_536;

/// Limits requests to a rate (GCRA): even ones at `interval`, and `burst` at once.
#[derive(Debug)]
pub(crate) struct Rate {
    interval: Duration,
    burst: u32,
    /// Keyed by key: when it has used up what it had.
    next: Mutex<HashMap<String, Instant>>,
}

impl Rate {
    pub(crate) fn new(average: u64, period: Duration, burst: u64) -> Rate {
        let average = u32::try_from(average.max(1)).unwrap_or(u32::MAX);
        let burst = u32::try_from(burst.max(1)).unwrap_or(u32::MAX);
        Rate { interval: period / average, burst, next: Mutex::default() }
    }

    /// Takes one request.
    ///
    /// # Errors
    ///
    /// Returns after how long the next one would be let through.
    pub(crate) fn take(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let mut next = self.next.lock();
        if next.len() >= KEYS_MAX && !next.contains_key(key) {
            next.retain(|_, it| *it > now);
        }
        let key = if next.len() >= KEYS_MAX && !next.contains_key(key) { "" } else { key };
        let at = next.get(key).copied().unwrap_or(now).max(now);
        let ahead = self.interval.saturating_mul(self.burst.saturating_sub(1));
        if at > now + ahead {
            return Err(at - now - ahead);
        }
        next.insert(key.to_owned(), at + self.interval);
        Ok(())
    }
}

/// Limits the number of requests at once.
#[derive(Debug)]
pub(crate) struct InFlight {
    amount: u64,
    now: Mutex<HashMap<String, u64>>,
}

/// One of those requests. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Counted {
    of: Arc<InFlight>,
    key: String,
}

impl InFlight {
    pub(crate) fn new(amount: u64) -> InFlight {
        InFlight { amount, now: Mutex::default() }
    }

    /// Takes one request; none if there are too many.
    pub(crate) fn take(self: &Arc<InFlight>, key: &str) -> Option<Counted> {
        let mut now = self.now.lock();
        let count = now.entry(key.to_owned()).or_default();
        if *count >= self.amount {
            return None;
        }
        *count += 1;
        Some(Counted { of: self.clone(), key: key.to_owned() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut now = self.of.now.lock();
        if let Some(count) = now.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                now.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_through_a_burst_and_then_one_each_interval() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let take = |ms: u64| rate.take("a", at(ms)).map_err(|it| it.as_millis());
        assert_eq!([take(0), take(0), take(0)], [Ok(()), Ok(()), Ok(())]);
        assert_eq!(take(0), Err(100));
        assert_eq!(take(50), Err(50));
        assert_eq!(take(100), Ok(()));
        assert_eq!(rate.take("b", at(100)), Ok(()));
        assert_eq!([take(1000), take(1000), take(1000)], [Ok(()), Ok(()), Ok(())]);
        assert!(take(1000).is_err());
    }

    #[test]
    fn only_so_many_requests_are_in_flight_at_once() {
        let limit = Arc::new(InFlight::new(1));
        let one = limit.take("a").expect("the first");
        assert!(limit.take("a").is_none() && limit.take("b").is_some());
        drop(one);
        assert!(limit.take("a").is_some());
        assert!(limit.now.lock().is_empty());
    }
}
