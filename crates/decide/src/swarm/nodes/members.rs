//! Nodes of a swarm: who comes, as what, and who is down.

use std::sync::Arc;
use std::time::Duration;

use herder_model::Liveness;
use herder_model::swarm::{
    Change, ClusterRecord, Hello, NodeDescription, NodeRecord, NodeStatus, Role, SwarmNode, SwarmNodeState, Time, View,
};

use subtle::ConstantTimeEq as _;

use super::level;
use crate::swarm::orchestrate::draft::{is_dead, is_wanted};

/// Reason why a removed node is not admitted again.
const REMOVED: &str = "this node was removed from the swarm; `docker swarm leave --force`, then join again";
const NO_TOKEN: &str = "A valid join token is necessary to join this cluster";

/// A node opens a session: what is written of it. Nothing, if it is known as it is.
pub fn comes(view: &View, id: &str, hello: &Hello, now: Time) -> Result<Option<Change>, String> {
    let cluster = view.cluster.as_ref().ok_or("this manager knows no swarm yet")?;
    if cluster.removed.contains(id) {
        return Err(REMOVED.to_owned());
    }
    let asked = role_of(cluster, &hello.token)?;
    let known = view.nodes.get(id);
    let mut record = known.map(|it| NodeRecord::clone(it)).unwrap_or_else(|| {
        let mut node = SwarmNode { id: id.to_owned(), ..SwarmNode::default() };
        node.spec.availability = hello.availability;
        NodeRecord { node, ..NodeRecord::default() }
    });
    // A token may only make more of a node. Less is made of it by hand.
    let role = record.node.spec.role.max(asked);
    if role == Role::Manager && record.node.spec.role != Role::Manager {
        level::may_manage(view, hello.level)?;
    }
    record.node.spec.role = role;
    record.level = hello.level;
    record.addr.clone_from(&hello.addr);
    // A node whose engine never answered cannot say what it is.
    if hello.engine_error.is_empty() || known.is_none() || hello.description != NodeDescription::default() {
        record.node.description = hello.description.clone();
    }
    let addr = host(&hello.addr);
    let status = match &*hello.engine_error {
        "" => NodeStatus { state: SwarmNodeState::Ready, addr, ..NodeStatus::default() },
        error => NodeStatus {
            state: SwarmNodeState::Down,
            message: format!("engine: {error}"),
            addr,
            ..NodeStatus::default()
        },
    };
    set_status(&mut record, status, now);
    record.fenced_off = false;
    Ok((known.map(Arc::as_ref) != Some(&record)).then(|| record.into()))
}

/// Returns the change that marks a silent node `Down`. `fenced_off` is true once the node must have ended its fenced
/// tasks.
pub fn goes(view: &View, id: &str, message: &str, fenced_off: bool, now: Time) -> Option<Change> {
    let known = view.nodes.get(id)?;
    let mut record = NodeRecord::clone(known);
    let addr = record.node.status.addr.clone();
    let status = NodeStatus { state: SwarmNodeState::Down, message: message.to_owned(), addr, ..NodeStatus::default() };
    set_status(&mut record, status, now);
    record.fenced_off = fenced_off;
    (**known != record).then(|| record.into())
}

/// Records that certificates of a manager that this node has got so far do not count any more.
pub fn demoted(view: &View, id: &str, now: Time) -> Option<Change> {
    let mut cluster = ClusterRecord::clone(view.cluster.as_ref()?);
    let millis = now.since(Time::default()).as_millis();
    cluster.demoted.insert(id.to_owned(), u64::try_from(millis).unwrap_or(u64::MAX));
    Some(cluster.into())
}

/// A node that went down longer ago than that has been given up for longer than anything here waits.
const LATELY: Duration = Duration::from_secs(60);

