//! Carries a plan out, step by step, and goes back when it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use herder_compose::{Desired, DesiredService, STACK_LABEL};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::{Api, Fault, ask, filters, list};
use crate::journal::{Entry, Journal};
use crate::observe::{Observed, observe};
use crate::plan::{Action, FILES, Kind, Plan, Step};
use crate::status::{State, Status, status};

/// Settings for carrying a plan out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Wait until all services run as declared, and go back if they do not.
    pub wait: bool,
    /// The time for all of it.
    pub timeout: Duration,
    /// Leave everything as it is on failure.
    pub keep: bool,
}

/// The news of a deployment.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A step was carried out.
    Step(&'a Step),
    /// A service is not yet as declared; `before` is the service that waits for it.
    Waiting { service: &'a str, status: &'a Status, before: Option<&'a str> },
    /// A service runs as declared.
    Converged { service: &'a str, status: &'a Status },
    /// The deployment failed, and a step is undone.
    Undo { kind: Kind, name: &'a str, failure: Option<&'a str> },
}

/// The outcome of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Number of steps that changed something.
    pub changes: usize,
}

/// The pause between two looks at tasks. The API tells no event for most steps of a task.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// Maximum attempts to update a service that another client changes at the same time.
const ATTEMPTS_MAX: u32 = 5;

/// Services that are written at the same time.
const AT_ONCE_MAX: usize = 8;

/// Carries `plan` out. On failure, what it created is removed and what it changed gets its former spec back.
///
/// `journal` is that of the deployment's first plan. Where an earlier attempt was cut short, `plan` holds what is left of it.
pub async fn apply(
    api: &impl Api,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    journal: &Journal,
    settings: &Settings,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Applied, Fault> {
    if !plan.refused.is_empty() {
        return Err(Fault::Missing(plan.refused.clone()));
    }
    let kept = plan.steps.iter().filter(|step| step.action == Action::Keep && step.kind == Kind::Service);
    let changed_before = kept.map(|step| step.name.as_str()).filter(|name| journal.has_service(name));
    let mut run = Run {
        api,
        desired,
        plan,
        journal,
        ids: ids(observed),
        changes: 0,
        changed: changed_before.collect(),
        deadline: Instant::now() + settings.timeout,
        settings,
        progress,
    };
    match run.all().await {
        Ok(()) => Ok(Applied { changes: run.changes }),
        Err(fault) => {
            // A deployment that is late goes on by itself.
            if !settings.keep && !matches!(fault, Fault::Late { .. }) {
                undo(api, journal, progress).await;
            }
            Err(fault)
        }
    }
}

/// Ids of secrets and configs by kind and name.
fn ids(observed: &Observed) -> FileIds {
    let named = |kind: Kind, objects: &[Value]| -> Vec<((Kind, String), String)> {
        let pairs = objects.iter().filter_map(|object| {
            Some(((kind, object["Spec"]["Name"].as_str()?.to_owned()), object["ID"].as_str()?.to_owned()))
        });
        pairs.collect()
    };
    named(Kind::Secret, &observed.secrets).into_iter().chain(named(Kind::Config, &observed.configs)).collect()
}

/// Ids of objects by kind and name.
type FileIds = BTreeMap<(Kind, String), String>;

struct Run<'a, A: Api> {
    api: &'a A,
    desired: &'a Desired,
    plan: &'a Plan,
    journal: &'a Journal,
    ids: FileIds,
    /// Steps that were carried out.
    changes: usize,
    /// Services that this deployment created or changed.
    changed: BTreeSet<&'a str>,
    deadline: Instant,
    settings: &'a Settings,
    progress: &'a mut (dyn FnMut(Progress<'_>) + Send),
}

