//! Filters: which nodes cannot take a container.

use std::fmt;
use std::iter;
use std::str::FromStr;
use std::sync::Arc;

use herder_model::{Container, HostPort, Node};

use crate::names;
use crate::place::expr::{Expression, Matcher};
use crate::place::prefer;
use crate::place::request::CreateRequest;

/// The label of a node that limits how many containers it takes, running or not.
const LABEL_SLOTS: &str = "containerslots";

/// A reason to refuse a node. In the order in which the original applies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Health,
    Port,
    ContainerSlots,
    Dependency,
    Affinity,
    Constraint,
    Whitelist,
}

impl Filter {
    pub const ALL: [Filter; 7] = [
        Filter::Health,
        Filter::Port,
        Filter::ContainerSlots,
        Filter::Dependency,
        Filter::Affinity,
        Filter::Constraint,
        Filter::Whitelist,
    ];

    fn name(self) -> &'static str {
        match self {
            Filter::Health => "health",
            Filter::Port => "port",
            Filter::ContainerSlots => "containerslots",
            Filter::Dependency => "dependency",
            Filter::Affinity => "affinity",
            Filter::Constraint => "constraint",
            Filter::Whitelist => "whitelist",
        }
    }

    pub(super) fn reads_containers(self) -> bool {
        matches!(self, Filter::Port | Filter::Affinity)
    }

    /// True if this filter has nothing against the node.
    pub(super) fn accepts(self, asked: &Asked<'_>, node: &Node) -> bool {
        match self {
            Filter::Health => node.health_indicator > 0,
            Filter::Port => asked.ports_free(node),
            Filter::ContainerSlots => slots(node).is_none_or(|slots| node.containers.len() < slots),
            Filter::Dependency => {
                asked.dependencies.iter().all(|(_, addr)| addr.as_deref() == Some(node.addr.as_str()))
            }
            Filter::Affinity => asked.affinities.iter().all(|(expression, it)| affinity_holds(expression, it, node)),
            Filter::Constraint => {
                asked.constraints.iter().all(|(expression, it)| constraint_holds(expression, it, node))
            }
            Filter::Whitelist => prefer::allow(&asked.request.whitelists, &node.name),
        }
    }

    /// Returns the conditions in the form in which the original lists them in its refusal.
    pub(super) fn conditions(self, asked: &Asked<'_>) -> Vec<String> {
        let request = asked.request;
        match self {
            Filter::Health => vec![],
            Filter::Port if request.container.network_mode == "host" => {
                request.container.exposed_ports.iter().map(|port| format!("port {port} (Host mode)")).collect()
            }
            Filter::Port => request
                .container
                .host_ports
                .iter()
                .map(|port| format!("port {} (Bridge mode)", port_text(port)))
                .collect(),
            Filter::ContainerSlots => vec!["available container slots".into()],
            Filter::Dependency if request.dependencies.is_empty() => vec![],
            Filter::Dependency => {
                let flags: Vec<&str> = request.dependencies.iter().map(|(flag, _)| flag.as_str()).collect();
                vec![flags.join(" ")]
            }
            Filter::Affinity => {
                let text = |it: &Expression| format!("{} (soft={})", Expression { soft: false, ..it.clone() }, it.soft);
                request.affinities.iter().map(text).collect()
            }
            Filter::Constraint if request.constraints.is_empty() => vec![],
            Filter::Constraint => {
                let texts: Vec<String> = request.constraints.iter().map(Expression::to_string).collect();
                vec![texts.join(" ")]
            }
            Filter::Whitelist => request.whitelists.iter().map(Expression::to_string).collect(),
        }
    }

    /// Returns the reason why this filter refuses the node, in a few words.
    pub(super) fn reason(self, asked: &Asked<'_>, node: &Node) -> String {
        let failing = |list: &[(Expression, Matcher)], holds: fn(&Expression, &Matcher, &Node) -> bool| {
            list.iter().find(|(expression, it)| !holds(expression, it, node)).map(|(expression, _)| expression.clone())
        };
        match self {
            Filter::Health => match &node.error {
                Some(error) => format!("{}: {error}", node.state.as_str().to_lowercase()),
                None => node.state.as_str().to_lowercase(),
            },
            Filter::Port => match asked.port_taken(node) {
                Some((port, container)) => format!("port {port} is taken by container {}", container.name),
                None => "a port is taken".into(),
            },
            Filter::ContainerSlots => {
                format!("{} of {} container slots are taken", node.containers.len(), slots(node).unwrap_or_default())
            }
            Filter::Dependency => match asked.dependencies.iter().find(|(_, addr)| addr.as_deref() != Some(&node.addr))
            {
                Some((flag, None)) => format!("{flag}: no node has that container"),
                Some((flag, Some(addr))) => format!("{flag}: that container is on {addr}"),
                None => "a dependency is elsewhere".into(),
            },
            Filter::Affinity => match failing(&asked.affinities, affinity_holds) {
                Some(it) => format!("affinity {it} does not hold"),
                None => "an affinity does not hold".into(),
            },
            Filter::Constraint => match failing(&asked.constraints, constraint_holds) {
                Some(it) if it.key == "node" => format!("constraint {it} does not hold"),
                Some(it) => {
                    let has = node.labels.get(&it.key).map_or("nothing".into(), |value| format!("`{value}`"));
                    format!("constraint {it} does not hold, {} is {has}", it.key)
                }
                None => "a constraint does not hold".into(),
            },
            Filter::Whitelist => "not in the whitelist".into(),
        }
    }
}

