//! Hooks of a container spec: commands that a node runs around the life of a task's container.
//!
//! `PreStart` steps have containers of their own, one after the other, before the task's container starts. `PostStart` and
//! `PreStop` hooks run in the task's container: after its start and before its stop.

use herder_model::swarm::{ContainerSpec, Mount};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Create, LABEL_NODE, extension, mount, put};

/// All hooks of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Hooks {
    pub pre_start: Vec<Hook>,
    pub post_start: Vec<Hook>,
    pub pre_stop: Vec<Hook>,
    /// Members that a later release may know.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Hook {
    /// The image of a `PreStart` step; the task's own if empty.
    pub image: String,
    /// The whole command line: an entrypoint does not count.
    pub command: Vec<String>,
    /// Variables besides those of the container.
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub privileged: bool,
    /// Mounts of a `PreStart` step besides those of the container.
    pub mounts: Vec<Mount>,
    /// Members that a later release may know.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// Label that tells of a hook's container which task it belongs to.
pub const LABEL_HOOK: &str = "herder.hook.task";

impl Hooks {
    /// The hooks of a specification, as far as this release knows them. A container with others is not made ([`check`]); one
    /// that a later release made keeps those that are known.
    pub fn of(spec: &ContainerSpec) -> Hooks {
        let member = spec.rest.get(extension::MEMBER).map(|it| &it["Hooks"]).filter(|it| !it.is_null());
        member.and_then(|it| Hooks::deserialize(it).ok()).unwrap_or_default()
    }
}

/// Refuses hooks that this release cannot run.
pub(super) fn check(value: &Value) -> Result<(), String> {
    let hooks = Hooks::deserialize(value).map_err(|error| error.to_string())?;
    if let Some(member) = hooks.unknown.keys().next() {
        return Err(format!("{member} is an unknown member"));
    }
    for (word, all) in [("PreStart", &hooks.pre_start), ("PostStart", &hooks.post_start), ("PreStop", &hooks.pre_stop)]
    {
        let unknown = (1..).zip(all).find_map(|(number, hook)| Some((number, hook.unknown.keys().next()?)));
        if let Some((number, member)) = unknown {
            return Err(format!("{word} {number}: {member} is an unknown member"));
        }
        if let Some(at) = all.iter().position(|hook| hook.command.is_empty()) {
            return Err(format!("{word} {} has no command", at + 1));
        }
    }
    Ok(())
}

/// The body of `POST /containers/{id}/exec` for a hook that runs in the task's container.
pub fn exec(hook: &Hook) -> Value {
    let mut body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": hook.command});
    put(&mut body, "Env", hook.env.clone());
    put(&mut body, "User", hook.user.as_str());
    put(&mut body, "WorkingDir", hook.working_dir.as_str());
    put(&mut body, "Privileged", hook.privileged);
    body
}

