//! DockerMod's actions: `POST /` with a JSON document on any door, or the same document on the event bus.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use herder_decide::actions::{self, Action, Create, Source, Verb, What};
use herder_decide::request;
use herder_model::Node;
use herder_pool::{Engine, EngineError};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::call::{self, gather_answer};
use crate::create::{self, Order};
use crate::{ApiError, Call, Front, Reply, containers};

mod templates;

/// Containers of one request that are created at the same time; engines do a handful at once.
const CREATES_MAX: usize = 16;

/// A list of 10,000 containers takes some 20 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A template is some kilobytes.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;

/// How actions behave.
#[derive(Clone, Debug)]
pub struct ActionSettings {
    /// Templates are `NAME.json` in this folder.
    pub templates: Option<std::path::PathBuf>,
    /// How long a node may take to answer.
    pub task_timeout: Duration,
    /// How long each container of a create may take.
    pub new_container_timeout: Duration,
}

impl Default for ActionSettings {
    fn default() -> ActionSettings {
        let conf = actions::conf::Conf::default();
        let (task_timeout, new_container_timeout) = (conf.task_timeout, conf.new_container_timeout);
        ActionSettings { templates: None, task_timeout, new_container_timeout }
    }
}

/// What actions need besides the pool.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    settings: OnceLock<ActionSettings>,
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

    /// Carries out one request; status and document for the client. `here` is the node that an action without `hostname`
    /// means, if it is for one node.
    pub async fn act(self: &Arc<Self>, request: &Value, here: Option<&str>) -> (StatusCode, Value) {
        let action = match actions::parse(request) {
            Ok(action) => action,
            Err(error) => return (StatusCode::BAD_REQUEST, error.answer()),
        };
        tracing::debug!(?action, "an action");
        let done = match action {
            Action::Register { hostname } => self.is_member(&hostname),
            Action::Unregister { .. } => Err(ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                "nodes are members while herder runs on them: end `herder up` on the host, its containers stay",
            )),
            Action::Create(create) => self.create_containers(create, here).await,
            Action::OnContainer { verb, id } => self.on_container(verb, &id).await,
            Action::List { what, all: true, .. } => Ok(self.list_all(what).await),
            Action::List { what, all: false, hostname } => self.list_one(what, hostname.as_deref().or(here)).await,
            Action::ListTemplates => {
                templates::list(self.actions.settings()).await.map(|list| json!({ "templates": list }))
            }
        };
        match done {
            Ok(answer) => (status_of(&answer), answer),
            Err(error) => (error.status(), json!({ "status": "error", "message": error.to_string() })),
        }
    }

    /// The text of one of this node's templates; nothing if it has none of that name.
    pub async fn own_template(&self, name: &str) -> Option<String> {
        templates::own(self.actions.settings(), name).await.ok()
    }

    fn is_member(&self, hostname: &str) -> Result<Value, ApiError> {
        self.node_named(hostname)?;
        Ok(json!({ "status": "ok" }))
    }

    fn node_named(&self, hostname: &str) -> Result<Arc<Node>, ApiError> {
        let nodes = self.pool.nodes();
        let found = nodes.iter().find(|node| node.name == hostname).cloned();
        found.ok_or_else(|| {
            let known: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            ApiError::not_found(format!("no node {hostname} is in the pool; there are: {}", known.join(", ")))
        })
    }

    async fn create_containers(self: &Arc<Self>, create: Create, here: Option<&str>) -> Result<Value, ApiError> {
        let Create { source, instances, hostname, name } = create;
        let body = match source {
            Source::Template { name, variables } => templates::body(self, &name, &variables).await?,
            Source::Image(image) => actions::from_image(&image),
            Source::Body(body) => body,
        };
        let here = hostname.or_else(|| here.map(str::to_owned));
        if let Some(here) = &here {
            self.node_named(here)?;
        }
        let Some(instances) = instances else {
            let reply = self.create_one(&body, name.as_deref(), here.as_deref()).await;
            return Ok(reply);
        };
        let places: Vec<Option<String>> = match here {
            Some(here) => vec![Some(here); instances],
            None => actions::spread(&self.pool.nodes(), instances).into_iter().map(Some).collect(),
        };
        if places.is_empty() {
            return Err(ApiError::internal("No healthy node available in the cluster"));
        }
        let body = Arc::new(body);
        let creates = places.into_iter().map(|place| {
            let (front, body, name) = (self.clone(), body.clone(), name.clone());
            async move { front.create_one(&body, name.as_deref(), place.as_deref()).await }
        });
        let replies: Vec<Value> = stream::iter(creates).buffered(CREATES_MAX).collect().await;
        Ok(json!({ "containers": replies }))
    }

    /// Creates one container; what became of it, as that node's reply.
    async fn create_one(self: &Arc<Self>, body: &Value, name: Option<&str>, on: Option<&str>) -> Value {
        let limit = self.actions.settings().new_container_timeout;
        let made = async {
            let parsed = request::parse(name, body.clone(), &create::swarm_id());
            let mut request = parsed.map_err(|error| ApiError::bad_request(error.to_string()))?;
            if let Some(on) = on {
                let pinned = format!("node=={on}").parse();
                request.constraints.push(pinned.map_err(|_| ApiError::bad_request(format!("invalid hostname {on}")))?);
            }
            let order = Order { request, version: None, query: Vec::new(), replaces: None };
            // In a task of its own: what comes too late is still counted.
            let task = tokio::spawn(create::place_and_create(self.clone(), order));
            match timeout(limit, task).await {
                Ok(Ok(created)) => created.map(Some),
                Ok(Err(error)) => Err(ApiError::internal(format!("the create was broken off: {error}"))),
                Err(_) => Ok(None),
            }
        };
        match made.await {
            Ok(Some(created)) => {
                let length = created.answer.len().to_string();
                let date = date();
                let headers =
                    [("content-length", length.as_str()), ("content-type", "application/json"), ("date", &date)];
                let node = created.engine.node();
                actions::node_reply(&node.name, created.status.as_u16(), headers, &created.answer)
            }
            Ok(None) => actions::late(on.unwrap_or_default()),
            Err(error) => refusal(on.unwrap_or_default(), &error),
        }
    }

    async fn on_container(self: &Arc<Self>, verb: Verb, id: &str) -> Result<Value, ApiError> {
        let found = containers::find(self, id, &format!("No such container: {id}"))?;
        let path = format!("/containers/{}", found.container.id);
        let reply = match verb {
            Verb::Start => self.ask(&found.engine, Method::POST, &format!("{path}/start")).await,
            Verb::Stop => self.ask(&found.engine, Method::POST, &format!("{path}/stop")).await,
            Verb::Restart => self.ask(&found.engine, Method::POST, &format!("{path}/restart")).await,
            Verb::Delete => self.ask(&found.engine, Method::DELETE, &path).await,
            Verb::Inspect => return Ok(self.ask(&found.engine, Method::GET, &format!("{path}/json")).await),
            Verb::Shutdown => {
                let stopped = self.ask(&found.engine, Method::POST, &format!("{path}/stop")).await;
                match stopped["statusCode"].as_u64() {
                    Some(..400) => self.ask(&found.engine, Method::DELETE, &path).await,
                    _ => stopped,
                }
            }
        };
        containers::reread(&found.engine, &found.container.id).await;
        Ok(reply)
    }

    async fn list_one(&self, what: What, hostname: Option<&str>) -> Result<Value, ApiError> {
        let node = match hostname {
            Some(hostname) => self.node_named(hostname)?,
            None => {
                let here = self.peers.get().map(|peers| peers.here().to_owned());
                let nodes = self.pool.nodes();
                let local = nodes.iter().find(|node| here.as_ref().is_some_and(|here| node.addr == *here));
                let any = local.or_else(|| nodes.iter().find(|node| node.is_healthy())).cloned();
                any.ok_or_else(|| ApiError::internal("No healthy node available in the cluster"))?
            }
        };
        let engine = self.pool.engine(&node.addr).ok_or_else(|| ApiError::not_found("the node has just left"))?;
        Ok(self.ask(&engine, Method::GET, path_of(what)).await)
    }

    async fn list_all(&self, what: What) -> Value {
        let nodes = self.pool.nodes();
        let engines = nodes.iter().filter_map(|node| self.pool.engine(&node.addr)).collect::<Vec<_>>();
        let asked = engines.iter().map(|engine| self.ask(engine, Method::GET, path_of(what)));
        let replies = futures_util::future::join_all(asked).await;
        actions::gathered(if what == What::Images { "images" } else { "containers" }, replies)
    }

    /// Asks one engine, within the time for a task; its reply, or that it was late.
    async fn ask(&self, engine: &Arc<Engine>, method: Method, path: &str) -> Value {
        let node = engine.node();
        // `stop` and `restart` wait for the container, ten seconds as Docker does.
        let waits = path.ends_with("/stop") || path.ends_with("/restart");
        let limit = self.actions.settings().task_timeout + if waits { Duration::from_secs(10) } else { Duration::ZERO };
        if !node.is_healthy() {
            return actions::late(&node.name);
        }
        let asked = async {
            let mut request = Request::new(herder_pool::empty());
            *request.method_mut() = method;
            let uri = format!("/v{}{path}", node.api_version);
            *request.uri_mut() = uri.parse().map_err(|_| ApiError::bad_request(format!("invalid path {uri:?}")))?;
            let (parts, body) = engine.send(request).await?.into_parts();
            Ok::<_, ApiError>((parts, gather_answer(body, ANSWER_BYTES_MAX).await?))
        };
        match timeout(limit, asked).await {
            Ok(Ok((parts, body))) => {
                actions::node_reply(&node.name, parts.status.as_u16(), texts(&parts.headers), &body)
            }
            Ok(Err(error)) => refusal(&node.name, &error),
            Err(_) => actions::late(&node.name),
        }
    }
}

