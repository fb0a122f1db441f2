//! A request to create a container, parsed once: its requirements of a node, and the body for the engine.

use std::collections::BTreeMap;

use herder_model::{
    Container, HostPort, LABEL_AFFINITIES, LABEL_CONSTRAINTS, LABEL_RESCHEDULE, LABEL_SWARM_ID, LABEL_WHITELISTS,
    Resources,
};
use serde_json::{Map, Value, json};

use crate::place::expr::{ExprError, Expression};

/// Limit below which `--cpu-shares` is a number of processors, as classic Swarm read it. Docker's own scale begins here
/// (1024 is one container's normal weight) and reserves nothing.
pub const CPU_SHARES_AS_CPUS_MAX: i64 = 64;

/// Expressions of one kind. Each may take a megabyte when compiled and is held against every node, while others wait.
const EXPRESSIONS_MAX: usize = 64;

/// Containers that must be on the same node. Each is looked for on every node, while others wait.
const DEPENDENCIES_MAX: usize = 256;

/// Maximum reservation: more memory, and more billionths of a processor, than any host has. The sum of a thousand fits
/// in 64 bits. A sum that hit the end of its range would be wrong for all others when the large one is taken off again.
const RESERVED_MAX: i64 = 1 << 53;

/// Ports that a container publishes or exposes, of each kind. There are not more of one protocol.
const PORTS_MAX: usize = 65_536;

/// A whole create request.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// The name asked for, without slash.
    pub name: Option<String>,
    /// Body for the engine: expressions moved from the environment to labels, `node/` prefixes removed.
    pub body: Value,
    pub constraints: Vec<Expression>,
    pub affinities: Vec<Expression>,
    pub whitelists: Vec<Expression>,
    pub reschedule: Policy,
    /// Containers that must be on the same node, as the flags that ask for them: (`--link=db:x`, `db`).
    pub dependencies: Vec<(String, String)>,
    /// Full id of the container that this one replaces, where clients name it. It gives way, so its ports are free.
    pub replaces: Option<String>,
    /// Ports that containers ask for which were created and never started do not count as taken.
    pub insists: bool,
    /// The container to be, as it counts for others.
    pub container: Container,
    pub image: String,
}

/// Treatment of a container when its node is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    Off,
    OnNodeFailure,
}

/// Label with the number of processors that classic Swarm's `--cpu-shares` asked for.
pub const LABEL_CPUS: &str = "herder.cpus";

/// `HostConfig.CpuShares`, where it is a number of processors.
fn shares_as_cpus(body: &Map<String, Value>) -> Option<i64> {
    let shares = body.get("HostConfig")?.get("CpuShares")?.as_i64()?;
    (shares > 0 && shares < CPU_SHARES_AS_CPUS_MAX).then_some(shares)
}

