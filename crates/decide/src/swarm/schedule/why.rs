//! Explanation of a task's place, or of its lack of one, with remedies.
//!
//! Each node is asked with all filters, not only up to the first that refuses, as it is now and as if the task were not there.
//! Pure.

use std::fmt;
use std::sync::Arc;

use herder_model::swarm::{
    Availability, Kind, NodeRecord, ServiceRecord, SwarmNodeState, TaskRecord, TaskState, Time, View,
};

use super::Constraint;
use super::demand::{Conditions, Demand, Filter, host_ports, is_available, normal};
use super::fleet::{Fleet, Host, HostNo};
use super::generic;
use crate::swarm::orchestrate::draft::ended_by_itself;
use crate::swarm::orchestrate::reconcile::Mode;
use crate::swarm::orchestrate::restart::gave_up;

/// Nodes that are printed; a reader wants the best and the first reasons, not a hundred thousand lines.
const LINES_MAX: usize = 20;
const HELP_MAX: usize = 5;

/// See [`why`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// Name of the task or service.
    pub subject: String,
    /// One sentence.
    pub verdict: String,
    /// Those that fit first, the best of them first.
    pub nodes: Vec<NodeWhy>,
    /// Remedies for the operator.
    pub help: Vec<String>,
}

/// One node, as the scheduler sees it for the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWhy {
    pub id: String,
    pub hostname: String,
    /// The task is here.
    pub chosen: bool,
    /// Empty: it fits.
    pub refused: Vec<Refused>,
    /// Failures with this version of the service that count.
    pub failures: u32,
    /// Active tasks of the service, without this one.
    pub service_tasks: u32,
    /// Active tasks, without this one.
    pub tasks: u32,
}

/// A filter that refuses a node, with what is asked and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub filter: Filter,
    pub detail: String,
    /// Remedy.
    help: String,
}

/// Explains a task by its id, or a service by its id or name. A service is explained by its first task without a node,
/// else its newest one. `None` if there is neither.
pub fn why(view: &View, subject: &str, now: Time) -> Option<Why> {
    if let Some(record) = view.tasks.get(subject) {
        return Some(with_past(of_task(view, record, now), view, record));
    }
    let id = if view.services.contains_key(subject) { subject } else { view.named(Kind::Service, subject)? };
    let wanted = || view.tasks_of_service(id).filter(|record| record.task.desired_state <= TaskState::Complete);
    let waiting = wanted().find(|record| record.task.status.state <= TaskState::Pending);
    let Some(record) = waiting.or_else(|| wanted().max_by_key(|record| record.task.meta.version)) else {
        return Some(match view.services.get(id) {
            Some(service) => with_update(of_idle(view, service, now), service),
            None => Why { subject: id.to_owned(), verdict: IDLE.into(), ..Why::default() },
        });
    };
    let why = with_past(of_task(view, record, now), view, record);
    Some(match view.services.get(id) {
        Some(service) => with_update(why, service),
        None => why,
    })
}

const IDLE: &str = "it has no task that should run";

