//! Carries an operation out, and writes how far it is.

use std::sync::Arc;
use std::time::Duration;

use herder_deploy::{
    Action, Api, Fault, Journal, News, Plan, Progress, Settings, apply, images, observe, remove, undo,
};
use herder_model::swarm::{Change, Conflict, Kind, ResourceError, View};
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::begin::put;
use crate::queue::line;
use crate::record::{
    Found, Kinds, Operation, OperationState, Revision, Stack, StackState, StepRecord, StepState, Verb, find, kinds,
    pins, revisions, stack, stacks,
};

/// Interval at which the progress is written, and a request to end the operation is read.
const WRITE_PERIOD: Duration = Duration::from_millis(250);
/// Lines of news that are kept of an operation.
const LOG_LINES_MAX: usize = 300;
/// Maximum attempts at a write that conflicts with a concurrent one.
const ATTEMPTS_MAX: u32 = 8;

/// The swarm's state, where records of stacks are kept.
pub trait Records: Sync {
    /// Reads the declared objects, not older than this call.
    fn read(&self) -> impl Future<Output = Result<View, String>> + Send;
    /// Writes all changes or none.
    fn write(&self, changes: Vec<Change>) -> impl Future<Output = Result<View, NotWritten>> + Send;
    /// The time as RFC 3339 writes it.
    fn now(&self) -> String;
}

/// The reason for which nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error("{0}")]
    Failed(String),
}

/// The reason for which this node stops, and leaves the operation to another.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error("another node carries the operation out, or it is over")]
    Taken,
    #[error("the managers cannot be asked: {0}")]
    Failed(String),
}

/// Carries an operation out until its end. `me` is the id of this node.
///
/// It may have been begun by another node: what is done is found as it is, and the rest is done. Ends early where another
/// node takes it over; errors of the managers leave it as it is, for another attempt.
pub async fn run(records: &impl Records, api: &impl Api, id: &str, me: &str) {
    if let Err(left) = carry_out(records, api, id, me).await {
        tracing::info!(operation = id, reason = %left, "leaving an operation to another node");
    }
}

/// Ends an operation whose target cannot be reached, before anything was done.
pub async fn fail(records: &impl Records, api: &impl Api, id: &str, me: &str, reason: &str) {
    let outcome = async {
        let (mut run, _) = open(records, api, id, me).await?;
        run.claim().await?;
        run.end(Outcome::failed(reason)).await
    };
    if let Err(left) = outcome.await {
        tracing::info!(operation = id, reason = %left, "an operation is left");
    }
}

/// Reads an operation that is not over, with `me` as its runner, and the view that it was read from.
async fn open<'r, R: Records, A: Api>(
    records: &'r R,
    api: &'r A,
    id: &'r str,
    me: &'r str,
) -> Result<(Run<'r, R, A>, View), Left> {
    let Some(kinds) = kinds() else { return Err(Left::Failed("too many kinds of objects".into())) };
    let view = records.read().await.map_err(Left::Failed)?;
    let found = find::<Operation>(&view, kinds.operation, id).filter(|it| !it.record.state.is_over());
    let mut operation = found.ok_or(Left::Taken)?.record;
    operation.runner = me.to_owned();
    Ok((Run { records, api, kinds, id, me, operation }, view))
}

async fn carry_out(records: &impl Records, api: &impl Api, id: &str, me: &str) -> Result<(), Left> {
    let (mut run, view) = open(records, api, id, me).await?;
    run.operation.state = OperationState::Running;
    run.claim().await?;
    if run.operation.cancel && run.operation.journal.is_none() {
        let error = "it was cancelled before it began".to_owned();
        return run.end(Outcome { state: OperationState::Cancelled, error, late: false }).await;
    }
    let outcome = match run.operation.verb {
        Verb::Deploy | Verb::Rollback => run.deploy(&view).await?,
        Verb::Remove => run.remove(&view).await?,
        Verb::Other => Outcome::failed("this release does not know such operations"),
    };
    run.end(outcome).await
}

/// The end of an operation.
struct Outcome {
    state: OperationState,
    error: String,
    late: bool,
}

impl Outcome {
    fn failed(error: impl Into<String>) -> Outcome {
        Outcome { state: OperationState::Failed, error: error.into(), late: false }
    }

