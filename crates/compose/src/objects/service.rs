//! The specs of services, and the order in which they are deployed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as Json, Value, json};

use crate::node::Node;
use crate::units;

use super::{
    Condition, Context, Dependency, DesiredService, IMAGE_LABEL, at_key, container, hooks, keys, labels, list,
    networks, put, texts,
};

/// Characters of a service's name at most: it is a DNS label.
pub(super) const NAME_MAX: usize = 63;

/// All services of a project, dependencies first, otherwise by name.
pub(super) fn all(context: &mut Context<'_>) -> Vec<DesiredService> {
    let project = context.project;
    let mut services: BTreeMap<String, DesiredService> = BTreeMap::new();
    let completed = completed(context);
    for (key, node) in project.services() {
        keys::check(context, key, node);
        let mut service = service(context, key, node, &completed);
        let jobs = hooks::jobs(context, node, &mut service);
        services.extend(jobs.into_iter().chain([service]).map(|service| (service.key.clone(), service)));
    }
    let mut order = Vec::new();
    let mut done = BTreeSet::new();
    let keys: BTreeMap<&str, &str> = services.iter().map(|(key, it)| (it.name.as_str(), key.as_str())).collect();
    for key in services.keys() {
        visit(key, &services, &keys, &mut done, &mut order);
    }
    let order: Vec<String> = order.into_iter().map(str::to_owned).collect();
    order.into_iter().filter_map(|key| services.remove(&key)).collect()
}

/// Appends a service behind those that it depends on. The loader has refused circles. `keys` are those of services by
/// their names.
fn visit<'a>(
    key: &'a str,
    services: &'a BTreeMap<String, DesiredService>,
    keys: &BTreeMap<&str, &'a str>,
    done: &mut BTreeSet<&'a str>,
    order: &mut Vec<&'a str>,
) {
    // An explicit stack: a file may have thousands of services in a row.
    let mut stack = vec![(key, false)];
    while let Some((key, left)) = stack.pop() {
        if left {
            order.push(key);
            continue;
        }
        if !done.insert(key) {
            continue;
        }
        stack.push((key, true));
        let Some(service) = services.get(key) else { continue };
        for dependency in service.depends_on.iter().rev() {
            stack.extend(keys.get(dependency.service.as_str()).map(|key| (*key, false)));
        }
    }
}

/// The services that another one waits for to complete.
fn completed(context: &Context<'_>) -> BTreeSet<String> {
    let dependencies =
        context.project.services().flat_map(|(_, node)| node.get("depends_on").into_iter().flat_map(Node::entries));
    dependencies.filter(|(_, node)| condition(node) == Condition::Completed).map(|(name, _)| name.to_owned()).collect()
}

fn condition(node: &Node) -> Condition {
    match node.get("condition").and_then(Node::as_str) {
        Some("service_healthy") => Condition::Healthy,
        Some("service_completed_successfully") => Condition::Completed,
        _ => Condition::Started,
    }
}

fn service(context: &mut Context<'_>, key: &str, node: &Node, completed: &BTreeSet<String>) -> DesiredService {
    let name = format!("{}_{key}", context.stack);
    let is_label = name.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_'));
    if name.len() > NAME_MAX || !is_label {
        let message = format!("`{name}` cannot be the name of a service on a cluster");
        let fitting: String =
            key.replace('.', "-").chars().take(NAME_MAX.saturating_sub(context.stack.len() + 1)).collect();
        let help = format!("rename the service, for example to `{fitting}`");
        context.report.refuse("name", node.named_at(), format!("services.{key}"), message, help);
    }
    let image = node.get("image").and_then(Node::as_str).unwrap_or_default();
    let deploy = node.get("deploy");
    let part = |key: &str| deploy.and_then(|deploy| deploy.get(key));
    let mut spec = Json::new();
    spec.insert("Name".into(), name.as_str().into());
    let mut all_labels = labels(part("labels"), context.stack);
    all_labels.insert(IMAGE_LABEL.into(), image.into());
    spec.insert("Labels".into(), json!(all_labels));
    let mut task = Json::new();
    task.insert("ContainerSpec".into(), container::spec(context, node));
    task.insert("Resources".into(), resources(node));
    if let policy @ Value::Object(_) = restart_policy(node) {
        task.insert("RestartPolicy".into(), policy);
    }
    task.insert("Placement".into(), placement(node));
    put(&mut task, "LogDriver", log_driver(node));
    task.insert("ForceUpdate".into(), 0.into());
    let attachments = networks::of_service(context, key, node);
    put(&mut task, "Networks", attachments);
    spec.insert("TaskTemplate".into(), task.into());
    spec.insert("Mode".into(), mode(context, key, node, completed));
    put(&mut spec, "UpdateConfig", update_config(part("update_config")));
    put(&mut spec, "RollbackConfig", update_config(part("rollback_config")));
    spec.insert("EndpointSpec".into(), endpoint(node));
    let depends_on = node
        .get("depends_on")
        .into_iter()
        .flat_map(Node::entries)
        .map(|(other, node)| Dependency {
            service: format!("{}_{other}", context.stack),
            condition: condition(node),
            required: node.get("required").and_then(Node::as_bool).unwrap_or(true),
        })
        .collect();
    DesiredService { key: key.to_owned(), name, spec: spec.into(), depends_on }
}

