//! Validation of a declared object on its own. Whether it fits to the others (names, references, published ports) is
//! decided where they are known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use base64::Engine as _;
use herder_model::swarm::{
    ConfigSpec, ContainerSpec, EndpointSpec, FileTarget, NodeSpec, ResourceRequirements, RestartPolicy, SecretSpec,
    ServiceMode, ServiceSpec, UpdateConfig,
};
use regex::Regex;

use crate::swarm::task::template::check_templates;
use crate::swarm::{Constraint, Refusal};

type Checked = Result<(), Refusal>;

/// Docker counts a secret of 500 KiB as too large already.
const SECRET_BYTES_MAX: usize = 500 << 10;
const CONFIG_BYTES_MAX: usize = 1000 << 10;
const NAME_CHARS_MAX: usize = 63;
const FILE_NAME_CHARS_MAX: usize = 64;

const NANO_CPUS_MIN: i64 = 1_000_000;
const MEMORY_BYTES_MIN: i64 = 4 << 20;

/// A health check may not be made more often than each millisecond.
const HEALTH_TIME_MIN_NANO: i64 = 1_000_000;

// The patterns are literals, tested below; a build with a wrong one fails every test.
static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$").ok());
static FILE_NAME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$").ok());
/// A name with a tag or a digest; the parts of the name in lower case (distribution `reference`).
static IMAGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let host = r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/";
    let end = r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,})?";
    Regex::new(&format!("^(?:{host})?{part}(?:/{part})*{end}$")).ok()
});

fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|it| it.is_match(text))
}

/// A service before it is created, or what it shall become.
pub fn service(spec: &ServiceSpec) -> Checked {
    name(&spec.name)?;
    task(spec)?;
    mode(spec)?;
    for config in [&spec.update_config, &spec.rollback_config].into_iter().flatten() {
        update(config)?;
    }
    endpoint(spec.endpoint_spec.as_ref())
}

/// A node's new settings; a name is not needed.
pub fn node(spec: &NodeSpec) -> Checked {
    if spec.name.is_empty() { Ok(()) } else { name(&spec.name) }
}

pub fn secret(spec: &SecretSpec) -> Checked {
    file_name(&spec.name)?;
    match &spec.driver {
        Some(driver) if driver.name.is_empty() => Err(Refusal::invalid("secret driver must have a name")),
        Some(_) if spec.data.is_empty() => Ok(()),
        _ => size("secret", &spec.data, SECRET_BYTES_MAX),
    }
}

pub fn config(spec: &ConfigSpec) -> Checked {
    file_name(&spec.name)?;
    size("config", &spec.data, CONFIG_BYTES_MAX)
}

fn size(what: &str, data: &str, max: usize) -> Checked {
    let bytes = base64::engine::general_purpose::STANDARD.decode(data);
    let bytes = bytes.map_err(|error| Refusal::invalid(format!("{what} data is no base64: {error}")))?.len();
    if bytes == 0 || bytes >= max {
        return Err(Refusal::invalid(format!("{what} data must be larger than 0 and less than {max} bytes")));
    }
    Ok(())
}

/// Checks a name of services, networks and nodes.
pub(super) fn name(text: &str) -> Checked {
    if text.is_empty() {
        Err(Refusal::invalid("meta: name must be provided"))
    } else if text.chars().count() > NAME_CHARS_MAX {
        Err(Refusal::invalid(format!("name must be {NAME_CHARS_MAX} characters or fewer")))
    } else if !matches(&NAME, text) {
        Err(Refusal::invalid("name must be valid as a DNS name component"))
    } else {
        Ok(())
    }
}

/// Checks a name of secrets and configs.
fn file_name(text: &str) -> Checked {
    if text.is_empty() {
        return Err(Refusal::invalid("meta: name must be provided"));
    }
    if text.chars().count() > FILE_NAME_CHARS_MAX || !matches(&FILE_NAME, text) {
        return Err(Refusal::invalid(format!(
            "invalid name, only {FILE_NAME_CHARS_MAX} [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
        )));
    }
    Ok(())
}

