//! `GET /images/json` over all nodes: an image on several nodes is one image.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use herder_model::{Image, Node};
use indexmap::IndexMap;
use regex::Regex;
use serde_json::{Value, json};

use super::{Filters, ListError, glob};
use crate::{events, names};

const KNOWN: &[&str] = &["before", "dangling", "label", "label!", "node", "reference", "since", "until"];

const NANOS: i64 = 1_000_000_000;

/// Lists the images as one JSON array, newest first; with `all` also intermediate ones. `now` in seconds since 1970.
pub fn images(nodes: &[Arc<Node>], all: bool, filters: &Filters, now: i64) -> Result<Value, ListError> {
    let wanted = Wanted::new(nodes, filters, now)?;
    let parents: HashSet<&str> = match all {
        true => HashSet::new(),
        false => nodes.iter().flat_map(|node| &node.images).map(|image| image.parent_id.as_str()).collect(),
    };
    let mut merged: IndexMap<&str, Vec<&Image>> = IndexMap::new();
    for node in nodes.iter().filter(|node| filters.any("node", |wanted| wanted == node.name || wanted == node.id)) {
        for image in &node.images {
            merged.entry(image.id.as_str()).or_default().push(image);
        }
    }
    let mut entries: Vec<(i64, Value)> = Vec::new();
    for copies in merged.values() {
        let Some(first) = copies.first() else { continue };
        let (tags, digests) = (united(copies, |it| &it.repo_tags), united(copies, |it| &it.repo_digests));
        let is_step = tags.iter().chain(&digests).all(|name| is_none(name)) && parents.contains(first.id.as_str());
        if !is_step && wanted.shows(first, &tags, &digests) {
            entries.push((first.created, entry(copies, first, wanted.named(tags), wanted.named(digests))));
        }
    }
    entries.sort_by_key(|(created, _)| Reverse(*created));
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// The names that an image has on any node. `<none>` is how older engines write nothing; it stays if there is no other.
fn united<'n>(copies: &[&'n Image], names: fn(&Image) -> &Vec<String>) -> Vec<&'n str> {
    let all: IndexMap<&str, ()> = copies.iter().flat_map(|copy| names(copy)).map(|name| (name.as_str(), ())).collect();
    let mut all: Vec<&str> = all.into_keys().collect();
    all.sort_unstable();
    let real: Vec<&str> = all.iter().copied().filter(|name| !is_none(name)).collect();
    if real.is_empty() { all } else { real }
}

fn is_none(name: &str) -> bool {
    name.starts_with("<none>")
}

fn entry(copies: &[&Image], first: &Image, tags: Vec<&str>, digests: Vec<&str>) -> Value {
    let mut entry = Value::clone(&first.summary);
    entry["RepoTags"] = json!(tags);
    entry["RepoDigests"] = json!(digests);
    entry["Created"] = json!(first.created);
    // -1 means that an engine did not count.
    let counts: Vec<i64> = copies.iter().filter_map(|copy| copy.summary["Containers"].as_i64()).collect();
    if counts.iter().any(|count| *count >= 0) {
        entry["Containers"] = json!(counts.iter().filter(|count| **count >= 0).sum::<i64>());
    }
    entry
}

/// The filters made ready for many images.
struct Wanted<'f> {
    filters: &'f Filters,
    dangling: Option<bool>,
    before: Option<i64>,
    since: Option<i64>,
    references: Vec<Regex>,
}

