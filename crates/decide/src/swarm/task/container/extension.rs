//! The member `Herder` of a container spec: settings of the engine that the swarm API has no word for.
//!
//! ```json
//! {"Herder": {"HostConfig": {"Privileged": true, "ShmSize": 67108864}, "Config": {"Domainname": "x"}, "ClearEntrypoint": true,
//!             "Hooks": {"PostStart": [{"Command": ["/warm-up"]}]}}}
//! ```
//!
//! `HostConfig` and `Config` hold members of the body of the engine's `POST /containers/create` (API 1.50), those listed
//! here and no others; `Hooks` are commands around the container's life ([`super::hooks`]). Docker's own clients pass over
//! the member and do not send it back, so an update without it keeps the one that is stored; an empty one removes it.

use herder_model::swarm::ContainerSpec;
use serde_json::{Value, json};

use super::hooks;

/// The name of the member.
pub const MEMBER: &str = herder_model::swarm::EXTENSION;

/// Members of the engine's `HostConfig` that a task may set. Everything that the swarm API says itself is left to it.
const HOST_CONFIG: [&str; 32] = [
    "Annotations",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeight",
    "BlkioWeightDevice",
    "CgroupParent",
    "CgroupnsMode",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuShares",
    "CpusetCpus",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "IpcMode",
    "MaskedPaths",
    "MemorySwap",
    "MemorySwappiness",
    "OomKillDisable",
    "PidMode",
    "Privileged",
    "ReadonlyPaths",
    "Runtime",
    "SecurityOpt",
    "ShmSize",
    "StorageOpt",
    "UTSMode",
    "UsernsMode",
];
/// Members of the body itself.
const CONFIG: [&str; 1] = ["Domainname"];

/// Refuses an extension with a member that no task may set. The text is a message for the client.
pub fn check(spec: &ContainerSpec) -> Result<(), String> {
    let Some(extension) = spec.rest.get(MEMBER) else { return Ok(()) };
    let Some(members) = extension.as_object() else {
        return Err(format!("ContainerSpec.{MEMBER}: must be an object"));
    };
    for (name, value) in members {
        let known: Vec<&str> = match name.as_str() {
            "HostConfig" => HOST_CONFIG.to_vec(),
            "Config" => CONFIG.to_vec(),
            "ClearEntrypoint" if value.is_boolean() => continue,
            "Hooks" => {
                hooks::check(value).map_err(|text| format!("ContainerSpec.{MEMBER}.Hooks: {text}"))?;
                continue;
            }
            _ => return Err(format!("ContainerSpec.{MEMBER}.{name}: unknown member")),
        };
        let Some(settings) = value.as_object() else {
            return Err(format!("ContainerSpec.{MEMBER}.{name}: must be an object"));
        };
        if let Some(unknown) = settings.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("ContainerSpec.{MEMBER}.{name}.{unknown}: a task cannot set this member"));
        }
    }
    Ok(())
}

/// Refuses a task with members that this node's release does not know. It must not run as if they had not been
/// declared.
pub(super) fn check_on_node(spec: &ContainerSpec) -> Result<(), String> {
    check(spec).map_err(|text| format!("{text}; this node's release of herder cannot carry it out: upgrade the node"))
}

/// Keeps the extension of the stored spec in an update that has none, and removes an empty one.
pub fn inherit(new: &mut ContainerSpec, old: Option<&ContainerSpec>) {
    match new.rest.get(MEMBER) {
        None => {
            if let Some(extension) = old.and_then(|old| old.rest.get(MEMBER)) {
                new.rest.insert(MEMBER, extension.clone());
            }
        }
        Some(extension) if *extension == json!({}) => drop(new.rest.remove(MEMBER)),
        Some(_) => {}
    }
}