impl<'a, A: Api> Run<'a, A> {
    async fn all(&mut self) -> Result<(), Fault> {
        let plan = self.plan;
        for step in plan.steps.iter().filter(|it| it.action == Action::Keep && !it.body.is_null()) {
            self.api.content(step.kind, &step.name, &step.body);
        }
        for step in plan.steps.iter().filter(|it| it.action == Action::Create && it.kind != Kind::Service) {
            self.create(step).await?;
        }
        let desired = self.desired;
        let changes = desired.services.iter().filter_map(|service| {
            let step = plan.step(Kind::Service, &service.name)?;
            matches!(step.action, Action::Create | Action::Update).then_some((service, step))
        });
        let mut left: Vec<(&DesiredService, &Step)> = changes.collect();
        while !left.is_empty() {
            // Those that depend on none of the others are written at the same time.
            let names: BTreeSet<&str> = left.iter().map(|(service, _)| service.name.as_str()).collect();
            let waits = |(service, _): &(&DesiredService, &Step)| {
                service.depends_on.iter().any(|it| names.contains(it.service.as_str()))
            };
            let (later, mut now): (Vec<_>, Vec<_>) = left.iter().copied().partition(waits);
            // The loader refuses circles; without this one would never end.
            left = if now.is_empty() {
                now.extend(later);
                Vec::new()
            } else {
                later
            };
            let awaited = now.iter().flat_map(|(service, _)| self.dependencies(service)).collect();
            self.wait_for(awaited).await?;
            self.write_all(&now).await?;
        }
        if self.settings.wait {
            let changed =
                self.changed.iter().copied().map(|service| Awaited { service, before: None, is_required: true });
            self.wait_for(changed.collect()).await?;
        }
        // What is not declared any more goes last: a failure before leaves it as it was.
        for step in plan.steps.iter().filter(|it| it.action == Action::Remove) {
            self.remove(step).await?;
        }
        self.api.settle(&self.desired.stack).await
    }

