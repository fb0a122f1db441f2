//! Published ports that programs of nodes' hosts listen on.

use std::collections::BTreeSet;

use herder_model::swarm::{NodeRecord, PortConfig, SCTP, ServiceSpec, View};

use crate::swarm::allocate::published;
use crate::swarm::nets::{PUBLISH_ON, addresses};
use crate::swarm::{Code, Denial, Refusal};

/// Service label. `skip`: a node whose host has a program on a published port leaves the port to it.
const CONFLICT: &str = "herder.port-conflict";

/// A published port that a program of a node's host listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakenPort {
    /// Id of the node.
    pub node: String,
    /// Such as `8080/tcp`.
    pub port: String,
    /// Name and process of the program.
    pub program: String,
}

/// Ports that the service would be the first to publish on every node: `8080/tcp`. None, if the service leaves taken ports alone.
/// SCTP is left out: no program can be found on its ports.
pub fn new_ports(view: &View, spec: &ServiceSpec) -> BTreeSet<String> {
    if spec.labels.as_ref().and_then(|it| it.get(CONFLICT)).is_some_and(|it| it == "skip") {
        return BTreeSet::new();
    }
    let key = |it: &PortConfig| format!("{}/{}", it.published_port, it.protocol_name());
    let known: BTreeSet<String> =
        view.services.values().flat_map(|it| published(it)).filter(|it| it.is_ingress()).map(key).collect();
    let asked = spec.endpoint_spec.iter().flat_map(|it| &it.ports);
    let asked = asked.filter(|it| it.is_ingress() && it.published_port != 0 && it.protocol_name() != "sctp");
    asked.map(key).filter(|it| !known.contains(it)).collect()
}

/// Refuses a label that names no addresses: the ports would be open to the world.
pub(super) fn published_on(spec: &ServiceSpec) -> Result<(), Denial> {
    let Some(text) = spec.labels.as_ref().and_then(|it| it.get(PUBLISH_ON)) else { return Ok(()) };
    if addresses(text).is_some() {
        return Ok(());
    }
    let text = format!("invalid label {PUBLISH_ON}={text}: expected addresses of hosts, such as 127.0.0.1,192.168.0.5");
    Err(Refusal::new(Code::InvalidArgument, text).into())
}

/// Refuses ports of SCTP where a node cannot send them on.
pub(super) fn protocols_are_there(view: &View, spec: &ServiceSpec) -> Result<(), Denial> {
    let mut ports = spec.endpoint_spec.iter().flat_map(|it| &it.ports);
    let Some(port) = ports.find(|it| it.is_ingress() && it.protocol_name() == SCTP) else { return Ok(()) };
    let lacks = |node: &&std::sync::Arc<NodeRecord>| node.description().underlay.lacks.iter().any(|it| it == SCTP);
    let Some(node) = view.nodes.values().find(lacks) else { return Ok(()) };
    let text = format!(
        "port '{}/sctp' cannot be published on every node: the kernel of node {} does not track connections of SCTP \
         (CONFIG_NF_CT_PROTO_SCTP); publish it in mode host, or use a kernel that does",
        port.target_port,
        node.description().hostname
    );
    Err(Refusal::new(Code::FailedPrecondition, text).into())
}

