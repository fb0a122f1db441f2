//! State of a swarm at one moment, as tables. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// Events that are shown; older ones are forgotten.
const EVENTS_MAX: usize = 500;

/// Number of digits of swarm mode's ids.
const ID_CHARS: usize = 25;

/// The four tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Nodes,
    Services,
    Tasks,
    Events,
}

pub(super) const PANES: [Pane; 4] = [Pane::Nodes, Pane::Services, Pane::Tasks, Pane::Events];

impl Pane {
    pub(super) fn title(self) -> &'static str {
        match self {
            Pane::Nodes => "Nodes",
            Pane::Services => "Services",
            Pane::Tasks => "Tasks",
            Pane::Events => "Events",
        }
    }

    /// Names of the columns, and how wide each is at least.
    pub(super) fn columns(self) -> &'static [(&'static str, u16)] {
        match self {
            Pane::Nodes => &[
                ("NAME", 10),
                ("STATE", 6),
                ("AVAIL", 6),
                ("ROLE", 9),
                ("TASKS", 5),
                ("CPUS", 4),
                ("MEMORY", 8),
                ("ADDRESS", 12),
            ],
            Pane::Services => &[("NAME", 16), ("MODE", 10), ("TASKS", 7), ("UPDATE", 10), ("IMAGE", 16)],
            Pane::Tasks => &[("NAME", 16), ("NODE", 10), ("STATE", 9), ("WANTED", 8), ("FOR", 5), ("ERROR", 14)],
            Pane::Events => &[("TIME", 8), ("KIND", 9), ("WHAT", 10), ("NAME", 20), ("ON", 8)],
        }
    }

    /// The column that takes the room that is left.
    pub(super) fn wide(self) -> usize {
        match self {
            Pane::Nodes => 7,
            Pane::Services => 4,
            Pane::Tasks => 5,
            Pane::Events => 3,
        }
    }
}

/// Health of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    /// In progress, or intended.
    Busy,
    Bad,
    Plain,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) tone: Tone,
}

/// Last state from the door.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    pub(super) nodes: Vec<Value>,
    pub(super) services: Vec<Value>,
    pub(super) tasks: Vec<Value>,
    /// The newest first.
    pub(super) events: VecDeque<Value>,
    /// Time zone of shown times; UTC without one.
    pub(super) zone: Option<TimeZone>,
}

impl Picture {
    pub(super) fn add(&mut self, event: Value) {
        // Health checks would be all that one sees.
        if text(&event["Action"]).starts_with("exec_") {
            return;
        }
        self.events.truncate(EVENTS_MAX - 1);
        self.events.push_front(event);
    }

    /// The rows of a table, in no order but that of events. With `all`, also tasks that ended.
    pub(super) fn rows(&self, pane: Pane, all: bool, now: Timestamp) -> Vec<Row> {
        match pane {
            Pane::Nodes => self.node_rows(),
            Pane::Services => self.services.iter().map(service_row).collect(),
            Pane::Tasks => self.task_rows(all, now),
            Pane::Events => self.events.iter().map(|it| event_row(it, self.zone.as_ref())).collect(),
        }
    }

    /// Returns the number of rows of a table.
    pub(super) fn count(&self, pane: Pane, all: bool) -> usize {
        match pane {
            Pane::Nodes => self.nodes.len(),
            Pane::Services => self.services.len(),
            Pane::Tasks => self.tasks.iter().filter(|it| all || !has_ended(it)).count(),
            Pane::Events => self.events.len(),
        }
    }

    fn node_rows(&self) -> Vec<Row> {
        let mut running: BTreeMap<&str, u64> = BTreeMap::new();
        for task in self.tasks.iter().filter(|it| it["Status"]["State"] == "running") {
            *running.entry(text(&task["NodeID"])).or_default() += 1;
        }
        let row = |node: &Value| {
            let description = &node["Description"];
            let role = match (&node["ManagerStatus"]["Leader"], text(&node["ManagerStatus"]["Reachability"])) {
                (Value::Bool(true), _) => "leader",
                (_, "reachable") => "manager",
                (_, "") => "worker",
                (_, other) => other,
            };
            let state = text(&node["Status"]["State"]);
            let available = text(&node["Spec"]["Availability"]);
            let tone = match (state, available) {
                ("ready", "active") => Tone::Good,
                ("ready", _) => Tone::Busy,
                _ => Tone::Bad,
            };
            let cpus = description["Resources"]["NanoCPUs"].as_f64().unwrap_or_default() / 1e9;
            let memory = description["Resources"]["MemoryBytes"].as_u64().unwrap_or_default();
            let tasks = running.get(text(&node["ID"])).copied().unwrap_or_default();
            let cells = [
                name_of(&description["Hostname"], &node["ID"]),
                state.to_owned(),
                available.to_owned(),
                role.to_owned(),
                tasks.to_string(),
                format!("{cpus}"),
                format!("{:.1}GiB", memory as f64 / f64::from(1 << 30)),
                text(&node["Status"]["Addr"]).to_owned(),
            ];
            Row { cells: cells.into(), tone }
        };
        self.nodes.iter().map(row).collect()
    }

