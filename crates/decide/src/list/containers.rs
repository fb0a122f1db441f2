//! `GET /containers/json` over all nodes.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use herder_model::{Container, Health, Node};

use super::filters::Patterns;
use super::{Filters, ListError};
use crate::{names, render};

/// The question.
#[derive(Clone, Debug, Default)]
pub struct ContainerQuery {
    /// Stopped ones as well, and those of nodes that do not answer.
    pub all: bool,
    /// Number of newest containers to list, running or not.
    pub limit: Option<usize>,
    /// Only those created before this container.
    pub before: Option<String>,
    /// Only those created after this container.
    pub since: Option<String>,
    /// Sizes are known to engines only; lists from memory leave them out.
    pub size: bool,
    pub filters: Filters,
}

const KNOWN: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "node",
    "publish",
    "since",
    "status",
    "volume",
];
const TASK_LABELS: [&str; 2] = ["com.docker.swarm.task", "com.docker.swarm.task.id"];
const STATES: &[&str] = &["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// Typical bytes of a filled hole of an entry: a status, a name, an address.
const HOLE_BYTES: usize = 32;

/// Number of entries from which the length of a list is estimated.
const SAMPLES: usize = 256;

/// Their text stays in the nearest caches of the processor until it is copied.
const FETCHED_TOGETHER: usize = 32;

/// Large enough for one write to a socket, small enough for memory that was used a moment ago.
const PIECE_BYTES: usize = 128 << 10;

/// The containers as one JSON array, newest first. `now` in seconds since 1970.
pub fn containers(nodes: &[Arc<Node>], query: &ContainerQuery, now: i64) -> Result<Vec<u8>, ListError> {
    let pieces = pieces(&nodes.into(), query, now)?;
    let mut out = Vec::with_capacity(pieces.bytes_about());
    pieces.for_each(|piece| out.extend(piece));
    Ok(out)
}

/// Same as [`containers`], rendered while it is sent: with 30,000 containers the whole is some 30 MB.
pub fn pieces(nodes: &Arc<[Arc<Node>]>, query: &ContainerQuery, now: i64) -> Result<Pieces, ListError> {
    let chosen = places(nodes, query)?.into_iter().map(|(_, place)| place).collect();
    Ok(Pieces { nodes: nodes.clone(), chosen, next: 0, now, ended: false })
}

/// A list, cut into pieces of about 128 KiB.
#[derive(Debug)]
pub struct Pieces {
    nodes: Arc<[Arc<Node>]>,
    chosen: Vec<Place>,
    next: usize,
    now: i64,
    ended: bool,
}

impl Pieces {
    /// Returns the length of the whole list, estimated from a sample when it is long.
    pub fn bytes_about(&self) -> usize {
        let step = (self.chosen.len() / SAMPLES).max(1);
        let length = |(_, it): Entry<'_>| it.entry.text.len() + it.entry.holes.len() * HOLE_BYTES + 1;
        let samples = self.chosen.iter().step_by(step).map(|place| length(place.entry(&self.nodes)));
        samples.sum::<usize>() * step + 2
    }
}

impl Pieces {
    /// Reads a little of the next entries. They lie all over the memory, and waiting for it is what a large list takes its
    /// time with; without other work in between the processor waits for many of them at once.
    fn fetch(&self) {
        let next = self.chosen[self.next..].iter().take(FETCHED_TOGETHER);
        let touched = next.map(|place| {
            let (_, it) = place.entry(&self.nodes);
            let text = it.entry.text.as_bytes();
            let byte = |at: usize| usize::from(text.get(at).copied().unwrap_or_default());
            let hole = it.entry.holes.first().map_or(0, |(at, _)| *at as usize);
            hole + byte(0) + byte(text.len() / 2) + byte(text.len().saturating_sub(1))
        });
        std::hint::black_box(touched.fold(0, usize::wrapping_add));
    }
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let mut out = String::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        if self.next == 0 {
            out.push('[');
        }
        while out.len() < PIECE_BYTES {
            let Some(place) = self.chosen.get(self.next) else {
                out.push(']');
                self.ended = true;
                break;
            };
            if self.next > 0 {
                out.push(',');
            }
            if self.next.is_multiple_of(FETCHED_TOGETHER) {
                self.fetch();
            }
            let (node, container) = place.entry(&self.nodes);
            render::container_into(&mut out, node, container, self.now);
            self.next += 1;
        }
        Some(out.into_bytes())
    }
}

