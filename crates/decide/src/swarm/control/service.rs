//! Services.

use std::collections::BTreeSet;
use std::fmt;

use herder_model::swarm::{
    Change, Feature, JobStatus, Kind, NetworkAttachmentConfig, NetworkRecord, PortConfig, ServiceMode, ServiceRecord,
    ServiceSpec, Time, UpdateStatus, View, is_extended,
};

use super::{Changes, check_version};
use crate::swarm::nodes::level;
use crate::swarm::task::container::extension;
use crate::swarm::{self, Code, Denial, Refusal, allocate, lookup, spec};

const NO_RENAMING: &str = "renaming services is not supported";
const NETWORKS_TWICE: &str = "networks must be migrated to TaskSpec before being changed";
const LOCAL: &str = "cannot be used with services. Only networks scoped to the swarm can be used, such as those created with \
                     the overlay driver.";

/// Source of the registry credentials of an updated service when the client sends none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthFrom {
    #[default]
    Spec,
    PreviousSpec,
}

/// Declaration of a service by a client.
#[derive(Clone, Default)]
pub struct Declared {
    pub spec: ServiceSpec,
    /// `X-Registry-Auth`, or empty.
    pub registry_auth: String,
    /// API version of the client.
    pub client: Option<String>,
    /// Names of networks that engines have by themselves. A service cannot be on them.
    pub local_networks: BTreeSet<String>,
}

impl fmt::Debug for Declared {
    /// Credentials stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Declared").field("spec", &self.spec).field("client", &self.client).finish_non_exhaustive()
    }
}

impl Declared {
    /// Returns the specification to store if it is valid on its own; other services and networks are not checked.
    pub fn alone(&self) -> Result<ServiceSpec, Denial> {
        self.valid()
    }

    /// Returns the specification to store, if it is valid.
    fn completed(&self, view: &View, own_id: Option<&str>) -> Result<ServiceSpec, Denial> {
        let mut spec = self.valid()?;
        ports_are_free(view, &spec, own_id)?;
        super::admission::protocols_are_there(view, &spec)?;
        resolve_networks(view, &mut spec, &self.local_networks)?;
        Ok(spec)
    }

    fn valid(&self) -> Result<ServiceSpec, Denial> {
        let mut spec = self.spec.clone();
        spec::adjust(&mut spec, self.client.as_deref());
        spec::complete(&mut spec)?;
        swarm::service(&spec)?;
        super::admission::published_on(&spec)?;
        if let Some(container) = &spec.task_template.container_spec {
            extension::check(container).map_err(|text| Refusal::new(Code::InvalidArgument, text))?;
        }
        Ok(spec)
    }
}

/// Update of an existing service by a client.
#[derive(Clone, Debug, Default)]
pub struct ServiceUpdate {
    pub version: u64,
    pub declared: Declared,
    pub auth_from: AuthFrom,
    /// Back to what it was before; what is declared then only has to be valid.
    pub rollback: bool,
}

/// `id` is the new service's.
pub fn create_service(view: &View, declared: &Declared, id: String, now: Time) -> Changes {
    let named;
    let declared = if declared.spec.name.is_empty() {
        named =
            Declared { spec: ServiceSpec { name: any_name(view, &id), ..declared.spec.clone() }, ..declared.clone() };
        &named
    } else {
        declared
    };
    let spec = declared.completed(view, None)?;
    known_to_all(view, &spec)?;
    let mut changes = references(view, &spec)?;
    if view.named(Kind::Service, &spec.name).is_some() {
        let text = format!("name conflicts with an existing object: service {} already exists", spec.name);
        return Err(Refusal::new(Code::AlreadyExists, text).into());
    }
    let mut record = ServiceRecord { registry_auth: declared.registry_auth.clone(), ..ServiceRecord::default() };
    record.service.id = id;
    if is_job(&spec.mode) {
        record.service.job_status = Some(JobStatus { last_execution: now.to_string(), ..JobStatus::default() });
    }
    record.service.spec = spec;
    allocate::complete_endpoint_of(view, &mut record);
    changes.push(Change::PutSpec(record.into()));
    Ok(changes)
}

/// Refuses settings beyond the swarm API while some manager's release does not know them.
fn known_to_all(view: &View, spec: &ServiceSpec) -> Result<(), Denial> {
    if is_extended(&spec.task_template) { level::needs(view, Feature::Extension) } else { Ok(()) }
}

const HOW: [&str; 16] = [
    "brave", "bright", "busy", "calm", "clever", "cosy", "eager", "fair", "gentle", "happy", "keen", "lively", "merry",
    "quiet", "swift", "warm",
];
const WHAT: [&str; 16] = [
    "badger", "beaver", "crane", "dormouse", "falcon", "goat", "heron", "ibex", "lark", "lynx", "marten", "otter",
    "robin", "stork", "swan", "wren",
];

