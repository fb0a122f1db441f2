//! Hooks: commands before the start of a service's containers, after it, and before their stop.
//!
//! Hooks that run beside each container travel in the member `Herder` of the container spec. A `pre_start` step that runs once
//! is a job of its own, and the service waits for it to complete. The name of the job holds a digest of its definition: another
//! definition is another job, so going back runs nothing again.

use std::collections::BTreeMap;

use serde_json::{Map as Json, Value, json};

use crate::node::Node;

use super::{
    Condition, Context, Dependency, DesiredService, IMAGE_LABEL, STACK_LABEL, at_key, container, list, put, relabel,
};

/// The hooks of a service that run beside each of its containers; null if there are none.
pub(super) fn extension(context: &Context<'_>, service: &Node) -> Value {
    let mut json = Json::new();
    let each = steps(service).filter(|step| is_per_replica(step));
    put(&mut json, "PreStart", each.map(|step| hook(context, step)).collect::<Vec<_>>());
    for (key, name) in [("post_start", "PostStart"), ("pre_stop", "PreStop")] {
        let hooks = service.get(key).into_iter().flat_map(Node::elements);
        put(&mut json, name, hooks.map(|it| hook(context, it)).collect::<Vec<_>>());
    }
    json.into()
}

fn steps(service: &Node) -> impl Iterator<Item = &Node> {
    service.get("pre_start").into_iter().flat_map(Node::elements)
}

fn is_per_replica(step: &Node) -> bool {
    step.get("per_replica").and_then(Node::as_bool) == Some(true)
}

fn hook(context: &Context<'_>, node: &Node) -> Value {
    let text = |key: &str| node.get(key).and_then(Node::scalar_text).unwrap_or_default();
    let mut json = Json::new();
    if !text("image").is_empty() {
        json.insert("Image".into(), container::tagged(&text("image")).into());
    }
    json.insert("Command".into(), json!(list(node.get("command"))));
    put(&mut json, "Env", container::environment(node));
    put(&mut json, "User", text("user"));
    put(&mut json, "WorkingDir", text("working_dir"));
    put(&mut json, "Privileged", node.get("privileged").and_then(Node::as_bool).unwrap_or(false));
    put(&mut json, "Mounts", container::mounts(context, node));
    json.into()
}

/// The jobs of the `pre_start` steps that run once, in their order. The service waits for them afterwards.
pub(super) fn jobs(context: &mut Context<'_>, node: &Node, service: &mut DesiredService) -> Vec<DesiredService> {
    let mut jobs: Vec<DesiredService> = Vec::new();
    for (number, step) in (1..).zip(steps(node)).filter(|(_, step)| !is_per_replica(step)) {
        let mut spec = job(hook(context, step), step, &service.spec, context.stack);
        let digest = digest(&sorted(&without_names(&spec, context.stack)).to_string());
        let tail = format!("-pre-start-{number}-{digest:08x}");
        let head: String = service.name.chars().take(super::service::NAME_MAX - tail.len()).collect();
        let name = format!("{head}{tail}");
        spec["Name"] = name.as_str().into();
        if spec["TaskTemplate"]["ContainerSpec"]["Mounts"].as_array().is_some_and(|all| all.iter().any(is_of_a_node)) {
            let message = "runs once, with the volumes of the node that it runs on; `per_replica: true` runs it beside each \
                           container";
            let path = format!("{}[{}]", at_key(&service.key, "pre_start"), number - 1);
            context.report.note("hook", step.at, path, message);
        }
        let mut depends_on = service.depends_on.clone();
        depends_on.extend(jobs.last().map(|before| completed(&before.name)));
        jobs.push(DesiredService { key: format!("{} pre_start {number}", service.key), name, spec, depends_on });
    }
    service.depends_on.extend(jobs.iter().map(|job| completed(&job.name)));
    jobs
}

fn completed(service: &str) -> Dependency {
    Dependency { service: service.to_owned(), condition: Condition::Completed, required: true }
}

