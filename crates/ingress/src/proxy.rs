//! One request: found its route, sent to a task, answered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use herder_decide::ingress::Subject as _;
use herder_http::{Body, BoxError};
use herder_model::swarm::Upstream;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::balance::{Held, Service, Task};
use crate::body::{HeldBody, Lent};
use crate::connect::open;
use crate::guard::Counted;
use crate::leave;
use crate::log::Line;
use crate::middleware::{Compiled, Passing};
use crate::page::{full, page};
use crate::request::{Arrival, Seen, client, forward, host, remove_hop_headers};
use crate::sticky::Stuck;
use crate::table::{Route, Table};
use crate::{Shared, beside};

/// Tasks that are tried after the first one.
const RETRIES: u32 = 2;
/// Maximum bytes of a body that is read before it is sent, so that it can be sent again.
const KEPT_BODY_BYTES: u64 = 64 << 10;
/// Bytes moved at once after an upgrade, each way.
const PIECE_BYTES: usize = 64 << 10;
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
const READY_PATH: &str = "/herder/ready";

/// Connections of HTTP/2 without TLS, one for each task and port.
pub(crate) type H2c = Mutex<HashMap<(String, u16), SendRequest<Lent>>>;

/// Answers one request.
pub(crate) async fn handle(shared: Arc<Shared>, arrival: Arc<Arrival>, request: Request<Body>) -> Response<Body> {
    let began = Instant::now();
    let table = shared.table.load_full();
    let (method, version) = (request.method().clone(), request.version());
    let asked = request.headers().clone();
    let target = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let client = client(arrival.peer.ip(), &asked, &|it| table.trusts(it));
    let mut line = Line {
        client,
        method: method.to_string(),
        host: String::new(),
        target,
        version,
        tls: arrival.tls,
        entrypoint: arrival.entrypoint.clone(),
        agent: text(&asked, header::USER_AGENT),
        referer: text(&asked, header::REFERER),
        ..Line::default()
    };
    let mut reply = answer(&shared, &table, &arrival, request, client, &mut line).await;
    if version < Version::HTTP_2 && shared.leaving.is_cancelled() && reply.status() != StatusCode::SWITCHING_PROTOCOLS {
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    line.status = reply.status().as_u16();
    shared.metrics.answered(&line, began.elapsed());
    let (log, kind) = (shared.log.clone(), table.settings.access_log.clone());
    reply.map(|body| {
        let end = move |bytes| log.write(&kind, Line { bytes, time: began.elapsed(), ..line });
        HeldBody { body, bytes: 0, end: Some(Box::new(end)), _held: () }.boxed_unsync()
    })
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned()
}

async fn answer(
    shared: &Arc<Shared>,
    table: &Table,
    arrival: &Arrival,
    mut request: Request<Body>,
    client: IpAddr,
    line: &mut Line,
) -> Response<Body> {
    let asked = request.headers().clone();
    let Some(host) = host(request.uri(), &asked) else {
        return page(StatusCode::BAD_REQUEST, "the request must name exactly one host", &asked);
    };
    line.host.clone_from(&host);
    if request.method() == Method::CONNECT {
        return page(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served", &asked);
    }
    if asked.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return page(StatusCode::BAD_REQUEST, "the request must have one length", &asked);
    }
    if !is_framed(&asked) {
        // What of the body is whose is not clear: the connection ends.
        let mut reply = page(StatusCode::NOT_IMPLEMENTED, "no transfer coding is known but chunked", &asked);
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return reply;
    }
    let path = request.uri().path().to_owned();
    if let Some(token) = path.strip_prefix(CHALLENGE_PATH)
        && let Some(answer) = table.challenges.get(token)
    {
        return Response::new(full(answer.clone()));
    }
    if path == READY_PATH {
        return page(StatusCode::OK, "ready", &asked);
    }
    let Some(decoded) = decoded(&path) else {
        return page(StatusCode::BAD_REQUEST, "the path has segments that are dots, or bytes that are no text", &asked);
    };
    let seen = Seen {
        host: &host,
        path: &decoded,
        method: request.method(),
        headers: &asked,
        query: request.uri().query().unwrap_or_default(),
        client,
        sni: &arrival.sni,
    };
    // One certificate may be for a name that another route guards: the greeting must have named a host of the same route.
    let Some(route) = table.find(&arrival.entrypoint, arrival.tls, &seen).cloned() else {
        return page(StatusCode::NOT_FOUND, "no route leads here", &asked);
    };
    debug_assert!(!seen.host().is_empty());
    line.route.clone_from(&route.name);
    line.service.clone_from(&route.service.name);
    if let Some(broken) = &route.broken {
        tracing::warn!(route = route.name, broken, "ignoring a route");
        return page(StatusCode::SERVICE_UNAVAILABLE, "this route cannot be used", &asked);
    }
    let upgrade = upgrade_of(&mut request);
    let (mut parts, mut body) = request.into_parts();
    let query = parts.uri.query().map(str::to_owned);
    let mut passing =
        Passing { arrival, host: &host, client, path, query, counted: Vec::new(), attempts: None, user: None };
    let began = Instant::now();
    let mut reached = 0;
    let mut refused = None;
    for middleware in &route.middlewares {
        reached += 1;
        let passed = match &**middleware {
            Compiled::Auth(auth) => auth.ask(shared, &mut passing, &mut parts).boxed().await,
            Compiled::BodyLimit(max) => match beside::limited(*max, &parts.headers, body).await {
                Ok(limited) => {
                    body = limited;
                    continue;
                }
                Err(reply) => {
                    body = full("");
                    Err(reply)
                }
            },
            middleware => middleware.before(&mut passing, &mut parts),
        };
        if let Err(reply) = passed {
            refused = Some(*reply);
            break;
        }
    }
    line.user = passing.user.take().unwrap_or_default();
    let refused_by = refused.as_ref().map(|_| reached - 1);
    let reply = match refused {
        Some(reply) => reply,
        None => send(shared, arrival, &route, passing, parts, body, upgrade, line).await,
    };
    let mut reply = reply;
    for (at, middleware) in route.middlewares.iter().enumerate().take(reached).rev() {
        let status = reply.status().as_u16();
        reply = match &**middleware {
            Compiled::Errors { status: of, service, query } if of.iter().any(|(a, b)| (*a..=*b).contains(&status)) => {
                let url = format!("{}://{host}{}", if arrival.tls { "https" } else { "http" }, line.target);
                beside::error_page(shared, service, query, &asked, &url, reply).boxed().await
            }
            Compiled::Breaker(breaker, _) if refused_by != Some(at) => {
                breaker.answered(status, began.elapsed(), Instant::now());
                reply
            }
            middleware => middleware.after(arrival.tls, &asked, reply),
        };
    }
    reply
}

/// Returns whether the only transfer coding is `chunked`, once. Others would reach the task undecoded, and without their name.
fn is_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_none_or(|it| it.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none()
}

/// The path that rules are held against. None for what could be another path to a service than to a rule.
fn decoded(path: &str) -> Option<String> {
    let text = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    let dots = |it: &str| it == "." || it == "..";
    let bad = text.split('/').any(dots) || text.contains(['\0', '\\', '\r', '\n']);
    (!bad && text.starts_with('/')).then(|| text.into_owned())
}

/// An upgrade to another protocol, with the client's connection once it is made.
struct Upgrade {
    protocol: HeaderValue,
    on: hyper::upgrade::OnUpgrade,
}

fn upgrade_of(request: &mut Request<Body>) -> Option<Upgrade> {
    let asks = request.headers().get_all(header::CONNECTION).iter().filter_map(|it| it.to_str().ok());
    let asks = asks.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = request.headers().get(header::UPGRADE).filter(|_| asks)?.clone();
    // HTTP/2 is not begun so behind this proxy.
    (protocol != "h2c").then(|| Upgrade { protocol, on: hyper::upgrade::on(request) })
}

#[expect(clippy::too_many_arguments, reason = "a request has so many parts, and they end here")]
async fn send(
    shared: &Arc<Shared>,
    arrival: &Arrival,
    route: &Route,
    passing: Passing<'_>,
    mut parts: http::request::Parts,
    body: Body,
    mut upgrade: Option<Upgrade>,
    line: &mut Line,
) -> Response<Body> {
    let service = &route.service;
    let upstream = service.is.read().clone();
    let asked = parts.headers.clone();
    let table = shared.table.load();
    let trusted = table.trusts(arrival.peer.ip());
    let named = parts
        .headers
        .get(header::HOST)
        .cloned()
        .or_else(|| parts.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok()));
    let expects_trailers = parts.headers.get(header::TE).is_some_and(|it| it == "trailers");
    remove_hop_headers(&mut parts.headers);
    if expects_trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    forward(&mut parts.headers, arrival, passing.host, passing.client, trusted);
    if let Some(id) = request_id(&parts.headers, trusted) {
        line.id = id.to_str().unwrap_or_default().to_owned();
        parts.headers.insert("x-request-id", id);
    }
    if let Some(upgrade) = &upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, upgrade.protocol.clone());
    }
    let sticky = upstream.sticky.as_ref().map(|it| Stuck::of(it, service, &asked));
    let body = match keep(body, &asked).await {
        Ok(body) => body,
        Err(_) => return page(StatusCode::BAD_REQUEST, "the body ended too early", &asked),
    };
    service.count();
    let (attempts, interval) = passing.attempts.unwrap_or((RETRIES + 1, Duration::ZERO));
    let target = passing.target();
    let mut next = Some(body);
    let mut tried: Vec<String> = Vec::new();
    let mut error = String::new();
    while let Some(body) = next.take() {
        let wanted = sticky.as_ref().and_then(|it| it.task.as_deref());
        let Some(held) = hold(shared, service, passing.client, wanted, &tried) else { break };
        line.task.clone_from(&held.task.id);
        let again = body.clone();
        let began = Instant::now();
        let again_elsewhere = is_idempotent(&parts.method);
        let sent = tokio::select! {
            sent = attempt(shared, &upstream, &held, &parts, named.as_ref(), &target, body) => sent,
            () = given_up(service, &held, again_elsewhere) => {
                Err(Failed { text: "its node does not answer".to_owned(), sent: true })
            }
        };
        match sent {
            Ok(reply) => {
                held.task.answered(began.elapsed());
                line.retries = u32::try_from(tried.len()).unwrap_or(u32::MAX);
                let reply = back(reply, held, passing.counted, upgrade.take(), shared);
                return match &sticky {
                    Some(stuck) => stuck.renew(reply, service, &line.task),
                    None => reply,
                };
            }
            Err(Failed { text, sent }) => {
                tracing::debug!(
                    service = service.name,
                    task = held.task.id,
                    error = text,
                    sent,
                    "a task did not answer"
                );
                held.task.failed();
                tried.push(held.task.id.clone());
                error = text;
                let may = (!sent || again_elsewhere)
                    && u32::try_from(tried.len()).is_ok_and(|it| it < attempts)
                    && service.may_retry();
                next = if may { again.again() } else { None };
                if next.is_some() && !interval.is_zero() {
                    tokio::time::sleep(interval).await;
                }
            }
        }
    }
    line.retries = u32::try_from(tried.len().saturating_sub(1)).unwrap_or(u32::MAX);
    if tried.is_empty() {
        return page(StatusCode::SERVICE_UNAVAILABLE, "no task of this service takes requests now", &asked);
    }
    tracing::warn!(service = service.name, tried = tried.join(" "), error, "no task answered a request");
    page(StatusCode::BAD_GATEWAY, "the service did not answer in time", &asked)
}

