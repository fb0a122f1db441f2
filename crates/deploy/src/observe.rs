//! The objects of a target that a stack is compared with.

use futures_util::try_join;
use herder_compose::STACK_LABEL;
use serde_json::{Value, json};

use crate::api::{Api, Fault, filters, list};

/// Objects that exist on a target, as JSON of the Docker API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Services of the stack.
    pub services: Vec<Value>,
    /// All networks of the swarm.
    pub networks: Vec<Value>,
    /// All secrets.
    pub secrets: Vec<Value>,
    /// All configs.
    pub configs: Vec<Value>,
}

/// Reads what a target has of a stack, and everything that the stack may refer to.
pub async fn observe(api: &impl Api, stack: &str) -> Result<Observed, Fault> {
    let label = filters(&json!({"label": [format!("{STACK_LABEL}={stack}")]}));
    let of_stack = format!("/services?filters={label}");
    let (services, networks, secrets, configs) = try_join!(
        list(api, &of_stack, "services"),
        list(api, "/networks", "networks"),
        list(api, "/secrets", "secrets"),
        list(api, "/configs", "configs"),
    )?;
    Ok(Observed { services, networks, secrets, configs })
}

impl Observed {
    /// The network of a name, those of the swarm before those of a node.
    pub(crate) fn network(&self, name: &str) -> Option<&Value> {
        let named = |network: &&Value| network["Name"] == name;
        let of_swarm = self.networks.iter().filter(named).find(|network| network["Scope"] == "swarm");
        of_swarm.or_else(|| self.networks.iter().find(named))
    }

    /// The name of the network of an id; the id itself where it is not known (`host`, for example).
    pub(crate) fn network_name<'a>(&'a self, id: &'a str) -> &'a str {
        let found = self.networks.iter().find(|network| network["Id"] == id);
        found.and_then(|network| network["Name"].as_str()).unwrap_or(id)
    }
}

/// True if an object, or a spec, has the label of the stack.
pub(crate) fn is_of(labels: &Value, stack: &str) -> bool {
    labels[STACK_LABEL] == stack
}
