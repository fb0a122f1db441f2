//! `/v2/targets/{target}/nodes`, `/networks`, `/volumes`: what a target has beside stacks.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_deploy::escape;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::asked::read;
use super::listed::paged;
use super::problem::Problem;
use super::reach::Reach;
use super::v2::{Answered, api_of, docker, docker_list, ok, request_id};
use crate::{Call, Front, call};

/// `GET /v2/targets/{target}/nodes`, `/networks`, `/volumes`.
pub(crate) async fn list(front: &Arc<Front>, call: Call, what: &str) -> Answered {
    let name = call.hole("target");
    let api = api_of(front, &name, &request_id(&call)).await?;
    let all = match what {
        "volumes" => {
            let all = docker(&api, Method::GET, "/volumes", None).await?;
            let all = all["Volumes"].as_array().cloned().unwrap_or_default();
            all.iter().map(|it| json!({"name": it["Name"], "driver": it["Driver"], "labels": it["Labels"]})).collect()
        }
        "networks" => {
            let all = docker_list(&api, "/networks").await?;
            let shown = |it: &Value| json!({"name": it["Name"], "id": it["Id"], "driver": it["Driver"], "scope": it["Scope"], "labels": it["Labels"]});
            all.iter().map(shown).collect()
        }
        _ => {
            let all = docker_list(&api, "/nodes").await?;
            let shown = |it: &Value| {
                json!({"name": it["Description"]["Hostname"], "id": it["ID"], "role": it["Spec"]["Role"],
                    "availability": it["Spec"]["Availability"], "state": it["Status"]["State"],
                    "address": it["Status"]["Addr"], "engine": it["Description"]["Engine"]["EngineVersion"]})
            };
            all.iter().map(shown).collect::<Vec<_>>()
        }
    };
    paged(&call, all, "name")
}

/// A wanted network or volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    name: String,
    driver: Option<String>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    /// True if plain containers may use the network, too; for networks of a swarm.
    attachable: bool,
}

/// `POST /v2/targets/{target}/networks`, `/volumes`.
pub(crate) async fn create(front: &Arc<Front>, mut call: Call, what: &str) -> Answered {
    let wanted: Wanted = read(&mut call).await?;
    if wanted.name.is_empty() {
        return Err(Problem::bad_request("name is missing"));
    }
    let api = api_of(front, &call.hole("target"), &request_id(&call)).await?;
    let body = if what == "volumes" {
        json!({"Name": wanted.name, "Driver": wanted.driver.as_deref().unwrap_or("local"), "DriverOpts": wanted.options,
            "Labels": wanted.labels})
    } else {
        let default = if matches!(api, Reach::Engine(..)) { "bridge" } else { "overlay" };
        json!({"Name": wanted.name, "Driver": wanted.driver.as_deref().unwrap_or(default), "Options": wanted.options,
            "Labels": wanted.labels, "Attachable": wanted.attachable, "CheckDuplicate": true})
    };
    let made = docker(&api, Method::POST, &format!("/{what}/create"), Some(&body)).await?;
    let id = made.get("Id").or(made.get("Name")).cloned().unwrap_or_default();
    Ok(call::json(StatusCode::CREATED, &json!({"name": wanted.name, "id": id})))
}

/// `DELETE /v2/targets/{target}/networks/{name}`, `/volumes/{name}`. Names are taken exactly.
pub(crate) async fn remove(front: &Arc<Front>, call: Call, what: &str) -> Answered {
    let name = call.hole("name");
    let api = api_of(front, &call.hole("target"), &request_id(&call)).await?;
    let id = if what == "volumes" {
        name.clone()
    } else {
        let all = docker_list(&api, "/networks").await?;
        let there = all.iter().find(|it| it["Name"] == name.as_str() || it["Id"] == name.as_str());
        let there = there.and_then(|it| it["Id"].as_str()).map(str::to_owned);
        let detail = || format!("there is no network {name}");
        there.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "network_not_found", detail()))?
    };
    docker(&api, Method::DELETE, &format!("/{what}/{}", escape(&id)), None).await?;
    ok(&json!({"name": name}))
}
