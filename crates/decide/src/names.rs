//! Finding things by what people call them, over all nodes.

use std::sync::Arc;

use herder_model::{Container, Image, Network, Node, Volume};

/// Why a name leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    Unknown,
    /// Several things carry the name; these are their full names.
    Ambiguous(Vec<String>),
}

/// The container that `text` means, and its node. In this order: full id, twelve digits of it, swarm id, name (also
/// `/name`, `node/name`, `engine id/name`), a prefix of an id that only one container has.
pub fn container(nodes: &[Arc<Node>], text: &str) -> Result<(Arc<Node>, Arc<Container>), NotFound> {
    let text = text.trim_start_matches('/');
    if text.is_empty() {
        return Err(NotFound::Unknown);
    }
    if let Some((node, container)) = nodes.iter().find_map(|node| Some((node, node.containers.get(text)?))) {
        return Ok((node.clone(), container.clone()));
    }
    let pick = |matches: &dyn Fn(&Node, &Container) -> bool| {
        let all = nodes.iter().flat_map(|node| node.containers.values().map(move |container| (node, container)));
        let found: Vec<_> = all.filter(|(node, container)| matches(node, container)).collect();
        // What runs wins over what is stopped, what lives over what is out of reach.
        let alive: Vec<_> = found.iter().copied().filter(|(node, _)| node.is_healthy()).collect();
        match (&found[..], &alive[..]) {
            ([], _) => None,
            ([(node, container)], _) | (_, [(node, container)]) => Some(Ok(((*node).clone(), (*container).clone()))),
            _ => Some(Err(NotFound::Ambiguous(
                found.iter().map(|(node, it)| format!("{}/{}", node.name, it.name)).collect(),
            ))),
        }
    };
    let short = text.len() == 12;
    let name_on = |node: &Node, container: &Container| {
        container.name == text
            || text.split_once('/').is_some_and(|(on, name)| {
                name == container.name && (on == node.name || node.id == on || node.id.split('|').next() == Some(on))
            })
    };
    pick(&|_, it| short && it.id.starts_with(text))
        .or_else(|| pick(&|_, it| it.swarm_id == text))
        .or_else(|| pick(&|node, it| name_on(node, it)))
        .or_else(|| pick(&|_, it| it.id.starts_with(text) || it.swarm_id.starts_with(text)))
        .unwrap_or(Err(NotFound::Unknown))
}

/// Every node that has the image, healthy ones first, with its entry. By id (whole or a prefix, with or without `sha256:`), `repo:tag`,
/// `repo` (meaning `latest`) or `repo@digest`; `docker.io/` and `library/` may be left out or put in.
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
    if found.iter().any(|(_, image)| tagged(image)) {
        found.retain(|(_, image)| tagged(image));
    }
    found.sort_by_key(|(node, _)| !node.is_healthy());
    found
}

/// `docker.io/library/busybox` → `busybox:latest`; what has a tag or digest keeps it.
pub fn familiar(text: &str) -> String {
    let text = text.strip_prefix("docker.io/").or_else(|| text.strip_prefix("index.docker.io/")).unwrap_or(text);
    let text = text.strip_prefix("library/").unwrap_or(text);
    let last = text.rsplit('/').next().unwrap_or(text);
    if last.contains([':', '@']) { text.to_owned() } else { format!("{text}:latest") }
}

/// The network that `text` means: id, `node/name`, name (healthy nodes first), a prefix of an id.
pub fn network(nodes: &[Arc<Node>], text: &str) -> Result<(Arc<Node>, Arc<Network>), NotFound> {
    let pick = |matches: &dyn Fn(&Node, &Network) -> bool| {
        let mut ordered: Vec<&Arc<Node>> = nodes.iter().collect();
        ordered.sort_by_key(|node| !node.is_healthy());
        ordered.into_iter().find_map(|node| {
            node.networks.iter().find(|network| matches(node, network)).map(|network| (node.clone(), network.clone()))
        })
    };
    pick(&|_, it| it.id == text)
        .or_else(|| pick(&|node, it| text.split_once('/').is_some_and(|(on, name)| node.name == on && it.name == name)))
        .or_else(|| pick(&|_, it| it.name == text))
        .or_else(|| pick(&|_, it| text.len() >= 2 && it.id.starts_with(text)))
        .ok_or(NotFound::Unknown)
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
            images: vec![image_of("sha256:abc123", "busybox:latest"), image_of("sha256:dd", "r.io:5000/a:1")],
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
            ("r.io/a@sha256:99", 2),
        ] {
            assert_eq!(image(&nodes, text).len(), found_count, "{text}");
        }
    }
}
