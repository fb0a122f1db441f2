//! The routes of all services, kept so that a change costs only what depends on it.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::{Carried, IngressSettings, IngressState, Route, Upstream};

use super::beside;
use super::labelled::{Key, Labelled, local, text, word};
use super::labels::{Middleware, Router};
use super::rule::{Rule, Scope};
use super::table::{DRAIN_MS, Problem};
use crate::endpoints::ServiceEndpoints;

/// Middlewares of a route, chains resolved. More are a circle.
const MIDDLEWARES_MAX: usize = 64;

/// A service's name and id, and the key that the caller gave it: the order in which services are read.
type Place = (String, String, String);

/// Everything that the labels of services declare, put together.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    state: IngressState,
    problems: BTreeMap<Source, Vec<Problem>>,
    /// Places by the caller's keys.
    places: BTreeMap<String, Place>,
    services: BTreeMap<Place, Labelled>,
    /// Services of labels: where each is declared, what they come to, and where routers lead to it.
    upstream_givers: Links<Key>,
    upstreams: BTreeMap<Key, Upstream>,
    upstream_takers: Links<Key>,
    /// Middlewares: where each is declared, on what all agree, what that comes to, and where routers name it.
    middleware_givers: Links<String>,
    agreed_middlewares: BTreeMap<String, Middleware>,
    middlewares: BTreeMap<String, Middleware>,
    middleware_takers: Links<String>,
    /// Middlewares that depend on services, and those that depend on others.
    asking: BTreeSet<String>,
    chains: BTreeSet<String>,
    /// The routes of each router by the services that declare it, and the one that is used.
    said: BTreeMap<Key, BTreeMap<Place, Route>>,
    routes: BTreeMap<Key, Used>,
    upstream_uses: BTreeMap<Key, usize>,
    middleware_uses: BTreeMap<String, usize>,
}

/// The part of the labels that problems come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Labels(Place),
    Routes(Place),
    Upstream(Key),
    Router(Key),
    Middleware(String),
    Resolved(String),
}

/// A route in use, with the services and middlewares that it needs.
#[derive(Clone, Debug, PartialEq)]
struct Used {
    route: Route,
    upstreams: BTreeSet<Key>,
    middlewares: BTreeSet<String>,
}

/// Places by a name that they declare or use.
#[derive(Clone, Debug)]
struct Links<K>(BTreeMap<K, BTreeSet<Place>>);

/// Parts to be computed anew.
#[derive(Debug, Default)]
struct Dirty {
    places: BTreeSet<Place>,
    upstreams: BTreeSet<Key>,
    middlewares: BTreeSet<String>,
    routers: BTreeSet<Key>,
}

impl Routes {
    /// No routes yet, of an ingress with these settings.
    pub fn new(settings: IngressSettings) -> Routes {
        Routes { state: IngressState { settings, ..IngressState::default() }, ..Routes::default() }
    }

    pub fn settings(&self) -> &IngressSettings {
        &self.state.settings
    }

    /// Returns the routes with the services and middlewares that they use. Certificates are not among it.
    pub fn state(&self) -> &IngressState {
        &self.state
    }

    pub fn problems(&self) -> BTreeSet<Problem> {
        self.problems.values().flatten().cloned().collect()
    }