/// Reason why a create request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("error from {kind} filter: {source} (in `{text}`)")]
    Expression { kind: &'static str, text: String, source: ExprError },
    #[error("invalid reschedule policy: {0}")]
    Policy(String),
    #[error("too many reschedule policies")]
    Policies,
    #[error("too many {what}: {count}, at most {max} can be given")]
    TooMany { what: &'static str, count: usize, max: usize },
    /// A field has the wrong form.
    #[error("invalid {field}: `{value}`, expected {expected}")]
    Field { field: String, value: String, expected: &'static str },
}

/// Reads a create body. `swarm_id` becomes the container's lasting id, unless its labels bring one.
pub fn parse(name: Option<&str>, body: Value, swarm_id: &str) -> Result<CreateRequest, RequestError> {
    let Value::Object(mut body) = body else {
        return Err(field("body", &body, "a JSON object with at least `Image`"));
    };
    lift_old_fields(&mut body);
    for (field_name, expected) in
        [("HostConfig", "an object"), ("Labels", "an object of strings"), ("NetworkingConfig", "an object")]
    {
        if body.get(field_name).is_some_and(|value| !value.is_object() && !value.is_null()) {
            return Err(field(field_name, &body[field_name], expected));
        }
    }
    let mut labels = labels(&body)?;
    let mut from_env = take_env(&mut body)?;
    let mut merged = |label: &str, prefix: &str| -> Vec<String> {
        let texts: Option<Vec<String>> = labels.get(label).and_then(|text| serde_json::from_str(text).ok());
        let texts: Vec<String> =
            texts.unwrap_or_default().into_iter().chain(from_env.remove(prefix).unwrap_or_default()).collect();
        if !texts.is_empty() {
            labels.insert(label.to_owned(), json!(texts).to_string());
        }
        texts
    };
    let constraints = merged(LABEL_CONSTRAINTS, "constraint");
    let affinities = merged(LABEL_AFFINITIES, "affinity");
    let whitelists = merged(LABEL_WHITELISTS, "whitelist");
    let policies = merged(LABEL_RESCHEDULE, "reschedule");
    labels.entry(LABEL_SWARM_ID.to_owned()).or_insert_with(|| swarm_id.to_owned());
    if let Some(cpus) = shares_as_cpus(&body) {
        labels.insert(LABEL_CPUS.to_owned(), cpus.to_string());
    }
    body.insert("Labels".into(), json!(labels));

    let mut constraints = expressions("constraint", constraints)?;
    constraints.extend(take_node_prefixes(&mut body)?);
    let image = body.get("Image").and_then(Value::as_str).unwrap_or_default().to_owned();
    let body = Value::Object(body);
    let host = &body["HostConfig"];
    let dependencies = dependencies(host, &body["NetworkingConfig"]["EndpointsConfig"]);
    at_most(DEPENDENCIES_MAX, "dependencies", dependencies.len())?;
    let host_ports = host_ports(&host["PortBindings"])?;
    at_most(PORTS_MAX, "published ports", host_ports.len())?;
    let exposed_ports: Vec<String> =
        body["ExposedPorts"].as_object().into_iter().flatten().map(|(port, _)| port.clone()).collect();
    at_most(PORTS_MAX, "exposed ports", exposed_ports.len())?;
    let container = Container {
        name: name.unwrap_or_default().trim_start_matches('/').to_owned(),
        swarm_id: labels.get(LABEL_SWARM_ID).cloned().unwrap_or_default(),
        image: image.clone(),
        state: "created".into(),
        reserved: reserved(host, &labels),
        labels: labels.into(),
        network_mode: host["NetworkMode"].as_str().unwrap_or("default").to_owned(),
        host_ports,
        exposed_ports,
        ..Container::default()
    };
    Ok(CreateRequest {
        name: name.map(|name| name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty()),
        constraints,
        affinities: expressions("affinity", affinities)?,
        whitelists: expressions("whitelist", whitelists)?,
        reschedule: policy(&policies)?,
        dependencies,
        replaces: None,
        insists: false,
        container,
        image,
        body,
    })
}

/// Reads the conditions of a build from its arguments (`--build-arg constraint:zone==a`); gives the arguments that stay.
pub fn parse_build(build_args: &Value, memory: i64) -> Result<(CreateRequest, Value), RequestError> {
    let mut rest = Map::new();
    let mut env = Vec::new();
    for (key, value) in build_args.as_object().into_iter().flatten() {
        let pair = value.as_str().map_or_else(|| key.clone(), |value| format!("{key}={value}"));
        if prefix_of(&pair).is_some() {
            env.push(pair);
        } else {
            rest.insert(key.clone(), value.clone());
        }
    }
    let request = parse(None, json!({"Env": env, "HostConfig": {"Memory": memory}}), "")?;
    Ok((request, Value::Object(rest)))
}

/// Returns the reservations of a container's `HostConfig`: `--cpus`, else a CPU quota, else classic Swarm's shares; and
/// memory. Shares are known by the label that [`parse`] leaves, because the engine holds them in another unit.
pub fn reserved(host: &Value, labels: &BTreeMap<String, String>) -> Resources {
    let number = |field: &str| host[field].as_i64().unwrap_or_default();
    let period = if number("CpuPeriod") > 0 { number("CpuPeriod") } else { 100_000 };
    let shares: i64 = labels.get(LABEL_CPUS).and_then(|text| text.parse().ok()).unwrap_or_default();
    let nano_cpus = match (number("NanoCpus"), number("CpuQuota")) {
        (nano, _) if nano > 0 => nano,
        (_, quota) if quota > 0 => quota.saturating_mul(1_000_000_000) / period,
        _ => shares.clamp(0, CPU_SHARES_AS_CPUS_MAX) * 1_000_000_000,
    };
    // Less than nothing would make room for others.
    let real = |amount: i64| amount.clamp(0, RESERVED_MAX);
    Resources { nano_cpus: real(nano_cpus), memory_bytes: real(number("Memory")) }
}

/// The body for an engine with `ncpu` processors: classic Swarm's shares become Docker's.
pub fn for_engine(request: &CreateRequest, ncpu: i64) -> Value {
    let mut body = request.body.clone();
    if let Some(shares) = body.as_object().and_then(shares_as_cpus)
        && ncpu > 0
    {
        body["HostConfig"]["CpuShares"] = json!((shares * 1024 + ncpu - 1) / ncpu);
    }
    body
}

/// `HostConfig.PortBindings`: `{"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}`.
pub fn host_ports(bindings: &Value) -> Result<Vec<HostPort>, RequestError> {
    let mut ports = Vec::new();
    for (container_port, hosts) in bindings.as_object().into_iter().flatten() {
        let protocol = container_port.split_once('/').map_or("tcp", |(_, protocol)| protocol);
        for host in hosts.as_array().into_iter().flatten() {
            let range = host["HostPort"].as_str().unwrap_or_default();
            if range.is_empty() {
                continue;
            }
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bad = || {
                field(
                    "HostConfig.PortBindings HostPort",
                    &host["HostPort"],
                    "a port from 0 to 65535 or a range such as 8000-8010",
                )
            };
            let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
            if first > last {
                return Err(bad());
            }
            if first > 0 {
                let ip = host["HostIp"].as_str().unwrap_or_default().to_owned();
                ports.push(HostPort { protocol: protocol.to_owned(), ip, first, last });
            }
        }
    }
    Ok(ports)
}

fn field(field: &str, value: &Value, expected: &'static str) -> RequestError {
    RequestError::Field { field: field.to_owned(), value: value.to_string().chars().take(80).collect(), expected }
}

/// Moves the fields that stood at the top before API 1.18.
fn lift_old_fields(body: &mut Map<String, Value>) {
    for (old, new) in
        [("Memory", "Memory"), ("MemorySwap", "MemorySwap"), ("CpuShares", "CpuShares"), ("Cpuset", "CpusetCpus")]
    {
        let Some(value) = body.remove(old) else { continue };
        let empty = value.is_null() || value == json!(0) || value == json!("");
        let host = body.entry("HostConfig").or_insert_with(|| json!({}));
        if let (false, Some(host)) = (empty, host.as_object_mut()) {
            host.entry(new).or_insert(value);
        }
    }
}

fn labels(body: &Map<String, Value>) -> Result<BTreeMap<String, String>, RequestError> {
    let pairs = body.get("Labels").and_then(Value::as_object).into_iter().flatten();
    pairs
        .map(|(key, value)| match value.as_str() {
            Some(text) => Ok((key.clone(), text.to_owned())),
            None => Err(field(&format!("Labels.{key}"), value, "a string")),
        })
        .collect()
}

const PREFIXES: [&str; 4] = ["constraint", "affinity", "whitelist", "reschedule"];

fn prefix_of(variable: &str) -> Option<&'static str> {
    PREFIXES.into_iter().find(|prefix| variable.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(':')))
}

