//! Prunes of all nodes as one answer: lists are joined, sizes added up.

use std::sync::Arc;

use herder_model::Node;
use serde_json::{Map, Value, json};

use crate::df;
use crate::list::{network_name, volume_name};
use crate::merge::{self, Part};
use crate::naming::Naming;

/// Joins answers of `POST /…/prune`: lists one after the other, numbers as sums; what only some have is kept.
pub fn merge(parts: Vec<Value>) -> Value {
    let mut merged = Map::new();
    for part in parts {
        let Value::Object(fields) = part else { continue };
        for (key, value) in fields {
            df::add(&mut merged, key, value);
        }
    }
    merged.entry("SpaceReclaimed").or_insert(json!(0));
    Value::Object(merged)
}

/// Same as [`merge()`], with volumes and networks named as lists name them, and objects removed on several nodes named
/// once. `nodes` must show the state before the prune. It fails if no node succeeded; other failures are in `Warnings`.
pub fn over_nodes(parts: Vec<Part>, naming: Naming) -> Result<Value, String> {
    let (answers, failures) = merge::sort_out(parts);
    if answers.is_empty() && !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    let named = |(node, mut answer): (Arc<Node>, Value)| {
        name_all(&mut answer, &node, naming);
        answer
    };
    let mut merged = merge(answers.into_iter().map(named).collect());
    for field in ["ImagesDeleted", "NetworksDeleted", "VolumesDeleted"] {
        if let Some(list) = merged.get_mut(field).and_then(Value::as_array_mut) {
            let mut seen: Vec<Value> = Vec::new();
            list.retain(|it| {
                !seen.contains(it) && {
                    seen.push(it.clone());
                    true
                }
            });
        }
    }
    if !failures.is_empty() {
        merged["Warnings"] = json!(failures);
    }
    Ok(merged)
}

fn name_all(answer: &mut Value, node: &Node, naming: Naming) {
    for volume in list_of(answer, "VolumesDeleted") {
        let known = node.volumes.iter().find(|it| Some(it.name.as_str()) == volume.as_str());
        if let Some(known) = known {
            *volume = volume_name(node, known, naming).into();
        }
    }
    for network in list_of(answer, "NetworksDeleted") {
        let known = node.networks.iter().find(|it| Some(it.name.as_str()) == network.as_str());
        if let Some(known) = known {
            *network = network_name(node, known, naming).into();
        }
    }
}

fn list_of<'v>(answer: &'v mut Value, field: &str) -> impl Iterator<Item = &'v mut Value> {
    answer.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use herder_model::{Network, Volume};

    #[test]
    fn lists_are_joined_and_sizes_added() {
        let parts = vec![
            json!({"ContainersDeleted": null, "SpaceReclaimed": 1}),
            json!({"ContainersDeleted": ["a"], "SpaceReclaimed": 2}),
            json!({"ContainersDeleted": ["b"], "SpaceReclaimed": 4}),
        ];
        assert_eq!(merge(parts), json!({"ContainersDeleted": ["a", "b"], "SpaceReclaimed": 7}));
        assert_eq!(merge(vec![]), json!({"SpaceReclaimed": 0}));
    }

    #[test]
    fn names_are_the_clusters_and_failures_are_told() {
        let volume = |name: &str, driver: &str| {
            Arc::new(Volume { name: name.into(), driver: driver.into(), ..Volume::default() })
        };
        let network = |name: &str, scope: &str| {
            Arc::new(Network { name: name.into(), scope: scope.into(), ..Network::default() })
        };
        let node = |name: &str| {
            Arc::new(Node {
                name: name.into(),
                volumes: vec![volume("v", "local"), volume("w", "nfs")],
                networks: vec![network("own", "local"), network("all", "global")],
                ..Node::default()
            })
        };
        let answer = json!({"VolumesDeleted": ["v", "w"], "NetworksDeleted": ["own", "all"], "SpaceReclaimed": 3});
        let parts =
            vec![(node("n1"), Ok(answer.clone())), (node("n2"), Ok(answer)), (node("n3"), Err("no answer".to_owned()))];
        let expected = json!({"VolumesDeleted": ["n1/v", "w", "n2/v"], "NetworksDeleted": ["n1/own", "all", "n2/own"],
            "SpaceReclaimed": 6, "Warnings": ["n3: no answer"]});
        assert_eq!(over_nodes(parts.clone(), Naming::Classic), Ok(expected));
        let bare = over_nodes(parts, Naming::Docker).unwrap();
        assert_eq!((&bare["VolumesDeleted"], &bare["NetworksDeleted"]), (&json!(["v", "w"]), &json!(["own", "all"])));
        let failed = over_nodes(vec![(node("n3"), Err("no answer".into()))], Naming::Docker);
        assert_eq!(failed, Err("n3: no answer".into()));
    }
}
