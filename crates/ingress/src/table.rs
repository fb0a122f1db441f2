//! The routes of one version, ready to be held against requests.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_decide::ingress::{Rule, Scope, Subject};
use herder_model::swarm::{self as model, Carried, IngressSettings, RouteTls};
use imbl::{HashMap, OrdMap};
use ipnet::IpNet;

use crate::balance::Service;
use crate::middleware::Compiled;
use crate::tls::Certificates;

mod maker;

pub(crate) use maker::Maker;

/// All routes of one version. A copy shares what it has with the original.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) settings: Arc<IngressSettings>,
    http: Routes,
    tcp: Ordered,
    udp: Ordered,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) challenges: OrdMap<String, String>,
}

/// Routes of HTTP: those that need a host by that host, the others beside them.
#[derive(Clone, Debug, Default)]
struct Routes {
    by_host: HashMap<Arc<str>, Ordered>,
    others: Ordered,
    /// Number of routes by entrypoint; those of all entrypoints have the empty name.
    counts: BTreeMap<String, usize>,
}

/// Routes in the order in which they are tried.
#[derive(Clone, Debug, Default)]
struct Ordered(Arc<Vec<Arc<Route>>>);

/// One route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) rule: Option<Rule>,
    pub(crate) entrypoints: BTreeSet<String>,
    pub(crate) tls: Option<RouteTls>,
    pub(crate) middlewares: Vec<Arc<Compiled>>,
    pub(crate) service: Arc<Service>,
    /// Reason why it answers only 503: something of it is of a later release.
    pub(crate) broken: Option<String>,
    /// The source of this route.
    is: model::Route,
    /// The hosts without which the rule cannot hold. None: it may hold for any host.
    hosts: Option<Vec<Arc<str>>>,
}

impl Route {
    /// Compiles a route. None, if its rule is of a later release: it matches nothing, since it cannot be known what it is for.
    fn of(name: &str, is: &model::Route, service: Arc<Service>, middlewares: Vec<Arc<Compiled>>) -> Option<Route> {
        let scope = match is.carries {
            Carried::Http => Some(Scope::Http),
            Carried::Tcp => Some(Scope::Tcp),
            Carried::Udp => None,
        };
        let Ok(rule) = scope.map(|it| Rule::parse(&is.rule, it, is.old_syntax)).transpose() else {
            tracing::warn!(route = name, rule = is.rule, "ignoring a rule that this release cannot read");
            return None;
        };
        let hosts = rule.as_ref().and_then(Rule::needed_hosts);
        Some(Route {
            name: name.to_owned(),
            entrypoints: is.entrypoints.clone(),
            tls: is.tls.clone(),
            middlewares,
            service,
            broken: None,
            is: is.clone(),
            hosts: hosts.map(|it| it.into_iter().map(Arc::from).collect()),
            rule,
        })
    }

    /// Returns whether compiling would make the same route again.
    fn is_same(&self, is: &model::Route, service: &Arc<Service>, middlewares: &[Arc<Compiled>]) -> bool {
        Arc::ptr_eq(&self.service, service)
            && self.middlewares.len() == middlewares.len()
            && self.middlewares.iter().zip(middlewares).all(|(a, b)| Arc::ptr_eq(a, b))
            && self.is == *is
    }

    fn is_of(&self, entrypoint: &str) -> bool {
        self.entrypoints.is_empty() || self.entrypoints.contains(entrypoint)
    }

    /// Its place among others: the lesser one is tried first.
    fn order(&self) -> (Reverse<i64>, &str) {
        (Reverse(self.is.priority), &self.name)
    }
}