/// Adds the extension to the body of a container that is to be created.
pub(super) fn extend(spec: &ContainerSpec, body: &mut Value) {
    let Some(extension) = spec.rest.get(MEMBER) else { return };
    let members = |name: &str| extension[name].as_object().into_iter().flatten();
    for (name, value) in members("HostConfig").filter(|(name, _)| is_host_config(name)) {
        let is_list = name == "SecurityOpt";
        match body["HostConfig"].get_mut(name).and_then(Value::as_array_mut).filter(|_| is_list) {
            Some(options) => options.extend(value.as_array().into_iter().flatten().cloned()),
            None => body["HostConfig"][name] = value.clone(),
        }
    }
    for (name, value) in members("Config").filter(|(name, _)| CONFIG.contains(&name.as_str())) {
        body[name] = value.clone();
    }
    if extension["ClearEntrypoint"] == true {
        // The engine's way to say that the image's own does not count.
        body["Entrypoint"] = json!([""]);
    }
}

fn is_host_config(name: &str) -> bool {
    HOST_CONFIG.contains(&name)
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::ContainerSpec;
    use serde_json::{Value, json};

    use super::{check, extend, inherit};

    fn spec(extension: Option<Value>) -> ContainerSpec {
        let mut spec = ContainerSpec::default();
        if let Some(extension) = extension {
            spec.rest.insert("Herder", extension);
        }
        spec
    }

    #[test]
    fn an_extension_becomes_part_of_the_create_body() {
        let table = [
            (json!({}), json!({"HostConfig": {"SecurityOpt": ["a"]}})),
            (
                json!({"HostConfig": {"Privileged": true, "ShmSize": 1}, "Config": {"Domainname": "d"}}),
                json!({"HostConfig": {"SecurityOpt": ["a"], "Privileged": true, "ShmSize": 1}, "Domainname": "d"}),
            ),
            (
                json!({"HostConfig": {"SecurityOpt": ["b"]}, "ClearEntrypoint": true}),
                json!({"HostConfig": {"SecurityOpt": ["a", "b"]}, "Entrypoint": [""]}),
            ),
            // What a later release may have more is not carried over; see [`check_on_node`].
            (json!({"HostConfig": {"Binds": ["/:/host"]}}), json!({"HostConfig": {"SecurityOpt": ["a"]}})),
        ];
        for (extension, wanted) in table {
            let mut body = json!({"HostConfig": {"SecurityOpt": ["a"]}});
            extend(&spec(Some(extension)), &mut body);
            assert_eq!(body, wanted);
        }
    }

    #[test]
    fn members_that_no_task_may_set_are_refused() {
        let table = [
            (json!({"HostConfig": {"Privileged": true}}), ""),
            (json!([]), "ContainerSpec.Herder: must be an object"),
            (json!({"Other": {}}), "ContainerSpec.Herder.Other: unknown member"),
            (
                json!({"HostConfig": {"Binds": []}}),
                "ContainerSpec.Herder.HostConfig.Binds: a task cannot set this member",
            ),
            (json!({"Hooks": {"PreStop": [{"Command": ["x"], "Env": ["A=b"]}]}}), ""),
            (
                json!({"Hooks": {"PreStop": [{"Commands": []}]}}),
                "ContainerSpec.Herder.Hooks: PreStop 1: Commands is an unknown member",
            ),
            (
                json!({"Hooks": {"PostStart": [{"User": "x"}]}}),
                "ContainerSpec.Herder.Hooks: PostStart 1 has no command",
            ),
            (json!({"Hooks": {"PreRemove": []}}), "ContainerSpec.Herder.Hooks: PreRemove is an unknown member"),
            (json!({"HostConfig": 1}), "ContainerSpec.Herder.HostConfig: must be an object"),
        ];
        for (extension, wanted) in table {
            assert_eq!(check(&spec(Some(extension))).err().unwrap_or_default(), wanted);
        }
    }

    #[test]
    fn an_update_without_the_member_keeps_it_and_an_empty_one_removes_it() {
        let stored = spec(Some(json!({"HostConfig": {"Privileged": true}})));
        let table = [
            (None, Some(json!({"HostConfig": {"Privileged": true}}))),
            (Some(json!({})), None),
            (Some(json!({"HostConfig": {"ShmSize": 1}})), Some(json!({"HostConfig": {"ShmSize": 1}}))),
        ];
        for (sent, kept) in table {
            let mut new = spec(sent);
            inherit(&mut new, Some(&stored));
            assert_eq!(new.rest.get("Herder").cloned(), kept);
        }
    }
}
