//! Faults of a kernel that is brought to a state, and a small swarm for the tests of other checks.

use std::collections::BTreeSet;

use herder_decide::swarm::nets::Nets;
use herder_model::swarm::{
    Change, Command, IpamConfig, IpamOptions, NetBody, NetworkAttachmentConfig, NetworkRecord, NodeRecord, PortConfig,
    ServiceRecord, SwarmNodeState, Task, TaskNetwork, TaskRecord, TaskState, Time, View, VirtualIp,
};

use super::*;

use crate::nodes::data_path;
use crate::stores::rng;

/// A user network and ingress on two nodes. Service `web` has a task on each, and publishes port 8080.
pub(crate) fn view() -> View {
    let mut view = View::default();
    for (id, vni) in [("in", 1), ("ov", 2)] {
        let (subnet, gateway) = (format!("10.0.{vni}.0/24"), format!("10.0.{vni}.1"));
        let configs = vec![IpamConfig { subnet, gateway, ..IpamConfig::default() }];
        let mut record = NetworkRecord { id: id.into(), name: id.into(), vni, ..NetworkRecord::default() };
        (record.spec.name, record.spec.ingress) = (id.into(), id == "in");
        record.ipam_options = Some(IpamOptions { configs, ..IpamOptions::default() });
        write(&mut view, record);
    }
    for n in 1..3 {
        let mut record = NodeRecord::default();
        (record.node.id, record.node.status.state) = (format!("n{n}"), SwarmNodeState::Ready);
        record.node.status.addr = data_path(&record.node.id).to_string();
        record.addresses.insert("in".into(), Ipv4Addr::new(10, 0, 1, 200 + n));
        write(&mut view, record);
    }
    let mut service = ServiceRecord::default();
    service.service.id = "s".into();
    service.service.spec.name = "web".into();
    let network = NetworkAttachmentConfig { target: "ov".into(), ..NetworkAttachmentConfig::default() };
    service.service.spec.task_template.networks.push(network);
    let port = PortConfig { target_port: 80, published_port: 8080, ..PortConfig::default() };
    service.service.endpoint.ports.push(port);
    service.service.endpoint.virtual_ips = [("in", 1), ("ov", 2)]
        .map(|(network, vni)| VirtualIp {
            network_id: network.into(),
            addr: format!("10.0.{vni}.2/24"),
            ..VirtualIp::default()
        })
        .into();
    write(&mut view, service);
    write(&mut view, new_task("t1", "n1", 11));
    write(&mut view, new_task("t2", "n2", 12));
    view
}

/// A task of `web` that runs.
pub(crate) fn new_task(id: &str, node: &str, address: u8) -> TaskRecord {
    let task = Task { id: id.into(), node_id: node.into(), service_id: "s".into(), ..Task::default() };
    let mut record = TaskRecord { task, service_name: "web".into(), ..TaskRecord::default() };
    (record.task.status.state, record.task.desired_state) = (TaskState::Running, TaskState::Running);
    let place = |(network, vni): (&str, u8)| TaskNetwork {
        network_id: network.into(),
        v4: Some([10, 0, vni, address].into()),
        ..TaskNetwork::default()
    };
    record.networks = [("in", 1), ("ov", 2)].map(place).into();
    record
}

pub(crate) fn write(view: &mut View, change: impl Into<Change>) {
    let mut change = change.into();
    if let Change::Put(object) = &mut change {
        let version = view.get(object.kind(), object.id()).map_or(0, |it| it.meta().version.index);
        object.rebase(version);
    }
    let command = Command { at: Time(view.index), changes: vec![change] };
    view.apply(view.index + 1, &command).expect("it fits");
}

/// States of the networks of a node.
pub(crate) fn states(view: &View, node: &str) -> States {
    let nets = Nets::of(view);
    let whole = |id: &str| match nets.whole(id)?.body {
        NetBody::Whole(state) => Some((id.to_owned(), Arc::new(*state))),
        NetBody::Changes(_) => None,
    };
    nets.of_node(view, node).into_iter().filter_map(whole).collect()
}

