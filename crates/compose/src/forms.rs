//! Short forms of values, and the long forms that they stand for (Compose Specification, "short syntax").

use std::net::IpAddr;

use crate::node::{Node, Position, Value};

type Converted = Result<Node, String>;

fn texts_at(words: impl IntoIterator<Item = String>, at: Position) -> Node {
    Node::list(words.into_iter().map(|word| Node::text(word, at)).collect(), at)
}

/// A text is a list of one.
pub(crate) fn texts(node: Node) -> Converted {
    let at = node.at;
    Ok(match node.value {
        Value::Text(_) => Node::list(vec![node], at),
        _ => node,
    })
}

/// A text is split into words as a shell does, without expansion.
pub(crate) fn command(node: Node) -> Converted {
    match &node.value {
        Value::Text(text) => {
            let words = shell_words::split(text).map_err(|_| format!("`{text}` has a quote that is not closed"))?;
            Ok(texts_at(words, node.at))
        }
        _ => Ok(node),
    }
}

/// `host=address`, `host:address`, or a mapping of hosts to one or more addresses.
pub(crate) fn hosts(node: Node) -> Converted {
    let at = node.at;
    let mut hosts = Vec::new();
    match node.value {
        Value::List(list) => {
            for element in list {
                let text = element.as_str().ok_or("must be a list of host=address")?;
                let (host, address) = text
                    .split_once('=')
                    .or_else(|| text.split_once(':'))
                    .ok_or_else(|| format!("`{text}` is not host=address"))?;
                hosts.push(Node::text(host_line(host, address), element.at));
            }
        }
        Value::Map(map) => {
            for (host, value) in map {
                let addresses = texts(value)?;
                for address in addresses.elements() {
                    let text = address.as_str().ok_or_else(|| format!("the address of `{host}` must be a text"))?;
                    hosts.push(Node::text(host_line(&host, text), address.at));
                }
            }
        }
        _ => return Err("must be a list of host=address, or a mapping".into()),
    }
    Ok(Node::list(hosts, at))
}

fn host_line(host: &str, address: &str) -> String {
    let address = address.trim().trim_start_matches('[').trim_end_matches(']');
    format!("{}={address}", host.trim())
}

/// A text is the context.
pub(crate) fn build(node: Node) -> Converted {
    let at = node.at;
    Ok(match node.value {
        Value::Text(_) => Node::map([("context", node)], at),
        _ => node,
    })
}

/// A text is the name of a service of the same file.
pub(crate) fn extends(node: Node) -> Converted {
    let at = node.at;
    Ok(match node.value {
        Value::Text(_) => Node::map([("service", node)], at),
        _ => node,
    })
}

/// A text is the path of one file.
pub(crate) fn include(node: Node) -> Converted {
    let at = node.at;
    Ok(match node.value {
        Value::Text(_) => Node::map([("path", node)], at),
        _ => node,
    })
}

/// A text, or a mapping, is a list of one.
pub(crate) fn env_files(node: Node) -> Converted {
    let at = node.at;
    Ok(match node.value {
        Value::Text(_) | Value::Map(_) => Node::list(vec![node], at),
        _ => node,
    })
}

/// A text is the path of a file that must exist.
pub(crate) fn env_file(node: Node) -> Converted {
    let at = node.at;
    Ok(match node.value {
        Value::Text(_) => Node::map([("path", node), ("required", Node::new(Value::Bool(true), at))], at),
        _ => node,
    })
}

/// `all` is one request for all devices.
pub(crate) fn gpus(node: Node) -> Converted {
    let at = node.at;
    match &node.value {
        Value::Text(text) if text == "all" => Ok(Node::list(vec![Node::map([("count", node)], at)], at)),
        Value::Text(text) => Err(format!("`{text}` is not `all` or a list")),
        _ => Ok(node),
    }
}

