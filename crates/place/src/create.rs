//! `POST /containers/create`: read once, placed, created on the node that was chosen; on the next best when that one cannot.

pub mod ground;
pub mod name;

use std::sync::Arc;

use bytes::Bytes;
use herder_decide::placing::{self, Refusal, Said, Turns};
use herder_decide::request::{self, CreateRequest};
use herder_decide::schedule::ports_promised;
use herder_decide::{names, prefer, versions};
use herder_model::{LABEL_NETWORK_ID, Node};
use herder_pool::{Engine, EngineError, LinkError, Ticket};
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use herder_docker::path::{encode_query, for_engine};
use herder_docker::{classify, error_message};

use crate::error::gather_answer;
use crate::peers::{self, Held, Outcome};
use crate::reread::reread_volumes;
use crate::turn::Turn;
use crate::{Error, Placer, overlays, transfer};

/// The answer to a create is an id and warnings, or an error.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A container that was created.
#[derive(Debug)]
pub struct Created {
    pub engine: Arc<Engine>,
    pub id: String,
    /// The engine's own answer.
    pub status: StatusCode,
    /// Headers of the engine's answer; `None` if another node asked its engine.
    pub headers: HeaderMap,
    pub answer: Bytes,
}

/// A container to create, with the query and headers of the call to the engine.
#[derive(Clone, Debug)]
pub struct Order {
    pub request: CreateRequest,
    /// The client's version of the API; without one, each engine's own.
    pub version: Option<String>,
    /// The query string for the engine, without `name`; encoded.
    pub query: Vec<(String, String)>,
    /// Address and id of the container that this one replaces. Its name may be used, and its node is not asked.
    pub replaces: Option<(String, String)>,
}

/// Reads a create body.
pub fn order(placer: &Placer, name: Option<&str>, body: Value) -> Result<Order, Error> {
    let mut request = request::parse(name, body, &swarm_id()).map_err(refused)?;
    let nodes = placer.pool.nodes();
    find_dependencies(&nodes, &request)?;
    prefer_network(&nodes, &mut request);
    prefer::complete(&nodes, &mut request);
    Ok(Order { request, version: None, query: Vec::new(), replaces: None })
}

/// Maps refusals of the request parser to 400 (classic Swarm said 500).
fn refused(error: request::RequestError) -> Error {
    Error::bad_request(error.to_string())
}

/// Finds the containers of links and volumes. A missing one is the client's mistake: with 404 clients would pull the
/// image.
fn find_dependencies(nodes: &[Arc<Node>], request: &CreateRequest) -> Result<(), Error> {
    for (flag, target) in &request.dependencies {
        if let Err(error) = names::container(nodes, target) {
            let sentence = error.sentence(names::Kind::Container, target);
            let link = flag.starts_with("--link=");
            let sentence = if link { format!("could not get container for {target}: {sentence}") } else { sentence };
            return Err(Error::bad_request(sentence));
        }
    }
    Ok(())
}

/// Places and creates, on one node after the other while they refuse. When it returns, the container is in the picture.
pub async fn place_and_create(placer: Arc<Placer>, order: Order) -> Result<Created, Error> {
    place_and_create_in_turn(placer, order, None).await
}

/// The same, where something else than the strategy says which of the nodes that can take it gets the container.
pub async fn place_and_create_in_turn(
    placer: Arc<Placer>,
    mut order: Order,
    turn: Option<Arc<Turn>>,
) -> Result<Created, Error> {
    let held = hold_name(&placer, &mut order).await?;
    let created = place(&placer, &order, turn.as_deref()).await;
    match (held, &created) {
        (Some(held), Ok(created)) => held.shown(&created.engine),
        (Some(held), Err(error)) if said(error).keeps_name() => held.in_doubt(),
        _ => {}
    }
    created
}

/// Claims the container name in the pool. A generated name is regenerated until a claim succeeds.
async fn hold_name(placer: &Placer, order: &mut Order) -> Result<Option<Held>, Error> {
    if let Some(name) = &order.request.name {
        placer.look_again_at(name).await;
    }
    if placer.peers.get().is_none() {
        return Ok(None);
    }
    let replaces = order.replaces.as_ref().map_or("", |(_, id)| id.as_str());
    if let Some(name) = &order.request.name {
        return placer.hold(name, replaces).await;
    }
    loop {
        let name = name::free(&placer.pool.nodes(), &mut rand::rng());
        match placer.hold(&name, replaces).await {
            Err(error) if error.status() == StatusCode::CONFLICT => {}
            held => {
                order.request.container.name.clone_from(&name);
                order.request.name = Some(name);
                return held;
            }
        }
    }
}