/// Explains a service without a task that should run.
fn of_idle(view: &View, service: &ServiceRecord, now: Time) -> Why {
    let spec = &service.service.spec;
    let mode = Mode::of(&spec.mode);
    let newest = view.tasks_of_service(&service.service.id).max_by_key(|record| (record.made_at, &record.task.id));
    let subject = spec.name.clone();
    if let Some(last) = newest.filter(|last| gave_up(last, mode)) {
        let verdict = match last.task.status.state {
            TaskState::Complete => "it has completed, and its restart policy starts no other task".into(),
            _ => format!("it gave up: {}; its restart policy ({}) starts no other task", end_of(last), policy(last)),
        };
        let help = vec![format!("mend the cause, then docker service update --force {subject}")];
        return Why { subject, verdict, help, ..Why::default() };
    }
    if !mode.is_global() {
        let verdict = match mode {
            Mode::Replicated(0) => format!("{IDLE}: it is declared with 0 replicas"),
            Mode::ReplicatedJob { .. } if newest.is_some() => "it has completed".into(),
            Mode::Replicated(_) | Mode::ReplicatedJob { .. } | Mode::Global | Mode::GlobalJob => IDLE.into(),
        };
        return Why { subject, verdict, ..Why::default() };
    }
    // A task of it on any node, as it would be made.
    let mut record = TaskRecord { spec_version: service.spec_version, ..TaskRecord::default() };
    record.task.service_id.clone_from(&service.service.id);
    record.task.name.clone_from(&subject);
    record.task.spec = Arc::new(spec.task_template.clone());
    record.task.status.state = TaskState::Pending;
    record.ports = spec.endpoint_spec.as_ref().map(|it| it.ports.clone()).unwrap_or_default();
    let why = of_task(view, &record, now);
    let fitting = why.nodes.iter().filter(|node| node.refused.is_empty()).count();
    let verdict = match fitting {
        0 => "it runs once on each node that takes it, and none does".into(),
        _ if mode.is_job() => "it has run on each node that takes it".into(),
        _ => format!("it runs once on each node that takes it: {fitting} do, and get their tasks in the next run"),
    };
    Why { verdict, ..why }
}

/// Describes the end of a task.
fn end_of(record: &TaskRecord) -> String {
    let status = &record.task.status;
    let said = if status.err.is_empty() { &status.message } else { &status.err };
    match status.container_status.as_ref().map_or(0, |it| it.exit_code) {
        code if code != 0 && !said.contains(&code.to_string()) => format!("{said} (exit code {code})"),
        _ => said.clone(),
    }
}

fn policy(record: &TaskRecord) -> String {
    let policy = record.task.spec.restart_policy.clone().unwrap_or_default();
    let condition = if policy.condition.is_empty() { "any" } else { &policy.condition };
    match policy.max_attempts {
        Some(attempts) if attempts > 0 => format!("{condition}, at most {attempts} attempts"),
        _ => condition.to_owned(),
    }
}

/// Adds what became of the task before, to one that does not run yet.
fn with_past(mut why: Why, view: &View, record: &TaskRecord) -> Why {
    let task = &record.task;
    if task.status.state >= TaskState::Running {
        return why;
    }
    let same = |it: &&Arc<TaskRecord>| {
        it.task.slot == task.slot && (task.slot > 0 || it.task.node_id == task.node_id) && it.made_at < record.made_at
    };
    let before = view.tasks_of_service(&task.service_id).filter(same).max_by_key(|it| it.made_at);
    let Some(before) = before.filter(|it| ended_by_itself(it) && !it.task.status.err.is_empty()) else { return why };
    why.verdict += &format!("; the one before it: {}", end_of(before));
    if before.task.status.err.starts_with("No such image") {
        let image = task.spec.container_spec.as_ref().map(|it| it.image.clone()).unwrap_or_default();
        why.help
            .insert(0, format!("push {image} to its registry, or load it on one node: no node of the swarm has it"));
    }
    why
}

/// Adds that an update has stopped.
fn with_update(mut why: Why, service: &ServiceRecord) -> Why {
    let name = &service.service.spec.name;
    if let Some(status) = service.service.update_status.as_ref().filter(|it| it.state.contains("paused")) {
        why.help.push(format!(
            "{}: docker service update --force {name} goes on, docker service rollback {name} goes back",
            status.message
        ));
    }
    why
}

