//! Conversion of a task into a plain container. The result is the body of the create call, and the volumes and files
//! that it needs. As swarm mode does it (moby `daemon/cluster/executor/container`), save that the engine is told
//! everything by its API.

pub mod extension;
mod files;
pub mod hooks;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herder_model::swarm::{
    Assignments, ContainerSpec, Driver, GenericResource, Mount, PortConfig, Privileges, ServiceFacts, TaskNetwork,
    TaskRecord, Ulimit,
};
use serde_json::{Map, Value, json};

pub use files::{File, files};

use super::template::Context;
use crate::swarm::networks::mac;
use crate::swarm::nodes::members::FENCE;

/// Facts of their node for containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub id: String,
    pub hostname: String,
    /// `linux`.
    pub os: String,
    /// `x86_64`.
    pub architecture: String,
}

/// Labels by which a node knows its containers again. Tools look for them, too.
pub const LABEL_NODE: &str = "com.docker.swarm.node.id";
pub const LABEL_TASK: &str = "com.docker.swarm.task.id";

/// Default stop grace period of swarm mode (swarmkit `api/defaults`).
const STOP_GRACE_NANOS: i64 = 10_000_000_000;

/// A container to create for a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// Name of the container.
    pub name: String,
    /// Image in the engine's form: with a tag or a digest.
    pub image: String,
    /// Bodies of `POST /volumes/create`, to be sent first.
    pub volumes: Vec<Value>,
    /// Body of `POST /containers/create`.
    pub body: Value,
    /// Networks to connect before the start, besides the one in the body: name and the body's `EndpointConfig`.
    pub networks: Vec<(String, Value)>,
}

/// `web.1.<id>`; where there are no slots, `web.<node>.<id>`.
pub fn task_name(record: &TaskRecord) -> String {
    let task = &record.task;
    if !task.name.is_empty() {
        return task.name.clone();
    }
    let slot = if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() };
    format!("{}.{slot}.{}", record.service_name, task.id)
}

/// Returns the container to create for a task. `binds` are its files on the node with their places in the container. An
/// error is told as the task's.
pub fn create(
    record: &TaskRecord,
    told: &Assignments,
    node: &NodeFacts,
    binds: &[(String, String)],
    overlays: &Overlays,
) -> Result<Create, String> {
    let context = Context::of(record, &facts(record, told).labels, node);
    let spec = record.task.spec.container_spec.as_ref().ok_or("the task has no container to run")?;
    extension::check_on_node(spec)?;
    let spec = context.container(spec)?;
    let name = task_name(record);
    let mut body = config(record, &spec, node, &name);
    // A node that was just started knows its containers before it hears from a manager.
    if is_fenced(record, told) {
        body["Labels"][FENCE] = "true".into();
    }
    let attachments = attachments(record, overlays);
    body["HostConfig"] = host_config(record, &spec, told.log_driver.as_ref(), binds, attachments.first());
    extension::extend(&spec, &mut body);
    let dns: Vec<String> = dns(record, overlays).iter().map(ToString::to_string).collect();
    if !dns.is_empty() {
        // The server there asks those of the specification for names that are not its own.
        body["HostConfig"]["Dns"] = dns.into();
    }
    let mut rest = attachments.into_iter();
    if let Some((network, endpoint)) = rest.next()
        && endpoint != json!({})
    {
        body["NetworkingConfig"] = json!({"EndpointsConfig": {network: endpoint}});
    }
    let volumes = spec.mounts.iter().filter_map(volume).collect();
    Ok(Create { name, image: image(&spec.image), volumes, body, networks: rest.collect() })
}

/// True if the task's service asks that none of its tasks runs twice ([`FENCE`]).
pub fn is_fenced(record: &TaskRecord, told: &Assignments) -> bool {
    facts(record, told).labels.get(FENCE).is_some_and(|value| value == "true")
}