async fn place(placer: &Arc<Placer>, order: &Order, turn: Option<&Turn>) -> Result<Created, Error> {
    let without = order.replaces.iter().map(|(addr, _)| addr.clone()).collect();
    let mut turns = Turns::new(without, placer.settings.create_retry);
    loop {
        let ticket = match choose(placer, order, turns.tried(), turn) {
            Ok(ticket) => ticket,
            Err(error) => return Err(turns.nobody_left(error)),
        };
        let Some(engine) = placer.pool.engine(&ticket.addr) else {
            turns.skip(&ticket.addr);
            continue;
        };
        match create_on(placer, order, &ticket, engine).await {
            Ok(created) => return Ok(created),
            Err(error) => {
                tracing::info!(addr = ticket.addr, %error, "a node did not create a container");
                turns.failed(&ticket.addr, said(&error), error)?;
            }
        }
    }
}

/// Chooses the best node that was not tried yet, and reserves the name and the resources there.
fn choose(placer: &Placer, order: &Order, tried: &[String], turn: Option<&Turn>) -> Result<Ticket, Error> {
    let request = &order.request;
    placer.pool.place(|nodes| {
        let mut container = request.container.clone();
        let replaced = order.replaces.as_ref().map(|(_, id)| id.as_str());
        match &request.name {
            Some(name) => placing::check_name(nodes, name, replaced)?,
            None => container.name = name::free(nodes, &mut rand::rng()),
        }
        let scheduler = turn.and_then(Turn::scheduler).unwrap_or(&placer.scheduler);
        let mut rng = rand::rng();
        let node = match turn {
            None => placing::choose(scheduler, request, nodes, tried, &mut rng)?,
            Some(turn) => {
                let ranked = scheduler.rank(request, nodes, &mut rng).map_err(Refusal::from)?;
                turn.choose(&ranked, tried).cloned().ok_or(Refusal::NobodyLeft)?
            }
        };
        Ok((node.addr.clone(), container))
    })
}

/// Classifies the error of a node that did not create a container.
pub fn said(error: &Error) -> Said {
    match error {
        Error::InDoubt(_) => Said::Nothing,
        _ if is_refusal(error) => Said::No,
        _ => Said::Failed,
    }
}

/// An engine that was asked and did not answer may have done it.
fn doubtful(error: Error) -> Error {
    match error {
        Error::Engine(EngineError::Link(LinkError::Timeout { .. } | LinkError::Broken { .. })) => error.in_doubt(),
        _ => error,
    }
}

/// True if another node might succeed: this one is out of reach, or refuses.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Engine(EngineError::Link(LinkError::Connect { .. } | LinkError::Tls { .. })) => true,
        Error::Engine(EngineError::Answer { status, message }) => {
            *status == StatusCode::SERVICE_UNAVAILABLE.as_u16() || classify::is_for_another_platform(message)
        }
        _ => false,
    }
}

/// Creates the container on this engine, directly or through the node beside it.
pub async fn create_on(
    placer: &Arc<Placer>,
    order: &Order,
    ticket: &Ticket,
    engine: Arc<Engine>,
) -> Result<Created, Error> {
    if let Some(peers) = placer.peers_for(engine.addr()) {
        let insists = ports_promised(&order.request, &engine.node());
        let answer = peers::create_at(peers, order, &ticket.container, engine.addr(), insists);
        let Outcome { status, body, picture, .. } = tokio::select! {
            answer = answer => answer?,
            () = engine.until_lost() => return Err(Error::unhealthy(&engine.node().name).in_doubt()),
        };
        let created = created(&engine, status, HeaderMap::new(), body)?;
        // The node has read the container; a node of an older version does not say when.
        match picture {
            0 => read_back(&created).await,
            picture => engine.await_picture(picture).await,
        }
        return Ok(created);
    }
    let created = match ask(placer, order, ticket, &engine).await {
        Err(error) if misses_image(&error) && transfer::bring(placer, &order.request.image, &engine).await? => {
            ask(placer, order, ticket, &engine).await
        }
        other => other,
    }?;
    read_back(&created).await;
    Ok(created)
}

/// Rereads the new container from its engine. Until then its ticket counts for it.
async fn read_back(created: &Created) {
    if let Err(error) = created.engine.refresh_container(&created.id).await {
        tracing::debug!(%error, id = created.id, "cannot read a new container");
    }
    reread_volumes(&created.engine, &created.id).await;
}

fn misses_image(error: &Error) -> bool {
    matches!(error, Error::Engine(EngineError::Answer { status, message }) if classify::misses_image(*status, message))
}