/// Restarts the down-timer of nodes whose tasks are not yet, or only just, given up. A new leader applies this first,
/// so that orphaning stays rate-limited across a failover. How many are given up at once is counted by that.
pub fn renewed(view: &View, now: Time) -> Vec<Change> {
    let counts = |it: &&Arc<NodeRecord>| {
        let is_down = it.node.status.state == SwarmNodeState::Down;
        let waits = || view.tasks_of_node(&it.node.id).any(|task| is_wanted(task) && !is_dead(task));
        is_down && (now.since(it.state_since) < LATELY || waits())
    };
    let renewed = |it: &Arc<NodeRecord>| {
        // Those whose turn has come already keep it, by this leader's clock.
        let given_up_at = if it.given_up_at == Time::default() { it.given_up_at } else { now };
        NodeRecord { state_since: now, given_up_at, ..NodeRecord::clone(it) }
    };
    view.nodes.values().filter(counts).map(|it| renewed(it).into()).collect()
}

fn role_of(cluster: &ClusterRecord, token: &str) -> Result<Role, String> {
    let tokens = cluster.cluster.join_tokens.as_ref();
    match tokens {
        _ if token.is_empty() => Ok(Role::Worker),
        Some(tokens) if same(&tokens.manager, token) => Ok(Role::Manager),
        Some(tokens) if same(&tokens.worker, token) => Ok(Role::Worker),
        _ => Err(NO_TOKEN.to_owned()),
    }
}

/// Compares two tokens in constant time.
fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn set_status(record: &mut NodeRecord, status: NodeStatus, now: Time) {
    if record.node.status.state != status.state || record.state_since == Time::default() {
        (record.state_since, record.given_up_at) = (now, Time::default());
    }
    record.node.status = status;
}

fn host(addr: &str) -> String {
    herder_model::host_of(addr).trim_matches(['[', ']']).to_owned()
}

/// Label of services that never have a task twice if it is `true`: nodes that lose the leader stop them.
pub const FENCE: &str = "herder.fence";

/// Scale of heartbeat times. It grows with the number of nodes, so that heartbeats do not take all of a leader's time.
/// All times by which nodes are judged grow as many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeartbeatScale(u32);

/// Number of nodes that keep the full rate, which replaces their tasks within seconds: 5,000 messages a second.
const NODES_AT_FULL_RATE: usize = 2_000;
/// Interval of heartbeats at full rate.
const HEARTBEAT: Duration = Duration::from_millis(400);
/// Time after an answer of the leader in which a node is the only one with its tasks.
const LEASE: Duration = Duration::from_secs(2);

impl Default for HeartbeatScale {
    fn default() -> HeartbeatScale {
        HeartbeatScale(1)
    }
}

impl HeartbeatScale {
    /// Returns the scale of a swarm with so many nodes.
    pub fn of(nodes: usize) -> HeartbeatScale {
        HeartbeatScale(u32::try_from(nodes.div_ceil(NODES_AT_FULL_RATE)).unwrap_or(u32::MAX).max(1))
    }

    pub fn heartbeat(self) -> Duration {
        HEARTBEAT.saturating_mul(self.0)
    }

    pub fn lease(self) -> Duration {
        LEASE.saturating_mul(self.0)
    }
}

/// Signs of a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// Time since the last heartbeat.
    pub silent: Duration,
    pub gossip: Liveness,
    /// Scale that the node was given.
    pub scale: HeartbeatScale,
}

/// Silence after which a node is down, whatever gossip reports: its loops hang, or it does not find the leader.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// A node that gossip suspects is down after so long without a word: gossip suspects, the session confirms. Longer than three
/// heartbeats, so that a busy machine is not taken for a dead one.
const CONFIRM_SUSPECT: Duration = Duration::from_millis(1500);
/// Silence after which a node is down that gossip believes to be dead.
const CONFIRM: Duration = Duration::from_millis(1200);
/// Silence after which a node has ended its fenced tasks. It is the lease of 2 s that the leader gives, and time
/// to kill them.
const FENCED_OFF: Duration = Duration::from_millis(3000);

/// Time in which a node that was stopped in good order may come back, as in swarm mode. Its containers run all the
/// time.
const STOPPED_MAX: Duration = Duration::from_secs(15);

