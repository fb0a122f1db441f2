//! Facts of the cluster that complete a create request: the container that it replaces, and the place of its volumes.

use std::sync::Arc;

use herder_model::{Container, LABEL_WHITELISTS, Node};
use serde_json::Value;

use super::expr::Expression;
use super::ground::volume_names;
use super::request::{CreateRequest, RequestError, expressions};
use crate::names;

/// Label of Compose v2 on a container that is about to replace another one: the id of that one.
const LABEL_REPLACES: &str = "com.docker.compose.replace";

/// Labels of Compose that together say which instance of which service a container is.
const LABELS_INSTANCE: [&str; 4] = [
    "com.docker.compose.project",
    "com.docker.compose.service",
    "com.docker.compose.container-number",
    "com.docker.compose.oneoff",
];

/// Completes a request by the objects on `nodes`. It notes the container that it replaces, prefers the node of that one
/// if its volumes are there, and keeps it on the nodes that its volumes' whitelists name.
pub fn complete(nodes: &[Arc<Node>], request: &mut CreateRequest) {
    let replaced = replaced(nodes, request);
    request.replaces = replaced.map(|(_, it)| it.id.clone());
    let volumes = volume_names(&request.body);
    let mounted = nodes.iter().flat_map(|node| node.volumes.iter()).filter(|it| volumes.contains(&it.name));
    for text in mounted.filter_map(|volume| volume.labels.get(LABEL_WHITELISTS)) {
        // A volume that an engine made may say anything.
        for expression in parse_whitelists(text).unwrap_or_default() {
            if !request.whitelists.contains(&expression) {
                request.whitelists.push(expression);
            }
        }
    }
    if let Some((node, old)) = replaced
        && old.mounts.iter().any(|mount| volumes.contains(&mount.name))
        && let Ok(expression) = format!("node==~{}", node.name).parse()
    {
        request.constraints.push(expression);
    }
}

/// The whitelists in the `Labels` of a volume or network to be made. As with containers, what is no JSON list of strings says
/// nothing.
pub fn whitelists(labels: &Value) -> Result<Vec<Expression>, RequestError> {
    labels[LABEL_WHITELISTS].as_str().map_or(Ok(Vec::new()), parse_whitelists)
}

fn parse_whitelists(text: &str) -> Result<Vec<Expression>, RequestError> {
    expressions("whitelist", serde_json::from_str(text).unwrap_or_default())
}

/// True if a node with this name is on all of the whitelists.
pub fn allow(whitelists: &[Expression], node: &str) -> bool {
    whitelists.iter().all(|list| list.value.split('|').any(|name| name == node))
}

/// Returns the container that the request replaces, by Compose's rules. It is named by the new one's label, or is a
/// stopped one of the same instance of the same service.
fn replaced<'n>(nodes: &'n [Arc<Node>], request: &CreateRequest) -> Option<(&'n Arc<Node>, &'n Arc<Container>)> {
    let label = |name: &str| request.container.labels.get(name);
    if let Some(old) = label(LABEL_REPLACES).filter(|old| !old.is_empty()) {
        let (node, container) = names::container(nodes, old).ok()?;
        let node = nodes.iter().find(|it| it.addr == node.addr)?;
        return Some((node, node.containers.get(&container.id)?));
    }
    let project = label(LABELS_INSTANCE[0])?;
    let same = |other: &Container| {
        !other.is_running()
            && other.labels.get(LABELS_INSTANCE[0]) == Some(project)
            && LABELS_INSTANCE.iter().all(|name| other.labels.get(name) == label(name))
    };
    nodes.iter().find_map(|node| Some((node, node.containers.values().find(|other| same(other))?)))
}

#[cfg(test)]
mod tests {
    use herder_model::{MountPoint, Volume};
    use serde_json::json;

    use super::*;
    use crate::place::request;