    /// Creates and updates services at the same time. All are tried; the first failure comes back.
    async fn write_all(&mut self, some: &[(&'a DesiredService, &'a Step)]) -> Result<(), Fault> {
        let (api, ids, stack) = (self.api, self.ids.clone(), &self.desired.stack);
        let mut left = some.iter();
        let mut under_way = FuturesUnordered::new();
        let mut failure = None;
        loop {
            while under_way.len() < AT_ONCE_MAX
                && let Some((service, step)) = left.next()
            {
                under_way.push(write_service(api, &ids, stack, service, step));
            }
            let Some((service, step, outcome)) = under_way.next().await else { break };
            match outcome {
                Ok(id) => {
                    self.written(step, id);
                    self.changed.insert(&service.name);
                }
                Err(fault) => failure = failure.or(Some(fault)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn create(&mut self, step: &'a Step) -> Result<(), Fault> {
        let id = write(self.api, &self.ids, &self.desired.stack, step).await?;
        self.written(step, id);
        Ok(())
    }

    fn written(&mut self, step: &'a Step, id: String) {
        self.ids.insert((step.kind, step.name.clone()), id);
        self.changes += 1;
        (self.progress)(Progress::Step(step));
    }

    async fn remove(&mut self, step: &'a Step) -> Result<(), Fault> {
        remove_object(self.api, step.kind, &step.id, &step.name, self.deadline).await?;
        self.changes += 1;
        (self.progress)(Progress::Step(step));
        Ok(())
    }

    /// The dependencies that a service waits for: those that this deployment changed, and all of a service that is new.
    fn dependencies<'s>(&self, service: &'s DesiredService) -> Vec<Awaited<'s>> {
        let is_new = self.journal.creates(Kind::Service, &service.name);
        let counts = |name: &str| {
            self.desired.services.iter().any(|it| it.name == name) && (is_new || self.changed.contains(name))
        };
        let dependencies = service.depends_on.iter().filter(|it| counts(&it.service));
        let awaited = dependencies.map(|it| Awaited {
            service: &it.service,
            before: Some(&service.name),
            is_required: it.required,
        });
        awaited.collect()
    }

    /// Waits until services run as declared. One look is for all of them: each question is one to the managers.
    async fn wait_for(&mut self, mut left: Vec<Awaited<'_>>) -> Result<(), Fault> {
        let mut shown: BTreeMap<String, Status> = BTreeMap::new();
        let mut is_first = true;
        while !left.is_empty() {
            let seen = look(self.api, &self.desired.stack).await?;
            let mut waiting = Vec::new();
            for awaited in left {
                let name = awaited.service;
                let Some((service, status)) = seen.get(name) else {
                    let reason = "it was removed while it was waited for".to_owned();
                    return Err(Fault::Failed { service: name.to_owned(), reason });
                };
                // One question is enough for all conditions: a task with a health check runs only once it is healthy, and a
                // service that another one waits for to complete is a job.
                match status.state {
                    // The orchestrator may not have made the tasks of a service on each node yet.
                    State::Converged if is_first && status.wanted == 0 => waiting.push(awaited),
                    State::Converged => (self.progress)(Progress::Converged { service: name, status }),
                    State::Failed if !awaited.is_required => {}
                    State::Failed => return Err(failure(name, service, status)),
                    State::Waiting => {
                        if shown.get(name) != Some(status) {
                            (self.progress)(Progress::Waiting { service: name, status, before: awaited.before });
                            shown.insert(name.to_owned(), status.clone());
                        }
                        waiting.push(awaited);
                    }
                }
            }
            left = waiting;
            is_first = false;
            if left.is_empty() {
                break;
            }
            if Instant::now() >= self.deadline {
                let mut waiting: Vec<String> = left.iter().map(|it| it.service.to_owned()).collect();
                waiting.dedup();
                return Err(Fault::Late { seconds: self.settings.timeout.as_secs(), waiting });
            }
            sleep(LOOK_PERIOD).await;
        }
        Ok(())
    }
}

/// A service that is waited for.
struct Awaited<'a> {
    service: &'a str,
    /// The service that waits for it.
    before: Option<&'a str>,
    /// False if its failure stops nothing.
    is_required: bool,
}

fn failure(name: &str, service: &Value, status: &Status) -> Fault {
    let update = service["UpdateStatus"]["Message"].as_str().filter(|it| !it.is_empty());
    let task = status.failure.as_ref().map(|it| format!("a task failed: {}", it.message));
    let reason = task.or(update.map(str::to_owned)).unwrap_or_else(|| "its update stopped".into());
    Fault::Failed { service: name.to_owned(), reason }
}

/// Writes a service, and says which one it was.
async fn write_service<'s>(
    api: &impl Api,
    ids: &FileIds,
    stack: &str,
    service: &'s DesiredService,
    step: &'s Step,
) -> (&'s DesiredService, &'s Step, Result<String, Fault>) {
    (service, step, write(api, ids, stack, step).await)
}

/// Creates an object, or updates a service; its id comes back.
async fn write(api: &impl Api, ids: &FileIds, stack: &str, step: &Step) -> Result<String, Fault> {
    let body = with_ids(ids, step);
    if step.action == Action::Update {
        send_spec(api, &step.id, &step.name, &body).await?;
        return Ok(step.id.clone());
    }
    let path = format!("/{}/create", step.kind.path());
    let what = format!("{} {}", step.kind.word(), step.name);
    let answer = match ask(api, Method::POST, &path, Some(&body), &what).await {
        // Another executor of the same deployment was faster.
        Err(Fault::Refused { status: 409, message, .. }) => {
            let there = own_object(api, step.kind, &step.name, stack).await?;
            there.ok_or(Fault::Refused { what, status: 409, message })?
        }
        answer => answer?,
    };
    Ok(answer["ID"].as_str().or(answer["Id"].as_str()).unwrap_or_default().to_owned())
}

/// The body of a service with the ids of its secrets and configs.
fn with_ids(ids: &FileIds, step: &Step) -> Value {
    let mut body = step.body.clone();
    if step.kind != Kind::Service {
        return body;
    }
    for (kind, list, key) in FILES {
        let id_key = if kind == Kind::Secret { "SecretID" } else { "ConfigID" };
        let files = body["TaskTemplate"]["ContainerSpec"].get_mut(list).and_then(Value::as_array_mut);
        for file in files.into_iter().flatten() {
            let name = file[key].as_str().unwrap_or_default().to_owned();
            file[id_key] = ids.get(&(kind, name)).cloned().unwrap_or_default().into();
        }
    }
    body
}

