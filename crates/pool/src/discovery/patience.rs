//! Back-off for repeated failures. It logs once at the failure, and once at the recovery.

use std::fmt::Display;
use std::time::Duration;

use tracing::{info, warn};

/// First pause after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// Longest pause: a store that is back is found within this time.
const PAUSE_MAX: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Patience {
    /// Name of the activity, for the log: "following the members".
    what: &'static str,
    pause: Option<Duration>,
}

impl Patience {
    pub(super) fn new(what: &'static str) -> Patience {
        Patience { what, pause: None }
    }

    pub(super) fn worked(&mut self) {
        if self.pause.take().is_some() {
            info!("{} succeeded again", self.what);
        }
    }

    /// Records a failure; returns the pause before the next attempt.
    pub(super) fn failed(&mut self, error: &dyn Display) -> Duration {
        let pause = match self.pause {
            None => {
                warn!(%error, "{} failed; retrying with backoff", self.what);
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
