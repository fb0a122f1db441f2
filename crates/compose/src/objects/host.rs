//! Keys that a swarm's API cannot express. They are members of the engine's `HostConfig` and `Config`, in the member
//! `Herder` of the container spec. Docker's own clients pass over that member.

use serde_json::{Map as Json, Value, json};

use crate::node::{Node, Value as Is};

use super::{Context, hooks, list, put, texts};

/// The member `Herder`: `{"HostConfig": …, "Config": …, "ClearEntrypoint": …, "Hooks": …}`; null if nothing needs it.
pub(super) fn extension(context: &Context<'_>, service: &Node) -> Value {
    let mut json = Json::new();
    put(&mut json, "HostConfig", host_config(service));
    let domain = service.get("domainname").and_then(Node::as_str).unwrap_or_default();
    if !domain.is_empty() {
        json.insert("Config".into(), json!({"Domainname": domain}));
    }
    // The API takes an empty entrypoint for none, which is the image's own.
    let is_cleared = service.get("entrypoint").is_some_and(|it| it.as_list().is_some_and(<[Node]>::is_empty));
    put(&mut json, "ClearEntrypoint", is_cleared);
    put(&mut json, "Hooks", hooks::extension(context, service));
    json.into()
}

/// Keys whose values are texts in the engine's form already.
const TEXTS: [(&str, &str); 8] = [
    ("cgroup_parent", "CgroupParent"),
    ("cgroup", "CgroupnsMode"),
    ("cpuset", "CpusetCpus"),
    ("ipc", "IpcMode"),
    ("pid", "PidMode"),
    ("runtime", "Runtime"),
    ("userns_mode", "UsernsMode"),
    ("uts", "UTSMode"),
];

/// Keys whose values are numbers.
const NUMBERS: [(&str, &str); 6] = [
    ("cpu_period", "CpuPeriod"),
    ("cpu_quota", "CpuQuota"),
    ("cpu_rt_period", "CpuRealtimePeriod"),
    ("cpu_rt_runtime", "CpuRealtimeRuntime"),
    ("cpu_shares", "CpuShares"),
    ("mem_swappiness", "MemorySwappiness"),
];

/// Keys whose values are amounts of bytes.
const BYTES: [(&str, &str); 2] = [("memswap_limit", "MemorySwap"), ("shm_size", "ShmSize")];

fn host_config(service: &Node) -> Value {
    let mut json = Json::new();
    let text = |key: &str| service.get(key).and_then(Node::scalar_text).unwrap_or_default();
    for (key, name) in TEXTS {
        put(&mut json, name, text(key));
    }
    for (key, name) in NUMBERS {
        if let Some(value) = service.get(key).and_then(Node::as_int) {
            json.insert(name.into(), value.into());
        }
    }
    for (key, name) in BYTES {
        if let Some(value) = service.get(key).and_then(|it| it.as_str()?.parse::<i64>().ok()) {
            json.insert(name.into(), value.into());
        }
    }
    for (key, name) in [("privileged", "Privileged"), ("oom_kill_disable", "OomKillDisable")] {
        put(&mut json, name, service.get(key).and_then(Node::as_bool).unwrap_or(false));
    }
    put(&mut json, "DeviceCgroupRules", list(service.get("device_cgroup_rules")));
    put(&mut json, "StorageOpt", json!(texts(service.get("storage_opt"))));
    put(&mut json, "Annotations", json!(texts(service.get("annotations"))));
    put(&mut json, "Devices", devices(service));
    put(&mut json, "DeviceRequests", device_requests(service));
    put(&mut json, "SecurityOpt", security(service));
    if let Some(io) = service.get("blkio_config") {
        block_io(io, &mut json);
    }
    json.into()
}

fn devices(service: &Node) -> Vec<Value> {
    let paths = service.get("devices").into_iter().flat_map(Node::elements);
    paths
        .filter(|device| !is_cdi(device))
        .map(|device| {
            let part = |key: &str| device.get(key).and_then(Node::as_str).unwrap_or_default();
            let target = if part("target").is_empty() { part("source") } else { part("target") };
            let permissions = if part("permissions").is_empty() { "rwm" } else { part("permissions") };
            json!({"PathOnHost": part("source"), "PathInContainer": target, "CgroupPermissions": permissions})
        })
        .collect()
}

/// The name of a device of the Container Device Interface, such as `vendor.com/gpu=0`.
fn is_cdi(device: &Node) -> bool {
    let source = device.get("source").and_then(Node::as_str).unwrap_or_default();
    !source.starts_with('/') && source.contains('=')
}

fn device_requests(service: &Node) -> Vec<Value> {
    let path = ["deploy", "resources", "reservations", "devices"];
    let reserved = path.iter().try_fold(service, |node, key| node.get(key));
    let mut requests: Vec<Value> = [reserved, service.get("gpus")]
        .into_iter()
        .flatten()
        .flat_map(Node::elements)
        .map(|device| {
            let mut json = Json::new();
            put(&mut json, "Driver", device.get("driver").and_then(Node::as_str).unwrap_or_default());
            let ids = list(device.get("device_ids"));
            let count = device.get("count").and_then(Node::as_int).unwrap_or(if ids.is_empty() { -1 } else { 0 });
            put(&mut json, "Count", count);
            put(&mut json, "DeviceIDs", ids);
            let mut capabilities = list(device.get("capabilities"));
            if capabilities.is_empty() {
                capabilities.push("gpu".into());
            }
            json.insert("Capabilities".into(), json!([capabilities]));
            put(&mut json, "Options", json!(texts(device.get("options"))));
            json.into()
        })
        .collect();
    let cdi: Vec<String> = service
        .get("devices")
        .into_iter()
        .flat_map(Node::elements)
        .filter(|device| is_cdi(device))
        .filter_map(|device| device.get("source").and_then(Node::scalar_text))
        .collect();
    if !cdi.is_empty() {
        requests.push(json!({"Driver": "cdi", "DeviceIDs": cdi}));
    }
    requests
}

/// Returns the `security_opt` entries that the swarm API's `Privileges` cannot express.
fn security(service: &Node) -> Vec<String> {
    let options = list(service.get("security_opt"));
    let is_ours = |option: &String| {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match key {
            "apparmor" | "seccomp" => value != "unconfined",
            "systempaths" => true,
            _ => false,
        }
    };
    options.into_iter().filter(is_ours).collect()
}

fn block_io(io: &Node, json: &mut Json<String, Value>) {
    if let Some(weight) = io.get("weight").and_then(Node::as_int) {
        json.insert("BlkioWeight".into(), weight.into());
    }
    let lists = [
        ("weight_device", "BlkioWeightDevice", "weight", "Weight"),
        ("device_read_bps", "BlkioDeviceReadBps", "rate", "Rate"),
        ("device_write_bps", "BlkioDeviceWriteBps", "rate", "Rate"),
        ("device_read_iops", "BlkioDeviceReadIOps", "rate", "Rate"),
        ("device_write_iops", "BlkioDeviceWriteIOps", "rate", "Rate"),
    ];
    for (key, name, number, member) in lists {
        let entry = |node: &Node| {
            let value = match node.get(number).map(|node| &node.value) {
                Some(Is::Int(value)) => *value,
                Some(Is::Text(text)) => text.parse().unwrap_or(0),
                _ => 0,
            };
            json!({"Path": node.get("path").and_then(Node::as_str).unwrap_or_default(), member: value})
        };
        let entries: Vec<Value> = io.get(key).into_iter().flat_map(Node::elements).map(entry).collect();
        put(json, name, entries);
    }
}
