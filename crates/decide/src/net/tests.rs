//! Tables and answers, as text.

mod dns;
mod kernel;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Host, States};

/// Two nodes, a user network `ov` with service `web` (VIP, two tasks) and `db` (dnsrr), and ingress with port 8080.
pub(super) fn states() -> States {
    let ov = serde_json::json!({
        "facts": {"name": "ov", "vni": 4097, "subnets": [{"subnet": "10.0.1.0/24", "gateway": "10.0.1.1"}]},
        "nodes": {"n1": {"vtep": "192.168.0.1", "up": true}, "n2": {"vtep": "192.168.0.2", "up": true}},
        "endpoints": {
            "t1": {"node": "n1", "v4": "10.0.1.3", "names": ["web.1.t1", "h1"], "service": "web", "serving": true},
            "t2": {"node": "n2", "v4": "10.0.1.4", "names": ["web.2.t2"], "service": "web", "serving": true},
            "t3": {"node": "n1", "v4": "10.0.1.5", "names": ["db.1.t3"], "service": "db", "serving": true},
            "c1": {"node": "n2", "v4": "10.0.1.6", "names": ["tool", "cache"], "serving": true}
        },
        "services": {
            "web": {"name": "web", "aliases": ["www"], "mode": "vip", "vip4": "10.0.1.2"},
            "db": {"name": "Db", "mode": "dnsrr"},
            "idle": {"name": "idle", "mode": "vip", "vip4": "10.0.1.9"}
        }
    });
    let ingress = serde_json::json!({
        "facts": {"name": "ingress", "vni": 4096, "ingress": true,
            "subnets": [{"subnet": "10.255.0.0/20", "gateway": "10.255.0.1"}]},
        "nodes": {
            "n1": {"vtep": "192.168.0.1", "ingress": "10.255.0.2", "up": true},
            "n2": {"vtep": "192.168.0.2", "ingress": "10.255.0.3", "up": true}
        },
        "endpoints": {
            "t1": {"node": "n1", "v4": "10.255.0.5", "service": "web", "serving": true},
            "t2": {"node": "n2", "v4": "10.255.0.6", "service": "web", "serving": true}
        },
        "services": {"web": {"name": "web", "mode": "vip", "vip4": "10.255.0.4", "reached": [["tcp", 81]]}},
        "ports": {
            "8080/tcp": {"protocol": "tcp", "published": 8080, "target": 80, "service": "web"},
            "9000/udp": {"protocol": "udp", "published": 9000, "target": 9000, "service": "idle"}
        }
    });
    let all = [("ov", ov), ("in", ingress)];
    all.map(|(id, state)| (id.to_owned(), Arc::new(serde_json::from_value(state).unwrap()))).into()
}

pub(super) fn host(node: &str) -> Host {
    Host {
        node: node.into(),
        underlay_mtu: 1500,
        dns_port: 5399,
        suspects: BTreeSet::new(),
        ended: BTreeSet::new(),
        taken: BTreeSet::new(),
    }
}