    /// Returns two nodes, `n1` and `n2`. `n1` has a stopped instance of a service with the volume `data`; `n2` has
    /// the volume only, bound to two nodes.
    fn nodes() -> Vec<Arc<Node>> {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        let whitelist = [(LABEL_WHITELISTS, r#"["node==n1|n2"]"#)];
        let volume = |name: &str, pairs: &[(&str, &str)]| {
            Arc::new(Volume { name: name.into(), labels: labels(pairs).into_iter().collect(), ..Volume::default() })
        };
        let instance = [(LABELS_INSTANCE[0], "app"), (LABELS_INSTANCE[1], "db"), (LABELS_INSTANCE[2], "1")];
        let old = Container {
            id: "0123456789abcdef".into(),
            name: "app_db_1".into(),
            state: "exited".into(),
            labels: labels(&instance).into_iter().collect::<std::collections::BTreeMap<_, _>>().into(),
            mounts: vec![MountPoint { name: "data".into(), ..MountPoint::default() }],
            ..Container::default()
        };
        let node = |name: &str| Node { name: name.into(), addr: format!("{name}:1"), ..Node::default() };
        let mut first = Node { volumes: vec![volume("data", &[])], ..node("n1") };
        first.put_container(Arc::new(old));
        let second = Node { volumes: vec![volume("data", &[]), volume("bound", &whitelist)], ..node("n2") };
        vec![Arc::new(first), Arc::new(second), Arc::new(node("n3"))]
    }

    #[track_caller]
    fn check(labels: Value, host: Value, expected: &str) {
        let body = json!({"Image": "x", "Labels": labels, "HostConfig": host});
        let mut request = request::parse(Some("new"), body, "s").expect("a request");
        complete(&nodes(), &mut request);
        let replaces = request.replaces.as_deref().unwrap_or("nothing");
        let conditions = request.constraints.iter().chain(&request.whitelists).map(ToString::to_string);
        let text = format!("{replaces}: {}", conditions.collect::<Vec<_>>().join(" "));
        assert_eq!(text.trim_end(), expected);
    }

    #[test]
    fn a_replacement_goes_where_its_volumes_are() {
        let instance =
            |number: &str| json!({LABELS_INSTANCE[0]: "app", LABELS_INSTANCE[1]: "db", LABELS_INSTANCE[2]: number});
        let data = json!({"Binds": ["data:/data"]});
        check(instance("1"), data.clone(), "0123456789abcdef: node==~n1");
        check(instance("1"), json!({"Mounts": [{"Type": "volume", "Source": "data"}]}), "0123456789abcdef: node==~n1");
        check(instance("1"), json!({}), "0123456789abcdef:");
        check(instance("2"), data.clone(), "nothing:");
        check(json!({}), data.clone(), "nothing:");
        check(json!({LABEL_REPLACES: "0123456789ab"}), data, "0123456789abcdef: node==~n1");
        check(json!({LABEL_REPLACES: "gone"}), json!({}), "nothing:");
    }

    #[test]
    fn whitelists_are_read_from_labels() {
        let check = |text: &str, expected: &str| {
            let read = whitelists(&json!({ LABEL_WHITELISTS: text }));
            let allowed = |lists: Vec<Expression>| {
                ["n1", "n2", "n3"].into_iter().filter(|node| allow(&lists, node)).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(read.map_or_else(|error| error.to_string(), allowed), expected, "{text}");
        };
        check(r#"["node==n1|n2"]"#, "n1 n2");
        check(r#"["node==n1|n2", "node==n2|n3"]"#, "n2");
        check("nonsense", "n1 n2 n3");
        check(r#"["node"]"#, "error from whitelist filter: One of operator ==, != is expected (in `node`)");
    }

    #[test]
    fn a_volume_with_a_whitelist_keeps_its_containers_on_those_nodes() {
        check(json!({}), json!({"Binds": ["bound:/data"]}), "nothing: node==n1|n2");
    }
}
