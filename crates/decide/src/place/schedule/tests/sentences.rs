//! Every filter with every sentence of a refusal. The first lines are classic Swarm's, to the letter; after them each node
//! has its reason.

use serde_json::json;

use super::*;

/// The conditions in classic Swarm's form, then the reasons.
#[track_caller]
fn refused(text: &str, body: Value, conditions: &[&str], reasons: &[&str]) {
    let lines: String = conditions.iter().map(|line| format!("\n[{line}]")).collect();
    let reasons: String = reasons.iter().map(|line| format!("\n{line}")).collect();
    check(text, body, &format!("Unable to find a node that satisfies the following conditions {lines}{reasons}"));
}

/// Applies these filters only.
fn filtered(filters: &[Filter], text: &str, body: Value) -> String {
    let request = request::parse(Some("new"), body, "id").unwrap();
    let scheduler = Scheduler { strategy: Strategy::Spread, filters: filters.to_vec() };
    match scheduler.rank(&request, &nodes(text), &mut StdRng::seed_from_u64(1)) {
        Ok(ranked) => ranked.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" "),
        Err(error) => error.to_string(),
    }
}

const SLOTS: &str = "available container slots";

#[test]
fn health_says_what_is_wrong_with_each_node() {
    let mut lost = Node::clone(&node("lost down"));
    lost.error = Some("Cannot connect to the Docker daemon".into());
    let pending = Node { addr: "10.0.0.9:2375".into(), ..Node::default() };
    let request = request::parse(None, json!({}), "id").unwrap();
    let nodes = [Arc::new(lost), Arc::new(pending), node("down down")];
    let error = Scheduler::default().rank(&request, &nodes, &mut StdRng::seed_from_u64(1)).unwrap_err();
    let expected = "No healthy node available in the cluster\n\
                    lost: health: unhealthy: Cannot connect to the Docker daemon\n\
                    10.0.0.9:2375: health: pending\n\
                    down: health: unhealthy";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_message_for_people_has_an_end() {
    let many: Vec<String> = (0..25).map(|number| format!("n{number} down")).collect();
    let text = place(Strategy::Spread, &many.join(";"), json!({}));
    assert_eq!(text.lines().count(), 22);
    assert!(text.ends_with("\nn19: health: unhealthy\nand 5 more nodes"), "{text}");
}

#[test]
fn port_lists_every_port_that_is_asked_for() {
    let ports = |ports: Value| json!({"HostConfig": {"PortBindings": ports}});
    refused(
        "a p:80 c:web; b p:53/udp",
        ports(
            json!({"80/tcp": [{"HostPort": "80"}], "53/udp": [{"HostPort": "53"}], "1/tcp": [{"HostPort": "10-20"}]}),
        ),
        &["port 80 (Bridge mode)", "port 53/udp (Bridge mode)", "port 10-20 (Bridge mode)"],
        &["a: port: port 80 is taken by container ", "b: port: port 53/udp is taken by container "],
    );
    let everywhere = |ip: &str| ports(json!({"80/tcp": [{"HostIp": ip, "HostPort": "80"}]}));
    for ip in ["", "0.0.0.0", "::", "10.0.0.1"] {
        let taken = ["a: port: port 80 is taken by container "];
        refused("a p:80", everywhere(ip), &["port 80 (Bridge mode)"], &taken);
    }
    check("a p:80", ports(json!({"80/tcp": [{"HostPort": ""}], "81/tcp": [{"HostPort": "0"}], "82/tcp": null})), "a");
}

#[test]
fn host_mode_lists_what_is_exposed() {
    let mut taken = Node::clone(&node("a"));
    let host = |id: &str, mode: &str| Container {
        id: id.into(),
        name: id.into(),
        network_mode: mode.into(),
        exposed_ports: vec!["80/tcp".into()],
        state: "running".into(),
        ..Container::default()
    };
    taken.put_container(Arc::new(host("web", "host")));
    let mut free = Node::clone(&node("b"));
    free.put_container(Arc::new(host("other", "bridge")));
    let asked = |port: &str| json!({"ExposedPorts": {port: {}}, "HostConfig": {"NetworkMode": "host"}});
    let place = |nodes: &[Arc<Node>], port: &str| {
        let request = request::parse(None, asked(port), "id").unwrap();
        let ranked = Scheduler::default().rank(&request, nodes, &mut StdRng::seed_from_u64(1));
        ranked.map_or_else(|error| error.to_string(), |ranked| ranked[0].name.clone())
    };
    let (taken, free) = (Arc::new(taken), Arc::new(free));
    assert_eq!(place(&[taken.clone(), free], "80/tcp"), "b");
    assert_eq!(place(std::slice::from_ref(&taken), "80/udp"), "a");
    assert_eq!(
        place(&[taken], "80/tcp"),
        "Unable to find a node that satisfies the following conditions \n[port 80/tcp (Host mode)]\n\
         a: port: port 80/tcp is taken by container web"
    );
}

#[test]
fn slots_are_counted_whatever_the_containers_do() {
    refused(
        "a containerslots=2 c:1 c:2; b containerslots=0",
        json!({}),
        &[SLOTS],
        &["a: containerslots: 2 of 2 container slots are taken", "b: containerslots: 0 of 0 container slots are taken"],
    );
    check("a containerslots=-1 c:1; b containerslots=1.5 c:1 c:2; c containerslots=3 c:1 c:2 c:3", json!({}), "a b");
}

#[test]
fn dependencies_are_listed_on_one_line_as_they_were_given() {
    let host = json!({"HostConfig": {
        "VolumesFrom": ["data:ro"], "Links": ["/db:x"], "NetworkMode": "container:net",
        "IpcMode": "container:ipc", "PidMode": "container:pid",
    }});
    let flags = "--volumes-from=data:ro --link=/db:x --net=container:net --ipc=container:ipc --pid=container:pid";
    refused(
        "a c:data c:db; b c:net",
        host.clone(),
        &[SLOTS, flags],
        &[
            "a: dependency: --net=container:net: that container is on b:1",
            "b: dependency: --volumes-from=data:ro: that container is on a:1",
        ],
    );
    check("a; b c:data c:db c:net c:ipc c:pid", host, "b");
    // As everywhere: by id, and by node and name.
    check("a; b c:db", json!({"HostConfig": {"Links": ["b/db:x"]}}), "b");
    check("a; b c:db", json!({"HostConfig": {"VolumesFrom": ["b-0"]}}), "b");
    // Two of that name: which one is meant cannot be known.
    refused(
        "a c:db; b c:db",
        json!({"HostConfig": {"Links": ["db"]}}),
        &[SLOTS, "--link=db"],
        &[
            "a: dependency: --link=db: no node has that container",
            "b: dependency: --link=db: no node has that container",
        ],
    );
}

#[test]
fn affinities_are_listed_each_with_its_softness() {
    refused(
        "a c:db; b i:redis:7",
        env(&["affinity:container!=~x1", "affinity:image==redis", "affinity:container==db"]),
        &[SLOTS, "container!=x1 (soft=true)", "image==redis (soft=false)", "container==db (soft=false)"],
        &["a: affinity: affinity image==redis does not hold", "b: affinity: affinity container==db does not hold"],
    );
}

#[test]
fn affinities_for_labels_look_at_the_containers_there() {
    let tier = |name: &str, tier: Option<&str>| {
        let labels = tier.map(|tier| ("tier".to_owned(), tier.to_owned())).into_iter().collect();
        let mut node = Node::clone(&node(name));
        node.put_container(Arc::new(Container { id: format!("{name}-x"), labels, ..Container::default() }));
        Arc::new(node)
    };
    let nodes = [tier("a", Some("front")), tier("b", Some("back")), tier("c", None)];
    let check = |expression: &str, expected: &str| {
        let request = request::parse(None, env(&[expression]), "id").unwrap();
        let ranked = Scheduler::default().rank(&request, &nodes, &mut StdRng::seed_from_u64(1));
        let names = ranked.map(|ranked| ranked.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(" "));
        assert_eq!(names.unwrap_or_else(|error| error.summary), expected, "{expression}");
    };
    check("affinity:tier==front", "a");
    check("affinity:tier!=front", "b c");
    check("affinity:tier==/(front)|(back)/", "a b");
    check("affinity:tier==*k", "b");
    check("affinity:tier==~none", "a b c");
    check("affinity:tier!=~/./", "c");
}

#[test]
fn constraints_are_listed_on_one_line_with_their_tilde() {
    refused(
        "a zone=x; b disk=ssd",
        env(&["constraint:zone==~z", "constraint:zone!=x", "constraint:disk==/hdd/", "constraint:node==[ab]"]),
        &[SLOTS, "zone==~z zone!=x disk==/hdd/ node==[ab]"],
        &[
            "a: constraint: constraint zone!=x does not hold, zone is `x`",
            "b: constraint: constraint disk==/hdd/ does not hold, disk is `ssd`",
        ],
    );
    refused(
        "a",
        env(&["constraint:node==b"]),
        &[SLOTS, "node==b"],
        &["a: constraint: constraint node==b does not hold"],
    );
    // A regex that is none matches nothing; what must not be so, is not.
    check("a zone=x", env(&["constraint:zone!=/[/"]), "a");
    refused(
        "a zone=x",
        env(&["constraint:zone==/[/"]),
        &[SLOTS, "zone==/[/"],
        &["a: constraint: constraint zone==/[/ does not hold, zone is `x`"],
    );
}

#[test]
fn whitelists_compare_words_whatever_their_operator() {
    check("a; b; c", env(&["whitelist:node!=b|c", "whitelist:any==c|a"]), "c");
    check("a; ab; b", env(&["whitelist:node==a|*|/b/"]), "a");
    refused(
        "a; b",
        env(&["whitelist:node==c", "whitelist:node==a|b"]),
        &[SLOTS, "node==c", "node==a|b"],
        &["a: whitelist: not in the whitelist", "b: whitelist: not in the whitelist"],
    );
}

#[test]
fn conditions_are_listed_up_to_the_filter_that_refused_the_last_node() {
    let body = || {
        json!({
            "Env": ["constraint:zone==z", "affinity:container==web", "whitelist:node==a"],
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}, "Links": ["db"]},
        })
    };
    refused("a p:80 c:db", body(), &["port 80 (Bridge mode)"], &["a: port: port 80 is taken by container "]);
    let (port, affinity) = ("port 80 (Bridge mode)", "container==web (soft=false)");
    let elsewhere = "a: dependency: --link=db: no node has that container";
    refused("a", body(), &[port, SLOTS, "--link=db"], &[elsewhere]);
    let lonely = "a: affinity: affinity container==web does not hold";
    refused("a c:db", body(), &[port, SLOTS, "--link=db", affinity], &[lonely]);
    let nowhere = "a: constraint: constraint zone==z does not hold, zone is nothing";
    refused("a c:db c:web", body(), &[port, SLOTS, "--link=db", affinity, "zone==z"], &[nowhere]);
    let unlisted = "b: whitelist: not in the whitelist";
    refused("b zone=z c:db c:web", body(), &[port, SLOTS, "--link=db", affinity, "zone==z", "node==a"], &[unlisted]);
    check("a zone=z c:db c:web", body(), "a");
}

