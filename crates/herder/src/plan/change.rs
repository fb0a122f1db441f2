//! Comparison of a client's wishes with the present objects. Pure.

use anyhow::Context as _;
use herder_decide::swarm::control::Declared;
use herder_decide::swarm::{eligible, is_dirty, spec};
use herder_model::swarm::{
    Availability, NodeRecord, ServiceRecord, ServiceSpec, SwarmNode, SwarmNodeState, Task, TaskRecord, Version,
};
use http::Method;
use serde_json::{Value, json};

use super::sandbox::{PLANNED, Wanted};
use herder_deploy::fields::{Field, compare};
use herder_deploy::{Action as Done, Kind, Observed};

/// The present objects.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Services of the stack.
    pub(super) services: Vec<Value>,
    /// Tasks of those services that are to run.
    pub(super) tasks: Vec<Value>,
    pub(super) nodes: Vec<Value>,
    /// All secrets and configs.
    pub(super) files: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Update,
    Remove,
    /// The object already is as declared.
    Keep,
}

/// Effect on the tasks of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tasks {
    pub(super) start: u64,
    pub(super) replace: u64,
    pub(super) end: u64,
    pub(super) keep: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) action: Action,
    /// `service`, `network`, `secret` or `config`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
    pub(super) tasks: Tasks,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) stack: String,
    pub(super) changes: Vec<Change>,
    /// Refusals of the swarm, with reasons.
    pub(super) refused: Vec<String>,
    /// Further messages of Docker's CLI, and objects that stay though the file does not name them.
    pub(super) notes: Vec<String>,
}

impl Plan {
    pub(super) fn of(
        stack: &str,
        wanted: &[Wanted],
        known: &Known,
        notes: Vec<String>,
        prune: bool,
    ) -> anyhow::Result<Plan> {
        let mut plan = Plan { stack: stack.to_owned(), changes: Vec::new(), refused: Vec::new(), notes };
        for wanted in wanted {
            plan.add(wanted, known)
                .with_context(|| format!("cannot parse the output of docker: {}", wanted.path.join("/")))?;
        }
        let named = |service: &&Value| {
            let name = service["Spec"]["Name"].as_str().unwrap_or_default();
            plan.changes.iter().any(|it| it.kind == "service" && it.name == name)
        };
        let left: Vec<&str> =
            known.services.iter().filter(|it| !named(it)).filter_map(|it| it["Spec"]["Name"].as_str()).collect();
        if !left.is_empty() && !prune {
            plan.notes
                .push(format!("not in the file and left as it is (--prune would remove it): {}", left.join(", ")));
        }
        // In the order in which people read it: what services need, then services.
        plan.changes.sort_by_key(|it| (it.kind == "service", it.kind, it.name.clone()));
        Ok(plan)
    }

    /// The plan of a deployment by herder itself, with its effect on tasks.
    pub(super) fn of_deployment(
        deployment: &herder_deploy::Plan,
        observed: &Observed,
        known: &Known,
    ) -> anyhow::Result<Plan> {
        let mut plan = Plan {
            stack: deployment.stack.clone(),
            changes: Vec::new(),
            refused: deployment.refused.clone(),
            notes: deployment.notes.clone(),
        };
        for step in &deployment.steps {
            let found = find(&known.services, &step.name).filter(|_| step.kind == Kind::Service);
            let count = found.map_or(0, |it| tasks_of(it, known).count() as u64);
            let (action, tasks) = match (step.action, step.kind) {
                (Done::Create, Kind::Service) => {
                    let spec = plan.read(&with_ids(&step.body, observed), None)?;
                    (Action::Create, Tasks { start: wanted_tasks(&spec, known), ..Tasks::default() })
                }
                (Done::Update, Kind::Service) => {
                    let found = found.with_context(|| format!("service {} is gone", step.name))?;
                    let spec = plan.read(&with_ids(&step.body, observed), None)?;
                    (Action::Update, effect(&spec, found, known)?)
                }
                (Done::Create, _) => (Action::Create, Tasks::default()),
                (Done::Update, _) => (Action::Update, Tasks::default()),
                (Done::Remove, _) => (Action::Remove, Tasks { end: count, ..Tasks::default() }),
                (Done::Keep, _) => (Action::Keep, Tasks { keep: count, ..Tasks::default() }),
            };
            let fields = step.fields.clone();
            plan.changes.push(Change { fields, tasks, ..simple(action, step.kind.word(), step.name.clone()) });
        }
        plan.changes.sort_by_key(|it| (it.kind == "service", it.kind, it.name.clone()));
        Ok(plan)
    }