/// True if the task says how its container is checked. Its image may do so, too.
pub fn is_checked(record: &TaskRecord) -> bool {
    let spec = record.task.spec.container_spec.as_ref();
    let test = spec.and_then(|spec| spec.healthcheck.as_ref()).and_then(|check| check.test.first());
    test.is_some_and(|first| first != "NONE")
}

/// Returns the stop grace period in whole seconds, as engines count.
pub fn stop_seconds(spec: &ContainerSpec) -> i64 {
    let nanos = spec.stop_grace_period.unwrap_or(STOP_GRACE_NANOS).max(0);
    nanos.saturating_add(999_999_999) / 1_000_000_000
}

/// Returns the facts of the task's service.
fn facts<'t>(record: &TaskRecord, told: &'t Assignments) -> Cow<'t, ServiceFacts> {
    told.services.get(&record.task.service_id).map_or_else(Cow::default, Cow::Borrowed)
}

/// Returns the image in the engine's form: with `latest` without a tag or digest, and without the default registry.
pub fn image(name: &str) -> String {
    let familiar = name.strip_prefix("docker.io/").or(name.strip_prefix("index.docker.io/")).unwrap_or(name);
    let familiar = familiar.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(familiar);
    let last = familiar.rsplit('/').next().unwrap_or(familiar);
    let is_id = familiar.strip_prefix("sha256:").is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if last.contains([':', '@']) || is_id { familiar.to_owned() } else { format!("{familiar}:latest") }
}

fn put(to: &mut Value, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let is_empty = match &value {
        Value::Null => true,
        Value::Bool(bool) => !bool,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    };
    if !is_empty {
        to[key] = value;
    }
}

fn object(entries: &BTreeMap<String, String>) -> Value {
    entries.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect::<Map<_, _>>().into()
}

/// Returns the part of the body for the process. Only declared settings are in it, so that the image's own count
/// elsewhere.
fn config(record: &TaskRecord, spec: &ContainerSpec, node: &NodeFacts, name: &str) -> Value {
    let mut body = json!({"Image": image(&spec.image), "Labels": labels(record, spec, node, name)});
    put(&mut body, "Hostname", spec.hostname.as_str());
    put(&mut body, "User", spec.user.as_str());
    put(&mut body, "WorkingDir", spec.dir.as_str());
    put(&mut body, "StopSignal", spec.stop_signal.as_str());
    // For operators who stop it by hand, and for a node that finds it and knows nothing of its task any more.
    if spec.stop_grace_period.is_some() {
        body["StopTimeout"] = stop_seconds(spec).into();
    }
    put(&mut body, "Tty", spec.tty);
    put(&mut body, "OpenStdin", spec.open_stdin);
    put(&mut body, "Entrypoint", spec.command.clone());
    put(&mut body, "Cmd", spec.args.clone());
    let env: Vec<String> = spec.env.iter().cloned().chain(resources_env(&record.task.generic_resources)).collect();
    put(&mut body, "Env", env);
    if let Some(health) = &spec.healthcheck {
        let mut check = json!({});
        put(&mut check, "Test", health.test.clone());
        put(&mut check, "Interval", health.interval);
        put(&mut check, "Timeout", health.timeout);
        put(&mut check, "StartPeriod", health.start_period);
        put(&mut check, "StartInterval", health.start_interval);
        put(&mut check, "Retries", health.retries);
        body["Healthcheck"] = check;
    }
    let exposed: Map<String, Value> = host_ports(record).map(|port| (port_key(port), json!({}))).collect();
    put(&mut body, "ExposedPorts", exposed);
    body
}

