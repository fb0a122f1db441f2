//! This node's state in the swarm, in the Docker Engine's words for clients. The texts are those of the Docker Engine.

use base64::Engine as _;
use herder_model::swarm::{ManagerStatus, Reachability, Role, View};
use serde_json::{Value, json};

use crate::swarm::{Denial, list};

/// Membership of this node in a swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalState {
    /// Member of no swarm.
    #[default]
    Inactive,
    /// Joining a swarm.
    Pending,
    Active,
    /// Member of a swarm that cannot go on; [`SwarmStatus::error`] has the reason.
    Error,
    /// A manager that waits for the key of its store.
    Locked,
}

impl LocalState {
    fn as_str(self) -> &'static str {
        match self {
            LocalState::Inactive => "inactive",
            LocalState::Pending => "pending",
            LocalState::Active => "active",
            LocalState::Error => "error",
            LocalState::Locked => "locked",
        }
    }
}

/// State of this node in the swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmStatus {
    pub state: LocalState,
    pub role: Role,
    /// True if this node answers for the swarm. It is a manager that is prepared, with or without a leader at the
    /// moment.
    pub control_available: bool,
    pub node_id: String,
    /// Without port.
    pub node_addr: String,
    /// Whole sentences for a person. Empty while all is well.
    pub error: String,
    /// True if the certificate of this node is no longer valid.
    pub certificate_expired: bool,
    /// Managers that this node knows of.
    pub remote_managers: Vec<Peer>,
}

/// A manager, as other nodes know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub node_id: String,
    /// `host:port`.
    pub addr: String,
}

/// A manager, as the leader (or this one) sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagerSeen {
    pub node_id: String,
    /// `host:port`.
    pub addr: String,
    pub leader: bool,
    pub reachability: Reachability,
}

impl ManagerSeen {
    /// Returns the status in the form that a node shows.
    pub fn shown(&self) -> ManagerStatus {
        ManagerStatus {
            leader: self.leader,
            reachability: self.reachability,
            addr: self.addr.clone(),
            ..ManagerStatus::default()
        }
    }
}

const NOT_IN_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                            node to swarm and try again.";
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run \
                      this command on a manager node or promote the current node to a manager.";
const PREPARING: &str =
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to \
                      unlock it.";
const EXPIRED: &str = "Swarm certificates have expired. To replace them, leave the swarm and join again.";
const ALREADY: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another \
                       one.";
const NOT_PART: &str = "This node is not part of a swarm";
const LOCKED_LEAVE: &str =
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
const TWO_MANAGERS: &str = "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n         no fault \
                            tolerance, and poses a high risk to lose control over the cluster.\n         Refer to \
                            https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n         Swarm for \
                            fault-tolerance.";

fn unavailable(text: impl Into<String>) -> Denial {
    Denial::plain(503, text)
}

/// Returns an error unless this node is a working manager.
pub fn needs_manager(status: &SwarmStatus) -> Result<(), Denial> {
    if status.control_available {
        return Ok(());
    }
    Err(unavailable(match (status.state, status.role) {
        (LocalState::Locked, _) => LOCKED,
        (LocalState::Inactive, _) => NOT_IN_SWARM,
        _ if status.certificate_expired => EXPIRED,
        // Who joins for the first time does not know its role yet.
        (LocalState::Pending | LocalState::Error, Role::Worker | Role::Other(_)) if status.node_id.is_empty() => {
            NOT_IN_SWARM
        }
        (LocalState::Error, Role::Manager) => return Err(unavailable(format!("{PREPARING} {}", status.error))),
        (_, Role::Manager) => PREPARING,
        (_, Role::Worker | Role::Other(_)) => WORKER,
    }))
}

/// Refuses `init` and `join` on a node of a swarm. `force` makes a new swarm of what a manager has.
pub fn may_enter(status: &SwarmStatus, force: bool) -> Result<(), Denial> {
    let is_manager = status.role == Role::Manager && !status.node_id.is_empty();
    if status.state == LocalState::Inactive || force && is_manager { Ok(()) } else { Err(unavailable(ALREADY)) }
}

