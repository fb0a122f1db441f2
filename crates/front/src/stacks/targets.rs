//! `/v2/targets`: this cluster, and targets that are stored by name with sealed credentials.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_model::swarm::{Change, View};
use herder_stacks::engine::OneEngine;
use herder_stacks::{
    Chance, Found, OWN, Target, TargetKind, Tls, WantedTarget, credentials, remove_target, target, targets,
    write_target,
};
use http::{HeaderMap, Method, StatusCode};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Inside;
use super::asked::read;
use super::listed::{if_match, paged, tagged};
use super::problem::Problem;
use super::reach::Reach;
use super::remote::{Pem, Remote, faults};
use super::v2::{ATTEMPTS_MAX, Answered, author, docker, ok, request_id, swarm_of};
use crate::{ApiError, Call, Front, call, swarm};

/// The way to a target of this name.
pub(crate) async fn api_of(front: &Arc<Front>, name: &str, request_id: &str) -> Result<Reach, Problem> {
    if name == OWN {
        return Ok(Reach::Own(Inside::new(front, request_id)));
    }
    let view = swarm::read(swarm_of(front)?).await?;
    let found = target(&view, name)?;
    dial(front, &view, &found).await
}

async fn dial(front: &Arc<Front>, view: &View, found: &Found<Target>) -> Result<Reach, Problem> {
    let tls = credentials(view, found)?;
    let pem = Pem { ca: tls.ca, cert: tls.cert, key: tls.key };
    let remote = Remote::connect(front, &found.record.address, &pem).await?;
    Ok(match found.record.kind {
        TargetKind::Engine => {
            let version = remote.version();
            Reach::Engine(Box::new(OneEngine::new(remote)), version)
        }
        _ => Reach::Remote(Box::new(remote)),
    })
}

/// `GET /v2/targets`.
pub(crate) async fn list(front: &Arc<Front>, call: Call) -> Answered {
    let view = swarm::read(swarm_of(front)?).await?;
    let mut all = vec![own(front)?];
    all.extend(targets(&view).iter().map(shown));
    paged(&call, all, "name")
}

fn own(front: &Front) -> Result<Value, Problem> {
    let status = swarm_of(front)?.status();
    Ok(json!({
        "name": OWN, "kind": "own", "node": status.node_id, "manager": status.control_available,
        "version": env!("CARGO_PKG_VERSION"),
        "capabilities": ["replicas", "global", "jobs", "rolling_update", "depends_on", "secrets", "configs", "overlay",
            "privileged", "devices"],
    }))
}

/// A target without its credentials.
fn shown(found: &Found<Target>) -> Value {
    let it = &found.record;
    let capabilities: &[&str] = match it.kind {
        TargetKind::Engine => &["replicas", "depends_on", "secrets", "configs", "privileged", "devices"],
        _ => &["replicas", "global", "jobs", "rolling_update", "depends_on", "secrets", "configs", "overlay"],
    };
    let tls = match it.sealed.is_empty() {
        true => Value::Null,
        false => json!({"fingerprint": it.fingerprint}),
    };
    json!({
        "id": found.id, "name": it.target, "kind": it.kind, "address": format!("tcp://{}", it.address), "labels": it.labels,
        "by": it.by, "tls": tls, "created": found.created_at, "updated": found.updated_at, "capabilities": capabilities,
    })
}

/// `GET /v2/targets/{target}`.
pub(crate) async fn inspect(front: &Arc<Front>, call: Call) -> Answered {
    let name = call.hole("target");
    if name == OWN {
        return ok(&own(front)?);
    }
    let view = swarm::read(swarm_of(front)?).await?;
    let found = target(&view, &name)?;
    Ok(tagged(call::json(StatusCode::OK, &shown(&found)), Some(found.version)))
}

/// `POST /v2/targets`, `PUT /v2/targets/{target}`.
pub(crate) async fn put(front: &Arc<Front>, mut call: Call) -> Answered {
    let mut wanted: WantedTarget = read(&mut call).await?;
    let in_path = call.hole("target");
    let is_new = in_path.is_empty();
    if !is_new {
        wanted.name = in_path;
    }
    store(front, &wanted, is_new, &call.parts.headers, &author(&call)).await
}

