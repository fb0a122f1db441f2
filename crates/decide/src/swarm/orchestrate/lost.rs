//! Rate limit for the replacement of tasks of nodes that went down. If half of a cluster is not heard of, then more
//! often because a network is broken than because the nodes are: not all that ran there should at once be pulled and
//! started on the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::{NodeRecord, SwarmNodeState, Time, View};

/// Share of all nodes whose tasks are replaced at once. With one in three, a cluster in three zones survives the loss
/// of one zone without a wait.
const SHARE: usize = 3;

/// Nodes whose tasks are replaced at once however small the cluster is.
const AT_ONCE_MIN: usize = 2;

/// Pause between two shares: enough to start the tasks of the first, and for a short cut to heal.
const PAUSE: Duration = Duration::from_secs(5);

/// Times at which the tasks of each lost node are replaced.
pub(super) type Releases = BTreeMap<String, Time>;

/// Returns the release times of lost nodes, in the order in which they went down. A node is released once the one a
/// share before it has had its pause. The turn of some has come already: it counts when that was, which a node that
/// came back since may have made possible earlier or later than it looks now.
///
/// A node whose turn has come and that is not given up yet, because no leader looked meanwhile, takes its turn now: the pause after it
/// begins then.
///
/// Nobody went down later than `now`, whatever the clock said when that was written.
pub(super) fn releases(view: &View, now: Time) -> Releases {
    let at_once = view.nodes.len().div_ceil(SHARE).max(AT_ONCE_MIN);
    let down = view.nodes.values().filter(|it| it.node.status.state == SwarmNodeState::Down);
    let mut down: Vec<(bool, Time, &str)> = down.map(|it| in_order(it, now)).collect();
    down.sort_unstable();
    let (mut times, mut turns): (Vec<Time>, Vec<Time>) = Default::default();
    for (waits, since, _) in &down {
        let earlier = turns.len().checked_sub(at_once).map(|earlier| turns[earlier] + PAUSE).filter(|_| *waits);
        let time = earlier.map_or(*since, |earlier| earlier.max(*since));
        times.push(time);
        turns.push(if *waits { time.max(now) } else { time });
    }
    down.into_iter().map(|(_, _, id)| id.to_owned()).zip(times).collect()
}

/// Returns the sort key of a lost node. The key is whether the node waits for its turn, the time that counts
/// for it, and its id.
fn in_order(record: &NodeRecord, now: Time) -> (bool, Time, &str) {
    let waits = record.given_up_at == Time::default();
    let since = if waits { record.state_since } else { record.given_up_at };
    (waits, since.min(now), &record.node.id)
}

