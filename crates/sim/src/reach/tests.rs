//! Each fault of a node is named by the check of what it reaches.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::kernel::tests::{kernel, states, view, write};

/// Faults of node `n1`, and what is said of each. `without ITEM`: its kernel lacks items that begin so. `knows NETWORK KIND ID VALUE`: its state
/// of a network has this entry; `null`: it lacks it.
const FAULTS: &[(&str, &str)] = &[
    ("", ""),
    // A task's address is missing behind the virtual IP, or all are.
    ("without element ip vslots 10.0.2.2 . 1", "behind 10.0.2.2 is Some({10.0.2.11}), not {10.0.2.11, 10.0.2.12}"),
    ("without element ip vips", "behind 10.0.2.2 is Some({}), not {10.0.2.11, 10.0.2.12}"),
    ("without element ip pslots tcp . 8080 . 0", "port 8080 leads to {(10.0.1.12, 80)}, not"),
    ("without element ip ports", "port 8080 leads to {}, not"),
    // The way to a container.
    ("without element ip hairpin \"hv2\" . 10.0.2.11", "packets to 10.0.2.11 go to None and not to Here"),
    ("without neighbour 10.0.2.12", "packets to 10.0.2.12 go to None and not to Node(192.168.0.2)"),
    ("without fdb 02:42:0a:00:02:0c dev hx2 master", "packets to 10.0.2.12 go to None"),
    ("without vxlan hx2", "packets to 10.0.2.12 go to None"),
    (r#"knows ov nodes n2 {"vtep": "192.168.0.9", "up": true}"#, "packets to 10.0.2.12 go to Some(Node(192.168.0.9))"),
    (r#"knows ov endpoints t2 {"node": "n1", "v4": "10.0.2.12"}"#, "packets to 10.0.2.12 go to Some(Here)"),
    // A task that runs is not known, or not balanced to.
    ("knows ov endpoints t2 null", "packets to 10.0.2.12 go to None"),
    ("knows in endpoints t2 null", "packets to 10.0.1.12 go to None"),
    (
        r#"knows ov endpoints t2 {"node": "n2", "v4": "10.0.2.12", "service": "s"}"#,
        "name tasks.web is Some({10.0.2.11}), not {10.0.2.11, 10.0.2.12}",
    ),
    (
        r#"knows in endpoints t2 {"node": "n2", "v4": "10.0.1.12", "service": "s"}"#,
        "port 8080 leads to {(10.0.1.11, 80)}, not",
    ),
    // A task that has ended is still there.
    (
        r#"knows ov endpoints t9 {"node": "n2", "v4": "10.0.2.19", "service": "s", "serving": true}"#,
        "name tasks.web is Some({10.0.2.11, 10.0.2.12, 10.0.2.19}), not {10.0.2.11, 10.0.2.12}",
    ),
    (
        r#"knows in endpoints t9 {"node": "n1", "v4": "10.0.1.19", "service": "s", "serving": true}"#,
        "port 8080 leads to {(10.0.1.11, 80), (10.0.1.12, 80), (10.0.1.19, 80)}, not",
    ),
    // Two containers have one address.
    (
        r#"knows ov endpoints t9 {"node": "n2", "v4": "10.0.2.11"}"#,
        "packets to 10.0.2.11 go to Some(Both) and not to Here",
    ),
    // A service that was removed is still there.
    (r#"knows ov services old {"name": "old", "mode": "vip", "vip4": "10.0.2.9"}"#, "name old of ov still resolves"),
    (r#"knows ov services old {"name": "old", "mode": "dnsrr"}"#, "name old of ov still resolves"),
    (
        r#"knows in ports 9000/tcp {"protocol": "tcp", "published": 9000, "target": 80, "service": "s"}"#,
        "port 9000 leads to {(10.0.1.11, 80), (10.0.1.12, 80)}, and no service publishes it",
    ),
    // A service has another address.
    (
        r#"knows ov services s {"name": "web", "mode": "vip", "vip4": "10.0.2.9"}"#,
        "name web is Some({10.0.2.9}), not {10.0.2.2}",
    ),
    (r#"knows ov services s {"name": "wob", "mode": "vip", "vip4": "10.0.2.2"}"#, "name web is None, not {10.0.2.2}"),
];

fn said(fault: &str) -> String {
    let view = view();
    let mut states = states(&view, "n1");
    if let Some(what) = fault.strip_prefix("knows ") {
        let words: Vec<&str> = what.splitn(4, ' ').collect();
        let [network, kind, id, value] = words[..] else { panic!("{fault}") };
        let state = states.get_mut(network).unwrap();
        let mut json = serde_json::to_value(&**state).unwrap();
        let entries = json[kind].as_object_mut().unwrap();
        match serde_json::from_str(value).unwrap() {
            Value::Null => _ = entries.remove(id).unwrap(),
            value => _ = entries.insert(id.to_owned(), value),
        }
        *state = Arc::new(serde_json::from_value(json).unwrap());
    }
    let (kernel, _) = kernel("n1", states);
    assert_eq!(kernel.differs(), None, "the kernel is as its states want it");
    if let Some(item) = fault.strip_prefix("without ") {
        kernel.lose(item);
    }
    of_node(&view, "n1", &kernel).unwrap_or_default()
}

#[test]
fn each_fault_is_named() {
    for (fault, wanted) in FAULTS {
        let said = said(fault);
        assert!(said.starts_with(wanted) && said.is_empty() == wanted.is_empty(), "{fault}: {said:?}");
    }
}

#[test]
fn devices_of_a_network_that_is_gone_are_named() {
    let kernel = kernel("n1", states(&view(), "n1")).0;
    let mut view = view();
    for id in ["t1", "t2"] {
        let mut ended = herder_model::swarm::TaskRecord::clone(&view.tasks[id]);
        ended.task.status.state = TaskState::Shutdown;
        write(&mut view, ended);
    }
    let said = of_node(&view, "n1", &kernel).unwrap_or_default();
    assert_eq!(said, "it has devices of networks {1, 2}, and is on {1}");
}
