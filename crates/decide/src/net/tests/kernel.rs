//! Kernel tables and plans.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::item::{Item, Value};
use super::super::{Flows, Host, Names, Op, States, Table, carry_out, ended, plan, table};
use super::{host, states};

fn lines(items: &BTreeMap<Item, Value>) -> Vec<String> {
    items.iter().map(|(item, value)| format!("{item} {value}").trim_end().to_owned()).collect()
}

const WANTED: &str = r#"
sysctl net/ipv4/conf/all/rp_filter 0
sysctl net/ipv4/conf/all/send_redirects 0
sysctl net/ipv4/conf/hv4096/route_localnet 1
sysctl net/ipv4/conf/hv4096/rp_filter 0
sysctl net/ipv4/conf/hv4096/send_redirects 0
sysctl net/ipv4/ip_forward 1
bridge hv4096 nf_call
bridge hv4097 nf_call
bridge hv4096 address 02:42:0a:ff:00:02
bridge hv4097 address 02:42:0a:00:01:01
address 10.255.0.1/20 dev hv4096
address 10.255.0.2/20 dev hv4096
address 10.0.1.1/24 dev hv4097
vxlan hx4096 id 4096 local 192.168.0.1 dstport 4789 mtu 1450 master hv4096
vxlan hx4097 id 4097 local 192.168.0.1 dstport 4789 mtu 1450 master hv4097
fdb 02:42:0a:ff:00:03 dev hx4096 192.168.0.2
fdb 02:42:0a:ff:00:06 dev hx4096 192.168.0.2
fdb 02:42:0a:00:01:04 dev hx4097 192.168.0.2
fdb 02:42:0a:00:01:06 dev hx4097 192.168.0.2
fdb 02:42:0a:ff:00:03 dev hx4096 master
fdb 02:42:0a:ff:00:06 dev hx4096 master
fdb 02:48:00:00:00:01 dev hx4096 master
fdb 02:42:0a:00:01:04 dev hx4097 master
fdb 02:42:0a:00:01:06 dev hx4097 master
neighbour 10.255.0.3 dev hv4096 02:42:0a:ff:00:03
neighbour 10.255.0.6 dev hv4096 02:42:0a:ff:00:06
neighbour 169.254.72.72 dev hv4096 02:48:00:00:00:01
neighbour 10.0.1.4 dev hv4097 02:42:0a:00:01:04
neighbour 10.0.1.6 dev hv4097 02:42:0a:00:01:06
route local 10.0.1.2 dev hv4097
route local 10.0.1.9 dev hv4097
route exit ip via 169.254.72.72 dev hv4096
rule exit ip
element ip dns "hv4096" . 10.255.0.1
element ip dns "hv4097" . 10.0.1.1
element ip gateways "hv4096" 10.255.0.1
element ip gateways "hv4097" 10.0.1.1
element ip hairpin "hv4096" . 10.255.0.5 . 10.255.0.5
element ip hairpin "hv4097" . 10.0.1.3 . 10.0.1.3
element ip hairpin "hv4097" . 10.0.1.5 . 10.0.1.5
element ip entry 02:42:0a:ff:00:02 0x48ff0002
element ip entry 02:42:0a:ff:00:03 0x48ff0003
element ip nodesmac 02:42:0a:ff:00:02
element ip nodesmac 02:42:0a:ff:00:03
element ip nodes 192.168.0.1
element ip nodes 192.168.0.2
element ip entries 10.255.0.2
element ip entries 10.255.0.3
element ip targets 10.255.0.5 . tcp . 80
element ip targets 10.255.0.5 . tcp . 81
element ip noports udp . 9000
element ip vipaddrs 10.0.1.2
element ip vipaddrs 10.0.1.9
element ip vslots 10.0.1.2 . 0 10.0.1.3
element ip vslots 10.0.1.2 . 1 10.0.1.4
element ip pslots tcp . 8080 . 0 10.255.0.5 . 80
element ip pslots tcp . 8080 . 1 10.255.0.6 . 80
element ip vips "hv4097" . 10.0.1.2 goto v2
element ip ports tcp . 8080 goto p2
element bridge exits 0x48ff0002 02:42:0a:ff:00:02
element bridge exits 0x48ff0003 02:42:0a:ff:00:03
DOCKER-USER -i hv4096 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
DOCKER-USER -i hv4096 -o hv4096 -j ACCEPT
DOCKER-USER -i hv4097 -o hv4097 -j ACCEPT
DOCKER-USER -o hv4096 -m conntrack --ctstate DNAT -j ACCEPT
DOCKER-USER -o hv4096 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
"#;