/// Asks one engine to create the container.
async fn ask(placer: &Placer, order: &Order, ticket: &Ticket, engine: &Arc<Engine>) -> Result<Created, Error> {
    let node = engine.node();
    let name = ("name".to_owned(), ticket.container.name.clone());
    let query = std::iter::once(&name).chain(&order.query);
    let query: Vec<String> =
        query.map(|(key, value)| format!("{}={}", encode_query(key), encode_query(value))).collect();
    let version = versions::for_engine(order.version.as_deref(), &node.api_version);
    let mut body = request::for_engine(&order.request, node.ncpu);
    localise(&node, &mut body);
    let attaching = overlays::prepare(placer, order, &ticket.container.name, &mut body).await?;
    ground::prepare(placer, engine, &mut body).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(for_engine(Some(&version), "/containers/create", Some(&query.join("&"))))
        .header(header::CONTENT_TYPE, "application/json")
        .body(herder_pool::full(body.to_string()))
        .map_err(|error| Error::bad_request(format!("the request cannot be passed on: {error}")))?;
    let answer = async {
        let (parts, body) = engine.send(request).await?.into_parts();
        Ok::<_, Error>((parts, gather_answer(body, ANSWER_BYTES_MAX).await?))
    };
    let answered = tokio::select! {
        answer = answer => answer.map_err(doubtful),
        () = engine.until_lost() => Err(Error::unhealthy(&node.name).in_doubt()),
    };
    let made = answered.and_then(|(parts, bytes)| created(engine, parts.status, parts.headers, bytes));
    match (attaching, &made) {
        (Some(attaching), Ok(made)) => attaching.made(&made.id),
        (Some(attaching), Err(Error::InDoubt(_))) => attaching.in_doubt(),
        _ => {}
    }
    made
}

/// Reads the answer to a create.
fn created(engine: &Arc<Engine>, status: StatusCode, headers: HeaderMap, answer: Bytes) -> Result<Created, Error> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Id", default)]
        id: String,
    }
    match serde_json::from_slice::<Answer>(&answer) {
        Ok(Answer { id }) if status.is_success() && !id.is_empty() => {
            Ok(Created { engine: engine.clone(), id, status, headers, answer })
        }
        _ => Err(EngineError::Answer { status: status.as_u16(), message: error_message(&answer) }.into()),
    }
}

/// Other containers are named as the cluster knows them (`node/web`, swarm ids); the engine only knows its own names.
fn localise(node: &Arc<Node>, body: &mut Value) {
    let endpoints = body.get_mut("NetworkingConfig").and_then(|config| config.get_mut("EndpointsConfig"));
    let mut endpoints = endpoints.map(Value::take);
    localise_parts(node, &mut body["HostConfig"], endpoints.as_mut());
    if let Some(endpoints) = endpoints {
        body["NetworkingConfig"]["EndpointsConfig"] = endpoints;
    }
}

fn localise_parts(node: &Arc<Node>, host: &mut Value, endpoints: Option<&mut Value>) {
    let local = |text: &str| -> Option<String> {
        let (_, container) = names::container(std::slice::from_ref(node), text).ok()?;
        let known = container.name == text.trim_start_matches('/') || container.id.starts_with(text);
        (!known).then(|| container.name.clone())
    };
    for field in ["NetworkMode", "IpcMode", "PidMode"] {
        let name = host[field].as_str().and_then(|text| text.strip_prefix("container:"));
        if let Some(name) = name.and_then(local) {
            host[field] = format!("container:{name}").into();
        }
    }
    let localise_all = |entries: Option<&mut Value>| {
        for entry in entries.and_then(Value::as_array_mut).into_iter().flatten() {
            let text = entry.as_str().unwrap_or_default();
            let (name, rest) = text.find(':').map_or((text, ""), |at| text.split_at(at));
            if let Some(name) = local(name) {
                *entry = format!("{name}{rest}").into();
            }
        }
    };
    for field in ["VolumesFrom", "Links"] {
        localise_all(host.get_mut(field));
    }
    for (_, endpoint) in endpoints.and_then(Value::as_object_mut).into_iter().flatten() {
        localise_all(endpoint.get_mut("Links"));
    }
}

