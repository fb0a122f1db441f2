//! Constraints on nodes: `node.role==manager`, `node.labels.zone!=b`, `node.ip==10.0.0.0/8`.
//!
//! Values and keys compare without case, the names of labels with it. A label that a node does not have is empty. Patterns are
//! none: `*` stands for itself.

use std::net::IpAddr;

use herder_model::swarm::NodeRecord;

use crate::swarm::{Code, Refusal};

/// One condition that a node must meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    /// `==`, else `!=`.
    equal: bool,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
    /// No node meets it, whatever the operator.
    Unknown,
}

const NODE_LABELS: &str = "node.labels.";
const ENGINE_LABELS: &str = "engine.labels.";

impl Constraint {
    /// Swarm mode gives these refusals without a code of their own, and clients get a 500.
    pub fn parse(text: &str) -> Result<Constraint, Refusal> {
        let refused = |text: String| Err(Refusal::new(Code::Unknown, text));
        let (equal, parts) = match text.split_once("==") {
            Some(parts) => (true, Some(parts)),
            None => (false, text.split_once("!=")),
        };
        let Some((key, value)) = parts else {
            return refused("constraint expected one operator from ==, !=".into());
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return refused(format!("key '{key}' is invalid"));
        }
        if !is_value(value) {
            return refused(format!("value '{value}' is invalid"));
        }
        Ok(Constraint { key: Key::of(key), equal, value: value.to_owned() })
    }

    /// True if the node meets it.
    pub fn accepts(&self, node: &NodeRecord) -> bool {
        let same = match &self.key {
            Key::Unknown => return false,
            Key::Ip => match in_range(&self.value, &node.node.status.addr) {
                Some(inside) => inside,
                None => return false,
            },
            key => key.of_node(node).eq_ignore_ascii_case(&self.value),
        };
        same == self.equal
    }

    /// Returns the node's value that the constraint compares.
    pub(super) fn found<'n>(&self, node: &'n NodeRecord) -> &'n str {
        self.key.of_node(node)
    }

    /// Name of the node's label that it asks to have a value, with the value.
    pub(super) fn wanted_label(&self) -> Option<(&str, &str)> {
        match &self.key {
            Key::NodeLabel(name) if self.equal => Some((name, &self.value)),
            _ => None,
        }
    }
}

impl Key {
    fn of(text: &str) -> Key {
        if let Some(name) = strip_prefix(text, NODE_LABELS) {
            return Key::NodeLabel(name.to_owned());
        }
        if let Some(name) = strip_prefix(text, ENGINE_LABELS) {
            return Key::EngineLabel(name.to_owned());
        }
        match text.to_ascii_lowercase().as_str() {
            "node.id" => Key::Id,
            "node.hostname" => Key::Hostname,
            "node.ip" => Key::Ip,
            "node.role" => Key::Role,
            "node.platform.os" => Key::Os,
            "node.platform.arch" => Key::Arch,
            _ => Key::Unknown,
        }
    }

    fn of_node<'n>(&self, node: &'n NodeRecord) -> &'n str {
        let description = node.description();
        match self {
            Key::Id => &node.node.id,
            Key::Hostname => &description.hostname,
            Key::Ip => &node.node.status.addr,
            Key::Role => node.role.as_str(),
            Key::Os => &description.platform.os,
            Key::Arch => &description.platform.architecture,
            Key::NodeLabel(name) => node_label(node, name),
            Key::EngineLabel(name) => engine_label(node, name),
            Key::Unknown => "",
        }
    }
}

/// A label of nodes, as constraints and preferences name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Node(String),
    Engine(String),
}

impl Label {
    /// Parses a label; `None` for anything else, over which nodes are not spread.
    pub(super) fn parse(descriptor: &str) -> Option<Label> {
        let node = strip_prefix(descriptor, NODE_LABELS).map(|name| Label::Node(name.to_owned()));
        node.or_else(|| strip_prefix(descriptor, ENGINE_LABELS).map(|name| Label::Engine(name.to_owned())))
    }

    /// Empty if the node does not have it.
    pub(super) fn of_node<'n>(&self, node: &'n NodeRecord) -> &'n str {
        match self {
            Label::Node(name) => node_label(node, name),
            Label::Engine(name) => engine_label(node, name),
        }
    }
}

fn node_label<'n>(node: &'n NodeRecord, name: &str) -> &'n str {
    node.node.spec.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str)
}

fn engine_label<'n>(node: &'n NodeRecord, name: &str) -> &'n str {
    node.description().engine.labels.get(name).map_or("", String::as_str)
}

/// Prefix without case; what follows is not empty.
fn strip_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    (start.eq_ignore_ascii_case(prefix) && !rest.is_empty()).then_some(rest)
}