#[test]
fn a_node_has_the_table_of_its_networks() {
    let table = table(&states(), &host("n1"));
    let all = lines(&table.items);
    let shown: Vec<&str> = all.iter().map(String::as_str).filter(|line| !line.starts_with("table ")).collect();
    assert_eq!(shown.join("\n"), WANTED.trim());
}

fn difference(before: &States, after: &States, host: &Host) -> (String, Flows) {
    let (before, after) = (table(before, host), table(after, host));
    let mut said = Vec::new();
    for op in plan(&after, &before.items) {
        match op {
            Op::Batch(_, ops) => said.extend(ops.iter().map(say)),
            op => said.push(say(&op)),
        }
    }
    (said.join("\n"), ended(&before, &after))
}

fn say(op: &Op) -> String {
    match op {
        Op::Put(item, value) => format!("+ {item} {value}").trim_end().to_owned(),
        Op::Remove(item) => format!("- {item}"),
        Op::Load(family, _) => format!("load {}", family.name()),
        Op::Drop(family) => format!("drop {}", family.name()),
        Op::Batch(family, _) => format!("batch {}", family.name()),
    }
}

#[test]
fn an_endpoint_that_leaves_costs_a_few_elements() {
    let before = states();
    let mut after = before.clone();
    Arc::make_mut(after.get_mut("ov").unwrap()).endpoints.get_mut("t2").unwrap().serving = false;
    let (said, flows) = difference(&before, &after, &host("n1"));
    let wanted = "- element ip vslots 10.0.1.2 . 1\n- element ip vips \"hv4097\" . 10.0.1.2\n\
                  + element ip vips \"hv4097\" . 10.0.1.2 goto v1";
    assert_eq!(said, wanted);
    assert_eq!(flows.backends, ["10.0.1.4".parse().unwrap()].into());
    // And when it is gone.
    Arc::make_mut(after.get_mut("ov").unwrap()).endpoints.remove("t2");
    assert_eq!((&flows.lost, &flows.gone), (&[].into(), &[].into()), "its connections go on");
    let (said, flows) = difference(&before, &after, &host("n1"));
    assert_eq!(flows.gone, ["10.0.1.4".parse().unwrap()].into());
    let gone = "- neighbour 10.0.1.4 dev hv4097\n- fdb 02:42:0a:00:01:04 dev hx4097 master\n\
                - fdb 02:42:0a:00:01:04 dev hx4097";
    assert_eq!(said, format!("{wanted}\n{gone}"));
}

#[test]
fn connections_that_wait_to_be_ended_spare_an_address_that_has_a_container_again() {
    let with = |endpoints: &[&str]| {
        let mut all = states();
        let ov = Arc::make_mut(all.get_mut("ov").unwrap());
        ov.endpoints = ov
            .endpoints
            .iter()
            .filter(|(id, _)| endpoints.contains(&id.as_str()))
            .map(|(id, it)| (id.clone(), it.clone()))
            .collect();
        table(&all, &host("n1"))
    };
    let step = |from: &[&str], to: &[&str]| ended(&with(from), &with(to));
    let (both, none) = (["t1", "t2"], []);
    let mut waiting = step(&both, &none);
    let addresses = |all: &[&str]| -> BTreeSet<IpAddr> { all.iter().map(|it| it.parse().unwrap()).collect() };
    assert_eq!(waiting.gone, addresses(&["10.0.1.3", "10.0.1.4"]));
    // One on each node comes back.
    waiting.extend(step(&none, &["t1"]), &with(&["t1"]));
    assert_eq!((&waiting.gone, &waiting.backends), (&addresses(&["10.0.1.4"]), &addresses(&["10.0.1.3", "10.0.1.4"])));
    waiting.extend(step(&["t1"], &both), &with(&both));
    assert_eq!(waiting.gone, BTreeSet::new());
    assert_eq!(waiting.vips, addresses(&["10.0.1.2"]));
}

#[test]
fn a_first_backend_moves_waiting_flows() {
    let before = states();
    let mut after = before.clone();
    let ingress = Arc::make_mut(after.get_mut("in").unwrap());
    let mut endpoint = ingress.endpoints["t2"].clone();
    endpoint.service = Some("idle".into());
    endpoint.v4 = "10.255.0.9".parse().unwrap();
    ingress.endpoints.insert("t9".into(), endpoint);
    let (_, flows) = difference(&before, &after, &host("n1"));
    assert_eq!(flows, Flows { ports: [(17, 9000)].into(), ..Flows::default() });
}