/// The kernel of a node that has these states, with the trace that it fails.
pub(crate) fn kernel(node: &str, states: States) -> (Kernel, Trace) {
    let trace = Trace::begin(false);
    let kernel = Kernel::new(node, rng(1, 1), trace.clone());
    let next = done(node, states);
    assert!(kernel.load(&mut Table::default(), None, &next));
    kernel.name(&next);
    (kernel, trace)
}

fn done(node: &str, states: States) -> Done {
    (states, Host { node: node.to_owned(), underlay_mtu: MTU, dns_port: DNS_PORT, ..Host::default() })
}

impl Kernel {
    /// Removes items whose text begins like this, unseen.
    pub(crate) fn lose(&self, text: &str) {
        let mut tables = self.0.tables.lock();
        let before = tables.items.len();
        tables.items.retain(|item, _| !item.to_string().starts_with(text));
        assert!(tables.items.len() < before, "no item begins with {text:?}");
    }

    /// Brings the names to these states, and nothing else.
    pub(crate) fn name_only(&self, states: States) {
        self.name(&done(&self.0.host, states));
    }
}

#[test]
fn a_kernel_is_as_its_states_want_it() {
    let (kernel, trace) = kernel("n1", states(&view(), "n1"));
    assert_eq!(kernel.differs(), None);
    assert_eq!(trace.failures(), Vec::<String>::new());
    assert_eq!(kernel.networks(), BTreeSet::from([1, 2]));
}

#[test]
fn each_item_that_is_missing_is_named() {
    let all: Vec<String> = {
        let (kernel, _) = kernel("n1", states(&view(), "n1"));
        let tables = kernel.0.tables.lock();
        tables.items.keys().map(ToString::to_string).collect()
    };
    assert!(all.len() > 40, "{all:?}");
    for item in all {
        let (kernel, _) = kernel("n1", states(&view(), "n1"));
        kernel.lose(&item);
        let said = kernel.differs().unwrap_or_default();
        assert!(said.starts_with("its kernel lacks"), "without {item}: {said:?}");
    }
}

#[test]
fn an_item_too_many_is_named() {
    let (kernel, _) = kernel("n1", states(&view(), "n1"));
    let stale = element(Set::VipAddrs, vec![Field::V4([10, 0, 2, 99].into())]);
    kernel.0.tables.lock().items.insert(stale, Value::Set);
    assert!(kernel.differs().is_some_and(|it| it.contains("10.0.2.99")));
}

#[test]
fn names_that_do_not_follow_are_named() {
    let (kernel, _) = kernel("n1", states(&view(), "n1"));
    kernel.0.tables.lock().names = Names::default();
    assert_eq!(kernel.differs().as_deref(), Some("its names are not those of its networks"));
}

/// A step that a kernel refuses is a fault, unless somebody has removed what it is about.
#[test]
fn a_step_that_is_refused_fails_the_play() {
    for is_disturbed in [false, true] {
        let (kernel, trace) = kernel("n1", states(&view(), "n1"));
        kernel.lose("element ip vslots 10.0.2.2 . 1");
        kernel.0.tables.lock().is_disturbed = is_disturbed;
        let mut view = view();
        let mut ended = TaskRecord::clone(&view.tasks["t2"]);
        ended.task.status.state = TaskState::Shutdown;
        write(&mut view, ended);
        let before = kernel.0.tables.lock().named.clone();
        let next = done("n1", states(&view, "n1"));
        let mut table = table(&before.0, &before.1);
        assert!(!kernel.load(&mut table, Some(&before), &next));
        let failed = "n1: the kernel refuses a step: element ip vslots 10.0.2.2 . 1 is not there";
        let failed: &[&str] = if is_disturbed { &[] } else { &[failed] };
        assert_eq!(trace.failures(), failed);
    }
}
