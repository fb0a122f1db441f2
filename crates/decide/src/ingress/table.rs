//! The routing table: what all labels together mean.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use base64::Engine as _;
use herder_model::swarm::{
    CERTIFICATE_KIND, Carried, INGRESS_ID, INGRESS_KIND, IngressSettings, IngressState, NodeRecord, Object, Protocol,
    ServiceRecord, ServiceSpec, View, ingress_kind,
};

use super::certificates;
use super::routes::Routes;
use crate::endpoints::{self, ServiceEndpoints};
use crate::swarm::Constraint;

/// Time limit in milliseconds for requests to a draining task, unless the service sets its own.
pub const DRAIN_MS: u64 = 10_000;
/// Stands for the users in a secret where only ports are asked for.
const ANY_USERS: &str = "any:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=";

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
    let mut routes = Routes::new(settings);
    // Secrets say who may come in, and nothing about ports.
    routes.update([(String::new(), Some(service))], &|_| Some(ANY_USERS.to_owned()), &|_| String::new());
    let ports = routes.upstreams().flat_map(|(carries, it)| {
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

/// The writes since the routes of a view were computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Anything may be different.
    pub everything: bool,
    /// Ids of services of the swarm that changed, or whose tasks did.
    pub services: BTreeSet<String>,
}

impl Touched {
    /// Notes an object as it was before a write, or as it is after it. False: no route depends on it.
    pub fn see(&mut self, object: &Object) -> bool {
        match object {
            Object::Resource(it) => [INGRESS_KIND, CERTIFICATE_KIND].contains(&it.kind.as_str()),
            Object::Service(it) => {
                self.services.insert(it.service.id.clone());
                true
            }
            Object::Task(it) => {
                self.services.insert(it.task.service_id.clone());
                true
            }
            Object::Node(_) | Object::Secret(_) | Object::Network(_) => {
                self.everything = true;
                true
            }
            Object::Cluster(_) | Object::Config(_) => false,
        }
    }
}

/// The leader's routes, updated from one view to the next.
#[derive(Clone, Debug, Default)]
pub struct LeaderTable {
    routes: Option<Routes>,
    /// Number of plain containers.
    plain: usize,
}

impl LeaderTable {
    /// Computes the routes of everything that is declared, and of these plain containers. None, while the ingress is not enabled.
    pub fn update(&mut self, view: &View, plain: &[ServiceEndpoints], touched: &Touched) -> Option<IngressState> {
        let Some(settings) = settings(view) else {
            *self = LeaderTable::default();
            return None;
        };
        let known = self.routes.take().filter(|it| !touched.everything && *it.settings() == settings);
        let is_new = known.is_none();
        let mut routes = known.unwrap_or_else(|| Routes::new(settings));
        let ids = if is_new { endpoints::ids(view) } else { touched.services.clone() };
        let of_swarm = ids.into_iter().map(|id| {
            let service = endpoints::service(view, &id);
            (id, service)
        });
        let mut containers = endpoints::placed(view, plain).map(Some).collect::<Vec<_>>();
        let count = containers.len();
        // Those that are not there any more.
        containers.resize(count.max(self.plain), None);
        // With eight digits the keys have the order of the containers.
        let of_plain = containers.into_iter().enumerate().map(|(at, it)| (format!("plain/{at:08}"), it));
        routes.update(of_swarm.chain(of_plain), &|name| secret(view, name), &|node| link(view, node));
        let mut state = routes.state().clone();
        (state.certificates, state.challenges) = certificates::served(view);
        (self.routes, self.plain) = (Some(routes), count);
        Some(state)
    }
}

/// Computes the routes of everything that is declared, and of these plain containers, with all problems. None, while the ingress is
/// not enabled.
pub fn table(view: &View, plain: &[ServiceEndpoints]) -> Option<(IngressState, Vec<Problem>)> {
    let mut table = LeaderTable::default();
    let state = table.update(view, plain, &Touched::default())?;
    let mut problems: Vec<Problem> = table.routes.map(|it| it.problems()).unwrap_or_default().into_iter().collect();
    problems.extend(certificates::problems(view));
    Some((state, problems))
}

/// Computes the routes of these services. `secret` gives the text of a secret, `link` the address of a node's link.
pub fn table_of(
    settings: &IngressSettings,
    services: &[ServiceEndpoints],
    secret: &dyn Fn(&str) -> Option<String>,
    link: &dyn Fn(&str) -> String,
) -> (IngressState, Vec<Problem>) {
    let mut routes = Routes::new(settings.clone());
    routes.update(services.iter().enumerate().map(|(at, it)| (format!("{at:08}"), Some(it.clone()))), secret, link);
    (routes.state().clone(), routes.problems().into_iter().collect())
}

/// The text of a secret.
fn secret(view: &View, name: &str) -> Option<String> {
    let id = view.named(herder_model::swarm::Kind::Secret, name)?;
    let data = &view.secrets.get(id)?.spec.data;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data).ok()?).ok()
}

/// The address of a node's link.
fn link(view: &View, node: &str) -> String {
    view.nodes.get(node).map(|it| it.addr.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
