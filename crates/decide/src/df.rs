//! `GET /system/df` over all nodes.

use herder_model::Node;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::merge::{self, Part};
use crate::naming::Naming;

/// Merges the disk use of all nodes. An image on several nodes stands once, its containers and tags united, but its
/// layers count on each node, since that is what the disks hold. Fails if no node answered; nodes that did not are told
/// in `Warnings`.
pub fn merge(parts: Vec<Part>, naming: Naming) -> Result<Value, String> {
    let (answers, failures) = merge::sort_out(parts);
    if answers.is_empty() && !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    let mut merged = Map::new();
    let mut images: IndexMap<String, Value> = IndexMap::new();
    for key in ["LayersSize", "Images", "Containers", "Volumes", "BuildCache"] {
        merged.insert(key.into(), if key == "LayersSize" { json!(0) } else { json!([]) });
    }
    for (node, answer) in answers {
        let Value::Object(fields) = answer else { continue };
        for (key, mut value) in fields {
            match key.as_str() {
                "Images" => value.as_array_mut().into_iter().flatten().for_each(|it| add_image(&mut images, it.take())),
                "Containers" => {
                    value.as_array_mut().into_iter().flatten().for_each(|it| name_container(it, &node, naming))
                }
                "Volumes" => value.as_array_mut().into_iter().flatten().for_each(|it| name_volume(it, &node, naming)),
                _ => {}
            }
            if key != "Images" {
                add(&mut merged, key, value);
            }
        }
    }
    merged.insert("Images".into(), images.into_values().collect());
    if let Some(Value::Array(volumes)) = merged.get_mut("Volumes") {
        *volumes = unite_volumes(std::mem::take(volumes));
    }
    if !failures.is_empty() {
        merged.insert("Warnings".into(), json!(failures));
    }
    Ok(Value::Object(merged))
}

/// Lists are joined, numbers added; of anything else the first stays.
pub(crate) fn add(merged: &mut Map<String, Value>, key: String, value: Value) {
    match (merged.get_mut(&key), value) {
        (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
        (Some(Value::Number(sum)), Value::Number(more)) => {
            *sum = sum.as_i64().unwrap_or_default().saturating_add(more.as_i64().unwrap_or_default()).into();
        }
        (Some(kept), value) if kept.is_null() => *kept = value,
        (None, value) => {
            merged.insert(key, value);
        }
        (Some(_), _) => {}
    }
}

fn add_image(images: &mut IndexMap<String, Value>, image: Value) {
    let id = image["Id"].as_str().unwrap_or_default().to_owned();
    let Some(known) = images.get_mut(&id) else {
        images.insert(id, image);
        return;
    };
    let count = |image: &Value| image["Containers"].as_i64().unwrap_or(-1);
    known["Containers"] = match (count(known), count(&image)) {
        (a, b) if a < 0 => b.into(),
        (a, b) => (a + b.max(0)).into(),
    };
    for field in ["RepoTags", "RepoDigests"] {
        let mut names = known[field].as_array().cloned().unwrap_or_default();
        let more = image[field].as_array().into_iter().flatten();
        let more: Vec<Value> = more.filter(|name| !names.contains(name)).cloned().collect();
        names.extend(more);
        known[field] = names.into();
    }
}

/// Merges volumes with the same name and driver and adds up their usage over all nodes.
fn unite_volumes(volumes: Vec<Value>) -> Vec<Value> {
    let mut united: IndexMap<(String, String), Value> = IndexMap::new();
    let text = |volume: &Value, field: &str| volume[field].as_str().unwrap_or_default().to_owned();
    for volume in volumes {
        match united.entry((text(&volume, "Name"), text(&volume, "Driver"))) {
            indexmap::map::Entry::Vacant(entry) => {
                entry.insert(volume);
            }
            indexmap::map::Entry::Occupied(mut entry) => {
                let Some(usage) = entry.get_mut().get_mut("UsageData").filter(|usage| usage.is_object()) else {
                    continue;
                };
                for field in ["Size", "RefCount"] {
                    let known = &mut usage[field];
                    // An engine that does not know says -1.
                    if let (Some(sum), Some(more)) = (known.as_i64(), volume["UsageData"][field].as_i64()) {
                        *known = json!(if sum < 0 || more < 0 { sum.max(more) } else { sum.saturating_add(more) });
                    }
                }
            }
        }
    }
    united.into_values().collect()
}

fn name_container(container: &mut Value, node: &Node, naming: Naming) {
    let Some(Value::Array(names)) = container.get_mut("Names") else { return };
    let on_node = |name: &Value| {
        let bare = name.as_str().unwrap_or_default().trim_start_matches('/');
        Value::from(format!("/{}/{bare}", node.name))
    };
    let on_node: Vec<Value> = names.iter().map(on_node).collect();
    match naming {
        Naming::Docker => names.extend(on_node),
        Naming::Classic => *names = on_node,
    }
}

fn name_volume(volume: &mut Value, node: &Node, naming: Naming) {
    if let (Some(name), Some("local")) = (volume["Name"].as_str(), volume["Driver"].as_str()) {
        volume["Name"] = naming.on_node(node, name).into_owned().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn node(name: &str) -> Arc<Node> {
        Arc::new(Node { name: name.into(), ..Node::default() })
    }

    #[test]
    fn what_the_disks_hold_is_summed_up() {
        let part = |number: i64| {
            json!({"LayersSize": number, "Images": [{"Id": "i", "RepoTags": [format!("b:{number}")], "Containers": number,
                "Size": 5}], "Containers": [{"Id": number, "Names": ["/web", "/db/alias"]}], "Volumes": [{"Name": "v",
                "Driver": "local", "UsageData": {"Size": number, "RefCount": -1}}, {"Name": "w", "Driver": "nfs"}], "BuildCache": [{"ID": number}], "BuilderSize": 7})
        };
        let parts = vec![(node("n1"), Ok(part(1))), (node("n2"), Err("timeout".into())), (node("n3"), Ok(part(2)))];
        let expected = json!({
            "LayersSize": 3,
            "Images": [{"Id": "i", "RepoTags": ["b:1", "b:2"], "Containers": 3, "Size": 5, "RepoDigests": []}],
            "Containers": [{"Id": 1, "Names": ["/web", "/db/alias", "/n1/web", "/n1/db/alias"]},
                {"Id": 2, "Names": ["/web", "/db/alias", "/n3/web", "/n3/db/alias"]}],
            "Volumes": [{"Name": "v", "Driver": "local", "UsageData": {"Size": 3, "RefCount": -1}},
                {"Name": "w", "Driver": "nfs"}],
            "BuildCache": [{"ID": 1}, {"ID": 2}],
            "BuilderSize": 14,
            "Warnings": ["n2: timeout"],
        });
        assert_eq!(merge(parts.clone(), Naming::Docker), Ok(expected));
        let classic = merge(parts, Naming::Classic).unwrap();
        assert_eq!(classic["Containers"][1]["Names"], json!(["/n3/web", "/n3/db/alias"]));
        let volumes: Vec<&Value> = classic["Volumes"].as_array().unwrap().iter().map(|it| &it["Name"]).collect();
        assert_eq!(volumes, ["n1/v", "w", "n3/v"]);
    }

    #[test]
    fn without_any_answer_there_is_an_error() {
        assert_eq!(merge(vec![(node("n1"), Err("timeout".into()))], Naming::Docker), Err("n1: timeout".into()));
        let empty = json!({"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []});
        assert_eq!(merge(vec![], Naming::Docker), Ok(empty));
    }
}