/// Takes the expressions out of `Env`, by prefix.
fn take_env(body: &mut Map<String, Value>) -> Result<BTreeMap<&'static str, Vec<String>>, RequestError> {
    let mut taken: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let env = match body.get_mut("Env") {
        None | Some(Value::Null) => return Ok(taken),
        Some(Value::Array(env)) => env,
        Some(other) => return Err(field("Env", other, "an array of strings")),
    };
    env.retain(|variable| {
        let Some(text) = variable.as_str() else { return true };
        let Some(prefix) = prefix_of(text) else { return true };
        taken.entry(prefix).or_default().push(text[prefix.len() + 1..].to_owned());
        false
    });
    Ok(taken)
}

pub(super) fn expressions(kind: &'static str, texts: Vec<String>) -> Result<Vec<Expression>, RequestError> {
    let what = match kind {
        "constraint" => "constraints",
        "affinity" => "affinities",
        _ => "whitelists",
    };
    at_most(EXPRESSIONS_MAX, what, texts.len())?;
    let parse = |text: String| text.parse().map_err(|source| RequestError::Expression { kind, text, source });
    texts.into_iter().map(parse).collect()
}

fn at_most(max: usize, what: &'static str, count: usize) -> Result<(), RequestError> {
    if count > max { Err(RequestError::TooMany { what, count, max }) } else { Ok(()) }
}

