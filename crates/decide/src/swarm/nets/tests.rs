//! Changes sent to nodes lead to the same state as a new leader's whole state, whatever is written.

use std::sync::Arc;

use herder_model::swarm::{
    Change, Command, EndpointSpec, IpamConfig, IpamOptions, Kind, NetworkAttachmentConfig, PortConfig, ServiceSpec,
    Task, TaskNetwork, TaskSpec, Time, VirtualIp,
};
use proptest::prelude::*;

use super::*;

fn network(id: &str, vni: u32, ingress: bool) -> NetworkRecord {
    let configs = vec![IpamConfig {
        subnet: format!("10.0.{vni}.0/24"),
        gateway: format!("10.0.{vni}.1"),
        ..IpamConfig::default()
    }];
    let mut record = NetworkRecord { id: id.into(), name: id.into(), vni, ..NetworkRecord::default() };
    record.spec.name = id.into();
    record.spec.ingress = ingress;
    record.ipam_options = Some(IpamOptions { configs, ..IpamOptions::default() });
    record
}

fn node_record(id: usize, state: SwarmNodeState) -> NodeRecord {
    let mut record = NodeRecord::default();
    record.node.id = format!("n{id}");
    record.node.status.state = state;
    record.node.status.addr = format!("192.168.0.{id}");
    record
}

const STATES: [TaskState; 4] = [TaskState::Pending, TaskState::Assigned, TaskState::Running, TaskState::Failed];

fn task(id: usize, node: usize, state: usize, ends: bool) -> TaskRecord {
    let task = Task {
        id: format!("t{id}"),
        node_id: format!("n{node}"),
        service_id: format!("s{}", id % 2),
        slot: 1,
        spec: Arc::new(TaskSpec::default()),
        desired_state: if ends { TaskState::Shutdown } else { TaskState::Running },
        ..Task::default()
    };
    let mut record = TaskRecord { task, service_name: "s".into(), ..TaskRecord::default() };
    record.task.status.state = STATES[state];
    let last = u8::try_from(id + 10).unwrap();
    let place = |network: &str, vni: u8| TaskNetwork {
        network_id: network.into(),
        v4: Some([10, 0, vni, last].into()),
        ..TaskNetwork::default()
    };
    record.networks = vec![place("in", 1), place("ov", 2)];
    record
}

fn service_record(id: usize, port: u16, aliases: u8) -> ServiceRecord {
    let mut record = ServiceRecord::default();
    record.service.id = format!("s{id}");
    let networks = vec![NetworkAttachmentConfig {
        target: "ov".into(),
        aliases: (0..aliases).map(|it| format!("a{it}")).collect(),
        ..NetworkAttachmentConfig::default()
    }];
    let ports = vec![PortConfig { target_port: 80, published_port: port, ..PortConfig::default() }];
    record.service.spec = ServiceSpec {
        name: format!("s{id}"),
        task_template: TaskSpec { networks, ..TaskSpec::default() },
        endpoint_spec: Some(EndpointSpec { ports: ports.clone(), ..EndpointSpec::default() }),
        ..ServiceSpec::default()
    };
    record.service.endpoint.ports = ports;
    let vip = |network: &str, vni: u8| VirtualIp {
        network_id: network.into(),
        addr: format!("10.0.{vni}.{}/24", id + 2),
        ..VirtualIp::default()
    };
    record.service.endpoint.virtual_ips = vec![vip("in", 1), vip("ov", 2)];
    record
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0..4_usize, 0..3_usize, 0..4_usize, any::<bool>()).prop_map(|(id, node, state, ends)| task(id, node, state, ends).into()),
        1 => (0..4_usize).prop_map(|id| Change::Remove(Kind::Task, format!("t{id}"))),
        2 => (0..2_usize, 0..3_u16, 0..3_u8).prop_map(|(id, port, aliases)| {
            // No two services publish one port.
            service_record(id, 80 + if id == 0 { port } else { 10 + port }, aliases).into()
        }),
        1 => (0..2_usize).prop_map(|id| Change::Remove(Kind::Service, format!("s{id}"))),
        2 => (0..3_usize, any::<bool>()).prop_map(|(id, up)| {
            node_record(id, if up { SwarmNodeState::Ready } else { SwarmNodeState::Down }).into()
        }),
        1 => Just(network("ov", 2, false).into()),
        1 => Just(Change::Remove(Kind::Network, "ov".into())),
    ]
}

