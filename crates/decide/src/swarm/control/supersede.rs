//! Secrets and configs whose data is edited in place.
//!
//! The data of an object never changes, so that a task and a rollback get the data that they were declared with. An update of a
//! versioned object gives its name to a new object and renames the old one. Clients resolve names before they update a service:
//! it refers to the new object from then on, its tasks are replaced, and a rollback refers to the old object again.
//! Swarm mode refuses such an update (moby issue 35048).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use herder_model::swarm::{Change, Kind, Meta, Time, View};

/// The label of the objects of a stack: `docker stack deploy` updates them in place.
const STACK_LABEL: &str = "com.docker.stack.namespace";
/// The label, `true`, that lets the data of an object outside of a stack be edited.
const VERSIONED_LABEL: &str = "herder.versioned";
/// The label, `true`, of an object whose name another one has now.
pub const SUPERSEDED_LABEL: &str = "herder.superseded";

/// Longest name of a secret or config that swarm mode accepts, in characters.
const NAME_MAX: usize = 64;
/// Time for which a superseded object is kept although nothing refers to it.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

type Labels = BTreeMap<String, String>;

/// True if an update may change the data of an object with these labels.
pub(super) fn is_versioned(labels: Option<&Labels>) -> bool {
    let Some(labels) = labels else { return false };
    labels.contains_key(STACK_LABEL) || labels.get(VERSIONED_LABEL).is_some_and(|it| it == "true")
}

/// Returns the name of an object that is superseded: its own, cut if it must be, and its version.
pub(super) fn earlier_name(name: &str, version: u64) -> String {
    let version = format!(".{version:08x}");
    let kept: String = name.chars().take(NAME_MAX.saturating_sub(version.len())).collect();
    kept + &version
}

pub(super) fn mark_superseded(labels: &mut Option<Labels>) {
    labels.get_or_insert_default().insert(SUPERSEDED_LABEL.to_owned(), "true".to_owned());
}

/// Returns the removals of superseded objects that nothing has referred to for a day.
///
/// A service refers to them by its present and its previous specification, a task by its own.
pub fn remove_superseded(view: &View, now: Time) -> Vec<Change> {
    let due = |labels: Option<&Labels>, meta: &Meta| {
        let is_marked = labels.is_some_and(|it| it.get(SUPERSEDED_LABEL).is_some_and(|it| it == "true"));
        is_marked && Time::parse(&meta.updated_at).is_some_and(|it| now >= it + KEPT)
    };
    let secrets = view.secrets.values().filter(|it| due(it.spec.labels.as_ref(), &it.meta));
    let configs = view.configs.values().filter(|it| due(it.spec.labels.as_ref(), &it.meta));
    let mut due: BTreeSet<(Kind, &str)> = secrets.map(|it| (Kind::Secret, &*it.id)).collect();
    due.extend(configs.map(|it| (Kind::Config, &*it.id)));
    if due.is_empty() {
        return Vec::new();
    }
    let services = view.services.values().map(|it| &it.service);
    let specs =
        services.flat_map(|it| [Some(&it.spec), it.previous_spec.as_ref()]).flatten().map(|it| &it.task_template);
    let of_tasks = view.tasks.values().map(|it| &*it.task.spec);
    for spec in specs.chain(of_tasks).filter_map(|it| it.container_spec.as_ref()) {
        for secret in &spec.secrets {
            due.remove(&(Kind::Secret, &*secret.secret_id));
        }
        for config in &spec.configs {
            due.remove(&(Kind::Config, &*config.config_id));
        }
    }
    due.into_iter().map(|(kind, id)| Change::Remove(kind, id.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_earlier_objects_are_short_enough() {
        for (name, version, expected) in [
            ("shop_conf", 42, "shop_conf.0000002a".to_owned()),
            ("shop_conf", u64::MAX, "shop_conf.ffffffffffffffff".to_owned()),
            (&"n".repeat(64), 1, format!("{}.00000001", "n".repeat(55))),
        ] {
            assert_eq!(earlier_name(name, version), expected);
        }
    }
}