fn task(service: &ServiceSpec) -> Checked {
    let spec = &service.task_template;
    if let Some(resources) = &spec.resources {
        requirements(resources)?;
    }
    if let Some(policy) = &spec.restart_policy {
        restart(policy)?;
    }
    for constraint in spec.placement.iter().flat_map(|placement| &placement.constraints) {
        Constraint::parse(constraint)?;
    }
    let container_spec = spec.container_spec.as_ref().ok_or_else(|| Refusal::invalid("TaskSpec: missing runtime"))?;
    check_templates(container_spec, service.labels.as_ref().unwrap_or(&BTreeMap::new()))?;
    container(container_spec)
}

fn requirements(resources: &ResourceRequirements) -> Checked {
    let amounts = [
        resources.limits.as_ref().map(|limits| (limits.nano_cpus, limits.memory_bytes)),
        resources.reservations.as_ref().map(|reserved| (reserved.nano_cpus, reserved.memory_bytes)),
    ];
    for (nano_cpus, memory_bytes) in amounts.into_iter().flatten() {
        if nano_cpus != 0 && nano_cpus < NANO_CPUS_MIN {
            let cpus = nano_cpus as f64 / 1e9;
            return Err(Refusal::invalid(format!("invalid cpu value {cpus}: Must be at least 0.001")));
        }
        if memory_bytes != 0 && memory_bytes < MEMORY_BYTES_MIN {
            return Err(Refusal::invalid(format!("invalid memory value {memory_bytes}: Must be at least 4MiB")));
        }
    }
    Ok(())
}

fn restart(policy: &RestartPolicy) -> Checked {
    for (what, nanos) in [("restart-delay", policy.delay), ("restart-window", policy.window)] {
        if nanos.is_some_and(|nanos| nanos < 0) {
            return Err(Refusal::invalid(format!("TaskSpec: {what} cannot be negative")));
        }
    }
    Ok(())
}

fn container(spec: &ContainerSpec) -> Checked {
    let refused = |text: String| Err(Refusal::invalid(format!("ContainerSpec: {text}")));
    if spec.image.is_empty() {
        return refused("image reference must be provided".into());
    }
    if !matches(&IMAGE, &spec.image) {
        return refused(format!("{:?} is not a valid repository/tag", spec.image));
    }
    let mut targets = BTreeSet::new();
    if let Some(twice) = spec.mounts.iter().find(|mount| !targets.insert(mount.target.trim_end_matches('/'))) {
        return refused(format!("duplicate mount point: {}", twice.target));
    }
    if let Some(health) = &spec.healthcheck {
        let times = [
            ("Interval", health.interval),
            ("Timeout", health.timeout),
            ("StartPeriod", health.start_period),
            ("StartInterval", health.start_interval),
        ];
        if let Some((what, _)) = times.iter().find(|(_, nanos)| *nanos != 0 && *nanos < HEALTH_TIME_MIN_NANO) {
            return refused(format!("{what} in HealthConfig cannot be less than 1ms"));
        }
        if health.retries < 0 {
            return refused("Retries in HealthConfig cannot be negative".into());
        }
    }
    let secrets = spec.secrets.iter().map(|it| (it.secret_id.as_str(), it.secret_name.as_str(), it.file.as_ref()));
    references("secret", secrets)?;
    let in_files = spec.configs.iter().filter(|it| it.runtime.is_none());
    references("config", in_files.map(|it| (it.config_id.as_str(), it.config_name.as_str(), it.file.as_ref())))
}