fn labels(record: &TaskRecord, spec: &ContainerSpec, node: &NodeFacts, name: &str) -> Value {
    let mut labels = spec.labels.clone();
    let task = &record.task;
    // The empty one was the first of them; tools still look for it.
    for (key, value) in [
        ("com.docker.swarm.task", ""),
        (LABEL_TASK, &task.id),
        ("com.docker.swarm.task.name", name),
        (LABEL_NODE, &node.id),
        ("com.docker.swarm.service.id", &task.service_id),
        ("com.docker.swarm.service.name", &record.service_name),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    object(&labels)
}

/// `DOCKER_RESOURCE_GPU=uuid1,uuid2`: which things the task was given.
fn resources_env(resources: &[GenericResource]) -> Vec<String> {
    let mut by_kind: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in resources {
        if let Some(named) = &resource.named_resource_spec {
            by_kind.entry(named.kind.to_uppercase()).or_default().push(named.value.clone());
        }
        if let Some(some) = &resource.discrete_resource_spec {
            by_kind.entry(some.kind.to_uppercase()).or_default().push(some.value.to_string());
        }
    }
    by_kind.into_iter().map(|(kind, values)| format!("DOCKER_RESOURCE_{kind}={}", values.join(","))).collect()
}

fn host_ports(record: &TaskRecord) -> impl Iterator<Item = &PortConfig> {
    record.ports.iter().filter(|port| port.publish_mode == "host")
}

/// `80/tcp`.
fn port_key(port: &PortConfig) -> String {
    let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
    format!("{}/{protocol}", port.target_port)
}

/// Returns the part of the body for the host. There is no restart policy: another task replaces one that ended.
fn host_config(
    record: &TaskRecord,
    spec: &ContainerSpec,
    log_driver: Option<&Driver>,
    binds: &[(String, String)],
    network: Option<&(String, Value)>,
) -> Value {
    let mut host = json!({"NetworkMode": network.map_or("default", |(name, _)| name)});
    let bind = |(source, target): &(String, String)| json!({"Type": "bind", "Source": source, "Target": target, "ReadOnly": true});
    let mounts: Vec<Value> = spec.mounts.iter().map(mount).chain(binds.iter().map(bind)).collect();
    put(&mut host, "Mounts", mounts);
    put(&mut host, "GroupAdd", spec.groups.clone());
    put(&mut host, "ReadonlyRootfs", spec.read_only);
    if let Some(init) = spec.init {
        host["Init"] = init.into();
    }
    put(&mut host, "Sysctls", object(&spec.sysctls));
    let capabilities = |of: &[String]| of.iter().map(|it| capability(it)).collect::<Vec<_>>();
    put(&mut host, "CapAdd", capabilities(&spec.capability_add));
    put(&mut host, "CapDrop", capabilities(&spec.capability_drop));
    put(&mut host, "OomScoreAdj", spec.oom_score_adj);
    put(&mut host, "Isolation", spec.isolation.to_lowercase());
    let ulimit = |it: &Ulimit| json!({"Name": it.name, "Hard": it.hard, "Soft": it.soft});
    put(&mut host, "Ulimits", spec.ulimits.iter().map(ulimit).collect::<Vec<_>>());
    if let Some(dns) = &spec.dns_config {
        put(&mut host, "Dns", dns.nameservers.clone());
        put(&mut host, "DnsSearch", dns.search.clone());
        put(&mut host, "DnsOptions", dns.options.clone());
    }
    put(&mut host, "ExtraHosts", spec.hosts.iter().filter_map(|entry| extra_host(entry)).collect::<Vec<_>>());
    put(&mut host, "SecurityOpt", spec.privileges.as_ref().map(security).unwrap_or_default());
    limits(record, &mut host);
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in host_ports(record) {
        let published = if port.published_port == 0 { String::new() } else { port.published_port.to_string() };
        bindings.entry(port_key(port)).or_default().push(json!({"HostIp": "", "HostPort": published}));
    }
    put(&mut host, "PortBindings", json!(bindings));
    if let Some(driver) = record.task.spec.log_driver.as_ref().or(log_driver) {
        host["LogConfig"] = json!({"Type": driver.name, "Config": object(&driver.options)});
    }
    host
}

/// `10.0.0.9 name other` → `name:10.0.0.9`; more names of one address are not known to the engine.
fn extra_host(entry: &str) -> Option<String> {
    let mut words = entry.split_whitespace();
    let (address, name) = (words.next()?, words.next()?);
    Some(format!("{name}:{address}"))
}

fn limits(record: &TaskRecord, host: &mut Value) {
    let Some(resources) = &record.task.spec.resources else { return };
    if let Some(limits) = &resources.limits {
        put(host, "NanoCpus", limits.nano_cpus);
        put(host, "Memory", limits.memory_bytes);
        put(host, "PidsLimit", limits.pids);
    }
    let memory = resources.limits.as_ref().map_or(0, |limits| limits.memory_bytes);
    match resources.swap_bytes {
        // No limit.
        Some(-1) => host["MemorySwap"] = json!(-1),
        // The engine counts memory and swap together.
        Some(swap) if memory > 0 => host["MemorySwap"] = memory.saturating_add(swap).into(),
        _ => {}
    }
    if let Some(swappiness) = resources.memory_swappiness {
        host["MemorySwappiness"] = swappiness.into();
    }
}

fn security(privileges: &Privileges) -> Vec<String> {
    let mut options = Vec::new();
    if let Some(credentials) = &privileges.credential_spec {
        let sources =
            [("config", &credentials.config), ("file", &credentials.file), ("registry", &credentials.registry)];
        let source = sources.into_iter().find(|(_, value)| !value.is_empty());
        options.extend(source.map(|(kind, value)| format!("credentialspec={kind}://{value}")));
    }
    if let Some(label) = &privileges.selinux_context {
        if label.disable {
            options.push("label=disable".into());
        }
        for (key, value) in
            [("user", &label.user), ("role", &label.role), ("level", &label.level), ("type", &label.kind)]
        {
            if !value.is_empty() {
                options.push(format!("label={key}:{value}"));
            }
        }
    }
    if let Some(seccomp) = &privileges.seccomp {
        match seccomp.mode.as_str() {
            "unconfined" => options.push("seccomp=unconfined".into()),
            "custom" => options.push(format!("seccomp={}", decoded(&seccomp.profile))),
            _ => {}
        }
    }
    if privileges.app_armor.as_ref().is_some_and(|it| it.mode == "disabled") {
        options.push("apparmor=unconfined".into());
    }
    if privileges.no_new_privileges == Some(true) {
        options.push("no-new-privileges=true".into());
    }
    options
}

/// Base64 as text; one that is none stays as it is, for the engine to refuse.
fn decoded(text: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| text.to_owned())
}