/// True of a volume that each node has its own of.
fn is_of_a_node(mount: &Value) -> bool {
    mount["Type"] == "volume" && mount["Source"].is_string() && mount["VolumeOptions"]["DriverConfig"].is_null()
}

/// The job of one step, without its name. It is the service's container with another command, and without all that
/// others reach it by.
fn job(hook: Value, step: &Node, service: &Value, stack: &str) -> Value {
    let mut task = service["TaskTemplate"].clone();
    let mut image = service["Labels"][IMAGE_LABEL].clone();
    let container = &mut task["ContainerSpec"];
    if let Some(own) = step.get("image").and_then(Node::as_str) {
        image = own.into();
        container["Image"] = hook["Image"].clone();
    }
    container["Labels"] = json!({STACK_LABEL: stack});
    container["Command"] = hook["Command"].clone();
    container["Healthcheck"] = json!({"Test": ["NONE"]});
    let env = merged(&container["Env"], &hook["Env"]);
    for (key, value) in [("Env", env), ("User", hook["User"].clone()), ("Dir", hook["WorkingDir"].clone())] {
        if !value.is_null() {
            container[key] = value;
        }
    }
    let mounts: Vec<Value> =
        [&container["Mounts"], &hook["Mounts"]].into_iter().filter_map(Value::as_array).flatten().cloned().collect();
    if !mounts.is_empty() {
        container["Mounts"] = mounts.into();
    }
    let mut herder = container["Herder"].as_object().cloned().unwrap_or_default();
    herder.remove("Hooks");
    herder.remove("ClearEntrypoint");
    if hook["Privileged"] == true {
        herder.entry("HostConfig").or_insert_with(|| json!({}))["Privileged"] = true.into();
    }
    let no_arguments = ["Args", "Herder"];
    if let Some(members) = container.as_object_mut() {
        no_arguments.iter().for_each(|key| drop(members.remove(*key)));
        put(members, "Herder", herder);
    }
    for network in task["Networks"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        // The service's names are those of its own tasks.
        network.remove("Aliases");
    }
    if let Some(placement) = task["Placement"].as_object_mut() {
        placement.remove("Preferences");
        placement.remove("MaxReplicas");
    }
    task["RestartPolicy"] = json!({"Condition": "none"});
    json!({
        "Name": "", "Labels": {STACK_LABEL: stack, IMAGE_LABEL: image}, "TaskTemplate": task,
        "Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}, "EndpointSpec": {},
    })
}

/// `K=V` of both, sorted; the second wins. Null if there are none.
fn merged(all: &Value, over: &Value) -> Value {
    let lines = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let name = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
    let over = lines(over);
    let names: Vec<String> = over.iter().map(name).collect();
    let mut merged: Vec<String> = lines(all).into_iter().filter(|line| !names.contains(&name(line))).collect();
    merged.extend(over);
    merged.sort_unstable();
    if merged.is_empty() { Value::Null } else { json!(merged) }
}

/// A job without all that tells the name of its stack: a stack that gets another name runs nothing again.
fn without_names(job: &Value, stack: &str) -> Value {
    let mut job = job.clone();
    relabel(&mut job, "");
    let task = &mut job["TaskTemplate"];
    let prefix = format!("{stack}_");
    let lists = [
        ("/Networks", "Target"),
        ("/ContainerSpec/Mounts", "Source"),
        ("/ContainerSpec/Secrets", "SecretName"),
        ("/ContainerSpec/Configs", "ConfigName"),
    ];
    for (list, member) in lists {
        for object in task.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(rest) = object[member].as_str().and_then(|name| name.strip_prefix(&prefix)) {
                object[member] = rest.into();
            }
        }
    }
    job
}

/// A value with the members of its objects in the order of their names: a map may keep another one.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(sorted).collect(),
        Value::Object(members) => {
            let members: BTreeMap<&String, Value> = members.iter().map(|(key, value)| (key, sorted(value))).collect();
            members.into_iter().map(|(key, value)| (key.clone(), value)).collect::<Json<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// A digest that tells definitions of one file apart (FNV-1a); nothing is trusted because of it.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |digest, byte| (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
