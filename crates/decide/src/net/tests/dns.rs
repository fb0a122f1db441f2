//! Names of every kind.

use std::net::IpAddr;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::super::{Answer, Host, Names, Question, RecordData, RecordType};
use super::{host, states};

fn ask(names: &Names, source: &str, kind: RecordType, name: &str) -> String {
    let question = Question { name: name.into(), kind };
    let source: IpAddr = source.parse().unwrap();
    match names.answer("ov", source, &question, &mut SmallRng::seed_from_u64(1)) {
        Answer::Records(records) => {
            let mut all: Vec<String> = records
                .into_iter()
                .map(|record| match record.data {
                    RecordData::Address(address) => format!("{address}/{}", record.ttl),
                    RecordData::Name(name) => format!("{name}/{}", record.ttl),
                })
                .collect();
            all.sort();
            if all.is_empty() { "empty".into() } else { all.join(" ") }
        }
        Answer::NoSuchName => "nxdomain".into(),
        Answer::Forward { servers } => format!("forward {servers:?}"),
        Answer::Unreachable => "unreachable".into(),
        Answer::Refused => "refused".into(),
    }
}

#[test]
fn every_name_has_its_answer() {
    let names = Names::of(&states(), &host("n1"));
    let cases = [
        (RecordType::A, "web", "10.0.1.2/30"),
        (RecordType::A, "WEB", "10.0.1.2/30"),
        (RecordType::A, "www", "10.0.1.2/30"),
        (RecordType::A, "tasks.web", "10.0.1.3/5 10.0.1.4/5"),
        (RecordType::A, "tasks.www", "10.0.1.3/5 10.0.1.4/5"),
        (RecordType::A, "db", "10.0.1.5/5"),
        (RecordType::A, "idle", "10.0.1.9/30"),
        (RecordType::A, "tasks.idle", "empty"),
        (RecordType::A, "web.2.t2", "10.0.1.4/5"),
        (RecordType::A, "h1", "10.0.1.3/5"),
        (RecordType::A, "cache", "10.0.1.6/5"),
        (RecordType::A, "web.ov", "10.0.1.2/30"),
        (RecordType::A, "tool.OV", "10.0.1.6/5"),
        (RecordType::A, "web.other", "forward []"),
        (RecordType::A, "example.org", "forward []"),
        (RecordType::Aaaa, "web", "empty"),
        (RecordType::Mx, "web", "empty"),
        (RecordType::Other, "web", "forward []"),
        (RecordType::Ptr, "4.1.0.10.in-addr.arpa", "web.2.t2.ov/5"),
        (RecordType::Ptr, "2.1.0.10.in-addr.arpa", "nxdomain"),
        (RecordType::Ptr, "8.8.8.8.in-addr.arpa", "forward []"),
        (RecordType::Ptr, "x.in-addr.arpa", "forward []"),
    ];
    for (kind, name, answer) in cases {
        assert_eq!(ask(&names, "10.0.1.3", kind, name), answer, "{kind:?} {name}");
    }
    // No container, or one of another node.
    for stranger in ["10.0.1.77", "10.0.1.4"] {
        assert_eq!(ask(&names, stranger, RecordType::A, "web"), "refused");
    }
}

/// moby#38575, moby#44009.
#[test]
fn names_follow_services_that_change() {
    let check = |change: fn(&mut herder_model::swarm::NetState), expected: &str| {
        let mut states = states();
        change(std::sync::Arc::make_mut(states.get_mut("ov").unwrap()));
        let names = Names::of(&states, &host("n1"));
        let said = ["web", "tasks.web", "www", "tasks.www"].map(|name| ask(&names, "10.0.1.3", RecordType::A, name));
        assert_eq!(said.join(", "), expected);
    };
    let tasks = "10.0.1.3/5 10.0.1.4/5";
    // It still has its virtual IP for those that resolved it before.
    let to_dnsrr = |ov: &mut herder_model::swarm::NetState| {
        ov.services.get_mut("web").unwrap().mode = herder_model::swarm::BalanceMode::Dnsrr;
    };
    check(to_dnsrr, &[tasks; 4].join(", "));
    // An alias of two services has both virtual IPs; moved to the other one, it has that one's.
    check(
        |ov| ov.services.get_mut("idle").unwrap().aliases.push("www".into()),
        &format!("10.0.1.2/30, {tasks}, 10.0.1.2/30 10.0.1.9/30, {tasks}"),
    );
    let moved = |ov: &mut herder_model::swarm::NetState| {
        ov.services.get_mut("web").unwrap().aliases.clear();
        ov.services.get_mut("idle").unwrap().aliases.push("www".into());
    };
    check(moved, &format!("10.0.1.2/30, {tasks}, 10.0.1.9/30, empty"));
}

#[test]
fn only_what_is_in_service_has_a_name() {
    let mut states = states();
    let ov = std::sync::Arc::make_mut(states.get_mut("ov").unwrap());
    ov.facts.internal = true;
    ov.nodes.get_mut("n2").unwrap().up = false;
    let ended = ["t3".to_owned()].into();
    let names = Names::of(&states, &Host { ended, ..host("n1") });
    let cases = [
        ("web", "10.0.1.2/30"),
        ("tasks.web", "10.0.1.3/5"),
        ("db", "empty"),
        ("tool", "unreachable"),
        ("example.org", "unreachable"),
    ];
    for (name, answer) in cases {
        assert_eq!(ask(&names, "10.0.1.3", RecordType::A, name), answer, "{name}");
    }
}