/// Refuses `leave` where it would do harm.
pub fn may_leave(status: &SwarmStatus, managers: &[ManagerSeen], force: bool) -> Result<(), Denial> {
    match (status.state, status.role) {
        (LocalState::Inactive, _) => Err(unavailable(NOT_PART)),
        _ if force => Ok(()),
        (LocalState::Locked, _) => Err(unavailable(LOCKED_LEAVE)),
        (_, Role::Worker | Role::Other(_)) => Ok(()),
        (_, Role::Manager) => Err(unavailable(manager_leaves(status, managers))),
    }
}

fn manager_leaves(status: &SwarmStatus, managers: &[ManagerSeen]) -> String {
    let mut text = "You are attempting to leave the swarm on a node that is participating as a manager. ".to_owned();
    let reachable = managers.iter().filter(|it| it.reachability == Reachability::Reachable).count();
    let unreachable = managers.len() - reachable;
    let this = managers.iter().find(|it| it.node_id == status.node_id);
    let this_is_reachable = this.is_some_and(|it| it.reachability == Reachability::Reachable);
    if !status.control_available {
        text.push_str("Doing so may lose the consensus of your cluster. ");
    } else if this_is_reachable && reachable <= unreachable + 2 {
        if managers.len() == 1 {
            text.push_str(
                "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
            );
            return text;
        }
        text.push_str(&format!(
            "Removing this node leaves {} managers out of {}. Without a Raft quorum your swarm will be inaccessible. ",
            reachable - 1,
            managers.len()
        ));
    }
    text.push_str(
        "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use \
         `--force` to suppress this message.",
    );
    text
}

/// Refuses `unlock` where nothing is locked, and keys that are none.
pub fn may_unlock(status: &SwarmStatus, key: &str) -> Result<(), Denial> {
    if status.state != LocalState::Locked {
        needs_manager(status)?;
        return Err(Denial::plain(409, "swarm is not locked"));
    }
    let bytes = key.strip_prefix("SWMKEY-1-").map(|key| base64::engine::general_purpose::STANDARD_NO_PAD.decode(key));
    match bytes {
        Some(Ok(bytes)) if bytes.len() == KEY_BYTES => Ok(()),
        _ => Err(Denial::plain(400, "invalid key string")),
    }
}

/// Bytes of an unlock key.
pub const KEY_BYTES: usize = 32;

/// Returns the refusal of a wrong key.
pub fn wrong_key() -> Denial {
    Denial::plain(401, "swarm could not be unlocked: invalid key provided")
}

/// The header `Swarm` of `/_ping`.
pub fn ping(status: &SwarmStatus) -> &'static str {
    match (status.state, status.control_available) {
        (LocalState::Active, true) => "active/manager",
        (LocalState::Active, false) => "active/worker",
        (state, _) => state.as_str(),
    }
}

