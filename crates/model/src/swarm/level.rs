//! Feature levels: what the releases of a swarm can read and write.
//!
//! Each node tells the level of its release. The level of the swarm is the least of its managers', and is in its record; the
//! leader raises it when all can (`decide::swarm::nodes::level`). Nothing is written that needs a higher one.

use std::fmt;

use super::{Change, Kind, Object, TaskSpec};

/// The level of this release. A release that writes something that the one before cannot read has a higher one.
pub const LEVEL: u32 = 3;

/// A feature that the swarm has from some level on. Releases that report no level have level 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Unknown members, words and kinds are preserved, and with them objects without a type of their own.
    Resources,
    /// Overlay networks, and what is on them.
    Networks,
    /// Managers certify the nodes, and no other node has the key of the root.
    Certificates,
    /// The member [`EXTENSION`] of container specs: nodes before it ran tasks as if it were not there.
    Extension,
    /// Stacks, their operations that wait for one another, and targets.
    Stacks,
}

/// The member of a container spec with settings that the swarm API has no word for, and with hooks.
pub const EXTENSION: &str = "Herder";

/// True of a service whose tasks need nodes that know [`EXTENSION`].
pub fn is_extended(spec: &TaskSpec) -> bool {
    spec.container_spec.as_ref().is_some_and(|it| it.rest.get(EXTENSION).is_some())
}

impl Feature {
    /// The lowest level at which it may be used.
    pub fn level(self) -> u32 {
        match self {
            Feature::Resources => 1,
            Feature::Networks | Feature::Certificates => 2,
            Feature::Extension | Feature::Stacks => 3,
        }
    }

    /// Returns the feature that a change needs, if some release lacks it.
    pub fn of(change: &Change) -> Option<Feature> {
        match change {
            Change::Put(Object::Resource(it)) if it.kind.as_str().starts_with("stack") => Some(Feature::Stacks),
            // A record that is there already may be written again: its declaration was let through.
            Change::PutSpec(it) if is_extended(&it.service.spec.task_template) => Some(Feature::Extension),
            Change::Put(Object::Resource(_))
            | Change::Remove(Kind::Resource(_), _)
            | Change::Expect(Kind::Resource(_), ..) => Some(Feature::Resources),
            Change::Put(Object::Network(_)) | Change::Remove(Kind::Network, _) | Change::Expect(Kind::Network, ..) => {
                Some(Feature::Networks)
            }
            Change::Put(
                Object::Cluster(_)
                | Object::Node(_)
                | Object::Service(_)
                | Object::Task(_)
                | Object::Secret(_)
                | Object::Config(_),
            )
            | Change::PutSpec(_)
            | Change::Remove(..)
            | Change::Expect(..) => None,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::Resources => "stored resources",
            Feature::Networks => "overlay networks",
            Feature::Certificates => "certificates by managers",
            Feature::Extension => "settings beyond the swarm API (ContainerSpec.Herder)",
            Feature::Stacks => "stacks",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::swarm::{Resource, ServiceRecord, Word};

    #[test]
    fn a_change_needs_the_level_of_the_newest_that_it_declares() {
        let service = |container: serde_json::Value| {
            let spec = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": container}, "Mode": {}});
            let service = json!({"ID": "s", "Spec": spec, "Endpoint": {"Spec": {}}});
            serde_json::from_value::<ServiceRecord>(json!({"service": service})).expect("a record")
        };
        // What is in the member does not count: a later release may have more there.
        let extended = service(json!({"Image": "i", "Herder": {"Hooks": {"PreRemove": [{}]}}}));
        let resource = |kind: &str| {
            let kind = Word::new(kind).expect("a word");
            Change::from(Resource::new(kind, "r", "", &json!({})).expect("a resource"))
        };
        for (change, feature) in [
            (Change::PutSpec(service(json!({"Image": "i"})).into()), None),
            (Change::PutSpec(extended.clone().into()), Some(Feature::Extension)),
            (Change::Put(Object::Service(extended.into())), None),
            (resource("stack"), Some(Feature::Stacks)),
            (resource("stack-operation"), Some(Feature::Stacks)),
            (resource("ingress"), Some(Feature::Resources)),
        ] {
            assert_eq!(Feature::of(&change), feature, "{change:?}");
        }
    }
}