/// A task that takes this request.
fn hold(shared: &Shared, service: &Service, client: IpAddr, wanted: Option<&str>, tried: &[String]) -> Option<Held> {
    // One that begins to drain at this moment is passed over once.
    (0..3).find_map(|_| {
        let task = service.choose(client, wanted, tried)?;
        shared.services.hold(&task)
    })
}

/// Waits until no answer is to be expected from a task: its node is lost. A request that may be sent again does not wait until that is sure.
async fn given_up(service: &Service, held: &Held, again_elsewhere: bool) {
    if again_elsewhere {
        held.task.suspected().await;
        if service.has_well() {
            return;
        }
    }
    held.task.lost().await;
}

/// Waits until a stream to a task is to end: the task or its node leaves, or this ingress does.
async fn ends(task: Arc<Task>, leaving: CancellationToken) {
    tokio::select! {
        () = task.clone().time_is_up() => {}
        () = task.lost() => {}
        () = leaving.cancelled() => {}
    }
}

/// Asks a service by itself, without a body. Its last task is tried, too.
pub(crate) async fn ask(
    shared: &Arc<Shared>,
    service: &str,
    parts: &http::request::Parts,
    named: &HeaderValue,
    target: &str,
) -> Result<Response<Incoming>, String> {
    let service = shared.services.get(service).ok_or("there is no such service")?;
    let upstream = service.is.read().clone();
    let (mut tried, mut error) = (Vec::new(), "no task takes requests now".to_owned());
    let nobody = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    while tried.len() <= RETRIES as usize {
        let Some(held) = hold(shared, &service, nobody, None, &tried) else { break };
        match attempt(shared, &upstream, &held, parts, Some(named), target, Lent::empty()).await {
            Ok(reply) => return Ok(reply),
            Err(failed) => {
                held.task.failed();
                tried.push(held.task.id.clone());
                error = failed.text;
            }
        }
    }
    Err(error)
}

