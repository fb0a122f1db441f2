//! Settings of a node.

use std::path::PathBuf;

/// Settings with which a node starts.
#[derive(Clone, Debug, Default)]
pub struct NodeSettings {
    /// Instead of the engine's own name.
    pub name: Option<String>,
    /// Nodes of the pool to join: `host:port` each.
    pub join: Vec<String>,
    /// The join code.
    pub token: Option<String>,
    /// Discovery URL in which the node registers itself.
    pub discovery: Option<String>,
    pub discovery_options: Vec<(String, String)>,
    /// Host and port for other nodes; without a host, the address is found out.
    pub advertise: (Option<String>, u16),
    pub labels: Vec<(String, String)>,
    /// Folder in which the node keeps its identity and its store.
    pub state: PathBuf,
    /// True if nodes are looked for, and answered, by multicast.
    pub multicast: bool,
    /// Address of the cluster on the event bus.
    pub cluster: String,
    /// Rules of the bridges of the event bus; without a file, the documented ones.
    pub bus_rules: Option<PathBuf>,
}