/// Options go to the engine as they are: it knows more kinds of them than we do.
fn mount(mount: &Mount) -> Value {
    let mut it = json!({"Type": if mount.kind.is_empty() { "volume" } else { &mount.kind }});
    put(&mut it, "Source", mount.source.as_str());
    put(&mut it, "Target", mount.target.as_str());
    put(&mut it, "ReadOnly", mount.read_only);
    put(&mut it, "Consistency", mount.consistency.as_str());
    let options = [
        ("BindOptions", &mount.bind_options),
        ("VolumeOptions", &mount.volume_options),
        ("TmpfsOptions", &mount.tmpfs_options),
    ];
    for (key, options) in options {
        if let Some(options) = options {
            it[key] = options.clone();
        }
    }
    it
}

/// Returns a named volume with a driver, which must be created before the container. The engine would use its own
/// driver.
fn volume(mount: &Mount) -> Option<Value> {
    let options = mount.volume_options.as_ref().filter(|_| matches!(mount.kind.as_str(), "" | "volume"))?;
    if mount.source.is_empty() || !options["DriverConfig"].is_object() {
        return None;
    }
    let mut body = json!({"Name": mount.source});
    put(&mut body, "Driver", options["DriverConfig"]["Name"].clone());
    put(&mut body, "DriverOpts", options["DriverConfig"]["Options"].clone());
    put(&mut body, "Labels", options["Labels"].clone());
    Some(body)
}

/// The engine's side of an overlay network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Id of the engine's network.
    pub engine_id: String,
    /// DNS servers of its containers.
    pub dns: Vec<IpAddr>,
}

/// Overlay networks, by id of the network.
pub type Overlays = BTreeMap<String, Overlay>;

/// DNS servers that an engine asks one after the other.
const DNS_SERVERS_MAX: usize = 3;

