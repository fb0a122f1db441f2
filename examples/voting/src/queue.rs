//! The queue: votes wait here until a worker has stored them. First in, first out, in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::{setting, wire};

/// Votes that may wait; more are refused, so that a lost worker does not eat the host's memory.
const WAITING_MAX: usize = 100_000;

/// Maximum time that `POP` waits for a vote before it answers that there is none.
const POP_WAIT: Duration = Duration::from_secs(2);

type Shared = Arc<(Mutex<VecDeque<String>>, Condvar)>;

/// The queue as one connection sees it.
struct Taker {
    shared: Shared,
    /// The vote that this connection took. It goes back to the front unless `DONE` follows.
    taken: Option<String>,
}

pub(crate) fn run() -> io::Result<()> {
    let shared: Shared = Arc::default();
    wire::serve(&setting("PORT", "7001"), move || {
        let mut taker = Taker { shared: shared.clone(), taken: None };
        move |line: &str| taker.answer(line)
    })
}

impl Taker {
    /// `PUSH <vote>` → `OK` or `FULL`; `POP` → `VOTE <vote>` or `NONE`; `DONE` → `OK`; `LEN` → a number.
    fn answer(&mut self, line: &str) -> String {
        self.give_back(line == "DONE");
        let (votes, news) = &*self.shared;
        let mut votes = votes.lock().unwrap_or_else(PoisonError::into_inner);
        match line.split_once(' ').unwrap_or((line, "")) {
            ("PUSH", _) if votes.len() >= WAITING_MAX => "FULL".into(),
            ("PUSH", vote) => {
                votes.push_back(vote.to_owned());
                news.notify_one();
                "OK".into()
            }
            ("POP", _) => {
                let waited = news.wait_timeout_while(votes, POP_WAIT, |votes| votes.is_empty());
                let (mut votes, _) = waited.unwrap_or_else(PoisonError::into_inner);
                self.taken = votes.pop_front();
                self.taken.as_ref().map_or_else(|| "NONE".into(), |vote| format!("VOTE {vote}"))
            }
            ("DONE", _) => "OK".into(),
            ("LEN", _) => votes.len().to_string(),
            _ => "ERR expected PUSH, POP, DONE or LEN".into(),
        }
    }

    fn give_back(&mut self, is_done: bool) {
        let Some(vote) = self.taken.take().filter(|_| !is_done) else { return };
        let (votes, news) = &*self.shared;
        votes.lock().unwrap_or_else(PoisonError::into_inner).push_front(vote);
        news.notify_one();
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.give_back(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_leave_in_the_order_they_came() {
        let shared = Shared::default();
        let mut taker = Taker { shared, taken: None };
        for (line, expected) in [
            ("PUSH x a", "OK"),
            ("PUSH y b", "OK"),
            ("LEN", "2"),
            ("POP", "VOTE x a"),
            ("DONE", "OK"),
            ("POP", "VOTE y b"),
            ("LEN", "1"),
            ("POP", "VOTE y b"),
            ("DONE", "OK"),
            ("LEN", "0"),
            ("SING", "ERR expected PUSH, POP, DONE or LEN"),
        ] {
            assert_eq!(taker.answer(line), expected, "{line}");
        }
    }

    #[test]
    fn a_vote_that_was_not_stored_goes_back_to_the_front() {
        let shared = Shared::default();
        let taker = || Taker { shared: shared.clone(), taken: None };
        assert_eq!(taker().answer("PUSH x a"), "OK");
        assert_eq!(taker().answer("PUSH y b"), "OK");
        assert_eq!(taker().answer("POP"), "VOTE x a");
        assert_eq!(taker().answer("POP"), "VOTE x a");
    }
}
