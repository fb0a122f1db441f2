//! A container → the services that it offers, by the rules of Registrator. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

/// Rules for the names of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// Rules of Registrator 7: the suffix counts registered ports, and a general name gets it, too.
    #[default]
    V7,
    /// Rules of January 2015: the suffix counts all known ports, and a name given by the container has none.
    Legacy2015,
}

/// The options of the rules, besides the container.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The name of this host, the first part of each id.
    pub hostname: String,
    /// The address of this host: stands for `0.0.0.0`.
    pub host_ip: Option<IpAddr>,
    /// `-ip`: wins over the address of the binding.
    pub ip: Option<String>,
    /// `-internal`: the container's own address and port.
    pub internal: bool,
    /// `-explicit`: only containers that name their service.
    pub explicit: bool,
    /// `-useIpFromLabel`.
    pub ip_label: Option<String>,
    pub naming: Naming,
    /// `-ttl` in seconds; 0 is none.
    pub ttl: u64,
}

/// One service of one container: what is written into a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub id: String,
    pub name: String,
    pub ip: String,
    pub port: u16,
    pub tags: Vec<String>,
    pub attrs: BTreeMap<String, String>,
    pub ttl: u64,
    pub container: String,
    pub exposed_port: String,
    pub published_port: String,
    /// The container has a health check, which may feed one of Consul.
    pub health: bool,
}

/// A port that the container offers.
#[derive(Clone, Debug)]
struct Port {
    number: String,
    udp: bool,
    host_ip: String,
    host_port: String,
}

/// Reason why a container or a port of it has no service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored(pub String);