/// A name for a service that was given none, by its id.
fn any_name(view: &View, id: &str) -> String {
    let digit = |at: usize| id.as_bytes().get(at).map_or(0, |it| usize::from(*it));
    let name = format!("{}_{}", HOW[digit(5) % HOW.len()], WHAT[digit(9) % WHAT.len()]);
    if view.named(Kind::Service, &name).is_none() { name } else { format!("{name}_{id}") }
}

fn is_job(mode: &ServiceMode) -> bool {
    mode.replicated_job.is_some() || mode.global_job.is_some()
}

/// Gives a service another specification, or the one it had before.
pub fn update_service(view: &View, text: &str, update: &ServiceUpdate, now: Time) -> Changes {
    let found = lookup::service(view, text)?;
    let refused = |code, text: &str| Err(Denial::from(Refusal::new(code, text)));
    if update.declared.spec.name.is_empty() {
        return refused(Code::Unimplemented, NO_RENAMING);
    }
    let (outside, inside) = (&update.declared.spec.networks, &update.declared.spec.task_template.networks);
    if !outside.is_empty() && !inside.is_empty() && outside != inside {
        return refused(Code::Unimplemented, NETWORKS_TWICE);
    }
    let mut spec = update.declared.completed(view, Some(&found.service.id))?;
    if let Some(container) = &mut spec.task_template.container_spec {
        extension::inherit(container, found.service.spec.task_template.container_spec.as_ref());
    }
    known_to_all(view, &spec)?;
    let mut changes = references(view, &spec)?;
    let kinds = |mode: &ServiceMode| {
        (mode.replicated.is_some(), mode.global.is_some(), mode.replicated_job.is_some(), mode.global_job.is_some())
    };
    if kinds(&spec.mode) != kinds(&found.service.spec.mode) {
        return refused(Code::Unimplemented, "service mode change is not allowed");
    }
    if spec.name != found.service.spec.name {
        return refused(Code::Unimplemented, NO_RENAMING);
    }
    let id = &found.service.id;
    check_version(Kind::Service, id, update.version, found.service.meta.version.index)?;
    let mut record = ServiceRecord::clone(found);
    if update.rollback {
        roll_back(&mut record, now)?;
        changes = references(view, &record.service.spec)?;
    } else {
        declare(&mut record, spec, update)?;
    }
    allocate::complete_endpoint_of(view, &mut record);
    if let Some(status) = &mut record.service.job_status {
        status.job_iteration.index += 1;
        status.last_execution = now.to_string();
    }
    // Also a rollback is an update of its own: what failed before does not count against it.
    changes.push(Change::PutSpec(record.into()));
    Ok(changes)
}

fn declare(record: &mut ServiceRecord, spec: ServiceSpec, update: &ServiceUpdate) -> Result<(), Denial> {
    let auth = match (update.declared.registry_auth.as_str(), update.auth_from) {
        ("", AuthFrom::Spec) => record.registry_auth.clone(),
        ("", AuthFrom::PreviousSpec) if record.service.previous_spec.is_none() => {
            return Err(Denial::plain(500, "service does not have a previous spec"));
        }
        ("", AuthFrom::PreviousSpec) => record.previous_registry_auth.clone(),
        (auth, _) => auth.to_owned(),
    };
    record.previous_registry_auth = std::mem::replace(&mut record.registry_auth, auth);
    record.service.previous_spec = Some(std::mem::replace(&mut record.service.spec, spec));
    record.service.update_status = None;
    Ok(())
}

/// Swaps what is with what was: done twice, all is as before.
fn roll_back(record: &mut ServiceRecord, now: Time) -> Result<(), Denial> {
    let Some(previous) = record.service.previous_spec.take() else {
        let text = format!("service {} does not have a previous spec", record.service.id);
        return Err(Refusal::new(Code::FailedPrecondition, text).into());
    };
    record.service.previous_spec = Some(std::mem::replace(&mut record.service.spec, previous));
    std::mem::swap(&mut record.registry_auth, &mut record.previous_registry_auth);
    record.service.update_status = Some(UpdateStatus {
        state: "rollback_started".into(),
        started_at: Some(now.to_string()),
        message: "manually requested rollback".into(),
        ..UpdateStatus::default()
    });
    Ok(())
}

/// Its tasks go by themselves.
pub fn remove_service(view: &View, text: &str) -> Changes {
    let service = lookup::service(view, text)?;
    Ok(vec![Change::Remove(Kind::Service, service.service.id.clone())])
}

/// Returns expectations of the networks, secrets and configs that it needs, or a refusal that names the missing ones.
fn references(view: &View, spec: &ServiceSpec) -> Changes {
    let networks = spec.task_template.networks.iter().filter(|it| view.networks.contains_key(&*it.target));
    let networks = networks.map(|it| Change::Expect(Kind::Network, it.target.clone(), 0));
    let mut changes: Vec<Change> = networks.collect();
    let Some(container) = &spec.task_template.container_spec else { return Ok(changes) };
    let secrets = container.secrets.iter().map(|it| (it.secret_id.as_str(), it.secret_name.as_str()));
    let configs = container.configs.iter().map(|it| (it.config_id.as_str(), it.config_name.as_str()));
    changes.extend(existing(Kind::Secret, secrets, |id| view.secrets.contains_key(id))?);
    changes.extend(existing(Kind::Config, configs, |id| view.configs.contains_key(id))?);
    Ok(changes)
}

