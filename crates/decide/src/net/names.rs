//! Index of all names of a node's networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herder_model::swarm::{BalanceMode, NetEndpoint, NetService, NetState};
use imbl::HashMap;

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
    pub(super) names: HashMap<String, Named>,
    pub(super) pointers: HashMap<IpAddr, String>,
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
    pub(super) askers: Arc<BTreeMap<String, BTreeMap<IpAddr, Asker>>>,
    /// Endpoints of this node: (id, network).
    own: Arc<BTreeSet<(String, String)>>,
}

impl Names {
    pub fn of(states: &States, host: &Host) -> Names {
        let users = || states.iter().filter(|(_, state)| !state.facts.ingress);
        let zones = users().map(|(id, state)| (id.clone(), Zone::of(state, host))).collect();
        let own = users().flat_map(|(network, state)| {
            let own = state.endpoints.iter().filter(|(_, it)| it.node == host.node);
            own.map(|(id, _)| (id.clone(), network.clone()))
        });
        let own: BTreeSet<(String, String)> = own.collect();
        Names { zones, askers: Arc::new(askers(states, &own)), own: Arc::new(own) }
    }

    /// Makes the names of the next version of states, at the cost of what differs.
    #[must_use]
    pub fn advance(&self, before: (&States, &Host), after: (&States, &Host)) -> Names {
        let Some(scopes) = differences(before, after) else { return Names::of(after.0, after.1) };
        let mut next = self.clone();
        let mut own_changes = false;
        for (network, mut scope) in scopes {
            let (Some(old), Some(new)) = (before.0.get(&network), after.0.get(&network)) else { continue };
            let Some(zone) = next.zones.get_mut(&network) else { continue };
            for id in &scope.endpoints {
                let is_own = |state: &NetState| state.endpoints.get(id).is_some_and(|it| it.node == after.1.node);
                let key = (id.clone(), network.clone());
                match (is_own(old), is_own(new)) {
                    (false, false) => continue,
                    (_, true) => _ = Arc::make_mut(&mut next.own).insert(key),
                    (true, false) => _ = Arc::make_mut(&mut next.own).remove(&key),
                }
                own_changes = true;
            }
            // Names of a service are those of its tasks as well.
            let members = scope.services.iter().flat_map(|it| zone.members.service(it)).cloned();
            scope.endpoints.extend(members.collect::<Vec<_>>());
            zone.put(old, before.1, Some(&scope), false);
            zone.members.follow(&scope, old, new);
            let members = scope.services.iter().flat_map(|it| zone.members.service(it)).cloned();
            scope.endpoints.extend(members.collect::<Vec<_>>());
            zone.put(new, after.1, Some(&scope), true);
        }
        if own_changes {
            next.askers = Arc::new(askers(after.0, &next.own));
        }
        next
    }
}

/// Containers of this node that may ask.
fn askers(states: &States, own: &BTreeSet<(String, String)>) -> BTreeMap<String, BTreeMap<IpAddr, Asker>> {
    let mut by_endpoint: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for (endpoint, id) in own {
        if let Some(state) = states.get(id) {
            by_endpoint.entry(endpoint).or_default().push((&state.facts.name, id));
        }
    }
    let mut askers: BTreeMap<String, BTreeMap<IpAddr, Asker>> = BTreeMap::new();
    for (key, id) in own {
        let Some(endpoint) = states.get(id).and_then(|state| state.endpoints.get(key)) else { continue };
        let mut networks = by_endpoint.get(key.as_str()).cloned().unwrap_or_default();
        networks.sort_unstable();
        let asker = Asker {
            is_internal: networks.iter().all(|(_, id)| states.get(*id).is_some_and(|it| it.facts.internal)),
            networks: networks.into_iter().map(|(_, id)| id.to_owned()).collect(),
            dns: endpoint.dns.clone(),
        };
        let own = [Some(endpoint.v4.into()), endpoint.v6.map(IpAddr::V6)].into_iter().flatten();
        let of_network = askers.entry(id.clone()).or_default();
        for address in own.chain(endpoint.others.iter().map(|it| IpAddr::V4(*it))) {
            of_network.insert(address, asker.clone());
        }
    }
    askers
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
            let name = format!("{name}.{}", state.facts.name);
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
            let named = self.names.entry(name).or_default();
            named.owners += 1;
            for address in addresses {
                *named.addresses.entry(*address).or_default() += 1;
            }
            return;
        }
        let Some(named) = self.names.get_mut(&name) else { return };
        named.owners = named.owners.saturating_sub(1);
        for address in addresses {
            if let Some(count) = named.addresses.get_mut(address) {
                *count = count.saturating_sub(1);
            }
        }
        named.addresses.retain(|_, count| *count > 0);
        if named.owners == 0 {
            self.names.remove(&name);
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
