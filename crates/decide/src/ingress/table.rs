//! The routing table: what all labels together mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use herder_model::swarm::{
    Backend, BackendState, Carried, INGRESS_ID, IngressSettings, IngressState, NodeRecord, Protocol, Route,
    ServiceRecord, ServiceSpec, Upstream, View, ingress_kind,
};

use super::labels::{self, Declared, Middleware, Router, Service};
use super::rule::{Rule, Scope};
use super::{beside, certificates};
use crate::endpoints::{self, Endpoints, ServiceEndpoints, State};
use crate::swarm::Constraint;

/// Time limit in milliseconds for requests to a draining task, unless the service sets its own.
pub const DRAIN_MS: u64 = 10_000;
/// Stands for the users in a secret where only ports are asked for.
const ANY_USERS: &str = "any:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=";
/// Middlewares of a route, chains resolved. More are a circle.
const MIDDLEWARES_MAX: usize = 64;

/// Something in labels that cannot be used, or not as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Name of the service; empty, if it is about no service.
    pub service: String,
    /// Label, or the part of one that several share.
    pub label: String,
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.service.is_empty() {
            write!(f, "service {}: ", self.service)?;
        }
        write!(f, "{} {}", self.label, self.text)
    }
}

/// The settings of the ingress. None, while it is not enabled.
pub fn settings(view: &View) -> Option<IngressSettings> {
    let resource = view.resources.get(&ingress_kind()?)?.get(INGRESS_ID)?;
    resource.read().ok()
}

/// Returns whether a service has routing labels while the ingress is enabled. Its tasks then have addresses on the ingress network, by
/// which every node reaches them.
pub fn is_routed(view: &View, spec: &ServiceSpec) -> bool {
    spec.labels.iter().flat_map(|it| it.keys()).any(|it| endpoints::is_routing(it))
        && ingress_kind().and_then(|kind| view.resources.get(&kind)?.get(INGRESS_ID)).is_some()
}

/// Returns the ports of a service's tasks that listening nodes connect to: those of its routes, and those of checks.
pub fn routed_ports(view: &View, record: &ServiceRecord) -> BTreeSet<(Protocol, u16)> {
    let routed = Some(record).filter(|it| is_routed(view, &it.service.spec));
    let service = routed.and_then(|it| endpoints::service(view, &it.service.id));
    let (Some(settings), Some(service)) = (settings(view), service) else { return BTreeSet::new() };
    let mut maker =
        Maker { settings: &settings, link: &|_| String::new(), problems: BTreeSet::new(), declared: Vec::new() };
    // Secrets say who may come in, and nothing about ports.
    maker.declare(&service, &|_| Some(ANY_USERS.to_owned()));
    let declared = std::mem::take(&mut maker.declared);
    let upstreams = maker.services(&declared);
    let ports = upstreams.into_iter().flat_map(|((carries, _), it)| {
        let protocol = if carries == Carried::Udp { Protocol::Udp } else { Protocol::Tcp };
        let checked = it.health.as_ref().map_or(0, |it| it.port);
        [it.port, checked].map(|port| (protocol, port))
    });
    ports.filter(|(_, port)| *port != 0).collect()
}

/// Returns the fault of settings. None, if they can be used.
pub fn fault(settings: &IngressSettings) -> Option<String> {
    if settings.entrypoints.is_empty() {
        return Some("the ingress needs an entrypoint, such as web=:80".to_owned());
    }
    for (name, entrypoint) in &settings.entrypoints {
        let address = entrypoint.address.strip_suffix("/udp").unwrap_or(&entrypoint.address);
        let port = address.strip_prefix(':').map(|it| it.parse::<u16>().is_ok());
        if !port.unwrap_or_else(|| address.parse::<SocketAddr>().is_ok()) {
            return Some(format!(
                "entrypoint {name}: {} is no address: write :80, 10.0.0.1:80 or :53/udp",
                entrypoint.address
            ));
        }
    }
    let metrics = &settings.metrics;
    let is_port = metrics.strip_prefix(':').map(|it| it.parse::<u16>().is_ok());
    if !metrics.is_empty() && !is_port.unwrap_or_else(|| metrics.parse::<SocketAddr>().is_ok()) {
        return Some(format!("metrics: {metrics} is no address: write :9100 or 10.0.0.1:9100"));
    }
    if !["", "off", "common", "combined", "json"].contains(&settings.access_log.as_str()) {
        return Some(format!("access log {:?}: write off, common, combined or json", settings.access_log));
    }
    if let Some(fault) =
        settings.resolvers.iter().find_map(|(name, it)| certificates::fault(name, it, &settings.resolvers))
    {
        return Some(fault);
    }
    let constraint = settings.on.iter().find_map(|it| Constraint::parse(it).err().map(|error| (it, error)));
    constraint.map(|(it, error)| format!("constraint {it}: {error}"))
}

