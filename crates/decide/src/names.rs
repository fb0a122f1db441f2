//! Finding things by what people call them, over all nodes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use herder_model::{Container, Image, Name, Network, Node, Volume};

use crate::list::{is_predefined, shown_id};

/// Reason why a name is not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    Unknown,
    /// Several things carry the name; these are their full names.
    Ambiguous(Vec<String>),
}

/// A kind of thing that has names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl NotFound {
    /// The sentence for the client: an engine's own, or which names it could be.
    pub fn sentence(&self, kind: Kind, text: &str) -> String {
        let word = match (self, kind) {
            (NotFound::Unknown, Kind::Container) => return format!("No such container: {text}"),
            (NotFound::Unknown, Kind::Image) => return format!("No such image: {text}"),
            (NotFound::Unknown, Kind::Network) => return format!("network {text} not found"),
            (NotFound::Unknown, Kind::Volume) => return format!("get {text}: no such volume"),
            (NotFound::Ambiguous(_), Kind::Container) => "container",
            (NotFound::Ambiguous(_), Kind::Image) => "image",
            (NotFound::Ambiguous(_), Kind::Network) => "network",
            (NotFound::Ambiguous(_), Kind::Volume) => "volume",
        };
        let NotFound::Ambiguous(candidates) = self else { return String::new() };
        format!("{word} {text} is ambiguous: it may be {}", candidates.join(" or "))
    }
}

type Place<'n> = (&'n Arc<Node>, &'n Arc<Container>);
type Found<T> = Result<(Arc<Node>, Arc<T>), NotFound>;

/// The container that `text` means, and its node. In this order: full id, twelve digits of it, swarm id, name (also
/// `/name`, `node/name`, `engine id/name`), a prefix of an id that only one container has. Of several with the same name,
/// one that is alone on a node that answers is meant.
pub fn container(nodes: &[Arc<Node>], text: &str) -> Result<(Arc<Node>, Arc<Container>), NotFound> {
    let text = text.trim_start_matches('/');
    if text.is_empty() {
        return Err(NotFound::Unknown);
    }
    if let Some((node, container)) = nodes.iter().find_map(|node| Some((node, node.containers.get(text)?))) {
        return Ok((node.clone(), container.clone()));
    }
    let mut by_id: Vec<Place<'_>> = Vec::new();
    for node in nodes {
        let from = (Bound::Included(text), Bound::Unbounded);
        let same = node.containers.range::<str, _>(from).take_while(|(id, _)| id.starts_with(text));
        by_id.extend(same.map(|(_, container)| (node, container)));
    }
    if let Some(found) = pick(&by_id).filter(|_| text.len() == SHORT_ID_DIGITS) {
        return found;
    }
    let (mut by_swarm_id, mut by_name, mut by_swarm_prefix) = (Vec::new(), Vec::new(), Vec::new());
    let whole = Name::new(text);
    for node in nodes {
        let name = name_on(node, text);
        // Neither names nor ids have a slash, so nothing on another node can be meant.
        if name.contains('/') {
            continue;
        }
        let wanted = if name.len() == text.len() { whole } else { Name::new(name) };
        by_name.extend(node.named(&wanted).map(|container| (node, container)));
        for container in node.containers.values() {
            if container.swarm_id.starts_with(text) {
                by_swarm_prefix.push((node, container));
                if container.swarm_id.len() == text.len() {
                    by_swarm_id.push((node, container));
                }
            }
        }
    }
    let prefixed = [&by_id[..], &by_swarm_prefix].concat();
    let found = pick(&by_swarm_id).or_else(|| pick(&by_name)).or_else(|| pick(&prefixed));
    found.unwrap_or(Err(NotFound::Unknown))
}

/// Number of an id's digits that `docker ps` shows.
const SHORT_ID_DIGITS: usize = 12;

/// `text` without a node in front that is this one.
fn name_on<'t>(node: &Node, text: &'t str) -> &'t str {
    match text.split_once('/') {
        Some((on, name)) if on == node.name || node.id == on || node.id.split('|').next() == Some(on) => name,
        _ => text,
    }
}