/// A container and its node.
type Entry<'n> = (&'n Arc<Node>, &'n Arc<Container>);

/// Place of a container: the number of its node, and its own in the node's index of names.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: u32,
    at: u32,
}

impl Place {
    fn entry(self, nodes: &[Arc<Node>]) -> Entry<'_> {
        let node = &nodes[self.node as usize];
        (node, &node.names.containers()[self.at as usize])
    }
}

/// The containers that `query` asks for, newest first.
pub fn select<'n>(nodes: &'n [Arc<Node>], query: &ContainerQuery) -> Result<Vec<Entry<'n>>, ListError> {
    Ok(places(nodes, query)?.into_iter().map(|(_, place)| place.entry(nodes)).collect())
}

/// The places of the containers that `query` asks for, newest first, each with the time of its creation.
fn places(nodes: &[Arc<Node>], query: &ContainerQuery) -> Result<Vec<(i64, Place)>, ListError> {
    let wanted = Wanted::new(nodes, query)?;
    let position = |given: &str| match names::container(nodes, given) {
        Ok((_, container)) => Ok((container.created, container.id.clone())),
        Err(_) => Err(ListError::NoContainer(given.to_owned())),
    };
    let filters = &query.filters;
    let before = query.before.as_deref().into_iter().chain(filters.values("before")).map(position);
    let before = before.collect::<Result<Vec<_>, _>>()?.into_iter().min();
    let since = query.since.as_deref().into_iter().chain(filters.values("since")).map(position);
    let since = since.collect::<Result<Vec<_>, _>>()?.into_iter().max();
    let between = |created: i64, it: &Container| {
        before.as_ref().is_none_or(|(time, id)| (created, it.id.as_str()) < (*time, id))
            && since.as_ref().is_none_or(|(time, id)| (created, it.id.as_str()) > (*time, id))
    };
    let mut chosen: Vec<(i64, Place)> = Vec::new();
    for (number, node) in (0..).zip(nodes) {
        if wanted.shows_node(node) {
            let shown = (0..).zip(node.names.containers());
            let shown = shown.filter(|(_, it)| wanted.shows(node, it) && between(it.created, it));
            chosen.extend(shown.map(|(at, it)| (it.created, Place { node: number, at })));
        }
    }
    // First by what is at hand; ids are looked up only where the time is the same.
    chosen.sort_unstable_by_key(|(created, _)| Reverse(*created));
    for same in chosen.chunk_by_mut(|(a, _), (b, _)| a == b).filter(|same| same.len() > 1) {
        same.sort_by_cached_key(|(_, place)| {
            let id = place.entry(nodes).1.id.as_str();
            Reverse((id_start(id), id))
        });
    }
    chosen.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(chosen)
}

/// The first digits of an id as a number of the same order.
fn id_start(id: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = id.len().min(8);
    bytes[..length].copy_from_slice(&id.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}

/// A query made ready for many containers.
#[derive(Debug)]
struct Wanted<'q> {
    filters: &'q Filters,
    /// Those of nodes that do not answer as well.
    down: bool,
    /// Those that do not run as well.
    stopped: bool,
    /// The images that carry classic Swarm itself, which hides them.
    swarm: bool,
    names: Patterns,
    ids: Patterns,
    nodes: Patterns,
    exited: Vec<i64>,
    /// Ids of the images of `ancestor` and of what was built on them.
    ancestors: Option<BTreeSet<String>>,
    task: Option<bool>,
    expose: Vec<PortRange<'q>>,
    publish: Vec<PortRange<'q>>,
}