/// A network that only some nodes have draws the container to them (softly: the create says best what is wrong). One that
/// spans nodes does not: it is made where it is missing.
fn prefer_network(nodes: &[Arc<Node>], request: &mut CreateRequest) {
    let mode = request.container.network_mode.as_str();
    let everywhere =
        matches!(mode, "" | "default" | "bridge" | "host" | "none" | "nat") || mode.starts_with("container:");
    let pinned = request.constraints.iter().any(|constraint| constraint.key == "node" && !constraint.soft);
    if everywhere || pinned {
        return;
    }
    let has = |node: &&Arc<Node>| {
        let mut networks = node.networks.iter();
        networks.any(|network| {
            let lone = network.scope == "local" && !network.labels.contains_key(LABEL_NETWORK_ID);
            lone && (network.name == mode || network.id == mode)
        })
    };
    let owners: Vec<&Arc<Node>> = nodes.iter().filter(has).collect();
    if owners.is_empty() || owners.len() == nodes.len() {
        return;
    }
    let names: Vec<&str> = owners.iter().map(|node| node.name.as_str()).collect();
    let text = match names.as_slice() {
        [name] => format!("node==~{name}"),
        _ => format!("node==~/^({})$/", names.join("|")),
    };
    if let Ok(expression) = text.parse() {
        request.constraints.push(expression);
    }
}

/// 64 hex digits that stay with the container over rescheduling.
pub fn swarm_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use herder_model::{Container, Network, NodeState};
    use serde_json::json;

    use super::*;

    fn node(name: &str, networks: &[&str]) -> Arc<Node> {
        let mut node =
            Node { name: name.into(), addr: format!("{name}:1"), state: NodeState::Healthy, ..Node::default() };
        let network =
            |name: &&str| Arc::new(Network { name: (*name).to_owned(), scope: "local".into(), ..Network::default() });
        node.networks = networks.iter().map(network).collect();
        node.put_container(Arc::new(Container {
            id: format!("0123456789ab{name}"),
            name: "db".into(),
            swarm_id: "feed".repeat(16),
            ..Container::default()
        }));
        Arc::new(node)
    }

    #[test]
    fn other_containers_are_named_as_their_engine_knows_them() {
        let swarm_id = "feed".repeat(16);
        let host = json!({
            "NetworkMode": "container:n1/db", "IpcMode": format!("container:{swarm_id}"), "PidMode": "container:0123456789ab",
            "VolumesFrom": ["n1/db:ro", "other"], "Links": ["n1/db:db", "db:db"],
        });
        let endpoints = json!({"EndpointsConfig": {"placer": {"Links": ["n1/db:x"]}}});
        let mut body = json!({"HostConfig": host, "NetworkingConfig": endpoints});
        localise(&node("n1", &[]), &mut body);
        assert_eq!(
            body["HostConfig"],
            json!({
                "NetworkMode": "container:db", "IpcMode": "container:db", "PidMode": "container:0123456789ab",
                "VolumesFrom": ["db:ro", "other"], "Links": ["db:db", "db:db"],
            })
        );
        assert_eq!(body["NetworkingConfig"], json!({"EndpointsConfig": {"placer": {"Links": ["db:x"]}}}));
        let mut none = json!({"Image": "x"});
        localise(&node("n1", &[]), &mut none);
        assert_eq!(none, json!({"Image": "x", "HostConfig": null}));
    }

    #[test]
    fn a_network_draws_its_containers_to_the_nodes_that_have_it() {
        let nodes =
            [node("n1", &["bridge", "placer"]), node("n2", &["bridge", "placer", "back"]), node("n3", &["bridge"])];
        let check = |mode: &str, constraint: &str, expected: &str| {
            let body = json!({ "Image": "x", "HostConfig": {"NetworkMode": mode}, "Env": [constraint] });
            let mut request = request::parse(None, body, "s").expect("a request");
            prefer_network(&nodes, &mut request);
            let texts: Vec<String> = request.constraints.iter().map(ToString::to_string).collect();
            assert_eq!(texts.join(" "), expected, "{mode}");
        };
        check("back", "A=1", "node==~n2");
        check("placer", "A=1", "node==~/^(n1|n2)$/");
        check("bridge", "A=1", "");
        check("missing", "A=1", "");
        check("back", "constraint:node==n1", "node==n1");
    }

    #[test]
    fn only_what_another_node_might_do_is_asked_of_another_node() {
        let answer = |status, message: &str| Error::from(EngineError::Answer { status, message: message.into() });
        assert!(is_refusal(&answer(503, "port 80 is taken")));
        assert!(is_refusal(&answer(500, "image operating system \"windows\" cannot be used on this platform")));
        assert!(!is_refusal(&answer(409, "Conflict")));
        assert!(misses_image(&answer(404, "No such image: x:latest")));
        assert!(!misses_image(&answer(404, "No such container: x")));
    }
}
