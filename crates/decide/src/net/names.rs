//! Index of all names of a node's networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herder_model::swarm::{BalanceMode, NetEndpoint, NetService, NetState};
use imbl::{HashMap, OrdSet};

use super::backends::serves;
use super::scope::{Members, Scope, differences};
use super::{Host, States};

/// Seconds for which an answer about tasks may be cached. They come and go with every update.
pub(super) const TTL_TASK: u32 = 5;
/// Seconds for which a virtual IP may be cached. It stays as long as its service.
pub(super) const TTL_VIP: u32 = 30;

/// Addresses of a name on one network, each with its lifetime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// Services and endpoints that have this name. With the last one it is no name any more.
    owners: usize,
    /// Number of names for each address.
    addresses: BTreeMap<(IpAddr, u32), usize>,
}

impl Named {
    pub(super) fn addresses(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        self.addresses.keys().copied()
    }
}

/// Names of one network. All texts are in lower case.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Zone {
    /// Name of the network, as a suffix of names.
    pub(super) suffix: String,
    pub(super) names: HashMap<Arc<str>, Arc<Named>>,
    pub(super) pointers: HashMap<IpAddr, Arc<str>>,
    pub(super) contains: Vec<ipnet::IpNet>,
    members: Members,
}

/// A container that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asker {
    /// Ids of its networks, by name of the network; without ingress, which holds no names.
    pub(super) networks: Vec<String>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) is_internal: bool,
}

/// Names of all networks of a node. A change makes a new version, which shares with the old one what is the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    pub(super) zones: BTreeMap<String, Zone>,
    /// Endpoints of this node, by network and address.
    pub(super) askers: BTreeMap<String, HashMap<IpAddr, Asker>>,
    /// Endpoints of this node: (id, network).
    own: OrdSet<(String, String)>,
}

impl Names {
    pub fn of(states: &States, host: &Host) -> Names {
        let users = || states.iter().filter(|(_, state)| !state.facts.ingress);
        let zones = users().map(|(id, state)| (id.clone(), Zone::of(state, host))).collect();
        let own = users().flat_map(|(network, state)| {
            let own = state.endpoints.iter().filter(|(_, it)| it.node == host.node);
            own.map(|(id, _)| (id.clone(), network.clone()))
        });
        let mut names = Names { zones, own: own.collect(), ..Names::default() };
        let own: BTreeSet<String> = names.own.iter().map(|(id, _)| id.clone()).collect();
        own.iter().for_each(|id| names.add_askers(states, id));
        names
    }

    /// Makes the names of the next version of states, at the cost of what differs.
    #[must_use]
    pub fn advance(&self, before: (&States, &Host), after: (&States, &Host)) -> Names {
        let Some(scopes) = differences(before, after) else { return Names::of(after.0, after.1) };
        let mut next = self.clone();
        next.follow_own(&scopes, before.0, after);
        for (network, mut scope) in scopes {
            let (Some(old), Some(new)) = (before.0.get(&network), after.0.get(&network)) else { continue };
            let Some(zone) = next.zones.get_mut(&network) else { continue };
            // Names of a service that changes are those of its tasks as well; those of one that does not stay.
            scope.services.retain(|id| old.services.get(id) != new.services.get(id));
            let members = scope.services.iter().flat_map(|it| zone.members.service(it)).cloned();
            scope.endpoints.extend(members.collect::<Vec<_>>());
            zone.put(old, before.1, Some(&scope), false);
            zone.members.follow(&scope, old, new);
            let members = scope.services.iter().flat_map(|it| zone.members.service(it)).cloned();
            scope.endpoints.extend(members.collect::<Vec<_>>());
            zone.put(new, after.1, Some(&scope), true);
        }
        next
    }

    /// Follows a change of endpoints of this node. One that changes on one network changes who it is on its others.
    fn follow_own(&mut self, scopes: &BTreeMap<String, Scope>, before: &States, (after, host): (&States, &Host)) {
        let is_own = |states: &States, network: &String, id: &String| {
            let endpoint = states.get(network).and_then(|state| state.endpoints.get(id));
            endpoint.is_some_and(|it| it.node == host.node)
        };
        let users = scopes.iter().filter(|(network, _)| self.zones.contains_key(*network));
        let all =
            users.flat_map(|(network, scope)| scope.endpoints.iter().map(move |id| (id.clone(), network.clone())));
        let mine = all.filter(|(id, network)| is_own(before, network, id) || is_own(after, network, id));
        let mine: BTreeSet<(String, String)> = mine.collect();
        for (id, _) in &mine {
            self.remove_askers(before, id);
        }
        for (id, network) in &mine {
            if is_own(after, network, id) {
                self.own.insert((id.clone(), network.clone()));
            } else {
                self.own.remove(&(id.clone(), network.clone()));
            }
        }
        for (id, _) in &mine {
            self.add_askers(after, id);
        }
    }

    /// Networks of an endpoint of this node, in the order of their names.
    fn networks_of(&self, states: &States, endpoint: &str) -> Vec<String> {
        let own = self.own.range((endpoint.to_owned(), String::new())..).take_while(|(id, _)| id == endpoint);
        let named = own.filter_map(|(_, network)| Some((&states.get(network)?.facts.name, network)));
        let mut networks: Vec<(&String, &String)> = named.collect();
        networks.sort_unstable();
        networks.into_iter().map(|(_, network)| network.clone()).collect()
    }

