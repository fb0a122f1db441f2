//! Properties of every list, whatever the nodes have on them.

use std::sync::Arc;

use herder_decide::list::{ContainerQuery, Filters, containers, images, pieces, select};
use herder_decide::{names, render, words};
use herder_model::{Container, Image, Node, NodeState};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 10_000;
const STATES: [&str; 5] = ["running", "exited", "created", "paused", "dead"];

/// Up to five nodes with up to eight containers each; times of creation collide.
fn nodes() -> impl Strategy<Value = Vec<Arc<Node>>> {
    let container = (0..20_i64, 0..STATES.len(), 0..3_u8, any::<bool>());
    let node = (proptest::collection::vec(container, 0..8), any::<bool>());
    proptest::collection::vec(node, 0..5).prop_map(|nodes| {
        let numbered = nodes.into_iter().enumerate();
        numbered.map(|(number, (containers, healthy))| Arc::new(node_of(number, &containers, healthy))).collect()
    })
}

fn node_of(number: usize, containers: &[(i64, usize, u8, bool)], healthy: bool) -> Node {
    let state = if healthy { NodeState::Healthy } else { NodeState::Unhealthy };
    let mut node = Node { name: format!("n{number}"), addr: format!("a{number}"), state, ..Node::default() };
    for (index, (created, state, tier, started)) in containers.iter().enumerate() {
        let (id, name) = (format!("{index}{number}ab"), format!("c{number}-{index}"));
        let summary = json!({"Id": id, "Names": [format!("/{name}")], "Extra": [index]}).to_string();
        let mut container = Container {
            id,
            name,
            created: *created,
            state: STATES[*state].into(),
            started_at: if *started { created + 1 } else { 0 },
            labels: [("tier".to_owned(), tier.to_string())].into(),
            ..Container::default()
        };
        container.entry = render::entry(&summary, &container, Default::default());
        node.put_container(Arc::new(container));
    }
    node
}

fn all() -> ContainerQuery {
    ContainerQuery { all: true, ..ContainerQuery::default() }
}

fn filtered(filters: &str) -> ContainerQuery {
    ContainerQuery { filters: Filters::parse(filters).unwrap(), ..all() }
}

fn ids(nodes: &[Arc<Node>], query: &ContainerQuery) -> Vec<String> {
    select(nodes, query).unwrap().into_iter().map(|(_, it)| it.id.clone()).collect()
}

