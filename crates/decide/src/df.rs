//! `GET /system/df` over all nodes.

use herder_model::Node;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::merge::{self, Part};

/// What all nodes use together. An image on several nodes stands once, its containers and tags united, but its layers count on
/// each node, since that is what the disks hold. Fails if no node answered; nodes that did not are told in `Warnings`.
pub fn merge(parts: Vec<Part>) -> Result<Value, String> {
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
                "Containers" => value.as_array_mut().into_iter().flatten().for_each(|it| name_container(it, &node)),
                "Volumes" => value.as_array_mut().into_iter().flatten().for_each(|it| name_volume(it, &node)),
                _ => {}
            }
            if key != "Images" {
                add(&mut merged, key, value);
            }
        }
    }
    merged.insert("Images".into(), images.into_values().collect());
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

fn name_container(container: &mut Value, node: &Node) {
    for name in container["Names"].as_array_mut().into_iter().flatten() {
        *name = format!("/{}/{}", node.name, name.as_str().unwrap_or_default().trim_start_matches('/')).into();
    }
}

fn name_volume(volume: &mut Value, node: &Node) {
    if let (Some(name), Some("local")) = (volume["Name"].as_str(), volume["Driver"].as_str()) {
        volume["Name"] = format!("{}/{name}", node.name).into();
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
                "Driver": "local"}, {"Name": "w", "Driver": "nfs"}], "BuildCache": [{"ID": number}], "BuilderSize": 7})
        };
        let merged =
            merge(vec![(node("n1"), Ok(part(1))), (node("n2"), Err("timeout".into())), (node("n3"), Ok(part(2)))]);
        let expected = json!({
            "LayersSize": 3,
            "Images": [{"Id": "i", "RepoTags": ["b:1", "b:2"], "Containers": 3, "Size": 5, "RepoDigests": []}],
            "Containers": [{"Id": 1, "Names": ["/n1/web", "/n1/db/alias"]}, {"Id": 2, "Names": ["/n3/web", "/n3/db/alias"]}],
            "Volumes": [{"Name": "n1/v", "Driver": "local"}, {"Name": "w", "Driver": "nfs"},
                {"Name": "n3/v", "Driver": "local"}, {"Name": "w", "Driver": "nfs"}],
            "BuildCache": [{"ID": 1}, {"ID": 2}],
            "BuilderSize": 14,
            "Warnings": ["n2: timeout"],
        });
        assert_eq!(merged, Ok(expected));
    }

    #[test]
    fn without_any_answer_there_is_an_error() {
        assert_eq!(merge(vec![(node("n1"), Err("timeout".into()))]), Err("n1: timeout".into()));
        let empty = json!({"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []});
        assert_eq!(merge(vec![]), Ok(empty));
    }
}
