//! Points in time as managers write them down.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970, UTC. Decisions use the leader's clock only; clocks of other nodes are not trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// Returns the time since `earlier`, or zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Reads a time of RFC 3339. Returns `None` for other texts and for times before 1970.
    pub fn parse(text: &str) -> Option<Time> {
        let nanos = text.parse::<Timestamp>().ok()?.as_nanosecond();
        u64::try_from(nanos).ok().map(Time)
    }
}

/// A source of time: the system's clock, or one that is handed in.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    pub fn new(now: impl Fn() -> Time + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    #[expect(clippy::disallowed_methods, reason = "the one clock that is handed in where nothing else is")]
    pub fn system() -> Clock {
        Clock::new(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
        })
    }

    pub fn now(&self) -> Time {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, other: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(other.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, other: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(other.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Time {
    /// RFC 3339, with as many digits as it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{}", Timestamp::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_docker_writes_them() {
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_600_000_000_000_000_000, "2020-09-13T12:26:40Z"),
            (1_600_000_000_120_000_000, "2020-09-13T12:26:40.12Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(Time(nanos).to_string(), expected);
        }
    }
}