/// The container of a `PreStart` step, from that of its task; `number` counts from 1.
///
/// It has the task's networks, addresses, mounts and variables, and none of what others find the task by.
pub fn step(task: &Create, task_id: &str, hook: &Hook, number: usize) -> Create {
    let mut body = task.body.clone();
    let node = body["Labels"][LABEL_NODE].clone();
    body["Labels"] = json!({LABEL_HOOK: task_id});
    body["Labels"]["herder.hook.node"] = node;
    let image = if hook.image.is_empty() { task.image.clone() } else { super::image(&hook.image) };
    body["Image"] = image.as_str().into();
    // The engine's way to say that the image's own does not count.
    body["Entrypoint"] = json!([""]);
    body["Cmd"] = json!(hook.command);
    body["Healthcheck"] = json!({"Test": ["NONE"]});
    put(&mut body, "User", hook.user.as_str());
    put(&mut body, "WorkingDir", hook.working_dir.as_str());
    let name_of = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let over: Vec<String> = hook.env.iter().map(|line| name_of(line)).collect();
    let inherited = body["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let inherited = inherited.filter(|line| !over.contains(&name_of(line))).map(str::to_owned);
    let env: Vec<String> = inherited.chain(hook.env.iter().cloned()).collect();
    put(&mut body, "Env", env);
    let host = &mut body["HostConfig"];
    let mut mounts = host["Mounts"].as_array().cloned().unwrap_or_default();
    mounts.extend(hook.mounts.iter().map(mount));
    put(host, "Mounts", mounts);
    if hook.privileged {
        host["Privileged"] = true.into();
    }
    if let Some(members) = host.as_object_mut() {
        members.remove("PortBindings");
    }
    if let Some(members) = body.as_object_mut() {
        // Its output has to be told apart, and nobody types into it.
        ["ExposedPorts", "Tty", "OpenStdin", "StopTimeout"].iter().for_each(|key| drop(members.remove(*key)));
    }
    let volumes = task.volumes.iter().cloned().chain(hook.mounts.iter().filter_map(super::volume)).collect();
    Create { name: step_name(&task.name, number), image, volumes, body, networks: task.networks.clone() }
}

/// The name of the container of a `PreStart` step.
pub fn step_name(task: &str, number: usize) -> String {
    format!("{task}.pre_start.{number}")
}

/// The failure of a hook as its task tells it: `post_start 1: exit 3: no such table`.
pub fn failure(kind: &str, number: usize, exit_code: i64, last_line: &str) -> String {
    let line = if last_line.is_empty() { String::new() } else { format!(": {last_line}") };
    format!("{kind} {number}: exit {exit_code}{line}")
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::ContainerSpec;
    use serde_json::{Value, json};

    use super::{Create, Hook, Hooks, exec, failure, step};

    fn hook(value: Value) -> Hook {
        serde_json::from_value(value).expect("a hook")
    }

    #[test]
    fn a_step_has_the_tasks_surroundings_and_not_its_names() {
        let task = Create {
            name: "web.1.t".into(),
            image: "app:1".into(),
            volumes: Vec::new(),
            body: json!({
                "Image": "app:1", "Entrypoint": ["/app"], "Env": ["A=1", "B=2"], "ExposedPorts": {"80/tcp": {}},
                "Labels": {"com.docker.swarm.task.id": "t", "com.docker.swarm.node.id": "n"},
                "HostConfig": {"NetworkMode": "net", "PortBindings": {"80/tcp": []}, "Mounts": [{"Target": "/a"}]},
            }),
            networks: Vec::new(),
        };
        let one = step(&task, "t", &hook(json!({"Command": ["x"], "Env": ["B=3"]})), 1);
        assert_eq!(one.name, "web.1.t.pre_start.1");
        let wanted = json!({
            "Image": "app:1", "Entrypoint": [""], "Cmd": ["x"], "Env": ["A=1", "B=3"],
            "Labels": {"herder.hook.task": "t", "herder.hook.node": "n"}, "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {"NetworkMode": "net", "Mounts": [{"Target": "/a"}]},
        });
        assert_eq!(one.body, wanted);
        let of_its_own = json!({
            "Command": ["y"], "Image": "tool", "User": "root", "WorkingDir": "/w", "Privileged": true,
            "Mounts": [{"Type": "tmpfs", "Target": "/b"}],
        });
        let two = step(&task, "t", &hook(of_its_own), 2);
        assert_eq!((two.image.as_str(), &two.body["Image"]), ("tool:latest", &json!("tool:latest")));
        assert_eq!((&two.body["User"], &two.body["WorkingDir"]), (&json!("root"), &json!("/w")));
        let mounts = json!([{"Target": "/a"}, {"Type": "tmpfs", "Target": "/b"}]);
        assert_eq!((&two.body["HostConfig"]["Mounts"], &two.body["HostConfig"]["Privileged"]), (&mounts, &json!(true)));
    }

    #[test]
    fn hooks_are_read_from_a_specification() {
        let mut spec = ContainerSpec::default();
        assert_eq!(Hooks::of(&spec), Hooks::default());
        spec.rest.insert("Herder", json!({"Hooks": {"PostStart": [{"Command": ["x"], "Env": ["A=b"]}]}}));
        let hooks = Hooks::of(&spec);
        let body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": ["x"], "Env": ["A=b"]});
        assert_eq!(exec(&hooks.post_start[0]), body);
        // Beside members of a later release the known ones stay.
        let later = json!({"PostStart": [{"Command": ["x"], "Env": ["A=b"], "Retries": 3}], "PreRemove": [{}]});
        spec.rest.insert("Herder", json!({"Hooks": later}));
        let hooks = Hooks::of(&spec);
        assert_eq!((exec(&hooks.post_start[0]), hooks.pre_stop), (body, Vec::new()));
    }

    #[test]
    fn a_failure_names_the_hook() {
        assert_eq!(failure("post_start", 1, 3, "no such table"), "post_start 1: exit 3: no such table");
        assert_eq!(failure("pre_start", 2, 1, ""), "pre_start 2: exit 1");
    }
}