async fn store(front: &Arc<Front>, wanted: &WantedTarget, is_new: bool, headers: &HeaderMap, by: &str) -> Answered {
    // Wrong certificates are refused before they are stored.
    if let Some(tls) = wanted.tls.as_ref().filter(|tls| !tls.ca.trim().is_empty()) {
        let config = herder_tls::client_of_pem(&tls.ca, &tls.cert, &tls.key);
        config.map_err(|error| faults::of_pem(&error))?;
    }
    let ids = [swarm::new_id(), swarm::new_id()];
    let view = commit(front, |view| {
        if_match(headers, "target", target(view, &wanted.name).ok().map(|it| it.version))?;
        let mut chance = Chance { key: [0; 32], nonce: [0; 12] };
        rand::rng().fill_bytes(&mut chance.key);
        rand::rng().fill_bytes(&mut chance.nonce);
        Ok(write_target(view, wanted, is_new, by, ids.clone(), chance)?)
    })
    .await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let found = target(&view, &wanted.name)?;
    Ok(tagged(call::json(status, &shown(&found)), Some(found.version)))
}

/// Members of a target that a PATCH may name; the others stay as they are.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Patch {
    kind: Option<TargetKind>,
    address: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    tls: Option<Tls>,
}

/// `PATCH /v2/targets/{target}`.
pub(crate) async fn patch(front: &Arc<Front>, mut call: Call) -> Answered {
    let patch: Patch = read(&mut call).await?;
    let name = call.hole("target");
    let present = target(&swarm::read(swarm_of(front)?).await?, &name)?.record;
    let wanted = WantedTarget {
        name,
        kind: patch.kind.unwrap_or(present.kind),
        address: patch.address.unwrap_or(present.address),
        labels: patch.labels.unwrap_or(present.labels),
        tls: patch.tls,
    };
    store(front, &wanted, false, &call.parts.headers, &author(&call)).await
}

/// `DELETE /v2/targets/{target}`.
pub(crate) async fn delete(front: &Arc<Front>, call: Call) -> Answered {
    let name = call.hole("target");
    if name == OWN {
        return Err(Problem::bad_request("this cluster cannot be removed from its targets"));
    }
    let headers = call.parts.headers;
    commit(front, |view| {
        if_match(&headers, "target", target(view, &name).ok().map(|it| it.version))?;
        Ok(remove_target(view, &name)?)
    })
    .await?;
    ok(&json!({"name": name}))
}

/// Decides on the newest state and writes, again where somebody else wrote meanwhile.
async fn commit(front: &Arc<Front>, decide: impl Fn(&View) -> Result<Vec<Change>, Problem>) -> Result<View, Problem> {
    let swarm = swarm_of(front)?;
    let mut attempts = 1;
    loop {
        let changes = decide(&swarm::read(swarm).await?)?;
        match swarm.commit(changes).await {
            Ok(view) => return Ok(view),
            Err(swarm::NotWritten::Conflict(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
            Err(swarm::NotWritten::Conflict(conflict)) => return Err(ApiError::conflict(conflict.to_string()).into()),
            Err(swarm::NotWritten::Failed(error)) => return Err(error.into()),
        }
    }
}

/// `POST /v2/targets/{target}/check`: connects, and tells each step with its failure.
pub(crate) async fn check(front: &Arc<Front>, call: Call) -> Answered {
    let name = call.hole("target");
    let mut steps = Vec::new();
    let start = Instant::now();
    let failed = |mut steps: Vec<Value>, step: &str, problem: Problem| {
        steps.push(json!({"step": step, "ok": false, "code": problem.code, "error": problem.detail}));
        ok(&json!({"ok": false, "steps": steps}))
    };
    let api = match api_of(front, &name, &request_id(&call)).await {
        Ok(api) => api,
        Err(problem) if problem.status == StatusCode::NOT_FOUND => return Err(problem),
        Err(problem) => return failed(steps, "connect", problem),
    };
    let latency = start.elapsed().as_millis();
    steps.push(json!({"step": "connect", "ok": true, "milliseconds": latency as u64}));
    let info = match docker(&api, Method::GET, "/info", None).await {
        Ok(info) => info,
        Err(problem) => return failed(steps, "info", problem),
    };
    steps.push(json!({"step": "info", "ok": true, "engine": info["ServerVersion"], "host": info["Name"]}));
    if let Reach::Remote(_) = api {
        match faults::of_info("", &info) {
            Some(fault) => return failed(steps, "swarm", fault.into()),
            None => steps.push(json!({"step": "swarm", "ok": true, "nodes": info["Swarm"]["Nodes"]})),
        }
    }
    ok(&json!({"ok": true, "steps": steps}))
}