/// Refuses a service whose ports programs of nodes' hosts listen on: each node would answer otherwise.
pub fn admit_ports(view: &View, taken: &[TakenPort]) -> Result<(), Denial> {
    let all: BTreeSet<&TakenPort> = taken.iter().collect();
    let Some(first) = all.first() else { return Ok(()) };
    let node = view.nodes.get(&*first.node).map_or(first.node.as_str(), |it| &it.description().hostname);
    let others = match all.len() - 1 {
        0 => String::new(),
        1 => ", and 1 more".to_owned(),
        count => format!(", and {count} more"),
    };
    let text = format!(
        "port '{}' is already in use on node {node} by {}{others}; stop it, publish another port, or label the service {CONFLICT}=skip \
         to leave the port to it there",
        first.port, first.program
    );
    Err(Refusal::new(Code::FailedPrecondition, text).into())
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Command, ServiceRecord, Time};
    use serde_json::{Value, json};

    use super::*;

    fn view() -> View {
        let mut service = ServiceRecord::default();
        service.service.id = "web".into();
        service.service.spec =
            serde_json::from_value(spec(&[(80, "tcp", "ingress"), (53, "udp", "host")])).expect("a service");
        let mut node = NodeRecord::default();
        node.node.id = "n1".into();
        node.node.description.hostname = "h1".into();
        let mut view = View::default();
        view.apply(1, &Command { at: Time(1), changes: vec![service.into(), node.into()] }).expect("fits");
        view
    }

    fn spec(ports: &[(u16, &str, &str)]) -> Value {
        let port = |(port, protocol, mode): &(u16, &str, &str)| json!({"TargetPort": 1, "PublishedPort": port, "Protocol": protocol, "PublishMode": mode});
        json!({"EndpointSpec": {"Ports": ports.iter().map(port).collect::<Vec<_>>()}})
    }

    #[test]
    fn only_ports_that_no_service_publishes_yet_are_asked_for() {
        let check = |ports: &[(u16, &str, &str)], label: &str, expected: &str| {
            let mut body = spec(ports);
            body["Labels"] = json!({"herder.port-conflict": label});
            let found = new_ports(&view(), &serde_json::from_value(body).expect("a service"));
            assert_eq!(found.into_iter().collect::<Vec<_>>().join(" "), expected);
        };
        check(&[(80, "tcp", "ingress"), (80, "udp", ""), (81, "", "")], "", "80/udp 81/tcp");
        check(&[(53, "udp", "ingress"), (0, "tcp", "ingress"), (82, "tcp", "host")], "", "53/udp");
        check(&[(9, "sctp", "ingress")], "", "");
        check(&[(81, "tcp", "ingress")], "skip", "");
    }

    #[test]
    fn ports_are_published_on_addresses_only() {
        let check = |text: &str| {
            let mut body = spec(&[(80, "tcp", "")]);
            body["Labels"] = json!({"herder.publish-on": text});
            let said = published_on(&serde_json::from_value(body).expect("a service"));
            said.map_or_else(|it| format!("{} {it}", it.status()), |()| String::new())
        };
        assert_eq!(check("127.0.0.1, ::1"), "");
        let refused = "400 rpc error: code = InvalidArgument desc = invalid label herder.publish-on";
        for text in ["eth1", "127.0.0.1,", ""] {
            assert!(check(text).starts_with(&format!("{refused}={text}: expected addresses")), "{text}");
        }
    }

    #[test]
    fn sctp_needs_kernels_that_track_it() {
        let check = |port: (u16, &str, &str), lacks: &[&str]| {
            let mut view = view();
            let mut node = NodeRecord::clone(&view.nodes["n1"]);
            node.node.description.underlay.lacks = lacks.iter().map(|it| (*it).to_owned()).collect();
            view.apply(2, &Command { at: Time(2), changes: vec![node.into()] }).expect("fits");
            let said = protocols_are_there(&view, &serde_json::from_value(spec(&[port])).expect("a service"));
            said.map_or_else(|it| format!("{} {it}", it.status()), |()| String::new())
        };
        assert_eq!(check((9, "sctp", "ingress"), &[]), "");
        assert_eq!(check((9, "sctp", "host"), &["sctp"]), "");
        assert_eq!(check((9, "udp", "ingress"), &["sctp"]), "");
        let refused = "400 rpc error: code = FailedPrecondition desc = port '1/sctp' cannot be published on every node: the kernel of \
                       node h1 does not track connections of SCTP (CONFIG_NF_CT_PROTO_SCTP); publish it in mode host, or use a \
                       kernel that does";
        assert_eq!(check((9, "sctp", "ingress"), &["nft", "sctp"]), refused);
    }

    #[test]
    fn a_refusal_names_node_and_program() {
        let taken = |node: &str, port: &str| TakenPort {
            node: node.into(),
            port: port.into(),
            program: "sshd (process 7)".into(),
        };
        let check = |taken: &[TakenPort], expected: &str| {
            let said =
                admit_ports(&view(), taken).map_or_else(|it| format!("{} {it}", it.status()), |()| String::new());
            assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{said}");
        };
        check(&[], "");
        check(
            &[taken("n1", "22/tcp")],
            "400 rpc error: code = FailedPrecondition desc = port '22/tcp' is already in use on node h1 by sshd (process 7); stop it, ",
        );
        check(
            &[taken("n2", "22/tcp"), taken("n1", "22/tcp"), taken("n3", "22/tcp")],
            "400 rpc error: code = FailedPrecondition desc = port '22/tcp' is already in use on node h1 by sshd (process 7), and 2 more; ",
        );
    }
}
