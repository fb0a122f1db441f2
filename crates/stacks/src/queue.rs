//! The order of operations: those on one stack follow one another. Pure.

use std::collections::BTreeSet;

use herder_model::swarm::View;

use crate::record::{Found, Operation, operations, stacks};

/// Operations on one stack that wait behind the present one at most.
pub(crate) const WAITING_MAX: usize = 16;

/// The operations on a stack that are not over, the oldest first.
pub(crate) fn line(view: &View, target: &str, stack: &str) -> Vec<Found<Operation>> {
    let mut all = operations(view);
    all.retain(|it| !it.record.state.is_over() && it.record.target == target && it.record.stack == stack);
    all.reverse();
    all
}

/// The operations whose turn it is, one of each stack, the oldest first.
pub fn due(view: &View) -> Vec<Found<Operation>> {
    let mut all = operations(view);
    all.retain(|it| !it.record.state.is_over());
    all.reverse();
    // Clocks of doors differ: a present one may look younger than one that waits behind it.
    let targets: BTreeSet<&str> = all.iter().map(|it| it.record.target.as_str()).collect();
    let present: BTreeSet<String> =
        targets.into_iter().flat_map(|it| stacks(view, it)).map(|it| it.record.operation).collect();
    let of = |it: &Found<Operation>| (it.record.target.clone(), it.record.stack.clone());
    let mut taken: BTreeSet<(String, String)> = all.iter().filter(|it| present.contains(&it.id)).map(of).collect();
    all.retain(|it| present.contains(&it.id) || taken.insert(of(it)));
    all
}