impl Table {
    /// Finds the route of a request.
    pub(crate) fn find(&self, entrypoint: &str, tls: bool, subject: &dyn Subject) -> Option<&Arc<Route>> {
        let fits = |route: &&Arc<Route>| {
            route.tls.is_some() == tls
                && route.is_of(entrypoint)
                && route.rule.as_ref().is_some_and(|it| it.holds(subject))
        };
        let of_host = self.http.by_host.get(subject.host()).and_then(|it| it.0.iter().find(fits));
        let before = |it: &&Arc<Route>| of_host.is_none_or(|of_host| it.order() < of_host.order());
        self.http.others.0.iter().take_while(before).find(fits).or(of_host)
    }

    /// Finds the TCP route of a connection.
    pub(crate) fn find_tcp(&self, entrypoint: &str, tls: bool, subject: &dyn Subject) -> Option<&Arc<Route>> {
        self.tcp.0.iter().find(|route| {
            route.tls.is_some() == tls
                && route.is_of(entrypoint)
                && route.rule.as_ref().is_some_and(|it| it.holds(subject))
        })
    }

    pub(crate) fn find_udp(&self, entrypoint: &str) -> Option<&Arc<Route>> {
        self.udp.0.iter().find(|route| route.is_of(entrypoint))
    }

    /// Returns whether a connection may be passed on before its first byte: no other route can take it.
    pub(crate) fn is_plain_tcp(&self, entrypoint: &str) -> bool {
        let tcp = |tls: bool| self.tcp.0.iter().any(|it| it.is_of(entrypoint) && it.tls.is_some() == tls);
        tcp(false) && !tcp(true) && !["", entrypoint].iter().any(|it| self.http.counts.contains_key(*it))
    }

    /// Returns whether a peer's forwarding headers are trusted.
    pub(crate) fn trusts(&self, peer: std::net::IpAddr) -> bool {
        self.settings.trusted_proxies.iter().any(|it: &IpNet| it.contains(&peer))
    }

    fn put(&mut self, route: &Arc<Route>) {
        match route.is.carries {
            Carried::Http => self.http.put(route),
            Carried::Tcp => self.tcp.put(route),
            Carried::Udp => self.udp.put(route),
        }
    }

    fn remove(&mut self, route: &Route) {
        match route.is.carries {
            Carried::Http => self.http.remove(route),
            Carried::Tcp => self.tcp.remove(route),
            Carried::Udp => self.udp.remove(route),
        }
    }
}

impl Routes {
    fn put(&mut self, route: &Arc<Route>) {
        for entrypoint in entrypoints(route) {
            *self.counts.entry(entrypoint.to_owned()).or_default() += 1;
        }
        let Some(hosts) = &route.hosts else { return self.others.put(route) };
        for host in hosts {
            self.by_host.entry(host.clone()).or_default().put(route);
        }
    }

    fn remove(&mut self, route: &Route) {
        for entrypoint in entrypoints(route) {
            if let Some(count) = self.counts.get_mut(entrypoint) {
                *count -= 1;
            }
        }
        self.counts.retain(|_, it| *it > 0);
        let Some(hosts) = &route.hosts else { return self.others.remove(route) };
        for host in hosts {
            let Some(of_host) = self.by_host.get_mut(host) else { continue };
            of_host.remove(route);
            if of_host.0.is_empty() {
                self.by_host.remove(host);
            }
        }
    }
}

impl Ordered {
    fn put(&mut self, route: &Arc<Route>) {
        if let Err(at) = self.place(route) {
            Arc::make_mut(&mut self.0).insert(at, route.clone());
        }
    }

    fn remove(&mut self, route: &Route) {
        if let Ok(at) = self.place(route) {
            Arc::make_mut(&mut self.0).remove(at);
        }
    }

    fn place(&self, route: &Route) -> Result<usize, usize> {
        self.0.binary_search_by(|it| it.order().cmp(&route.order()))
    }
}

/// The entrypoints that a route names; an empty name if it names none.
fn entrypoints(route: &Route) -> impl Iterator<Item = &str> {
    let all = route.entrypoints.is_empty().then_some("");
    route.entrypoints.iter().map(String::as_str).chain(all)
}

#[cfg(test)]
mod tests;
