//! Ports that are published on every node, for services that do not say which.

use std::collections::BTreeSet;

use herder_model::swarm::{PortConfig, View};

/// Dynamic ports are given from this range (swarmkit `dynamicPortStart`, `dynamicPortEnd`).
const FIRST: u16 = 30_000;
const LAST: u16 = 32_767;

/// The ports of a service, with those filled in that it leaves to the swarm. What it had for the same name, protocol and
/// target stays. A port for which none is left stays 0.
pub(super) fn complete(view: &View, service: &str, said: &[PortConfig], had: &[PortConfig]) -> Vec<PortConfig> {
    let mut ports = said.to_vec();
    let mut taken: Option<BTreeSet<(String, u16)>> = None;
    for at in 0..ports.len() {
        let port = ports[at].clone();
        if port.published_port != 0 || !port.is_ingress() {
            continue;
        }
        let same = |it: &&PortConfig| {
            (&it.name, it.protocol_name(), it.target_port) == (&port.name, port.protocol_name(), port.target_port)
                && it.is_ingress()
                && !ports.iter().any(|other| other.published_port == it.published_port && other.protocol == it.protocol)
        };
        let kept = had.iter().filter(|it| it.published_port != 0).find(same).map(|it| it.published_port);
        let taken = taken.get_or_insert_with(|| taken_ports(view, service, said));
        let number = kept.filter(|it| !taken.contains(&(port.protocol_name().to_owned(), *it)));
        let number = number.or_else(|| next(taken, port.protocol_name())).unwrap_or_default();
        taken.insert((port.protocol_name().to_owned(), number));
        ports[at].published_port = number;
    }
    ports
}

/// The one after the highest that is taken, else the first free one.
fn next(taken: &BTreeSet<(String, u16)>, protocol: &str) -> Option<u16> {
    let dynamic = |it: &&(String, u16)| it.0 == protocol && (FIRST..=LAST).contains(&it.1);
    let after = taken.iter().filter(dynamic).map(|it| it.1 + 1).max().unwrap_or(FIRST);
    (after..=LAST).chain(FIRST..after.min(LAST)).find(|it| !taken.contains(&(protocol.to_owned(), *it)))
}

/// Ports of other services, and those that this one names itself.
fn taken_ports(view: &View, service: &str, said: &[PortConfig]) -> BTreeSet<(String, u16)> {
    let others = view.services.values().filter(|it| it.service.id != service);
    let others = others.flat_map(|it| super::service::published(it));
    let all = others.chain(said).filter(|it| it.published_port != 0);
    all.map(|it| (it.protocol_name().to_owned(), it.published_port)).collect()
}
