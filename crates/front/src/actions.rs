//! DockerMod's actions: `POST /` with a JSON document on any door, or the same document on the event bus.

mod ask;
mod creates;
mod members;
mod templates;

use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use herder_decide::actions::members::Changes;
use herder_decide::actions::shared::Offered;
use herder_decide::actions::{self, Action, Asked, conf::Conf, shape};
use herder_model::Node;
use herder_place::peers::Templates;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{ApiError, Call, Front, Reply, bus, call, guard};

/// The port of an engine that is registered without one.
const ENGINE_PORT: u16 = 2375;

/// Settings of actions.
#[derive(Clone, Debug)]
pub struct ActionSettings {
    /// Templates are `NAME.json` in this folder.
    pub templates: Option<std::path::PathBuf>,
    /// Maximum time of a node's answer.
    pub task_timeout: Duration,
    /// Maximum time of each container of a create.
    pub new_container_timeout: Duration,
    /// Port of an engine that is registered without one.
    pub engine_port: u16,
}

impl Default for ActionSettings {
    fn default() -> ActionSettings {
        let Conf { task_timeout, new_container_timeout, .. } = Conf::default();
        ActionSettings { templates: None, task_timeout, new_container_timeout, engine_port: ENGINE_PORT }
    }
}

/// Dependencies of actions besides the pool.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    settings: OnceLock<ActionSettings>,
    /// Changes by `register` and `unregister`. Without a listener, nothing can be.
    members: watch::Sender<Changes>,
    /// Nodes take turns where any would do.
    round: AtomicUsize,
}

impl Actions {
    fn settings(&self) -> &ActionSettings {
        self.settings.get_or_init(ActionSettings::default)
    }
}

impl Front {
    /// Says how actions behave, before the first one. Only the first call counts.
    pub fn set_actions(&self, settings: ActionSettings) {
        if self.actions.settings.set(settings).is_err() {
            tracing::error!("actions are set up twice; the second time is ignored");
        }
    }

    /// Watches the changes by `register` and `unregister` to the members that discovery names. While nobody follows,
    /// these actions only say whether a node is a member.
    pub fn member_changes(&self) -> watch::Receiver<Changes> {
        self.actions.members.subscribe()
    }

    /// Carries out one request; status and document for the client. `here` is the node that an action without `hostname`
    /// means, if it is for one node.
    pub async fn act(self: &Arc<Self>, request: &Value, here: Option<&str>) -> (StatusCode, Value) {
        let Asked { action, headers } = match actions::parse(request) {
            Ok(asked) => asked,
            Err(error) => return (StatusCode::BAD_REQUEST, error.answer()),
        };
        tracing::debug!(?action, "an action");
        let done = match action {
            Action::Register { hostname } => members::register(self, &hostname),
            Action::Unregister { hostname } => members::unregister(self, &hostname),
            Action::Create(create) => creates::create(self, create, here).await,
            Action::OnContainer { verb, id } => ask::on_container(self, verb, &id, &headers).await,
            Action::List { what, all: true, .. } => ask::list_all(self, what, &headers).await,
            Action::List { what, hostname, .. } => {
                ask::list_one(self, what, hostname.as_deref().or(here), &headers).await
            }
            Action::ListTemplates { text, all } => templates::list(self, text, all).await,
        };
        match done {
            Ok(answer) => (StatusCode::from_u16(shape::status(&answer)).unwrap_or_default(), answer),
            Err(error) => (error.status(), shape::refused(&error.to_string())),
        }
    }
}

/// The node that `hostname` means: by its name, its address, or the host of its address.
fn node_named(front: &Front, hostname: &str) -> Result<Arc<Node>, ApiError> {
    let nodes = front.pool.nodes();
    let meant = |node: &&Arc<Node>| actions::members::is_meant(hostname, &node.addr, &node.name);
    let found = nodes.iter().find(|node| node.name == hostname).or_else(|| nodes.iter().find(meant));
    found.cloned().ok_or_else(|| {
        let known: Vec<&str> = nodes.iter().map(|node| shown(node)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ApiError::not_found(format!("hostname: no node {hostname} is in the pool; there are: {known}"))
    })
}

/// A node that has never answered has no name yet.
fn shown(node: &Node) -> &str {
    if node.name.is_empty() { &node.addr } else { &node.name }
}

/// `POST /`.
pub(crate) async fn post(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let refused = |error: ApiError| Ok(call::json(error.status(), &shape::refused(&error.to_string())));
    // Any page may send a form to any host: that its text is JSON is no proof of anything.
    let headers = &call.parts.headers;
    if let Err(error) = bus::origin(front, headers, "actions").and_then(|_| guard::is_no_form(headers)) {
        return refused(error);
    }
    let bytes = match call.bytes(call::JSON_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return refused(error),
    };
    let request: Value = match serde_json::from_slice(&bytes) {
        Ok(request) => request,
        Err(error) => return refused(ApiError::bad_request(format!("the request is no JSON document: {error}"))),
    };
    let (status, answer) = front.act(&request, None).await;
    Ok(call::json(status, &answer))
}

/// `GET /`: says what this is, in the original's words.
pub(crate) async fn greet(_: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let mut reply = Reply::new(herder_pool::full("DockerMod HttpService"));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(reply)
}

/// `GET /herder/templates`: as the action `list-templates`.
pub(crate) async fn list_templates(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let (text, all) = (call.query.flag("text"), call.query.flag("all"));
    let request = json!({ "action": "list-templates", "text": text, "all": all });
    let (status, answer) = front.act(&request, None).await;
    Ok(call::json(status, &answer))
}

impl Templates for Front {
    fn own<'t>(&'t self, name: Option<&'t str>) -> Pin<Box<dyn Future<Output = Vec<Offered>> + Send + 't>> {
        Box::pin(templates::offered(self.actions.settings(), name))
    }
}
