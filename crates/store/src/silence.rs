//! Tells when a manager stops to answer and when it answers again. It logs one line each, however many messages fail in
//! between.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A manager whose answers fail for this long is told as silent. A single late heartbeat is none.
const SILENT_MIN: Duration = Duration::from_secs(1);

/// Managers whose last message failed, each with the time of its first failure and whether that was told.
#[derive(Debug, Default)]
pub(crate) struct Silence(BTreeMap<String, (Instant, bool)>);

/// A change that an operator wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Every message to the manager failed for [`SILENT_MIN`].
    Silent,
    /// The manager answered after it was told as silent, this long after the first failure.
    Answers(Duration),
}

impl Silence {
    /// Notes whether a message to this manager was answered.
    pub(crate) fn note(&mut self, node: &str, is_answered: bool, now: Instant) -> Option<News> {
        if is_answered {
            return self.0.remove(node).filter(|(_, told)| *told).map(|(since, _)| News::Answers(now - since));
        }
        let (since, told) = self.0.entry(node.to_owned()).or_insert((now, false));
        let is_news = !*told && now - *since >= SILENT_MIN;
        *told |= is_news;
        is_news.then_some(News::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages to one manager, 100 ms one after the other: `x` fails, `.` is answered. `!` follows one that was told.
    #[track_caller]
    fn check(messages: &str, expected: &str) {
        let (mut silence, began) = (Silence::default(), Instant::now());
        let mut told = String::new();
        for (number, message) in messages.chars().enumerate() {
            let now = began + Duration::from_millis(100 * number as u64);
            told.push(message);
            match silence.note("a", message == '.', now) {
                Some(News::Silent) => told.push('!'),
                Some(News::Answers(after)) => told.push_str(&format!("({})", after.as_millis())),
                None => {}
            }
        }
        assert_eq!(told, expected);
    }

    #[test]
    fn a_manager_that_is_away_is_told_once() {
        check("....", "....");
        check("..x.x.xx.", "..x.x.xx.");
        check("xxxxxxxxxxxxxxxx..", "xxxxxxxxxxx!xxxxx.(1600).");
        check("xxxxxxxxxxx.xxxxxxxxxxx", "xxxxxxxxxxx!.(1100)xxxxxxxxxxx!");
    }
}