fn mode(context: &mut Context<'_>, key: &str, node: &Node, completed: &BTreeSet<String>) -> Value {
    let declared = node.get("deploy").and_then(|deploy| deploy.get("mode")).and_then(Node::as_str);
    let replicas = node
        .get("scale")
        .or_else(|| node.get("deploy").and_then(|deploy| deploy.get("replicas")))
        .and_then(Node::as_int);
    let is_job = declared.is_none() && completed.contains(key);
    if is_job {
        let restart = node.get("restart").and_then(Node::as_str).unwrap_or("no");
        if matches!(restart, "always" | "unless-stopped") {
            let message = "another service waits for it to complete, and `restart` never lets it";
            let help = "remove `restart`, or use the condition service_started";
            context.report.refuse("conflict", node.named_at(), at_key(key, "restart"), message, help);
        }
        let message = "becomes a job: another service waits for it to complete";
        context.report.note("job", node.named_at(), format!("services.{key}"), message);
    }
    match declared.unwrap_or(if is_job { "replicated-job" } else { "replicated" }) {
        "global" => json!({"Global": {}}),
        "global-job" => json!({"GlobalJob": {}}),
        "replicated-job" => {
            let total = replicas.unwrap_or(1);
            json!({"ReplicatedJob": {"MaxConcurrent": total, "TotalCompletions": total}})
        }
        _ => match replicas {
            Some(replicas) => json!({"Replicated": {"Replicas": replicas}}),
            None => json!({"Replicated": {}}),
        },
    }
}

/// CPUs as billionths.
fn nano_cpus(node: Option<&Node>) -> i64 {
    let cpus = node.and_then(Node::scalar_text).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (cpus * 1e9).round() as i64
}

fn bytes(node: Option<&Node>) -> i64 {
    node.and_then(|node| node.as_str()?.parse().ok()).unwrap_or(0)
}

fn resources(node: &Node) -> Value {
    let resources = node.get("deploy").and_then(|deploy| deploy.get("resources"));
    let limit = |key: &str| resources.and_then(|it| it.get("limits")).and_then(|it| it.get(key));
    let reservation = |key: &str| resources.and_then(|it| it.get("reservations")).and_then(|it| it.get(key));
    let mut limits = Json::new();
    put(&mut limits, "NanoCPUs", nano_cpus(limit("cpus").or_else(|| node.get("cpus"))));
    put(&mut limits, "MemoryBytes", bytes(limit("memory").or_else(|| node.get("mem_limit"))));
    let pids = limit("pids").or_else(|| node.get("pids_limit")).and_then(Node::as_int);
    put(&mut limits, "Pids", pids.filter(|pids| *pids > 0).unwrap_or(0));
    let mut reservations = Json::new();
    put(&mut reservations, "NanoCPUs", nano_cpus(reservation("cpus")));
    put(&mut reservations, "MemoryBytes", bytes(reservation("memory").or_else(|| node.get("mem_reservation"))));
    let generic: Vec<Value> = reservation("generic_resources")
        .into_iter()
        .flat_map(Node::elements)
        .filter_map(|it| it.get("discrete_resource_spec"))
        .map(|spec| {
            let kind = spec.get("kind").and_then(Node::as_str).unwrap_or_default();
            let value = spec.get("value").and_then(Node::as_int).unwrap_or(0);
            json!({"DiscreteResourceSpec": {"Kind": kind, "Value": value}})
        })
        .collect();
    put(&mut reservations, "GenericResources", generic);
    let mut json = Json::new();
    put(&mut json, "Limits", limits);
    put(&mut json, "Reservations", reservations);
    json.into()
}

fn nanoseconds(node: Option<&Node>) -> Option<i64> {
    units::duration(node?.as_str()?)
}