fn of_task(view: &View, record: &TaskRecord, now: Time) -> Why {
    let task = &record.task;
    let mut fleet = Fleet::of(view);
    fleet.without(record);
    let conditions = Conditions::of(&Demand::of(record, fleet.encrypted()));
    let asked = Asked { view, record, conditions };
    let failures = fleet.failures_of(&task.service_id, record.spec_version.index, now);
    let service = fleet.service_no(&task.service_id);
    let of_host = |number: &HostNo| {
        let host = &fleet.hosts()[*number as usize];
        let node = host.record.as_ref()?;
        let service_tasks = fleet.count_of(service, *number);
        Some(NodeWhy {
            id: node.node.id.clone(),
            hostname: node.description().hostname.clone(),
            chosen: node.node.id == task.node_id,
            refused: asked.refused(host, node, service_tasks),
            failures: failures.iter().find(|(host, _)| host == number).map_or(0, |(_, count)| *count),
            service_tasks,
            tasks: host.taken.active,
        })
    };
    let mut nodes: Vec<NodeWhy> = fleet.order().iter().filter_map(of_host).collect();
    nodes.sort_by_key(|node| (node.refused.len(), node.failures, node.service_tasks, node.tasks));
    let verdict = match wait_of(record, now) {
        Some(seconds) => format!("it waits {seconds} s more: that is its restart delay"),
        None => verdict(record, &nodes),
    };
    let waits = task.status.state <= TaskState::Pending && task.desired_state <= TaskState::Complete;
    let help = if waits { help(record, &nodes) } else { Vec::new() };
    let subject = if task.name.is_empty() { task.id.clone() } else { task.name.clone() };
    Why { subject, verdict, nodes, help }
}

/// Returns the seconds for which the task is held back.
fn wait_of(record: &TaskRecord, now: Time) -> Option<u64> {
    let waits = record.task.desired_state < TaskState::Running && record.task.status.state <= TaskState::Running;
    let left = record.not_before?.since(now);
    (waits && !left.is_zero()).then(|| left.as_secs().max(1))
}

fn verdict(record: &TaskRecord, nodes: &[NodeWhy]) -> String {
    let task = &record.task;
    let fitting = nodes.iter().filter(|node| node.refused.is_empty()).count();
    let all = nodes.len();
    if task.status.state > TaskState::Running {
        return format!(
            "it has ended: {}",
            if task.status.err.is_empty() { &task.status.message } else { &task.status.err }
        );
    }
    if task.desired_state > TaskState::Complete {
        return "it should stop, so it gets no node".into();
    }
    match (task.status.state, task.node_id.is_empty()) {
        (TaskState::New | TaskState::Allocated, _) if !task.status.err.is_empty() => task.status.err.clone(),
        (TaskState::New | TaskState::Allocated, _) => "it is not yet handed to the scheduler".into(),
        (TaskState::Pending, true) if fitting == 0 && task.status.err.is_empty() => "no node takes it".into(),
        (TaskState::Pending, true) if fitting == 0 => task.status.err.clone(),
        (TaskState::Pending, true) => format!("{fitting} of {all} nodes take it: it is placed in the next run"),
        (TaskState::Pending, false) => match nodes.iter().find(|node| node.chosen) {
            None => format!("its node {} is not in the swarm", task.node_id),
            Some(node) if node.refused.is_empty() => "its node takes it: it is confirmed in the next run".into(),
            Some(_) => "its node does not take it, and it may not go to another".into(),
        },
        _ => match nodes.iter().find(|node| node.chosen) {
            None => format!("it was given to node {}, which is not in the swarm", task.node_id),
            Some(node) => format!("it is on {}; {fitting} of {all} nodes would take it now", name(node)),
        },
    }
}

fn name(node: &NodeWhy) -> &str {
    if node.hostname.is_empty() { &node.id } else { &node.hostname }
}

/// Nodes with the fewest reasons are the nearest to help.
fn help(record: &TaskRecord, nodes: &[NodeWhy]) -> Vec<String> {
    let only = |node: &&NodeWhy| record.task.node_id.is_empty() || node.chosen;
    if record.task.status.state == TaskState::New && !record.task.status.err.is_empty() {
        // What it waits for is not to be had from a node; the reason says what would help.
        return Vec::new();
    }
    if nodes.is_empty() {
        return vec!["add a node: the swarm has none".into()];
    }
    let fewest = nodes.iter().filter(only).map(|node| node.refused.len()).min().unwrap_or_default();
    let nearest = nodes.iter().filter(only).filter(|node| node.refused.len() == fewest && fewest > 0);
    let mut help = Vec::new();
    for node in nearest {
        let all: Vec<&str> = node.refused.iter().map(|it| it.help.as_str()).collect();
        let line = all.join(", and ");
        if help.len() < HELP_MAX && !help.contains(&line) {
            help.push(line);
        }
    }
    help
}

