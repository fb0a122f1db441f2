//! Conversion of client specifications into stored ones, and of stored ones into those with defaults.

use herder_model::swarm::{
    ContainerSpec, EndpointSpec, Placement, ResourceRequirements, RestartPolicy, Service, ServiceSpec, UpdateConfig,
};
use serde_json::Value;

use crate::swarm::Denial;
use crate::versions::Version;

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// Default time between the signal and the kill.
const STOP_GRACE_PERIOD: i64 = 10 * SECOND;
/// Default time between the end of a task and the next one.
const RESTART_DELAY: i64 = 5 * SECOND;
/// Default time for which a new task is watched.
const MONITOR: i64 = 5 * SECOND;

/// Takes `null` out wherever it is a member: Docker's server reads it as what is not there.
pub fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Takes out what the client cannot have meant: fields that came with later versions of the API.
pub fn adjust(spec: &mut ServiceSpec, client: Option<&str>) {
    let Some(client) = client.and_then(Version::parse) else { return };
    let older = |minor: u32| client < Version { major: 1, minor };
    let task = &mut spec.task_template;
    if older(41) {
        (spec.mode.replicated_job, spec.mode.global_job) = (None, None);
        if let Some(limits) = task.resources.as_mut().and_then(|it| it.limits.as_mut()) {
            limits.pids = 0;
        }
    }
    if let Some(placement) = task.placement.as_mut().filter(|_| older(40)) {
        placement.max_replicas = 0;
    }
    if let Some(container) = &mut task.container_spec {
        adjust_container(container, older);
    }
}

fn adjust_container(spec: &mut ContainerSpec, older: impl Fn(u32) -> bool) {
    if older(46) {
        spec.oom_score_adj = 0;
        for options in spec.mounts.iter_mut().filter_map(|it| it.tmpfs_options.as_mut()) {
            options.as_object_mut().map(|it| it.remove("Options"));
        }
    }
    if older(44) {
        if let Some(privileges) = &mut spec.privileges {
            (privileges.seccomp, privileges.app_armor, privileges.no_new_privileges) = (None, None, None);
        }
        if let Some(health) = &mut spec.healthcheck {
            health.start_interval = 0;
        }
    }
    if older(41) {
        spec.capability_add.clear();
        spec.capability_drop.clear();
        spec.ulimits.clear();
    }
    if older(40) {
        spec.sysctls.clear();
        if let Some(credentials) = spec.privileges.as_mut().and_then(|it| it.credential_spec.as_mut()) {
            credentials.config.clear();
        }
        spec.configs.iter_mut().for_each(|it| it.runtime = None);
    }
}

/// Writes out what a client may leave open, and refuses words that mean nothing.
pub fn complete(spec: &mut ServiceSpec) -> Result<(), Denial> {
    let invalid = |text: String| Err(Denial::plain(400, text));
    spec.labels.get_or_insert_default();
    let task = &mut spec.task_template;
    match (task.runtime.as_str(), &mut task.container_spec) {
        ("" | "container", Some(container)) => {
            if container.isolation.is_empty() {
                container.isolation = "default".into();
            }
        }
        ("" | "container", None) => return invalid("mismatched Runtime and *Spec fields".into()),
        ("plugin", _) => {
            let text = "plugins are not run as services here: install them on each engine (docker -H tcp://NODE plugin install …)";
            return Err(Denial::plain(501, text));
        }
        (other, _) => return invalid(format!("unsupported runtime {other:?}")),
    }
    task.runtime = "container".into();
    // Where clients of before API 1.25 put them.
    let networks = std::mem::take(&mut spec.networks);
    if task.networks.is_empty() {
        task.networks = networks;
    }
    if let Some(policy) = &mut task.restart_policy {
        match policy.condition.as_str() {
            "" => policy.condition = "any".into(),
            "any" | "none" | "on-failure" => {}
            other => return invalid(format!("invalid RestartCondition: {other:?}")),
        }
    }
    with_numbers(spec);
    for config in [&mut spec.update_config, &mut spec.rollback_config].into_iter().flatten() {
        update(config)?;
    }
    spec.endpoint_spec.as_mut().map_or(Ok(()), endpoint)
}

/// Writes out the numbers that Docker's clients read without asking whether they are there.
pub fn with_numbers(spec: &mut ServiceSpec) {
    if let Some(policy) = &mut spec.task_template.restart_policy {
        policy.max_attempts.get_or_insert(0);
    }
    let mode = &mut spec.mode;
    if let Some(job) = &mut mode.replicated_job {
        let concurrent = *job.max_concurrent.get_or_insert(1);
        job.total_completions.get_or_insert(concurrent);
    } else if mode.global.is_none() && mode.global_job.is_none() {
        mode.replicated.get_or_insert_default().replicas.get_or_insert(1);
    }
}

fn update(config: &mut UpdateConfig) -> Result<(), Denial> {
    match config.failure_action.as_str() {
        "" => config.failure_action = "pause".into(),
        "pause" | "continue" | "rollback" => {}
        other => return Err(Denial::plain(400, format!("unrecognized update failure action {other}"))),
    }
    match config.order.as_str() {
        "" => config.order = "stop-first".into(),
        "stop-first" | "start-first" => {}
        other => return Err(Denial::plain(400, format!("unrecognized update order {other}"))),
    }
    Ok(())
}