/// A text is a command for the container's shell.
pub(crate) fn health_test(node: Node) -> Converted {
    let at = node.at;
    match node.value {
        Value::Text(text) => Ok(texts_at(["CMD-SHELL".to_owned(), text], at)),
        Value::List(list) => {
            let first = list.first().and_then(Node::as_str);
            match first {
                Some("NONE" | "CMD" | "CMD-SHELL") => Ok(Node::list(list, at)),
                Some(other) => Err(format!("begins with `{other}`; a list begins with NONE, CMD or CMD-SHELL")),
                None => Err("is empty; a list begins with NONE, CMD or CMD-SHELL".into()),
            }
        }
        _ => Err("must be a text or a list".into()),
    }
}

/// One number is both limits.
pub(crate) fn ulimit(node: Node) -> Converted {
    let at = node.at;
    Ok(match node.value {
        Value::Int(_) | Value::Text(_) => Node::map([("soft", node.clone()), ("hard", node)], at),
        _ => node,
    })
}

/// A dependency of the list form.
pub(crate) fn depends_on(name: &Node) -> Node {
    let (condition, required) = (Node::text("service_started", name.at), Node::new(Value::Bool(true), name.at));
    Node::map([("condition", condition), ("required", required)], name.at)
}

/// The value of a key that the list form names.
pub(crate) fn nothing(name: &Node) -> Node {
    Node::new(Value::Null, name.at)
}

/// A text is the source.
pub(crate) fn file_reference(node: Node) -> Result<Vec<Node>, String> {
    let at = node.at;
    Ok(vec![match node.value {
        Value::Text(_) => Node::map([("source", node)], at),
        _ => node,
    }])
}

/// `source[:target[:permissions]]`, or the name of a CDI device, `vendor.com/class=name`.
pub(crate) fn device(node: Node) -> Result<Vec<Node>, String> {
    let at = node.at;
    let Some(text) = node.as_str() else { return Ok(vec![node]) };
    let is_cdi = !text.starts_with('/') && text.contains('/') && text.contains('=');
    let parts: Vec<&str> = if is_cdi { vec![text] } else { text.split(':').collect() };
    let (source, target, permissions) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, target] => (source, target, "rwm"),
        [source, target, permissions] => (source, target, permissions),
        _ => return Err(format!("`{text}` is not source:target:permissions")),
    };
    let part = |text: &str| Node::text(text, at);
    Ok(vec![Node::map([("source", part(source)), ("target", part(target)), ("permissions", part(permissions))], at)])
}

/// Ports of one range at most: as many as there are.
const PORTS_MAX: u32 = 65_535;

/// `[address:][published:]target[/protocol]`, with ranges on both sides.
pub(crate) fn ports(node: Node) -> Result<Vec<Node>, String> {
    let at = node.at;
    let text = match &node.value {
        Value::Map(_) => return Ok(vec![long_port(node)]),
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) => {
            return Err(format!("must be a text, a number or a mapping, not {}", node.kind()));
        }
    };
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((&text, "tcp"));
    let (published, target) = match ports.rsplit_once(':') {
        Some((published, target)) => (Some(published), target),
        None => (None, ports),
    };
    let (address, published) = match published.map(|it| it.rsplit_once(':').unwrap_or(("", it))) {
        Some((address, published)) => (address.trim_start_matches('[').trim_end_matches(']'), published),
        None => ("", ""),
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("`{address}` is not an IP address"));
    }
    let targets = range(target)?;
    let one_for_one = if published.is_empty() { None } else { Some(range(published)?) };
    let count = targets.1 - targets.0 + 1;
    let shown: Vec<String> = match one_for_one {
        None => vec![String::new(); count as usize],
        Some((low, high)) if high - low + 1 == count => (low..=high).map(|port| port.to_string()).collect(),
        // One free port of the range.
        Some(_) if count == 1 => vec![published.to_owned()],
        Some(_) => return Err(format!("`{text}` has ranges of different lengths")),
    };
    let port = |(target, published): (u32, String)| {
        let mut entries = vec![
            ("mode", Node::text("ingress", at)),
            ("target", Node::new(Value::Int(i64::from(target)), at)),
            ("protocol", Node::text(protocol.to_ascii_lowercase(), at)),
        ];
        if !published.is_empty() {
            entries.push(("published", Node::text(published, at)));
        }
        if !address.is_empty() {
            entries.push(("host_ip", Node::text(address, at)));
        }
        Node::map(entries, at)
    };
    Ok((targets.0..=targets.1).zip(shown).map(port).collect())
}