struct Failed {
    text: String,
    /// The task may have seen the request.
    sent: bool,
}

async fn attempt(
    shared: &Arc<Shared>,
    upstream: &Upstream,
    held: &Held,
    parts: &http::request::Parts,
    named: Option<&HeaderValue>,
    target: &str,
    body: Lent,
) -> Result<Response<Incoming>, Failed> {
    let bad = |text: String| Failed { text, sent: true };
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.headers_mut() = parts.headers.clone();
    let host = named.filter(|_| upstream.pass_host).cloned();
    if upstream.scheme == "h2c" {
        let authority = host.as_ref().and_then(|it| it.to_str().ok()).unwrap_or("task").to_owned();
        *request.uri_mut() = format!("http://{authority}{target}").parse().map_err(|it| bad(format!("{it}")))?;
        request.headers_mut().remove(header::HOST);
        return h2c(shared, held, upstream.port, request).await;
    }
    let (client, authority) = shared.clients.get(shared, &held.task, upstream.port);
    let host = host.or_else(|| HeaderValue::from_str(&authority).ok());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    let scheme = if upstream.scheme == "https" { "https" } else { "http" };
    *request.uri_mut() = format!("{scheme}://{authority}{target}").parse::<Uri>().map_err(|it| bad(format!("{it}")))?;
    client.request(request).await.map_err(|error| {
        let sent = !error.is_connect();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text += &format!(": {inner}");
            source = inner.source();
        }
        Failed { text, sent }
    })
}

