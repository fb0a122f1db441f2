//! The records that a swarm keeps of stacks. Each is stored as a [`Resource`] of its own kind.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use herder_compose::Pins;
use herder_deploy::images::Images;
use herder_deploy::{Action, Journal, Kind};
use herder_model::swarm::{Resource, View, Word};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;

/// The kinds of records.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    pub stack: Word,
    pub revision: Word,
    pub operation: Word,
    pub target: Word,
    /// The key under which credentials are sealed.
    pub key: Word,
}

/// The kinds of records; nothing if this process has seen too many words that it does not know.
pub fn kinds() -> Option<Kinds> {
    static KINDS: LazyLock<Option<Kinds>> = LazyLock::new(|| {
        let word = |text| Word::new(text).ok();
        Some(Kinds {
            stack: word("stack")?,
            revision: word("stack-revision")?,
            operation: word("stack-operation")?,
            target: word("stack-target")?,
            key: word("stack-key")?,
        })
    });
    *KINDS
}

/// The state of a stack as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StackState {
    #[default]
    Deploying,
    Active,
    /// The last deployment did not converge in its time.
    Degraded,
    /// The first deployment failed, or one that leaves everything as it is on failure.
    Failed,
    /// The last deployment failed, and the revision before it is in place.
    RolledBack,
    Removing,
    /// A word of a later release.
    #[serde(other)]
    Other,
}

/// A stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stack {
    pub target: String,
    pub stack: String,
    pub state: StackState,
    /// The revision that is in place; 0 while there is none.
    pub revision: u64,
    /// The highest number that a revision got.
    pub last: u64,
    /// Id of the operation under way; empty if there is none.
    pub operation: String,
    /// The reason of the last failure.
    pub error: String,
    /// The author of the last change.
    pub by: String,
    /// Names that objects have from the time before it was renamed. Written where it is empty, too: a member that is not
    /// written stays as it was.
    pub pins: Pins,
}

impl Stack {
    /// The volumes that do not have the name of the stack in front.
    pub fn pinned_volumes(&self) -> BTreeSet<String> {
        self.pins.get("volumes").into_iter().flat_map(|all| all.values().cloned()).collect()
    }

    /// Makes an operation the present one.
    pub(crate) fn take(&mut self, id: &str, operation: &Operation) {
        id.clone_into(&mut self.operation);
        self.by.clone_from(&operation.by);
        self.state = if operation.verb == Verb::Remove { StackState::Removing } else { StackState::Deploying };
    }
}

/// Options of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployOptions {
    /// Remove objects of the stack that the files do not name any more.
    pub prune: bool,
    /// The time for all of it.
    pub timeout_seconds: u64,
    /// Leave everything as it is on failure.
    pub keep: bool,
    /// Lookup of images: `always`, `changed`, `never`.
    pub resolve: String,
}

impl Default for DeployOptions {
    fn default() -> DeployOptions {
        DeployOptions { prune: true, timeout_seconds: 600, keep: false, resolve: "always".into() }
    }
}

/// One version of a stack's source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Revision {
    pub target: String,
    pub stack: String,
    pub number: u64,
    pub by: String,
    /// `deployed`, `failed` or `rolled_back`; empty before the end of its operation.
    pub outcome: String,
    /// The revision that this one repeats; 0 for one with a source of its own.
    pub repeats: u64,
    pub bundle: Bundle,
    /// Digests that the registries gave when it was declared.
    pub images: Images,
    pub options: DeployOptions,
}

/// The verb of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    #[default]
    Deploy,
    Rollback,
    Remove,
    /// A word of a later release.
    #[serde(other)]
    Other,
}

/// The state of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    #[default]
    Queued,
    Running,
    Succeeded,
    Failed,
    RolledBack,
    Cancelled,
    /// A word of a later release.
    #[serde(other)]
    Other,
}

impl OperationState {
    pub fn is_over(self) -> bool {
        !matches!(self, OperationState::Queued | OperationState::Running)
    }
}

/// The state of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    #[default]
    Waiting,
    Done,
    Undone,
    #[serde(other)]
    Other,
}

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub action: String,
    pub kind: String,
    pub subject: String,
    #[serde(default)]
    pub state: StepState,
}

