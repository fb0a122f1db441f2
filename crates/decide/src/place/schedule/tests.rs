//! Tables for every filter, strategy and refusal; properties of every placement.

use std::collections::BTreeSet;

use herder_model::{Container, Image, NodeState};
use proptest::prelude::{Strategy as Gen, any, prop_assert, prop_assert_eq, proptest};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;
use crate::place::request;

mod properties;
mod sentences;

/// Reads `"n1 zone=a disk=ssd"`: a healthy node with 2 CPUs and 1000 bytes, its labels, and its objects. `c:NAME` is a
/// container, `p:PORT[/udp]` one with that port (`created:PORT` and `exited:PORT` in that state), `m:BYTES` one that
/// reserves, `i:TAG` an image, `down`.
fn node(line: &str) -> Arc<Node> {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a name");
    let mut node = Node {
        addr: format!("{name}:1"),
        name: name.into(),
        state: NodeState::Healthy,
        health_indicator: 100,
        total: Resources { nano_cpus: 2_000_000_000, memory_bytes: 1000 },
        ..Node::default()
    };
    for (index, word) in words.enumerate() {
        let mut container =
            Container { id: format!("{name}-{index}"), state: "running".into(), ..Container::default() };
        if word == "down" {
            node.state = NodeState::Unhealthy;
            node.health_indicator = 0;
        } else if let Some((key, value)) = word.split_once('=') {
            node.labels.insert(key.into(), value.into());
        } else if let Some((kind, value)) = word.split_once(':') {
            match kind {
                "c" => container.name = value.into(),
                "p" | "created" | "exited" => {
                    if kind != "p" {
                        container.state = kind.into();
                    }
                    let (port, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
                    container.host_ports =
                        request::host_ports(&json!({format!("80/{protocol}"): [{"HostPort": port}]})).unwrap();
                }
                "m" => container.reserved.memory_bytes = value.parse().unwrap(),
                "i" => node.images.push(Arc::new(Image { repo_tags: vec![value.into()], ..Image::default() })),
                _ => panic!("unknown word {word}"),
            }
            if kind != "i" {
                node.put_container(Arc::new(container));
            }
        }
    }
    Arc::new(node)
}

fn nodes(text: &str) -> Vec<Arc<Node>> {
    text.split(';').map(str::trim).filter(|line| !line.is_empty()).map(node).collect()
}

fn place(strategy: Strategy, text: &str, body: Value) -> String {
    let request = request::parse(Some("new"), body, "id").unwrap();
    let scheduler = Scheduler { strategy, ..Scheduler::default() };
    match scheduler.rank(&request, &nodes(text), &mut StdRng::seed_from_u64(1)) {
        Ok(ranked) => ranked.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" "),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check(text: &str, body: Value, expected: &str) {
    assert_eq!(place(Strategy::Spread, text, body), expected, "{text}");
}

fn env(expressions: &[&str]) -> Value {
    json!({"Env": expressions})
}

#[test]
fn spread_prefers_the_emptiest_and_binpack_the_fullest() {
    let text = "a c:1 c:2; b; c c:3";
    assert_eq!(place(Strategy::Spread, text, json!({})), "b c a");
    assert_eq!(place(Strategy::Binpack, text, json!({})), "a c b");
    let text = "a m:500 c:1 c:2; b m:700; c m:100";
    let body = json!({"HostConfig": {"Memory": 100}});
    assert_eq!(place(Strategy::Spread, text, body.clone()), "c a b");
    assert_eq!(place(Strategy::Binpack, text, body), "b a c");
}

#[test]
fn random_respects_resources() {
    let body = json!({"HostConfig": {"Memory": 600}});
    assert_eq!(place(Strategy::Random, "a m:500; b; c m:900", body), "b");
}

#[test]
fn health() {
    check("a down; b", json!({}), "b");
    check("a down", json!({}), "No healthy node available in the cluster\na: health: unhealthy");
    check("", json!({}), "No nodes available in the cluster");
}

#[test]
fn ports_respect_protocol_address_and_range() {
    let port = |port: &str, protocol: &str, ip: &str| json!({"HostConfig": {"PortBindings": {format!("80/{protocol}"): [{"HostIp": ip, "HostPort": port}]}}});
    check("a p:80; b", port("80", "tcp", ""), "b");
    check("a p:80; b c:1 c:2", port("80", "udp", ""), "a b");
    check("a p:80; b c:1 c:2", port("81", "tcp", ""), "a b");
    check(
        "a p:80",
        port("80", "tcp", "10.0.0.1"),
        "Unable to find a node that satisfies the following conditions \n[port 80 (Bridge mode)]\na: port: port 80 is taken by container ",
    );
    check("a p:80", port("80-90", "tcp", ""), "a");
    // What does not run blocks nothing; what may be about to start is avoided while there is another node.
    check("a exited:80", port("80", "tcp", ""), "a");
    check("a created:80; b c:1 c:2", port("80", "tcp", ""), "b");
    check("a created:80; b p:80", port("80", "tcp", ""), "a");
}

#[test]
fn a_container_that_is_replaced_gives_its_ports_up() {
    let body = json!({"Image": "x", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}});
    let request = request::parse(None, body, "s").expect("a request");
    let scheduler = Scheduler::default();
    let rank = |request: &CreateRequest, text: &str| {
        let ranked = scheduler.rank(request, &nodes(text), &mut StdRng::seed_from_u64(1));
        ranked.map_or("none".into(), |nodes| nodes.iter().map(|it| it.name.clone()).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(rank(&request, "a p:80"), "none");
    assert_eq!(rank(&CreateRequest { replaces: Some("a-0".into()), ..request.clone() }, "a p:80"), "a");
    // The node itself keeps a promised port for the container that was promised it, unless the door knows no other node.
    let node = nodes("a created:80").remove(0);
    let check = |request: &CreateRequest| scheduler.check(request, &node, &mut StdRng::seed_from_u64(1)).is_ok();
    assert_eq!((ports_promised(&request, &node), check(&request)), (true, false));
    assert!(check(&CreateRequest { insists: true, ..request }));
}

#[test]
fn an_affinity_names_a_container_in_any_form() {
    for (value, expected) in
        [("web", "a"), ("/web", "a"), ("a/web", "a"), ("b/web", ""), ("/a/web", "a"), ("/we/", "a")]
    {
        for (operator, expected) in [("==", expected), ("!=", if expected == "a" { "b" } else { "a b" })] {
            let env = json!({"Env": [format!("affinity:container{operator}{value}")]});
            let request = request::parse(None, env, "s").expect("a request");
            let ranked = Scheduler::default().rank(&request, &nodes("a c:web; b"), &mut StdRng::seed_from_u64(1));
            let mut names: Vec<String> = ranked.iter().flatten().map(|it| it.name.clone()).collect();
            names.sort();
            assert_eq!(names.join(" "), expected, "{operator}{value}");
        }
    }
}

#[test]
fn host_network_compares_exposed_ports() {
    let mut other = Node::clone(&node("a"));
    let container = Container {
        id: "x".into(),
        name: "web".into(),
        network_mode: "host".into(),
        exposed_ports: vec!["80/tcp".into()],
        state: "running".into(),
        ..Container::default()
    };
    other.put_container(Arc::new(container));
    let body = json!({"ExposedPorts": {"80/tcp": {}}, "HostConfig": {"NetworkMode": "host"}});
    let request = request::parse(None, body, "id").unwrap();
    let error = Scheduler::default().rank(&request, &[Arc::new(other)], &mut StdRng::seed_from_u64(1)).unwrap_err();
    assert!(
        error.to_string().contains("[port 80/tcp (Host mode)]\n[available container slots]")
            || error.to_string().contains("[port 80/tcp (Host mode)]\na: port: port 80/tcp is taken by container web"),
        "{error}"
    );
}

#[test]
fn container_slots() {
    check("a containerslots=1 c:1; b", json!({}), "b");
    check("a containerslots=many c:1", json!({}), "a");
    check(
        "a containerslots=1 c:1",
        json!({}),
        "Unable to find a node that satisfies the following conditions \n[available container slots]\na: containerslots: 1 of 1 container slots are taken",
    );
}

#[test]
fn dependencies_pull_to_their_node() {
    check("a; b c:db", json!({"HostConfig": {"Links": ["db:x"]}}), "b");
    check(
        "a c:data; b c:db",
        json!({"HostConfig": {"VolumesFrom": ["data"], "Links": ["db:x"]}}),
        "Unable to find a node that satisfies the following conditions \n[available container slots]\n[--volumes-from=data --link=db:x]\na: dependency: --link=db:x: that container is on b:1\nb: dependency: --volumes-from=data: that container is on a:1",
    );
    check(
        "a",
        json!({"HostConfig": {"NetworkMode": "container:none"}}),
        "Unable to find a node that satisfies the following conditions \n[available container slots]\n[--net=container:none]\na: dependency: --net=container:none: no node has that container",
    );
}

#[test]
fn affinities_look_at_containers_images_and_labels() {
    check("a; b c:web", env(&["affinity:container==web"]), "b");
    check("a; b c:web", env(&["affinity:container!=web"]), "a");
    check("a; b i:redis:7", env(&["affinity:image==redis"]), "b");
    check("a; b i:redis:7", env(&["affinity:image==redis:7"]), "b");
    check("a; b i:redis:7", env(&["affinity:image==~nothing"]), "a b");
    check(
        "a",
        env(&["affinity:container==web"]),
        "Unable to find a node that satisfies the following conditions \n[available container slots]\n[container==web (soft=false)]\na: affinity: affinity container==web does not hold",
    );
}

#[test]
fn constraints_look_at_labels_and_names() {
    check("a zone=x; b zone=y", env(&["constraint:zone==y"]), "b");
    check("a zone=x; b", env(&["constraint:zone!=x"]), "b");
    check("a; b", env(&["constraint:node==b"]), "b");
    check("a; b", env(&["constraint:node!=/^[ac]$/"]), "b");
    check("a zone=x; b zone=y", env(&["constraint:zone==~y"]), "b");
    check("a zone=x", env(&["constraint:zone==~y"]), "a");
    check(
        "a zone=x; b",
        env(&["constraint:zone==y", "constraint:disk==ssd"]),
        "Unable to find a node that satisfies the following conditions \n[available container slots]\n[zone==y disk==ssd]\na: constraint: constraint zone==y does not hold, zone is `x`\nb: constraint: constraint zone==y does not hold, zone is nothing",
    );
}

#[test]
fn whitelists_name_nodes() {
    check("a; b; c", env(&["whitelist:node==b|c"]), "b c");
    check(
        "a",
        env(&["whitelist:node==b|c"]),
        "Unable to find a node that satisfies the following conditions \n[available container slots]\n[node==b|c]\na: whitelist: not in the whitelist",
    );
}

#[test]
fn resources_are_never_oversubscribed() {
    check("a m:900", json!({"HostConfig": {"Memory": 100}}), "a");
    check(
        "a m:900",
        json!({"HostConfig": {"Memory": 104_857_600}}),
        "no resources available to schedule container\na: resources: asks for 100 MiB of memory, 0 of 0 MiB are reserved",
    );
    check(
        "a",
        json!({"HostConfig": {"NanoCpus": 3_000_000_000_i64}}),
        "no resources available to schedule container\na: resources: asks for 3 CPUs, 0 of 2 are reserved",
    );
    check("a m:5000", json!({}), "a");
}

#[test]
fn words_of_the_command_line() {
    for word in ["health", "port", "containerslots", "dependency", "affinity", "constraint", "whitelist"] {
        assert_eq!(word.parse::<Filter>().unwrap().to_string(), word);
    }
    assert_eq!("bogus".parse::<Filter>(), Err("filter not supported"));
    assert_eq!("bogus".parse::<Strategy>(), Err("strategy not supported"));
    assert_eq!("binpacking".parse::<Strategy>().unwrap().to_string(), "binpack");
}

fn any_node() -> impl Gen<Value = String> {
    (0..3_usize, 0..4_u16, 0..1200_i64, any::<bool>(), 0..3_usize).prop_map(|(zone, port, memory, up, slots)| {
        let slots = if slots > 0 { format!("containerslots={}", slots + 1) } else { String::new() };
        format!("zone=z{zone} p:{} m:{memory} {} {slots}", 80 + port, if up { "" } else { "down" })
    })
}

fn any_nodes() -> impl Gen<Value = Vec<Arc<Node>>> {
    let named =
        |lines: Vec<String>| lines.iter().enumerate().map(|(index, line)| node(&format!("n{index} {line}"))).collect();
    proptest::collection::vec(any_node(), 0..6).prop_map(named)
}

fn any_request() -> impl Gen<Value = CreateRequest> {
    (0..4_usize, any::<bool>(), 0..4_u16, 0..600_i64).prop_map(|(zone, soft, port, memory)| {
        let zone =
            if zone < 3 { vec![format!("constraint:zone=={}z{zone}", if soft { "~" } else { "" })] } else { vec![] };
        let ports = if port < 3 { json!({"80/tcp": [{"HostPort": (80 + port).to_string()}]}) } else { json!({}) };
        let body = json!({"Env": zone, "HostConfig": {"PortBindings": ports, "Memory": memory}});
        request::parse(None, body, "id").unwrap()
    })
}

proptest! {
    #[test]
    fn one_placement_after_the_other_never_oversubscribes(
        mut nodes in any_nodes(),
        requests in proptest::collection::vec(any_request(), 0..20),
    ) {
        let full_before: BTreeSet<String> =
            nodes.iter().filter(|it| it.used.memory_bytes > it.total.memory_bytes).map(|it| it.name.clone()).collect();
        for (index, request) in requests.iter().enumerate() {
            let ranked = Scheduler::default().rank(request, &nodes, &mut StdRng::seed_from_u64(1));
            let Ok(Some(best)) = ranked.map(|ranked| ranked.into_iter().next()) else { continue };
            let chosen = nodes.iter_mut().find(|node| node.addr == best.addr).expect("one of ours");
            let container = Container { id: format!("new-{index}"), state: "running".into(), ..request.container.clone() };
            Arc::make_mut(chosen).put_container(Arc::new(container));
        }
        for node in &nodes {
            prop_assert!(node.used.memory_bytes <= node.total.memory_bytes || full_before.contains(&node.name));
            let slots = node.labels.get("containerslots").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
            prop_assert!(node.containers.len() <= slots.max(2));
            let ports: Vec<u16> = node.containers.values().flat_map(|it| &it.host_ports).map(|it| it.first).collect();
            let different: BTreeSet<u16> = ports.iter().copied().collect();
            prop_assert_eq!(ports.len(), different.len());
        }
    }
}
