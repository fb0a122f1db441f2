//! `GET /volumes` over all nodes.

use std::collections::HashSet;
use std::sync::Arc;

use herder_model::{Node, Volume};
use serde_json::{Value, json};

use super::{Filters, ListError};

const KNOWN: &[&str] = &["dangling", "driver", "label", "label!", "name", "node"];

/// `{"Volumes": […], "Warnings": null}`; volumes of the driver `local` are `node/name`.
pub fn volumes(nodes: &[Arc<Node>], filters: &Filters) -> Result<Value, ListError> {
    filters.check(KNOWN)?;
    let dangling = filters.flag("dangling")?;
    let names = filters.patterns("name");
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for node in nodes.iter().filter(|node| filters.any("node", |wanted| wanted == node.name || wanted == node.id)) {
        let mounts = node.containers.values().flat_map(|it| &it.mounts);
        let used: HashSet<&str> = mounts.map(|mount| mount.name.as_str()).collect();
        for volume in &node.volumes {
            let name = volume_name(node, volume);
            let fits = names.match_name(&node.name, &volume.name)
                && filters.is("driver", &volume.driver)
                && filters.labels(|key| volume.labels.get(key).map(String::as_str))
                && dangling.is_none_or(|wanted| wanted != used.contains(volume.name.as_str()));
            // A driver that spans nodes shows the same volume on each of them.
            if fits && seen.insert((name.clone(), volume.driver.as_str())) {
                let mut entry = Value::clone(&volume.summary);
                entry["Name"] = json!(name);
                entries.push(entry);
            }
        }
    }
    Ok(json!({"Volumes": entries, "Warnings": null}))
}

/// The name that the cluster shows for a volume of a node: a local one is told apart by its node.
pub fn volume_name(node: &Node, volume: &Volume) -> String {
    if volume.driver == "local" { format!("{}/{}", node.name, volume.name) } else { volume.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herder_model::{Container, MountPoint};

    #[test]
    fn local_volumes_carry_their_node() {
        let volume = |name: &str, driver: &str| {
            Arc::new(Volume {
                name: name.into(),
                driver: driver.into(),
                summary: Arc::new(json!({"Name": name})),
                ..Volume::default()
            })
        };
        let mut node =
            Node { name: "n1".into(), volumes: vec![volume("a", "local"), volume("b", "nfs")], ..Node::default() };
        let mounts = vec![MountPoint { name: "a".into(), ..MountPoint::default() }];
        node.put_container(Arc::new(Container { id: "c".into(), mounts, ..Container::default() }));
        let nodes = [Arc::new(node)];
        for (filters, expected) in [
            ("", "n1/a b"),
            (r#"{"dangling":["true"]}"#, "b"),
            (r#"{"dangling":["false"]}"#, "n1/a"),
            (r#"{"driver":["nfs"]}"#, "b"),
            (r#"{"node":["n2"]}"#, ""),
        ] {
            let list = volumes(&nodes, &Filters::parse(filters).unwrap()).unwrap();
            let names: Vec<&str> =
                list["Volumes"].as_array().unwrap().iter().map(|it| it["Name"].as_str().unwrap()).collect();
            assert_eq!(names.join(" "), expected, "{filters}");
        }
    }
}