fn path_of(what: What) -> &'static str {
    match what {
        What::Containers => "/containers/json?all=1",
        What::Images => "/images/json",
    }
}

fn texts(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
}

/// An error in the shape of a node's reply: Docker's own text is the response.
fn refusal(node: &str, error: &ApiError) -> Value {
    let message = match error {
        ApiError::Engine(EngineError::Answer { message, .. }) => message.clone(),
        other => other.to_string(),
    };
    let mut reply = Map::new();
    reply.insert("Response".into(), message.into());
    reply.insert("dockerInstance".into(), node.into());
    reply.insert("statusCode".into(), error.status().as_u16().into());
    Value::Object(reply)
}

/// As HTTP writes it (RFC 9110, 5.6.7).
fn date() -> String {
    jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The status of the HTTP answer: that of the reply, save that an answer with a document cannot be 204. Of many replies it is
/// an error only if all are.
fn status_of(answer: &Value) -> StatusCode {
    let of = |reply: &Value| match reply["statusCode"].as_u64().and_then(|code| u16::try_from(code).ok()) {
        Some(code @ 400..) => StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        Some(201) => StatusCode::CREATED,
        Some(_) => StatusCode::OK,
        None if reply["error"] == "timeout" => StatusCode::GATEWAY_TIMEOUT,
        None => StatusCode::OK,
    };
    let Some(replies) = answer["containers"].as_array().or_else(|| answer["images"].as_array()) else {
        return of(answer);
    };
    match replies.first() {
        Some(first) if replies.iter().all(|reply| of(reply).as_u16() >= 400) => of(first),
        _ => StatusCode::OK,
    }
}

/// `POST /`.
pub(crate) async fn post(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let bytes = call.bytes(call::JSON_BYTES_MAX).await?;
    let request: Value = match serde_json::from_slice(&bytes) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("the request is no JSON document: {error}");
            return Ok(call::json(StatusCode::BAD_REQUEST, &json!({ "status": "error", "message": message })));
        }
    };
    let (status, answer) = front.act(&request, None).await;
    Ok(call::json(status, &answer))
}

/// `GET /`: says what this is, in the original's words.
pub(crate) async fn greet(_: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let mut reply = Reply::new(herder_pool::full("DockerMod HttpService"));
    reply.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(reply)
}