    /// True if all is as it is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.iter().all(|it| it.action == Action::Keep)
    }

    fn add(&mut self, wanted: &Wanted, known: &Known) -> anyhow::Result<()> {
        let names: Vec<&str> = wanted.path.iter().map(String::as_str).collect();
        let change = match (&wanted.method, &names[..]) {
            (&Method::POST, ["services", "create"]) => self.new_service(wanted, known)?,
            (&Method::POST, ["services", id, "update"]) => self.other_service(wanted, id, known)?,
            (&Method::POST, ["networks", "create"]) => {
                let name = text(&wanted.body["Name"]);
                simple(Action::Create, "network", name)
            }
            (&Method::POST, [kind, "create"]) => simple(Action::Create, kind_of(kind), text(&wanted.body["Name"])),
            (&Method::POST, [kind, id, "update"]) => self.other_file(wanted, kind_of(kind), id, known),
            (&Method::DELETE, ["services", id]) => {
                let service = find(&known.services, id);
                let name = service.map_or_else(|| (*id).to_owned(), |it| text(&it["Spec"]["Name"]));
                let end = service.map_or(0, |it| tasks_of(it, known).count() as u64);
                let tasks = Tasks { end, ..Tasks::default() };
                Change { tasks, ..simple(Action::Remove, "service", name) }
            }
            (_, [kind, id, ..]) => simple(Action::Remove, kind_of(kind), (*id).to_owned()),
            (_, _) => return Ok(()),
        };
        self.changes.push(change);
        Ok(())
    }

    fn new_service(&mut self, wanted: &Wanted, known: &Known) -> anyhow::Result<Change> {
        let spec = self.read(&wanted.body, wanted.version.clone())?;
        let start = wanted_tasks(&spec, known);
        let tasks = Tasks { start, ..Tasks::default() };
        let image = spec.task_template.container_spec.as_ref().map(|it| it.image.clone()).unwrap_or_default();
        let fields = vec![Field { name: "Image".to_owned(), old: String::new(), new: image }];
        Ok(Change { fields, tasks, ..simple(Action::Create, "service", spec.name) })
    }

    fn other_service(&mut self, wanted: &Wanted, id: &str, known: &Known) -> anyhow::Result<Change> {
        let new = self.read(&wanted.body, wanted.version.clone())?;
        let found = find(&known.services, id).with_context(|| format!("service {id} is gone"))?;
        let old: ServiceSpec = serde_json::from_value(found["Spec"].clone())?;
        // As the door would keep it now: what versions before wrote out otherwise is no change.
        let old = Declared { spec: old.clone(), ..Declared::default() }.alone().unwrap_or(old);
        let fields = compare(&serde_json::to_value(&old)?, &serde_json::to_value(&new)?);
        let tasks = effect(&new, found, known)?;
        let action = if fields.is_empty() && tasks.replace == 0 { Action::Keep } else { Action::Update };
        Ok(Change { fields, tasks, ..simple(action, "service", new.name) })
    }

    /// Parses the client's declaration as the door does.
    fn read(&mut self, body: &Value, client: Option<String>) -> anyhow::Result<ServiceSpec> {
        let mut body = body.clone();
        spec::without_nulls(&mut body);
        let spec: ServiceSpec = serde_json::from_value(body)?;
        let declared = Declared { spec, client, ..Declared::default() };
        declared.alone().or_else(|denial| {
            let text = denial.to_string();
            let text = text.split_once("desc = ").map_or(&*text, |(_, text)| text);
            let subject = format!("service {}", declared.spec.name);
            self.refused.push(if text.starts_with(&subject) { text.to_owned() } else { format!("{subject}: {text}") });
            Ok(declared.spec)
        })
    }

    /// Compares a secret or config, of which only labels can change.
    fn other_file(&mut self, wanted: &Wanted, kind: &'static str, id: &str, known: &Known) -> Change {
        let old = find(&known.files, id).map(|it| it["Spec"].clone()).unwrap_or_default();
        let name = text(&wanted.body["Name"]);
        // Nobody tells what is in a secret.
        if kind == "config" && old["Data"] != wanted.body["Data"] {
            let why = "what is in a config cannot change: give it another name in the file";
            self.refused.push(format!("config {name}: {why}"));
        }
        let fields = compare(&json!({"Labels": old["Labels"]}), &json!({"Labels": wanted.body["Labels"]}));
        let action = if fields.is_empty() { Action::Keep } else { Action::Update };
        Change { fields, ..simple(action, kind, name) }
    }
}

