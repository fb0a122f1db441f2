//! The queue: votes wait here until a worker takes them. First in, first out, in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::{setting, wire};

/// Votes that may wait; more are refused, so that a lost worker does not eat the host's memory.
const WAITING_MAX: usize = 100_000;

/// Maximum time that `POP` waits for a vote before it answers that there is none.
const POP_WAIT: Duration = Duration::from_secs(10);

type Shared = Arc<(Mutex<VecDeque<String>>, Condvar)>;

pub(crate) fn run() -> io::Result<()> {
    let shared: Shared = Arc::default();
    wire::serve(&setting("PORT", "7001"), move |line| answer(&shared, line))
}

/// `PUSH <vote>` → `OK` or `FULL`; `POP` → `VOTE <vote>` or `NONE`; `LEN` → a number.
fn answer(shared: &Shared, line: &str) -> String {
    let (votes, news) = &**shared;
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
            votes.pop_front().map_or_else(|| "NONE".into(), |vote| format!("VOTE {vote}"))
        }
        ("LEN", _) => votes.len().to_string(),
        _ => "ERR expected PUSH, POP or LEN".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_leave_in_the_order_they_came() {
        let shared = Shared::default();
        for (line, expected) in [
            ("PUSH x a", "OK"),
            ("PUSH y b", "OK"),
            ("LEN", "2"),
            ("POP", "VOTE x a"),
            ("POP", "VOTE y b"),
            ("LEN", "0"),
            ("SING", "ERR expected PUSH, POP or LEN"),
        ] {
            assert_eq!(answer(&shared, line), expected, "{line}");
        }
    }
}