/// True if a node counts as down.
pub fn is_down(signs: Signs) -> bool {
    let silent_max = SILENT_MAX.saturating_mul(signs.scale.0);
    signs.silent
        >= match signs.gossip {
            Liveness::Alive => silent_max,
            Liveness::Suspect => CONFIRM_SUSPECT.saturating_mul(signs.scale.0),
            Liveness::Left => STOPPED_MAX.max(silent_max),
            Liveness::Dead => CONFIRM.saturating_mul(signs.scale.0),
        }
}

/// True if a node that is down has ended what must never run twice.
pub fn is_fenced_off(signs: Signs) -> bool {
    signs.silent >= FENCED_OFF.saturating_mul(signs.scale.0)
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Cluster, Command, JoinTokens, Task, TaskRecord, TaskState};

    use super::*;

    fn view() -> View {
        let tokens = JoinTokens { worker: "W".into(), manager: "M".into(), ..JoinTokens::default() };
        let cluster = Cluster { id: "c".into(), join_tokens: Some(tokens), ..Cluster::default() };
        let record = ClusterRecord { cluster, removed: ["gone".to_owned()].into(), ..ClusterRecord::default() };
        let mut view = View::default();
        view.apply(1, &Command { at: Time(1), changes: vec![record.into()] }).expect("new");
        view
    }

    #[test]
    fn a_node_is_what_its_token_says_and_stays_what_it_was_made() {
        let mut view = view();
        let mut index = 1;
        let mut check = |id: &str, token: &str, expected: &str| {
            index += 1;
            let hello = Hello { addr: "10.0.0.1:7946".into(), token: token.into(), ..Hello::default() };
            let text = match comes(&view, id, &hello, Time(index)) {
                Err(error) => error,
                Ok(None) => "known".to_owned(),
                Ok(Some(change)) => {
                    view.apply(index, &Command { at: Time(index), changes: vec![change] }).expect("fits");
                    let node = &view.nodes[id];
                    format!("{:?} {:?} {}", node.node.spec.role, node.node.status.state, node.node.status.addr)
                }
            };
            assert_eq!(text, expected, "{id} {token}");
        };
        check("a", "", "Worker Ready 10.0.0.1");
        check("a", "", "known");
        check("a", "M", "Manager Ready 10.0.0.1");
        check("a", "W", "known");
        check("b", "X", NO_TOKEN);
        check("gone", "M", REMOVED);
    }

    #[test]
    fn a_node_whose_engine_does_not_answer_is_down_and_says_why() {
        let mut view = view();
        let mut index = 1;
        let mut check = |engine_error: &str, hostname: &str, expected: &str| {
            index += 1;
            let description = NodeDescription { hostname: hostname.into(), ..NodeDescription::default() };
            let hello = Hello { engine_error: engine_error.into(), description, ..Hello::default() };
            let change = comes(&view, "a", &hello, Time(index)).expect("welcome").expect("a change");
            view.apply(index, &Command { at: Time(index), changes: vec![change] }).expect("fits");
            let node = &view.nodes["a"].node;
            let text = format!("{:?} {} {}", node.status.state, node.description.hostname, node.status.message);
            assert_eq!(text, expected);
        };
        check("", "h1", "Ready h1 ");
        check("it hangs", "h1", "Down h1 engine: it hangs");
        check("it is dead", "", "Down h1 engine: it is dead");
        check("", "h1", "Ready h1 ");
    }

    #[test]
    fn a_node_that_goes_is_told_once() {
        let mut view = view();
        let come = comes(&view, "a", &Hello::default(), Time(2)).expect("welcome").expect("new");
        view.apply(2, &Command { at: Time(2), changes: vec![come] }).expect("fits");
        let gone = goes(&view, "a", "heartbeat failure", false, Time(3)).expect("a change");
        view.apply(3, &Command { at: Time(3), changes: vec![gone] }).expect("fits");
        assert_eq!(view.nodes["a"].state_since, Time(3));
        assert_eq!(goes(&view, "a", "heartbeat failure", false, Time(4)), None);
        assert_eq!(goes(&view, "b", "", false, Time(4)), None);
        let off = goes(&view, "a", "heartbeat failure", true, Time(5)).expect("a change");
        view.apply(5, &Command { at: Time(5), changes: vec![off] }).expect("fits");
        assert_eq!((view.nodes["a"].state_since, view.nodes["a"].fenced_off), (Time(3), true));
        let back = comes(&view, "a", &Hello::default(), Time(6)).expect("welcome").expect("changed");
        view.apply(6, &Command { at: Time(6), changes: vec![back] }).expect("fits");
        assert!(!view.nodes["a"].fenced_off);
    }

    #[test]
    fn another_leader_counts_anew_the_nodes_whose_tasks_it_may_give_up() {
        let mut view = view();
        let (now, long_ago) = (Time(100_000_000_000), Time(2));
        let node = |id: &str, state, state_since| {
            let mut node = SwarmNode { id: id.into(), ..SwarmNode::default() };
            node.status.state = state;
            NodeRecord { node, state_since, ..NodeRecord::default() }
        };
        let task = |id: &str, node: &str, state, desired_state| {
            let mut task = Task { id: id.into(), node_id: node.into(), desired_state, ..Task::default() };
            task.status.state = state;
            TaskRecord { task, ..TaskRecord::default() }
        };
        let changes = vec![
            node("completed", SwarmNodeState::Down, long_ago).into(),
            node("given-up", SwarmNodeState::Down, long_ago).into(),
            node("lately", SwarmNodeState::Down, Time(99_000_000_000)).into(),
            node("ready", SwarmNodeState::Ready, long_ago).into(),
            node("waits", SwarmNodeState::Down, long_ago).into(),
            task("1", "ready", TaskState::Running, TaskState::Running).into(),
            task("2", "given-up", TaskState::Running, TaskState::Shutdown).into(),
            task("3", "completed", TaskState::Complete, TaskState::Complete).into(),
            task("4", "waits", TaskState::Running, TaskState::Running).into(),
        ];
        view.apply(2, &Command { at: now, changes }).expect("fits");
        let changes = renewed(&view, now);
        view.apply(3, &Command { at: now, changes }).expect("fits");
        let renewed = view.nodes.values().filter(|it| it.state_since == now).map(|it| it.node.id.as_str());
        assert_eq!(renewed.collect::<Vec<_>>(), ["lately", "waits"]);
    }

    #[test]
    fn gossip_suspects_and_the_session_confirms() {
        let check = |nodes: usize, silent_ms, gossip, expected: (bool, bool)| {
            let signs = Signs { silent: Duration::from_millis(silent_ms), gossip, scale: HeartbeatScale::of(nodes) };
            assert_eq!((is_down(signs), is_fenced_off(signs)), expected, "{signs:?}");
            // Who still has the lease is never taken for one that has ended what must not run twice.
            assert!(signs.silent > signs.scale.lease() || !is_fenced_off(signs));
        };
        for (silent_ms, gossip, down, fenced_off) in [
            (0, Liveness::Dead, false, false),
            (1300, Liveness::Dead, true, false),
            (1300, Liveness::Alive, false, false),
            (1400, Liveness::Suspect, false, false),
            (1500, Liveness::Suspect, true, false),
            (3000, Liveness::Dead, true, true),
            (4900, Liveness::Alive, false, true),
            (5000, Liveness::Alive, true, true),
            (5000, Liveness::Left, false, true),
            (15_000, Liveness::Left, true, true),
        ] {
            check(3, silent_ms, gossip, (down, fenced_off));
            if gossip != Liveness::Left {
                check(10_000, silent_ms * 5, gossip, (down, fenced_off));
            }
        }
        check(2_000, 1500, Liveness::Suspect, (true, false));
        check(2_001, 1500, Liveness::Suspect, (false, false));
        check(10_000, 24_999, Liveness::Left, (false, true));
        check(10_000, 25_000, Liveness::Left, (true, true));
    }
}
