//! Prerequisites of a container on its node. These are networks and volumes of the cluster that the node lacks, because
//! it joined later.

use std::collections::BTreeSet;
use std::sync::Arc;

use herder_model::{LABEL_NETWORK_ID, Network, Node, Volume};
use serde_json::{Map, Value, json};

use crate::names;

/// Bodies of `POST /networks/create` and `POST /volumes/create`, in the order of need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ground {
    pub networks: Vec<Value>,
    pub volumes: Vec<Value>,
}

impl Ground {
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.volumes.is_empty()
    }
}

/// Adapts a create body for `node`. Networks given by an id of the cluster or as `node/name` become names, which are
/// the same on every node. Returns what must be created on the node first.
pub fn prepare(nodes: &[Arc<Node>], node: &Node, body: &mut Value) -> Ground {
    let mut wanted = BTreeSet::new();
    if let Some(mode) = body["HostConfig"]["NetworkMode"].as_str()
        && let Some(name) = localise(nodes, mode)
    {
        wanted.insert(name.clone());
        body["HostConfig"]["NetworkMode"] = name.into();
    }
    let endpoints = body.get_mut("NetworkingConfig").and_then(|it| it.get_mut("EndpointsConfig"));
    if let Some(Value::Object(endpoints)) = endpoints {
        for (key, mut endpoint) in std::mem::take(endpoints) {
            let name = localise(nodes, &key);
            if name.is_some()
                && let Some(endpoint) = endpoint.as_object_mut()
            {
                // It is that of one node, or of none.
                endpoint.remove("NetworkID");
            }
            wanted.extend(name.clone());
            endpoints.insert(name.unwrap_or(key), endpoint);
        }
    }
    let networks = wanted.iter().filter_map(|name| network(nodes, node, name)).collect();
    let volumes = volume_names(body).into_iter().filter_map(|name| volume(nodes, node, &name)).collect();
    Ground { networks, volumes }
}

/// Returns the name of the network that `text` means. `None` if the cluster does not know it, or every engine has it.
pub fn localise(nodes: &[Arc<Node>], text: &str) -> Option<String> {
    if matches!(text, "" | "default" | "bridge" | "host" | "none" | "nat") || text.starts_with("container:") {
        return None;
    }
    names::network(nodes, text).ok().map(|(_, network)| network.name.clone())
}

/// Returns the body that creates the node's part of network `text`. `None` if the network does not span nodes or has
/// a part there.
pub fn network(nodes: &[Arc<Node>], node: &Node, text: &str) -> Option<Value> {
    let (_, network) = names::network(nodes, text).ok()?;
    let id = network.labels.get(LABEL_NETWORK_ID)?;
    let there = |it: &Arc<Network>| it.labels.get(LABEL_NETWORK_ID) == Some(id);
    (!node.networks.iter().any(there)).then(|| network_body(&network))
}

fn network_body(network: &Network) -> Value {
    let mut body = json!({ "Name": network.name, "CheckDuplicate": true });
    for field in ["Driver", "EnableIPv6", "IPAM", "Internal", "Attachable", "Options", "Labels"] {
        if let Some(value) = network.summary.get(field).filter(|it| !it.is_null()) {
            body[field] = value.clone();
        }
    }
    body
}

/// Without the addresses of another node, which may be taken here.
pub fn with_addresses_of_its_own(mut body: Value) -> Value {
    if let Some(ipam) = body.get_mut("IPAM").and_then(Value::as_object_mut) {
        ipam.remove("Config");
    }
    body
}

/// Named volumes that a create body mounts.
pub(super) fn volume_names(body: &Value) -> BTreeSet<String> {
    let list = |field: &str| body["HostConfig"][field].as_array().into_iter().flatten();
    let binds = list("Binds").filter_map(|bind| bind.as_str()?.split_once(':')).map(|(source, _)| source);
    let mounts = list("Mounts").filter(|mount| mount["Type"] == "volume").filter_map(|mount| mount["Source"].as_str());
    binds.chain(mounts).filter(|name| !name.is_empty() && !name.starts_with('/')).map(str::to_owned).collect()
}

/// The body that makes a volume on `node` as it is elsewhere. One without anything special is made by the engine itself.
fn volume(nodes: &[Arc<Node>], node: &Node, name: &str) -> Option<Value> {
    if node.volumes.iter().any(|volume| volume.name == name) {
        return None;
    }
    let (_, volume) = names::volume(nodes, name).into_iter().next()?;
    let special = |field: &str| volume.summary[field].as_object().is_some_and(|map| !map.is_empty());
    (volume.driver != "local" || special("Options") || special("Labels")).then(|| volume_body(&volume))
}

