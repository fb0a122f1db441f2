//! The routes of one version, ready to be held against requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use herder_decide::ingress::{Middleware, Rule, Scope, Subject};
use herder_model::swarm::{self as model, Carried, IngressSettings, IngressState, RouteTls};
use ipnet::IpNet;
use serde_json::Value;

use crate::balance::{Service, Services};
use crate::middleware::Compiled;
use crate::tls::Certificates;

/// All routes of one version.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) settings: IngressSettings,
    /// Keyed by name.
    routes: HashMap<String, Arc<Route>>,
    http: Routes,
    pub(crate) tcp: Vec<Arc<Route>>,
    pub(crate) udp: Vec<Arc<Route>>,
    middlewares: BTreeMap<String, (Value, Arc<Compiled>)>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) challenges: BTreeMap<String, String>,
}

/// Routes of HTTP: those that need a host by that host, the others beside them. The earlier one is tried first.
#[derive(Debug, Default)]
struct Routes {
    all: Vec<Arc<Route>>,
    by_host: HashMap<Arc<str>, Vec<usize>>,
    others: Vec<usize>,
}

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
}

impl Table {
    /// Compiles a state. Routes and middlewares that are the same as before are taken over: what a middleware counts goes on.
    pub(crate) fn of(state: &IngressState, services: &Services, before: &Table) -> Table {
        let middlewares = state.middlewares.iter().filter_map(|(name, value)| {
            let known = before.middlewares.get(name).filter(|(it, _)| it == value).map(|(_, it)| it.clone());
            let compiled = known.or_else(|| {
                let middleware: Middleware = serde_json::from_value(value.clone()).ok()?;
                Compiled::of(middleware).map(Arc::new)
            });
            Some((name.clone(), (value.clone(), compiled?)))
        });
        let middlewares: BTreeMap<String, (Value, Arc<Compiled>)> = middlewares.collect();
        let mut routes: HashMap<String, Arc<Route>> = HashMap::with_capacity(state.routes.len());
        let mut sorted: Vec<Arc<Route>> = Vec::with_capacity(state.routes.len());
        for (name, route) in &state.routes {
            let Some(service) = services.get(&route.service) else { continue };
            let of_route = route.middlewares.iter().filter_map(|it| middlewares.get(it));
            let of_route: Vec<Arc<Compiled>> = of_route.map(|(_, it)| it.clone()).collect();
            let known = before.routes.get(name).filter(|it| it.is_same(route, &service, &of_route));
            let compiled = match known {
                Some(known) => known.clone(),
                None => {
                    let Some(mut compiled) = Route::of(name, route, service, of_route) else { continue };
                    let missing = route.middlewares.iter().find(|it| !middlewares.contains_key(*it));
                    compiled.broken = missing.map(|it| format!("the middleware {it} is not known to this release"));
                    Arc::new(compiled)
                }
            };
            sorted.push(compiled.clone());
            routes.insert(name.clone(), compiled);
        }
        sorted.sort_by(|a, b| b.is.priority.cmp(&a.is.priority).then_with(|| a.name.cmp(&b.name)));
        let of = |carries: Carried| {
            let routes = sorted.iter().filter(move |it| it.is.carries == carries);
            routes.cloned().collect::<Vec<_>>()
        };
        let same = before.certificates.is_of(&state.certificates);
        Table {
            settings: state.settings.clone(),
            http: Routes::of(of(Carried::Http)),
            tcp: of(Carried::Tcp),
            udp: of(Carried::Udp),
            routes,
            middlewares,
            certificates: match same {
                true => before.certificates.clone(),
                false => Arc::new(Certificates::of(&state.certificates)),
            },
            challenges: state.challenges.clone(),
        }
    }

    /// Finds the route of a request.
    pub(crate) fn find(&self, entrypoint: &str, tls: bool, subject: &dyn Subject) -> Option<&Arc<Route>> {
        let fits = |at: &usize| {
            let route = self.http.all.get(*at)?;
            let holds = route.tls.is_some() == tls
                && route.is_of(entrypoint)
                && route.rule.as_ref().is_some_and(|it| it.holds(subject));
            holds.then_some(*at)
        };
        let of_host = self.http.by_host.get(subject.host()).into_iter().flatten().find_map(&fits);
        let other = self.http.others.iter().take_while(|at| of_host.is_none_or(|it| **at < it)).find_map(fits);
        self.http.all.get(other.or(of_host)?)
    }

    /// Finds the TCP route of a connection.
    pub(crate) fn find_tcp(&self, entrypoint: &str, tls: bool, subject: &dyn Subject) -> Option<&Arc<Route>> {
        self.tcp.iter().find(|route| {
            route.tls.is_some() == tls
                && route.is_of(entrypoint)
                && route.rule.as_ref().is_some_and(|it| it.holds(subject))
        })
    }

    pub(crate) fn find_udp(&self, entrypoint: &str) -> Option<&Arc<Route>> {
        self.udp.iter().find(|route| route.is_of(entrypoint))
    }

    /// Returns whether a connection may be passed on before its first byte: no other route can take it.
    pub(crate) fn is_plain_tcp(&self, entrypoint: &str) -> bool {
        let tcp = |tls: bool| self.tcp.iter().any(|it| it.is_of(entrypoint) && it.tls.is_some() == tls);
        tcp(false) && !tcp(true) && !self.http.all.iter().any(|it| it.is_of(entrypoint))
    }

    /// Returns whether a peer's forwarding headers are trusted.
    pub(crate) fn trusts(&self, peer: std::net::IpAddr) -> bool {
        self.settings.trusted_proxies.iter().any(|it: &IpNet| it.contains(&peer))
    }
}

impl Routes {
    fn of(all: Vec<Arc<Route>>) -> Routes {
        let mut routes = Routes { by_host: HashMap::with_capacity(all.len()), ..Routes::default() };
        for (at, route) in all.iter().enumerate() {
            match &route.hosts {
                Some(hosts) => hosts.iter().for_each(|it| routes.by_host.entry(it.clone()).or_default().push(at)),
                None => routes.others.push(at),
            }
        }
        Routes { all, ..routes }
    }
}

#[cfg(test)]
mod tests;