impl FromStr for Filter {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Filter, &'static str> {
        Filter::ALL.into_iter().find(|filter| filter.name() == text).ok_or("filter not supported")
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A request with its expressions compiled once for all nodes.
pub(super) struct Asked<'r> {
    pub request: &'r CreateRequest,
    constraints: Vec<(Expression, Matcher)>,
    affinities: Vec<(Expression, Matcher)>,
    /// Flag → address of the node that has the container.
    dependencies: Vec<(String, Option<String>)>,
    soft: bool,
    /// Containers that were created and never started count as if they had their ports.
    created_count: bool,
}

impl<'r> Asked<'r> {
    pub(super) fn new(request: &'r CreateRequest, nodes: &[Arc<Node>], soft: bool) -> Asked<'r> {
        let compile = |list: &[Expression]| -> Vec<(Expression, Matcher)> {
            let counts = list.iter().filter(|expression| soft || !expression.soft);
            counts.map(|expression| (expression.clone(), expression.matcher())).collect()
        };
        let owner = |name: &str| names::container(nodes, name).ok().map(|(node, _)| node.addr.clone());
        Asked {
            request,
            constraints: compile(&request.constraints),
            affinities: compile(&request.affinities),
            dependencies: request.dependencies.iter().map(|(flag, name)| (flag.clone(), owner(name))).collect(),
            soft: request.constraints.iter().chain(&request.affinities).any(|expression| expression.soft)
                || wants_ports(request),
            created_count: soft && !request.insists,
        }
    }

    pub(super) fn has_soft(&self) -> bool {
        self.soft
    }

    fn ports_free(&self, node: &Node) -> bool {
        !wants_ports(self.request) || self.port_taken(node).is_none()
    }

    /// True if the container counts as having its ports. One that does not run has none, as on one engine. But one that
    /// was created and never started is probably about to start, so another node is better while there is one.
    fn has_ports(&self, other: &Container) -> bool {
        let gives_way = self.request.replaces.as_ref() == Some(&other.id);
        !gives_way && (other.is_running() || self.created_count && other.state == "created")
    }

    /// The first port that is asked for and taken, and by whom.
    fn port_taken<'n>(&self, node: &'n Node) -> Option<(String, &'n Container)> {
        let wants = &self.request.container;
        node.containers.values().filter(|other| self.has_ports(other)).find_map(|other| {
            if wants.network_mode == "host" && other.network_mode == "host" {
                let port = wants.exposed_ports.iter().find(|port| other.exposed_ports.contains(port));
                if let Some(port) = port {
                    return Some((port.clone(), &**other));
                }
            }
            let clash = |port: &&HostPort| {
                // A container that asks for a range takes one port of it: what it published tells which.
                other.host_ports.iter().any(|taken| collides(port, taken))
            };
            wants.host_ports.iter().find(clash).map(|port| (port_text(port), &**other))
        })
    }
}

fn wants_ports(request: &CreateRequest) -> bool {
    let wants = &request.container;
    !wants.host_ports.is_empty() || wants.network_mode == "host" && !wants.exposed_ports.is_empty()
}

/// True if only containers that were created and never started keep the request's ports from this node.
pub fn ports_promised(request: &CreateRequest, node: &Node) -> bool {
    !Asked::new(request, &[], true).ports_free(node) && Asked::new(request, &[], false).ports_free(node)
}

/// True if both cannot be had on one node. A range finds another port unless it is a single one.
fn collides(wanted: &HostPort, taken: &HostPort) -> bool {
    let everywhere = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    let same_ip = wanted.ip == taken.ip || everywhere(&wanted.ip) || everywhere(&taken.ip);
    // A range is satisfied by any free port in it; only the engine knows which one it took.
    let single = |port: &HostPort| port.first == port.last;
    single(wanted) && single(taken) && wanted.first == taken.first && wanted.protocol == taken.protocol && same_ip
}

fn port_text(port: &HostPort) -> String {
    let range = if port.first == port.last { port.first.to_string() } else { format!("{}-{}", port.first, port.last) };
    if port.protocol == "tcp" { range } else { format!("{range}/{}", port.protocol) }
}

fn slots(node: &Node) -> Option<usize> {
    node.labels.get(LABEL_SLOTS)?.parse().ok()
}

fn constraint_holds(expression: &Expression, it: &Matcher, node: &Node) -> bool {
    if expression.key == "node" {
        it.holds([node.id.as_str(), node.name.as_str()].into_iter())
    } else {
        it.holds(iter::once(node.labels.get(&expression.key).map_or("", String::as_str)))
    }
}

fn affinity_holds(expression: &Expression, it: &Matcher, node: &Node) -> bool {
    match expression.key.as_str() {
        "container" => {
            let candidates = node.containers.values().flat_map(|other| [other.id.as_str(), other.name.as_str()]);
            // `/name` and `node/name` mean the same container. (`/re/` is an expression, and matches without them.)
            let value = expression.value.trim_start_matches('/');
            let value = value.strip_prefix(node.name.as_str()).and_then(|it| it.strip_prefix('/')).unwrap_or(value);
            let slashed = value.len() < expression.value.len() && !expression.value.ends_with('/');
            let named = slashed && node.containers.values().any(|other| other.name == value);
            if named { expression.equals } else { it.holds(candidates) }
        }
        "image" => it.holds(node.images.iter().flat_map(|image| {
            let repos = image.repo_tags.iter().filter_map(|tag| tag.rsplit_once(':').map(|(repo, _)| repo));
            iter::once(image.id.as_str()).chain(image.repo_tags.iter().map(String::as_str)).chain(repos)
        })),
        key => it.holds(node.containers.values().map(|other| other.labels.get(key).unwrap_or(""))),
    }
}
