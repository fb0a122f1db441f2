//! No two live objects have one address, VXLAN network identifier or port, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::{
    Change, Cluster, ClusterRecord, Command, IpamConfig, LEVEL, NodeRecord, Object, ServiceSpec, SwarmNodeState,
    TaskRecord, TaskState, Time, TunnelEnd, Underlay, View, Written,
};
use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::swarm::control::{self, Declared, NetworkRequest, ServiceUpdate};
use crate::swarm::reconcile;

/// A store and its leader.
struct Swarm {
    view: View,
    addresses: Addresses,
    now: Time,
    made: u32,
}

impl Swarm {
    fn new(nodes: u32) -> Swarm {
        let mut swarm = Swarm { view: View::default(), addresses: Addresses::default(), now: Time(1), made: 0 };
        let cluster = Cluster { id: "c".into(), subnet_size: 28, ..Cluster::default() };
        swarm.write(vec![ClusterRecord { cluster, level: LEVEL, ..ClusterRecord::default() }.into()]);
        for number in 0..nodes {
            let mut record = NodeRecord::default();
            record.node.id = format!("n{number}");
            record.node.description.hostname = format!("host{number}");
            record.node.status.state = SwarmNodeState::Ready;
            swarm.write(vec![record.into()]);
        }
        swarm.first();
        swarm
    }

    /// Writes the objects that a leader makes by itself.
    fn first(&mut self) {
        let cluster = self.view.cluster.clone().expect("a swarm");
        let id = self.id("ingress");
        self.write(first_ingress(&self.view, &cluster, id));
        self.addresses.begin_step();
        let changes = node_addresses(&self.view, &mut self.addresses);
        self.write(changes);
    }

    fn id(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{:04}", self.made)
    }

    fn write(&mut self, changes: Vec<Change>) -> Vec<Written> {
        self.now = self.now + Duration::from_secs(1);
        let index = self.view.index + 1;
        let written = self.view.apply(index, &Command { at: self.now, changes }).expect("no address is given twice");
        self.addresses.see(&written, self.now);
        written
    }

    fn network(&mut self, name: &str, more: Value) -> String {
        let mut body = json!({"Name": name, "Driver": "overlay"});
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        let request: NetworkRequest = serde_json::from_value(body).expect("a request");
        let id = self.id("net");
        match control::create_network(&self.view, &request, id.clone()) {
            Ok(changes) => {
                self.write(changes);
                let made = &self.view.networks[&*id];
                let shown = |it: &IpamConfig| format!("{} {}", it.subnet, it.gateway);
                format!("{} {}", made.vni, made.subnets().iter().map(shown).collect::<Vec<_>>().join(" "))
            }
            Err(denial) => format!("{} {denial}", denial.status()),
        }
    }

