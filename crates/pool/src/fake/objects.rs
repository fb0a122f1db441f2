//! Objects of a fake engine. The templates are answers of a real engine (20.10.24).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

/// An entry of `GET /containers/json`.
static ENTRY: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("entry.json")).unwrap_or_default());
/// An answer of `GET /containers/{id}/json`.
static INSPECT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("inspect.json")).unwrap_or_default());

/// A container of a fake engine.
#[derive(Clone, Debug)]
pub struct FakeContainer {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub state: String,
    pub memory_bytes: i64,
    /// Host port for the container's port 80/tcp; 0 for none.
    pub host_port: u16,
    /// Seconds since 1970 by the engine's clock.
    pub created: i64,
}

impl FakeContainer {
    /// A running container without labels, ports and limits.
    pub fn new(name: &str) -> FakeContainer {
        FakeContainer {
            id: format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            state: "running".into(),
            memory_bytes: 0,
            host_port: 0,
            created: crate::board::now_nano() / 1_000_000_000,
        }
    }

    /// Builds the container of a `POST /containers/create`.
    pub(super) fn from_create(name: Option<&str>, body: &Value) -> FakeContainer {
        let new = FakeContainer::new("");
        let labels = body["Labels"].as_object().into_iter().flatten();
        let port = body["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"].as_str();
        FakeContainer {
            name: name.map_or_else(|| format!("fake_{}", &new.id[..8]), str::to_owned),
            labels: labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect(),
            state: "created".into(),
            memory_bytes: body["HostConfig"]["Memory"].as_i64().unwrap_or_default(),
            host_port: port.and_then(|port| port.parse().ok()).unwrap_or_default(),
            ..new
        }
    }

    pub(super) fn entry(&self) -> Value {
        let mut entry = ENTRY.clone();
        entry["Id"] = json!(self.id);
        entry["Names"] = json!([format!("/{}", self.name)]);
        entry["Created"] = json!(self.created);
        entry["State"] = json!(self.state);
        entry["Status"] = json!(format!("Up {} seconds", crate::board::now_nano() / 1_000_000_000 - self.created));
        entry["Labels"] = json!(self.labels);
        entry["Mounts"] = json!([]);
        entry["Ports"] = match self.host_port {
            0 => json!([]),
            port => json!([{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": port, "Type": "tcp"}]),
        };
        entry
    }

    pub(super) fn inspect(&self) -> Value {
        let time = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
        let mut inspect = INSPECT.clone();
        inspect["Id"] = json!(self.id);
        inspect["Name"] = json!(format!("/{}", self.name));
        inspect["Created"] = json!(time(self.created));
        inspect["Config"]["Labels"] = json!(self.labels);
        inspect["Mounts"] = json!([]);
        inspect["HostConfig"]["Memory"] = json!(self.memory_bytes);
        inspect["HostConfig"]["NanoCpus"] = json!(0);
        inspect["HostConfig"]["PortBindings"] = match self.host_port {
            0 => json!({}),
            port => json!({"80/tcp": [{"HostIp": "", "HostPort": port.to_string()}]}),
        };
        let running = self.state == "running";
        inspect["State"] = json!({"Status": self.state, "Running": running, "ExitCode": if running { 0 } else { 137 },
            "StartedAt": time(self.created), "FinishedAt": if running { "0001-01-01T00:00:00Z".into() } else {
            time(self.created) }});
        inspect
    }
}

pub(super) fn images() -> Value {
    json!([{"Id": "sha256:3fcaa06f26b0b55390adec8196743f85cf701b5e75c6eb7625df0f3f0e744f7c", "ParentId": "",
        "RepoTags": ["busybox:latest"], "RepoDigests": null, "Labels": null, "Containers": -1, "Created": 1_795_222_449,
        "SharedSize": -1, "Size": 1_984_172, "VirtualSize": 1_984_172}])
}

pub(super) fn networks() -> Value {
    let network = |name: &str, driver: &str, digit: &str| {
        json!({"Name": name, "Id": digit.repeat(64), "Created": "2026-01-01T00:00:00Z", "Scope": "local",
            "Driver": driver, "EnableIPv6": false, "IPAM": {"Driver": "default", "Options": null, "Config": []},
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""},
            "ConfigOnly": false, "Containers": {}, "Options": {}, "Labels": {}})
    };
    json!([network("bridge", "bridge", "b"), network("host", "host", "a"), network("none", "null", "0")])
}