/// The services of a stack by their names, each with its status.
async fn look(api: &impl Api, stack: &str) -> Result<BTreeMap<String, (Value, Status)>, Fault> {
    let label = filters(&json!({"label": [format!("{STACK_LABEL}={stack}")]}));
    let services = list(api, &format!("/services?filters={label}"), "services").await?;
    // After the services: tasks that they had a moment before would look like those of an update.
    let tasks = list(api, &format!("/tasks?filters={label}"), "tasks").await?;
    let mut of_service: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for task in tasks {
        of_service.entry(task["ServiceID"].as_str().unwrap_or_default().to_owned()).or_default().push(task);
    }
    let seen = services.into_iter().map(|service| {
        let tasks = of_service.remove(service["ID"].as_str().unwrap_or_default()).unwrap_or_default();
        let mode = &service["Spec"]["Mode"];
        let mut nodes = 0;
        if mode.get("Global").is_some() || mode.get("GlobalJob").is_some() {
            // The orchestrator makes a task for each node that fits, so its own tasks say how many do.
            let is_wanted = |task: &&Value| matches!(task["DesiredState"].as_str(), Some("running" | "complete"));
            let ids: BTreeSet<&str> =
                tasks.iter().filter(is_wanted).filter_map(|task| task["NodeID"].as_str()).collect();
            nodes = ids.len() as u64;
        }
        let status = status(&service, &tasks, nodes);
        (service["Spec"]["Name"].as_str().unwrap_or_default().to_owned(), (service, status))
    });
    Ok(seen.collect())
}

/// Undoes what a journal names, the last first. What cannot be undone is told, and the others go on.
pub async fn undo(api: &impl Api, journal: &Journal, progress: &mut (dyn FnMut(Progress<'_>) + Send)) {
    let mut is_undone = true;
    for entry in journal.entries.iter().rev() {
        let outcome = undo_one(api, &journal.stack, entry).await;
        let failure = match outcome {
            Ok(false) => continue,
            Ok(true) => None,
            Err(fault) => Some(fault.to_string()),
        };
        is_undone &= failure.is_none();
        progress(Progress::Undo { kind: entry.kind, name: &entry.name, failure: failure.as_deref() });
    }
    // What was kept for going back is of no more use. What stays after a failure goes with the next deployment.
    if is_undone {
        api.settle(&journal.stack).await.ok();
    }
}

/// Undoes one entry; false if there was nothing to undo.
async fn undo_one(api: &impl Api, stack: &str, entry: &Entry) -> Result<bool, Fault> {
    let (kind, name) = (entry.kind, entry.name.as_str());
    let Some(there) = own_object(api, kind, name, stack).await? else { return Ok(false) };
    let Some(former) = &entry.former else {
        let id = there["ID"].as_str().or(there["Id"].as_str()).unwrap_or_default();
        remove_object(api, kind, id, name, Instant::now() + UNDO_TIME_MAX).await?;
        return Ok(true);
    };
    if there["Spec"] == *former {
        return Ok(false);
    }
    send_spec(api, there["ID"].as_str().unwrap_or_default(), name, former).await?;
    Ok(true)
}

/// The object of a name, if the stack has one.
async fn own_object(api: &impl Api, kind: Kind, name: &str, stack: &str) -> Result<Option<Value>, Fault> {
    let object = match ask(api, Method::GET, &format!("/{}/{name}", kind.path()), None, name).await {
        Err(Fault::Refused { status: 404, .. }) => return Ok(None),
        object => object?,
    };
    let labels = if kind == Kind::Network { &object["Labels"] } else { &object["Spec"]["Labels"] };
    let there = if kind == Kind::Network { &object["Name"] } else { &object["Spec"]["Name"] };
    // A name that is part of an id finds another object.
    let is_it = there == name && labels[STACK_LABEL] == stack;
    Ok(is_it.then_some(object))
}

/// The time for undoing one step: tasks need a moment to leave a network.
const UNDO_TIME_MAX: Duration = Duration::from_secs(20);

/// Sends a spec with the present version of its service, again where somebody else was faster.
async fn send_spec(api: &impl Api, id: &str, name: &str, spec: &Value) -> Result<(), Fault> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let service = ask(api, Method::GET, &format!("/services/{id}"), None, name).await?;
        let version = service["Version"]["Index"].as_u64().unwrap_or_default();
        let path = format!("/services/{id}/update?version={version}");
        match ask(api, Method::POST, &path, Some(spec), &format!("service {name}")).await {
            Ok(_) => return Ok(()),
            Err(Fault::Refused { message, .. }) if attempt < ATTEMPTS_MAX && message.contains("out of sequence") => {}
            Err(fault) => return Err(fault),
        }
    }
}