    fn task_rows(&self, all: bool, now: Timestamp) -> Vec<Row> {
        let host: BTreeMap<&str, String> =
            self.nodes.iter().map(|it| (text(&it["ID"]), name_of(&it["Description"]["Hostname"], &it["ID"]))).collect();
        let service: BTreeMap<&str, &str> =
            self.services.iter().map(|it| (text(&it["ID"]), text(&it["Spec"]["Name"]))).collect();
        let row = |task: &Value| {
            let (state, wanted) = (text(&task["Status"]["State"]), text(&task["DesiredState"]));
            if has_ended(task) && !all {
                return None;
            }
            let node = text(&task["NodeID"]);
            let on = host.get(node).cloned().unwrap_or_else(|| short(node));
            let of = service
                .get(text(&task["ServiceID"]))
                .map_or_else(|| short(text(&task["ServiceID"])), |it| (*it).to_owned());
            let name = match task["Slot"].as_u64() {
                Some(slot) if slot > 0 => format!("{of}.{slot}"),
                _ => format!("{of}.{on}"),
            };
            let since: Option<Timestamp> = text(&task["Status"]["Timestamp"]).parse().ok();
            let age = since.map(|since| age(now.duration_since(since).as_secs())).unwrap_or_default();
            let error = text(&task["Status"]["Err"]);
            let tone = match (state, wanted) {
                ("running", "running") | ("complete", _) => Tone::Good,
                ("failed" | "rejected" | "orphaned", _) => Tone::Bad,
                _ if !error.is_empty() => Tone::Bad,
                ("shutdown", _) => Tone::Plain,
                _ => Tone::Busy,
            };
            let cells = [name, on, state.to_owned(), wanted.to_owned(), age, error.to_owned()];
            Some(Row { cells: cells.into(), tone })
        };
        self.tasks.iter().filter_map(row).collect()
    }

    /// The line above all tables.
    pub(super) fn headline(&self) -> String {
        let count = |of: &[Value], good: &dyn Fn(&Value) -> bool| of.iter().filter(|it| good(it)).count();
        let ready = count(&self.nodes, &|it| it["Status"]["State"] == "ready");
        let managers = count(&self.nodes, &|it| !it["ManagerStatus"].is_null());
        let leader = self.nodes.iter().find(|it| it["ManagerStatus"]["Leader"] == true);
        let leader = leader.map_or_else(|| "none".to_owned(), |it| name_of(&it["Description"]["Hostname"], &it["ID"]));
        let (mut running, mut wanted, mut fine) = (0, 0, 0);
        for status in self.services.iter().map(|it| &it["ServiceStatus"]) {
            let (runs, wants) = (number(&status["RunningTasks"]), number(&status["DesiredTasks"]));
            let done = number(&status["CompletedTasks"]);
            (running, wanted) = (running + runs, wanted + wants);
            fine += u64::from(runs + done >= wants);
        }
        let (nodes, services) = (self.nodes.len(), self.services.len());
        format!(
            "nodes {ready}/{nodes} · services {fine}/{services} · tasks {running}/{wanted} · managers {managers}, leader {leader}"
        )
    }
}

/// Rows in the order of a column; equal ones in that of the first.
pub(super) fn sort(rows: &mut [Row], column: usize, reverse: bool) {
    let cell = |row: &Row, at: usize| row.cells.get(at).cloned().unwrap_or_default();
    rows.sort_by(|a, b| {
        let order = natural(&cell(a, column), &cell(b, column));
        let order = if reverse { order.reverse() } else { order };
        order.then_with(|| natural(&cell(a, 0), &cell(b, 0)))
    });
}

/// `web.2` before `web.10`, `90s` before `2m`.
fn natural(a: &str, b: &str) -> Ordering {
    if let (Some(a), Some(b)) = (seconds(a), seconds(b)) {
        return a.cmp(&b);
    }
    let mut rest = (a, b);
    while !rest.0.is_empty() && !rest.1.is_empty() {
        let (left, right) = (piece(rest.0), piece(rest.1));
        let order = match (left.parse::<u128>(), right.parse::<u128>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            _ => left.cmp(right),
        };
        if order != Ordering::Equal {
            return order;
        }
        rest = (&rest.0[left.len()..], &rest.1[right.len()..]);
    }
    rest.0.len().cmp(&rest.1.len())
}