/// A specification as the swarm keeps it: networks, secrets and configs by their ids.
fn with_ids(spec: &Value, observed: &Observed) -> Value {
    let mut spec = spec.clone();
    let task = &mut spec["TaskTemplate"];
    for network in task.get_mut("Networks").and_then(Value::as_array_mut).into_iter().flatten() {
        let there = observed.networks.iter().find(|it| it["Scope"] == "swarm" && it["Name"] == network["Target"]);
        if let Some(there) = there {
            network["Target"] = there["Id"].clone();
        }
    }
    let lists = [
        ("Secrets", "SecretName", "SecretID", &observed.secrets),
        ("Configs", "ConfigName", "ConfigID", &observed.configs),
    ];
    for (list, name, id, objects) in lists {
        let files = task["ContainerSpec"].get_mut(list).and_then(Value::as_array_mut);
        for file in files.into_iter().flatten() {
            let there = objects.iter().find(|it| it["Spec"]["Name"] == file[name]).map(|it| it["ID"].clone());
            file[id] = there.unwrap_or_else(|| format!("{PLANNED}-{}", text(&file[name])).into());
        }
    }
    spec
}

/// Effect of another specification on the tasks of a service.
fn effect(new: &ServiceSpec, found: &Value, known: &Known) -> anyhow::Result<Tasks> {
    let old: ServiceSpec = serde_json::from_value(found["Spec"].clone())?;
    let wants = wanted_tasks(new, known);
    let mut service = ServiceRecord { spec_version: Version { index: 1 }, ..ServiceRecord::default() };
    service.service.spec = new.clone();
    let ports = old.endpoint_spec.map(|it| it.ports).unwrap_or_default();
    let (mut count, mut dirty) = (0, 0);
    for task in tasks_of(found, known) {
        let task: Task = serde_json::from_value(task.clone())?;
        let node = find(&known.nodes, &task.node_id).and_then(node_record);
        let record = TaskRecord { task, ports: ports.clone(), ..TaskRecord::default() };
        count += 1;
        dirty += u64::from(is_dirty(&service, &record, node.as_ref()));
    }
    let (start, end) = (wants.saturating_sub(count), count.saturating_sub(wants));
    let replace = dirty.min(count - end);
    Ok(Tasks { start, replace, end, keep: count - end - replace })
}

fn simple(action: Action, kind: &'static str, name: String) -> Change {
    Change { action, kind, name, fields: Vec::new(), tasks: Tasks::default() }
}

fn kind_of(path: &str) -> &'static str {
    match path {
        "secrets" => "secret",
        "configs" => "config",
        "networks" => "network",
        _ => "service",
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Finds an object by id or name.
fn find<'k>(list: &'k [Value], id: &str) -> Option<&'k Value> {
    list.iter().find(|it| it["ID"] == id).or_else(|| list.iter().find(|it| it["Spec"]["Name"] == id))
}

fn tasks_of<'k>(service: &'k Value, known: &'k Known) -> impl Iterator<Item = &'k Value> {
    known.tasks.iter().filter(|it| it["ServiceID"] == service["ID"])
}

fn node_record(node: &Value) -> Option<NodeRecord> {
    let node: SwarmNode = serde_json::from_value(node.clone()).ok()?;
    Some(NodeRecord { node, ..NodeRecord::default() })
}