/// Returns whether the address is the named one, or in the named network. `None` if the text is neither.
fn in_range(named: &str, addr: &str) -> Option<bool> {
    let addr: Option<IpAddr> = addr.parse().ok().map(|addr: IpAddr| addr.to_canonical());
    if let Ok(one) = named.parse::<IpAddr>() {
        return Some(addr == Some(one.to_canonical()));
    }
    let (network, bits) = named.split_once('/')?;
    let (network, bits): (IpAddr, u32) = (network.parse().ok()?, bits.parse().ok()?);
    let inside = |network: u128, addr: u128, width: u32| {
        let shift = width.checked_sub(bits)?;
        Some(network.checked_shr(shift).unwrap_or(0) == addr.checked_shr(shift).unwrap_or(0))
    };
    match (network, addr) {
        (IpAddr::V4(network), Some(IpAddr::V4(addr))) => {
            inside(u128::from(network.to_bits()), u128::from(addr.to_bits()), 32)
        }
        (IpAddr::V6(network), Some(IpAddr::V6(addr))) => inside(network.to_bits(), addr.to_bits(), 128),
        (IpAddr::V4(_), _) => (bits <= 32).then_some(false),
        (IpAddr::V6(_), _) => (bits <= 128).then_some(false),
    }
}

/// `^(?i)[a-z_][a-z0-9\-_.]+$`
fn is_key(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && text.len() > 1 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// `^(?i)[a-z0-9:\-_\s\.\*\(\)\?\+\[\]\\\^\$\|\/]+$`
fn is_value(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || r":-_.*()?+[]\^$|/".contains(c);
    !text.is_empty() && text.chars().all(known)
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{NodeDescription, NodeSpec, NodeStatus, Platform, Role, SwarmNode};

    use super::*;

    fn node() -> NodeRecord {
        let labels = Some([("zone".to_owned(), "East".to_owned()), ("Rack".to_owned(), "7".to_owned())].into());
        let mut description = NodeDescription { hostname: "Host-1".into(), ..NodeDescription::default() };
        description.platform = Platform { architecture: "x86_64".into(), os: "linux".into(), ..Platform::default() };
        description.engine.labels.insert("disk".into(), "ssd".into());
        let node = SwarmNode {
            id: "abc".into(),
            spec: NodeSpec { labels, ..NodeSpec::default() },
            description,
            status: NodeStatus { addr: "10.1.2.3".into(), ..NodeStatus::default() },
            ..SwarmNode::default()
        };
        NodeRecord { node, role: Role::Manager, ..NodeRecord::default() }
    }

    #[track_caller]
    fn check(constraints: &str, expected: &str) {
        let of = |text: &str| match Constraint::parse(text) {
            Ok(constraint) => if constraint.accepts(&node()) { "yes" } else { "no" }.to_owned(),
            Err(refusal) => refusal.text,
        };
        let found: Vec<String> = constraints.split(", ").map(of).collect();
        assert_eq!(found.join(", "), expected, "{constraints}");
    }

    #[test]
    fn keys_are_those_of_swarm_mode() {
        check("node.id==abc, node.id==ABC, node.id!=abc, node.id==ab", "yes, yes, no, no");
        check("node.hostname==host-1, NODE.hostname != host-2", "yes, yes");
        check("node.role==manager, node.role==MANAGER, node.role==worker, node.role!=worker", "yes, yes, no, yes");
        check("node.platform.os==Linux, node.platform.arch==x86_64, node.platform.arch==amd64", "yes, yes, no");
        check("node.labels.zone==east, Node.Labels.zone==EAST, node.labels.Zone==east", "yes, yes, no");
        check("node.labels.none!=x, node.labels.none==x, node.labels.Rack==7", "yes, no, yes");
        check("engine.labels.disk==ssd, engine.labels.disk!=ssd, engine.labels.zone==east", "yes, no, no");
    }

    #[test]
    fn an_unknown_key_is_never_met() {
        check("node.color==red, node.color!=red, node.labels.==x, zone!=x", "no, no, no, no");
    }

    #[test]
    fn addresses_are_compared_as_addresses() {
        check("node.ip==10.1.2.3, node.ip!=10.1.2.3, node.ip==10.1.2.4, node.ip!=10.1.2.4", "yes, no, no, yes");
        check("node.ip==10.0.0.0/8, node.ip!=10.0.0.0/8, node.ip==11.0.0.0/8, node.ip!=11.0.0.0/8", "yes, no, no, yes");
        check("node.ip==0.0.0.0/0, node.ip==10.1.2.3/32, node.ip==fd00::/8, node.ip!=fd00::/8", "yes, yes, no, yes");
        check("node.ip==10.0.0.0/33, node.ip!=10.0.0.0/33, node.ip==here, node.ip!=here", "no, no, no, no");
    }

    #[test]
    fn signs_are_literal_and_others_refused() {
        check("node.hostname==host-*, node.hostname!=host-*", "no, yes");
        check("node.role=manager", "constraint expected one operator from ==, !=");
        check("1==a", "key '1' is invalid");
        check("a==b", "key 'a' is invalid");
        check("a!=b==c", "key 'a!=b' is invalid");
        check("zone==@", "value '@' is invalid");
        check("zone==", "value '' is invalid");
        check("zone==a b", "no");
    }
}