/// Records of the nodes whose turn has come: their tasks are replaced from now on.
pub fn give_up(view: &View, now: Time) -> Vec<NodeRecord> {
    let waits =
        |it: &&Arc<NodeRecord>| it.node.status.state == SwarmNodeState::Down && it.given_up_at == Time::default();
    let mut due = view.nodes.values().filter(waits).peekable();
    if due.peek().is_none() {
        return Vec::new();
    }
    let releases = releases(view, now);
    let due = due.filter(|it| releases.get(&it.node.id).is_some_and(|at| *at <= now));
    due.map(|it| NodeRecord { given_up_at: now, ..NodeRecord::clone(it) }).collect()
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Change, Command, Object};
    use proptest::prelude::*;

    use super::*;

    fn seconds(count: u64) -> Time {
        Time(count * 1_000_000_000)
    }

    fn node(number: usize) -> NodeRecord {
        let mut record = NodeRecord::default();
        record.node.id = format!("n{number:03}");
        record.node.status.state = SwarmNodeState::Ready;
        record
    }

    /// `nodes` of them, the first ones down since these seconds, and given up at those after a stroke. When their tasks are replaced, in
    /// seconds, as it looks at `now`.
    #[track_caller]
    fn check(nodes: usize, now: u64, down: &str, expected: &[u64]) {
        let down: Vec<&str> = down.split_whitespace().collect();
        let node = |number: usize| {
            let mut record = node(number);
            if let Some(down) = down.get(number) {
                let (since, given_up) = down.split_once('/').unwrap_or((down, "0"));
                record.node.status.state = SwarmNodeState::Down;
                record.state_since = seconds(since.parse().expect("seconds"));
                record.given_up_at = seconds(given_up.parse().expect("seconds"));
            }
            Object::Node(record.into())
        };
        let releases = releases(&View::of(1, (0..nodes).map(node)), seconds(now));
        assert_eq!(releases.values().map(|it| it.0 / 1_000_000_000).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn two_nodes_or_a_third_of_them_are_replaced_at_once() {
        check(3, 60, "", &[]);
        check(2, 7, "7 7", &[7, 7]);
        check(4, 7, "7 7 7 7", &[7, 7, 12, 12]);
        check(4, 12, "7/7 7/7 7 7", &[7, 7, 12, 12]);
        check(9, 1, "1 1 1 1 1 1 1", &[1, 1, 1, 6, 6, 6, 11]);
        check(3, 20, "1/1 20 20", &[1, 20, 20]);
        check(3, 5, "1/1 4/4 5", &[1, 4, 6]);
        // The clock of the leader that wrote it was an hour ahead.
        check(3, 60, "3600 3600", &[60, 60]);
        // It had waited for its turn until another one came back.
        check(3, 10, "1/1 4/9 10", &[1, 9, 10]);
        check(3, 60, "1/1 4/3600 10", &[1, 60, 10]);
        check(4, 13, "8/8 9/12 10 13", &[8, 12, 13, 17]);
        // No leader looked at them for a while.
        check(4, 30, "7 7 7 7", &[7, 7, 35, 35]);
        check(6, 30, "25/25 8 8 10", &[25, 8, 30, 35]);
    }

    proptest! {
        /// Nodes go and come back, time passes by half a second, and at some times no leader looks.
        #[test]
        fn however_nodes_go_and_come_back_no_more_than_a_share_is_given_up_within_a_pause(
            nodes in 1..8_usize, toggled in prop::collection::vec((0..24_usize, prop::bool::weighted(0.7)), 1..120),
        ) {
            let all: Vec<Object> = (0..nodes).map(|it| Object::Node(node(it).into())).collect();
            let mut view = View::of(1, all);
            let at_once = nodes.div_ceil(SHARE).max(AT_ONCE_MIN);
            for (step, (number, is_led)) in toggled.into_iter().enumerate() {
                let now = Time(seconds(100).0 + step as u64 * 500_000_000);
                let mut changes = Vec::new();
                if let Some(known) = view.nodes.get(&*format!("n{number:03}")) {
                    let mut record = NodeRecord::clone(known);
                    record.node.status.state = match record.node.status.state {
                        SwarmNodeState::Down => SwarmNodeState::Ready,
                        _ => SwarmNodeState::Down,
                    };
                    (record.state_since, record.given_up_at) = (now, Time::default());
                    changes.push(record.into());
                }
                view.apply(view.index + 1, &Command { at: now, changes }).expect("nobody else writes");
                if !is_led {
                    continue;
                }
                let given_up = give_up(&view, now).into_iter().map(Change::from).collect();
                view.apply(view.index + 1, &Command { at: now, changes: given_up }).expect("nobody else writes");
                let lately = |it: &&Arc<NodeRecord>| {
                    it.given_up_at != Time::default() && now.since(it.given_up_at) < PAUSE
                };
                let count = view.nodes.values().filter(lately).count();
                prop_assert!(count <= at_once, "{count} of {nodes} nodes");
                // Whose turn it is has it.
                let waits = |id: &String, at: &Time| *at <= now && view.nodes[id.as_str()].given_up_at == Time::default();
                prop_assert!(!releases(&view, now).iter().any(|(id, at)| waits(id, at)));
            }
        }
    }
}