/// Returns whether a node listens. Constraints that cannot be read are met by no node.
pub fn listens(settings: &IngressSettings, node: &NodeRecord) -> bool {
    settings.on.iter().all(|it| Constraint::parse(it).is_ok_and(|it| it.accepts(node)))
}

/// Computes the routes of everything that is declared, and of these plain containers. None, while the ingress is not
/// enabled.
pub fn table(view: &View, plain: &[ServiceEndpoints]) -> Option<(IngressState, Vec<Problem>)> {
    let settings = settings(view)?;
    let endpoints = endpoints::endpoints(view, plain);
    let secret = |name: &str| {
        let id = view.named(herder_model::swarm::Kind::Secret, name)?;
        let data = &view.secrets.get(id)?.spec.data;
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data).ok()?).ok()
    };
    let link = |node: &str| view.nodes.get(node).map(|it| it.addr.clone()).unwrap_or_default();
    let (mut state, mut problems) = table_of(&settings, &endpoints, &secret, &link);
    (state.certificates, state.challenges) = certificates::served(view);
    problems.extend(certificates::problems(view));
    Some((state, problems))
}

/// Computes the routes of these services. `secret` gives the text of a secret, `link` the address of a node's link.
pub fn table_of(
    settings: &IngressSettings,
    endpoints: &Endpoints,
    secret: &dyn Fn(&str) -> Option<String>,
    link: &dyn Fn(&str) -> String,
) -> (IngressState, Vec<Problem>) {
    let mut maker = Maker { settings, link, problems: BTreeSet::new(), declared: Vec::new() };
    for service in &endpoints.services {
        maker.declare(service, secret);
    }
    let state = maker.state();
    (state, maker.problems.into_iter().collect())
}

struct Maker<'e> {
    settings: &'e IngressSettings,
    link: &'e dyn Fn(&str) -> String,
    problems: BTreeSet<Problem>,
    declared: Vec<(&'e ServiceEndpoints, Declared)>,
}

impl<'e> Maker<'e> {
    fn problem(&mut self, service: &str, label: &str, text: impl Into<String>) {
        self.problems.insert(Problem { service: service.to_owned(), label: label.to_owned(), text: text.into() });
    }

    fn declare(&mut self, service: &'e ServiceEndpoints, secret: &dyn Fn(&str) -> Option<String>) {
        let mut declared = labels::read(&service.name, &service.labels, secret);
        let is_traefik = |it: &String| it.to_ascii_lowercase().starts_with("traefik.");
        let has_traefik = service.labels.keys().any(is_traefik);
        if has_traefik && !declared.enable.unwrap_or(self.settings.exposed_by_default) {
            let wrong = declared.faults.iter().find(|(label, _)| label.eq_ignore_ascii_case("traefik.enable")).cloned();
            if let Some((label, text)) = wrong {
                self.problem(&service.name, &label, text);
            } else if declared.enable.is_none() {
                self.problem(&service.name, "traefik.enable", "is not true, so the Traefik labels are not used");
            }
            // herder's own labels count without it.
            let own = service.labels.iter().filter(|(key, _)| !is_traefik(key));
            declared = labels::read(&service.name, &own.map(|(k, v)| (k.clone(), v.clone())).collect(), secret);
        }
        for (label, text) in std::mem::take(&mut declared.faults) {
            self.problem(&service.name, &label, text);
        }
        let has_any = !declared.routers.is_empty() || !declared.services.is_empty() || !declared.middlewares.is_empty();
        if has_traefik && declared.enable == Some(true) && !has_any {
            self.problem(
                &service.name,
                "traefik.http.routers",
                "are missing: no router has a rule, so nothing is routed here",
            );
        }
        self.declared.push((service, declared));
    }