/// The digits, or what is none, at the beginning.
fn piece(text: &str) -> &str {
    let digits = text.starts_with(|it: char| it.is_ascii_digit());
    let end = text.find(|it: char| it.is_ascii_digit() != digits).unwrap_or(text.len());
    &text[..end]
}

fn service_row(service: &Value) -> Row {
    let spec = &service["Spec"];
    let mode =
        ["Replicated", "Global", "ReplicatedJob", "GlobalJob"].into_iter().find(|it| !spec["Mode"][*it].is_null());
    let mode = match mode {
        Some("Global") => "global",
        Some("ReplicatedJob") => "job",
        Some("GlobalJob") => "global job",
        Some(_) | None => "replicated",
    };
    let status = &service["ServiceStatus"];
    let (runs, wants, done) =
        (number(&status["RunningTasks"]), number(&status["DesiredTasks"]), number(&status["CompletedTasks"]));
    let update = text(&service["UpdateStatus"]["State"]).replace('_', " ");
    let tone = match () {
        () if update.ends_with("paused") => Tone::Bad,
        () if runs + done < wants || ["updating", "rollback started"].contains(&&*update) => Tone::Busy,
        () => Tone::Good,
    };
    // A digest says nothing to people.
    let image = text(&spec["TaskTemplate"]["ContainerSpec"]["Image"]);
    let image = image.split('@').next().unwrap_or_default();
    let cells = [text(&spec["Name"]), mode, &format!("{runs}/{wants}"), &update, image];
    Row { cells: cells.map(str::to_owned).into(), tone }
}

fn event_row(event: &Value, zone: Option<&TimeZone>) -> Row {
    let at = event["time"].as_i64().and_then(|it| Timestamp::from_second(it).ok());
    let time = at
        .map(|it| it.to_zoned(zone.cloned().unwrap_or(TimeZone::UTC)).strftime("%H:%M:%S").to_string())
        .unwrap_or_default();
    let actor = &event["Actor"];
    let (kind, what) = (text(&event["Type"]), text(&event["Action"]));
    let on = text(&actor["Attributes"]["node.name"]);
    let name = match text(&actor["Attributes"]["name"]) {
        "" => short(text(&actor["ID"])),
        name => without_ids(name),
    };
    let code = text(&actor["Attributes"]["exitCode"]);
    let exit = if code.is_empty() { String::new() } else { format!("exit {code}") };
    let tone = match what {
        "die" if code != "0" => Tone::Bad,
        "oom" | "engine_disconnect" => Tone::Bad,
        "start" | "create" | "engine_connect" => Tone::Good,
        _ => Tone::Plain,
    };
    let state = text(&actor["Attributes"]["state.new"]);
    let replicas = text(&actor["Attributes"]["replicas.new"]);
    let update = text(&actor["Attributes"]["updatestate.new"]);
    let more = [state, replicas, update, &exit].into_iter().find(|it| !it.is_empty()).unwrap_or_default();
    let name = if more.is_empty() { name } else { format!("{name} → {more}") };
    Row { cells: vec![time, kind.to_owned(), what.to_owned(), name, on.to_owned()], tone }
}

fn has_ended(task: &Value) -> bool {
    ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"].contains(&text(&task["Status"]["State"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn name_of(name: &Value, id: &Value) -> String {
    match text(name) {
        "" => short(text(id)),
        name => name.to_owned(),
    }
}

/// The beginning of an id, as Docker shows it.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// `web.1.1xqp08mj569q0h1vps152425z` → `web.1`: ids fill the screen and say nothing.
fn without_ids(name: &str) -> String {
    let is_id =
        |part: &&str| part.len() == ID_CHARS && part.bytes().all(|it| it.is_ascii_digit() || it.is_ascii_lowercase());
    name.split('.').filter(|part| !is_id(part)).collect::<Vec<_>>().join(".")
}

/// Parses the result of [`age`].
fn seconds(age: &str) -> Option<u64> {
    let unit = match age.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    age[..age.len() - 1].parse::<u64>().ok().map(|it| it * unit)
}

