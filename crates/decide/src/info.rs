//! `GET /info` and `GET /version`: all nodes as one engine, with the table of nodes that classic Swarm showed.

use std::collections::BTreeSet;
use std::sync::Arc;

use herder_model::{Node, NodeState};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::names;
use crate::versions::{NEWEST, OLDEST};

/// Role of this manager among managers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Primary,
    /// A replica; `primary` is the address of the deciding manager, empty while it is unknown.
    Replica { primary: String },
}

/// Facts of the manager itself.
#[derive(Clone, Debug, Default)]
pub struct Manager {
    /// Host name.
    pub name: String,
    /// Id that distinguishes managers; if empty, the name does.
    pub id: String,
    pub role: Role,
    /// Value of `--strategy`.
    pub strategy: String,
    /// Values of `--filter`, in that order.
    pub filters: Vec<String>,
    /// Such as `herder/0.1.0`.
    pub version: String,
    /// The newest version of the API that clients should use; [`NEWEST`] if empty.
    pub api_version: String,
    pub git_commit: String,
    pub experimental: bool,
    /// Architecture in the kernel's words, such as `x86_64`.
    pub architecture: String,
    pub operating_system: String,
    pub kernel_version: String,
}

/// The table of nodes in `docker info`. The blanks before keys are the table's indentation.
pub fn system_status(nodes: &[Arc<Node>], manager: &Manager) -> Vec<[String; 2]> {
    let mut table = Vec::new();
    let mut row = |key: &str, value: String| table.push([key.to_owned(), value]);
    match &manager.role {
        Role::Primary => row("Role", "primary".into()),
        Role::Replica { primary } => {
            row("Role", "replica".into());
            row("Primary", primary.clone());
        }
    }
    row("Strategy", manager.strategy.clone());
    row("Filters", manager.filters.join(", "));
    row("Nodes", nodes.len().to_string());
    for node in nodes {
        let or_unknown = |text: &str| if text.is_empty() { "(unknown)".to_owned() } else { text.to_owned() };
        row(&format!(" {}", or_unknown(&node.name)), node.addr.clone());
        row("  └ ID", or_unknown(&node.id));
        row("  └ Status", node.state.as_str().to_owned());
        row("  └ Containers", containers(node));
        row("  └ Reserved CPUs", format!("{} / {}", cpus(node.used.nano_cpus), cpus(node.total.nano_cpus)));
        let (used, total) = (node.used.memory_bytes, node.total.memory_bytes);
        row("  └ Reserved Memory", format!("{} / {}", bytes(used), bytes(total)));
        let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        row("  └ Labels", labels.join(", "));
        if let Some(error) = node.error.as_ref().filter(|_| !node.is_healthy()) {
            row("  └ Error", error.clone());
        }
        row("  └ UpdatedAt", Timestamp::from_second(node.updated_at).unwrap_or_default().to_string());
        row("  └ ServerVersion", node.server_version.clone());
    }
    let duplicates = names::duplicates(nodes);
    if !duplicates.is_empty() {
        row("Duplicate names", duplicates.len().to_string());
        for (name, nodes) in duplicates {
            row(&format!(" {name}"), nodes.join(", "));
        }
    }
    table
}