    /// Returns the services of labels that can be used, whether a route leads to them or not.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = (Carried, &Upstream)> {
        self.upstreams.iter().map(|((carries, _), it)| (*carries, it))
    }

    /// Puts in, replaces and removes services, by keys of the caller. `secret` gives the text of a secret, `link` the address of a
    /// node's link; when one of these changes, all services are to be read anew.
    pub fn update(
        &mut self,
        changed: impl IntoIterator<Item = (String, Option<ServiceEndpoints>)>,
        secret: &dyn Fn(&str) -> Option<String>,
        link: &dyn Fn(&str) -> String,
    ) {
        let mut dirty = Dirty::default();
        for (key, service) in changed {
            let before = self.places.get(&key).cloned();
            let same = before.as_ref().and_then(|it| self.services.get(it)).map(|it| &it.endpoints) == service.as_ref();
            if same {
                continue;
            }
            if let Some(place) = before {
                self.places.remove(&key);
                self.forget(&place, &mut dirty);
            }
            if let Some(service) = service {
                let place = (service.name.clone(), service.id.clone(), key.clone());
                let labelled = Labelled::read(service, &self.state.settings, secret);
                self.learn(&place, labelled, &mut dirty);
                self.places.insert(key, place);
            }
        }
        if dirty.places.is_empty() {
            return;
        }
        self.settle_upstreams(&mut dirty, link);
        self.settle_middlewares(&mut dirty);
        self.settle_routes(dirty);
    }

    fn forget(&mut self, place: &Place, dirty: &mut Dirty) {
        let Some(service) = self.services.remove(place) else { return };
        for key in service.services.keys() {
            self.upstream_givers.remove(key, place);
            dirty.upstreams.insert(key.clone());
        }
        for (key, router) in &service.declared.routers {
            if let Ok(to) = service.service_of(key.0, router) {
                self.upstream_takers.remove(&(key.0, to), place);
            }
            for name in router.middlewares.iter().filter_map(|it| local(it).ok()) {
                self.middleware_takers.remove(&name.to_owned(), place);
            }
            self.unsay(key, place);
            dirty.routers.insert(key.clone());
        }
        for name in service.declared.middlewares.into_keys() {
            self.middleware_givers.remove(&name, place);
            dirty.middlewares.insert(name);
        }
        self.problems.remove(&Source::Labels(place.clone()));
        self.problems.remove(&Source::Routes(place.clone()));
        dirty.places.insert(place.clone());
    }

    fn learn(&mut self, place: &Place, mut service: Labelled, dirty: &mut Dirty) {
        for key in service.services.keys() {
            self.upstream_givers.put(key, place);
            dirty.upstreams.insert(key.clone());
        }
        for name in service.declared.middlewares.keys() {
            self.middleware_givers.put(name, place);
            dirty.middlewares.insert(name.clone());
        }
        for ((carries, _), router) in &service.declared.routers {
            if let Ok(to) = service.service_of(*carries, router) {
                self.upstream_takers.put(&(*carries, to), place);
            }
            for name in router.middlewares.iter().filter_map(|it| local(it).ok()) {
                self.middleware_takers.put(&name.to_owned(), place);
            }
        }
        self.note(Source::Labels(place.clone()), std::mem::take(&mut service.problems));
        dirty.places.insert(place.clone());
        self.services.insert(place.clone(), service);
    }

    /// Computes services of labels anew.
    fn settle_upstreams(&mut self, dirty: &mut Dirty, link: &dyn Fn(&str) -> String) {
        for key in &dirty.upstreams {
            let mut problems = Vec::new();
            let upstream = self.upstream(key, link, &mut problems);
            self.note(Source::Upstream(key.clone()), problems);
            if self.upstreams.get(key) == upstream.as_ref() {
                continue;
            }
            if self.upstream_uses.contains_key(key) {
                match &upstream {
                    Some(upstream) => drop(self.state.services.insert(text(key), upstream.clone())),
                    None => drop(self.state.services.remove(&text(key))),
                }
            }
            let is_there = upstream.is_some();
            let was_there = match upstream {
                Some(upstream) => self.upstreams.insert(key.clone(), upstream).is_some(),
                None => self.upstreams.remove(key).is_some(),
            };
            if is_there != was_there {
                dirty.places.extend(self.upstream_takers.of(key).cloned());
            }
        }
    }

    /// Computes middlewares anew, and those that depend on services or on others.
    fn settle_middlewares(&mut self, dirty: &mut Dirty) {
        for name in &dirty.middlewares {
            let said = self.middleware_givers.of(name).filter_map(|place| {
                let service = self.services.get(place)?;
                Some((place, service.declared.middlewares.get(name)?))
            });
            let mut problems = Vec::new();
            let agreed = agreed(said, name, "middleware", &mut problems).cloned();
            self.note(Source::Middleware(name.clone()), problems);
            let is_asking = matches!(&agreed, Some(Middleware::Is(it)) if beside::asks(it));
            set(&mut self.asking, name, is_asking);
            set(&mut self.chains, name, matches!(agreed, Some(Middleware::Chain(_))));
            match agreed {
                Some(it) => drop(self.agreed_middlewares.insert(name.clone(), it)),
                None => drop(self.agreed_middlewares.remove(name)),
            }
        }
        let to_resolve: BTreeSet<&String> = dirty.middlewares.iter().chain(&self.asking).collect();
        let agreed =
            to_resolve.iter().filter_map(|it| Some(((*it).clone(), self.agreed_middlewares.get(*it)?.clone())));
        let mut resolved: BTreeMap<String, Middleware> = agreed.collect();
        let services = self.services.values().map(|it| &it.endpoints);
        let services: Vec<&ServiceEndpoints> = services.take_while(|_| !self.asking.is_empty()).collect();
        let mut wrong: BTreeMap<String, String> =
            beside::resolve(&mut resolved, &self.upstreams, &services).into_iter().collect();
        let mut changed: BTreeSet<String> = BTreeSet::new();
        for name in to_resolve {
            let label = || format!("traefik.http.middlewares.{name}");
            let problem = wrong.remove(name).map(|text| Problem { service: String::new(), label: label(), text });
            note(&mut self.problems, Source::Resolved(name.clone()), problem.into_iter().collect());
            let after = resolved.remove(name);
            if self.middlewares.get(name) == after.as_ref() {
                continue;
            }
            if self.middleware_uses.contains_key(name) {
                match &after {
                    Some(Middleware::Is(value)) => drop(self.state.middlewares.insert(name.clone(), value.clone())),
                    _ => drop(self.state.middlewares.remove(name)),
                }
            }
            match after {
                Some(it) => drop(self.middlewares.insert(name.clone(), it)),
                None => drop(self.middlewares.remove(name)),
            }
            changed.insert(name.clone());
        }
        loop {
            let depends = |name: &&String| {
                let Some(Middleware::Chain(names)) = self.agreed_middlewares.get(*name) else { return false };
                !changed.contains(*name) && names.iter().any(|it| local(it).is_ok_and(|it| changed.contains(it)))
            };
            let more: Vec<String> = self.chains.iter().filter(depends).cloned().collect();
            if more.is_empty() {
                break;
            }
            changed.extend(more);
        }
        dirty.places.extend(changed.iter().flat_map(|it| self.middleware_takers.of(it)).cloned());
    }

    /// Computes the routes of services anew.
    fn settle_routes(&mut self, mut dirty: Dirty) {
        for place in &dirty.places {
            let Some(service) = self.services.get(place) else { continue };
            let mut problems = Vec::new();
            let routes = service.declared.routers.iter().map(|(key, router)| {
                let route = self.route(service, key.0, router, &mut problems);
                let route = route.map_err(|text| {
                    let label = match router.native {
                        true => format!("route {}", key.1),
                        false => format!("traefik.{}.routers.{}", word(key.0), key.1),
                    };
                    problems.push(Problem { service: service.endpoints.name.clone(), label, text });
                });
                (key.clone(), route.ok())
            });
            for (key, route) in routes.collect::<Vec<_>>() {
                match route {
                    Some(route) => drop(self.said.entry(key.clone()).or_default().insert(place.clone(), route)),
                    None => self.unsay(&key, place),
                }
                dirty.routers.insert(key);
            }
            self.note(Source::Routes(place.clone()), problems);
        }
        for key in dirty.routers {
            let mut problems = Vec::new();
            let route = agreed(self.said.get(&key).into_iter().flatten(), &key.1, "router", &mut problems).cloned();
            self.note(Source::Router(key.clone()), problems);
            let after = route.map(|it| self.used(&key, it));
            if self.routes.get(&key) == after.as_ref() {
                continue;
            }
            if let Some(after) = &after {
                self.count(after);
                self.state.routes.insert(text(&key), after.route.clone());
            } else {
                self.state.routes.remove(&text(&key));
            }
            let before = match after {
                Some(after) => self.routes.insert(key, after),
                None => self.routes.remove(&key),
            };
            before.iter().for_each(|it| self.uncount(it));
        }
    }

    /// The route of a router, with what it needs.
    fn used(&self, (carries, _): &Key, route: Route) -> Used {
        let is_value = |name: &&String| matches!(self.middlewares.get(*name), Some(Middleware::Is(_)));
        let middlewares: BTreeSet<String> = route.middlewares.iter().filter(is_value).cloned().collect();
        let asked = middlewares.iter().filter_map(|it| match self.middlewares.get(it)? {
            Middleware::Is(value) => beside::asked(value),
            Middleware::Chain(_) | Middleware::Broken => None,
        });
        let asked = asked.map(|it| (Carried::Http, it.to_owned()));
        let upstreams = asked.chain([(*carries, route.service.clone())]).collect();
        let route = Route { service: text(&(*carries, route.service)), ..route };
        Used { route, upstreams, middlewares }
    }

    fn count(&mut self, used: &Used) {
        for key in &used.upstreams {
            *self.upstream_uses.entry(key.clone()).or_default() += 1;
            if let Some(upstream) = self.upstreams.get(key).filter(|_| self.upstream_uses[key] == 1) {
                self.state.services.insert(text(key), upstream.clone());
            }
        }
        for name in &used.middlewares {
            *self.middleware_uses.entry(name.clone()).or_default() += 1;
            if self.middleware_uses[name] == 1
                && let Some(Middleware::Is(value)) = self.middlewares.get(name)
            {
                self.state.middlewares.insert(name.clone(), value.clone());
            }
        }
    }

    fn uncount(&mut self, used: &Used) {
        for key in &used.upstreams {
            if is_last(&mut self.upstream_uses, key) {
                self.state.services.remove(&text(key));
            }
        }
        for name in &used.middlewares {
            if is_last(&mut self.middleware_uses, name) {
                self.state.middlewares.remove(name);
            }
        }
    }

    /// A service of labels with the tasks of all that declare it. None, if they do not agree.
    fn upstream(&self, key: &Key, link: &dyn Fn(&str) -> String, problems: &mut Vec<Problem>) -> Option<Upstream> {
        let givers = || self.upstream_givers.of(key).filter_map(|it| Some((it, self.services.get(it)?)));
        let said = givers().filter_map(|(place, it)| Some((place, it.services.get(key)?)));
        let service = agreed(said, &key.1, "service", problems)?;
        let mut upstream = Upstream {
            port: service.port.unwrap_or_default(),
            scheme: service.scheme.clone(),
            pass_host: service.pass_host.unwrap_or(true),
            sticky: service.sticky.clone(),
            health: service.health.clone(),
            strategy: service.strategy.clone(),
            proxy_protocol: service.proxy_protocol,
            drain_ms: DRAIN_MS,
            ..Upstream::default()
        };
        for (_, labelled) in givers() {
            upstream.of.insert(labelled.endpoints.id.clone());
            upstream.drain_ms = labelled.declared.drain_ms.unwrap_or(upstream.drain_ms);
            labelled.put_tasks(key.0, service, link, &mut upstream, problems);
        }
        (!upstream.of.is_empty()).then_some(upstream)
    }

    /// The route that a router means.
    fn route(
        &self,
        service: &Labelled,
        carries: Carried,
        router: &Router,
        problems: &mut Vec<Problem>,
    ) -> Result<Route, String> {
        if router.is_broken {
            return Err("is not used, since one of its labels cannot be read".to_owned());
        }
        let rule = match carries {
            Carried::Udp => None,
            Carried::Http | Carried::Tcp if router.rule.is_empty() => {
                return Err("has no rule: it is not used".to_owned());
            }
            Carried::Http => Some(Scope::Http),
            Carried::Tcp => Some(Scope::Tcp),
        };
        let rule = rule.map(|scope| Rule::parse(&router.rule, scope, router.old_syntax)).transpose();
        let rule = rule.map_err(|error| format!("is not used: its rule {} cannot be read: {error}", router.rule))?;
        if carries == Carried::Tcp && router.tls.is_none() && rule.as_ref().is_some_and(|it| !it.hosts().is_empty()) {
            return Err("asks for a name in the TLS greeting without .tls=true: plain connections have no name, use HostSNI(`*`)".into());
        }
        let to = service.service_of(carries, router)?;
        if !self.upstreams.contains_key(&(carries, to.clone())) {
            return Err(format!("leads to the service {to}, which is not there or cannot be used"));
        }
        let entrypoints = self.entrypoints(service, carries, router, problems)?;
        let mut names = Vec::new();
        expand(&router.middlewares, &self.middlewares, &mut names)?;
        let resolver = router.tls.as_ref().map(|it| it.resolver.as_str()).filter(|it| !it.is_empty());
        if let Some(resolver) = resolver.filter(|it| !self.state.settings.resolvers.contains_key(*it)) {
            let text = format!(
                "names the certificate resolver {resolver}, which the ingress does not have: certificates are not ordered"
            );
            let (service, label) = (service.endpoints.name.clone(), format!("traefik.{}.routers", word(carries)));
            problems.push(Problem { service, label, text });
        }
        let length = i64::try_from(router.rule.len()).unwrap_or(i64::MAX);
        Ok(Route {
            carries,
            entrypoints,
            rule: router.rule.clone(),
            old_syntax: router.old_syntax,
            priority: if router.priority == 0 { length } else { router.priority },
            middlewares: names,
            service: to,
            tls: router.tls.clone(),
        })
    }

    /// Entrypoints of the route that are there.
    fn entrypoints(
        &self,
        service: &Labelled,
        carries: Carried,
        router: &Router,
        problems: &mut Vec<Problem>,
    ) -> Result<BTreeSet<String>, String> {
        let is_udp =
            |name: &String| self.state.settings.entrypoints.get(name).is_some_and(|it| it.address.ends_with("/udp"));
        let (known, unknown): (BTreeSet<String>, BTreeSet<String>) =
            router.entrypoints.iter().cloned().partition(|it| {
                self.state.settings.entrypoints.contains_key(it) && is_udp(it) == (carries == Carried::Udp)
            });
        if !unknown.is_empty() {
            let unknown: Vec<String> = unknown.into_iter().collect();
            let text = format!("{}: no such entrypoint for {}", unknown.join(", "), word(carries));
            let label = format!("traefik.{}.routers.entrypoints", word(carries));
            problems.push(Problem { service: service.endpoints.name.clone(), label, text });
            if known.is_empty() {
                return Err("has no entrypoint that is there: it is not used".to_owned());
            }
        }
        Ok(known)
    }

    fn unsay(&mut self, key: &Key, place: &Place) {
        if let Some(said) = self.said.get_mut(key) {
            said.remove(place);
            if said.is_empty() {
                self.said.remove(key);
            }
        }
    }

    fn note(&mut self, source: Source, problems: Vec<Problem>) {
        note(&mut self.problems, source, problems);
    }
}

