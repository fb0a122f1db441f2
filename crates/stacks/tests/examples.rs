//! Every stack in `examples/stacks` loads, and a second deployment of it finds nothing to do.

use std::collections::BTreeMap;
use std::path::Path;

use herder_deploy::{Action, Kind, Observed, Plan};
use herder_stacks::{Bundle, File};
use serde_json::json;

/// Variables that the examples take secrets from.
const SECRETS: [&str; 8] = [
    "POSTGRES_PASSWORD",
    "REPLICATION_PASSWORD",
    "CHAT_DB_PASSWORD",
    "REGISTRY_USERS",
    "KEYCLOAK_DB",
    "RESTIC_PASSWORD",
    "RUNNER_TOKEN",
    "DB_PASSWORD",
];

/// A cluster after the steps of a plan.
fn after(plan: &Plan) -> Observed {
    let mut observed = Observed::default();
    for (n, step) in plan.steps.iter().enumerate() {
        assert_eq!(step.action, Action::Create, "{}", step.name);
        let id = format!("id{n}");
        match step.kind {
            Kind::Network => {
                let mut network = json!({"Id": id, "Name": step.name, "Scope": "swarm", "Driver": "overlay",
                    "Internal": false, "Attachable": false, "EnableIPv6": false, "Options": {}});
                for (key, value) in step.body.as_object().into_iter().flatten() {
                    network[key] = value.clone();
                }
                observed.networks.push(network);
            }
            Kind::Secret => observed.secrets.push(json!({"ID": id, "Spec": step.body})),
            Kind::Config => observed.configs.push(json!({"ID": id, "Spec": step.body})),
            Kind::Service => observed.services.push(json!({"ID": id, "Spec": step.body})),
            Kind::Volume => {}
        }
    }
    observed
}

#[test]
fn examples_load_and_a_second_deployment_finds_nothing_to_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/stacks");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read(&path).expect("a file");
        let bundle = Bundle {
            files: BTreeMap::from([("compose.yaml".to_owned(), Some(File::of(&text)))]),
            environment: SECRETS.iter().map(|name| ((*name).to_owned(), format!("{name}-value"))).collect(),
            ..Bundle::default()
        };
        let name = path.display();
        let loaded = bundle.load(Some("shop")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let salt = &mut || [7; 16];
        let first = Plan::of(&loaded.desired, &Observed::default(), &loaded.sources, true, salt);
        assert!(first.refused.is_empty(), "{name}: {:?}", first.refused);
        let second = Plan::of(&loaded.desired, &after(&first), &loaded.sources, true, salt);
        let left: Vec<String> = second
            .steps
            .iter()
            .filter(|step| step.action != Action::Keep)
            .map(|step| format!("{}: {:?}", step.name, step.fields))
            .collect();
        assert!(left.is_empty() && second.refused.is_empty(), "{name}: {left:?} {:?}", second.refused);
        count += 1;
    }
    assert!(count >= 25, "{count} examples");
}