#[test]
fn connections_that_a_lost_node_has_not_accepted_are_opened_anew() {
    let here = host("n1");
    let suspecting = Host { suspects: ["n2".to_owned()].into(), ..here.clone() };
    let mut down = states();
    for state in down.values_mut() {
        Arc::make_mut(state).nodes.get_mut("n2").unwrap().up = false;
    }
    let lost: BTreeSet<IpAddr> = ["10.0.1.4".parse().unwrap(), "10.255.0.6".parse().unwrap()].into();
    let before = table(&states(), &here);
    for after in [table(&states(), &suspecting), table(&down, &here)] {
        let flows = ended(&before, &after);
        assert_eq!((&flows.lost, &flows.gone), (&lost, &BTreeSet::new()));
    }
    // A task that moves from this node to the other one keeps its address, and its connections.
    let mut after = states();
    Arc::make_mut(after.get_mut("ov").unwrap()).endpoints.get_mut("t1").unwrap().node = "n2".into();
    assert_eq!(ended(&before, &table(&after, &here)), Flows::default());
}

#[test]
fn suspected_nodes_get_nothing_unless_all_are() {
    let suspects = |ids: &[&str]| Host { suspects: ids.iter().map(|id| (*id).to_owned()).collect(), ..host("n1") };
    let count = |host: &Host| {
        let all = lines(&table(&states(), host).items);
        all.iter().filter(|line| line.starts_with("element ip pslots")).count()
    };
    assert_eq!([&suspects(&[]), &suspects(&["n2"]), &suspects(&["n1", "n2"])].map(count), [2, 1, 2]);
}

/// moby#38575.
#[test]
fn a_service_that_changes_to_dnsrr_is_balanced_while_it_has_a_virtual_ip() {
    let before = states();
    let mut after = before.clone();
    let web = Arc::make_mut(after.get_mut("ov").unwrap()).services.get_mut("web").unwrap();
    web.mode = herder_model::swarm::BalanceMode::Dnsrr;
    assert_eq!(difference(&before, &after, &host("n1")).0, "");
    Arc::make_mut(after.get_mut("ov").unwrap()).services.get_mut("web").unwrap().vip4 = None;
    assert!(difference(&before, &after, &host("n1")).0.contains("- element ip vipaddrs 10.0.1.2"));
}

/// moby#32299.
#[test]
fn a_port_is_published_on_the_addresses_that_its_service_names() {
    let before = states();
    let mut after = before.clone();
    let ports = &mut Arc::make_mut(after.get_mut("in").unwrap()).ports;
    ports.get_mut("8080/tcp").unwrap().on = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let wanted = "+ element ip limited tcp . 8080\n+ element ip publishedon 127.0.0.1 . tcp . 8080";
    assert_eq!(difference(&before, &after, &host("n1")).0, wanted);
}

#[test]
fn ports_that_others_listen_on_are_left_alone() {
    let host = Host { taken: ["8080/tcp".to_owned()].into(), ..host("n1") };
    assert!(!lines(&table(&states(), &host).items).iter().any(|line| line.contains("8080")));
}

fn apply(ops: &[Op], wanted: &Table, kernel: &mut BTreeMap<Item, Value>) {
    carry_out(ops, wanted, kernel).expect("no step is refused");
}

fn any_states() -> impl Strategy<Value = States> {
    let endpoint = (0_u8..3, 3_u8..9, proptest::option::of(0_u8..2), any::<bool>());
    let endpoints = proptest::collection::btree_map("[a-f]", endpoint, 0..6);
    (endpoints, 0_u32..2, any::<bool>(), any::<bool>()).prop_map(|(endpoints, mtu, ingress, user)| {
        let mut states = states();
        for (id, state) in &mut states {
            let state = Arc::make_mut(state);
            state.facts.mtu = mtu * 1400;
            state.endpoints.clear();
            for (key, (node, address, service, serving)) in &endpoints {
                let base = if id == "ov" { [10, 0, 1] } else { [10, 255, 0] };
                let value = serde_json::json!({"node": format!("n{node}"), "v4": format!("{}.{}.{}.{address}", base[0], base[1], base[2]),
                    "service": service.map(|n| if n == 0 { "web" } else { "idle" }), "serving": serving});
                state.endpoints.insert(key.clone(), serde_json::from_value(value).unwrap());
            }
        }
        states.retain(|id, _| if id == "ov" { user } else { ingress });
        states
    })
}