impl<K> Default for Links<K> {
    fn default() -> Links<K> {
        Links(BTreeMap::new())
    }
}

impl<K: Clone + Ord> Links<K> {
    fn of(&self, key: &K) -> impl Iterator<Item = &Place> {
        self.0.get(key).into_iter().flatten()
    }

    fn put(&mut self, key: &K, place: &Place) {
        self.0.entry(key.clone()).or_default().insert(place.clone());
    }

    fn remove(&mut self, key: &K, place: &Place) {
        if let Some(places) = self.0.get_mut(key) {
            places.remove(place);
            if places.is_empty() {
                self.0.remove(key);
            }
        }
    }
}

/// Returns what all services say, if it is the same. Otherwise each gets a problem that names them.
fn agreed<'s, V: PartialEq>(
    said: impl Iterator<Item = (&'s Place, &'s V)>,
    name: &str,
    what: &str,
    problems: &mut Vec<Problem>,
) -> Option<&'s V> {
    let said: Vec<(&str, &V)> = said.map(|(place, value)| (place.0.as_str(), value)).collect();
    let (_, first) = said.first()?;
    if said.iter().all(|(_, it)| it == first) {
        return Some(first);
    }
    let names: Vec<&str> = said.iter().map(|(service, _)| *service).collect();
    let text = format!(
        "{name} is declared differently by the services {}: neither is used; give them different names",
        names.join(" and ")
    );
    let problem = |service: &&str| Problem { service: (*service).into(), label: what.into(), text: text.clone() };
    problems.extend(names.iter().map(problem));
    None
}

