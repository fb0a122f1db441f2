//! `GET /containers/json` over all nodes.

use std::cmp::Reverse;
use std::sync::Arc;

use herder_model::{Container, Health, Node};
use serde_json::json;

use super::{Filters, ListError};
use crate::{names, render, words};

/// The question.
#[derive(Clone, Debug, Default)]
pub struct ContainerQuery {
    pub all: bool,
    /// The newest so many, running or not.
    pub limit: Option<usize>,
    pub before: Option<String>,
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
const STATES: &[&str] = &["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// The containers as one JSON array, newest first. `now` in seconds since 1970.
pub fn containers(nodes: &[Arc<Node>], query: &ContainerQuery, now: i64) -> Result<Vec<u8>, ListError> {
    let chosen = choose(nodes, query)?;
    let mut out = Vec::with_capacity(chosen.len() * 1200 + 2);
    out.push(b'[');
    for (index, (node, container)) in chosen.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let rendered = container.rendered.get_or_init(|| render::entry(node, container));
        out.extend_from_slice(rendered.head.as_bytes());
        out.extend_from_slice(json!(words::status(node, container, now)).to_string().as_bytes());
        out.extend_from_slice(rendered.tail.as_bytes());
    }
    out.push(b']');
    Ok(out)
}

type Entry<'n> = (&'n Arc<Node>, &'n Arc<Container>);

fn choose<'n>(nodes: &'n [Arc<Node>], query: &ContainerQuery) -> Result<Vec<Entry<'n>>, ListError> {
    let filters = &query.filters;
    filters.check(KNOWN)?;
    if let Some(status) = filters.values("status").find(|status| !STATES.contains(status)) {
        let expected = "created, restarting, running, removing, paused, exited or dead";
        return Err(ListError::Value { key: "status".into(), value: status.into(), expected });
    }
    let position = |given: Option<&str>| match given {
        None => Ok(None),
        Some(name) => match names::container(nodes, name) {
            Ok((_, container)) => Ok(Some((container.created, container.id.clone()))),
            Err(_) => Err(ListError::NoContainer(name.to_owned())),
        },
    };
    let before = position(query.before.as_deref().or(filters.values("before").next()))?;
    let since = position(query.since.as_deref().or(filters.values("since").next()))?;
    let all = query.all
        || query.limit.is_some()
        || before.is_some()
        || since.is_some()
        || filters.has("status")
        || filters.has("exited");
    let mut chosen: Vec<Entry<'n>> = nodes
        .iter()
        .flat_map(|node| node.containers.values().map(move |container| (node, container)))
        .filter(|(node, container)| all || container.is_running() && node.is_healthy())
        .filter(|(node, container)| accepts(filters, node, container))
        .collect();
    chosen.sort_by_cached_key(|(_, container)| Reverse((container.created, container.id.as_str())));
    let position = |container: &Container| (container.created, container.id.clone());
    if let Some(before) = before {
        chosen.retain(|(_, container)| position(container) < before);
    }
    if let Some(since) = since {
        chosen.retain(|(_, container)| position(container) > since);
    }
    chosen.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(chosen)
}

fn accepts(filters: &Filters, node: &Node, container: &Container) -> bool {
    if *filters == Filters::default() {
        return true;
    }
    let full_name = || format!("{}/{}", node.name, container.name);
    filters.any("status", |status| container.state == status)
        && filters.any("id", |id| container.id.starts_with(id))
        && (filters.matches("name", &container.name)
            || filters.matches("name", &format!("/{}", container.name))
            || filters.matches("name", &full_name()))
        && filters.labels(&container.labels)
        && filters.matches("node", &node.name)
        && filters.any("exited", |code| {
            !container.is_running() && code.parse() == Ok(container.exit_code) && container.started_at > 0
        })
        && filters.any("health", |health| health == health_word(container))
        && filters.any("ancestor", |image| is_ancestor(node, container, image))
        && filters.any("network", |wanted| {
            container.networks.iter().any(|(name, id)| name == wanted || !wanted.is_empty() && id.starts_with(wanted))
                || wanted
                    .split_once('/')
                    .is_some_and(|(on, name)| on == node.name && container.networks.contains_key(name))
        })
        && filters.any("volume", |wanted| {
            container
                .mounts
                .iter()
                .any(|mount| mount.name == wanted || mount.destination == wanted || mount.source == wanted)
        })
        && filters.any("publish", |wanted| {
            container.published.iter().any(|port| port.public > 0 && port_in(wanted, port.public, &port.protocol))
        })
        && filters.any("expose", |wanted| {
            container.published.iter().any(|port| port_in(wanted, port.private, &port.protocol))
                || container.exposed_ports.iter().any(|port| {
                    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                    number.parse().is_ok_and(|number| port_in(wanted, number, protocol))
                })
        })
        && filters.any("is-task", |wanted| {
            container.labels.contains_key("com.docker.swarm.task.id") == matches!(wanted, "1" | "true")
        })
}

fn health_word(container: &Container) -> &'static str {
    match container.health {
        None => "none",
        Some(Health::Starting) => "starting",
        Some(Health::Healthy) => "healthy",
        Some(Health::Unhealthy) => "unhealthy",
    }
}

fn is_ancestor(node: &Node, container: &Container, image: &str) -> bool {
    names::familiar(&container.image) == names::familiar(image)
        || container.image_id.trim_start_matches("sha256:").starts_with(image.trim_start_matches("sha256:"))
        || node.images.iter().any(|it| {
            it.id == container.image_id && it.repo_tags.iter().any(|tag| names::familiar(tag) == names::familiar(image))
        })
}

/// `8080`, `8080/udp`, `8000-8010/tcp`.
fn port_in(wanted: &str, port: u16, protocol: &str) -> bool {
    let (range, wanted_protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return false };
    protocol == wanted_protocol && (first..=last).contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use herder_model::{NodeState, PublishedPort};

    fn nodes() -> Vec<Arc<Node>> {
        let node = |name: &str, state, containers: &[(&str, i64, &str)]| {
            let mut node = Node { name: name.into(), ip: "10.0.0.1".into(), state, ..Node::default() };
            for (name, created, state) in containers {
                let container = Container {
                    id: format!("{name}0"),
                    name: (*name).into(),
                    created: *created,
                    state: (*state).into(),
                    started_at: 100,
                    exit_code: 3,
                    labels: [("kind".to_owned(), format!("{name}-kind"))].into(),
                    networks: [("net".to_owned(), "feed".to_owned())].into(),
                    published: vec![PublishedPort {
                        private: 80,
                        public: 8080,
                        protocol: "tcp".into(),
                        ..PublishedPort::default()
                    }],
                    summary: format!(r#"{{"Id":"{name}0","Names":["/{name}"],"Status":"x"}}"#).into(),
                    ..Container::default()
                };
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
                list.iter().map(|it| it["Names"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
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