    fn of(result: Result<(), Fault>, keep: bool) -> Outcome {
        match result {
            Ok(()) => Outcome { state: OperationState::Succeeded, error: String::new(), late: false },
            Err(fault) => Outcome {
                late: matches!(fault, Fault::Late { .. }),
                state: match &fault {
                    Fault::Late { .. } | Fault::Missing(_) => OperationState::Failed,
                    _ if keep => OperationState::Failed,
                    _ => OperationState::RolledBack,
                },
                error: fault.to_string(),
            },
        }
    }
}

/// Changes that are written together with an operation.
type More<'m> = dyn Fn(&View, &Operation) -> Result<Vec<Change>, Left> + Sync + 'm;

struct Run<'a, R, A> {
    records: &'a R,
    api: &'a A,
    kinds: Kinds,
    id: &'a str,
    me: &'a str,
    operation: Operation,
}

impl<R: Records, A: Api> Run<'_, R, A> {
    async fn deploy(&mut self, view: &View) -> Result<Outcome, Left> {
        let Operation { target, stack, revision, .. } = &self.operation;
        let revision = revisions(view, target, stack).into_iter().find(|it| it.record.number == *revision);
        let Some(Found { record: revision, .. }) = revision else {
            return Ok(Outcome::failed("its revision is gone"));
        };
        let loaded = match revision.bundle.load(Some(stack)) {
            Ok(loaded) => loaded,
            Err(error) => return Ok(Outcome::failed(error.to_string())),
        };
        let (mut desired, sources) = (loaded.desired, loaded.sources);
        desired.pin(&pins(view, target, stack));
        images::set_digests(&mut desired, &revision.images);
        let observed = match observe(self.api, stack).await {
            Ok(observed) => observed,
            Err(fault) => return Ok(Outcome::of(Err(fault), true)),
        };
        let prune = revision.options.prune;
        // The digests of secrets are slow on purpose: here they would keep the manager's heartbeats waiting.
        let planned = spawn_blocking(move || {
            let mut salt = || {
                let mut salt = [0; 16];
                rand::rng().fill_bytes(&mut salt);
                salt
            };
            let plan = Plan::of(&desired, &observed, &sources, prune, &mut salt);
            (plan, desired, observed)
        });
        let (plan, desired, observed) = match planned.await {
            Ok(planned) => planned,
            Err(error) => return Ok(Outcome::failed(format!("the plan could not be made: {error}"))),
        };
        let journal = match self.operation.journal.clone() {
            Some(journal) => {
                self.found_done(&plan);
                journal
            }
            None => {
                let journal = Journal::of(&plan, &observed);
                let changes = plan.steps.iter().filter(|step| step.action != Action::Keep);
                let steps = changes.map(|step| StepRecord::of(step.action, step.kind, &step.name));
                self.operation.steps = steps.collect();
                self.operation.journal = Some(journal.clone());
                if self.save().await? {
                    return Ok(Outcome { state: OperationState::Cancelled, error: String::new(), late: false });
                }
                journal
            }
        };
        let settings = Settings {
            wait: true,
            timeout: Duration::from_secs(revision.options.timeout_seconds),
            keep: revision.options.keep,
        };
        let shown = Arc::new(Mutex::new(Shown::of(&self.operation)));
        let output = shown.clone();
        let mut tell = move |news: Progress<'_>| output.lock().tell(&news);
        let api = self.api;
        let result = {
            let work = apply(api, &desired, &observed, &plan, &journal, &settings, &mut tell);
            self.while_working(work, &shown).await?
        };
        let Some(result) = result else {
            let mut tell = |news: Progress<'_>| shown.lock().tell(&news);
            undo(api, &journal, &mut tell).await;
            self.show(&shown);
            let error = "it was cancelled".to_owned();
            return Ok(Outcome { state: OperationState::Cancelled, error, late: false });
        };
        self.show(&shown);
        Ok(Outcome::of(result.map(drop), settings.keep))
    }

    /// Marks steps that an earlier attempt carried out and could not write down.
    fn found_done(&mut self, plan: &Plan) {
        for step in &mut self.operation.steps {
            let there = plan.steps.iter().find(|it| it.kind.word() == step.kind && it.name == step.subject);
            if there.is_some_and(|it| it.action == Action::Keep) {
                step.state = StepState::Done;
            }
        }
    }

    async fn remove(&mut self, view: &View) -> Result<Outcome, Left> {
        let pinned = stack(view, &self.operation.target, &self.operation.stack);
        let pinned = pinned.map(|it| it.record.pinned_volumes()).unwrap_or_default();
        let shown = Arc::new(Mutex::new(Shown::of(&self.operation)));
        let output = shown.clone();
        let mut tell = move |news: Progress<'_>| output.lock().tell(&news);
        let timeout = Duration::from_secs(self.operation.timeout_seconds);
        let (api, stack) = (self.api, self.operation.stack.clone());
        let result = {
            let volumes = self.operation.volumes.then_some(&pinned);
            let work = remove(api, &stack, timeout, volumes, &mut tell);
            self.while_working(work, &shown).await?
        };
        self.show(&shown);
        Ok(match result {
            Some(result) => Outcome::of(result.map(drop), true),
            // What is gone is gone.
            None => {
                let error = "it was cancelled; what was removed until then stays so".to_owned();
                Outcome { state: OperationState::Cancelled, error, late: false }
            }
        })
    }

    /// Waits for the work, and writes how far it is; nothing where the operation is cancelled.
    async fn while_working<T>(
        &mut self,
        work: impl Future<Output = T> + Send,
        shown: &Mutex<Shown>,
    ) -> Result<Option<T>, Left> {
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(WRITE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(Some(done)),
                _ = ticks.tick() => {}
            }
            let is_cancelled = if self.show(shown) { self.save().await? } else { self.is_cancelled().await? };
            if is_cancelled {
                return Ok(None);
            }
        }
    }

    /// Takes the news over; true if there are some.
    fn show(&mut self, shown: &Mutex<Shown>) -> bool {
        let mut shown = shown.lock();
        if !shown.is_new {
            return false;
        }
        shown.is_new = false;
        self.operation.steps.clone_from(&shown.steps);
        self.operation.log.clone_from(&shown.log);
        self.operation.log_dropped = shown.dropped;
        true
    }

    async fn is_cancelled(&self) -> Result<bool, Left> {
        let view = self.records.read().await.map_err(Left::Failed)?;
        Ok(self.stored(&view)?.record.cancel)
    }

    /// The operation as it is stored, if it is this node's.
    fn stored(&self, view: &View) -> Result<Found<Operation>, Left> {
        let stored = find::<Operation>(view, self.kinds.operation, self.id).ok_or(Left::Taken)?;
        let is_mine = stored.record.runner == self.me && !stored.record.state.is_over();
        if is_mine { Ok(stored) } else { Err(Left::Taken) }
    }

    /// Makes this node the one that carries the operation out.
    async fn claim(&mut self) -> Result<(), Left> {
        let mut attempts = 1;
        loop {
            let view = self.records.read().await.map_err(Left::Failed)?;
            let stored = find::<Operation>(&view, self.kinds.operation, self.id).ok_or(Left::Taken)?;
            if stored.record.state.is_over() {
                return Err(Left::Taken);
            }
            self.operation.cancel = stored.record.cancel;
            let change = put(&view, self.kinds.operation, self.id, "", stored.version, &self.operation);
            let change = change.map_err(|error| Left::Failed(error.to_string()))?;
            match self.records.write(vec![change]).await {
                Ok(_) => return Ok(()),
                Err(NotWritten::Conflict(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(Left::Failed(error.to_string())),
            }
        }
    }

    /// Writes how far the operation is; true if somebody asked for its end.
    async fn save(&mut self) -> Result<bool, Left> {
        self.write(&|_: &View, _: &Operation| Ok(Vec::new())).await
    }

    /// Writes the operation, and what else changes with it.
    async fn write(&mut self, more: &More<'_>) -> Result<bool, Left> {
        let mut attempts = 1;
        loop {
            let view = self.records.read().await.map_err(Left::Failed)?;
            let stored = self.stored(&view)?;
            self.operation.cancel = stored.record.cancel;
            let change = put(&view, self.kinds.operation, self.id, "", stored.version, &self.operation);
            let mut changes = vec![change.map_err(|error| Left::Failed(error.to_string()))?];
            changes.extend(more(&view, &self.operation)?);
            match self.records.write(changes).await {
                Ok(_) => return Ok(self.operation.cancel),
                Err(NotWritten::Conflict(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(Left::Failed(error.to_string())),
            }
        }
    }

    /// Writes the end of the operation, with the stack and its revision.
    async fn end(&mut self, outcome: Outcome) -> Result<(), Left> {
        self.operation.state = outcome.state;
        self.operation.error = outcome.error;
        self.operation.late = outcome.late;
        self.operation.finished = self.records.now();
        // Specs of services may be large, and nobody undoes what is over.
        self.operation.journal = None;
        let (kinds, id) = (self.kinds, self.id);
        self.write(&move |view: &View, operation: &Operation| {
            ended(view, kinds, id, operation).map_err(|error| Left::Failed(error.to_string()))
        })
        .await?;
        Ok(())
    }
}

/// The records of a stack after an operation on it. The next one that waits takes its turn.
fn ended(view: &View, kinds: Kinds, id: &str, operation: &Operation) -> Result<Vec<Change>, ResourceError> {
    let (target, name) = (&operation.target, &operation.stack);
    let mut changes = Vec::new();
    let Some(stack) = stacks(view, target).into_iter().find(|it| it.record.stack == *name) else { return Ok(changes) };
    let mut waiting = line(view, target, name);
    waiting.retain(|it| it.id != id);
    let is_removed = operation.verb == Verb::Remove && operation.state == OperationState::Succeeded;
    if is_removed {
        let is_wanted = |number: u64| waiting.iter().any(|it| it.record.revision == number);
        let all = revisions(view, target, name).into_iter().filter(|it| !is_wanted(it.record.number));
        changes.extend(all.map(|it| Change::Remove(Kind::Resource(kinds.revision), it.id)));
        match waiting.first() {
            None => changes.push(Change::Remove(Kind::Resource(kinds.stack), stack.id)),
            Some(next) => {
                let mut record = Stack { revision: 0, error: String::new(), ..stack.record };
                record.take(&next.id, &next.record);
                changes.push(put(view, kinds.stack, &stack.id, "", stack.version, &record)?);
            }
        }
        return Ok(changes);
    }
    let mut record = Stack { operation: String::new(), error: operation.error.clone(), ..stack.record };
    let is_in_place = operation.state == OperationState::Succeeded || operation.late;
    record.state = match operation.state {
        OperationState::Succeeded => StackState::Active,
        OperationState::Failed if operation.late => StackState::Degraded,
        OperationState::RolledBack | OperationState::Cancelled if record.revision != 0 => StackState::RolledBack,
        _ => StackState::Failed,
    };
    if is_in_place && operation.revision != 0 {
        record.revision = operation.revision;
    }
    if let Some(next) = waiting.first() {
        record.take(&next.id, &next.record);
    }
    changes.push(put(view, kinds.stack, &stack.id, "", stack.version, &record)?);
    let revision = revisions(view, target, name).into_iter().find(|it| it.record.number == operation.revision);
    if let Some(revision) = revision {
        let outcome = match operation.state {
            _ if is_in_place => "deployed",
            OperationState::RolledBack | OperationState::Cancelled => "rolled_back",
            _ => "failed",
        };
        let changed = Revision { outcome: outcome.into(), ..revision.record };
        changes.push(put(view, kinds.revision, &revision.id, "", revision.version, &changed)?);
    }
    Ok(changes)
}

/// The progress of an operation, until it is written.
struct Shown {
    news: News,
    steps: Vec<StepRecord>,
    log: Vec<String>,
    dropped: u64,
    is_new: bool,
}

impl Shown {
    fn of(operation: &Operation) -> Shown {
        Shown {
            news: News::default(),
            steps: operation.steps.clone(),
            log: operation.log.clone(),
            dropped: operation.log_dropped,
            is_new: false,
        }
    }

    fn tell(&mut self, news: &Progress<'_>) {
        match news {
            Progress::Step(step) => {
                let there = self.steps.iter_mut().find(|it| it.kind == step.kind.word() && it.subject == step.name);
                match there {
                    Some(there) => there.state = StepState::Done,
                    None => {
                        let done = StepRecord::of(step.action, step.kind, &step.name);
                        self.steps.push(StepRecord { state: StepState::Done, ..done });
                    }
                }
            }
            Progress::Undo { kind, name, failure: None } => {
                let there = self.steps.iter_mut().find(|it| it.kind == kind.word() && it.subject == *name);
                if let Some(there) = there {
                    there.state = StepState::Undone;
                }
            }
            Progress::Undo { .. } | Progress::Waiting { .. } | Progress::Converged { .. } => {}
        }
        if let Some(line) = self.news.line(news) {
            if self.log.len() == LOG_LINES_MAX {
                self.log.remove(0);
                self.dropped += 1;
            }
            self.log.push(line);
        }
        self.is_new = true;
    }
}