    fn state(&mut self) -> IngressState {
        let mut state = IngressState { settings: self.settings.clone(), ..IngressState::default() };
        let declared = std::mem::take(&mut self.declared);
        let services = self.services(&declared);
        let mut middlewares = self.middlewares(&declared);
        let all: Vec<&ServiceEndpoints> = declared.iter().map(|(it, _)| *it).collect();
        for (name, text) in beside::resolve(&mut middlewares, &services, &all) {
            self.problem("", &format!("traefik.http.middlewares.{name}"), text);
        }
        let mut routes = Agreed::default();
        for (service, of) in &declared {
            for ((carries, name), router) in &of.routers {
                let label = match router.native {
                    true => format!("route {name}"),
                    false => format!("traefik.{}.routers.{name}", word(*carries)),
                };
                match self.route(service, *carries, router, of, &services, &middlewares) {
                    Ok(route) => routes.put((*carries, name.clone()), &service.name, route),
                    Err(text) => self.problem(&service.name, &label, text),
                }
            }
        }
        let routes = self.agreed(routes, "router");
        for ((carries, name), route) in routes {
            state.middlewares.extend(route.middlewares.iter().filter_map(|it| match middlewares.get(it)? {
                Middleware::Is(value) => Some((it.clone(), value.clone())),
                Middleware::Chain(_) | Middleware::Broken => None,
            }));
            let of_middlewares = route.middlewares.iter().filter_map(|it| beside::asked(state.middlewares.get(it)?));
            let of_middlewares = of_middlewares.map(|it| (Carried::Http, it.to_owned()));
            for to in of_middlewares.collect::<Vec<_>>().into_iter().chain([(carries, route.service.clone())]) {
                if let Some(upstream) = services.get(&to) {
                    state.services.insert(key(to.0, &to.1), upstream.clone());
                }
            }
            let route = Route { service: key(carries, &route.service), ..route };
            state.routes.insert(key(carries, &name), route);
        }
        state
    }

    /// Services that can be used, by name.
    fn services(&mut self, declared: &[(&ServiceEndpoints, Declared)]) -> BTreeMap<(Carried, String), Upstream> {
        let mut all: Agreed<(Carried, String), Service> = Agreed::default();
        let mut of: BTreeMap<(Carried, String), Vec<usize>> = BTreeMap::new();
        for (at, (service, declared)) in declared.iter().enumerate() {
            let mut services = declared.services.clone();
            // A router without a service of its own kind leads to one with the name of the service.
            for ((carries, _), _) in declared.routers.iter().filter(|(_, it)| it.service.is_empty()) {
                if !services.keys().any(|(it, _)| it == carries) {
                    let scheme = if *carries == Carried::Http { "http".to_owned() } else { String::new() };
                    services.insert((*carries, service.name.clone()), Service { scheme, ..Service::default() });
                }
            }
            for (key, mut it) in services {
                let label = format!("traefik.{}.services.{}.loadbalancer.server.port", word(key.0), key.1);
                match it.port.map_or_else(|| only_port(service, key.0), Ok) {
                    Ok(port) => it.port = Some(port),
                    Err(text) => {
                        self.problem(&service.name, &label, text);
                        continue;
                    }
                }
                of.entry(key.clone()).or_default().push(at);
                all.put(key, &service.name, it);
            }
        }
        let mut upstreams = BTreeMap::new();
        for (key, service) in self.agreed(all, "service") {
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
            for at in of.get(&key).into_iter().flatten() {
                let Some((endpoints, declared)) = declared.get(*at) else { continue };
                upstream.of.insert(endpoints.id.clone());
                upstream.drain_ms = declared.drain_ms.unwrap_or(upstream.drain_ms);
                self.backends(endpoints, declared, key.0, &service, &mut upstream);
            }
            upstreams.insert(key, upstream);
        }
        upstreams
    }