fn long_port(mut node: Node) -> Node {
    let at = node.at;
    if let Some(map) = node.as_map_mut() {
        map.entry("mode".into()).or_insert_with(|| Node::text("ingress", at));
        map.entry("protocol".into()).or_insert_with(|| Node::text("tcp", at));
    }
    node
}

fn range(text: &str) -> Result<(u32, u32), String> {
    let port = |text: &str| text.parse::<u32>().ok().filter(|port| *port <= PORTS_MAX);
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (port(low), port(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        _ => Err(format!("`{text}` is not a port or a range of ports")),
    }
}

const PROPAGATIONS: [&str; 6] = ["shared", "rshared", "slave", "rslave", "private", "rprivate"];

/// `[source:]target[:options]`.
pub(crate) fn volume(node: Node) -> Result<Vec<Node>, String> {
    let at = node.at;
    let Some(text) = node.as_str() else { return Ok(vec![long_mount(node)]) };
    if text.is_empty() {
        return Err("is empty; a mount is source:target".into());
    }
    let parts = split_mount(text);
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(format!("`{text}` has too many colons; a mount is source:target:options")),
    };
    if source == Some("") || target.is_empty() {
        return Err(format!("`{text}` names no source or target; a mount is source:target"));
    }
    let is_bind = source.is_some_and(|source| source.starts_with(['.', '/', '~', '\\']) || is_drive(source));
    let yes = || Node::new(Value::Bool(true), at);
    let mut details: Vec<(&'static str, Node)> = Vec::new();
    let mut entries = vec![("type", Node::text(if is_bind { "bind" } else { "volume" }, at))];
    if is_bind {
        details.push(("create_host_path", yes()));
    }
    entries.extend(source.map(|source| ("source", Node::text(source, at))));
    entries.push(("target", Node::text(target, at)));
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => entries.push(("read_only", yes())),
            "rw" => {}
            "nocopy" if !is_bind => details.push(("nocopy", yes())),
            "z" | "Z" if is_bind => details.push(("selinux", Node::text(option, at))),
            // Labels have no meaning for volumes, and many files have them.
            "z" | "Z" => {}
            "cached" | "delegated" | "consistent" => entries.push(("consistency", Node::text(option, at))),
            _ if is_bind && PROPAGATIONS.contains(&option) => details.push(("propagation", Node::text(option, at))),
            _ => return Err(format!("`{option}` is not an option of a {}", if is_bind { "bind" } else { "volume" })),
        }
    }
    entries.push((if is_bind { "bind" } else { "volume" }, Node::map(details, at)));
    Ok(vec![Node::map(entries, at)])
}

fn long_mount(mut node: Node) -> Node {
    let at = node.at;
    let kind = node.get("type").and_then(Node::as_str).map(str::to_owned);
    if let Some(map) = node.as_map_mut() {
        match kind.as_deref() {
            None => drop(map.insert("type".into(), Node::text("volume", at))),
            Some("volume" | "bind") => {}
            Some(_) => return node,
        }
        let name = if kind.as_deref() == Some("bind") { "bind" } else { "volume" };
        map.entry(name.into()).or_insert_with(|| Node::map([], at));
    }
    node
}

pub(crate) fn is_drive(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' && bytes[2] == b'\\'
}

/// Splits at colons, but not at that of a drive (`C:\data`). `c:/data` is the volume `c`: files of Linux name volumes so.
fn split_mount(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut index) = (0, 0);
    while index < text.len() {
        if text.as_bytes()[index] == b':' {
            if index == start + 1 && is_drive(&text[start..]) {
                index += 1;
                continue;
            }
            parts.push(&text[start..index]);
            start = index + 1;
        }
        index += 1;
    }
    parts.push(&text[start..]);
    parts
}