/// Sends a request over the connection to a task that speaks HTTP/2, opened if it is not there.
async fn h2c(
    shared: &Arc<Shared>,
    held: &Held,
    port: u16,
    request: Request<Lent>,
) -> Result<Response<Incoming>, Failed> {
    let key = (held.task.id.clone(), port);
    let known = shared.clients.h2c.lock().get(&key).cloned().filter(|it| !it.is_closed());
    let mut sender = match known {
        Some(sender) => sender,
        None => {
            let failed = |error: &dyn std::fmt::Display| Failed { text: error.to_string(), sent: false };
            let conn = open(shared, &held.task, port).await.map_err(|it| failed(&it))?;
            let opened = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(conn)).await;
            let (sender, connection) = opened.map_err(|it| failed(&it))?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to a task ended badly");
                }
            });
            let mut all = shared.clients.h2c.lock();
            all.retain(|_, it| !it.is_closed());
            all.insert(key, sender.clone());
            sender
        }
    };
    sender.ready().await.map_err(|error| Failed { text: error.to_string(), sent: false })?;
    sender.send_request(request).await.map_err(|error| Failed { text: error.to_string(), sent: true })
}

/// The answer on its way back. What counts the request ends with its body, or with the upgraded connection.
fn back(
    mut reply: Response<Incoming>,
    held: Held,
    counted: Vec<Counted>,
    upgrade: Option<Upgrade>,
    shared: &Arc<Shared>,
) -> Response<Body> {
    if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(upgrade) = upgrade else {
            return page(StatusCode::BAD_GATEWAY, "the service answered what was not asked", &HeaderMap::new());
        };
        let protocol = reply.headers().get(header::UPGRADE).cloned().unwrap_or(upgrade.protocol);
        let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        let task = hyper::upgrade::on(&mut reply);
        let (stop, leaving) = (shared.stop.clone(), shared.leaving.clone());
        let counted_here = is_websocket.then(|| shared.connections.lock().token());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let (Ok(client), Ok(task)) = futures_util::join!(upgrade.on, task) else { return };
            let (mut client, mut task) = (TokioIo::new(client), TokioIo::new(task));
            let ended = if is_websocket {
                leave::websocket(client, task, ends(held.task.clone(), leaving)).await
            } else {
                copy_bidirectional_with_sizes(&mut client, &mut task, PIECE_BYTES, PIECE_BYTES).await.map(drop)
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an upgraded connection broke");
            }
            drop((held, counted, counted_here));
        }));
        let (mut parts, _) = reply.into_parts();
        remove_hop_headers(&mut parts.headers);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol);
        return Response::from_parts(parts, full(""));
    }
    remove_hop_headers(reply.headers_mut());
    let (parts, body) = reply.into_parts();
    let body = body.map_err(Into::into).boxed_unsync();
    let body = leave::body(&parts.headers, body, ends(held.task.clone(), shared.leaving.clone()));
    Response::from_parts(parts, body)
        .map(|body| HeldBody { body, bytes: 0, end: None, _held: (held, counted) }.boxed_unsync())
}

/// Reads a small body whole, so that it can be sent again.
async fn keep(body: Body, headers: &HeaderMap) -> Result<Lent, BoxError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    if body.is_end_stream() || length.is_none_or(|it| it > KEPT_BODY_BYTES) {
        return Ok(Lent::new(body, None));
    }
    let bytes = body.collect().await?.to_bytes();
    Ok(Lent::new(full(bytes.clone()), Some(bytes)))
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// The id that a request keeps, or gets.
fn request_id(headers: &HeaderMap, trusted: bool) -> Option<HeaderValue> {
    let told = headers.get("x-request-id").filter(|it| trusted || it.len() <= 128 && it.to_str().is_ok());
    told.cloned().or_else(|| HeaderValue::from_str(&format!("{:032x}", rand::random::<u128>())).ok())
}
