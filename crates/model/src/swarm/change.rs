//! The writes of the store: commands of several changes, applied whole or not at all.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    ClusterRecord, Config, Meta, NetworkRecord, NodeRecord, Resource, Secret, ServiceRecord, TaskRecord, Time, Word,
    words,
};

words! {
    /// Kinds of objects, with the names that Docker's events and messages have for them.
    pub enum Kind {
        Cluster = "cluster",
        Node = "node",
        Service = "service",
        Task = "task",
        Secret = "secret",
        Config = "config",
        Network = "network",
        ;
        /// Objects that this release keeps without a type of their own: see [`Resource`].
        Resource
    }
}

/// An object as it is kept: in JSON `{"task": {…}}`, with its kind as the name.
///
/// A kind that gets a type of its own here must have, at the top of its JSON, what every [`Resource`] has: older releases keep it
/// as one, and must come to the same state.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Cluster(Arc<ClusterRecord>),
    Node(Arc<NodeRecord>),
    Service(Arc<ServiceRecord>),
    Task(Arc<TaskRecord>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
    Network(Arc<NetworkRecord>),
    /// An object of a later release, or of a feature that needs no type here.
    Resource(Arc<Resource>),
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Object::Cluster(_) => Kind::Cluster,
            Object::Node(_) => Kind::Node,
            Object::Service(_) => Kind::Service,
            Object::Task(_) => Kind::Task,
            Object::Secret(_) => Kind::Secret,
            Object::Config(_) => Kind::Config,
            Object::Network(_) => Kind::Network,
            Object::Resource(it) => Kind::Resource(it.kind),
        }
    }

    pub fn id(&self) -> &str {
        match self {
            Object::Cluster(it) => &it.cluster.id,
            Object::Node(it) => &it.node.id,
            Object::Service(it) => &it.service.id,
            Object::Task(it) => &it.task.id,
            Object::Secret(it) => &it.id,
            Object::Config(it) => &it.id,
            Object::Network(it) => &it.id,
            Object::Resource(it) => &it.id,
        }
    }

    /// Name that clients see. Nodes and tasks have none: hostnames, and names made of service and slot, do not count.
    pub fn name(&self) -> &str {
        match self {
            Object::Cluster(it) => &it.cluster.spec.name,
            Object::Node(it) => &it.node.description.hostname,
            Object::Service(it) => &it.service.spec.name,
            Object::Task(it) => &it.task.name,
            Object::Secret(it) => &it.spec.name,
            Object::Config(it) => &it.spec.name,
            Object::Network(it) => &it.name,
            Object::Resource(it) => &it.name,
        }
    }

    pub fn meta(&self) -> &Meta {
        match self {
            Object::Cluster(it) => &it.cluster.meta,
            Object::Node(it) => &it.node.meta,
            Object::Service(it) => &it.service.meta,
            Object::Task(it) => &it.task.meta,
            Object::Secret(it) => &it.meta,
            Object::Config(it) => &it.meta,
            Object::Network(it) => &it.meta,
            Object::Resource(it) => &it.meta,
        }
    }

    /// Makes a write of this object one that replaces that version.
    pub fn rebase(&mut self, version: u64) {
        self.meta_mut().version.index = version;
    }

    pub(super) fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Object::Cluster(it) => &mut Arc::make_mut(it).cluster.meta,
            Object::Node(it) => &mut Arc::make_mut(it).node.meta,
            Object::Service(it) => &mut Arc::make_mut(it).service.meta,
            Object::Task(it) => &mut Arc::make_mut(it).task.meta,
            Object::Secret(it) => &mut Arc::make_mut(it).meta,
            Object::Config(it) => &mut Arc::make_mut(it).meta,
            Object::Network(it) => &mut Arc::make_mut(it).meta,
            Object::Resource(it) => &mut Arc::make_mut(it).meta,
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        let kind = self.kind().as_str();
        match self {
            Object::Cluster(it) => map.serialize_entry(kind, it)?,
            Object::Node(it) => map.serialize_entry(kind, it)?,
            Object::Service(it) => map.serialize_entry(kind, it)?,
            Object::Task(it) => map.serialize_entry(kind, it)?,
            Object::Secret(it) => map.serialize_entry(kind, it)?,
            Object::Config(it) => map.serialize_entry(kind, it)?,
            Object::Network(it) => map.serialize_entry(kind, it)?,
            Object::Resource(it) => map.serialize_entry(kind, it)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Objects;

        impl<'de> Visitor<'de> for Objects {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object under the name of its kind")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let kind = map.next_key::<Kind>()?.ok_or_else(|| A::Error::custom("an object without a kind"))?;
                let object = match kind {
                    Kind::Cluster => Object::Cluster(map.next_value()?),
                    Kind::Node => Object::Node(map.next_value()?),
                    Kind::Service => Object::Service(map.next_value()?),
                    Kind::Task => Object::Task(map.next_value()?),
                    Kind::Secret => Object::Secret(map.next_value()?),
                    Kind::Config => Object::Config(map.next_value()?),
                    Kind::Network => Object::Network(map.next_value()?),
                    Kind::Resource(kind) => Object::Resource(Arc::new(map.next_value_seed(Resource::of(kind))?)),
                };
                match map.next_key::<Word>()? {
                    None => Ok(object),
                    Some(more) => Err(A::Error::custom(format!("an object of two kinds: {kind} and {more}"))),
                }
            }
        }
        deserializer.deserialize_map(Objects)
    }
}

/// One of the changes of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Writes an object. Its `meta.version` says what is replaced: 0 for a new one, else the version that is known. Version and
    /// times are set by the write.
    Put(Object),
    /// Same as [`Change::Put`], and marks the write that gave a service its specification.
    PutSpec(Arc<ServiceRecord>),
    /// Removes an object; a missing object is no error.
    Remove(Kind, String),
    /// Changes nothing. The command counts only if this object is there with this version of it; 0: with any.
    Expect(Kind, String, u64),
}

impl From<Object> for Change {
    fn from(object: Object) -> Change {
        Change::Put(object)
    }
}

macro_rules! puts {
    ($($record:ty => $kind:ident),*) => {$(
        impl From<$record> for Change {
            fn from(record: $record) -> Change {
                Change::Put(Object::$kind(Arc::new(record)))
            }
        }
    )*};
}

puts!(
    ClusterRecord => Cluster,
    NodeRecord => Node,
    ServiceRecord => Service,
    TaskRecord => Task,
    Secret => Secret,
    Config => Config,
    NetworkRecord => Network,
    Resource => Resource
);

/// Changes that are written at once, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Time of the write, by the leader's clock.
    pub at: Time,
    pub changes: Vec<Change>,
}

/// The effect of a command on one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub before: Option<Object>,
    pub after: Option<Object>,
}

/// The effect on an object, in the words of Docker's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Create,
    Update,
    Remove,
}

impl Written {
    pub fn action(&self) -> Action {
        match (&self.before, &self.after) {
            (None, _) => Action::Create,
            (Some(_), Some(_)) => Action::Update,
            (Some(_), None) => Action::Remove,
        }
    }

    /// The object as it is now, or as it was last.
    pub fn object(&self) -> Option<&Object> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

/// Reason why a command was not applied. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Conflict {
    /// Another client wrote the object meanwhile. The text is that of swarm mode.
    #[error("update out of sequence")]
    Sequence { kind: Kind, id: String },
    /// The object was removed.
    #[error("{kind} {id} not found")]
    Gone { kind: Kind, id: String },
    /// Another object of the kind has the name.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    Name { kind: Kind, name: String },
}
