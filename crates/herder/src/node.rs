//! `herder node ls`: the nodes of a pool, as any of its doors sees them.

use comfy_table::{ContentArrangement, Table, presets};
use herder_cli::{NodeArgs, NodeVerb};
use http::Method;
use serde_json::Value;

use crate::door::Door;

pub(crate) async fn run(asked: NodeArgs) -> anyhow::Result<()> {
    let NodeVerb::Ls(ls) = asked.verb;
    let nodes = Door::of(&ls.door)?.ask(Method::GET, "/herder/nodes").await?;
    if ls.format == "json" {
        anstream::println!("{nodes}");
        return Ok(());
    }
    anstream::println!("{}", table(&nodes));
    Ok(())
}

/// Labels that the pool makes itself; `--format json` shows them, too.
const OF_EVERY_ENGINE: [&str; 4] = ["kernelversion", "operatingsystem", "ostype", "storagedriver"];

fn table(nodes: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["NAME", "STATE", "ADDRESS", "CONTAINERS", "CPUS", "MEMORY", "ENGINE", "LEVEL", "LABELS"]);
    for node in nodes.as_array().into_iter().flatten() {
        let text = |field: &str| node[field].as_str().unwrap_or_default().to_owned();
        let state = match text("error") {
            error if error.is_empty() => text("state"),
            error => format!("{}: {error}", text("state")),
        };
        let labels = node["labels"].as_object().into_iter().flatten();
        let labels = labels.filter(|(key, _)| !OF_EVERY_ENGINE.contains(&key.as_str()));
        let labels: Vec<String> =
            labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
        let cpus = format!("{} of {}", node["cpus_reserved"], node["cpus"]);
        let memory = format!("{} of {}", mebibytes(&node["memory_reserved"]), mebibytes(&node["memory"]));
        let containers = node["containers"].to_string();
        table.add_row([
            text("name"),
            state,
            text("address"),
            containers,
            cpus,
            memory,
            text("engine"),
            node["feature_level"].as_u64().map_or_else(|| "-".to_owned(), |level| level.to_string()),
            labels.join(","),
        ]);
    }
    table
}

fn mebibytes(bytes: &Value) -> String {
    format!("{} MiB", bytes.as_i64().unwrap_or_default() >> 20)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_is_not_well_says_why() {
        let nodes = json!([
            {"name": "h1", "state": "Healthy", "address": "10.0.0.1:7946", "labels": {"zone": "a"}, "containers": 2,
             "cpus": 2, "cpus_reserved": 0.5, "memory": 1 << 30, "memory_reserved": 1 << 20, "engine": "20.10",
             "feature_level": 2},
            {"name": "h2", "state": "Unhealthy", "error": "gone", "address": "10.0.0.2:7946", "labels": {}},
        ]);
        let text = table(&nodes).to_string();
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1].join(" "), "h1 Healthy 10.0.0.1:7946 2 0.5 of 2 1 MiB of 1024 MiB 20.10 2 zone=a");
        assert!(words[2].join(" ").starts_with("h2 Unhealthy: gone 10.0.0.2:7946"), "{text}");
    }
}