fn pick(found: &[Place<'_>]) -> Option<Found<Container>> {
    let alive: Vec<&Place<'_>> = found.iter().filter(|(node, _)| node.is_healthy()).collect();
    match (found, &alive[..]) {
        ([], _) => None,
        ([(node, it)], _) | (_, [(node, it)]) => Some(Ok(((*node).clone(), (*it).clone()))),
        _ => {
            let names = found.iter().map(|(node, it)| format!("{}/{}", node.name, it.name));
            Some(Err(NotFound::Ambiguous(names.collect())))
        }
    }
}

/// Every node that has the image, healthy ones first, with its entry. By id (whole or a prefix, with or without `sha256:`),
/// `repo:tag`, `repo` (meaning `latest`) or `repo@digest`; `docker.io/` and `library/` may be left out or put in.
pub fn image(nodes: &[Arc<Node>], text: &str) -> Vec<(Arc<Node>, Arc<Image>)> {
    let wanted = familiar(text);
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let matches = |image: &Image| {
        image.repo_tags.iter().any(|tag| familiar(tag) == wanted)
            || image.repo_digests.iter().any(|digest| familiar(digest) == wanted)
            || is_id && image.id.strip_prefix("sha256:").unwrap_or(&image.id).starts_with(hex)
    };
    let mut found: Vec<_> = nodes
        .iter()
        .flat_map(|node| node.images.iter().filter(|image| matches(image)).map(|image| (node.clone(), image.clone())))
        .collect();
    // A tag wins over an id that happens to begin alike.
    let tagged = |image: &Image| image.repo_tags.iter().any(|tag| familiar(tag) == wanted);
    let by_name = |image: &Image| tagged(image) || image.repo_digests.iter().any(|digest| familiar(digest) == wanted);
    if found.iter().any(|(_, image)| tagged(image)) {
        found.retain(|(_, image)| tagged(image));
    } else if found.windows(2).any(|pair| pair[0].1.id != pair[1].1.id && !by_name(&pair[0].1)) {
        // The beginning of several ids means none of them.
        found.clear();
    }
    found.sort_by_key(|(node, _)| !node.is_healthy());
    found
}

/// Returns the nodes for `POST /images/{repository}/push?tag=`: those that have the image of this tag, healthy ones
/// first. Without a tag all tags are meant: the node with most of them comes first.
pub fn pushable(nodes: &[Arc<Node>], repository: &str, tag: Option<&str>) -> Vec<Arc<Node>> {
    if let Some(tag) = tag.filter(|tag| !tag.is_empty()) {
        return image(nodes, &format!("{repository}:{tag}")).into_iter().map(|(node, _)| node).collect();
    }
    let wanted = familiar(repository);
    let wanted = wanted.strip_suffix(":latest").unwrap_or(&wanted);
    let tags = |node: &Node| {
        let all = node.images.iter().flat_map(|image| &image.repo_tags).map(|tag| familiar(tag));
        all.filter(|tag| tag.rsplit_once(':').is_some_and(|(name, _)| name == wanted)).count()
    };
    let mut found: Vec<_> =
        nodes.iter().map(|node| (tags(node), node.clone())).filter(|(count, _)| *count > 0).collect();
    found.sort_by_key(|(count, node)| (!node.is_healthy(), std::cmp::Reverse(*count)));
    found.into_iter().map(|(_, node)| node).collect()
}

/// `docker.io/library/busybox` → `busybox:latest`; what has a tag or digest keeps it.
pub fn familiar(text: &str) -> String {
    let text = text.strip_prefix("docker.io/").or_else(|| text.strip_prefix("index.docker.io/")).unwrap_or(text);
    let text = text.strip_prefix("library/").unwrap_or(text);
    let last = text.rsplit('/').next().unwrap_or(text);
    if last.contains([':', '@']) { text.to_owned() } else { format!("{text}:latest") }
}

/// Returns the names that containers of several nodes have, with those nodes. Doors on both sides of a cut network may
/// use one name.
pub fn duplicates(nodes: &[Arc<Node>]) -> BTreeMap<String, Vec<String>> {
    let mut on: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        for container in node.containers.values().filter(|it| !it.name.is_empty()) {
            on.entry(&container.name).or_default().push(&node.name);
        }
    }
    let owned = |nodes: Vec<&str>| nodes.into_iter().map(str::to_owned).collect();
    on.into_iter().filter(|(_, on)| on.len() > 1).map(|(name, on)| (name.to_owned(), owned(on))).collect()
}

type NetworkTest<'t> = &'t dyn Fn(&Node, &Network) -> bool;

