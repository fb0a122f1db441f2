//! A container as lists and placement see it. Details come from the engine on demand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Pairs, Resources};

/// A container on a node: what is needed to list, find, filter and place; the rest stays on the engine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Names without the leading slash, link aliases (`other/alias`) left out. The first is its own name.
    pub name: String,
    /// Value of the label `com.docker.swarm.id`, or empty.
    pub swarm_id: String,
    pub image: String,
    pub image_id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
    pub state: String,
    /// Seconds since 1970; 0 if it never started.
    pub started_at: i64,
    /// Seconds since 1970; 0 if it never finished.
    pub finished_at: i64,
    pub exit_code: i64,
    pub health: Option<Health>,
    /// The labels as the client gave them, expression labels included.
    pub labels: Pairs,
    pub reserved: Resources,
    /// `HostConfig.NetworkMode`, such as `default`, `host`, `container:<id>`.
    pub network_mode: String,
    /// `HostConfig.PortBindings`, whether the container runs or not.
    pub host_ports: Vec<HostPort>,
    /// `Config.ExposedPorts` as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Ports as the list shows them.
    pub published: Vec<PublishedPort>,
    pub mounts: Vec<MountPoint>,
    /// Network name → network id.
    pub networks: Pairs,
    /// The engine's own entry of `GET /containers/json`, as lists show it; unknown fields survive in it.
    pub entry: Entry,
    /// Stands for the engine's own entry: another one, another mark. What changes with time alone does not count.
    pub entry_mark: u64,
    /// The engine's own `GET /containers/{id}/json`; kept only where it is needed later without the engine
    /// (rescheduling after the engine died).
    pub inspect: Option<Arc<serde_json::Value>>,
}

/// A list entry as JSON text, with holes for what is not the container's own. Made once, shown many times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Empty if none was read yet.
    pub text: Box<str>,
    /// The holes in `text`, in order: each with the byte before which it is filled.
    pub holes: Box<[(u32, Hole)]>,
    /// Follows from the container's other fields.
    #[serde(skip)]
    pub status: Status,
}

/// The parts from which, with the clock, the status of a container is composed. Beside the entry, so that a list of
/// many reads little memory of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A status text that does not depend on the clock.
    Fixed(&'static str),
    /// Runs since a time in seconds since 1970; what follows the duration.
    Up(i64, &'static str),
    /// A word, an exit code, and a time in seconds since 1970.
    Ended(&'static str, i64, i64),
}

impl Default for Status {
    fn default() -> Status {
        Status::Fixed("")
    }
}

/// A placeholder in stored JSON that is filled in when a list is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hole {
    /// The name of the node, inside a JSON string.
    NodeName,
    /// The address of the node, inside a JSON string.
    NodeIp,
    /// The status, inside a JSON string.
    Status,
}

impl Container {
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }
}

/// `State.Health.Status` of a container with a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

/// A host port that a container asks for. One entry for each port, ranges expanded; port 0 (any) left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct HostPort {
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// Empty, `0.0.0.0` and `::` mean every address.
    pub ip: String,
    /// First and last port of the range, equal for one port.
    pub first: u16,
    pub last: u16,
}

/// An entry of `Ports` in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedPort {
    pub ip: String,
    pub private: u16,
    /// 0 if not published.
    pub public: u16,
    pub protocol: String,
}

/// An entry of `Mounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`.
    pub kind: String,
    /// The volume's name, or empty.
    pub name: String,
    pub source: String,
    pub destination: String,
}