fn write(view: &mut View, change: Change) -> Vec<Written> {
    let mut change = change;
    if let Change::Put(object) = &mut change {
        let version = view.get(object.kind(), object.id()).map_or(0, |it| it.meta().version.index);
        object.rebase(version);
    }
    view.apply(view.index + 1, &Command { at: Time(view.index), changes: vec![change] }).unwrap_or_default()
}

proptest! {
    #[test]
    fn changes_lead_to_what_is_told_whole(changes in proptest::collection::vec((change(), any::<bool>()), 1..50)) {
        let mut view = View::default();
        write(&mut view, network("in", 1, true).into());
        let mut nets = Nets::of(&view);
        let mut known: BTreeMap<String, (u64, NetState)> = BTreeMap::new();
        for (change, told) in changes {
            let written = write(&mut view, change);
            nets.see(&view, &written);
            if !told {
                continue;
            }
            for (id, update) in nets.advance(&view) {
                let NetBody::Changes(changes) = update.body else { panic!("changes") };
                let (version, state) = known.entry(id).or_default();
                if *version == update.applies_to {
                    state.apply(&changes);
                    *version = update.results_in;
                } else {
                    known.clear();
                }
            }
            let anew = Nets::of(&view);
            let ids: Vec<&String> = anew.logs.keys().collect();
            prop_assert_eq!(nets.logs.keys().collect::<Vec<_>>(), ids);
            for (id, log) in &nets.logs {
                prop_assert_eq!(&log.state, &anew.logs[id].state, "{}", id);
                if let Some((version, state)) = known.get(id) {
                    prop_assert_eq!(*version, log.version);
                    prop_assert_eq!(state, &log.state);
                } else {
                    known.insert(id.clone(), (log.version, log.state.clone()));
                }
            }
            for node in ["n0", "n1", "n2"] {
                prop_assert_eq!(nets.of_node(&view, node), anew.of_node(&view, node));
            }
            known.retain(|id, _| nets.logs.contains_key(id));
        }
    }
}

#[test]
fn what_left_has_settled_when_all_live_nodes_have_applied_it() {
    let mut view = View::default();
    let objects: Vec<Change> = vec![
        network("in", 1, true).into(),
        network("ov", 2, false).into(),
        node_record(0, SwarmNodeState::Ready).into(),
        node_record(1, SwarmNodeState::Ready).into(),
        service_record(0, 80, 0).into(),
        task(0, 0, 2, false).into(),
        task(2, 1, 2, false).into(),
    ];
    for object in objects {
        write(&mut view, object);
    }
    let mut nets = Nets::of(&view);
    let written = write(&mut view, task(0, 0, 2, true).into());
    nets.see(&view, &written);
    let updates = nets.advance(&view);
    assert_eq!(updates.keys().collect::<Vec<_>>(), ["in", "ov"]);
    let version = updates["ov"].results_in;
    assert!(nets.settle(|_| true).is_empty());
    nets.applied("n0", "ov", version);
    assert!(nets.settle(|_| true).is_empty());
    nets.applied("n1", "ov", version);
    let settled = nets.settle(|_| true);
    let shown: Vec<(&str, u64, u64)> =
        settled.iter().map(|it| (it.network_id.as_str(), it.applies_to, it.settled)).collect();
    assert_eq!(shown, [("ov", version, version)]);
    // Nobody waits for a node that nobody hears.
    nets.applied("n0", "in", updates["in"].results_in);
    assert_eq!(nets.settle(|node| node == "n0").len(), 1);
    assert!(nets.settle(|_| true).is_empty());
}

#[test]
fn a_network_that_went_and_came_between_two_updates_begins_anew() {
    let mut view = View::default();
    write(&mut view, network("ov", 2, false).into());
    let mut nets = Nets::of(&view);
    for change in
        [Change::Remove(Kind::Network, "ov".into()), service_record(0, 80, 0).into(), network("ov", 2, false).into()]
    {
        let written = write(&mut view, change);
        nets.see(&view, &written);
    }
    assert_eq!(nets.advance(&view)["ov"].applies_to, 0);
    assert_eq!(nets.logs["ov"].state, Nets::of(&view).logs["ov"].state);
}