fn policy(texts: &[String]) -> Result<Policy, RequestError> {
    match texts {
        [] => Ok(Policy::Off),
        [text] => match text.as_str() {
            "off" => Ok(Policy::Off),
            "on-node-failure" => Ok(Policy::OnNodeFailure),
            _ => Err(RequestError::Policy(text.clone())),
        },
        _ => Err(RequestError::Policies),
    }
}

/// Prefix of the name of a container whose network, IPC or PID namespace is shared. What follows may be `/name` or
/// `node/name`.
const CONTAINER: &str = "container:";

/// `node/name` of a network or a volume pins the container to that node; the engine gets the bare name.
fn take_node_prefixes(body: &mut Map<String, Value>) -> Result<Vec<Expression>, RequestError> {
    let mut nodes: Vec<String> = Vec::new();
    let mut strip = |text: &str| -> Option<String> {
        let (node, name) = text.split_once('/')?;
        let plain = |part: &str| !part.is_empty() && !part.contains('/') && !part.starts_with('.');
        (plain(node) && plain(name)).then(|| {
            nodes.push(node.to_owned());
            name.to_owned()
        })
    };
    if let Some(host) = body.get_mut("HostConfig").and_then(Value::as_object_mut) {
        let mode = host.get("NetworkMode").and_then(Value::as_str).filter(|mode| !mode.starts_with(CONTAINER));
        if let Some(bare) = mode.and_then(&mut strip) {
            host.insert("NetworkMode".into(), json!(bare));
        }
        for bind in host.get_mut("Binds").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(text) = bind.as_str().filter(|text| !text.starts_with(['/', '.', '~'])) else { continue };
            let (source, rest) = text.split_once(':').unwrap_or((text, ""));
            if let Some(bare) = strip(source) {
                *bind = json!(format!("{bare}:{rest}"));
            }
        }
        for mount in host.get_mut("Mounts").and_then(Value::as_array_mut).into_iter().flatten() {
            if mount["Type"] == "volume"
                && let Some(bare) = mount["Source"].as_str().and_then(&mut strip)
            {
                mount["Source"] = json!(bare);
            }
        }
    }
    let endpoints = body.get_mut("NetworkingConfig").and_then(|config| config.get_mut("EndpointsConfig"));
    if let Some(endpoints) = endpoints.and_then(Value::as_object_mut) {
        let entries = std::mem::take(endpoints);
        for (name, endpoint) in entries {
            // Older clients repeat the network mode here.
            let bare = if name.starts_with(CONTAINER) { None } else { strip(&name) };
            endpoints.insert(bare.unwrap_or(name), endpoint);
        }
    }
    nodes.sort();
    nodes.dedup();
    at_most(EXPRESSIONS_MAX, "nodes in names", nodes.len())?;
    nodes
        .into_iter()
        .map(|node| {
            let text = format!("node=={node}");
            text.parse().map_err(|source| RequestError::Expression { kind: "constraint", text, source })
        })
        .collect()
}