/// The services of a container as the engine describes it. `tags` are those that every service gets, and `other` is the container whose
/// network this one uses (`container:<id>`).
pub fn services(inspected: &Value, other: Option<&Value>, tags: &str, rules: &Rules) -> (Vec<Service>, Vec<Ignored>) {
    let id = text(inspected, "/Id");
    let short: String = id.chars().take(12).collect();
    let mut ignored = Vec::new();
    let ports = ports(inspected);
    if ports.is_empty() {
        return (Vec::new(), vec![Ignored(format!("{short}: no published ports"))]);
    }
    let known = ports.len();
    let mut offered: Vec<Port> = Vec::new();
    for port in ports {
        if rules.internal || !port.host_port.is_empty() {
            offered.push(port);
        } else {
            ignored.push(Ignored(format!("{short}: port {} is not published on the host", port.number)));
        }
    }
    let group = match rules.naming {
        Naming::V7 => offered.len() > 1,
        Naming::Legacy2015 => known > 1,
    };
    let mut found = Vec::new();
    for port in offered {
        match service(inspected, other, &port, group, tags, rules) {
            Ok(service) => found.push(service),
            Err(why) => ignored.push(Ignored(format!("{short}: port {}: {why}", port.number))),
        }
    }
    (found, ignored)
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the ports. Exposed ones count as published on the same number, which makes host networking work; a binding
/// at run time wins.
fn ports(inspected: &Value) -> Vec<Port> {
    let mut ports: BTreeMap<(u32, String), Port> = BTreeMap::new();
    let mode = text(inspected, "/HostConfig/NetworkMode");
    // On networks of one's own the container's address there counts as the host's.
    let network_ip = match mode {
        "" | "bridge" | "default" | "host" => None,
        mode => inspected.pointer("/NetworkSettings/Networks").and_then(|networks| networks.get(mode)),
    };
    let network_ip = network_ip.map(|network| text(network, "/IPAddress").to_owned());
    let mut add = |key: &str, host_ip: &str, host_port: &str| {
        let (number, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let host_ip = if host_ip.is_empty() { "0.0.0.0" } else { host_ip };
        let port = Port {
            number: number.to_owned(),
            udp: protocol == "udp",
            host_ip: network_ip.clone().unwrap_or_else(|| host_ip.to_owned()),
            host_port: host_port.to_owned(),
        };
        ports.insert((number.parse().unwrap_or(u32::MAX), key.to_owned()), port);
    };
    for key in inspected.pointer("/Config/ExposedPorts").and_then(Value::as_object).into_iter().flatten() {
        add(key.0, "0.0.0.0", key.0.split('/').next().unwrap_or_default());
    }
    for (key, bindings) in inspected.pointer("/NetworkSettings/Ports").and_then(Value::as_object).into_iter().flatten()
    {
        let first = bindings.get(0);
        let part = |name: &str| first.map_or("", |binding| text(binding, name));
        add(key, part("/HostIp"), part("/HostPort"));
    }
    ports.into_values().collect()
}

fn service(
    inspected: &Value,
    other: Option<&Value>,
    port: &Port,
    group: bool,
    forced_tags: &str,
    rules: &Rules,
) -> Result<Service, String> {
    let Metadata { mut values, of_port } = metadata(inspected, &port.number);
    if values.get("ignore").is_some_and(|it| !it.is_empty()) {
        return Err("SERVICE_IGNORE is set".to_owned());
    }
    let given = values.remove("name").filter(|name| !name.is_empty());
    if given.is_none() && rules.explicit {
        return Err("it has no SERVICE_NAME, and only such are registered".to_owned());
    }
    let has_name = given.is_some();
    let mut name = given.unwrap_or_else(|| base_of_image(text(inspected, "/Config/Image")).to_owned());
    let suffixed = match rules.naming {
        Naming::V7 => !of_port.iter().any(|key| key == "name"),
        Naming::Legacy2015 => !has_name,
    };
    if group && suffixed {
        name = format!("{name}-{}", port.number);
    }
    let container_ip = |container: &Value| {
        let first = text(container, "/NetworkSettings/IPAddress");
        let networks = container.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
        let mut others = networks.into_iter().flat_map(|networks| networks.values());
        let of_network = others.find_map(|network| Some(text(network, "/IPAddress")).filter(|ip| !ip.is_empty()));
        if first.is_empty() { of_network.unwrap_or_default().to_owned() } else { first.to_owned() }
    };
    let host_ip = match (&rules.ip, port.host_ip.as_str()) {
        (Some(ip), _) => ip.clone(),
        (None, "0.0.0.0" | "::") => rules.host_ip.map_or_else(|| port.host_ip.clone(), |ip| ip.to_string()),
        (None, ip) => ip.to_owned(),
    };
    let (mut ip, number) =
        if rules.internal { (container_ip(inspected), &port.number) } else { (host_ip, &port.host_port) };
    if let Some(label) = &rules.ip_label {
        let value = inspected.pointer("/Config/Labels").and_then(|labels| labels.get(label)).and_then(Value::as_str);
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            ip = value.rsplit_once('/').map_or(value, |(ip, _)| ip).to_owned();
        }
    }
    if let Some(other) = other {
        ip = container_ip(other);
    }
    // Over many engines, the node stands in front of the name.
    let bare_name = text(inspected, "/Name").rsplit('/').next().unwrap_or_default();
    let mut id = format!("{}:{bare_name}:{}", rules.hostname, port.number);
    let mut tags = tags(values.remove("tags").as_deref().unwrap_or_default());
    tags.extend(self::tags(forced_tags));
    if port.udp {
        tags.push("udp".to_owned());
        id.push_str(":udp");
    }
    if let Some(given) = values.remove("id").filter(|id| !id.is_empty()) {
        id = given;
    }
    values.remove("ignore");
    Ok(Service {
        id,
        name,
        ip,
        port: number.parse().map_err(|_| format!("{number:?} is no port"))?,
        tags,
        attrs: values,
        ttl: rules.ttl,
        container: text(inspected, "/Id").to_owned(),
        exposed_port: port.number.clone(),
        published_port: port.host_port.clone(),
        health: inspected.pointer("/State/Health").is_some_and(|health| !health.is_null()),
    })
}

/// The container whose network this one uses.
pub fn network_container(inspected: &Value) -> Option<&str> {
    text(inspected, "/HostConfig/NetworkMode").strip_prefix("container:")
}

/// `reg:5000/a/b:1@sha256:…` → `b`.
pub fn base_of_image(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    let base = image.rsplit('/').next().unwrap_or_default();
    base.split(':').next().unwrap_or_default()
}

struct Metadata {
    values: BTreeMap<String, String>,
    /// Keys that were given for this port.
    of_port: Vec<String>,
}

/// `SERVICE_<X>` and `SERVICE_<port>_<X>` of variables, then of labels; what is said for the port wins, then what is said later.
fn metadata(inspected: &Value, port: &str) -> Metadata {
    let variables = inspected.pointer("/Config/Env").and_then(Value::as_array).into_iter().flatten();
    let variables = variables.filter_map(|entry| entry.as_str()?.split_once('='));
    let labels = inspected.pointer("/Config/Labels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
    let mut found = Metadata { values: BTreeMap::new(), of_port: Vec::new() };
    for (key, value) in variables.chain(labels) {
        let Some(key) = key.strip_prefix("SERVICE_") else { continue };
        let key = key.to_lowercase();
        match key.split_once('_') {
            Some((number, rest)) if number.parse::<i64>().is_ok() => {
                if number == port {
                    found.values.insert(rest.to_owned(), value.to_owned());
                    found.of_port.push(rest.to_owned());
                }
            }
            _ if found.of_port.contains(&key) => {}
            _ => {
                found.values.insert(key, value.to_owned());
            }
        }
    }
    found
}

/// Tags parted by commas; `\,` is a comma, and empty parts vanish.
pub fn tags(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        match c {
            '\\' if chars.peek() == Some(&',') => {
                chars.next();
                parts[last].push(',');
            }
            ',' => parts.push(String::new()),
            c => parts[last].push(c),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Returns whether an id has the form of this host's: `<hostname>:<name>:<port>`, or that with `:udp`.
pub fn is_of_host(id: &str, hostname: &str) -> bool {
    let Some(rest) = id.strip_prefix(hostname).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let rest = rest.strip_suffix(":udp").unwrap_or(rest);
    rest.rsplit_once(':').is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok())
}

/// `ip:port`, with brackets around an IPv6 address.
pub fn address(service: &Service) -> String {
    if service.ip.contains(':') {
        format!("[{}]:{}", service.ip, service.port)
    } else {
        format!("{}:{}", service.ip, service.port)
    }
}
