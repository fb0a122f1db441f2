//! Refuses stacks that a target cannot run, before anything is changed. Pure.

use herder_compose::{Desired, DesiredService};
use serde_json::Value;

/// The kind of a target, as far as abilities differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Able {
    /// A swarm of herder.
    Herder,
    /// A swarm of Docker's engines that speak this version of the API.
    Swarm { api: (u32, u32) },
    /// One engine without a swarm.
    Engine { api: (u32, u32) },
}

/// Members of a service with the version of the API that brought them. Each row is the path, the version, and the
/// name for people.
const SINCE: [(&[&str], (u32, u32), &str); 7] = [
    (&["Mode", "ReplicatedJob"], (1, 41), "the mode replicated-job"),
    (&["Mode", "GlobalJob"], (1, 41), "the mode global-job"),
    (&["TaskTemplate", "ContainerSpec", "CapabilityAdd"], (1, 41), "cap_add"),
    (&["TaskTemplate", "ContainerSpec", "CapabilityDrop"], (1, 41), "cap_drop"),
    (&["TaskTemplate", "ContainerSpec", "Ulimits"], (1, 41), "ulimits"),
    (&["TaskTemplate", "ContainerSpec", "Healthcheck", "StartInterval"], (1, 44), "healthcheck.start_interval"),
    (&["TaskTemplate", "ContainerSpec", "OomScoreAdj"], (1, 46), "oom_score_adj"),
];

impl Able {
    /// Returns a message for each part of the stack that the target cannot carry out.
    pub fn refusals(self, desired: &Desired) -> Vec<String> {
        desired.services.iter().flat_map(|service| self.refusals_of(service)).collect()
    }

    fn refusals_of(self, service: &DesiredService) -> Vec<String> {
        let name = &service.key;
        let spec = &service.spec;
        let mut all = Vec::new();
        let (Able::Swarm { api } | Able::Engine { api }) = self else { return all };
        let old = SINCE.iter().filter(|(path, since, _)| {
            let there = path.iter().fold(spec, |value, key| &value[*key]);
            // A job on one engine is a container that runs once.
            let is_mode = path[0] == "Mode" && matches!(self, Able::Engine { .. });
            !there.is_null() && api < *since && !is_mode
        });
        all.extend(old.map(|(_, since, what)| {
            format!("service {name}: {what} needs API {}.{}, this engine has {}.{}", since.0, since.1, api.0, api.1)
        }));
        let container = &spec["TaskTemplate"]["ContainerSpec"];
        match self {
            Able::Swarm { .. } => {
                let beyond = beyond(&container["Herder"]);
                if !beyond.is_empty() {
                    let beyond = beyond.join(", ");
                    let or = if hooks(&container["Herder"]).is_empty() { ", or one engine as target" } else { "" };
                    all.push(format!(
                        "service {name}: {beyond} cannot be said to a swarm of Docker's engines; use a swarm of herder{or}"
                    ));
                }
            }
            Able::Engine { .. } => {
                let hooks = hooks(&container["Herder"]);
                if !hooks.is_empty() {
                    let hooks = hooks.join(", ");
                    all.push(format!(
                        "service {name}: {hooks} cannot be run on one engine yet; use a swarm of herder as target"
                    ));
                }
                let replicas = spec["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or(1);
                let is_published = |port: &Value| port["PublishedPort"].as_u64().is_some_and(|it| it > 0);
                let ports = spec["EndpointSpec"]["Ports"].as_array();
                if replicas > 1 && ports.is_some_and(|ports| ports.iter().any(is_published)) {
                    all.push(format!(
                        "service {name}: {replicas} containers of one engine cannot publish the same port; publish it \
                         without a number, or set one replica"
                    ));
                }
                let drivers =
                    container["Secrets"].as_array().is_some_and(|all| all.iter().any(|it| it["File"].is_null()));
                if drivers {
                    all.push(format!("service {name}: a secret without a file has no meaning on one engine"));
                }
            }
            Able::Herder => {}
        }
        all
    }
}

/// Settings of the engine that a service asks for beyond the swarm API, by the names of the Docker API.
fn beyond(herder: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for part in ["HostConfig", "Config"] {
        all.extend(herder[part].as_object().into_iter().flatten().map(|(key, _)| key.clone()));
    }
    if herder["ClearEntrypoint"] == true {
        all.push("an empty entrypoint".into());
    }
    all.extend(hooks(herder));
    all
}

/// Hooks that run beside each container, by their keys in the file.
fn hooks(herder: &Value) -> Vec<String> {
    let words =
        [("PreStart", "pre_start with per_replica"), ("PostStart", "post_start"), ("PreStop", "pre_stop")].into_iter();
    words.filter(|(member, _)| !herder["Hooks"][*member].is_null()).map(|(_, word)| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use herder_compose::{Desired, DesiredService};
    use serde_json::{Value, json};

    use super::Able;

    #[test]
    fn a_target_refuses_all_that_it_cannot_do() {
        let check = |spec: Value, able: Able, expected: &[&str]| {
            let service = DesiredService { key: "web".into(), name: "s_web".into(), spec, depends_on: Vec::new() };
            let desired = Desired { services: vec![service], ..Desired::default() };
            assert_eq!(able.refusals(&desired), expected);
        };
        let (old, new) = (Able::Swarm { api: (1, 40) }, Able::Swarm { api: (1, 51) });
        let engine = Able::Engine { api: (1, 41) };
        let job = json!({"Mode": {"ReplicatedJob": {}}});
        check(job.clone(), old, &["service web: the mode replicated-job needs API 1.41, this engine has 1.40"]);
        check(job.clone(), new, &[]);
        check(job, Able::Engine { api: (1, 40) }, &[]);
        let privileged = json!({"TaskTemplate": {"ContainerSpec": {"Herder": {"HostConfig": {"Privileged": true}}}}});
        let words = "service web: Privileged cannot be said to a swarm of Docker's engines; use a swarm of herder, or one \
                     engine as target";
        check(privileged.clone(), new, &[words]);
        check(privileged.clone(), engine, &[]);
        check(privileged, Able::Herder, &[]);
        let hooks =
            json!({"TaskTemplate": {"ContainerSpec": {"Herder": {"Hooks": {"PostStart": [{}], "PreStop": [{}]}}}}});
        let words = "service web: post_start, pre_stop cannot be said to a swarm of Docker's engines; use a swarm of \
                     herder";
        check(hooks.clone(), new, &[words]);
        let words =
            "service web: post_start, pre_stop cannot be run on one engine yet; use a swarm of herder as target";
        check(hooks.clone(), engine, &[words]);
        check(hooks, Able::Herder, &[]);
        let start = json!({"TaskTemplate": {"ContainerSpec": {"Healthcheck": {"StartInterval": 1}}}});
        check(start, engine, &["service web: healthcheck.start_interval needs API 1.44, this engine has 1.41"]);
        let twice = |published: u64| json!({"Mode": {"Replicated": {"Replicas": 2}}, "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": published}]}});
        check(twice(0), engine, &[]);
        check(
            twice(8080),
            engine,
            &[
                "service web: 2 containers of one engine cannot publish the same port; publish it without a number, or set one \
               replica",
            ],
        );
    }
}