/// Containers that must be on the same node. Links stand in the host configuration for the default network, else with the
/// endpoint of their network.
fn dependencies(host: &Value, endpoints: &Value) -> Vec<(String, String)> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let texts = |field: &str| list(&host[field]);
    let named = |flag: &str, text: String| {
        let target = text.split(':').next().unwrap_or_default().trim_start_matches('/').to_owned();
        (format!("--{flag}={text}"), target)
    };
    let volumes = texts("VolumesFrom").into_iter().map(|text| named("volumes-from", text));
    let of_endpoints = endpoints.as_object().into_iter().flatten().flat_map(|(_, endpoint)| list(&endpoint["Links"]));
    let links = texts("Links").into_iter().chain(of_endpoints).map(|text| named("link", text));
    let nets = ["NetworkMode", "IpcMode", "PidMode"].into_iter().filter_map(|field| {
        let target = host[field].as_str()?.strip_prefix(CONTAINER)?;
        let flag = match field {
            "NetworkMode" => "net",
            "IpcMode" => "ipc",
            _ => "pid",
        };
        Some((format!("--{flag}=container:{target}"), target.trim_start_matches('/').to_owned()))
    });
    volumes.chain(links).chain(nets).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn read(body: Value) -> Result<CreateRequest, RequestError> {
        parse(Some("web"), body, "swarm-id")
    }

    #[test]
    fn expressions_move_from_the_environment_to_labels() {
        let request = read(json!({"Image": "busybox", "Env": ["A=1", "constraint:zone==a", "affinity:image==~x1", "reschedule:on-node-failure"],
            "Labels": {"com.docker.swarm.constraints": "[\"disk==ssd\"]", "mine": "1"}}))
        .unwrap();
        assert_eq!(request.body["Env"], json!(["A=1"]));
        assert_eq!(request.body["Labels"]["com.docker.swarm.constraints"], r#"["disk==ssd","zone==a"]"#);
        assert_eq!(request.body["Labels"]["com.docker.swarm.id"], "swarm-id");
        assert_eq!(request.body["Labels"]["mine"], "1");
        let texts: Vec<String> =
            request.constraints.iter().chain(&request.affinities).map(Expression::to_string).collect();
        assert_eq!(texts.join(" "), "disk==ssd zone==a image==~x1");
        assert_eq!(request.reschedule, Policy::OnNodeFailure);
    }

    #[test]
    fn bad_input_is_refused_by_name() {
        for (body, expected) in [
            (json!([]), "invalid body: `[]`, expected a JSON object with at least `Image`"),
            (
                json!({"Env": ["constraint:zone=a"]}),
                "error from constraint filter: One of operator ==, != is expected (in `zone=a`)",
            ),
            (json!({"Env": ["reschedule:bogus"]}), "invalid reschedule policy: bogus"),
            (json!({"Env": ["reschedule:off", "reschedule:off"]}), "too many reschedule policies"),
            (json!({"Env": "A=1"}), "invalid Env: `\"A=1\"`, expected an array of strings"),
            (json!({"Labels": {"a": 1}}), "invalid Labels.a: `1`, expected a string"),
            (
                json!({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "90-80"}]}}}),
                "invalid HostConfig.PortBindings HostPort: `\"90-80\"`, expected a port from 0 to 65535 or a range such as 8000-8010",
            ),
        ] {
            assert_eq!(read(body).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn resources_count_cpus_then_quota_then_small_shares() {
        for (host, nano_cpus) in [
            (json!({"NanoCpus": 1_500_000_000_i64, "CpuShares": 2}), 1_500_000_000),
            (json!({"CpuQuota": 50_000}), 500_000_000),
            (json!({"CpuQuota": 50_000, "CpuPeriod": 25_000}), 2_000_000_000),
            (json!({"CpuShares": 2}), 2_000_000_000),
            (json!({"CpuShares": 1024}), 0),
        ] {
            let request = read(json!({"HostConfig": host})).unwrap();
            assert_eq!(request.container.reserved.nano_cpus, nano_cpus, "{host}");
        }
        let request = read(json!({"CpuShares": 1, "Memory": 7})).unwrap();
        assert_eq!(request.container.reserved, Resources { nano_cpus: 1_000_000_000, memory_bytes: 7 });
        assert_eq!(for_engine(&request, 2)["HostConfig"], json!({"Memory": 7, "CpuShares": 512}));
    }

    #[test]
    fn less_than_nothing_reserves_nothing() {
        for host in [json!({"Memory": -1}), json!({"NanoCpus": -5}), json!({"CpuQuota": -1}), json!({"CpuShares": -2})]
        {
            let request = read(json!({"HostConfig": host})).unwrap();
            assert_eq!(request.container.reserved, Resources::default(), "{host}");
        }
    }

    #[test]
    fn a_container_of_absurd_size_leaves_the_sum_of_the_others_right() {
        let container = |id: &str, host: Value| {
            Arc::new(Container { id: id.into(), reserved: reserved(&host, &BTreeMap::new()), ..Container::default() })
        };
        let absurd = json!({"Memory": i64::MAX, "NanoCpus": i64::MAX});
        let mut node = herder_model::Node::default();
        node.put_container(container("a", json!({"Memory": 7, "NanoCpus": 5})));
        for id in ["b", "c", "d"] {
            node.put_container(container(id, absurd.clone()));
        }
        for id in ["b", "c", "d"] {
            node.remove_container(id);
        }
        assert_eq!(node.used, Resources { nano_cpus: 5, memory_bytes: 7 });
    }

    #[test]
    fn more_than_anybody_writes_is_refused() {
        let env = |text: &str, count: usize| json!({"Env": vec![text; count]});
        let names = |count: usize| (0..count).map(|number| format!("n{number}/v:/v")).collect::<Vec<_>>();
        for (body, expected) in [
            (env("constraint:zone==a", 64), "fine"),
            (env("constraint:zone==a", 65), "too many constraints: 65, at most 64 can be given"),
            (env("affinity:image==a", 65), "too many affinities: 65, at most 64 can be given"),
            (env("whitelist:node==a", 65), "too many whitelists: 65, at most 64 can be given"),
            (
                json!({"HostConfig": {"Links": vec!["a:b"; 257]}}),
                "too many dependencies: 257, at most 256 can be given",
            ),
            (
                json!({"HostConfig": {"PortBindings": {"1/tcp": vec![json!({"HostPort": "1"}); 65_537]}}}),
                "too many published ports: 65537, at most 65536 can be given",
            ),
            (json!({"HostConfig": {"Binds": names(65)}}), "too many nodes in names: 65, at most 64 can be given"),
        ] {
            let got = read(body).map_or_else(|error| error.to_string(), |_| "fine".to_owned());
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn a_node_prefix_pins_and_is_taken_off() {
        let request =
            read(json!({"HostConfig": {"NetworkMode": "n1/backend", "Binds": ["n1/data:/d:ro", "/etc/x:/x"], "Mounts":
            [{"Type": "volume", "Source": "n1/v"}]}, "NetworkingConfig": {"EndpointsConfig": {"n1/backend": {}}}}))
            .unwrap();
        assert_eq!(
            request.body["HostConfig"],
            json!({"NetworkMode": "backend", "Binds": ["data:/d:ro", "/etc/x:/x"], "Mounts": [{"Type": "volume", "Source": "v"}]})
        );
        assert_eq!(request.body["NetworkingConfig"]["EndpointsConfig"], json!({"backend": {}}));
        assert_eq!(request.constraints[0].to_string(), "node==n1");
    }

    #[test]
    fn a_slash_in_the_name_of_a_container_is_no_node_of_a_network() {
        for (mode, target) in [("container:/web", "web"), ("container:n1/web", "n1/web"), ("container:web", "web")] {
            let host = json!({"NetworkMode": mode, "IpcMode": mode, "PidMode": mode, "VolumesFrom": ["n1/a", "/a:ro"],
                "Links": ["n1/b:c", "/b:c"]});
            let endpoints = json!({mode: {}, "front": {"Links": ["n1/d:e", "/d:e"]}});
            let request =
                read(json!({"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}})).unwrap();
            assert_eq!(request.body["HostConfig"], host);
            assert_eq!(request.body["NetworkingConfig"]["EndpointsConfig"], endpoints);
            assert!(request.constraints.is_empty(), "{:?}", request.constraints);
            let targets: Vec<&str> = request.dependencies.iter().map(|(_, target)| target.as_str()).collect();
            assert_eq!(targets.join(" "), format!("n1/a a n1/b b n1/d d {target} {target} {target}"));
        }
    }

    #[test]
    fn dependencies_name_their_flags() {
        let request =
            read(json!({"HostConfig": {"VolumesFrom": ["a:ro"], "Links": ["/b:alias"], "NetworkMode": "container:c"}}))
                .unwrap();
        let texts: Vec<String> = request.dependencies.iter().map(|(flag, target)| format!("{flag} {target}")).collect();
        assert_eq!(texts.join("; "), "--volumes-from=a:ro a; --link=/b:alias b; --net=container:c c");
    }

    #[test]
    fn builds_keep_only_arguments_that_are_arguments() {
        let (request, rest) =
            parse_build(&json!({"constraint:zone==a": null, "constraint:disk": "=ssd", "X": "1"}), 5).unwrap();
        let texts: Vec<String> = request.constraints.iter().map(Expression::to_string).collect();
        assert_eq!(texts.join(" "), "zone==a disk==ssd");
        assert_eq!(rest, json!({"X": "1"}));
        assert_eq!(request.container.reserved.memory_bytes, 5);
    }
}
