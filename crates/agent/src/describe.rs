//! Description of a node by itself.

use std::collections::BTreeMap;

use herder_decide::swarm::container::NodeFacts;
use herder_model::swarm::{Engine, GenericResource, NodeDescription, Platform, Plugin, Reservations};
use serde_json::Value;

/// Builds the description from the engine's `GET /info`. The node's certificates are added by the caller.
pub(crate) fn description(info: &Value, generic: &[GenericResource]) -> NodeDescription {
    let text = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| info[key].as_i64().unwrap_or_default();
    NodeDescription {
        hostname: text("Name"),
        platform: Platform { architecture: text("Architecture"), os: text("OSType"), ..Platform::default() },
        resources: Reservations {
            nano_cpus: number("NCPU").saturating_mul(1_000_000_000),
            memory_bytes: number("MemTotal"),
            generic_resources: generic.to_vec(),
            ..Reservations::default()
        },
        engine: Engine {
            engine_version: text("ServerVersion"),
            labels: labels(info),
            plugins: plugins(info),
            ..Engine::default()
        },
        ..NodeDescription::default()
    }
}

fn labels(info: &Value) -> BTreeMap<String, String> {
    let labels = info["Labels"].as_array().into_iter().flatten().filter_map(Value::as_str);
    labels
        .map(|label| label.split_once('=').unwrap_or((label, "")))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn plugins(info: &Value) -> Vec<Plugin> {
    let kinds = ["Log", "Network", "Volume"].into_iter();
    let mut plugins: Vec<Plugin> = kinds
        .flat_map(|kind| {
            let names = info["Plugins"][kind].as_array().into_iter().flatten().filter_map(Value::as_str);
            names.map(move |name| Plugin { kind: kind.to_owned(), name: name.to_owned(), ..Plugin::default() })
        })
        .collect();
    plugins.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    plugins
}

/// Returns the node's facts for templates.
pub(crate) fn facts(node_id: &str, description: &NodeDescription) -> NodeFacts {
    NodeFacts {
        id: node_id.to_owned(),
        hostname: description.hostname.clone(),
        os: description.platform.os.clone(),
        architecture: description.platform.architecture.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_described_as_docker_describes_it() {
        let info = serde_json::json!({"Name": "h1", "Architecture": "x86_64", "OSType": "linux", "NCPU": 2, "MemTotal": 1024,
            "ServerVersion": "20.10.24", "Labels": ["zone=a", "fast"],
            "Plugins": {"Volume": ["local"], "Network": ["null", "bridge"], "Authorization": null, "Log": ["local"]}});
        let description = serde_json::to_value(description(&info, &[])).expect("json");
        let expected = serde_json::json!({"Hostname": "h1", "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 2_000_000_000_i64, "MemoryBytes": 1024},
            "Engine": {"EngineVersion": "20.10.24", "Labels": {"fast": "", "zone": "a"}, "Plugins": [
                {"Type": "Log", "Name": "local"}, {"Type": "Network", "Name": "bridge"},
                {"Type": "Network", "Name": "null"}, {"Type": "Volume", "Name": "local"}]},
            "TLSInfo": {}});
        assert_eq!(description, expected);
    }
}
