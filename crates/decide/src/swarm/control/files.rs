//! Secrets and configs.

use herder_model::swarm::{Change, Config, ConfigSpec, ContainerSpec, Kind, Secret, SecretSpec, View};

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

/// Changes the labels, and nothing else.
pub fn update_secret(view: &View, text: &str, version: u64, spec: SecretSpec) -> Changes {
    let mut secret = Secret::clone(lookup::secret(view, text)?);
    let same_data = spec.data.is_empty() || spec.data == secret.spec.data;
    if spec.name != secret.spec.name || !same_data {
        return Err(only_labels());
    }
    check_version(Kind::Secret, &secret.id, version, secret.meta.version.index)?;
    secret.spec.labels = spec.labels;
    Ok(vec![secret.into()])
}

/// Changes the labels, and nothing else.
pub fn update_config(view: &View, text: &str, version: u64, spec: ConfigSpec) -> Changes {
    let mut config = Config::clone(lookup::config(view, text)?);
    let same_data = spec.data.is_empty() || spec.data == config.spec.data;
    if spec.name != config.spec.name || !same_data {
        return Err(only_labels());
    }
    check_version(Kind::Config, &config.id, version, config.meta.version.index)?;
    config.spec.labels = spec.labels;
    Ok(vec![config.into()])
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
