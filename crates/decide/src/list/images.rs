//! `GET /images/json` over all nodes: an image on several nodes is one image.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use herder_model::{Image, Node};
use indexmap::IndexMap;
use regex::Regex;
use serde_json::{Value, json};

use super::{Filters, ListError};
use crate::names;

const KNOWN: &[&str] = &["before", "dangling", "label", "label!", "node", "reference", "since", "until"];

/// The images as one JSON array, newest first.
pub fn images(nodes: &[Arc<Node>], filters: &Filters) -> Result<Value, ListError> {
    filters.check(KNOWN)?;
    let dangling = filters.flag("dangling")?;
    let created = |key: &str| match filters.values(key).next() {
        None => Ok(None),
        Some(name) => match names::image(nodes, name).first() {
            Some((_, image)) => Ok(Some(image.created)),
            None => Err(ListError::NoImage(name.to_owned())),
        },
    };
    let (before, since) = (created("before")?, created("since")?);
    let mut merged: IndexMap<&str, Vec<&Image>> = IndexMap::new();
    for node in nodes.iter().filter(|node| filters.any("node", |wanted| wanted == node.name || wanted == node.id)) {
        for image in &node.images {
            merged.entry(image.id.as_str()).or_default().push(image);
        }
    }
    let mut entries: Vec<(i64, Value)> = Vec::new();
    for copies in merged.values() {
        let Some(first) = copies.first() else { continue };
        let united = |list: fn(&Image) -> &Vec<String>| -> Vec<&str> {
            let all: BTreeSet<&str> = copies.iter().flat_map(|copy| list(copy)).map(String::as_str).collect();
            let real: Vec<&str> = all.iter().copied().filter(|it| !it.starts_with("<none>")).collect();
            if real.is_empty() { all.into_iter().collect() } else { real }
        };
        let (tags, digests) = (united(|image| &image.repo_tags), united(|image| &image.repo_digests));
        let is_dangling = tags.iter().all(|tag| tag.starts_with("<none>"));
        let fits = filters.labels(&first.labels)
            && dangling.is_none_or(|wanted| wanted == is_dangling)
            && before.is_none_or(|time| first.created < time)
            && since.is_none_or(|time| first.created > time)
            && filters.any("reference", |pattern| tags.iter().chain(&digests).any(|tag| reference(pattern, tag)));
        if fits {
            let mut entry = Value::clone(&first.summary);
            entry["RepoTags"] = json!(tags);
            entry["RepoDigests"] = json!(digests);
            entries.push((first.created, entry));
        }
    }
    entries.sort_by_key(|(created, _)| Reverse(*created));
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// As Docker's `reference` filter: a glob over the name, with or without its tag.
fn reference(pattern: &str, tag: &str) -> bool {
    let tag = names::familiar(tag);
    let bare = tag.rsplit_once([':', '@']).map_or(tag.as_str(), |(name, _)| name);
    let pattern = pattern.strip_prefix("docker.io/").unwrap_or(pattern).trim_start_matches("library/");
    let escaped = regex::escape(pattern).replace(r"\*", "[^/]*").replace(r"\?", "[^/]");
    Regex::new(&format!("^{escaped}$")).is_ok_and(|glob| glob.is_match(&tag) || glob.is_match(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, images: &[(&str, &str, i64)]) -> Arc<Node> {
        let image = |(id, tag, created): &(&str, &str, i64)| {
            Arc::new(Image {
                id: (*id).into(),
                repo_tags: vec![(*tag).into()],
                created: *created,
                summary: Arc::new(json!({"Id": id, "RepoTags": [tag], "New": 1})),
                ..Image::default()
            })
        };
        Arc::new(Node { name: name.into(), images: images.iter().map(image).collect(), ..Node::default() })
    }

    #[test]
    fn images_of_all_nodes_are_one_list() {
        let nodes = [
            node("n1", &[("i1", "busybox:latest", 1), ("i2", "r.io/a/web:1", 2)]),
            node("n2", &[("i1", "busybox:2", 1), ("i3", "<none>:<none>", 3)]),
        ];
        for (filters, expected) in [
            ("", "i3[<none>:<none>] i2[r.io/a/web:1] i1[busybox:2 busybox:latest]"),
            (r#"{"dangling":["true"]}"#, "i3[<none>:<none>]"),
            (r#"{"dangling":["maybe"]}"#, "invalid filter 'dangling=maybe': expected true or false"),
            (r#"{"reference":["busy*"]}"#, "i1[busybox:2 busybox:latest]"),
            (r#"{"reference":["r.io/*/web"]}"#, "i2[r.io/a/web:1]"),
            (r#"{"reference":["web"]}"#, ""),
            (r#"{"before":["r.io/a/web:1"]}"#, "i1[busybox:2 busybox:latest]"),
            (r#"{"since":["nosuch"]}"#, "No such image: nosuch"),
            (r#"{"node":["n1"]}"#, "i2[r.io/a/web:1] i1[busybox:latest]"),
        ] {
            let text = match images(&nodes, &Filters::parse(filters).unwrap()) {
                Ok(list) => {
                    let tags = |it: &Value| {
                        it["RepoTags"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|tag| tag.as_str().unwrap().to_owned())
                            .collect::<Vec<_>>()
                            .join(" ")
                    };
                    list.as_array()
                        .unwrap()
                        .iter()
                        .map(|it| format!("{}[{}]", it["Id"].as_str().unwrap(), tags(it)))
                        .collect::<Vec<_>>()
                        .join(" ")
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(text, expected, "{filters}");
        }
    }
}