proptest! {
    #[test]
    fn all_shows_every_container_once_newest_first(nodes in nodes()) {
        let chosen = select(&nodes, &all()).unwrap();
        prop_assert!(chosen.is_sorted_by_key(|(_, it)| std::cmp::Reverse(it.created)));
        let mut ids = ids(&nodes, &all());
        ids.sort();
        let mut expected: Vec<String> = nodes.iter().flat_map(|node| node.containers.keys().cloned()).collect();
        expected.sort();
        prop_assert_eq!(ids, expected);
    }

    #[test]
    fn the_order_of_nodes_changes_nothing(nodes in nodes()) {
        let mut turned = nodes.clone();
        turned.reverse();
        prop_assert_eq!(containers(&nodes, &all(), NOW), containers(&turned, &all(), NOW));
    }

    #[test]
    fn a_limit_gives_the_beginning_of_the_list(nodes in nodes(), limit in 0..50_usize) {
        let whole = ids(&nodes, &all());
        let some = ids(&nodes, &ContainerQuery { limit: Some(limit), ..ContainerQuery::default() });
        prop_assert_eq!(&some[..], &whole[..limit.min(whole.len())]);
    }

    #[test]
    fn before_and_since_cut_the_list_at_the_container(nodes in nodes(), at in any::<prop::sample::Index>()) {
        let whole = ids(&nodes, &all());
        prop_assume!(!whole.is_empty());
        let at = at.index(whole.len());
        let before = ContainerQuery { before: Some(whole[at].clone()), ..all() };
        let since = ContainerQuery { since: Some(whole[at].clone()), ..all() };
        prop_assert_eq!(&ids(&nodes, &before)[..], &whole[at + 1..]);
        prop_assert_eq!(&ids(&nodes, &since)[..], &whole[..at]);
    }

    #[test]
    fn a_label_filter_parts_the_list_in_two(nodes in nodes()) {
        let with = ids(&nodes, &filtered(r#"{"label":["tier=1"]}"#));
        let without = ids(&nodes, &filtered(r#"{"label!":["tier=1"]}"#));
        let whole = ids(&nodes, &all());
        prop_assert_eq!(with.len() + without.len(), whole.len());
        prop_assert!(whole.iter().all(|id| with.contains(id) != without.contains(id)));
    }

    #[test]
    fn without_all_only_what_runs_on_healthy_nodes_is_shown(nodes in nodes()) {
        let shown = select(&nodes, &ContainerQuery::default()).unwrap();
        prop_assert!(shown.iter().all(|(node, it)| node.is_healthy() && it.is_running()));
        let running = nodes.iter().filter(|node| node.is_healthy()).flat_map(|node| node.containers.values());
        prop_assert_eq!(shown.len(), running.filter(|it| it.is_running()).count());
    }

    #[test]
    fn the_text_is_what_rendering_one_by_one_gives(nodes in nodes()) {
        let list: Vec<Value> = serde_json::from_slice(&containers(&nodes, &all(), NOW).unwrap()).unwrap();
        let chosen = select(&nodes, &all()).unwrap();
        prop_assert_eq!(list.len(), chosen.len());
        for (entry, (node, it)) in list.iter().zip(chosen) {
            let alone: Value = serde_json::from_str(&render::container(node, it, NOW)).unwrap();
            prop_assert_eq!(entry, &alone);
            prop_assert_eq!(&entry["Status"], &json!(words::status(node, it, NOW)));
            prop_assert!(entry["Extra"].is_array());
        }
    }

    #[test]
    fn pieces_are_the_whole(nodes in nodes(), blanks in 0..200_000_usize) {
        let mut nodes = nodes;
        for node in &mut nodes {
            Arc::make_mut(node).name.push_str(&" ".repeat(blanks));
        }
        let whole = containers(&nodes, &all(), NOW).unwrap();
        let pieces: Vec<Vec<u8>> = pieces(&nodes.into(), &all(), NOW).unwrap().collect();
        prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
        prop_assert_eq!(pieces.concat(), whole);
    }

    #[test]
    fn every_container_is_found_by_what_the_list_calls_it(nodes in nodes()) {
        for (node, it) in select(&nodes, &all()).unwrap() {
            for text in [it.id.clone(), format!("/{}/{}", node.name, it.name), it.name.clone()] {
                let found = names::container(&nodes, &text);
                let found = found.map(|(on, found)| (on.name.clone(), found.id.clone()));
                prop_assert_eq!(found, Ok((node.name.clone(), it.id.clone())), "{}", text);
            }
        }
    }

    #[test]
    fn filters_never_panic_and_both_forms_mean_the_same(key in "[a-z!]{1,8}", values in proptest::collection::vec(".{0,12}", 0..4)) {
        let list = json!({ key.clone(): values }).to_string();
        let set: serde_json::Map<String, Value> = values.iter().map(|value| (value.clone(), json!(true))).collect();
        let (list, set) = (Filters::parse(&list).unwrap(), Filters::parse(&json!({ key.clone(): set }).to_string()).unwrap());
        prop_assert!(list.values(&key).all(|value| set.values(&key).any(|it| it == value)));
        prop_assert!(set.values(&key).all(|value| list.values(&key).any(|it| it == value)));
        let _ = containers(&[], &ContainerQuery { filters: list, ..all() }, NOW);
    }

    #[test]
    fn any_text_as_a_filter_is_answered(text in ".{0,40}", value in ".{0,12}") {
        let _ = Filters::parse(&text);
        let nodes = [Arc::new(node_of(1, &[(1, 0, 1, true)], true))];
        for key in ["name", "id", "node", "ancestor", "publish", "exited", "network", "volume", "before"] {
            let filters = Filters::parse(&json!({ key: [value] }).to_string()).unwrap();
            let _ = containers(&nodes, &ContainerQuery { filters, ..all() }, NOW);
        }
    }

    #[test]
    fn each_image_stands_once_with_the_tags_of_all_nodes(having in proptest::collection::vec((0..4_u8, 0..4_u8, 0..3_u8), 0..20)) {
        let node = |number: u8| {
            let own = having.iter().filter(|(_, _, on)| *on == number);
            let image = |(id, tag, _): &(u8, u8, u8)| Arc::new(Image {
                id: format!("sha256:{id}"),
                repo_tags: vec![format!("repo:{tag}")],
                created: i64::from(*id),
                summary: Arc::new(json!({"Id": format!("sha256:{id}")})),
                ..Image::default()
            });
            Arc::new(Node { name: format!("n{number}"), images: own.map(image).collect(), ..Node::default() })
        };
        let nodes: Vec<Arc<Node>> = (0..3).map(node).collect();
        let list = images(&nodes, false, &Filters::default(), NOW).unwrap();
        let list = list.as_array().unwrap();
        let mut seen: Vec<&str> = list.iter().map(|it| it["Id"].as_str().unwrap()).collect();
        prop_assert!(list.is_sorted_by_key(|it| std::cmp::Reverse(it["Created"].as_i64())));
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), list.len());
        for (id, tag, _) in &having {
            let entry = list.iter().find(|it| it["Id"] == format!("sha256:{id}")).unwrap();
            let tags: Vec<&str> = entry["RepoTags"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
            prop_assert_eq!(tags.iter().filter(|it| **it == format!("repo:{tag}")).count(), 1);
        }
    }
}