    fn declare(&mut self, name: &str, more: Value) -> String {
        let mut body = json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "i"}}});
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        if let Some(networks) = body.as_object_mut().expect("an object").shift_remove("Networks") {
            body["TaskTemplate"]["Networks"] = networks;
        }
        let spec: ServiceSpec = serde_json::from_value(body).expect("a service");
        let declared = Declared { spec, ..Declared::default() };
        let known = self.view.named(herder_model::swarm::Kind::Service, name).map(str::to_owned);
        let changes = match known.and_then(|id| self.view.services.get(&*id).cloned()) {
            Some(known) => {
                let version = known.service.meta.version.index;
                let update = ServiceUpdate { version, declared, ..ServiceUpdate::default() };
                control::update_service(&self.view, name, &update, self.now)
            }
            None => {
                let id = self.id("svc");
                control::create_service(&self.view, &declared, id, self.now)
            }
        };
        match changes {
            Ok(changes) => {
                self.write(changes);
                let service = control::lookup::service(&self.view, name).expect("it was made");
                let endpoint = &service.service.endpoint;
                let vips = endpoint.virtual_ips.iter().map(|it| it.addr.clone());
                let ports = endpoint.ports.iter().map(|it| it.published_port.to_string());
                vips.chain(ports).collect::<Vec<_>>().join(" ")
            }
            Err(denial) => format!("{} {denial}", denial.status()),
        }
    }

    /// Runs one step of the leader for all services. `lost` steps are not written.
    fn step(&mut self, lost: bool) {
        self.addresses.begin_step();
        let mut made = self.made;
        let mut proposal = crate::swarm::Proposal::new(&self.view, self.now);
        for id in self.view.services.keys().map(ToString::to_string).collect::<Vec<_>>() {
            let service = proposal.view().services[&*id].clone();
            if let Some(record) = self.addresses.complete(proposal.view(), &service) {
                proposal.add(vec![record.into()]).expect("fits");
            }
            let mut new_id = || {
                made += 1;
                format!("task{made:05}")
            };
            let plan = reconcile(proposal.view(), &id, self.now, &mut new_id);
            let service = proposal.view().services[&*id].clone();
            let view = proposal.view().clone();
            let changes = self.addresses.give(&view, &service, plan.changes);
            proposal.add(changes).expect("no address is given twice");
        }
        self.made = made;
        if !lost {
            self.write(proposal.into_changes());
        }
    }

    fn set(&mut self, task: &str, state: TaskState, node: &str) {
        let Some(record) = self.view.tasks.get(task) else { return };
        let mut record = TaskRecord::clone(record);
        if record.task.status.state >= state || record.task.status.state == TaskState::New {
            return;
        }
        record.task.status.state = state;
        record.applied_at = self.now;
        node.clone_into(&mut record.task.node_id);
        self.write(vec![record.into()]);
    }

    /// Another manager leads, whose program has just started.
    fn change_leader(&mut self) {
        self.addresses = Addresses::default();
        self.addresses.recall(&self.view, self.now);
    }

    fn tasks(&self) -> Vec<String> {
        let shown = |it: &Arc<TaskRecord>| {
            let at: Vec<String> = it.networks.iter().filter_map(|it| it.v4).map(|it| it.to_string()).collect();
            format!("{:?} {}{}", it.task.status.state, at.join(","), it.task.status.err)
        };
        self.view.tasks.values().map(shown).collect()
    }

    /// Everything that must never be, looked for without the indices that prevent it.
    fn check(&self) {
        let mut owners: BTreeMap<(String, Ipv4Addr), String> = BTreeMap::new();
        let mut claim = |network: &str, address: Ipv4Addr, owner: &str| {
            let before = owners.insert((network.to_owned(), address), owner.to_owned());
            assert!(before.is_none(), "{address} of {network} is {owner}'s and {before:?}'s");
            let network = &self.view.networks[network];
            let subnet = subnet_of(network).expect("a subnet");
            assert!((subnet.first..=subnet.last).contains(&address) && address != subnet.gateway, "{address}");
        };
        for task in self.view.tasks.values().filter(|it| it.task.status.state <= TaskState::Running) {
            for network in &task.networks {
                network.v4.iter().for_each(|it| claim(&network.network_id, *it, &task.task.id));
            }
        }
        let mut ports = BTreeSet::new();
        for service in self.view.services.values().map(|it| &it.service) {
            for vip in &service.endpoint.virtual_ips {
                vip.address().into_iter().for_each(|it| claim(&vip.network_id, it, &service.id));
            }
            for port in service.endpoint.ports.iter().filter(|it| it.is_ingress() && it.published_port != 0) {
                assert!(ports.insert((port.protocol.clone(), port.published_port)), "{port:?}");
            }
        }
        for node in self.view.nodes.values() {
            node.addresses.iter().for_each(|(network, it)| claim(network, *it, &node.node.id));
        }
        let mut vnis = BTreeSet::new();
        let mut nets: Vec<IpNet> = Vec::new();
        for network in self.view.networks.values().filter(|it| it.is_overlay()) {
            assert!(vnis.insert(network.vni), "{}", network.vni);
            for net in network.subnets().iter().filter_map(|it| it.subnet.parse::<IpNet>().ok()) {
                assert!(nets.iter().all(|it| !it.contains(&net) && !net.contains(it)), "{net}");
                nets.push(net);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Network(u8),
    RemoveNetwork(u8),
    /// Name, replicas, network, mode, port (0: dynamic).
    Service(u8, u8, u8, bool, Option<u8>),
    RemoveService(u8),
    Step(bool),
    State(u8, bool),
    Leader,
}

fn event() -> impl Strategy<Value = Event> {
    let service = (0..3_u8, 0..9_u8, 0..3_u8, any::<bool>(), proptest::option::of(0..3_u8));
    prop_oneof![
        2 => (0..3_u8).prop_map(Event::Network),
        1 => (0..3_u8).prop_map(Event::RemoveNetwork),
        4 => service.prop_map(|(name, replicas, network, vip, port)| Event::Service(name, replicas, network, vip, port)),
        1 => (0..3_u8).prop_map(Event::RemoveService),
        6 => proptest::bool::weighted(0.2).prop_map(Event::Step),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(task, ends)| Event::State(task, ends)),
        1 => Just(Event::Leader),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_two_live_objects_share_anything(events in proptest::collection::vec(event(), 1..60)) {
        let mut swarm = Swarm::new(2);
        for event in events {
            match event {
                Event::Network(name) => drop(swarm.network(&format!("ov{name}"), json!({}))),
                Event::RemoveNetwork(name) => {
                    if let Ok(changes) = control::remove_network(&swarm.view, &format!("ov{name}")) {
                        swarm.write(changes);
                    }
                }
                Event::Service(name, replicas, network, vip, port) => {
                    let mut ports = Vec::new();
                    ports.extend(port.filter(|_| vip).map(|it| json!({"TargetPort": 80, "PublishedPort": if it == 0 { 0 } else { 30_000 + u32::from(it) }})));
                    swarm.declare(&format!("s{name}"), json!({
                        "Mode": {"Replicated": {"Replicas": replicas}}, "Networks": [{"Target": format!("ov{network}")}],
                        "EndpointSpec": {"Mode": if vip { "vip" } else { "dnsrr" }, "Ports": ports},
                    }));
                }
                Event::RemoveService(name) => {
                    if let Ok(changes) = control::remove_service(&swarm.view, &format!("s{name}")) {
                        swarm.write(changes);
                    }
                }
                Event::Step(lost) => swarm.step(lost),
                Event::State(task, ends) => {
                    let ids: Vec<String> = swarm.view.tasks.keys().map(ToString::to_string).collect();
                    if !ids.is_empty() {
                        let id = &ids[usize::from(task) % ids.len()];
                        swarm.set(id, if ends { TaskState::Failed } else { TaskState::Running }, "n0");
                    }
                }
                Event::Leader => {
                    swarm.change_leader();
                    swarm.view = View::of(swarm.view.index, swarm.view.objects());
                }
            }
            let settled = control::settle_networks(&swarm.view);
            swarm.write(settled);
            swarm.check();
        }
    }
}

#[test]
fn subnets_are_cut_from_the_pools_around_what_is_there() {
    let mut swarm = Swarm::new(1);
    assert_eq!(swarm.network("a", json!({})), "4097 10.0.16.0/28 10.0.16.1");
    assert_eq!(swarm.network("A", json!({})), "409 network with name A already exists");
    let own = json!({"IPAM": {"Config": [{"Subnet": "10.0.16.16/28", "Gateway": "10.0.16.30"}]}});
    assert_eq!(swarm.network("b", own), "4098 10.0.16.16/28 10.0.16.30");
    let overlapping = json!({"IPAM": {"Config": [{"Subnet": "10.0.16.0/24"}]}});
    assert_eq!(
        swarm.network("c", overlapping),
        "403 Pool overlaps with other one on this address space: 10.0.16.0/24 is asked for, and network a has 10.0.16.0/28"
    );
    let mut node = NodeRecord::clone(&swarm.view.nodes["n0"]);
    let routes = vec!["0.0.0.0/0".to_owned(), "10.0.16.32/28".to_owned()];
    node.node.description.underlay = Underlay { routes, ..Underlay::default() };
    swarm.write(vec![node.into()]);
    assert_eq!(swarm.network("c", json!({})), "4099 10.0.16.48/28 10.0.16.49");
    let on_route = |options: Value| json!({"Options": options, "IPAM": {"Config": [{"Subnet": "10.0.16.32/28"}]}});
    assert_eq!(
        swarm.network("d", on_route(json!({}))),
        "403 Pool overlaps with other one on this address space: 10.0.16.32/28 is asked for, and node host0 has a route to \
         10.0.16.32/28"
    );
    assert_eq!(swarm.network("d", on_route(json!({"herder.overlap": "allow"}))), "4100 10.0.16.32/28 10.0.16.33");
    let vni = |vni: &str| json!({"Options": {"com.docker.network.driver.overlay.vxlanid_list": vni}});
    assert_eq!(swarm.network("e", vni("5000")), "5000 10.0.16.64/28 10.0.16.65");
    assert_eq!(swarm.network("f", vni("5000")), "403 VXLAN network identifier 5000 is in use by network e");
}

#[test]
fn what_cannot_be_a_network_is_refused_in_the_words_of_swarm_mode() {
    let mut swarm = Swarm::new(1);
    let mut check = |name: &str, more: Value, expected: &str| assert_eq!(swarm.network(name, more), expected, "{name}");
    check("bridge", json!({}), "403 operation is not permitted on predefined bridge network ");
    check("", json!({}), "400 invalid name: name is empty");
    check("n", json!({"Scope": "local"}), "403 cannot downgrade network scope for overlay networks");
    check("n", json!({"Driver": "bridge", "Ingress": true}), "403 Ingress network can only be global scope network");
    check("n", json!({"EnableIPv4": false}), "400 IPv4 cannot be disabled in a Swarm scoped network");
    check(
        "n",
        json!({"Ingress": true, "Attachable": true}),
        "400 rpc error: code = InvalidArgument desc = ingress network cannot be attachable",
    );
    check("a.b", json!({}), "400 rpc error: code = InvalidArgument desc = name must be valid as a DNS name component");
    check(
        "n",
        json!({"Driver": "weave", "Scope": "swarm"}),
        "400 rpc error: code = InvalidArgument desc = error during lookup of plugin weave",
    );
    check(
        "n",
        json!({"Labels": {"com.docker.swarm.predefined": ""}}),
        "403 rpc error: code = PermissionDenied desc = label com.docker.swarm.predefined is for internally created \
         predefined networks and cannot be applied by users",
    );
    check(
        "n",
        json!({"Ingress": true}),
        "409 rpc error: code = AlreadyExists desc = ingress network (ingress0001) is already present",
    );
    check(
        "n",
        json!({"IPAM": {"Config": [{"Subnet": "10.9.0.5/24", "IPRange": "10.8.0.0/28", "Gateway": "10.7.0.1"}]}}),
        "400 invalid network config:\n* invalid subnet 10.9.0.5/24: it should be 10.9.0.0/24\n* invalid ip-range 10.8.0.0/28: \
         parent subnet 10.9.0.5/24 doesn't contain ip-range\n* invalid gateway 10.7.0.1: parent subnet 10.9.0.5/24 doesn't \
         contain this address",
    );
}

#[test]
fn encrypted_networks_need_a_tunnel_on_every_node_that_is_up() {
    let mut swarm = Swarm::new(2);
    let set = |swarm: &mut Swarm, node: &str, has_tunnel: bool, state: SwarmNodeState| {
        let mut node = NodeRecord::clone(&swarm.view.nodes[node]);
        node.node.description.underlay.tunnel = has_tunnel.then(TunnelEnd::default);
        node.node.description.underlay.mtu = 1500;
        node.node.status.state = state;
        swarm.write(vec![node.into()]);
    };
    let encrypted = || json!({"Options": {"encrypted": ""}});
    set(&mut swarm, "n0", true, SwarmNodeState::Ready);
    let refused = swarm.network("a", encrypted());
    assert!(refused.starts_with("400 ") && refused.contains("on these nodes: host1."), "{refused}");
    set(&mut swarm, "n1", false, SwarmNodeState::Down);
    assert_eq!(swarm.network("a", encrypted()), "4097 10.0.16.0/28 10.0.16.1");
    assert_eq!(swarm.network("b", json!({"Options": {"encrypted": "false"}})), "4098 10.0.16.16/28 10.0.16.17");
    let state = |swarm: &Swarm, name: &str| {
        let id = swarm.view.named(herder_model::swarm::Kind::Network, name).expect("a network").to_owned();
        let whole = crate::swarm::nets::Nets::of(&swarm.view).whole(&id).expect("it is known");
        match whole.body {
            herder_model::swarm::NetBody::Whole(state) => (state.facts.encrypted, state.facts.mtu),
            herder_model::swarm::NetBody::Changes(_) => (false, 0),
        }
    };
    assert_eq!((state(&swarm, "a"), state(&swarm, "b")), ((true, 1390), (false, 1450)));
    // A swarm that was begun so.
    let mut cluster = ClusterRecord::clone(swarm.view.cluster.as_ref().expect("a swarm"));
    cluster.encrypts_networks = true;
    swarm.write(vec![cluster.into()]);
    assert_eq!(swarm.network("c", json!({})), "4099 10.0.16.32/28 10.0.16.33");
    assert!(state(&swarm, "c").0);
}

#[test]
fn services_and_their_tasks_get_addresses_and_ports_that_stay() {
    let mut swarm = Swarm::new(1);
    swarm.network("ov", json!({}));
    let web = |replicas: u32, port: u32| {
        json!({"Mode": {"Replicated": {"Replicas": replicas}}, "Networks": [{"Target": "ov", "Aliases": ["w"]}],
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": port}]}})
    };
    assert_eq!(swarm.declare("web", web(2, 0)), "10.0.0.3/20 10.0.16.2/28 30000");
    assert_eq!(swarm.declare("api", web(1, 0)), "10.0.0.4/20 10.0.16.3/28 30001");
    assert_eq!(
        swarm.declare("db", web(1, 30000)),
        "400 rpc error: code = InvalidArgument desc = port '30000' is already in use by service 'web' (svc0003) as an \
         ingress port"
    );
    swarm.step(false);
    let first = ["Pending 10.0.0.5,10.0.16.4", "Pending 10.0.0.6,10.0.16.5", "Pending 10.0.0.7,10.0.16.6"];
    let mut tasks = swarm.tasks();
    tasks.sort();
    assert_eq!(tasks, first);
    // More replicas: what is there stays.
    assert_eq!(swarm.declare("web", web(3, 0)), "10.0.0.3/20 10.0.16.2/28 30000");
    swarm.step(false);
    assert_eq!(swarm.view.tasks.len(), 4);
    assert_eq!(swarm.declare("web", json!({"EndpointSpec": {"Mode": "dnsrr"}})), "");
}

#[test]
fn a_slot_has_the_address_that_its_service_fixes() {
    let mut swarm = Swarm::new(1);
    swarm.network("ov", json!({"IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]}}));
    let web = |replicas: u32, range: &str| {
        json!({"Mode": {"Replicated": {"Replicas": replicas}}, "EndpointSpec": {"Mode": "dnsrr"},
            "Networks": [{"Target": "ov", "DriverOpts": {"herder.ip": range}}]})
    };
    let refused = "400 rpc error: code = InvalidArgument desc = invalid herder.ip";
    for (range, expected) in [
        ("10.9.0.50-x", " \"10.9.0.50-x\" of network ov: expected an address, or a range such as 10.0.1.50-59"),
        ("10.9.0.50-49", " \"10.9.0.50-49\" of network ov: expected an address, or a range such as 10.0.1.50-59"),
        ("10.9.0.250-10.9.1.3", " \"10.9.0.250-10.9.1.3\" of network ov: the network has 10.9.0.1 to 10.9.0.254"),
    ] {
        assert_eq!(swarm.declare("web", web(1, range)), format!("{refused}{expected}"));
    }
    assert_eq!(swarm.declare("web", web(3, "10.9.0.50-51")), "");
    swarm.step(false);
    let mut tasks = swarm.tasks();
    tasks.sort();
    assert!(tasks[0].starts_with("New herder.ip=10.9.0.50-51 of network ov has no address for slot 3; "), "{tasks:?}");
    assert_eq!(tasks[1..], ["Pending 10.9.0.50", "Pending 10.9.0.51"]);
    // The task that follows one that ended gets its address at once.
    let second = swarm.view.tasks.values().find(|it| it.task.slot == 2).expect("the second slot").task.id.clone();
    swarm.set(&second, TaskState::Running, "n0");
    swarm.set(&second, TaskState::Failed, "n0");
    swarm.step(false);
    let at = |it: &&Arc<TaskRecord>| it.task.slot == 2 && it.task.id != second;
    let next = swarm.view.tasks.values().find(at).expect("another task");
    assert_eq!(next.networks[0].v4, "10.9.0.51".parse().ok());
}

#[test]
fn an_address_of_an_ended_task_rests_also_where_the_leader_changes() {
    let mut swarm = Swarm::new(1);
    swarm.network("ov", json!({}));
    swarm.declare("web", json!({"Networks": [{"Target": "ov"}], "EndpointSpec": {"Mode": "dnsrr"}}));
    let mut given = Vec::new();
    for _ in 0..3 {
        swarm.step(false);
        let lives = |it: &&Arc<TaskRecord>| it.task.status.state <= TaskState::Running;
        let task = swarm.view.tasks.values().find(lives).expect("a task that follows").clone();
        given.push(task.networks[0].v4.expect("an address").to_string());
        swarm.set(&task.task.id, TaskState::Running, "n0");
        swarm.set(&task.task.id, TaskState::Failed, "n0");
        swarm.change_leader();
        // More than a restart delay.
        swarm.now = swarm.now + Duration::from_secs(6);
    }
    assert_eq!(given, ["10.0.16.2", "10.0.16.3", "10.0.16.4"]);
    // Later, it is the first that is free after the highest that is held.
    swarm.now = swarm.now + REST;
    swarm.change_leader();
    swarm.step(false);
    assert!(swarm.tasks().contains(&"Pending 10.0.16.2".to_owned()), "{:?}", swarm.tasks());
}

/// moby#38575.
#[test]
fn a_service_that_changes_to_dnsrr_has_its_virtual_ip_until_it_is_updated() {
    let mut swarm = Swarm::new(1);
    swarm.network("ov", json!({}));
    let web = |mode: &str| json!({"Networks": [{"Target": "ov"}], "EndpointSpec": {"Mode": mode}});
    assert_eq!(swarm.declare("web", web("vip")), "10.0.16.2/28");
    swarm.step(false);
    let first = swarm.view.tasks.values().next().expect("a task").task.id.clone();
    swarm.set(&first, TaskState::Running, "n0");
    assert_eq!(swarm.declare("web", web("dnsrr")), "10.0.16.2/28", "its task is one of before");
    swarm.step(false);
    let vips = |swarm: &Swarm| {
        let service = control::lookup::service(&swarm.view, "web").expect("a service");
        service.service.endpoint.virtual_ips.len()
    };
    assert_eq!(vips(&swarm), 1);
    swarm.set(&first, TaskState::Shutdown, "n0");
    swarm.step(false);
    assert_eq!(vips(&swarm), 0);
    swarm.check();
}

#[test]
fn tasks_without_an_address_wait_and_say_why() {
    let mut swarm = Swarm::new(1);
    let small = json!({"IPAM": {"Config": [{"Subnet": "10.9.0.0/29"}]}});
    swarm.network("ov", small);
    // Six addresses: the gateway, the virtual IP and four tasks.
    let replicas = |number: u32| json!({"Mode": {"Replicated": {"Replicas": number}}, "Networks": [{"Target": "ov"}]});
    swarm.declare("web", replicas(5));
    swarm.step(false);
    let why = "no address is left in network ov (10.9.0.0/29: 6 of 6 in use); scale services down, or move them to a network \
               with a larger subnet (docker network create -d overlay --subnet …)";
    let mut tasks = swarm.tasks();
    tasks.sort();
    assert_eq!(tasks[0], format!("New {why}"));
    assert_eq!(tasks.iter().filter(|it| it.starts_with("Pending")).count(), 4);
    let running = swarm.view.tasks.values().find(|it| it.task.status.state == TaskState::Pending);
    let running = running.expect("one that has an address").task.id.clone();
    swarm.set(&running, TaskState::Running, "n0");
    swarm.set(&running, TaskState::Failed, "n0");
    swarm.step(false);
    assert!(swarm.tasks().iter().any(|it| it.starts_with("Pending")), "{:?}", swarm.tasks());
    let waiting = swarm.view.tasks.values().filter(|it| it.task.status.state == TaskState::New);
    // The task that follows the failed one takes its place in the queue.
    assert_eq!(waiting.count(), 1);
    assert!(matches!(swarm.view.get(herder_model::swarm::Kind::Task, &running), Some(Object::Task(_))));
}