/// Finds the network that `text` means, and a node that has it (one that answers, if any does). The text is an id,
/// `node/name`, name, or a prefix of an id. Parts of one network on several nodes are one. `bridge`, `host` and `none`,
/// which every engine has, mean those of the first node that answers; any other name that several networks have is
/// ambiguous.
pub fn network(nodes: &[Arc<Node>], text: &str) -> Result<(Arc<Node>, Arc<Network>), NotFound> {
    let mut ordered: Vec<&Arc<Node>> = nodes.iter().collect();
    ordered.sort_by_key(|node| !node.is_healthy());
    let matching = |matches: NetworkTest<'_>| -> Vec<(&Arc<Node>, &Arc<Network>)> {
        let all = ordered.iter().flat_map(|node| node.networks.iter().map(move |network| (*node, network)));
        all.filter(|(node, network)| matches(node, network)).collect()
    };
    let steps: [NetworkTest<'_>; 4] = [
        &|_, it| it.id == text || shown_id(it) == text,
        &|node, it| text.split_once('/').is_some_and(|(on, name)| node.name == on && it.name == name),
        &|_, it| it.name == text,
        &|_, it| text.len() >= 2 && (it.id.starts_with(text) || shown_id(it).starts_with(text)),
    ];
    for step in steps {
        let found = matching(step);
        let Some((node, first)) = found.first().copied() else { continue };
        let one = found.iter().all(|(_, it)| shown_id(it) == shown_id(first));
        let only_alive = node.is_healthy() && found.iter().skip(1).all(|(node, _)| !node.is_healthy());
        if one || only_alive || is_predefined(text) {
            return Ok((node.clone(), first.clone()));
        }
        let names = found.iter().map(|(node, it)| format!("{}/{}", node.name, it.name));
        return Err(NotFound::Ambiguous(names.collect()));
    }
    Err(NotFound::Unknown)
}