fn restart_policy(node: &Node) -> Value {
    let declared = node.get("deploy").and_then(|deploy| deploy.get("restart_policy"));
    let Some(policy) = declared else {
        let restart = node.get("restart").and_then(Node::as_str).unwrap_or_default();
        let (word, attempts) = restart.split_once(':').unwrap_or((restart, ""));
        return match word {
            "no" => json!({"Condition": "none"}),
            "always" | "unless-stopped" => json!({"Condition": "any"}),
            "on-failure" => match attempts.parse::<u64>() {
                Ok(attempts) => json!({"Condition": "on-failure", "MaxAttempts": attempts}),
                Err(_) => json!({"Condition": "on-failure"}),
            },
            _ => Value::Null,
        };
    };
    let mut json = Json::new();
    put(&mut json, "Condition", policy.get("condition").and_then(Node::as_str).unwrap_or_default());
    for (key, name) in [("delay", "Delay"), ("window", "Window")] {
        if let Some(time) = nanoseconds(policy.get(key)) {
            json.insert(name.into(), time.into());
        }
    }
    if let Some(attempts) = policy.get("max_attempts").and_then(Node::as_int) {
        json.insert("MaxAttempts".into(), attempts.into());
    }
    json.into()
}

fn placement(node: &Node) -> Value {
    let placement = node.get("deploy").and_then(|deploy| deploy.get("placement"));
    let part = |key: &str| placement.and_then(|placement| placement.get(key));
    let mut json = Json::new();
    put(&mut json, "Constraints", list(part("constraints")));
    let preferences: Vec<Value> = part("preferences")
        .into_iter()
        .flat_map(Node::elements)
        .filter_map(|it| it.get("spread").and_then(Node::as_str))
        .map(|spread| json!({"Spread": {"SpreadDescriptor": spread}}))
        .collect();
    put(&mut json, "Preferences", preferences);
    put(&mut json, "MaxReplicas", part("max_replicas_per_node").and_then(Node::as_int).unwrap_or(0));
    if let Some(platform) = node.get("platform").and_then(Node::as_str) {
        let mut parts = platform.split('/');
        let os = parts.next().unwrap_or_default();
        let architecture = parts.next().unwrap_or_default();
        put(&mut json, "Platforms", json!([{"Architecture": architecture, "OS": os}]));
    }
    json.into()
}

fn log_driver(node: &Node) -> Value {
    let Some(logging) = node.get("logging").filter(|logging| !logging.is_null()) else { return Value::Null };
    let mut json = Json::new();
    put(&mut json, "Name", logging.get("driver").and_then(Node::as_str).unwrap_or_default());
    put(&mut json, "Options", json!(texts(logging.get("options"))));
    json.into()
}

fn update_config(config: Option<&Node>) -> Value {
    let Some(config) = config.filter(|config| !config.is_null()) else { return Value::Null };
    let mut json = Json::new();
    json.insert("Parallelism".into(), config.get("parallelism").and_then(Node::as_int).unwrap_or(1).into());
    put(&mut json, "Delay", nanoseconds(config.get("delay")).unwrap_or(0));
    put(&mut json, "FailureAction", config.get("failure_action").and_then(Node::as_str).unwrap_or_default());
    put(&mut json, "Monitor", nanoseconds(config.get("monitor")).unwrap_or(0));
    let ratio = config.get("max_failure_ratio").and_then(Node::scalar_text).and_then(|text| text.parse::<f64>().ok());
    // Go writes a ratio of zero too; a whole number without a point.
    let ratio = ratio.unwrap_or(0.0);
    json.insert("MaxFailureRatio".into(), if ratio == 0.0 { 0.into() } else { ratio.into() });
    json.insert("Order".into(), config.get("order").and_then(Node::as_str).unwrap_or_default().into());
    json.into()
}

fn endpoint(node: &Node) -> Value {
    let mode = node.get("deploy").and_then(|deploy| deploy.get("endpoint_mode")).and_then(Node::as_str);
    let mut ports: Vec<(i64, Value)> = Vec::new();
    for port in node.get("ports").into_iter().flat_map(Node::elements) {
        let text = |key: &str| port.get(key).and_then(Node::as_str).unwrap_or_default();
        let target = port.get("target").and_then(Node::as_int).unwrap_or(0);
        // Of a range one port is enough; the first one is asked for.
        let first = text("published").split('-').next().unwrap_or_default();
        let published: i64 = first.parse().unwrap_or(0);
        let mut json = Json::new();
        put(&mut json, "Protocol", text("protocol"));
        put(&mut json, "TargetPort", target);
        put(&mut json, "PublishedPort", published);
        put(&mut json, "PublishMode", text("mode"));
        ports.push((published, json.into()));
    }
    ports.sort_by_key(|(published, _)| *published);
    let mut json = Json::new();
    put(&mut json, "Mode", mode.unwrap_or_default());
    put(&mut json, "Ports", ports.into_iter().map(|(_, port)| port).collect::<Vec<_>>());
    json.into()
}