    /// Lets an endpoint of this node ask.
    fn add_askers(&mut self, states: &States, endpoint: &str) {
        let networks = self.networks_of(states, endpoint);
        let is_internal = networks.iter().all(|id| states.get(id).is_some_and(|it| it.facts.internal));
        for network in &networks {
            let Some(it) = states.get(network).and_then(|state| state.endpoints.get(endpoint)) else { continue };
            let asker = Asker { networks: networks.clone(), dns: it.dns.clone(), is_internal };
            let of_network = self.askers.entry(network.clone()).or_default();
            of_network.extend(addresses(it).map(|address| (address, asker.clone())));
        }
    }

    fn remove_askers(&mut self, states: &States, endpoint: &str) {
        for network in self.networks_of(states, endpoint) {
            let Some(of_network) = self.askers.get_mut(&network) else { continue };
            let endpoint = states.get(&network).and_then(|state| state.endpoints.get(endpoint));
            for address in endpoint.into_iter().flat_map(addresses) {
                of_network.remove(&address);
            }
            if of_network.is_empty() {
                self.askers.remove(&network);
            }
        }
    }
}

/// Addresses that an endpoint asks by.
fn addresses(endpoint: &NetEndpoint) -> impl Iterator<Item = IpAddr> {
    let own = [Some(endpoint.v4.into()), endpoint.v6.map(IpAddr::V6)].into_iter().flatten();
    own.chain(endpoint.others.iter().map(|it| IpAddr::V4(*it)))
}

impl Zone {
    fn of(state: &NetState, host: &Host) -> Zone {
        let mut zone = Zone {
            suffix: state.facts.name.to_lowercase(),
            contains: state.facts.subnets.iter().map(|it| it.subnet).collect(),
            members: Members::of(state),
            ..Zone::default()
        };
        zone.put(state, host, None, true);
        zone
    }

    /// Adds the names of these endpoints and services, or removes them. `scope`: none for all.
    fn put(&mut self, state: &NetState, host: &Host, scope: Option<&Scope>, adds: bool) {
        match scope {
            None => {
                state.services.values().for_each(|it| self.put_service(it, adds));
                state.endpoints.iter().for_each(|(id, it)| self.put_endpoint(state, host, (id, it), adds));
            }
            Some(scope) => {
                let services = scope.services.iter().filter_map(|id| state.services.get(id));
                services.for_each(|it| self.put_service(it, adds));
                let endpoints = scope.endpoints.iter().filter_map(|id| state.endpoints.get_key_value(id));
                endpoints.for_each(|it| self.put_endpoint(state, host, it, adds));
            }
        }
    }

    /// A service's name exists as long as the service, with or without tasks.
    fn put_service(&mut self, service: &NetService, adds: bool) {
        let vips = [service.vip4.map(IpAddr::V4), service.vip6.map(IpAddr::V6)];
        let vips = vips.into_iter().flatten().filter(|_| service.mode == BalanceMode::Vip);
        let vips: Vec<(IpAddr, u32)> = vips.map(|vip| (vip, TTL_VIP)).collect();
        for name in service.names() {
            self.put_name(name, &vips, adds);
            self.put_name(&format!("tasks.{name}"), &[], adds);
        }
    }

    fn put_endpoint(&mut self, state: &NetState, host: &Host, (id, endpoint): (&String, &NetEndpoint), adds: bool) {
        if !serves(state, host, id, endpoint) {
            return;
        }
        let own = [Some(endpoint.v4.into()), endpoint.v6.map(IpAddr::V6)];
        let own: Vec<(IpAddr, u32)> = own.into_iter().flatten().map(|address| (address, TTL_TASK)).collect();
        for name in &endpoint.names {
            self.put_name(name, &own, adds);
        }
        if let Some(name) = endpoint.names.first() {
            let name: Arc<str> = format!("{name}.{}", state.facts.name).into();
            for (address, _) in &own {
                if adds {
                    self.pointers.insert(*address, name.clone());
                } else if self.pointers.get(address) == Some(&name) {
                    self.pointers.remove(address);
                }
            }
        }
        let service = endpoint.service.as_ref().and_then(|id| state.services.get(id));
        for (service, name) in service.into_iter().flat_map(|service| service.names().map(move |it| (service, it))) {
            self.put_name(&format!("tasks.{name}"), &own, adds);
            if service.mode == BalanceMode::Dnsrr {
                self.put_name(name, &own, adds);
            }
        }
    }

    fn put_name(&mut self, name: &str, addresses: &[(IpAddr, u32)], adds: bool) {
        let name = name.to_lowercase();
        if adds {
            let named = Arc::make_mut(self.names.entry(name.into()).or_default());
            named.owners += 1;
            for address in addresses {
                *named.addresses.entry(*address).or_default() += 1;
            }
            return;
        }
        let Some(named) = self.names.get_mut(name.as_str()).map(Arc::make_mut) else { return };
        named.owners = named.owners.saturating_sub(1);
        for address in addresses {
            if let Some(count) = named.addresses.get_mut(address) {
                *count = count.saturating_sub(1);
            }
        }
        named.addresses.retain(|_, count| *count > 0);
        if named.owners == 0 {
            self.names.remove(name.as_str());
        }
    }
}

trait ServiceNames {
    fn names(&self) -> impl Iterator<Item = &str>;
}

impl ServiceNames for NetService {
    fn names(&self) -> impl Iterator<Item = &str> {
        [self.name.as_str()].into_iter().chain(self.aliases.iter().map(String::as_str)).filter(|name| !name.is_empty())
    }
}