/// Requirements for each node.
struct Asked<'v> {
    view: &'v View,
    record: &'v TaskRecord,
    conditions: Conditions,
}

impl Asked<'_> {
    fn refused(&self, host: &Host, node: &NodeRecord, service_tasks: u32) -> Vec<Refused> {
        let mut all = Vec::new();
        let mut add = |filter: Filter, detail: String, help: String| all.push(Refused { filter, detail, help });
        let hostname = &node.description().hostname;
        if !is_available(node) {
            let (detail, help) = unavailable(node);
            add(Filter::Ready, detail, help);
        }
        for short in self.short_of(host, node) {
            let help = format!("free that much on {hostname} or ask for less ({short})");
            add(Filter::Resources, short, help);
        }
        if let Some(driver) = self.conditions.missing_plugin(node) {
            add(Filter::Plugins, format!("no driver {driver}"), format!("install the driver {driver} on {hostname}"));
        }
        let missing: Vec<&str> = self.conditions.missing_for_networks(node).collect();
        if !missing.is_empty() {
            let programs = missing.join(" and ");
            let detail = format!("no {programs}, which overlay networks need");
            add(Filter::Networks, detail, format!("install {programs} on {hostname}"));
        }
        if self.conditions.lacks_tunnel(node) {
            let detail = "no tunnel, which encrypted networks need".to_owned();
            let help = format!(
                "give {hostname} WireGuard in its kernel or the device /dev/net/tun; `herder doctor net` there tells more"
            );
            add(Filter::Tunnels, detail, help);
        }
        if self.conditions.is_too_old(node) {
            let detail = "its release of herder does not know the service's settings beyond the swarm API".to_owned();
            add(Filter::Release, detail, format!("upgrade herder on {hostname}"));
        }
        let placement = self.record.task.spec.placement.iter();
        for text in placement.flat_map(|it| &it.constraints) {
            match Constraint::parse(text) {
                Ok(constraint) if constraint.accepts(node) => {}
                Ok(constraint) => {
                    let help = match constraint.wanted_label() {
                        Some((key, value)) => format!("docker node update --label-add {key}={value} {hostname}"),
                        None => format!("take the constraint {text} back"),
                    };
                    add(Filter::Constraints, format!("{text}: it is {:?}", constraint.found(node)), help);
                }
                Err(refusal) => {
                    add(
                        Filter::Constraints,
                        format!("{text}: {}", refusal.text),
                        format!("mend the constraint {text}"),
                    );
                }
            }
        }
        if !self.conditions.runs_on(node) {
            let text = |it: &herder_model::swarm::Platform| format!("{}/{}", it.os, it.architecture);
            let images: Vec<String> = self.conditions.platforms.iter().map(text).collect();
            let is = text(&normal(&node.description().platform));
            let images = images.join(", ");
            add(
                Filter::Platforms,
                format!("the image is for {images}, the node is {is}"),
                format!("use an image that is also for {is}"),
            );
        }
        self.ports_and_replicas(host, node, service_tasks, &mut add);
        all
    }

    fn ports_and_replicas(
        &self,
        host: &Host,
        node: &NodeRecord,
        service_tasks: u32,
        add: &mut impl FnMut(Filter, String, String),
    ) {
        for port in host_ports(self.record) {
            if host.taken.ports.contains_key(&port) {
                let others = || self.view.tasks_of_node(&node.node.id).filter(|it| it.task.id != self.record.task.id);
                let holds = |it: &&std::sync::Arc<TaskRecord>| {
                    it.task.status.state <= TaskState::Running && host_ports(it).contains(&port)
                };
                let user = others().find(holds).map_or("another task", |it| &it.task.id);
                add(
                    Filter::HostPorts,
                    format!("port {}/{} is used by {user}", port.port, port.protocol),
                    format!("stop {user} or publish another port than {}/{}", port.port, port.protocol),
                );
            }
        }
        let max = self.conditions.max_replicas;
        if max > 0 && u64::from(service_tasks) >= max {
            add(
                Filter::MaxReplicas,
                format!("it has {service_tasks} of at most {max} tasks of the service"),
                "add a node, or allow more with --replicas-max-per-node".into(),
            );
        }
    }

    fn short_of(&self, host: &Host, node: &NodeRecord) -> Vec<String> {
        let asked = &self.conditions.reserved;
        let has = &node.description().resources;
        let (nano_cpus, memory_bytes) = host.left();
        let mut short = Vec::new();
        if asked.nano_cpus > nano_cpus.max(0) {
            let cpus = |nanos: i64| nanos as f64 / 1e9;
            let (asked, left, all) = (cpus(asked.nano_cpus), cpus(nano_cpus), cpus(has.nano_cpus));
            short.push(format!("{asked} CPUs asked, {left} of {all} left"));
        }
        if asked.memory_bytes > memory_bytes.max(0) {
            let mib = |bytes: i64| bytes >> 20;
            let (asked, left, all) = (mib(asked.memory_bytes), mib(memory_bytes), mib(has.memory_bytes));
            short.push(format!("{asked} MiB of memory asked, {left} of {all} MiB left"));
        }
        let claims = &host.taken.claims;
        for wanted in self.conditions.generics() {
            if generic::claim(&has.generic_resources, claims, std::slice::from_ref(wanted)).is_none() {
                short.push(format!("{} asked, fewer are left", generic::words(wanted)));
            }
        }
        short
    }
}