/// The part `Swarm` of `/info`. Only who could read it has a view.
pub fn info(status: &SwarmStatus, view: Option<&View>, managers: &[ManagerSeen]) -> Value {
    let peers = status.remote_managers.iter().map(|it| json!({"NodeID": it.node_id, "Addr": it.addr}));
    let peers: Vec<Value> = peers.collect();
    let mut info = json!({
        "NodeID": status.node_id,
        "NodeAddr": status.node_addr,
        "LocalNodeState": status.state.as_str(),
        "ControlAvailable": status.control_available,
        "Error": status.error,
        "RemoteManagers": if peers.is_empty() { Value::Null } else { peers.into() },
    });
    let Some(view) = view.filter(|_| status.control_available) else { return info };
    info["Nodes"] = view.nodes.len().into();
    let count = view.nodes.keys().filter(|id| managers.iter().any(|it| **id == it.node_id)).count();
    info["Managers"] = count.into();
    if let Some(record) = &view.cluster {
        let mut cluster = list::cluster(record);
        cluster.join_tokens = None;
        info["Cluster"] = json!(cluster);
    }
    if count == 2 {
        info["Warnings"] = json!([TWO_MANAGERS]);
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state (`+`: can be asked), `worker` or `manager`.
    fn status(text: &str) -> SwarmStatus {
        let (state, role) = text.split_once(' ').expect("state and role");
        let control_available = state.ends_with('+');
        let state = match state.trim_end_matches('+') {
            "inactive" => LocalState::Inactive,
            "pending" => LocalState::Pending,
            "active" => LocalState::Active,
            "error" => LocalState::Error,
            _ => LocalState::Locked,
        };
        let role = if role == "worker" { Role::Worker } else { Role::Manager };
        let node_id = if state == LocalState::Inactive { String::new() } else { "n0".into() };
        SwarmStatus { state, role, control_available, node_id, ..SwarmStatus::default() }
    }

    /// Managers `n0`, `n1` …: `+` is reachable, `-` is not.
    fn managers(text: &str) -> Vec<ManagerSeen> {
        let manager = |(at, sign): (usize, char)| {
            let reachability = if sign == '+' { Reachability::Reachable } else { Reachability::Unreachable };
            ManagerSeen { node_id: format!("n{at}"), reachability, ..ManagerSeen::default() }
        };
        text.chars().enumerate().map(manager).collect()
    }

    fn said(result: Result<(), Denial>) -> String {
        result.map_or_else(|denial| format!("{} {denial}", denial.status()), |()| String::new())
    }

    #[test]
    fn what_needs_a_manager_says_what_this_node_is_instead() {
        let check = |text: &str, expected: &str| {
            let said = said(needs_manager(&status(text)));
            let fits = if expected.is_empty() { said.is_empty() } else { said.contains(expected) };
            assert!(fits, "{text}: {said}");
        };
        check("active+ manager", "");
        check("inactive worker", "503 This node is not a swarm manager. Use \"docker swarm init\" or");
        check("active worker", "503 This node is not a swarm manager. Worker nodes can't be used to view");
        check("active manager", "503 This node is not a swarm manager. Manager is being prepared or has trouble");
        check("locked manager", "503 Swarm is encrypted and needs to be unlocked before it can be used.");
        let expired = SwarmStatus { certificate_expired: true, ..status("error worker") };
        assert!(said(needs_manager(&expired)).starts_with("503 Swarm certificates have expired."));
    }

    #[test]
    fn a_node_leaves_without_force_only_where_that_does_no_harm() {
        let check = |text: &str, others: &str, force: bool, expected: &str| {
            let said = said(may_leave(&status(text), &managers(others), force));
            let fits = if expected.is_empty() { said.is_empty() } else { said.contains(expected) };
            assert!(fits, "{text} {others}: {said}");
        };
        check("inactive worker", "", true, "503 This node is not part of a swarm");
        check("active worker", "", false, "");
        check("locked manager", "", false, "503 Swarm is encrypted and locked.");
        check("locked manager", "", true, "");
        check("active+ manager", "+", true, "");
        check("active+ manager", "+", false, "Removing the last manager erases all current state");
        check("active+ manager", "++-", false, "Removing this node leaves 1 managers out of 3.");
        check("active+ manager", "++", false, "Removing this node leaves 1 managers out of 2.");
        check("active+ manager", "+++", false, "as a manager. The only way to restore a swarm");
        check("active manager", "", false, "Doing so may lose the consensus of your cluster. The only way");
    }

    #[test]
    fn a_swarm_is_entered_once_and_unlocked_when_it_is_locked() {
        assert_eq!(said(may_enter(&status("inactive worker"), false)), "");
        assert!(
            said(may_enter(&status("pending worker"), false)).starts_with("503 This node is already part of a swarm.")
        );
        assert_eq!(said(may_enter(&status("active+ manager"), true)), "");
        assert!(said(may_enter(&status("active worker"), true)).starts_with("503 This node is already"));
        let key = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(said(may_unlock(&status("locked manager"), key)), "");
        assert_eq!(said(may_unlock(&status("locked manager"), "SWMKEY-1-AA")), "400 invalid key string");
        assert_eq!(said(may_unlock(&status("active+ manager"), key)), "409 swarm is not locked");
        assert!(said(may_unlock(&status("inactive worker"), key)).contains("docker swarm init"));
    }

    #[test]
    fn ping_and_info_say_what_the_node_is() {
        for (text, expected) in [
            ("inactive worker", "inactive"),
            ("pending worker", "pending"),
            ("active worker", "active/worker"),
            ("active+ manager", "active/manager"),
            ("locked manager", "locked"),
        ] {
            assert_eq!(ping(&status(text)), expected);
        }
        let info = info(&status("active+ manager"), Some(&View::default()), &managers("++"));
        assert_eq!((&info["Nodes"], &info["Managers"], &info["RemoteManagers"]), (&json!(0), &json!(0), &Value::Null));
    }
}