fn volume_body(volume: &Volume) -> Value {
    let map = |field: &str| volume.summary[field].as_object().cloned().unwrap_or_else(Map::new);
    json!({ "Name": volume.name, "Driver": volume.driver, "DriverOpts": map("Options"), "Labels": map("Labels") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "77aa";

    /// `old` has the network `app`, which spans nodes, `lone`, which does not, and two volumes; `new` has nothing.
    fn cluster() -> Vec<Arc<Node>> {
        let labels = json!({ LABEL_NETWORK_ID: ID, "a": "b" });
        let summary = json!({ "Driver": "bridge", "Internal": true, "Labels": labels, "Created": "2026",
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.18.0.0/16"}]} });
        let app = Network {
            id: "1".into(),
            name: "app".into(),
            labels: [(LABEL_NETWORK_ID.to_owned(), ID.to_owned())].into(),
            summary: Arc::new(summary),
            ..Network::default()
        };
        let lone = Network { id: "2".into(), name: "lone".into(), ..Network::default() };
        let volume = |name: &str, options: Value| {
            let summary = Arc::new(json!({ "Options": options, "Labels": null }));
            Arc::new(Volume { name: name.into(), driver: "local".into(), summary, ..Volume::default() })
        };
        let volumes = vec![volume("plain", Value::Null), volume("bound", json!({ "o": "bind" }))];
        let networks = vec![Arc::new(app), Arc::new(lone)];
        let old = Node { name: "old".into(), networks, volumes, ..Node::default() };
        vec![Arc::new(old), Arc::new(Node { name: "new".into(), ..Node::default() })]
    }

    #[track_caller]
    fn check(on: usize, body: Value, expected_body: Value, made: &str) {
        let nodes = cluster();
        let mut prepared = body.clone();
        let ground = prepare(&nodes, &nodes[on], &mut prepared);
        assert_eq!(prepared, expected_body, "{body}");
        let names = ground.networks.iter().chain(&ground.volumes).filter_map(|it| it["Name"].as_str());
        assert_eq!(names.collect::<Vec<_>>().join(" "), made, "{body}");
    }

    #[test]
    fn a_network_is_made_where_it_is_missing_and_named_by_its_name() {
        let mode = |mode: &str| json!({ "HostConfig": { "NetworkMode": mode } });
        check(1, mode("app"), mode("app"), "app");
        check(1, mode(ID), mode("app"), "app");
        check(0, mode(ID), mode("app"), "");
        check(1, mode("lone"), mode("lone"), "");
        check(1, mode("old/lone"), mode("lone"), "");
        check(1, mode("unknown"), mode("unknown"), "");
        for everywhere in ["", "default", "bridge", "host", "none", "container:x"] {
            check(1, mode(everywhere), mode(everywhere), "");
        }
    }

    #[test]
    fn endpoints_name_the_part_of_the_node() {
        let endpoints = |name: &str, endpoint: Value| json!({ "HostConfig": {}, "NetworkingConfig": { "EndpointsConfig": { name: endpoint } } });
        let aliases = json!({ "Aliases": ["web"] });
        let with_id = json!({ "Aliases": ["web"], "NetworkID": ID });
        check(1, endpoints(ID, with_id.clone()), endpoints("app", aliases.clone()), "app");
        check(0, endpoints("app", with_id.clone()), endpoints("app", aliases), "");
        check(1, endpoints("unknown", with_id.clone()), endpoints("unknown", with_id), "");
        check(1, endpoints("app", Value::Null), endpoints("app", Value::Null), "app");
    }

    #[test]
    fn a_volume_with_options_is_made_as_it_is_elsewhere() {
        let body = json!({ "HostConfig": { "Binds": ["bound:/data", "plain:/x", "/host:/y"],
            "Mounts": [{"Type": "volume", "Source": "bound"}, {"Type": "bind", "Source": "bound"}] } });
        check(1, body.clone(), body.clone(), "bound");
        check(0, body.clone(), body, "");
    }

    #[test]
    fn what_is_not_there_is_not_put_in() {
        let empty = json!({ "Image": "x" });
        let nodes = cluster();
        let mut body = empty.clone();
        assert!(prepare(&nodes, &nodes[1], &mut body).is_empty());
        assert_eq!(body["Image"], "x");
    }

    #[test]
    fn the_body_is_that_of_the_other_part_with_addresses_of_its_own_if_need_be() {
        let nodes = cluster();
        let body = network(&nodes, &nodes[1], "app").expect("a body");
        let expected = json!({ "Name": "app", "CheckDuplicate": true, "Driver": "bridge", "Internal": true,
            "Labels": { LABEL_NETWORK_ID: ID, "a": "b" },
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.18.0.0/16"}]} });
        assert_eq!(body, expected);
        assert_eq!(with_addresses_of_its_own(body)["IPAM"], json!({ "Driver": "default" }));
    }
}
