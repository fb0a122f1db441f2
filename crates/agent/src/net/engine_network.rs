//! The engine's side of overlay networks: a plain bridge network for each, the same on every node.

use std::collections::BTreeMap;

use herder_decide::net::{Host, bridge_name, mtu};
use herder_model::swarm::NetState;
use serde_json::{Value, json};

use super::EngineNetwork;
use crate::call::{Engine, escaped};

/// Label of engine networks that carry an overlay network; its value is the network's id.
pub const LABEL_NETWORK: &str = "com.herder.network";

/// Reads which overlay networks the engine has, by network id.
pub(super) async fn list(engine: &Engine) -> Result<BTreeMap<String, EngineNetwork>, herder_docker::EngineError> {
    let filters = json!({"label": [LABEL_NETWORK]}).to_string();
    let all = engine.get(format!("/networks?filters={}", escaped(&filters))).json().await?;
    let parse = |network: &Value| {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let there = EngineNetwork { id: text(&network["Id"])?, name: text(&network["Name"])? };
        Some((text(&network["Labels"][LABEL_NETWORK])?, there))
    };
    Ok(all.as_array().into_iter().flatten().filter_map(parse).collect())
}

/// Creates the bridge network of an overlay network on the engine. If the name is taken, the overlay's id is appended.
pub(super) async fn create(
    engine: &Engine,
    id: &str,
    state: &NetState,
    host: &Host,
) -> Result<EngineNetwork, herder_docker::EngineError> {
    let short = id.get(..12).unwrap_or(id);
    let mut name = state.facts.name.clone();
    loop {
        let body = body(id, &name, state, host);
        match engine.post("/networks/create").body(&body).json().await {
            Ok(answer) => {
                return Ok(EngineNetwork { id: answer["Id"].as_str().unwrap_or_default().to_owned(), name });
            }
            Err(herder_docker::EngineError::Answer { status: 409, .. }) if name == state.facts.name => {
                name = format!("{name}.{short}");
            }
            Err(error) => return Err(error),
        }
    }
}

fn body(id: &str, name: &str, state: &NetState, host: &Host) -> Value {
    let facts = &state.facts;
    let subnets = facts.subnets.iter().filter(|it| it.subnet.addr().is_ipv4() || facts.ipv6);
    let config: Vec<Value> =
        subnets.map(|it| json!({"Subnet": it.subnet.to_string(), "Gateway": it.gateway.to_string()})).collect();
    let mut options = json!({
        "com.docker.network.bridge.name": bridge_name(facts.vni),
        "com.docker.network.driver.mtu": mtu(state, host).to_string(),
        "com.docker.network.bridge.enable_icc": "true",
    });
    if facts.ingress {
        // The bridge gets its addresses from herder: that of the node besides the gateway's.
        options["com.docker.network.bridge.inhibit_ipv4"] = "true".into();
    }
    json!({
        "Name": name,
        "Driver": "bridge",
        "CheckDuplicate": true,
        "Internal": facts.internal,
        "EnableIPv6": facts.ipv6,
        "IPAM": {"Driver": "default", "Config": config},
        "Options": options,
        "Labels": {LABEL_NETWORK: id},
    })
}

/// Removes an engine network that no overlay network needs. False while containers are on it.
pub(super) async fn remove(engine: &Engine, network: &EngineNetwork) -> Result<bool, herder_docker::EngineError> {
    match engine.delete(format!("/networks/{}", escaped(&network.id))).done().await {
        Ok(()) | Err(herder_docker::EngineError::Answer { status: 404, .. }) => Ok(true),
        Err(herder_docker::EngineError::Answer { status: 403 | 409, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
