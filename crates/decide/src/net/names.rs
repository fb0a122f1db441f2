//! Index of all names of a node's networks.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use herder_model::swarm::{BalanceMode, NetState};

use super::backends::serving;
use super::{Host, States};

/// Seconds for which an answer about tasks may be cached. They come and go with every update.
pub(super) const TTL_TASK: u32 = 5;
/// Seconds for which a virtual IP may be cached. It stays as long as its service.
pub(super) const TTL_VIP: u32 = 30;

/// Addresses of a name on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) addresses: Vec<(IpAddr, u32)>,
}

/// Names of one network. All texts are in lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct Zone {
    /// Name of the network, as a suffix of names.
    pub(super) suffix: String,
    pub(super) names: HashMap<String, Named>,
    pub(super) pointers: HashMap<IpAddr, String>,
    pub(super) contains: Vec<ipnet::IpNet>,
}

/// A container that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asker {
    /// Ids of its networks, by name of the network; without ingress, which holds no names.
    pub(super) networks: Vec<String>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) is_internal: bool,
}

/// Names of all networks of a node. Made anew when a state changes, and shared by all queries.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub(super) zones: BTreeMap<String, Zone>,
    /// Endpoints of this node, by network and address.
    pub(super) askers: HashMap<(String, IpAddr), Asker>,
}

impl Names {
    pub fn of(states: &States, host: &Host) -> Names {
        let users = || states.iter().filter(|(_, state)| !state.facts.ingress);
        let zones = users().map(|(id, state)| (id.clone(), Zone::of(state, host))).collect();
        let mut by_endpoint: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
        for (id, state) in users() {
            for endpoint in state.endpoints.iter().filter(|(_, it)| it.node == host.node).map(|(key, _)| key) {
                by_endpoint.entry(endpoint).or_default().push((&state.facts.name, id));
            }
        }
        let mut askers = HashMap::new();
        for (id, state) in users() {
            for (key, endpoint) in state.endpoints.iter().filter(|(_, it)| it.node == host.node) {
                let mut networks = by_endpoint.get(key.as_str()).cloned().unwrap_or_default();
                networks.sort_unstable();
                let asker = Asker {
                    is_internal: networks.iter().all(|(_, id)| states.get(*id).is_some_and(|it| it.facts.internal)),
                    networks: networks.into_iter().map(|(_, id)| id.to_owned()).collect(),
                    dns: endpoint.dns.clone(),
                };
                let own = [Some(endpoint.v4.into()), endpoint.v6.map(IpAddr::V6)].into_iter().flatten();
                for address in own.chain(endpoint.others.iter().map(|it| IpAddr::V4(*it))) {
                    askers.insert((id.clone(), address), asker.clone());
                }
            }
        }
        Names { zones, askers }
    }
}

impl Zone {
    fn of(state: &NetState, host: &Host) -> Zone {
        let mut zone = Zone {
            suffix: state.facts.name.to_lowercase(),
            contains: state.facts.subnets.iter().map(|it| it.subnet).collect(),
            ..Zone::default()
        };
        // A service's name exists as long as the service, with or without tasks.
        for service in state.services.values() {
            let vips = [service.vip4.map(IpAddr::V4), service.vip6.map(IpAddr::V6)];
            let vips = vips.into_iter().flatten().filter(|_| service.mode == BalanceMode::Vip);
            let vips: Vec<(IpAddr, u32)> = vips.map(|vip| (vip, TTL_VIP)).collect();
            for name in service.names() {
                zone.add(name, &vips);
                zone.add(&format!("tasks.{name}"), &[]);
            }
        }
        for (_, endpoint) in serving(state, host) {
            let own = [Some(endpoint.v4.into()), endpoint.v6.map(IpAddr::V6)];
            let own: Vec<(IpAddr, u32)> = own.into_iter().flatten().map(|address| (address, TTL_TASK)).collect();
            for name in &endpoint.names {
                zone.add(name, &own);
            }
            if let Some(name) = endpoint.names.first() {
                let name = format!("{name}.{}", state.facts.name);
                zone.pointers.extend(own.iter().map(|(address, _)| (*address, name.clone())));
            }
            let service = endpoint.service.as_ref().and_then(|id| state.services.get(id));
            for (service, name) in service.into_iter().flat_map(|service| service.names().map(move |it| (service, it)))
            {
                zone.add(&format!("tasks.{name}"), &own);
                if service.mode == BalanceMode::Dnsrr {
                    zone.add(name, &own);
                }
            }
        }
        zone
    }

    fn add(&mut self, name: &str, addresses: &[(IpAddr, u32)]) {
        let named = self.names.entry(name.to_lowercase()).or_default();
        for address in addresses {
            if !named.addresses.contains(address) {
                named.addresses.push(*address);
            }
        }
    }
}

trait ServiceNames {
    fn names(&self) -> impl Iterator<Item = &str>;
}

impl ServiceNames for herder_model::swarm::NetService {
    fn names(&self) -> impl Iterator<Item = &str> {
        [self.name.as_str()].into_iter().chain(self.aliases.iter().map(String::as_str)).filter(|name| !name.is_empty())
    }
}
