//! Secrets and configs.

use herder_model::swarm::{Change, Config, ConfigSpec, ContainerSpec, Kind, Secret, SecretSpec, View};

use super::supersede::{earlier_name, is_versioned, mark_superseded};
use super::{Changes, check_version};
use crate::swarm::{self, Code, Denial, Refusal, lookup};

/// `id` is the new secret's.
pub fn create_secret(view: &View, spec: SecretSpec, id: String) -> Changes {
    swarm::secret(&spec)?;
    is_free(view, Kind::Secret, &spec.name)?;
    Ok(vec![Secret { id, spec, ..Secret::default() }.into()])
}

/// `id` is the new config's.
pub fn create_config(view: &View, spec: ConfigSpec, id: String) -> Changes {
    swarm::config(&spec)?;
    is_free(view, Kind::Config, &spec.name)?;
    Ok(vec![Config { id, spec, ..Config::default() }.into()])
}

fn is_free(view: &View, kind: Kind, name: &str) -> Result<(), Denial> {
    match view.named(kind, name) {
        Some(_) => Err(Refusal::new(Code::AlreadyExists, format!("{kind} {name} already exists")).into()),
        None => Ok(()),
    }
}

fn only_labels() -> Denial {
    Refusal::new(Code::InvalidArgument, "only updates to Labels are allowed").into()
}

/// Changes the labels of a secret; new data of a versioned one become a new secret with its name.
///
/// `id` is the new secret's.
///
/// # Errors
///
/// Refuses another name, other data of a secret that is not versioned, and a version that is not the present one.
pub fn update_secret(view: &View, text: &str, version: u64, spec: SecretSpec, id: String) -> Changes {
    let known = lookup::secret(view, text)?;
    let same_data = spec.data.is_empty() || spec.data == known.spec.data;
    let is_versioned = is_versioned(known.spec.labels.as_ref()) || is_versioned(spec.labels.as_ref());
    if spec.name != known.spec.name || !(same_data || is_versioned) {
        return Err(only_labels());
    }
    check_version(Kind::Secret, &known.id, version, known.meta.version.index)?;
    let mut secret = Secret::clone(known);
    if same_data {
        secret.spec.labels = spec.labels;
        return Ok(vec![secret.into()]);
    }
    swarm::secret(&spec)?;
    secret.spec.name = earlier_name(&secret.spec.name, version);
    is_free(view, Kind::Secret, &secret.spec.name)?;
    mark_superseded(&mut secret.spec.labels);
    Ok(vec![secret.into(), Secret { id, spec, ..Secret::default() }.into()])
}

/// Changes the labels of a config; new data of a versioned one become a new config with its name.
///
/// `id` is the new config's.
///
/// # Errors
///
/// Refuses another name, other data of a config that is not versioned, and a version that is not the present one.
pub fn update_config(view: &View, text: &str, version: u64, spec: ConfigSpec, id: String) -> Changes {
    let known = lookup::config(view, text)?;
    let same_data = spec.data.is_empty() || spec.data == known.spec.data;
    let is_versioned = is_versioned(known.spec.labels.as_ref()) || is_versioned(spec.labels.as_ref());
    if spec.name != known.spec.name || !(same_data || is_versioned) {
        return Err(only_labels());
    }
    check_version(Kind::Config, &known.id, version, known.meta.version.index)?;
    let mut config = Config::clone(known);
    if same_data {
        config.spec.labels = spec.labels;
        return Ok(vec![config.into()]);
    }
    swarm::config(&spec)?;
    config.spec.name = earlier_name(&config.spec.name, version);
    is_free(view, Kind::Config, &config.spec.name)?;
    mark_superseded(&mut config.spec.labels);
    Ok(vec![config.into(), Config { id, spec, ..Config::default() }.into()])
}

/// Refused while a service has it.
pub fn remove_secret(view: &View, text: &str) -> Changes {
    let secret = lookup::secret(view, text)?;
    let uses = |spec: &ContainerSpec| spec.secrets.iter().any(|it| it.secret_id == secret.id);
    is_unused(view, Kind::Secret, &secret.spec.name, uses)?;
    Ok(vec![Change::Remove(Kind::Secret, secret.id.clone())])
}

/// Refused while a service has it.
pub fn remove_config(view: &View, text: &str) -> Changes {
    let config = lookup::config(view, text)?;
    let uses = |spec: &ContainerSpec| spec.configs.iter().any(|it| it.config_id == config.id);
    is_unused(view, Kind::Config, &config.spec.name, uses)?;
    Ok(vec![Change::Remove(Kind::Config, config.id.clone())])
}

fn is_unused(view: &View, kind: Kind, name: &str, uses: impl Fn(&ContainerSpec) -> bool) -> Result<(), Denial> {
    let services = view.services.values().map(|it| &it.service.spec);
    let users = services.filter(|it| it.task_template.container_spec.as_ref().is_some_and(&uses));
    let mut users: Vec<&str> = users.map(|it| it.name.as_str()).collect();
    users.sort_unstable();
    let service = match users.len() {
        0 => return Ok(()),
        1 => "service",
        _ => "services",
    };
    let text = format!("{kind} '{name}' is in use by the following {service}: {}", users.join(", "));
    Err(Refusal::new(Code::InvalidArgument, text).into())
}