impl<'q> Wanted<'q> {
    fn new(nodes: &[Arc<Node>], query: &'q ContainerQuery) -> Result<Wanted<'q>, ListError> {
        let filters = &query.filters;
        filters.check(KNOWN)?;
        let states = "created, restarting, running, removing, paused, exited or dead";
        filters.check_values("status", STATES, states)?;
        filters.check_values("health", HEALTH, "none, starting, healthy or unhealthy")?;
        let exited = |text: &str| text.parse().map_err(|_| ListError::value("exited", text, "an exit code"));
        let more = query.all || query.limit.is_some() || query.before.is_some() || query.since.is_some();
        let ports = |key: &str| filters.values(key).map(|text| PortRange::parse(key, text)).collect();
        Ok(Wanted {
            filters,
            down: more,
            stopped: more || filters.has("status") || filters.has("exited"),
            swarm: query.all,
            names: filters.patterns("name"),
            ids: filters.patterns("id"),
            nodes: filters.patterns("node"),
            exited: filters.values("exited").map(exited).collect::<Result<_, _>>()?,
            ancestors: filters.has("ancestor").then(|| ancestors(nodes, filters)),
            task: filters.flag("is-task")?,
            expose: Result::from_iter::<Vec<_>>(ports("expose"))?,
            publish: Result::from_iter::<Vec<_>>(ports("publish"))?,
        })
    }

    fn shows_node(&self, node: &Node) -> bool {
        (self.down || node.is_healthy()) && self.nodes.match_any(&[&node.name, &node.id])
    }

    fn shows(&self, node: &Node, it: &Container) -> bool {
        if !self.stopped && !it.is_running() {
            return false;
        }
        if !self.swarm && (it.image == "swarm" || it.image.starts_with("swarm:")) {
            return false;
        }
        self.filters.is_empty() || self.matches(node, it)
    }

    fn matches(&self, node: &Node, it: &Container) -> bool {
        self.filters.is("status", &it.state)
            && self.filters.is("health", health_word(it.health))
            && self.filters.labels(|key| it.labels.get(key))
            && self.names.match_name(&node.name, &it.name)
            && self.ids.match_any(&[&it.id, &it.swarm_id])
            && (self.exited.is_empty() || self.exited_matches(it))
            && self.ancestors.as_ref().is_none_or(|images| self.ancestor_matches(images, it))
            && self.task.is_none_or(|task| task == is_task(it))
            && (!self.filters.has("network") || self.network_matches(node, it))
            && (!self.filters.has("volume") || self.volume_matches(node, it))
            // Only Windows knows another; on Linux every container has the default.
            && (!self.filters.has("isolation") || self.filters.values("isolation").any(|it| it.is_empty() || it == "default"))
            && (self.expose.is_empty() && self.publish.is_empty() || self.port_matches(it))
    }

    fn exited_matches(&self, it: &Container) -> bool {
        !it.is_running() && it.started_at != 0 && self.exited.contains(&it.exit_code)
    }

    fn ancestor_matches(&self, images: &BTreeSet<String>, it: &Container) -> bool {
        images.contains(&it.image_id)
            || self.filters.values("ancestor").any(|text| names::familiar(text) == names::familiar(&it.image))
    }

    /// Docker joins `expose` and `publish` by "or".
    fn port_matches(&self, it: &Container) -> bool {
        let inside = |ranges: &[PortRange<'_>], port, protocol: &str| ranges.iter().any(|it| it.has(port, protocol));
        let declared = |text: &String| {
            let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            port.parse().is_ok_and(|port| inside(&self.expose, port, protocol))
        };
        it.exposed_ports.iter().any(declared)
            || it.published.iter().any(|port| {
                inside(&self.expose, port.private, &port.protocol)
                    || port.public != 0 && inside(&self.publish, port.public, &port.protocol)
            })
    }

    fn network_matches(&self, node: &Node, it: &Container) -> bool {
        self.filters.values("network").any(|text| {
            let name = text.strip_prefix(node.name.as_str()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(text);
            it.networks.contains_key(name) || it.networks.values().any(|id| !text.is_empty() && id.starts_with(text))
        })
    }

    fn volume_matches(&self, node: &Node, it: &Container) -> bool {
        self.filters.values("volume").any(|text| {
            let name = text.strip_prefix(node.name.as_str()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(text);
            it.mounts.iter().any(|mount| mount.name == name || mount.destination == text || mount.source == text)
        })
    }
}

/// True if the container is a task of a service. Agents set both labels; clients that pose as one set only the first.
fn is_task(it: &Container) -> bool {
    TASK_LABELS.iter().any(|label| it.labels.contains_key(label))
}

fn health_word(health: Option<Health>) -> &'static str {
    match health {
        None => "none",
        Some(Health::Starting) => "starting",
        Some(Health::Healthy) => "healthy",
        Some(Health::Unhealthy) => "unhealthy",
    }
}

/// The images that `ancestor` names and all that were made from them.
fn ancestors(nodes: &[Arc<Node>], filters: &Filters) -> BTreeSet<String> {
    let found = filters.values("ancestor").flat_map(|text| names::image(nodes, text));
    let mut ids: BTreeSet<String> = found.map(|(_, image)| image.id.clone()).collect();
    loop {
        let images = nodes.iter().flat_map(|node| &node.images);
        let children = images.filter(|image| ids.contains(&image.parent_id) && !ids.contains(&image.id));
        let children: Vec<String> = children.map(|image| image.id.clone()).collect();
        if children.is_empty() {
            return ids;
        }
        ids.extend(children);
    }
}

/// `80`, `80/udp` or `8000-8010/tcp`.
#[derive(Clone, Copy, Debug)]
struct PortRange<'q> {
    first: u16,
    last: u16,
    protocol: &'q str,
}

impl<'q> PortRange<'q> {
    fn parse(key: &str, text: &'q str) -> Result<PortRange<'q>, ListError> {
        let refused = || ListError::value(key, text, "a port such as 80, 53/udp or 8000-8010/tcp");
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let port = |text: &str| text.parse().map_err(|_| refused());
        let range = PortRange { first: port(first)?, last: port(last)?, protocol };
        if range.first > range.last || !matches!(protocol, "tcp" | "udp" | "sctp") { Err(refused()) } else { Ok(range) }
    }

    fn has(&self, port: u16, protocol: &str) -> bool {
        (self.first..=self.last).contains(&port) && self.protocol == protocol
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herder_model::{Image, MountPoint, NodeState, PublishedPort};

    fn nodes() -> Vec<Arc<Node>> {
        let node = |name: &str, state, containers: &[(&str, i64, &str)]| {
            let image = |id: &str, parent_id: &str, tag: &str| {
                Arc::new(Image {
                    id: id.into(),
                    parent_id: parent_id.into(),
                    repo_tags: vec![tag.into()],
                    ..Image::default()
                })
            };
            let images = vec![image("sha256:10", "", "base:latest"), image("sha256:11", "sha256:10", "busybox:latest")];
            let mut node = Node { name: name.into(), ip: "10.0.0.1".into(), state, images, ..Node::default() };
            for (name, created, state) in containers {
                let mut container = Container {
                    id: format!("{name}0"),
                    name: (*name).into(),
                    created: *created,
                    state: (*state).into(),
                    started_at: 100,
                    exit_code: 3,
                    labels: [("kind".to_owned(), format!("{name}-kind"))].into(),
                    networks: [("net".to_owned(), "feed".to_owned())].into(),
                    image: "busybox".into(),
                    image_id: "sha256:11".into(),
                    mounts: vec![MountPoint {
                        name: "data".into(),
                        destination: "/srv".into(),
                        ..MountPoint::default()
                    }],
                    published: vec![PublishedPort {
                        private: 80,
                        public: 8080,
                        protocol: "tcp".into(),
                        ..PublishedPort::default()
                    }],
                    ..Container::default()
                };
                let summary = format!(r#"{{"Id":"{name}0","Names":["/{name}"],"Status":"x"}}"#);
                container.entry = render::entry(&summary, &container, Default::default());
                node.put_container(Arc::new(container));
            }
            Arc::new(node)
        };
        vec![
            node("n1", NodeState::Healthy, &[("a", 10, "running"), ("b", 20, "exited")]),
            node("n2", NodeState::Healthy, &[("c", 15, "paused")]),
            node("n3", NodeState::Unhealthy, &[("d", 30, "running")]),
        ]
    }

    #[track_caller]
    fn check(query: ContainerQuery, filters: &str, expected: &str) {
        let query = ContainerQuery { filters: Filters::parse(filters).unwrap(), ..query };
        let text = match containers(&nodes(), &query, 160) {
            Ok(bytes) => {
                let list: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
                list.iter().map(|it| it["Names"][1].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected, "{filters}");
    }

    #[test]
    fn newest_first_and_only_what_runs_on_nodes_that_answer() {
        let all = || ContainerQuery { all: true, ..ContainerQuery::default() };
        check(ContainerQuery::default(), "", "/n2/c /n1/a");
        check(all(), "", "/n3/d /n1/b /n2/c /n1/a");
        check(ContainerQuery { limit: Some(2), ..all() }, "", "/n3/d /n1/b");
        check(ContainerQuery { before: Some("b".into()), ..all() }, "", "/n2/c /n1/a");
        check(ContainerQuery { since: Some("c".into()), ..all() }, "", "/n3/d /n1/b");
        check(ContainerQuery { before: Some("x".into()), ..all() }, "", "No such container: x");
    }

    #[test]
    fn filters() {
        for (filters, expected) in [
            (r#"{"status":["exited"]}"#, "/n1/b"),
            (
                r#"{"status":["bogus"]}"#,
                "invalid filter 'status=bogus': expected created, restarting, running, removing, paused, exited or dead",
            ),
            (r#"{"name":["^/?[ab]$"]}"#, "/n1/a"),
            (r#"{"name":["n2/c"]}"#, "/n2/c"),
            (r#"{"name":["^/n2/c$"]}"#, "/n2/c"),
            (r#"{"name":["^/c$"]}"#, "/n2/c"),
            (r#"{"name":["n2"]}"#, ""),
            (r#"{"name":["a","c"]}"#, "/n2/c /n1/a"),
            (r#"{"name":["("]}"#, ""),
            (r#"{"status":["running"]}"#, "/n1/a"),
            (r#"{"status":["running","exited"]}"#, "/n1/b /n1/a"),
            (r#"{"health":["well"]}"#, "invalid filter 'health=well': expected none, starting, healthy or unhealthy"),
            (r#"{"exited":["x"]}"#, "invalid filter 'exited=x': expected an exit code"),
            (r#"{"network":["n1/net"]}"#, "/n1/a"),
            (r#"{"label!":["kind=a-kind"]}"#, "/n2/c"),
            (r#"{"is-task":["true"]}"#, ""),
            (r#"{"is-task":["false"]}"#, "/n2/c /n1/a"),
            (r#"{"is-task":["maybe"]}"#, "invalid filter 'is-task=maybe': expected true or false"),
            (r#"{"isolation":["default"]}"#, "/n2/c /n1/a"),
            (r#"{"isolation":["hyperv"]}"#, ""),
            (r#"{"node":["n[13]"]}"#, "/n1/a"),
            (
                r#"{"publish":["90-80"]}"#,
                "invalid filter 'publish=90-80': expected a port such as 80, 53/udp or 8000-8010/tcp",
            ),
            (r#"{"publish":["80"],"expose":["80"]}"#, "/n2/c /n1/a"),
            (r#"{"before":["b"]}"#, "/n2/c /n1/a"),
            (r#"{"since":["n1/a"]}"#, "/n2/c"),
            (r#"{"since":["x"]}"#, "No such container: x"),
            (r#"{"volume":["data"]}"#, "/n2/c /n1/a"),
            (r#"{"volume":["n1/data"]}"#, "/n1/a"),
            (r#"{"volume":["/srv"]}"#, "/n2/c /n1/a"),
            (r#"{"volume":["/"]}"#, ""),
            (r#"{"ancestor":["base"]}"#, "/n2/c /n1/a"),
            (r#"{"ancestor":["busybox"]}"#, "/n2/c /n1/a"),
            (r#"{"ancestor":["busybox:2"]}"#, ""),
            (r#"{"label":["kind=a-kind"]}"#, "/n1/a"),
            (r#"{"label":["kind"],"node":["n2"]}"#, "/n2/c"),
            (r#"{"exited":["3"]}"#, "/n1/b"),
            (r#"{"network":["fee"]}"#, "/n2/c /n1/a"),
            (r#"{"publish":["8000-8100"]}"#, "/n2/c /n1/a"),
            (r#"{"publish":["8080/udp"]}"#, ""),
            (r#"{"expose":["80"]}"#, "/n2/c /n1/a"),
            (r#"{"health":["none"]}"#, "/n2/c /n1/a"),
            (r#"{"id":["a"]}"#, "/n1/a"),
            (r#"{"colour":["red"]}"#, "invalid filter 'colour'"),
        ] {
            check(ContainerQuery::default(), filters, expected);
        }
    }

    #[test]
    fn status_is_of_now() {
        let bytes = containers(&nodes(), &ContainerQuery { all: true, ..ContainerQuery::default() }, 160).unwrap();
        let list: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
        let states: Vec<&str> = list.iter().map(|it| it["Status"].as_str().unwrap()).collect();
        assert_eq!(states, ["Host Down", "", "Up About a minute (Paused)", "Up About a minute"]);
    }
}
