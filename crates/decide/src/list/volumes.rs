//! `GET /volumes` over all nodes.

use std::collections::HashSet;
use std::sync::Arc;

use herder_model::{Node, Volume};
use serde_json::{Value, json};

use super::{Filters, ListError};
use crate::naming::Naming;

const KNOWN: &[&str] = &["dangling", "driver", "label", "label!", "name", "node"];

/// `{"Volumes": […], "Warnings": null}`. A name stands once, whatever nodes have it; in the classic form, volumes of the
/// driver `local` are `node/name`.
pub fn volumes(nodes: &[Arc<Node>], filters: &Filters, naming: Naming) -> Result<Value, ListError> {
    filters.check(KNOWN)?;
    let dangling = filters.flag("dangling")?;
    let names = filters.patterns("name");
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    let asked = || nodes.iter().filter(|node| filters.any("node", |wanted| wanted == node.name || wanted == node.id));
    let used = |node: &Node, used: &mut HashSet<(String, String)>| {
        for mount in node.containers.values().flat_map(|it| &it.mounts).filter(|mount| !mount.name.is_empty()) {
            let on = if naming == Naming::Classic { node.name.clone() } else { String::new() };
            used.insert((on, mount.name.clone()));
        }
    };
    let mut in_use = HashSet::new();
    if dangling.is_some() {
        asked().for_each(|node| used(node, &mut in_use));
    }
    for node in asked() {
        let on = if naming == Naming::Classic { node.name.clone() } else { String::new() };
        for volume in &node.volumes {
            let name = volume_name(node, volume, naming);
            let fits = names.match_name(&node.name, &volume.name)
                && filters.is("driver", &volume.driver)
                && filters.labels(|key| volume.labels.get(key).map(String::as_str))
                && dangling.is_none_or(|wanted| wanted != in_use.contains(&(on.clone(), volume.name.clone())));
            if fits && seen.insert((name.clone(), volume.driver.as_str())) {
                let mut entry = Value::clone(&volume.summary);
                entry["Name"] = json!(name);
                entries.push(entry);
            }
        }
    }
    Ok(json!({"Volumes": entries, "Warnings": null}))
}

/// The name that lists show for a volume of a node. A driver that spans nodes has the same volume on each of them.
pub fn volume_name(node: &Node, volume: &Volume, naming: Naming) -> String {
    if volume.driver == "local" { naming.on_node(node, &volume.name).into_owned() } else { volume.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herder_model::{Container, MountPoint};

    #[test]
    fn a_name_stands_once_and_in_the_classic_form_for_each_node() {
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
        let other = Node { name: "n2".into(), volumes: vec![volume("a", "local")], ..Node::default() };
        let nodes = [Arc::new(node), Arc::new(other)];
        for (filters, expected, classic) in [
            ("", "a b", "n1/a b n2/a"),
            (r#"{"dangling":["true"]}"#, "b", "b n2/a"),
            (r#"{"dangling":["false"]}"#, "a", "n1/a"),
            (r#"{"driver":["nfs"]}"#, "b", "b"),
            (r#"{"node":["n2"]}"#, "a", "n2/a"),
            (r#"{"node":["n3"]}"#, "", ""),
        ] {
            for (naming, expected) in [(Naming::Docker, expected), (Naming::Classic, classic)] {
                let list = volumes(&nodes, &Filters::parse(filters).unwrap(), naming).unwrap();
                let names: Vec<&str> =
                    list["Volumes"].as_array().unwrap().iter().map(|it| it["Name"].as_str().unwrap()).collect();
                assert_eq!(names.join(" "), expected, "{filters}");
            }
        }
    }
}