/// Every volume that `text` means, healthy nodes first: `node/name` is on one node, a bare name may be on many.
pub fn volume(nodes: &[Arc<Node>], text: &str) -> Vec<(Arc<Node>, Arc<Volume>)> {
    let matches = |node: &Node, volume: &Volume| {
        volume.name == text || text.split_once('/').is_some_and(|(on, name)| node.name == on && volume.name == name)
    };
    let mut found: Vec<_> = nodes
        .iter()
        .flat_map(|node| {
            node.volumes.iter().filter(|it| matches(node, it)).map(|volume| (node.clone(), volume.clone()))
        })
        .collect();
    found.sort_by_key(|(node, _)| !node.is_healthy());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use herder_model::NodeState;

    /// `"n1: web=aabb00112233ff…"`: containers by name and id.
    fn nodes() -> Vec<Arc<Node>> {
        let node = |name: &str, state, containers: &[(&str, &str, &str)]| {
            let mut node = Node { name: name.into(), id: format!("ID-{name}|{name}:1"), state, ..Node::default() };
            for (name, id, swarm_id) in containers {
                let container = Container {
                    id: (*id).into(),
                    name: (*name).into(),
                    swarm_id: (*swarm_id).into(),
                    ..Container::default()
                };
                node.put_container(Arc::new(container));
            }
            Arc::new(node)
        };
        vec![
            node("n1", NodeState::Healthy, &[("web", "aabbccddeeff0011", "5a"), ("db", "aabb000000000000", "")]),
            node("n2", NodeState::Healthy, &[("web2", "ccdd", "5b"), ("twin", "ee01", "")]),
            node("n3", NodeState::Healthy, &[("twin", "ee02", "")]),
            node("n4", NodeState::Unhealthy, &[("web2", "ff01", "5b")]),
        ]
    }

    #[test]
    fn containers_are_found_by_id_name_and_prefix() {
        for (text, expected) in [
            ("aabbccddeeff0011", "n1/web"),
            ("aabbccddeeff", "n1/web"),
            ("/web", "n1/web"),
            ("n1/web", "n1/web"),
            ("ID-n1/web", "n1/web"),
            ("n2/web", "unknown"),
            ("5a", "n1/web"),
            ("aabbc", "n1/web"),
            ("aabb", "ambiguous n1/db n1/web"),
            ("twin", "ambiguous n2/twin n3/twin"),
            ("n3/twin", "n3/twin"),
            ("web2", "n2/web2"),
            ("", "unknown"),
            ("nosuch", "unknown"),
        ] {
            let found = match container(&nodes(), text) {
                Ok((node, container)) => format!("{}/{}", node.name, container.name),
                Err(NotFound::Unknown) => "unknown".into(),
                Err(NotFound::Ambiguous(names)) => format!("ambiguous {}", names.join(" ")),
            };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn networks_are_found_and_parts_of_one_are_one() {
        let node = |name: &str, state, networks: &[(&str, &str, &str)]| {
            let network = |(id, name, joined): &(&str, &str, &str)| {
                let joined = Some(*joined).filter(|id| !id.is_empty());
                let labels = joined.map(|id| (herder_model::LABEL_NETWORK_ID.to_owned(), id.to_owned()));
                let labels = labels.into_iter().collect();
                Arc::new(Network { id: (*id).into(), name: (*name).into(), labels, ..Network::default() })
            };
            let networks = networks.iter().map(network).collect();
            Arc::new(Node { name: name.into(), state, networks, ..Node::default() })
        };
        let nodes = [
            node("n0", NodeState::Unhealthy, &[("0a", "bridge", ""), ("0b", "late", "")]),
            node("n1", NodeState::Healthy, &[("1a", "bridge", ""), ("1b", "own", ""), ("1c", "app", "77aa")]),
            node("n2", NodeState::Healthy, &[("2a", "bridge", ""), ("2b", "own", ""), ("2c", "app", "77aa")]),
            node("n3", NodeState::Healthy, &[("3b", "late", "")]),
        ];
        for (text, expected) in [
            ("bridge", "n1 1a"),
            ("n2/bridge", "n2 2a"),
            ("app", "n1 1c"),
            ("77aa", "n1 1c"),
            ("77", "n1 1c"),
            ("2c", "n2 2c"),
            ("late", "n3 3b"),
            ("n0/late", "n0 0b"),
            ("own", "network own is ambiguous: it may be n1/own or n2/own"),
            ("n1/own", "n1 1b"),
            ("nosuch", "network nosuch not found"),
            ("", "network  not found"),
        ] {
            let found = match network(&nodes, text) {
                Ok((node, network)) => format!("{} {}", node.name, network.id),
                Err(error) => error.sentence(Kind::Network, text),
            };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn sentences_are_those_of_engines() {
        for (kind, expected) in [
            (Kind::Container, "No such container: x"),
            (Kind::Image, "No such image: x"),
            (Kind::Network, "network x not found"),
            (Kind::Volume, "get x: no such volume"),
        ] {
            assert_eq!(NotFound::Unknown.sentence(kind, "x"), expected);
        }
        let ambiguous = NotFound::Ambiguous(vec!["n1/x".into(), "n2/x".into()]);
        assert_eq!(ambiguous.sentence(Kind::Container, "x"), "container x is ambiguous: it may be n1/x or n2/x");
    }

    #[test]
    fn images_are_found_by_every_way_to_write_them() {
        let image_of = |id: &str, tag: &str| {
            Arc::new(Image {
                id: id.into(),
                repo_tags: vec![tag.into()],
                repo_digests: vec!["r.io/a@sha256:99".into()],
                ..Image::default()
            })
        };
        let nodes = [Arc::new(Node {
            images: vec![
                image_of("sha256:abc123", "busybox:latest"),
                image_of("sha256:dd", "r.io:5000/a:1"),
                image_of("sha256:ee1", "x:1"),
                image_of("sha256:ee2", "y:1"),
            ],
            ..Node::default()
        })];
        for (text, found_count) in [
            ("busybox", 1),
            ("docker.io/library/busybox:latest", 1),
            ("library/busybox", 1),
            ("busybox:1", 0),
            ("abc", 1),
            ("sha256:abc123", 1),
            ("r.io:5000/a:1", 1),
            ("r.io:5000/a", 0),
            ("r.io/a@sha256:99", 4),
            ("d", 1),
            ("e", 0),
        ] {
            assert_eq!(image(&nodes, text).len(), found_count, "{text}");
        }
    }

    #[test]
    fn a_push_goes_where_the_tag_is_or_where_most_tags_are() {
        let node = |name: &str, tags: &[&str]| {
            let image = Image { repo_tags: tags.iter().map(|it| (*it).into()).collect(), ..Image::default() };
            Arc::new(Node { name: name.into(), images: vec![Arc::new(image)], ..Node::default() })
        };
        let nodes = [
            node("n1", &["r.io:5000/a:1"]),
            node("n2", &["r.io:5000/a:2", "r.io:5000/a:latest"]),
            node("n3", &["busybox:1"]),
        ];
        for (repository, tag, expected) in [
            ("r.io:5000/a", Some("1"), "n1"),
            ("r.io:5000/a", Some("3"), ""),
            ("r.io:5000/a", None, "n2 n1"),
            ("r.io:5000/a", Some(""), "n2 n1"),
            ("docker.io/library/busybox", Some("1"), "n3"),
            ("busy", None, ""),
        ] {
            let found = pushable(&nodes, repository, tag);
            let names: Vec<&str> = found.iter().map(|node| node.name.as_str()).collect();
            assert_eq!(names.join(" "), expected, "{repository} {tag:?}");
        }
    }

    #[test]
    fn names_on_several_nodes_are_found() {
        let node = |name: &str, containers: &[&str]| {
            let mut node = Node { name: name.into(), ..Node::default() };
            for container in containers {
                let id = format!("{name}-{container}");
                node.put_container(Arc::new(Container { id, name: (*container).into(), ..Container::default() }));
            }
            Arc::new(node)
        };
        let nodes = [node("h1", &["web", "db", ""]), node("h2", &["web", ""]), node("h3", &["web", "x"])];
        let found = duplicates(&nodes);
        assert_eq!(found, BTreeMap::from([("web".to_owned(), vec!["h1".into(), "h2".into(), "h3".into()])]));
    }
}