fn existing<'r>(
    kind: Kind,
    references: impl Iterator<Item = (&'r str, &'r str)>,
    is_there: impl Fn(&str) -> bool,
) -> Changes {
    let (mut ids, mut missing) = (BTreeSet::new(), Vec::new());
    for (id, name) in references {
        if !is_there(id) {
            missing.push(name);
        } else if !id.is_empty() {
            ids.insert(id);
        }
    }
    if !missing.is_empty() {
        let s = if missing.len() > 1 { "s" } else { "" };
        let text = format!("{kind}{s} not found: {}", missing.join(", "));
        return Err(Refusal::new(Code::InvalidArgument, text).into());
    }
    Ok(ids.into_iter().map(|id| Change::Expect(kind, id.to_owned(), 0)).collect())
}

/// Checks that a port published on every node belongs to one service. Host ports of two services may be the same: no
/// node gets both.
fn ports_are_free(view: &View, spec: &ServiceSpec, own_id: Option<&str>) -> Result<(), Denial> {
    let wanted: Vec<&PortConfig> = published(spec).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let others = view.services.values().filter(|it| own_id != Some(it.service.id.as_str()));
    for other in others.map(|it| &it.service) {
        let mut taken: Vec<&PortConfig> = published(&other.spec).collect();
        // Ports that the swarm chose belong to their service, too.
        let dynamic = other.endpoint.ports.iter().filter(|it| it.published_port != 0 && !taken.contains(it));
        taken.extend(dynamic.collect::<Vec<_>>());
        for taken in taken {
            let same = |it: &&&PortConfig| it.protocol == taken.protocol && it.published_port == taken.published_port;
            let both_host = |it: &PortConfig| it.publish_mode == "host" && taken.publish_mode == "host";
            if wanted.iter().find(same).is_some_and(|it| !both_host(it)) {
                let how = if taken.publish_mode == "host" { "a host-published" } else { "an ingress" };
                let text = format!(
                    "port '{}' is already in use by service '{}' ({}) as {how} port",
                    taken.published_port, other.spec.name, other.id
                );
                return Err(Refusal::new(Code::InvalidArgument, text).into());
            }
        }
    }
    Ok(())
}

/// Names the networks by their ids, and refuses what a service cannot be on.
fn resolve_networks(view: &View, spec: &mut ServiceSpec, local: &BTreeSet<String>) -> Result<(), Denial> {
    let ports = spec.endpoint_spec.iter().flat_map(|it| &it.ports);
    if ports.into_iter().any(PortConfig::is_ingress) && view.ingress().is_none() {
        let text = "service needs ingress network, but no ingress network is present";
        return Err(Refusal::new(Code::FailedPrecondition, text).into());
    }
    for config in &mut spec.task_template.networks {
        if allocate::is_everywhere(&config.target) {
            continue;
        }
        let network = lookup::network(view, &config.target).map_err(|denial| match local.contains(&config.target) {
            true => Denial::plain(403, format!("The network {} {LOCAL}", config.target)),
            false => denial,
        })?;
        if network.spec.ingress {
            let text = format!("Service cannot be explicitly attached to the ingress network {:?}", network.name);
            return Err(Refusal::new(Code::InvalidArgument, text).into());
        }
        fixed_addresses(network, config, &spec.mode)?;
        config.target.clone_from(&network.id);
    }
    Ok(())
}

/// Checks the addresses that a service fixes for its slots.
fn fixed_addresses(
    network: &NetworkRecord,
    config: &NetworkAttachmentConfig,
    mode: &ServiceMode,
) -> Result<(), Denial> {
    let Some(text) = config.driver_opts.get(allocate::FIXED_OPTION) else { return Ok(()) };
    let refused = |reason: String| {
        let text = format!("invalid {} {text:?} of network {}: {reason}", allocate::FIXED_OPTION, network.spec.name);
        Err(Refusal::new(Code::InvalidArgument, text).into())
    };
    if mode.global.is_some() || mode.global_job.is_some() {
        return refused("only tasks of replicated services have slots".into());
    }
    let subnet = allocate::subnet_of(network);
    let Some((first, last)) = allocate::fixed_range(text) else {
        return refused("expected an address, or a range such as 10.0.1.50-59".into());
    };
    match subnet.filter(|it| it.first <= first && last <= it.last) {
        Some(_) => Ok(()),
        None => {
            let own = subnet.map_or("no addresses".to_owned(), |it| format!("{} to {}", it.first, it.last));
            refused(format!("the network has {own}"))
        }
    }
}

fn published(spec: &ServiceSpec) -> impl Iterator<Item = &PortConfig> {
    spec.endpoint_spec.iter().flat_map(|it| &it.ports).filter(|it| it.published_port != 0)
}