/// Removes an object. One that is gone already is removed; one in use is asked again until the deadline.
async fn remove_object(api: &impl Api, kind: Kind, id: &str, name: &str, deadline: Instant) -> Result<(), Fault> {
    loop {
        let path = format!("/{}/{id}", kind.path());
        match ask(api, Method::DELETE, &path, None, &format!("{} {name}", kind.word())).await {
            Ok(_) | Err(Fault::Refused { status: 404, .. }) => return Ok(()),
            Err(Fault::Refused { message, .. }) if message.contains("in use") && Instant::now() < deadline => {
                sleep(LOOK_PERIOD).await;
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// Removes everything of a stack; the number of objects comes back. With `volumes` its volumes are removed, too, and those of
/// these names.
pub async fn remove(
    api: &impl Api,
    stack: &str,
    timeout: Duration,
    volumes: Option<&BTreeSet<String>>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<usize, Fault> {
    let observed = observe(api, stack).await?;
    let deadline = Instant::now() + timeout;
    let nothing = Desired { stack: stack.to_owned(), ..Desired::default() };
    let plan = Plan::of(&nothing, &observed, &BTreeMap::new(), true, &mut || [0; 16]);
    for step in &plan.steps {
        remove_object(api, step.kind, &step.id, &step.name, deadline).await?;
        progress(Progress::Step(step));
    }
    // Tasks end after their service is gone.
    let label = filters(&json!({"label": [format!("{STACK_LABEL}={stack}")]}));
    loop {
        let tasks = list(api, &format!("/tasks?filters={label}"), "tasks").await?;
        let live = tasks.iter().filter(|task| task["Status"]["State"] == "running").count();
        if live == 0 {
            break;
        }
        if Instant::now() >= deadline {
            return Err(Fault::Late { seconds: timeout.as_secs(), waiting: vec![format!("{live} tasks")] });
        }
        sleep(LOOK_PERIOD).await;
    }
    let mut count = plan.steps.len();
    if let Some(more) = volumes {
        count += remove_volumes(api, stack, more, deadline, progress).await?;
    }
    Ok(count)
}

/// Removes the volumes of a stack that the target shows. A container that just ended may hold one for a moment.
async fn remove_volumes(
    api: &impl Api,
    stack: &str,
    more: &BTreeSet<String>,
    deadline: Instant,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<usize, Fault> {
    let label = filters(&json!({"label": [format!("{STACK_LABEL}={stack}")]}));
    let all = ask(api, Method::GET, &format!("/volumes?filters={label}"), None, "volumes").await?;
    let names = all["Volumes"].as_array().into_iter().flatten().filter_map(|it| it["Name"].as_str());
    // A volume of each node may have the same name: one call removes them all.
    let names = names.map(|name| name.rsplit('/').next().unwrap_or(name));
    let names: BTreeSet<&str> = names.chain(more.iter().map(String::as_str)).collect();
    for name in &names {
        remove_object(api, Kind::Volume, name, name, deadline).await?;
        let step = Step {
            action: Action::Remove,
            kind: Kind::Volume,
            name: (*name).to_owned(),
            id: (*name).to_owned(),
            fields: Vec::new(),
            body: Value::Null,
        };
        progress(Progress::Step(&step));
    }
    Ok(names.len())
}