impl StepRecord {
    pub(crate) fn of(action: Action, kind: Kind, subject: &str) -> StepRecord {
        let action = match action {
            Action::Create => "create",
            Action::Update => "update",
            Action::Remove => "remove",
            Action::Keep => "keep",
        };
        let (kind, subject) = (kind.word().to_owned(), subject.to_owned());
        StepRecord { action: action.into(), kind, subject, state: StepState::Waiting }
    }
}

/// A deployment, rollback or removal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operation {
    pub verb: Verb,
    pub target: String,
    pub stack: String,
    /// The revision that is deployed; 0 for a removal.
    pub revision: u64,
    pub by: String,
    pub state: OperationState,
    pub started: String,
    pub finished: String,
    pub timeout_seconds: u64,
    /// True if a removal takes the volumes as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub volumes: bool,
    /// True if somebody asked to end it.
    pub cancel: bool,
    /// True if the time was over before all tasks ran; the cluster goes on.
    pub late: bool,
    pub steps: Vec<StepRecord>,
    /// The news, one line each.
    pub log: Vec<String>,
    /// Lines that were dropped from the beginning of `log`.
    pub log_dropped: u64,
    /// The reason of a failure.
    pub error: String,
    /// The node that carries it out.
    pub runner: String,
    /// The state before it, once its first plan is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<Journal>,
}

/// A record with what every stored object has.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<T> {
    pub id: String,
    pub version: u64,
    pub created_at: String,
    pub updated_at: String,
    pub record: T,
}

impl<T: DeserializeOwned> Found<T> {
    pub(crate) fn of(resource: &Resource) -> Option<Found<T>> {
        match resource.read() {
            Ok(record) => Some(Found {
                id: resource.id.clone(),
                version: resource.meta.version.index,
                created_at: resource.meta.created_at.clone(),
                updated_at: resource.meta.updated_at.clone(),
                record,
            }),
            Err(error) => {
                tracing::warn!(%error, "skipping a malformed record");
                None
            }
        }
    }
}

/// The name of a stack's record.
pub fn record_name(target: &str, stack: &str) -> String {
    format!("{target}/{stack}")
}

/// The record of an id.
pub fn find<T: DeserializeOwned>(view: &View, kind: Word, id: &str) -> Option<Found<T>> {
    view.resources.get(&kind)?.get(id).and_then(|it| Found::of(it))
}

/// All stacks of a target, by name.
pub fn stacks(view: &View, target: &str) -> Vec<Found<Stack>> {
    let Some(kinds) = kinds() else { return Vec::new() };
    let all = view.resources_of(kinds.stack).filter_map(|it| Found::<Stack>::of(it));
    let mut all: Vec<Found<Stack>> = all.filter(|it| it.record.target == target).collect();
    all.sort_by(|a, b| a.record.stack.cmp(&b.record.stack));
    all
}

/// The stack of a name.
pub fn stack(view: &View, target: &str, name: &str) -> Option<Found<Stack>> {
    stacks(view, target).into_iter().find(|it| it.record.stack == name)
}

/// Names that the objects of a stack keep; see [`herder_compose::Desired::pin`].
pub fn pins(view: &View, target: &str, name: &str) -> Pins {
    stack(view, target, name).map(|it| it.record.pins).unwrap_or_default()
}

/// The revisions of a stack, the newest first.
pub fn revisions(view: &View, target: &str, stack: &str) -> Vec<Found<Revision>> {
    let Some(kinds) = kinds() else { return Vec::new() };
    let prefix = format!("{}/", record_name(target, stack));
    let of_stack = view.resources_of(kinds.revision).filter(|it| it.name.starts_with(&prefix));
    let mut all: Vec<Found<Revision>> = of_stack.filter_map(|it| Found::of(it)).collect();
    all.sort_by_key(|it| std::cmp::Reverse(it.record.number));
    all
}

/// All operations, the newest first.
pub fn operations(view: &View) -> Vec<Found<Operation>> {
    let Some(kinds) = kinds() else { return Vec::new() };
    let mut all: Vec<Found<Operation>> = view.resources_of(kinds.operation).filter_map(|it| Found::of(it)).collect();
    all.sort_by(|a, b| (&b.record.started, &b.id).cmp(&(&a.record.started, &a.id)));
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use herder_model::swarm::{ClusterRecord, LEVEL, Object, View};

    /// An empty swarm whose managers all have this release.
    pub(crate) fn view_of_this_release() -> View {
        let cluster = ClusterRecord { level: LEVEL, ..ClusterRecord::default() };
        View::of(1, [Object::Cluster(cluster.into())])
    }
}