/// Each has an id, a name and a file of its own.
fn references<'r>(what: &str, references: impl Iterator<Item = (&'r str, &'r str, Option<&'r FileTarget>)>) -> Checked {
    let mut targets: Vec<(&str, &str)> = Vec::new();
    for (id, name, file) in references {
        if id.is_empty() || name.is_empty() {
            return Err(Refusal::invalid(format!("malformed {what} reference")));
        }
        let Some(file) = file else {
            return Err(Refusal::invalid(format!("malformed {what} reference, no target provided")));
        };
        if file.name.is_empty() {
            return Err(Refusal::invalid(format!(
                "malformed file {what} reference, invalid target file name provided"
            )));
        }
        if let Some((other, _)) = targets.iter().find(|(_, target)| *target == file.name) {
            return Err(Refusal::invalid(format!(
                "{what} references '{other}' and '{name}' have a conflicting target: '{}'",
                file.name
            )));
        }
        targets.push((name, &file.name));
    }
    Ok(())
}

fn mode(spec: &ServiceSpec) -> Checked {
    let ServiceMode { replicated, global, replicated_job, global_job, rest: _ } = &spec.mode;
    let said = [replicated.is_some(), global.is_some(), replicated_job.is_some(), global_job.is_some()];
    if said.into_iter().filter(|said| *said).count() > 1 {
        return Err(Refusal::invalid("Unrecognized service mode"));
    }
    let is_job = replicated_job.is_some() || global_job.is_some();
    if is_job && (spec.update_config.is_some() || spec.rollback_config.is_some()) {
        return Err(Refusal::invalid("Jobs may not have an update config"));
    }
    let job = replicated_job.as_ref();
    for (number, text) in [
        (replicated.as_ref().and_then(|it| it.replicas), "Number of replicas must be non-negative"),
        (job.and_then(|it| it.max_concurrent), "Maximum concurrent jobs must not be negative"),
        (job.and_then(|it| it.total_completions), "Total completed jobs must not be negative"),
    ] {
        // In swarm mode, numbers that have no sign are read as if they had one.
        if number.is_some_and(|it| i64::try_from(it).is_err()) {
            return Err(Refusal::invalid(text));
        }
    }
    Ok(())
}