    fn backends(
        &mut self,
        endpoints: &ServiceEndpoints,
        declared: &Declared,
        carries: Carried,
        service: &Service,
        upstream: &mut Upstream,
    ) {
        let network = declared.network.as_ref().and_then(|name| {
            let stack = endpoints.labels.get("com.docker.stack.namespace");
            let long = stack.map(|stack| format!("{stack}_{name}"));
            let fits = |it: &str| it == name || long.as_deref() == Some(it);
            endpoints.networks.iter().find(|(_, it)| fits(&it.name)).map(|(id, _)| id.clone())
        });
        // A container is reached by its own node, whichever of its networks is named.
        if let (Some(name), None, false) = (&declared.network, &network, endpoints.is_container) {
            self.problem(&endpoints.name, "traefik.swarm.network", format!("{name} is no network of this service"));
        }
        let weight = service.weight.unwrap_or(1);
        let on = |id: &String| network.as_ref().is_none_or(|it| it == id);
        let protocol = if carries == Carried::Udp { "udp" } else { "tcp" };
        for task in &endpoints.tasks {
            // By its address on the ingress network every node reaches a task, whichever of its own networks is chosen.
            let is_ingress = |id: &String| endpoints.networks.get(id).is_some_and(|it| it.is_ingress);
            let addresses = task.addresses.iter().filter(|(id, _)| on(id) || is_ingress(id));
            let published = task.published(protocol, upstream.port);
            let backend = Backend {
                node: task.node.clone(),
                link: (self.link)(&task.node),
                container: task.container.clone(),
                addresses: addresses.map(|(id, it)| (id.clone(), IpAddr::from(*it))).collect(),
                published: task.node_address.zip(published).map(|(ip, port)| SocketAddr::new(ip, port)),
                weight: weight.saturating_mul(task.weight),
                state: match task.state {
                    State::Serving => BackendState::Serving,
                    State::Draining => BackendState::Draining,
                    State::Down => BackendState::Down,
                },
            };
            upstream.backends.insert(task.id.clone(), backend);
        }
    }

    fn middlewares(&mut self, declared: &[(&ServiceEndpoints, Declared)]) -> BTreeMap<String, Middleware> {
        let mut all = Agreed::default();
        for (service, declared) in declared {
            for (name, it) in &declared.middlewares {
                all.put(name.clone(), &service.name, it.clone());
            }
        }
        self.agreed(all, "middleware")
    }

