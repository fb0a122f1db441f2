//! How fast the tasks of nodes that went down are replaced. If half of a cluster is not heard of, then more often because a
//! network is broken than because the nodes are: not all that ran there should at once be pulled and started on the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use herder_model::swarm::{SwarmNodeState, Time, View};

/// The share of all nodes whose tasks are replaced at once: one in three, so that a cluster in three zones gets over the loss
/// of one zone without a wait.
const SHARE: usize = 3;

/// Nodes whose tasks are replaced at once however small the cluster is.
const AT_ONCE_MIN: usize = 2;

/// Between one such share and the next: enough to start the tasks of the first, and for a short cut to heal.
const PAUSE: Duration = Duration::from_secs(5);

/// When the tasks of each node that is down are replaced.
pub(super) type Releases = BTreeMap<String, Time>;

/// Nodes in the order in which they went down; each as soon as the one that is a share before it has had its pause.
///
/// Nobody went down later than `now`, whatever the clock said when that was written.
pub(super) fn releases(view: &View, now: Time) -> Releases {
    let at_once = view.nodes.len().div_ceil(SHARE).max(AT_ONCE_MIN);
    let down = view.nodes.values().filter(|it| it.node.status.state == SwarmNodeState::Down);
    let mut down: Vec<(Time, &str)> = down.map(|it| (it.state_since.min(now), it.node.id.as_str())).collect();
    down.sort_unstable();
    let mut times: Vec<Time> = Vec::with_capacity(down.len());
    for (since, _) in &down {
        let earlier = times.len().checked_sub(at_once).map(|earlier| times[earlier] + PAUSE);
        times.push(earlier.map_or(*since, |earlier| earlier.max(*since)));
    }
    down.into_iter().map(|(_, id)| id.to_owned()).zip(times).collect()
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{NodeRecord, Object};

    use super::*;

    /// `nodes` of them, the first ones down since these seconds. When their tasks are replaced, in seconds.
    #[track_caller]
    fn check(nodes: usize, since: &[u64], expected: &[u64]) {
        let node = |number: usize| {
            let mut record = NodeRecord::default();
            record.node.id = format!("n{number:03}");
            if let Some(since) = since.get(number) {
                record.node.status.state = SwarmNodeState::Down;
                record.state_since = Time(since * 1_000_000_000);
            }
            Object::Node(record.into())
        };
        let releases = releases(&View::of(1, (0..nodes).map(node)), Time(60 * 1_000_000_000));
        assert_eq!(releases.values().map(|it| it.0 / 1_000_000_000).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn two_nodes_or_a_third_of_them_are_replaced_at_once() {
        check(3, &[], &[]);
        check(2, &[7, 7], &[7, 7]);
        check(4, &[7, 7, 7, 7], &[7, 7, 12, 12]);
        check(9, &[1, 1, 1, 1, 1, 1, 1], &[1, 1, 1, 6, 6, 6, 11]);
        check(3, &[1, 20, 20], &[1, 20, 20]);
        check(3, &[1, 4, 5], &[1, 4, 6]);
        // The clock of the leader that wrote it was an hour ahead.
        check(3, &[3600, 3600], &[60, 60]);
    }
}