fn dns(record: &TaskRecord, overlays: &Overlays) -> Vec<IpAddr> {
    let places = record.networks.iter().filter_map(|it| overlays.get(&it.network_id));
    let mut servers: Vec<IpAddr> = places.flat_map(|it| it.dns.iter().copied()).collect();
    servers.sort_by_key(IpAddr::is_ipv6);
    servers.truncate(DNS_SERVERS_MAX);
    servers
}

/// Priority of the first network's gateway; the following ones have less.
const GW_PRIORITY: usize = 100;

/// Returns the endpoint of a task in an overlay network. Names are those of the swarm: the engine gets no aliases.
fn place(position: usize, network: &TaskNetwork, overlay: &Overlay) -> (String, Value) {
    let mut config = json!({});
    put(&mut config, "IPv4Address", network.v4.map(|it| it.to_string()).unwrap_or_default());
    put(&mut config, "IPv6Address", network.v6.map(|it| it.to_string()).unwrap_or_default());
    let mac = network.v4.map(mac).unwrap_or_default();
    let mut endpoint = json!({"IPAMConfig": config, "MacAddress": mac});
    // Ingress, where no names are asked for, is nobody's way out. Engines before API 1.48 choose by themselves.
    if !overlay.dns.is_empty() {
        endpoint["GwPriority"] = json!(GW_PRIORITY.saturating_sub(position));
    }
    (overlay.engine_id.clone(), endpoint)
}

/// Returns the maximum and minimum time that a task waits at its end until it gets no new connections. Labels of its
/// service say it: `herder.drain.max` (`500ms`, `5s`) and `herder.drain.delay`.
pub fn drain(record: &TaskRecord, told: &Assignments) -> (Duration, Duration) {
    let facts = facts(record, told);
    let label = |key: &str| facts.labels.get(key).and_then(|it| seconds(it));
    (label(DRAIN_MAX).unwrap_or(DRAIN_TIME_MAX), label(DRAIN_DELAY).unwrap_or_default())
}

const DRAIN_MAX: &str = "herder.drain.max";
const DRAIN_DELAY: &str = "herder.drain.delay";
/// Longer than a round to the leader and to all nodes takes, and short for a person who waits.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
/// A task that is to end is not kept for longer than this.
const DRAIN_DELAY_MAX: Duration = Duration::from_secs(600);

/// `1.5s`, `200ms`, or `2m`.
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.trim().trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let factor = match text.trim().get(digits.len()..)? {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    Duration::try_from_secs_f64(number * factor).ok().map(|it| it.min(DRAIN_DELAY_MAX))
}

/// Returns the networks of the task. These are overlay networks with its addresses, and networks of the node by
/// name (`host`, `bridge`, or one that was created there).
fn attachments(record: &TaskRecord, overlays: &Overlays) -> Vec<(String, Value)> {
    let is_overlay = |target: &str| record.networks.iter().any(|it| it.network_id == target && it.v4.is_some());
    // The first network of the specification carries the default route; the ingress network never does.
    let places = record.networks.iter().enumerate();
    let places = places.filter_map(|(position, it)| Some(place(position, it, overlays.get(&it.network_id)?)));
    let mut attached: Vec<(String, Value)> = places.collect();
    attached.extend(of_node(record).into_iter().filter(|(target, _)| !is_overlay(target)));
    attached
}

fn of_node(record: &TaskRecord) -> Vec<(String, Value)> {
    let networks = record.task.spec.networks.iter();
    let attach = networks.map(|network| {
        let mut endpoint = json!({});
        put(&mut endpoint, "Aliases", network.aliases.clone());
        put(&mut endpoint, "DriverOpts", object(&network.driver_opts));
        (network.target.clone(), endpoint)
    });
    attach.collect()
}

/// Returns the form that every engine understands: `chown` is `CAP_CHOWN`.
fn capability(text: &str) -> String {
    let upper = text.trim().to_uppercase();
    if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

#[cfg(test)]
mod tests;
