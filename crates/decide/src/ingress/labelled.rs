//! A service with what its labels declare: all that can be said of it without the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use herder_model::swarm::{Backend, BackendState, Carried, IngressSettings, Upstream};

use super::labels::{self, Declared, Router, Service};
use super::table::Problem;
use crate::endpoints::{ServiceEndpoints, State};

/// The name of a router or of a service. Those of HTTP and of TCP may be the same.
pub(super) type Key = (Carried, String);

/// One service, or one plain container.
#[derive(Clone, Debug)]
pub(super) struct Labelled {
    pub(super) endpoints: ServiceEndpoints,
    pub(super) declared: Declared,
    /// The services of its labels that have a port.
    pub(super) services: BTreeMap<Key, Service>,
    pub(super) problems: Vec<Problem>,
}

impl Labelled {
    /// Reads the labels of a service. `secret` gives the text of a secret.
    pub(super) fn read(
        endpoints: ServiceEndpoints,
        settings: &IngressSettings,
        secret: &dyn Fn(&str) -> Option<String>,
    ) -> Labelled {
        let mut problems = Vec::new();
        let mut problem = |label: &str, text: String| {
            problems.push(Problem { service: endpoints.name.clone(), label: label.to_owned(), text });
        };
        let mut declared = labels::read(&endpoints.name, &endpoints.labels, secret);
        let is_traefik = |it: &String| it.to_ascii_lowercase().starts_with("traefik.");
        let has_traefik = endpoints.labels.keys().any(is_traefik);
        if has_traefik && !declared.enable.unwrap_or(settings.exposed_by_default) {
            let wrong = declared.faults.iter().find(|(label, _)| label.eq_ignore_ascii_case("traefik.enable")).cloned();
            if let Some((label, text)) = wrong {
                problem(&label, text);
            } else if declared.enable.is_none() {
                problem("traefik.enable", "is not true, so the Traefik labels are not used".to_owned());
            }
            // herder's own labels count without it.
            let own = endpoints.labels.iter().filter(|(key, _)| !is_traefik(key));
            declared = labels::read(&endpoints.name, &own.map(|(k, v)| (k.clone(), v.clone())).collect(), secret);
        }
        for (label, text) in std::mem::take(&mut declared.faults) {
            problem(&label, text);
        }
        let has_any = !declared.routers.is_empty() || !declared.services.is_empty() || !declared.middlewares.is_empty();
        if has_traefik && declared.enable == Some(true) && !has_any {
            let text = "are missing: no router has a rule, so nothing is routed here";
            problem("traefik.http.routers", text.to_owned());
        }
        let mut services = declared.services.clone();
        // A router without a service of its own kind leads to one with the name of the service.
        for ((carries, _), _) in declared.routers.iter().filter(|(_, it)| it.service.is_empty()) {
            if !services.keys().any(|(it, _)| it == carries) {
                let scheme = if *carries == Carried::Http { "http".to_owned() } else { String::new() };
                services.insert((*carries, endpoints.name.clone()), Service { scheme, ..Service::default() });
            }
        }
        services.retain(|key, it| match it.port.map_or_else(|| only_port(&endpoints, key.0), Ok) {
            Ok(port) => {
                it.port = Some(port);
                true
            }
            Err(text) => {
                problem(&format!("traefik.{}.services.{}.loadbalancer.server.port", word(key.0), key.1), text);
                false
            }
        });
        Labelled { declared, services, problems, endpoints }
    }

    /// The service that a router of it leads to.
    pub(super) fn service_of(&self, carries: Carried, router: &Router) -> Result<String, String> {
        if !router.service.is_empty() {
            return local(&router.service).map(str::to_owned);
        }
        // What herder's own labels declare is for their own routes.
        let fits = |it: &Service| !it.native || router.native;
        let own = self.declared.services.iter().filter(|((it, _), is)| *it == carries && fits(is));
        let mut own = own.map(|((_, name), _)| name);
        match (own.next(), own.next()) {
            (None, _) => Ok(self.endpoints.name.clone()),
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => {
                Err("does not say which of the several services it leads to: add .service".to_owned())
            }
        }
    }

    /// Puts the tasks of a service behind a service of labels, its own or another's.
    pub(super) fn put_tasks(
        &self,
        carries: Carried,
        service: &Service,
        link: &dyn Fn(&str) -> String,
        upstream: &mut Upstream,
        problems: &mut Vec<Problem>,
    ) {
        let Labelled { endpoints, declared, .. } = self;
        let network = declared.network.as_ref().and_then(|name| {
            let stack = endpoints.labels.get("com.docker.stack.namespace");
            let long = stack.map(|stack| format!("{stack}_{name}"));
            let fits = |it: &str| it == name || long.as_deref() == Some(it);
            endpoints.networks.iter().find(|(_, it)| fits(&it.name)).map(|(id, _)| id.clone())
        });
        // A container is reached by its own node, whichever of its networks is named.
        if let (Some(name), None, false) = (&declared.network, &network, endpoints.is_container) {
            let text = format!("{name} is no network of this service");
            let label = "traefik.swarm.network".to_owned();
            problems.push(Problem { service: endpoints.name.clone(), label, text });
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
                link: link(&task.node),
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
}

/// The name without the provider. Others than the swarm have nothing here.
pub(super) fn local(name: &str) -> Result<&str, String> {
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

pub(super) fn word(carries: Carried) -> &'static str {
    match carries {
        Carried::Http => "http",
        Carried::Tcp => "tcp",
        Carried::Udp => "udp",
    }
}

/// The name in the table.
pub(super) fn text((carries, name): &Key) -> String {
    match carries {
        Carried::Http => name.clone(),
        Carried::Tcp | Carried::Udp => format!("{}/{name}", word(*carries)),
    }
}