fn endpoint(spec: &mut EndpointSpec) -> Result<(), Denial> {
    let or = |text: &mut String, known: &[&str], what: &str| {
        if text.is_empty() {
            *text = known.first().copied().unwrap_or_default().into();
        }
        let fits = known.contains(&text.as_str());
        if fits { Ok(()) } else { Err(Denial::plain(400, format!("invalid {what}: {text:?}"))) }
    };
    or(&mut spec.mode, &["vip", "dnsrr"], "endpoint mode")?;
    for port in &mut spec.ports {
        or(&mut port.protocol, &["tcp", "udp", "sctp"], "protocol value")?;
        or(&mut port.publish_mode, &["ingress", "host"], "publish mode")?;
    }
    Ok(())
}

/// A service as clients are shown it: with the numbers that a release before this one did not write down.
pub fn shown(mut service: Service) -> Service {
    for spec in std::iter::once(&mut service.spec).chain(&mut service.previous_spec) {
        with_numbers(spec);
    }
    let mode = &service.spec.mode;
    if mode.replicated_job.is_some() || mode.global_job.is_some() {
        service.job_status.get_or_insert_default();
    }
    service
}

/// A service with what goes without saying (`insertDefaults`).
pub fn with_defaults(service: Service) -> Service {
    let mut service = shown(service);
    let spec = &mut service.spec;
    let task = &mut spec.task_template;
    if let Some(container) = &mut task.container_spec {
        container.stop_grace_period.get_or_insert(STOP_GRACE_PERIOD);
    }
    task.resources.get_or_insert_with(ResourceRequirements::default);
    task.placement.get_or_insert_with(Placement::default);
    let policy = task.restart_policy.get_or_insert_with(RestartPolicy::default);
    if policy.condition.is_empty() {
        policy.condition = "any".into();
    }
    policy.delay.get_or_insert(RESTART_DELAY);
    policy.max_attempts.get_or_insert(0);
    let first = || UpdateConfig { parallelism: 1, ..UpdateConfig::default() };
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        let config = config.get_or_insert_with(first);
        if config.monitor == 0 {
            config.monitor = MONITOR;
        }
        if config.failure_action.is_empty() {
            config.failure_action = "pause".into();
        }
        if config.order.is_empty() {
            config.order = "stop-first".into();
        }
    }
    service
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(mut body: Value) -> ServiceSpec {
        without_nulls(&mut body);
        serde_json::from_value(body).expect("a service")
    }

    /// A container with this, sent by a client of this version: what is left of it.
    #[track_caller]
    fn check(version: &str, container: Value, expected: Value) {
        let mut spec = spec(json!({"TaskTemplate": {"ContainerSpec": container}}));
        adjust(&mut spec, Some(version));
        assert_eq!(json!(spec.task_template.container_spec), expected, "{version}");
    }

    #[test]
    fn fields_of_later_versions_are_dropped() {
        let body = json!({"Image": "i", "Sysctls": {"a": "b"}, "CapabilityAdd": ["CAP_X"], "OomScoreAdj": 5,
            "Ulimits": [{"Name": "nofile", "Hard": 1, "Soft": 1}], "Healthcheck": {"StartInterval": 2_000_000},
            "Privileges": {"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": true},
            "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Mode": 448, "Options": [["exec"]]}}]});
        let mut expected = body.clone();
        check("1.46", body.clone(), expected.clone());
        expected.as_object_mut().expect("an object").remove("OomScoreAdj");
        expected["Mounts"][0]["TmpfsOptions"] = json!({"Mode": 448});
        check("1.45", body.clone(), expected.clone());
        expected["Privileges"] = json!({"CredentialSpec": null, "SELinuxContext": null});
        expected["Healthcheck"] = json!({});
        check("1.43", body.clone(), expected.clone());
        expected
            .as_object_mut()
            .expect("an object")
            .retain(|key, _| !["CapabilityAdd", "Ulimits"].contains(&key.as_str()));
        check("1.40", body.clone(), expected.clone());
        expected.as_object_mut().expect("an object").remove("Sysctls");
        check("1.39", body, expected);
    }

    #[test]
    fn a_job_of_an_old_client_is_no_job() {
        let body = json!({"Mode": {"GlobalJob": {}}, "TaskTemplate": {"Placement": {"MaxReplicas": 2},
            "Resources": {"Limits": {"Pids": 5, "MemoryBytes": 4}}}});
        let mut new = spec(body.clone());
        adjust(&mut new, Some("1.41"));
        assert_eq!(new, spec(body.clone()));
        adjust(&mut new, None);
        assert_eq!(new, spec(body.clone()));
        let mut old = spec(body);
        adjust(&mut old, Some("1.39"));
        let expected = json!({"TaskTemplate": {"Placement": {}, "Resources": {"Limits": {"MemoryBytes": 4}}}});
        assert_eq!(old, spec(expected));
    }

    #[test]
    fn what_is_left_open_is_written_out() {
        let mut least = spec(json!({"Name": "web", "Labels": null, "Networks": [{"Target": "host"}],
            "TaskTemplate": {"ContainerSpec": {"Image": "i", "Args": null, "CapabilityDrop": ["chown", "ALL"]},
                "RestartPolicy": {}},
            "UpdateConfig": {"Parallelism": 2}, "EndpointSpec": {"Ports": [{"TargetPort": 80}]}}));
        complete(&mut least).expect("fine");
        let expected = json!({"Name": "web", "Labels": {},
            "TaskTemplate": {"ContainerSpec": {"Image": "i", "Isolation": "default", "CapabilityDrop": ["chown", "ALL"]},
                "RestartPolicy": {"Condition": "any", "MaxAttempts": 0}, "Networks": [{"Target": "host"}],
                "ForceUpdate": 0, "Runtime": "container"},
            "Mode": {"Replicated": {"Replicas": 1}},
            "UpdateConfig": {"Parallelism": 2, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first"},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]}});
        assert_eq!(json!(least), expected);
    }

    /// Docker's clients read these without asking whether they are there.
    #[test]
    fn every_mode_has_its_numbers() {
        for (mode, expected) in [
            (json!({"ReplicatedJob": {}}), json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}})),
            (
                json!({"ReplicatedJob": {"MaxConcurrent": 3}}),
                json!({"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}}),
            ),
            (
                json!({"ReplicatedJob": {"TotalCompletions": 3}}),
                json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 3}}),
            ),
            (json!({"Replicated": {}}), json!({"Replicated": {"Replicas": 1}})),
            (json!({}), json!({"Replicated": {"Replicas": 1}})),
            (json!({"Global": {}}), json!({"Global": {}})),
            (json!({"GlobalJob": {}}), json!({"GlobalJob": {}})),
        ] {
            let mut spec = spec(json!({"TaskTemplate": {"ContainerSpec": {"Image": "i"}}, "Mode": mode}));
            complete(&mut spec).expect("fine");
            assert_eq!(json!(spec.mode), expected);
        }
    }

    #[test]
    fn what_an_earlier_release_wrote_is_shown_with_its_numbers() {
        let job = spec(json!({"Mode": {"ReplicatedJob": {}}}));
        let service = Service { spec: job.clone(), previous_spec: Some(job), ..Service::default() };
        let shown = shown(service);
        let expected = json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}});
        assert_eq!(json!(shown.spec.mode), expected);
        assert_eq!(json!(shown.previous_spec.map(|it| it.mode)), expected);
        assert!(shown.job_status.is_some(), "clients read its iteration");
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        let check = |path: &str, value: Value, expected: &str| {
            let mut body = json!({"TaskTemplate": {"ContainerSpec": {"Image": "i"}}});
            let mut at = &mut body;
            for key in path.split('.') {
                at = &mut at[key];
            }
            *at = value;
            let said = complete(&mut spec(body)).map_or_else(|it| format!("{} {it}", it.status()), |()| String::new());
            assert!(said.starts_with(expected) && !said.is_empty(), "{path}: {said}");
        };
        check("TaskTemplate.ContainerSpec", Value::Null, "400 mismatched Runtime and *Spec fields");
        check("TaskTemplate.Runtime", json!("plugin"), "501 plugins are not run as services here");
        check("TaskTemplate.Runtime", json!("wasm"), "400 unsupported runtime \"wasm\"");
        check("TaskTemplate.RestartPolicy", json!({"Condition": "often"}), "400 invalid RestartCondition: \"often\"");
        check("UpdateConfig", json!({"FailureAction": "cry"}), "400 unrecognized update failure action cry");
        check("RollbackConfig", json!({"Order": "random"}), "400 unrecognized update order random");
        check("EndpointSpec", json!({"Mode": "x"}), "400 invalid endpoint mode: \"x\"");
        check("EndpointSpec", json!({"Ports": [{"Protocol": "x"}]}), "400 invalid protocol value: \"x\"");
    }

    #[test]
    fn defaults_are_those_of_swarm_mode() {
        let spec = spec(json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "i"}},
            "Mode": {"Replicated": {}}, "UpdateConfig": {"Parallelism": 0, "Monitor": 1}}));
        let service = Service { spec, ..Service::default() };
        let config = |parallelism: u64, monitor: i64| {
            json!({"Parallelism": parallelism, "FailureAction": "pause", "Monitor": monitor, "MaxFailureRatio": 0,
                "Order": "stop-first"})
        };
        let expected = json!({"Name": "web", "Labels": null,
            "TaskTemplate": {"ContainerSpec": {"Image": "i", "StopGracePeriod": 10_000_000_000_i64}, "Resources": {},
                "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0}, "Placement": {},
                "ForceUpdate": 0},
            "Mode": {"Replicated": {"Replicas": 1}}, "UpdateConfig": config(0, 1),
            "RollbackConfig": config(1, 5_000_000_000)});
        assert_eq!(json!(with_defaults(service).spec), expected);
    }
}
