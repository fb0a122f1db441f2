//! Calls about the cluster as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use herder_decide::df;
use herder_decide::info::{self, Manager, Role};
use http::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{ApiError, Call, Front, Reply, call, fanout, forward, swarm};

/// Time limit of a list of nodes for the answer of the leader. Without one it shows no levels.
const LEVELS_TIME_MAX: Duration = Duration::from_secs(1);

/// The machine's description of itself, read once.
#[expect(clippy::disallowed_methods, reason = "one small file, once")]
static MACHINE: LazyLock<[String; 4]> = LazyLock::new(|| {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    [text(uname.nodename()), text(uname.machine()), pretty.trim_matches('"').to_owned(), text(uname.release())]
});

/// The host name of this machine.
pub(crate) fn machine_name() -> &'static str {
    &MACHINE[0]
}

fn manager(front: &Front) -> Manager {
    let [name, architecture, operating_system, kernel_version] = MACHINE.clone();
    Manager {
        name,
        role: front.replica.get().map_or(Role::Primary, |replica| replica.shown()),
        strategy: front.placer.scheduler.strategy.to_string(),
        filters: front.placer.scheduler.filters.iter().map(ToString::to_string).collect(),
        version: version_text(front),
        api_version: front.api_version(),
        experimental: front.settings.experimental,
        architecture,
        operating_system,
        kernel_version,
        ..Manager::default()
    }
}

/// `herder manage` stands where classic Swarm stood, and clients of that tell it by the word before the slash.
fn version_text(front: &Front) -> String {
    if front.placer.peers().is_some() {
        crate::front::SERVER.to_owned()
    } else {
        format!("swarm/{}", env!("CARGO_PKG_VERSION"))
    }
}

/// `GET` and `HEAD` of `/_ping`.
pub(crate) async fn ping(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let mut reply = Response::new(herder_pool::full("OK"));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    // The classic builder is what all engines have; BuildKit needs a session that one node holds.
    headers.insert("builder-version", header::HeaderValue::from_static("1"));
    if let Some(swarm) = swarm::info::header(front) {
        headers.insert("swarm", header::HeaderValue::from_static(swarm));
    }
    Ok(reply)
}

pub(crate) async fn version(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    Ok(call::json(StatusCode::OK, &info::version(&manager(front))))
}

pub(crate) async fn info(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let mut info = info::info(&front.pool.nodes(), &manager(front), jiff::Timestamp::now());
    if let Some(section) = swarm::info::section(front).await {
        info["Swarm"] = section;
    }
    Ok(call::json(StatusCode::OK, &info))
}

/// `GET /herder/nodes`: every node with what placing goes by, and why it is not healthy.
pub(crate) async fn nodes(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let cpus = |nano: i64| nano as f64 / 1e9;
    let levels = feature_levels(front).await;
    let entry = |node: &Arc<herder_model::Node>| {
        json!({
            "id": node.id, "name": node.name, "address": node.addr, "state": node.state.as_str(),
            "error": node.error, "labels": node.labels, "containers": node.containers.len(),
            "cpus": cpus(node.total.nano_cpus), "cpus_reserved": cpus(node.used.nano_cpus),
            "memory": node.total.memory_bytes, "memory_reserved": node.used.memory_bytes,
            "engine": node.server_version, "api_version": node.api_version, "updated_at": node.updated_at,
            "feature_level": levels.get(&node.addr),
        })
    };
    let nodes: Vec<Value> = front.pool.nodes().iter().map(entry).collect();
    Ok(call::json(StatusCode::OK, &nodes))
}

/// Returns the feature level of each node of the swarm, by its address. Empty where this node is no manager, or has no
/// leader now.
async fn feature_levels(front: &Arc<Front>) -> BTreeMap<String, u32> {
    let Some(swarm) = front.swarm() else { return BTreeMap::new() };
    match timeout(LEVELS_TIME_MAX, swarm.read()).await {
        Ok(Ok(view)) => view.nodes.values().map(|it| (it.addr.clone(), it.level)).collect(),
        Ok(Err(_)) | Err(_) => BTreeMap::new(),
    }
}

/// Answers `POST /herder/token/rotate` with a new join code for the pool; the old one is no longer valid.
pub(crate) async fn rotate_token(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let none = || ApiError::not_found("there is no join code here: this is no node of a pool (`herder up`)");
    let code = front.placer.peers().ok_or_else(none)?.rotate_join_code().await?;
    Ok(call::json(StatusCode::OK, &json!({ "token": code })))
}

/// Sums up the disk use of all nodes.
pub(crate) async fn df(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let parts = fanout::ask_all(front, Method::GET, "/system/df", None).await;
    let merged = df::merge(parts, front.pool.settings().naming).map_err(ApiError::internal)?;
    Ok(call::json(StatusCode::OK, &merged))
}

/// Calls that any engine answers alike: `/auth`, `/images/search`, `/distribution/…`.
pub(crate) async fn any_engine(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let engine = fanout::any(front)?;
    let path = call.path.clone();
    forward::to_engine(front, call, &engine, path).await
}

/// Plugins belong to engines; the cluster has none of its own.
pub(crate) async fn plugins(_: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    if call.parts.method == Method::GET && call.path == "/plugins" {
        return Ok(call::json(StatusCode::OK, &Value::Array(vec![])));
    }
    if call.parts.method == Method::GET {
        // `docker inspect NAME` asks for every kind of thing in turn.
        let name = call.path.trim_start_matches("/plugins/").trim_end_matches("/json");
        return Err(ApiError::not_found(format!("plugin {name:?} not found")));
    }
    let message = "plugins belong to one engine: manage them there (docker -H tcp://NODE plugin …)";
    Ok(call::json(StatusCode::NOT_IMPLEMENTED, &json!({ "message": message })))
}
