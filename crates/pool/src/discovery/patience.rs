//! How often something that fails is tried again, and what is said about it: once when it fails, once when it works again.

use std::fmt::Display;
use std::time::Duration;

use tracing::{info, warn};

/// First pause after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// Longest pause: a store that is back is found within this time.
const PAUSE_MAX: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Patience {
    /// What is tried, for the log: "following the members".
    what: &'static str,
    pause: Option<Duration>,
}

impl Patience {
    pub(super) fn new(what: &'static str) -> Patience {
        Patience { what, pause: None }
    }

    pub(super) fn worked(&mut self) {
        if self.pause.take().is_some() {
            info!("{} works again", self.what);
        }
    }

    /// How long to wait before the next attempt.
    pub(super) fn failed(&mut self, error: &dyn Display) -> Duration {
        let pause = match self.pause {
            None => {
                warn!(%error, "{} failed; it is tried again until it works", self.what);
                PAUSE_MIN
            }
            Some(pause) => (pause * 2).min(PAUSE_MAX),
        };
        self.pause = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_anew_after_success() {
        let mut patience = Patience::new("test");
        let mut pauses = || patience.failed(&"no").as_millis();
        assert_eq!([pauses(), pauses(), pauses(), pauses(), pauses(), pauses()], [250, 500, 1000, 2000, 3000, 3000]);
        patience.worked();
        assert_eq!(patience.failed(&"no").as_millis(), 250);
    }
}