/// Returns the number of tasks that such a service has at the same time.
fn wanted_tasks(spec: &ServiceSpec, known: &Known) -> u64 {
    let mode = &spec.mode;
    if mode.global.is_some() || mode.global_job.is_some() {
        let nodes = known.nodes.iter().filter_map(node_record).filter(|it| {
            it.node.status.state == SwarmNodeState::Ready && it.node.spec.availability == Availability::Active
        });
        return nodes.filter(|it| eligible(it, &spec.task_template)).count() as u64;
    }
    if let Some(job) = &mode.replicated_job {
        return job.max_concurrent.unwrap_or(1);
    }
    mode.replicated.as_ref().and_then(|it| it.replicas).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::show;

    fn service(name: &str, image: &str, replicas: u64) -> Value {
        json!({
            "Name": name, "Labels": {"com.docker.stack.namespace": "st"},
            "TaskTemplate": {"ContainerSpec": {"Image": image}},
            "Mode": {"Replicated": {"Replicas": replicas}},
        })
    }

    /// Two services: `st_web` with two tasks on `n1`, `st_old` with one.
    fn known() -> Known {
        let task = |id: &str, of: &str, image: &str| {
            json!({"ID": id, "ServiceID": of, "NodeID": "n1", "Spec": {"ContainerSpec": {"Image": image, "Isolation": "default"}, "Runtime": "container"},
                   "Status": {"State": "running"}, "DesiredState": "running"})
        };
        Known {
            services: vec![
                json!({"ID": "s1", "Version": {"Index": 5}, "Spec": service("st_web", "a:1", 2)}),
                json!({"ID": "s2", "Version": {"Index": 6}, "Spec": service("st_old", "a:1", 1)}),
            ],
            tasks: vec![task("t1", "s1", "a:1"), task("t2", "s1", "a:1"), task("t3", "s2", "a:1")],
            nodes: vec![
                json!({"ID": "n1", "Spec": {"Availability": "active"}, "Status": {"State": "ready"}}),
                json!({"ID": "n2", "Spec": {"Availability": "drain"}, "Status": {"State": "ready"}}),
            ],
            files: vec![json!({"ID": "c1", "Spec": {"Name": "st_conf", "Labels": {}, "Data": "YQ=="}})],
        }
    }

    /// Lines `METHOD /path body` → the plan as people see it.
    #[track_caller]
    fn check(lines: &[(&str, Value)], prune: bool, expected: &str) {
        let wanted = lines.iter().map(|(line, body)| {
            let (method, path) = line.split_once(" /").expect("a method and a path");
            let method = method.parse().expect("a method");
            let path = path.split('/').map(str::to_owned).collect();
            Wanted { method, path, version: Some("1.50".into()), body: body.clone() }
        });
        let wanted: Vec<Wanted> = wanted.collect();
        let plan = Plan::of("st", &wanted, &known(), Vec::new(), prune).expect("a plan");
        let text = show::text(&plan);
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(text.join("\n"), expected.trim_end());
    }

    #[test]
    fn the_same_again_changes_nothing() {
        check(
            &[
                ("POST /services/s1/update", service("st_web", "a:1", 2)),
                ("POST /services/s2/update", service("st_old", "a:1", 1)),
            ],
            false,
            "stack st: nothing would change (2 services)",
        );
    }

    #[test]
    fn a_plan_counts_the_tasks_that_are_replaced_started_and_ended() {
        check(
            &[
                ("POST /secrets/create", json!({"Name": "st_pass", "Data": "eA=="})),
                ("POST /services/create", service("st_api", "b:1", 3)),
                ("POST /services/s1/update", service("st_web", "a:2", 4)),
                ("DELETE /services/s2", Value::Null),
            ],
            true,
            "\
+ secret  st_pass
+ service st_api   start 3
    Image  → b:1
- service st_old   end 1
~ service st_web   start 2, replace 2
    Image     a:1 → a:2
    Replicas  2 → 4
stack st: 2 to create, 1 to update, 1 to remove; tasks: 5 to start, 2 to replace, 1 to end",
        );
        check(
            &[("POST /services/s1/update", service("st_web", "a:1", 1))],
            false,
            "\
~ service st_web  end 1, keep 1
    Replicas  2 → 1
stack st: 0 to create, 1 to update, 0 to remove; tasks: 0 to start, 0 to replace, 1 to end
note: not in the file and left as it is (--prune would remove it): st_old",
        );
    }

    #[test]
    fn a_global_service_has_a_task_on_each_node_that_takes_one() {
        let mut spec = service("st_each", "a:1", 0);
        spec["Mode"] = json!({"Global": {}});
        check(
            &[("POST /services/create", spec)],
            true,
            "\
+ service st_each  start 1
    Image  → a:1
stack st: 1 to create, 0 to update, 0 to remove; tasks: 1 to start, 0 to replace, 0 to end",
        );
    }

    #[test]
    fn what_the_swarm_would_refuse_is_told() {
        let config = json!({"Name": "st_conf", "Labels": {}, "Data": "Yg=="});
        let mut wrong = service("st_bad", "a:1", 1);
        wrong["TaskTemplate"]["ContainerSpec"]["Image"] = json!("A B");
        check(
            &[
                ("POST /networks/create", json!({"Name": "st_default", "Driver": "overlay"})),
                ("POST /configs/c1/update", config),
                ("POST /services/create", wrong),
            ],
            true,
            "\
+ network st_default
+ service st_bad      start 1
    Image  → A B
stack st: 2 to create, 0 to update, 0 to remove; tasks: 1 to start, 0 to replace, 0 to end
refused: config st_conf: what is in a config cannot change: give it another name in the file
refused: service st_bad: ContainerSpec: \"A B\" is not a valid repository/tag",
        );
    }
}