fn unavailable(node: &NodeRecord) -> (String, String) {
    let hostname = &node.description().hostname;
    let activate = format!("docker node update --availability active {hostname}");
    match (node.node.status.state, node.node.spec.availability) {
        (SwarmNodeState::Ready, Availability::Pause) => ("it is paused".into(), activate),
        (SwarmNodeState::Ready, _) => ("it is drained".into(), activate),
        (SwarmNodeState::Down, _) => match node.node.status.message.strip_prefix("engine: ") {
            Some(error) => (format!("its engine is down: {error}"), format!("bring the engine of {hostname} back")),
            None => ("it is down".into(), format!("bring {hostname} back")),
        },
        (SwarmNodeState::Unknown | SwarmNodeState::Disconnected | SwarmNodeState::Other(_), _) => {
            ("it sent no heartbeat".into(), format!("see whether {hostname} can reach the managers"))
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.subject, self.verdict)?;
        for node in self.nodes.iter().take(LINES_MAX) {
            writeln!(f, "  {node}")?;
        }
        if self.nodes.len() > LINES_MAX {
            writeln!(f, "  and {} more nodes", self.nodes.len() - LINES_MAX)?;
        }
        for (index, help) in self.help.iter().enumerate() {
            writeln!(f, "{} {help}", if index == 0 { "what would help:" } else { "or:" })?;
        }
        Ok(())
    }
}

impl fmt::Display for NodeWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} ", if self.chosen { "* " } else { "" }, name(self))?;
        if self.refused.is_empty() {
            write!(f, "fits: {} of the service, {} in all", self.service_tasks, self.tasks)?;
            if self.failures > 0 {
                write!(f, ", {} failures lately", self.failures)?;
            }
            return Ok(());
        }
        let details: Vec<&str> = self.refused.iter().map(|it| it.detail.as_str()).collect();
        write!(f, "refuses: {}", details.join("; "))
    }
}

#[cfg(test)]
mod tests;