proptest! {
    #[test]
    fn a_plan_leads_from_anything_to_what_is_wanted(before in any_states(), after in any_states(), lost in any::<u64>()) {
        let host = host("n1");
        let (before, after) = (table(&before, &host), table(&after, &host));
        let mut kernel = before.items.clone();
        // Somebody removes this and that.
        let mut n = 0;
        kernel.retain(|_, _| { n += 1; lost >> (n % 64) & 7 != 0 });
        apply(&plan(&after, &kernel), &after, &mut kernel);
        kernel.retain(|item, _| !matches!(item, Item::Sysctl(_) | Item::BridgeMac(_)) || after.items.contains_key(item));
        prop_assert_eq!(lines(&kernel), lines(&after.items));
        prop_assert_eq!(plan(&after, &kernel), vec![]);
    }
}

/// The same two networks, with endpoints, services and ports that come and go.
fn any_places() -> impl Strategy<Value = (States, Vec<String>)> {
    let services = proptest::collection::btree_set(0_usize..4, 0..4);
    (any_states(), services, proptest::collection::vec("[a-f]", 0..2)).prop_map(|(any, gone, ended)| {
        let mut states = states();
        for (id, state) in &mut states {
            let state = Arc::make_mut(state);
            let endpoints = any.get(id).map(|it| it.endpoints.clone()).unwrap_or_default();
            // Each address has one owner at a time; the last endpoint has that of the first one when it is gone.
            let own = |key: &str, address: std::net::Ipv4Addr| {
                let [a, b, c, last] = address.octets();
                let key = if key == "f" && !endpoints.contains_key("a") { b'a' } else { key.as_bytes()[0] };
                std::net::Ipv4Addr::new(a, b, c, 10 + 2 * (key - b'a') + last % 2)
            };
            let with_address = |(key, it): (&String, &herder_model::swarm::NetEndpoint)| {
                (key.clone(), herder_model::swarm::NetEndpoint { v4: own(key, it.v4), ..it.clone() })
            };
            if any.contains_key(id) {
                state.endpoints = endpoints.iter().map(with_address).collect();
            }
            for (n, service) in ["web", "idle", "db"].iter().enumerate() {
                if gone.contains(&n) {
                    state.services.remove(*service);
                }
            }
            if gone.contains(&3) {
                state.ports.remove("8080/tcp");
            }
        }
        (states, ended)
    })
}

/// Adds a second network, on which some of the first one's endpoints are as well.
fn with_second(mut states: States) -> States {
    let mut state: herder_model::swarm::NetState = (*states["ov"]).clone();
    let facts = serde_json::json!({"name": "a", "vni": 4098, "internal": true,
        "subnets": [{"subnet": "10.0.2.0/24", "gateway": "10.0.2.1"}]});
    state.facts = serde_json::from_value(facts).unwrap();
    let there = |it: std::net::Ipv4Addr| std::net::Ipv4Addr::new(10, 0, 2, it.octets()[3]);
    let some = state.endpoints.iter().filter(|(id, _)| id.as_str() < "e");
    let some = some.map(|(id, it)| (id.clone(), herder_model::swarm::NetEndpoint { v4: there(it.v4), ..it.clone() }));
    state.endpoints = some.collect();
    let moved = |(id, it): (&String, &herder_model::swarm::NetService)| {
        (id.clone(), herder_model::swarm::NetService { vip4: it.vip4.map(there), ..it.clone() })
    };
    state.services = state.services.iter().map(moved).collect();
    states.insert("second".into(), Arc::new(state));
    states
}

proptest! {
    /// A change at the cost of what differs leads to the same as everything anew.
    #[test]
    fn advanced_tables_and_names_are_those_computed_anew(all in proptest::collection::vec(any_places(), 1..6)) {
        let mut before = (with_second(states()), host("n1"));
        let mut now = table(&before.0, &before.1);
        let mut names = Names::of(&before.0, &before.1);
        let mut kernel = now.items.clone();
        for (states, ended) in all {
            let after = (with_second(states), Host { ended: ended.into_iter().collect(), ..host("n1") });
            let wanted = table(&after.0, &after.1);
            let flows = super::super::ended(&now, &wanted);
            let (ops, said) = now.advance((&before.0, &before.1), (&after.0, &after.1)).expect("only places differ");
            apply(&ops, &now, &mut kernel);
            prop_assert_eq!(said, flows);
            prop_assert_eq!(lines(&now.items), lines(&wanted.items));
            prop_assert_eq!(lines(&kernel), lines(&wanted.items));
            names = names.advance((&before.0, &before.1), (&after.0, &after.1));
            prop_assert_eq!(&names, &Names::of(&after.0, &after.1));
            before = after;
        }
    }
}