fn update(config: &UpdateConfig) -> Checked {
    for (what, nanos) in [("update-delay", config.delay), ("update-monitor", config.monitor)] {
        if nanos < 0 {
            return Err(Refusal::invalid(format!("TaskSpec: {what} cannot be negative")));
        }
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio.0) {
        return Err(Refusal::invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"));
    }
    Ok(())
}

fn endpoint(spec: Option<&EndpointSpec>) -> Checked {
    let Some(spec) = spec else { return Ok(()) };
    let is_ingress = |mode: &str| matches!(mode, "" | "ingress");
    if spec.mode == "dnsrr" && spec.ports.iter().any(|port| is_ingress(&port.publish_mode)) {
        return Err(Refusal::invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode"));
    }
    let protocol = |text: &str| if text.is_empty() { "tcp".to_owned() } else { text.to_owned() };
    let mut published = BTreeSet::new();
    for port in spec.ports.iter().filter(|port| port.published_port != 0) {
        if !published.insert((protocol(&port.protocol), port.published_port, is_ingress(&port.publish_mode))) {
            return Err(Refusal::invalid("EndpointSpec: duplicate published ports provided"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Driver, TaskSpec};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A service with this changed; the refusal without its code, or nothing.
    #[track_caller]
    fn check(path: &str, value: Value, expected: &str) {
        let mut body = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}}});
        let mut at = &mut body;
        for key in path.split('.') {
            at = &mut at[key];
        }
        *at = value;
        let spec: ServiceSpec = serde_json::from_value(body).expect("a service");
        let refusal = service(&spec).map_or_else(|refusal| refusal.text, |()| String::new());
        assert_eq!(refusal, expected, "{path}");
    }

    const CONTAINER: &str = "TaskTemplate.ContainerSpec";

    #[test]
    fn names_are_those_of_hosts() {
        check("Name", json!(""), "meta: name must be provided");
        check("Name", json!("a.b"), "name must be valid as a DNS name component");
        check("Name", json!("a-"), "name must be valid as a DNS name component");
        check("Name", json!("a__b-9"), "");
        check("Name", json!("a".repeat(63)), "");
        check("Name", json!("a".repeat(64)), "name must be 63 characters or fewer");
    }

    #[test]
    fn containers_are_checked_before_anything_runs() {
        let image = &format!("{CONTAINER}.Image");
        check(image, json!(""), "ContainerSpec: image reference must be provided");
        check(image, json!("UPPER"), "ContainerSpec: \"UPPER\" is not a valid repository/tag");
        check(
            image,
            json!("host:5000/a/b_c:v1.2@sha256:6c8a7399585bd3e2218f3d59aadcef557adb4453e12c42157a4ba3c591f6312b"),
            "",
        );
        check(
            &format!("{CONTAINER}.Mounts"),
            json!([{"Target": "/a"}, {"Target": "/a"}]),
            "ContainerSpec: duplicate mount point: /a",
        );
        let health = &format!("{CONTAINER}.Healthcheck");
        check(health, json!({"Interval": 999_999}), "ContainerSpec: Interval in HealthConfig cannot be less than 1ms");
        check(
            health,
            json!({"StartInterval": -1}),
            "ContainerSpec: StartInterval in HealthConfig cannot be less than 1ms",
        );
        check(health, json!({"Retries": -1}), "ContainerSpec: Retries in HealthConfig cannot be negative");
        check("TaskTemplate", json!({}), "TaskSpec: missing runtime");
    }

    #[test]
    fn secrets_and_configs_in_a_container_have_files_of_their_own() {
        let file = |name: &str| json!({"Name": name, "UID": "0", "GID": "0", "Mode": 292});
        let secret = |name: &str, file: Value| json!({"SecretID": "x", "SecretName": name, "File": file});
        let secrets = &format!("{CONTAINER}.Secrets");
        check(secrets, json!([secret("a", file("t")), secret("b", file("u"))]), "");
        check(secrets, json!([secret("a", Value::Null)]), "malformed secret reference, no target provided");
        check(
            secrets,
            json!([secret("a", file(""))]),
            "malformed file secret reference, invalid target file name provided",
        );
        check(
            secrets,
            json!([secret("a", file("t")), secret("b", file("t"))]),
            "secret references 'a' and 'b' have a conflicting target: 't'",
        );
        let config = json!({"ConfigID": "x", "ConfigName": "", "File": file("t")});
        check(&format!("{CONTAINER}.Configs"), json!([config]), "malformed config reference");
        let credentials = json!({"ConfigID": "x", "ConfigName": "c", "Runtime": {}});
        check(&format!("{CONTAINER}.Configs"), json!([credentials]), "");
    }

    #[test]
    fn amounts_and_times_have_a_least() {
        let resources = "TaskTemplate.Resources";
        check(resources, json!({"Limits": {"NanoCPUs": 1000}}), "invalid cpu value 0.000001: Must be at least 0.001");
        check(resources, json!({"Reservations": {"MemoryBytes": 1}}), "invalid memory value 1: Must be at least 4MiB");
        check(resources, json!({"Limits": {"MemoryBytes": 4 << 20, "NanoCPUs": 1_000_000}}), "");
        check("TaskTemplate.RestartPolicy", json!({"Delay": -1}), "TaskSpec: restart-delay cannot be negative");
        check("TaskTemplate.RestartPolicy", json!({"Window": -1}), "TaskSpec: restart-window cannot be negative");
        check("UpdateConfig", json!({"Delay": -1}), "TaskSpec: update-delay cannot be negative");
        check("RollbackConfig", json!({"Monitor": -1}), "TaskSpec: update-monitor cannot be negative");
        check(
            "UpdateConfig",
            json!({"MaxFailureRatio": 1.5}),
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        );
    }

    #[test]
    fn constraints_have_an_operator_a_key_and_a_value() {
        let constraints = "TaskTemplate.Placement.Constraints";
        check(constraints, json!(["node.role==manager", "node.labels.zone != b"]), "");
        check(constraints, json!(["node.role=manager"]), "constraint expected one operator from ==, !=");
        check(constraints, json!(["1==a"]), "key '1' is invalid");
        check(constraints, json!(["zone==@"]), "value '@' is invalid");
    }

    #[test]
    fn modes_and_ports_that_contradict_themselves_are_refused() {
        check("Mode", json!({"Global": {}, "Replicated": {}}), "Unrecognized service mode");
        check("Mode", json!({"GlobalJob": {}}), "");
        let negative = u64::MAX;
        check("Mode", json!({"Replicated": {"Replicas": negative}}), "Number of replicas must be non-negative");
        check(
            "Mode",
            json!({"ReplicatedJob": {"MaxConcurrent": negative}}),
            "Maximum concurrent jobs must not be negative",
        );
        check(
            "Mode",
            json!({"ReplicatedJob": {"TotalCompletions": negative}}),
            "Total completed jobs must not be negative",
        );
        let port = |number: u16, mode: &str| json!({"TargetPort": 1, "PublishedPort": number, "PublishMode": mode});
        check(
            "EndpointSpec",
            json!({"Ports": [port(80, "ingress"), port(80, "ingress")]}),
            "EndpointSpec: duplicate published ports provided",
        );
        check("EndpointSpec", json!({"Ports": [port(0, "ingress"), port(0, "ingress")]}), "");
        let dnsrr = "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
        check("EndpointSpec", json!({"Mode": "dnsrr", "Ports": [port(80, "")]}), dnsrr);
        check("EndpointSpec", json!({"Mode": "dnsrr", "Ports": [port(80, "host")]}), "");
        let job = json!({"Name": "j", "TaskTemplate": {"ContainerSpec": {"Image": "i"}}, "Mode": {"GlobalJob": {}},
            "UpdateConfig": {}});
        let job: ServiceSpec = serde_json::from_value(job).expect("a service");
        assert_eq!(service(&job).expect_err("refused").text, "Jobs may not have an update config");
    }

    #[test]
    fn secrets_and_configs_have_names_and_sizes() {
        let data = |bytes: usize| base64::engine::general_purpose::STANDARD.encode(vec![7; bytes]);
        let secret = |name: &str, bytes| {
            let spec = SecretSpec { name: name.into(), data: data(bytes), ..SecretSpec::default() };
            super::secret(&spec).map_or_else(|refusal| refusal.to_string(), |()| String::new())
        };
        assert_eq!(secret("a.b", 1), "");
        assert_eq!(secret("a", 511_999), "");
        let size =
            "rpc error: code = InvalidArgument desc = secret data must be larger than 0 and less than 512000 bytes";
        assert_eq!((secret("a", 0).as_str(), secret("a", 512_000).as_str()), (size, size));
        let name = "rpc error: code = InvalidArgument desc = invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]";
        assert_eq!(
            (secret("-a", 1).as_str(), secret("a_", 1).as_str(), secret(&"a".repeat(65), 1).as_str()),
            (name, name, name)
        );
        let driven = |driver: &str, bytes| {
            let driver = Some(Driver { name: driver.into(), ..Driver::default() });
            let spec = SecretSpec { name: "a".into(), data: data(bytes), driver, ..SecretSpec::default() };
            super::secret(&spec).map_or_else(|refusal| refusal.text, |()| String::new())
        };
        assert_eq!(driven("", 0), "secret driver must have a name");
        assert_eq!(driven("vault", 0), "");
        let big = ConfigSpec { name: "c".into(), data: data(1_024_000), ..ConfigSpec::default() };
        assert_eq!(
            config(&big).expect_err("too large").text,
            "config data must be larger than 0 and less than 1024000 bytes"
        );
        assert!(config(&ConfigSpec { name: "c".into(), data: "?".into(), ..ConfigSpec::default() }).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_trouble(text in ".{0,80}") {
            let container_spec = ContainerSpec { image: text.clone(), ..ContainerSpec::default() };
            let task_template = TaskSpec { container_spec: Some(container_spec), ..TaskSpec::default() };
            let _ = service(&ServiceSpec { name: text.clone(), task_template, ..ServiceSpec::default() });
            let _ = Constraint::parse(&text);
            let _ = secret(&SecretSpec { name: text.clone(), data: text, ..SecretSpec::default() });
        }
    }
}