#[test]
fn only_the_filters_that_were_given_refuse_in_their_order() {
    let body = || env(&["constraint:zone==z", "affinity:container==web"]);
    assert_eq!(filtered(&[Filter::Health], "a", body()), "a");
    assert_eq!(filtered(&[Filter::Constraint], "a down; b zone=z down", body()), "b");
    assert_eq!(
        filtered(&[Filter::Constraint, Filter::Affinity], "a zone=z; b c:web", body()),
        "Unable to find a node that satisfies the following conditions \n[zone==z]\n[container==web (soft=false)]\n\
         a: affinity: affinity container==web does not hold\n\
         b: constraint: constraint zone==z does not hold, zone is nothing"
    );
    let full = filtered(&[], "a m:900", json!({"HostConfig": {"Memory": 200}}));
    let expected = "no resources available to schedule container\na: resources: asks for 0 MiB of memory";
    assert!(full.starts_with(expected), "{full}");
}

#[test]
fn expressions_that_are_none_are_refused_by_the_name_of_their_filter() {
    for (kind, text, expected) in [
        ("constraint", "zone", "One of operator ==, != is expected"),
        ("constraint", "1zone==a", "Key '1zone' is invalid"),
        ("affinity", "image==@@", "Value '@@' is invalid"),
        ("affinity", "container=web", "One of operator ==, != is expected"),
        ("whitelist", "node==", "Value '' is invalid"),
        ("whitelist", "==a", "Key '' is invalid"),
    ] {
        let error = request::parse(None, env(&[&format!("{kind}:{text}")]), "id").unwrap_err();
        assert_eq!(error.to_string(), format!("error from {kind} filter: {expected} (in `{text}`)"));
    }
}

#[test]
fn healthier_nodes_come_first_then_counts_then_names() {
    let ill = |name: &str, health: i64| Arc::new(Node { health_indicator: health, ..Node::clone(&node(name)) });
    let rank = |strategy, nodes: &[Arc<Node>]| {
        let request = request::parse(None, json!({}), "id").unwrap();
        let scheduler = Scheduler { strategy, ..Scheduler::default() };
        let ranked = scheduler.rank(&request, nodes, &mut StdRng::seed_from_u64(1)).unwrap();
        ranked.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let nodes = [ill("a", 67), ill("b c:1", 100), ill("c", 100), ill("d", 100)];
    assert_eq!(rank(Strategy::Spread, &nodes), "c d b a");
    assert_eq!(rank(Strategy::Binpack, &nodes), "b c d a");
}
