//! What is written: commands of several changes, all of them or none.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClusterRecord, Config, Meta, NetworkRecord, NodeRecord, Secret, ServiceRecord, TaskRecord, Time};

/// Kinds of objects, with the names that Docker's events and messages have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Cluster,
    Node,
    Service,
    Task,
    Secret,
    Config,
    Network,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Cluster => "cluster",
            Kind::Node => "node",
            Kind::Service => "service",
            Kind::Task => "task",
            Kind::Secret => "secret",
            Kind::Config => "config",
            Kind::Network => "network",
        })
    }
}

/// An object as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    Cluster(Arc<ClusterRecord>),
    Node(Arc<NodeRecord>),
    Service(Arc<ServiceRecord>),
    Task(Arc<TaskRecord>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
    Network(Arc<NetworkRecord>),
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
        }
    }

    /// As clients see it: hostnames of nodes, names of tasks from service and slot are not it.
    pub fn name(&self) -> &str {
        match self {
            Object::Cluster(it) => &it.cluster.spec.name,
            Object::Node(it) => &it.node.description.hostname,
            Object::Service(it) => &it.service.spec.name,
            Object::Task(it) => &it.task.name,
            Object::Secret(it) => &it.spec.name,
            Object::Config(it) => &it.spec.name,
            Object::Network(it) => &it.name,
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
        }
    }
}

/// One of the changes of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Writes an object. Its `meta.version` says what is replaced: 0 for a new one, else the version that is known. Version and
    /// times are set by the write.
    Put(Object),
    /// As [`Change::Put`]; and if it is a service, this write is the one that gave it its specification.
    PutSpec(Arc<ServiceRecord>),
    /// Takes an object away; none with this id is as good.
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
    NetworkRecord => Network
);

/// Changes that are written at once, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Of the leader's clock.
    pub at: Time,
    pub changes: Vec<Change>,
}

/// What a command did to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub before: Option<Object>,
    pub after: Option<Object>,
}

/// What happened to an object, in the words of Docker's events.
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

/// Why a command was not applied. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Conflict {
    /// Somebody wrote it meanwhile. The text is that of swarm mode.
    #[error("update out of sequence")]
    Sequence { kind: Kind, id: String },
    /// It is gone.
    #[error("{kind} {id} not found")]
    Gone { kind: Kind, id: String },
    /// Another object of the kind has the name.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    Name { kind: Kind, name: String },
}