/// Formats an age in one unit, as `service ps` does.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// The moment of all tests.
    pub(in crate::top) fn moment() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().expect("a time")
    }

    pub(in crate::top) fn picture() -> Picture {
        let node = |id: &str, name: &str, state: &str, leader: Option<bool>| {
            json!({"ID": id, "Description": {"Hostname": name, "Resources": {"NanoCPUs": 2_000_000_000_u64, "MemoryBytes": 2_u64 << 30}},
                   "Spec": {"Availability": "active"}, "Status": {"State": state, "Addr": "10.0.0.1"},
                   "ManagerStatus": leader.map(|it| json!({"Leader": it, "Reachability": "reachable"}))})
        };
        let task = |slot: u64, node: &str, state: &str, error: &str| {
            json!({"ID": format!("t{slot}"), "ServiceID": "s1", "Slot": slot, "NodeID": node, "DesiredState": "running",
                   "Status": {"State": state, "Err": error, "Timestamp": "2026-11-21T11:59:00Z"}})
        };
        let mut picture = Picture {
            nodes: vec![
                node("n1", "h1", "ready", Some(true)),
                node("n2", "h2", "ready", Some(false)),
                node("n3", "h3", "down", None),
            ],
            services: vec![json!({
                "ID": "s1", "Spec": {"Name": "web", "Mode": {"Replicated": {}},
                                     "TaskTemplate": {"ContainerSpec": {"Image": "busybox:1@sha256:1234"}}},
                "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3}, "UpdateStatus": {"State": "rollback_started"},
            })],
            tasks: vec![
                task(10, "n2", "running", ""),
                task(2, "n1", "running", ""),
                task(3, "", "pending", "no suitable node"),
                task(4, "n1", "failed", "exit 1"),
            ],
            ..Picture::default()
        };
        picture.add(json!({"time": 1_795_262_400, "Type": "service", "Action": "update",
                           "Actor": {"ID": "s1", "Attributes": {"name": "web", "replicas.new": "3"}}}));
        picture.add(json!({"time": 1_795_262_401, "Type": "container", "Action": "die",
                           "Actor": {"ID": "c1", "Attributes": {"name": "web.4.1xqp08mj569q0h1vps152425z", "exitCode": "1", "node.name": "h1"}}}));
        picture
    }

    #[track_caller]
    fn check(pane: Pane, all: bool, column: usize, reverse: bool, expected: &[&str]) {
        let mut rows = picture().rows(pane, all, moment());
        sort(&mut rows, column, reverse);
        let text: Vec<String> = rows.iter().map(|it| format!("{:?} {}", it.tone, it.cells.join(" "))).collect();
        assert_eq!(text, expected);
        assert!(rows.iter().all(|it| it.cells.len() == pane.columns().len()));
        assert_eq!(rows.len(), picture().count(pane, all));
    }

    #[test]
    fn nodes_say_how_they_are_and_what_runs_there() {
        let nodes = [
            "Good h1 ready active leader 1 2 2.0GiB 10.0.0.1",
            "Good h2 ready active manager 1 2 2.0GiB 10.0.0.1",
            "Bad h3 down active worker 0 2 2.0GiB 10.0.0.1",
        ];
        check(Pane::Nodes, false, 0, false, &nodes);
        check(Pane::Nodes, false, 1, false, &[nodes[2], nodes[0], nodes[1]]);
    }

    #[test]
    fn tasks_are_in_the_order_of_numbers_and_those_that_ended_only_if_wanted() {
        let (two, three, ten) = (
            "Good web.2 h1 running running 60s ",
            "Bad web.3  pending running 60s no suitable node",
            "Good web.10 h2 running running 60s ",
        );
        check(Pane::Tasks, false, 0, false, &[two, three, ten]);
        check(Pane::Tasks, false, 0, true, &[ten, three, two]);
        check(Pane::Tasks, true, 2, false, &["Bad web.4 h1 failed running 60s exit 1", three, two, ten]);
    }

    #[test]
    fn services_and_events_say_what_happens_to_them() {
        check(Pane::Services, false, 0, false, &["Busy web replicated 2/3 rollback started busybox:1"]);
        let rows = picture().rows(Pane::Events, false, moment());
        let text: Vec<String> = rows.iter().map(|it| it.cells.join(" ")).collect();
        assert_eq!(text, ["12:00:01 container die web.4 → exit 1 h1", "12:00:00 service update web → 3 "]);
    }

    #[test]
    fn the_headline_sums_up() {
        assert_eq!(picture().headline(), "nodes 2/3 · services 0/1 · tasks 2/3 · managers 2, leader h1");
        assert!(Picture::default().headline().ends_with("managers 0, leader none"));
    }

    #[test]
    fn old_events_are_forgotten() {
        let mut picture = Picture::default();
        (0..EVENTS_MAX + 10).for_each(|at| picture.add(json!({ "time": at })));
        assert_eq!(
            (picture.events.len(), picture.events[0]["time"].as_u64()),
            (EVENTS_MAX, Some(EVENTS_MAX as u64 + 9))
        );
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, expected) in [(-5, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(age(seconds), expected);
        }
        for (lesser, greater) in [("90s", "2m"), ("119m", "2h"), ("9", "10"), ("a.9", "a.10"), ("a", "b"), ("", "1s")] {
            assert_eq!(natural(lesser, greater), Ordering::Less, "{lesser} {greater}");
        }
    }
}