/// Returns `3 (1 Running, 0 Paused, 2 Stopped)`. The counts of a node that does not answer are unknown.
fn containers(node: &Node) -> String {
    let Counts { all, running, paused, stopped } = Counts::of(node);
    match node.state {
        NodeState::Unhealthy => all.to_string(),
        NodeState::Healthy | NodeState::Pending => {
            format!("{all} ({running} Running, {paused} Paused, {stopped} Stopped)")
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    all: usize,
    running: usize,
    paused: usize,
    stopped: usize,
}

impl Counts {
    fn of(node: &Node) -> Counts {
        let mut counts = Counts { all: node.containers.len(), ..Counts::default() };
        for container in node.containers.values() {
            match container.state.as_str() {
                "paused" => counts.paused += 1,
                _ if container.is_running() => counts.running += 1,
                _ => counts.stopped += 1,
            }
        }
        counts
    }
}

/// Billionths of a processor as processors, without needless digits.
fn cpus(nano: i64) -> String {
    let text = format!("{:.3}", nano as f64 / 1e9);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `24.72 GiB`: four digits, as classic Swarm wrote sizes.
fn bytes(count: i64) -> String {
    let mut size = count.max(0) as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter().peekable();
    let mut unit = units.next().unwrap_or_default();
    while size >= 1024.0 {
        let Some(larger) = units.next() else { break };
        unit = larger;
        size /= 1024.0;
    }
    let decimals = match size {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{size:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

/// The answer to `GET /info`.
pub fn info(nodes: &[Arc<Node>], manager: &Manager, now: Timestamp) -> Value {
    let counts: Vec<(&Arc<Node>, Counts)> = nodes.iter().map(|node| (node, Counts::of(node))).collect();
    let sum = |count: fn(&Counts) -> usize| counts.iter().map(|(_, counts)| count(counts)).sum::<usize>();
    let networks = nodes.iter().flat_map(|node| &node.networks).map(|it| it.driver.as_str());
    let volumes = nodes.iter().flat_map(|node| &node.volumes).map(|it| it.driver.as_str()).chain(["local"]);
    let plugins = json!({
        "Volume": volumes.filter(|it| !it.is_empty()).collect::<BTreeSet<_>>(),
        "Network": networks.filter(|it| !it.is_empty()).collect::<BTreeSet<_>>(),
        "Authorization": null,
        "Log": []
    });
    let mut info = constants();
    let seen = json!({
        "ID": if manager.id.is_empty() { &manager.name } else { &manager.id },
        "Containers": sum(|it| it.all),
        "ContainersRunning": sum(|it| it.running),
        "ContainersPaused": sum(|it| it.paused),
        "ContainersStopped": sum(|it| it.stopped),
        "Images": nodes.iter().map(|node| node.images.len()).sum::<usize>(),
        "SystemStatus": system_status(nodes, manager),
        "Plugins": plugins,
        "SystemTime": now.to_string(),
        "KernelVersion": manager.kernel_version,
        "OperatingSystem": manager.operating_system,
        "Architecture": manager.architecture,
        "NCPU": nodes.iter().map(|node| node.total.nano_cpus).sum::<i64>() / 1_000_000_000,
        "MemTotal": nodes.iter().map(|node| node.total.memory_bytes).sum::<i64>(),
        "Name": manager.name,
        "ExperimentalBuild": manager.experimental,
        "ServerVersion": manager.version,
    });
    if let (Value::Object(info), Value::Object(seen)) = (&mut info, seen) {
        info.extend(seen);
    }
    info
}

/// The fields of `GET /info` that clients expect and that mean nothing, or always the same, over many nodes.
fn constants() -> Value {
    let mut constants = json!({
        "Driver": "",
        "DriverStatus": null,
        "Debug": false,
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "LoggingDriver": "",
        "CgroupDriver": "",
        "OSType": "linux",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": []},
        "GenericResources": null,
        "DockerRootDir": "",
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": null,
        "Runtimes": {"runc": {"path": "runc"}},
        "DefaultRuntime": "runc",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null},
        "LiveRestoreEnabled": false,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": [],
        "Warnings": null
    });
    // Engines have had all of these for years, and a missing one makes the CLI warn.
    for capability in CAPABILITIES {
        constants[*capability] = true.into();
    }
    constants
}

const CAPABILITIES: &[&str] = &[
    "MemoryLimit",
    "SwapLimit",
    "KernelMemory",
    "CpuCfsPeriod",
    "CpuCfsQuota",
    "CPUShares",
    "CPUSet",
    "PidsLimit",
    "IPv4Forwarding",
    "BridgeNfIptables",
    "BridgeNfIp6tables",
    "OomKillDisable",
];

/// The answer to `GET /version`.
pub fn version(manager: &Manager) -> Value {
    let newest = NEWEST.to_string();
    let api_version = if manager.api_version.is_empty() { &newest } else { &manager.api_version };
    // Go's word for the same machine.
    let arch = match manager.architecture.as_str() {
        "x86_64" | "" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let details = json!({
        "ApiVersion": api_version,
        "Arch": arch,
        "BuildTime": "",
        "Experimental": manager.experimental.to_string(),
        "GitCommit": manager.git_commit,
        "GoVersion": "",
        "KernelVersion": manager.kernel_version,
        "MinAPIVersion": OLDEST.to_string(),
        "Os": "linux",
    });
    json!({
        "Platform": {"Name": "herder"},
        "Components": [{"Name": "Engine", "Version": manager.version, "Details": details}],
        "Version": manager.version,
        "ApiVersion": api_version,
        "MinAPIVersion": OLDEST.to_string(),
        "GitCommit": manager.git_commit,
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": manager.kernel_version,
        "Experimental": manager.experimental,
        "BuildTime": "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use herder_model::{Container, Resources};

    fn manager() -> Manager {
        Manager {
            name: "m".into(),
            strategy: "spread".into(),
            filters: vec!["health".into(), "port".into()],
            version: "herder/0.1.0".into(),
            ..Manager::default()
        }
    }

    fn nodes() -> Vec<Arc<Node>> {
        let mut healthy = Node {
            addr: "10.0.0.1:2375".into(),
            name: "n1".into(),
            id: "AB|10.0.0.1:2375".into(),
            state: NodeState::Healthy,
            labels: [("disk".into(), "ssd".into()), ("zone".into(), "a".into())].into(),
            total: Resources { nano_cpus: 2_000_000_000, memory_bytes: 26_542_897_889 },
            server_version: "20.10.24".into(),
            updated_at: 1_795_206_921,
            ..Node::default()
        };
        for (number, state) in ["running", "paused", "exited", "created"].into_iter().enumerate() {
            let reserved = Resources { nano_cpus: 125_000_000, memory_bytes: 5 << 20 };
            let id = number.to_string();
            healthy.put_container(Arc::new(Container { id, state: state.into(), reserved, ..Container::default() }));
        }
        let unhealthy = Node {
            addr: "10.0.0.2:2375".into(),
            name: "n2".into(),
            state: NodeState::Unhealthy,
            error: Some("cannot connect".into()),
            ..healthy.clone()
        };
        let pending = Node { addr: "10.0.0.3:2375".into(), ..Node::default() };
        vec![Arc::new(healthy), Arc::new(unhealthy), Arc::new(pending)]
    }

    #[test]
    fn the_table_of_nodes_is_classic_swarms() {
        let table: Vec<String> =
            system_status(&nodes(), &manager()).iter().map(|[key, value]| format!("{key}: {value}")).collect();
        let expected = "\
Role: primary
Strategy: spread
Filters: health, port
Nodes: 3
 n1: 10.0.0.1:2375
  └ ID: AB|10.0.0.1:2375
  └ Status: Healthy
  └ Containers: 4 (1 Running, 1 Paused, 2 Stopped)
  └ Reserved CPUs: 0.5 / 2
  └ Reserved Memory: 20 MiB / 24.72 GiB
  └ Labels: disk=ssd, zone=a
  └ UpdatedAt: 2026-11-20T20:35:21Z
  └ ServerVersion: 20.10.24
 n2: 10.0.0.2:2375
  └ ID: AB|10.0.0.1:2375
  └ Status: Unhealthy
  └ Containers: 4
  └ Reserved CPUs: 0.5 / 2
  └ Reserved Memory: 20 MiB / 24.72 GiB
  └ Labels: disk=ssd, zone=a
  └ Error: cannot connect
  └ UpdatedAt: 2026-11-20T20:35:21Z
  └ ServerVersion: 20.10.24
 (unknown): 10.0.0.3:2375
  └ ID: (unknown)
  └ Status: Pending
  └ Containers: 0 (0 Running, 0 Paused, 0 Stopped)
  └ Reserved CPUs: 0 / 0
  └ Reserved Memory: 0 B / 0 B
  └ Labels: 
  └ UpdatedAt: 1970-01-01T00:00:00Z
  └ ServerVersion: ";
        assert_eq!(table.join("\n"), expected);
    }

    #[test]
    fn a_replica_names_the_primary() {
        let manager = Manager { role: Role::Replica { primary: "10.0.0.9:3375".into() }, ..manager() };
        let table = system_status(&[], &manager);
        assert_eq!(table[..2], [["Role", "replica"], ["Primary", "10.0.0.9:3375"]].map(|row| row.map(str::to_owned)));
    }

    #[test]
    fn sizes_have_four_digits() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (20 << 20, "20 MiB"),
            (1_000_000_000, "953.7 MiB"),
            (1 << 50, "1 PiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn info_sums_up_all_nodes() {
        let info = info(&nodes(), &manager(), Timestamp::UNIX_EPOCH);
        for (field, expected) in [
            ("ID", json!("m")),
            ("Containers", json!(8)),
            ("ContainersRunning", json!(2)),
            ("ContainersStopped", json!(4)),
            ("NCPU", json!(4)),
            ("MemTotal", json!(53_085_795_778_i64)),
            ("OSType", json!("linux")),
            ("ServerVersion", json!("herder/0.1.0")),
            ("MemoryLimit", json!(true)),
        ] {
            assert_eq!(info[field], expected, "{field}");
        }
        assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    }

    #[test]
    fn version_names_the_range_of_the_api() {
        for (given, expected) in [("", "1.50"), ("1.41", "1.41")] {
            let version = version(&Manager { api_version: given.into(), ..manager() });
            assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!(expected), &json!("1.24")));
            assert_eq!(version["Components"][0]["Details"]["ApiVersion"], expected);
        }
    }
}
