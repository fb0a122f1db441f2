//! State of the log: the view, and the requests seen lately. Pure.

use std::collections::{HashMap, VecDeque};

use herder_model::swarm::{Conflict, View, Written};
use serde::{Deserialize, Serialize};

use crate::raft::{Outcome, Proposal, RequestId};

/// Window of deduplication, in commands. A proposal that arrives later than this after its request is not applied. At a
/// thousand commands a second it is some 16 s, nearly as long as a request is tried; one that takes longer is answered
/// with [`crate::StoreError::Lost`].
pub(crate) const WINDOW: u64 = 16_384;

/// A request that was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) request: RequestId,
    pub(crate) index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) conflict: Option<Box<Conflict>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) view: View,
    /// Recent requests, in the order of their commands.
    recent: VecDeque<Remembered>,
    requests: HashMap<RequestId, u64>,
}

impl State {
    pub(crate) fn of(view: View, recent: Vec<Remembered>) -> State {
        let requests = recent.iter().map(|it| (it.request, it.index)).collect();
        State { view, recent: recent.into(), requests }
    }

    pub(crate) fn recent(&self) -> impl Iterator<Item = &Remembered> {
        self.recent.iter()
    }

    /// Applies a log entry without a command (blank or membership); only the index advances.
    pub(crate) fn pass(&mut self, index: u64) {
        self.view.index = index;
    }

    /// Applies a proposal as the command with this number, if it was not applied before. Says what it changed.
    pub(crate) fn apply(&mut self, index: u64, proposal: &Proposal) -> (Outcome, Vec<Written>) {
        self.forget(index);
        if let Some(before) = self.requests.get(&proposal.request) {
            let at = self.recent.partition_point(|it| it.index < *before);
            let outcome = match self.recent.get(at).and_then(|it| it.conflict.clone()) {
                Some(conflict) => Outcome::Conflict(*conflict),
                None => Outcome::Done(*before),
            };
            self.pass(index);
            return (outcome, Vec::new());
        }
        if proposal.since + WINDOW < index {
            self.pass(index);
            return (Outcome::Late, Vec::new());
        }
        let applied = self.view.apply(index, &proposal.command);
        let conflict = applied.as_ref().err().cloned().map(Box::new);
        self.recent.push_back(Remembered { request: proposal.request, index, conflict });
        self.requests.insert(proposal.request, index);
        match applied {
            Ok(written) => (Outcome::Done(index), written),
            Err(conflict) => (Outcome::Conflict(conflict), Vec::new()),
        }
    }

    fn forget(&mut self, index: u64) {
        while self.recent.front().is_some_and(|it| it.index + WINDOW < index) {
            if let Some(old) = self.recent.pop_front() {
                self.requests.remove(&old.request);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Change, Command, Secret, Time};

    use super::*;

    fn proposal(request: u128, since: u64, name: &str) -> Proposal {
        let mut secret = Secret { id: format!("id-{request}"), ..Secret::default() };
        secret.spec.name = name.to_owned();
        let command = Command { at: Time(1), changes: vec![Change::from(secret)] };
        Proposal { request: RequestId(request), since, command }
    }

    #[test]
    fn a_request_counts_once() {
        let mut state = State::default();
        let mut check = |index: u64, proposal: &Proposal, expected: &str, written: usize| {
            let (outcome, changes) = state.apply(index, proposal);
            assert_eq!((format!("{outcome:?}"), changes.len()), (expected.to_owned(), written));
            state = State::of(state.view.clone(), state.recent().cloned().collect());
            assert_eq!(state.view.index, index);
        };
        let conflict = r#"Conflict(Name { kind: Secret, name: "b" })"#;
        check(3, &proposal(1, 2, "b"), "Done(3)", 1);
        check(4, &proposal(2, 2, "b"), conflict, 0);
        check(5, &proposal(1, 2, "b"), "Done(3)", 0);
        check(6, &proposal(2, 2, "b"), conflict, 0);
        check(3 + WINDOW, &proposal(1, 2, "b"), "Done(3)", 0);
        check(4 + WINDOW, &proposal(1, 2, "b"), "Late", 0);
        check(5 + WINDOW, &proposal(3, 5, "c"), &format!("Done({})", 5 + WINDOW), 1);
    }
}