/// Middlewares in order, chains resolved.
fn expand(names: &[String], middlewares: &BTreeMap<String, Middleware>, into: &mut Vec<String>) -> Result<(), String> {
    let mut waiting: Vec<&str> = names.iter().rev().map(String::as_str).collect();
    let mut steps = 0;
    while let Some(name) = waiting.pop() {
        steps += 1;
        if steps > MIDDLEWARES_MAX {
            return Err(format!("has more than {MIDDLEWARES_MAX} middlewares: does a chain contain itself?"));
        }
        let name = local(name)?;
        match middlewares.get(name) {
            Some(Middleware::Is(_)) => into.push(name.to_owned()),
            Some(Middleware::Chain(names)) => waiting.extend(names.iter().rev().map(String::as_str)),
            Some(Middleware::Broken) => {
                return Err(format!("is not used: its middleware {name} cannot be used"));
            }
            None => return Err(format!("is not used: its middleware {name} is not there")),
        }
    }
    Ok(())
}

fn note(all: &mut BTreeMap<Source, Vec<Problem>>, source: Source, problems: Vec<Problem>) {
    if problems.is_empty() {
        all.remove(&source);
    } else {
        all.insert(source, problems);
    }
}

fn set(names: &mut BTreeSet<String>, name: &str, is_in: bool) {
    if is_in {
        names.insert(name.to_owned());
    } else {
        names.remove(name);
    }
}

/// Counts one use less, and returns whether it was the last one.
fn is_last<K: Ord>(uses: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Some(count) = uses.get_mut(key) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        uses.remove(key);
    }
    is_last
}

#[cfg(test)]
mod tests;