    fn route(
        &mut self,
        service: &ServiceEndpoints,
        carries: Carried,
        router: &Router,
        declared: &Declared,
        services: &BTreeMap<(Carried, String), Upstream>,
        middlewares: &BTreeMap<String, Middleware>,
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
        let to = self.service_of(service, carries, router, declared)?;
        if !services.contains_key(&(carries, to.clone())) {
            return Err(format!("leads to the service {to}, which is not there or cannot be used"));
        }
        let entrypoints = self.entrypoints(service, carries, router)?;
        let mut names = Vec::new();
        expand(&router.middlewares, middlewares, &mut names)?;
        let resolver = router.tls.as_ref().map(|it| it.resolver.as_str()).filter(|it| !it.is_empty());
        if let Some(resolver) = resolver.filter(|it| !self.settings.resolvers.contains_key(*it)) {
            let text = format!(
                "names the certificate resolver {resolver}, which the ingress does not have: certificates are not ordered"
            );
            self.problem(&service.name, &format!("traefik.{}.routers", word(carries)), text);
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

    fn service_of(
        &self,
        service: &ServiceEndpoints,
        carries: Carried,
        router: &Router,
        declared: &Declared,
    ) -> Result<String, String> {
        if !router.service.is_empty() {
            return local(&router.service).map(str::to_owned);
        }
        // What herder's own labels declare is for their own routes.
        let fits = |it: &Service| !it.native || router.native;
        let own = declared.services.iter().filter(|((it, _), is)| *it == carries && fits(is));
        let mut own = own.map(|((_, name), _)| name);
        match (own.next(), own.next()) {
            (None, _) => Ok(service.name.clone()),
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => {
                Err("does not say which of the several services it leads to: add .service".to_owned())
            }
        }
    }

    /// Entrypoints of the route that are there.
    fn entrypoints(
        &mut self,
        service: &ServiceEndpoints,
        carries: Carried,
        router: &Router,
    ) -> Result<BTreeSet<String>, String> {
        let is_udp = |name: &String| self.settings.entrypoints.get(name).is_some_and(|it| it.address.ends_with("/udp"));
        let (known, unknown): (BTreeSet<String>, BTreeSet<String>) = router
            .entrypoints
            .iter()
            .cloned()
            .partition(|it| self.settings.entrypoints.contains_key(it) && is_udp(it) == (carries == Carried::Udp));
        if !unknown.is_empty() {
            let unknown: Vec<String> = unknown.into_iter().collect();
            let text = format!("{}: no such entrypoint for {}", unknown.join(", "), word(carries));
            self.problem(&service.name, &format!("traefik.{}.routers.entrypoints", word(carries)), text);
            if known.is_empty() {
                return Err("has no entrypoint that is there: it is not used".to_owned());
            }
        }
        Ok(known)
    }

    /// Returns the declarations on which all services agree. Others are problems that name the services.
    fn agreed<K: Ord + Clone + Named, V: PartialEq>(&mut self, all: Agreed<K, V>, what: &str) -> BTreeMap<K, V> {
        let mut agreed = BTreeMap::new();
        for (key, mut said) in all.0 {
            let differs = said.iter().skip(1).any(|(_, value)| *value != said[0].1);
            if !differs {
                let (_, value) = said.swap_remove(0);
                agreed.insert(key, value);
                continue;
            }
            let names: Vec<String> = said.iter().map(|(service, _)| service.clone()).collect();
            for (service, _) in &said {
                let text = format!(
                    "{} is declared differently by the services {}: neither is used; give them different names",
                    key.name(),
                    names.join(" and ")
                );
                self.problem(service, what, text);
            }
        }
        agreed
    }
}

/// The declarations of several services, by name.
struct Agreed<K, V>(BTreeMap<K, Vec<(String, V)>>);

impl<K, V> Default for Agreed<K, V> {
    fn default() -> Agreed<K, V> {
        Agreed(BTreeMap::new())
    }
}

impl<K: Ord, V> Agreed<K, V> {
    fn put(&mut self, key: K, service: &str, value: V) {
        self.0.entry(key).or_default().push((service.to_owned(), value));
    }
}

trait Named {
    fn name(&self) -> &str;
}

impl Named for String {
    fn name(&self) -> &str {
        self
    }
}

impl Named for (Carried, String) {
    fn name(&self) -> &str {
        &self.1
    }
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

/// The name without the provider. Others than the swarm have nothing here.
fn local(name: &str) -> Result<&str, String> {
    match name.split_once('@') {
        None => Ok(name),
        Some((name, "docker" | "swarm" | "herder")) => Ok(name),
        Some((_, provider)) => {
            Err(format!("names {name}, and there is no provider {provider} here: only labels are read"))
        }
    }
}

/// The only port that a service has for this.
fn only_port(service: &ServiceEndpoints, carries: Carried) -> Result<u16, String> {
    let protocol = if carries == Carried::Udp { "udp" } else { "tcp" };
    let ports = service.ports.iter().filter(|it| it.protocol == protocol).map(|it| it.target);
    let ports: BTreeSet<u16> = ports.collect();
    let mut all = ports.iter();
    match (all.next(), all.next()) {
        (Some(port), None) => Ok(*port),
        (None, _) => Err("is missing, and the service publishes no port that could be meant".to_owned()),
        _ => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            Err(format!("is missing, and the service has several ports: {}", ports.join(", ")))
        }
    }
}

fn word(carries: Carried) -> &'static str {
    match carries {
        Carried::Http => "http",
        Carried::Tcp => "tcp",
        Carried::Udp => "udp",
    }
}

/// Routers of HTTP and of TCP may have the same name.
fn key(carries: Carried, name: &str) -> String {
    match carries {
        Carried::Http => name.to_owned(),
        Carried::Tcp | Carried::Udp => format!("{}/{name}", word(carries)),
    }
}

#[cfg(test)]
mod tests;
