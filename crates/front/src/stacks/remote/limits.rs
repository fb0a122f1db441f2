//! Limits for calls to remote engines: those at the same time, and those to an address that does not answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use herder_deploy::Fault;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Connections to one address at the same time. Each call has one of its own; more calls wait for their turn. Streams, pulls of images
/// and copies of files last long and do not count.
const CONNECTIONS_MAX: usize = 4;
/// Faults in a row after which an address is not tried for a while.
const FAULTS_MAX: u32 = 5;
/// The time for which an address is not tried then.
const OPEN_TIME: Duration = Duration::from_secs(10);
/// Addresses whose faults are remembered.
const ADDRESSES_MAX: usize = 1024;

/// Recent faults and calls under way of remote engines, by address.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    breakers: Mutex<BTreeMap<String, Breaker>>,
    turns: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

#[derive(Clone, Copy, Debug)]
struct Breaker {
    faults: u32,
    last: Instant,
}

impl Limits {
    /// Refuses an address that failed often, until its time is over.
    pub(super) fn check(&self, addr: &str, now: Instant) -> Result<(), Fault> {
        let breakers = self.breakers.lock();
        let Some(breaker) = breakers.get(addr) else { return Ok(()) };
        let since = now.saturating_duration_since(breaker.last);
        if breaker.faults < FAULTS_MAX || since >= OPEN_TIME {
            return Ok(());
        }
        Err(Fault::Unreachable(format!(
            "{addr} did not answer {} times, the last {} s ago; it is asked again {} s after that",
            breaker.faults,
            since.as_secs(),
            OPEN_TIME.as_secs()
        )))
    }

    pub(super) fn heard(&self, addr: &str, is_fault: bool, now: Instant) {
        let mut breakers = self.breakers.lock();
        if !is_fault {
            breakers.remove(addr);
        } else if breakers.len() < ADDRESSES_MAX || breakers.contains_key(addr) {
            let breaker = breakers.entry(addr.to_owned()).or_insert(Breaker { faults: 0, last: now });
            *breaker = Breaker { faults: breaker.faults + 1, last: now };
        }
    }

    /// The turns of all callers of an address.
    pub(super) fn turns(&self, addr: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock();
        if let Some(there) = turns.get(addr).and_then(Weak::upgrade) {
            return there;
        }
        turns.retain(|_, it| it.strong_count() > 0);
        let new = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        turns.insert(addr.to_owned(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_failed_five_times_is_left_alone_for_ten_seconds() {
        let limits = Limits::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for fault in 0..5 {
            assert!(limits.check("a:1", at(fault)).is_ok(), "{fault}");
            limits.heard("a:1", true, at(fault));
        }
        assert_eq!(
            limits.check("a:1", at(6)).expect_err("it is open").to_string(),
            "a:1 did not answer 5 times, the last 2 s ago; it is asked again 10 s after that"
        );
        assert!(limits.check("b:1", at(6)).is_ok());
        assert!(limits.check("a:1", at(14)).is_ok());
        limits.heard("a:1", false, at(14));
        limits.heard("a:1", true, at(15));
        assert!(limits.check("a:1", at(15)).is_ok());
    }

    #[test]
    fn callers_of_one_address_share_its_turns() {
        let limits = Limits::default();
        let (one, other) = (limits.turns("a:1"), limits.turns("a:1"));
        assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &limits.turns("b:1")));
        assert_eq!(one.available_permits(), CONNECTIONS_MAX);
        drop((one, other));
        limits.turns("c:1");
        assert!(!limits.turns.lock().contains_key("a:1"));
    }
}