impl<'f> Wanted<'f> {
    fn new(nodes: &[Arc<Node>], filters: &'f Filters, now: i64) -> Result<Wanted<'f>, ListError> {
        filters.check(KNOWN)?;
        let created = |name: &str| match names::image(nodes, name).first() {
            Some((_, image)) => Ok(image.created),
            None => Err(ListError::NoImage(name.to_owned())),
        };
        let until = |text: &str| match events::time(text, now.saturating_mul(NANOS)) {
            Ok(nanos) => Ok(nanos.div_euclid(NANOS)),
            Err(_) => Err(ListError::value("until", text, "a time such as 10m or 2026-01-02T15:04:05Z")),
        };
        let before = filters.values("before").map(created).chain(filters.values("until").map(until));
        let since = filters.values("since").map(created);
        let reference = |text: &str| {
            let short = text.strip_prefix("docker.io/").unwrap_or(text);
            let short = short.strip_prefix("library/").unwrap_or(short);
            glob(short).ok_or_else(|| ListError::value("reference", text, "a name in which * stands for anything"))
        };
        Ok(Wanted {
            filters,
            dangling: filters.flag("dangling")?,
            before: before.collect::<Result<Vec<_>, _>>()?.into_iter().min(),
            since: since.collect::<Result<Vec<_>, _>>()?.into_iter().max(),
            references: filters.values("reference").map(reference).collect::<Result<_, _>>()?,
        })
    }

    fn shows(&self, image: &Image, tags: &[&str], digests: &[&str]) -> bool {
        let is_dangling = tags.iter().all(|tag| is_none(tag));
        self.filters.labels(|key| image.labels.get(key).map(String::as_str))
            && self.dangling.is_none_or(|wanted| wanted == is_dangling)
            && self.before.is_none_or(|time| image.created < time)
            && self.since.is_none_or(|time| image.created > time)
            && (self.references.is_empty() || tags.iter().chain(digests).any(|name| self.refers_to(name)))
    }

    /// Those of the names that were asked for.
    fn named<'n>(&self, mut names: Vec<&'n str>) -> Vec<&'n str> {
        if !self.references.is_empty() {
            names.retain(|name| self.refers_to(name));
        }
        names
    }

    /// True if Docker's `reference` filter matches: a glob over the name, with or without its tag.
    fn refers_to(&self, name: &str) -> bool {
        let name = names::familiar(name);
        let bare = repository(&name);
        !is_none(&name) && self.references.iter().any(|glob| glob.is_match(&name) || glob.is_match(bare))
    }
}

/// `r.io:5000/a:1` → `r.io:5000/a`.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
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
            (r#"{"until":["98s"]}"#, "i1[busybox:2 busybox:latest]"),
            (
                r#"{"until":["later"]}"#,
                "invalid filter 'until=later': expected a time such as 10m or 2026-01-02T15:04:05Z",
            ),
            (r#"{"reference":["busybox:l*"]}"#, "i1[busybox:latest]"),
            (r#"{"reference":["docker.io/library/busybox"]}"#, "i1[busybox:2 busybox:latest]"),
            (r#"{"node":["n1"]}"#, "i2[r.io/a/web:1] i1[busybox:latest]"),
        ] {
            let text = match images(&nodes, false, &Filters::parse(filters).unwrap(), 100) {
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

    #[test]
    fn steps_of_a_build_are_shown_only_when_asked_for() {
        let image = |id: &str, parent: &str, tags: &[&str]| {
            Arc::new(Image {
                id: id.into(),
                parent_id: parent.into(),
                repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                summary: Arc::new(json!({ "Id": id })),
                ..Image::default()
            })
        };
        let images_here = vec![
            image("base", "", &["base:1"]),
            image("step", "base", &["<none>:<none>"]),
            image("made", "step", &["made:1"]),
            image("loose", "base", &[]),
        ];
        let nodes = [Arc::new(Node { images: images_here, ..Node::default() })];
        for (all, filters, expected) in [
            (false, "", "base made loose"),
            (true, "", "base step made loose"),
            (false, r#"{"dangling":["true"]}"#, "loose"),
        ] {
            let list = images(&nodes, all, &Filters::parse(filters).unwrap(), 100).unwrap();
            let ids: Vec<&str> = list.as_array().unwrap().iter().map(|it| it["Id"].as_str().unwrap()).collect();
            assert_eq!(ids.join(" "), expected, "{all} {filters}");
        }
    }
}
