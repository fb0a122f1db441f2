//! Check of linearizability, by the search of Wing and Gong. Each operation of a client must take effect at one moment
//! between its question and its answer.

use std::collections::HashSet;

/// Operation of a client with its answer. Values are numbers that are written once only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    Read(Option<u64>),
    /// Wrote `new` in the place of `old`.
    Replaced {
        old: Option<u64>,
        new: u64,
    },
    /// The store reported another value than `old`.
    Refused {
        old: Option<u64>,
    },
    Removed,
    /// The outcome of the write is unknown.
    MayHaveReplaced {
        old: Option<u64>,
        new: u64,
    },
    MayHaveRemoved,
}

/// One call. Moments are numbers that grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) asked: u64,
    /// Time of the answer; `None` if there was none.
    pub(crate) heard: Option<u64>,
    pub(crate) did: Did,
}

/// More calls of one object than this are refused: the search keeps them as bits.
pub(crate) const CALLS_MAX: usize = 128;

/// True if there is an order. The object is not there at first.
pub(crate) fn is_linearizable(calls: &[Call]) -> bool {
    assert!(calls.len() <= CALLS_MAX, "{} calls of one object", calls.len());
    let mut seen = HashSet::new();
    search(calls, 0, None, &mut seen)
}

fn search(calls: &[Call], done: u128, value: Option<u64>, seen: &mut HashSet<(u128, Option<u64>)>) -> bool {
    let open = || calls.iter().enumerate().filter(|(at, _)| done & (1 << at) == 0);
    // A call that was answered must come before whatever was asked later.
    let Some(first_heard) = open().filter_map(|(_, call)| call.heard).min() else {
        return true;
    };
    if !seen.insert((done, value)) {
        return false;
    }
    open()
        .filter(|(_, call)| call.asked < first_heard)
        .any(|(at, call)| after(call.did, value).is_some_and(|next| search(calls, done | 1 << at, next, seen)))
}

/// The value after a call, if it can be answered so.
fn after(did: Did, value: Option<u64>) -> Option<Option<u64>> {
    match did {
        Did::Read(read) => (read == value).then_some(value),
        Did::Replaced { old, new } | Did::MayHaveReplaced { old, new } => (old == value).then_some(Some(new)),
        Did::Refused { old } => (old != value).then_some(value),
        Did::Removed | Did::MayHaveRemoved => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<u64> {
        text.parse().ok()
    }

    /// Lines of `asked answered operation`. Examples are `1 4 -→7` (7 was written where nothing was), `5 - 7→8?`, `6 9
    /// read 7`.
    fn check(text: &str, expected: bool) {
        let calls: Vec<Call> = text
            .split(", ")
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let asked = words.next().and_then(value).expect("a moment");
                let heard = words.next().and_then(value);
                let what = words.next().expect("what was done");
                let did = match (what.strip_prefix("read "), what.split_once('→'), what.strip_prefix("not ")) {
                    (Some(read), _, _) => Did::Read(value(read)),
                    (_, Some((old, new)), _) => match new.strip_suffix('?') {
                        Some(new) => Did::MayHaveReplaced { old: value(old), new: value(new).expect("one") },
                        None => Did::Replaced { old: value(old), new: value(new).expect("one") },
                    },
                    (_, _, Some(old)) => Did::Refused { old: value(old) },
                    _ if what == "rm" => Did::Removed,
                    _ => Did::MayHaveRemoved,
                };
                Call { asked, heard, did }
            })
            .collect();
        assert_eq!(is_linearizable(&calls), expected, "{text}");
    }

    #[test]
    fn a_history_is_told_in_some_order_or_in_none() {
        check("1 2 -→7, 3 4 read 7", true);
        check("1 2 -→7, 3 4 read -", false);
        check("1 4 -→7, 2 3 read -", true);
        check("1 9 -→7, 2 3 read 7, 4 5 read -", false);
        check("1 2 -→7, 3 4 7→8, 5 6 7→9", false);
        check("1 2 -→7, 3 4 7→8, 5 6 not 7", true);
        check("1 2 -→7, 3 4 not 7", false);
        check("1 - -→7?, 2 3 read -, 4 5 read 7", true);
        check("1 - -→7?, 2 3 read 7, 4 5 read -", false);
        check("1 - -→7?, 2 3 read -, 4 5 read -", true);
        check("1 2 -→7, 3 4 rm, 5 6 read -, 7 8 -→8", true);
        check("1 2 -→7, 3 - rm?, 5 6 read 7, 7 8 read -", true);
        check("1 2 -→7, 3 - rm?, 5 6 read -, 7 8 read 7", false);
    }
}
