//! Middlewares at work: what is done to a request before it goes to a service, and to the answer.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use herder_decide::ingress::{ClientAddress, Condition, Cors, Criterion, Headers, Middleware};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use ipnet::IpNet;
use regex::Regex;
use tokio::time::Instant;

use herder_http::Body;

use crate::beside::Auth;
use crate::breaker::Breaker;
use crate::guard::{Counted, InFlight, Rate};
use crate::page::{page, redirect};
use crate::password;
use crate::request::{Arrival, forwarded_for};

/// A middleware with what it needs at work.
#[derive(Debug)]
pub(crate) enum Compiled {
    RedirectScheme { scheme: String, port: String, permanent: bool },
    RedirectRegex { regex: Regex, replacement: String, permanent: bool },
    StripPrefix(Vec<String>),
    StripPrefixRegex(Vec<Regex>),
    AddPrefix(String),
    ReplacePath(String),
    ReplacePathRegex(Regex, String),
    BasicAuth { users: Vec<(String, String)>, realm: String, header: Option<HeaderName>, remove: bool, known: Known },
    Headers(Box<Headers>, Vec<Regex>),
    IpAllowList { ranges: Vec<IpNet>, from: ClientAddress, status: StatusCode },
    Rate(Option<Rate>, Criterion),
    InFlight(Arc<InFlight>, Criterion),
    Compress { excluded: Vec<String>, included: Vec<String>, min_bytes: u64 },
    Retry { attempts: u32, interval: Duration },
    Auth(Box<Auth>),
    Errors { status: Vec<(u16, u16)>, service: String, query: String },
    BodyLimit(u64),
    Breaker(Breaker, StatusCode),
}

/// A request on its way through middlewares.
#[derive(Debug)]
pub(crate) struct Passing<'r> {
    pub(crate) arrival: &'r Arrival,
    pub(crate) host: &'r str,
    pub(crate) client: IpAddr,
    /// Path as the client wrote it, percent signs included.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) counted: Vec<Counted>,
    pub(crate) attempts: Option<(u32, Duration)>,
    pub(crate) user: Option<String>,
}

/// Correct passwords, as digests with the hash that they fit: bcrypt takes a tenth of a second each time.
#[derive(Debug, Default)]
pub(crate) struct Known(parking_lot::Mutex<std::collections::HashSet<[u8; 32]>>);

const KNOWN_MAX: usize = 4096;

impl Known {
    fn fits(&self, password: &str, hash: &str) -> bool {
        let digest = ring::digest::digest(&ring::digest::SHA256, format!("{hash}\0{password}").as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(digest.as_ref());
        if self.0.lock().contains(&key) {
            return true;
        }
        if !password::fits(password, hash) {
            return false;
        }
        let mut known = self.0.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key);
        true
    }
}

impl Compiled {
    /// Compiles a middleware. `None` if it cannot work: the route that names it answers 503.
    pub(crate) fn of(middleware: Middleware) -> Option<Compiled> {
        let regexes = |all: &[String]| all.iter().map(|it| Regex::new(it).ok()).collect::<Option<Vec<Regex>>>();
        Some(match middleware {
            Middleware::RedirectScheme { scheme, port, permanent } => {
                Compiled::RedirectScheme { scheme, port, permanent }
            }
            Middleware::RedirectRegex { regex, replacement, permanent } => {
                Compiled::RedirectRegex { regex: Regex::new(&regex).ok()?, replacement, permanent }
            }
            Middleware::StripPrefix { prefixes } => Compiled::StripPrefix(prefixes),
            Middleware::StripPrefixRegex { regexes: all } => Compiled::StripPrefixRegex(regexes(&all)?),
            Middleware::AddPrefix { prefix } => Compiled::AddPrefix(prefix),
            Middleware::ReplacePath { path } => Compiled::ReplacePath(path),
            Middleware::ReplacePathRegex { regex, replacement } => {
                Compiled::ReplacePathRegex(Regex::new(&regex).ok()?, replacement)
            }
            Middleware::BasicAuth { users, realm, header, remove } => Compiled::BasicAuth {
                users: users.iter().filter_map(|it| it.split_once(':')).map(|(a, b)| (a.into(), b.into())).collect(),
                realm,
                header: if header.is_empty() { None } else { Some(header.parse().ok()?) },
                remove,
                known: Known::default(),
            },
            Middleware::Headers(headers) => {
                let origins = headers.cors.as_ref().map(|it| it.origin_regexes.as_slice()).unwrap_or_default();
                Compiled::Headers(headers.clone(), regexes(origins)?)
            }
            Middleware::IpAllowList { ranges, from, status } => Compiled::IpAllowList {
                ranges,
                from,
                status: if status == 0 { StatusCode::FORBIDDEN } else { StatusCode::from_u16(status).ok()? },
            },
            Middleware::RateLimit { average, period_ms, burst, by } => {
                let rate = (average > 0).then(|| Rate::new(average, Duration::from_millis(period_ms), burst));
                Compiled::Rate(rate, by)
            }
            Middleware::InFlightReq { amount, by } => Compiled::InFlight(Arc::new(InFlight::new(amount)), by),
            Middleware::Compress { excluded, included, min_bytes } => {
                Compiled::Compress { excluded, included, min_bytes }
            }
            Middleware::Retry { attempts, interval_ms } => {
                Compiled::Retry { attempts, interval: Duration::from_millis(interval_ms) }
            }
            Middleware::ForwardAuth(auth) => Compiled::Auth(Box::new(Auth::of(*auth)?)),
            Middleware::Errors { status, service, query } => Compiled::Errors { status, service, query },
            Middleware::CircuitBreaker { expression, check_period_ms, fallback_ms, recovery_ms, status } => {
                let [check_period, fallback, recovery] =
                    [check_period_ms, fallback_ms, recovery_ms].map(Duration::from_millis);
                let condition = Condition::parse(&expression).ok()?;
                let breaker = Breaker::new(condition, check_period, fallback, recovery, Instant::now());
                Compiled::Breaker(breaker, StatusCode::from_u16(status).ok()?)
            }
            Middleware::Buffering { max_request_bytes } => Compiled::BodyLimit(max_request_bytes),
        })
    }

    /// Works on a request. An answer ends its way. Those that ask another service are in `beside`.
    pub(crate) fn before(&self, passing: &mut Passing<'_>, parts: &mut Parts) -> Result<(), Box<Response<Body>>> {
        let refuse = |status, text: &str, parts: &Parts| Err(Box::new(page(status, text, &parts.headers)));
        match self {
            Compiled::RedirectScheme { scheme, port, permanent } => {
                let is = if passing.arrival.tls { "https" } else { "http" };
                if is == scheme {
                    return Ok(());
                }
                let port = match port.as_str() {
                    "" | "80" if scheme == "http" => String::new(),
                    "" | "443" if scheme == "https" => String::new(),
                    "" => String::new(),
                    port => format!(":{port}"),
                };
                let to = format!("{scheme}://{}{port}{}", bracketed(passing.host), passing.target());
                answer(redirect(&to, *permanent, !is_get(&parts.method)))
            }
            Compiled::RedirectRegex { regex, replacement, permanent } => {
                let scheme = if passing.arrival.tls { "https" } else { "http" };
                let host = parts.headers.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or(passing.host);
                let url = format!("{scheme}://{host}{}", passing.target());
                if !regex.is_match(&url) {
                    return Ok(());
                }
                let to = regex.replace(&url, replacement.as_str());
                if to == url.as_str() { Ok(()) } else { answer(redirect(&to, *permanent, !is_get(&parts.method))) }
            }
            Compiled::StripPrefix(prefixes) => {
                if let Some(prefix) = prefixes.iter().find(|it| passing.path.starts_with(it.as_str())) {
                    passing.strip(prefix.len(), &mut parts.headers);
                }
                Ok(())
            }
            Compiled::StripPrefixRegex(regexes) => {
                let found = regexes.iter().find_map(|it| it.find(&passing.path).filter(|it| it.start() == 0));
                if let Some(end) = found.map(|it| it.end()) {
                    passing.strip(end, &mut parts.headers);
                }
                Ok(())
            }
            Compiled::AddPrefix(prefix) => {
                passing.path = format!("{prefix}{}", passing.path);
                Ok(())
            }
            Compiled::ReplacePath(path) => {
                passing.replaced(path.clone(), &mut parts.headers);
                Ok(())
            }
            Compiled::ReplacePathRegex(regex, replacement) => {
                if regex.is_match(&passing.path) {
                    let path = regex.replace(&passing.path, replacement.as_str()).into_owned();
                    passing.replaced(path, &mut parts.headers);
                }
                Ok(())
            }
            Compiled::BasicAuth { users, realm, header: name, remove, known } => {
                let given = parts.headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
                let given = given.and_then(|it| it.strip_prefix("Basic ").or_else(|| it.strip_prefix("basic ")));
                let given = given.and_then(|it| base64::engine::general_purpose::STANDARD.decode(it.trim()).ok());
                let given = given.and_then(|it| String::from_utf8(it).ok());
                let user = given.as_deref().and_then(|it| it.split_once(':')).and_then(|(user, password)| {
                    users
                        .iter()
                        .find(|(name, hash)| name == user && known.fits(password, hash))
                        .map(|_| user.to_owned())
                });
                let Some(user) = user else {
                    let mut reply = page(StatusCode::UNAUTHORIZED, "a user and a password are needed", &parts.headers);
                    let realm = realm.replace(['"', '\\'], "");
                    if let Ok(value) = HeaderValue::from_str(&format!("Basic realm=\"{realm}\"")) {
                        reply.headers_mut().insert(header::WWW_AUTHENTICATE, value);
                    }
                    return Err(Box::new(reply));
                };
                if let (Some(name), Ok(value)) = (name, HeaderValue::from_str(&user)) {
                    parts.headers.insert(name.clone(), value);
                }
                if *remove {
                    parts.headers.remove(header::AUTHORIZATION);
                }
                passing.user = Some(user);
                Ok(())
            }
            Compiled::Headers(headers, origins) => {
                if let Some(cors) = &headers.cors
                    && let Some(reply) = preflight(cors, origins, parts)
                {
                    return Err(Box::new(reply));
                }
                set(&headers.request, &mut parts.headers);
                Ok(())
            }
            Compiled::IpAllowList { ranges, from, status } => {
                let client = address(from, passing, &parts.headers);
                if client.is_some_and(|it| ranges.iter().any(|range| range.contains(&it))) {
                    return Ok(());
                }
                refuse(*status, "this address is not allowed here", parts)
            }
            Compiled::Rate(rate, by) => {
                let Some(rate) = rate else { return Ok(()) };
                let Err(wait) = rate.take(&key(by, passing, &parts.headers), Instant::now()) else { return Ok(()) };
                let mut reply = page(StatusCode::TOO_MANY_REQUESTS, "too many requests", &parts.headers);
                reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
                Err(Box::new(reply))
            }
            Compiled::InFlight(limit, by) => match limit.take(&key(by, passing, &parts.headers)) {
                Some(counted) => {
                    passing.counted.push(counted);
                    Ok(())
                }
                None => refuse(StatusCode::TOO_MANY_REQUESTS, "too many requests at once", parts),
            },
            Compiled::Breaker(breaker, status) => match breaker.passes(Instant::now()) {
                true => Ok(()),
                false => refuse(*status, "this service fails, and rests for a while", parts),
            },
            Compiled::Compress { .. } | Compiled::Auth(_) | Compiled::Errors { .. } | Compiled::BodyLimit(_) => Ok(()),
            Compiled::Retry { attempts, interval } => {
                passing.attempts = Some((*attempts, *interval));
                Ok(())
            }
        }
    }

    /// Works on an answer. `asked` are the headers of the request as they came.
    pub(crate) fn after(&self, tls: bool, asked: &HeaderMap, reply: Response<Body>) -> Response<Body> {
        match self {
            Compiled::Headers(headers, origins) => {
                let mut reply = reply;
                set(&headers.response, reply.headers_mut());
                if !headers.sts.is_empty()
                    && (tls || headers.force_sts)
                    && let Ok(value) = HeaderValue::from_str(&headers.sts)
                {
                    reply.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, value);
                }
                if let Some(cors) = &headers.cors {
                    allow_origin(cors, origins, asked, reply.headers_mut());
                }
                reply
            }
            Compiled::Compress { excluded, included, min_bytes } => {
                compress(excluded, included, *min_bytes, asked, reply)
            }
            _ => reply,
        }
    }
}

impl Passing<'_> {
    /// Path and query.
    pub(crate) fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    fn strip(&mut self, length: usize, headers: &mut HeaderMap) {
        if !self.path.is_char_boundary(length) {
            return;
        }
        let rest = self.path.split_off(length);
        if let Ok(value) = HeaderValue::from_str(&self.path) {
            headers.insert("x-forwarded-prefix", value);
        }
        self.path = if rest.starts_with('/') { rest } else { format!("/{rest}") };
    }

    fn replaced(&mut self, path: String, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.path) {
            headers.insert("x-replaced-path", value);
        }
        self.path = if path.starts_with('/') { path } else { format!("/{path}") };
    }
}

fn answer(reply: Option<Response<Body>>) -> Result<(), Box<Response<Body>>> {
    match reply {
        Some(reply) => Err(Box::new(reply)),
        None => Err(Box::new(page(StatusCode::BAD_REQUEST, "there is no such place", &HeaderMap::new()))),
    }
}

fn is_get(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// An empty value removes a header.
fn set(wanted: &std::collections::BTreeMap<String, String>, headers: &mut HeaderMap) {
    for (name, value) in wanted {
        let Ok(name) = name.parse::<HeaderName>() else { continue };
        match HeaderValue::from_str(value) {
            Ok(value) if !value.is_empty() => drop(headers.insert(name, value)),
            _ => drop(headers.remove(name)),
        }
    }
}

/// The address that a rule means. None, if the headers do not tell it.
fn address(from: &ClientAddress, passing: &Passing<'_>, headers: &HeaderMap) -> Option<IpAddr> {
    if from.depth == 0 && from.excluded.is_empty() {
        return Some(passing.arrival.peer.ip());
    }
    let told = forwarded_for(headers);
    if from.depth > 0 {
        return told.len().checked_sub(from.depth).and_then(|at| told.get(at).copied());
    }
    told.into_iter().rev().find(|it| !from.excluded.iter().any(|range| range.contains(it)))
}

fn key(by: &Criterion, passing: &Passing<'_>, headers: &HeaderMap) -> String {
    let of = |address: IpAddr| match address {
        IpAddr::V4(it) => it.to_string(),
        // A client of IPv6 has all addresses of a /64.
        IpAddr::V6(it) => Ipv6Addr::from(u128::from(it) & !u128::from(u64::MAX)).to_string(),
    };
    match by {
        Criterion::Client => of(passing.client),
        Criterion::Forwarded(from) => address(from, passing, headers).map_or_else(String::new, of),
        Criterion::Header(name) => {
            headers.get(name.as_str()).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned()
        }
        Criterion::Host => passing.host.to_owned(),
    }
}

/// The origin that may see the answer.
fn allowed(cors: &Cors, origins: &[Regex], asked: &HeaderMap) -> Option<String> {
    let origin = asked.get(header::ORIGIN)?.to_str().ok()?;
    if cors.origins.iter().any(|it| it == "*") {
        return Some("*".to_owned());
    }
    let fits = cors.origins.iter().any(|it| it == origin) || origins.iter().any(|it| it.is_match(origin));
    fits.then(|| origin.to_owned())
}

fn allow_origin(cors: &Cors, origins: &[Regex], asked: &HeaderMap, headers: &mut HeaderMap) {
    let mut say = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value)
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    };
    if let Some(origin) = allowed(cors, origins, asked) {
        say(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    if cors.credentials {
        say(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true".to_owned());
    }
    say(header::ACCESS_CONTROL_EXPOSE_HEADERS, cors.expose.join(","));
    if cors.vary {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// The answer to a browser that asks whether it may.
fn preflight(cors: &Cors, origins: &[Regex], parts: &Parts) -> Option<Response<Body>> {
    if parts.method != Method::OPTIONS || !parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut reply = Response::new(crate::page::full(""));
    allow_origin(cors, origins, &parts.headers, reply.headers_mut());
    let mut say = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value)
            && !value.is_empty()
        {
            reply.headers_mut().insert(name, value);
        }
    };
    say(header::ACCESS_CONTROL_ALLOW_METHODS, cors.methods.join(","));
    say(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.join(","));
    if cors.max_age > 0 {
        say(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.to_string());
    }
    Some(reply)
}

/// Compresses an answer, if it is worth it and the client takes it.
fn compress(
    excluded: &[String],
    included: &[String],
    min_bytes: u64,
    asked: &HeaderMap,
    reply: Response<Body>,
) -> Response<Body> {
    let accepts = asked.get(header::ACCEPT_ENCODING).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let takes = accepts
        .split(',')
        .map(str::trim)
        .any(|it| it.split(';').next() == Some("gzip") && !it.replace(' ', "").ends_with(";q=0"));
    let kind = reply.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is = |all: &[String]| all.iter().any(|it| it.eq_ignore_ascii_case(&kind));
    let wanted = if included.is_empty() { !is(excluded) } else { is(included) };
    // What is packed already gets no smaller; streams of gRPC have a compression of their own.
    let packed = ["image/", "video/", "audio/", "application/zip", "application/gzip", "application/grpc"];
    let status = reply.status();
    let has_body = !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    let size = reply.body().size_hint();
    if !takes
        || !wanted
        || !has_body
        || status == StatusCode::PARTIAL_CONTENT
        || packed.iter().any(|it| kind.starts_with(it))
        || reply.headers().contains_key(header::CONTENT_ENCODING)
        || size.upper().is_some_and(|it| it < min_bytes)
    {
        return reply;
    }
    let (mut parts, mut body) = reply.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(header::ACCEPT_RANGES);
    let pieces = async_stream(move |to| async move {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => {
                    let packed = std::io::Write::write_all(&mut encoder, &data);
                    let packed = packed.and_then(|()| std::io::Write::flush(&mut encoder));
                    let piece = std::mem::take(encoder.get_mut());
                    if packed.is_err() || !piece.is_empty() && to.send(Ok(Frame::data(piece.into()))).await.is_err() {
                        return;
                    }
                }
                Ok(Err(trailers)) => drop(to.send(Ok(trailers)).await),
                Err(error) => return drop(to.send(Err(error)).await),
            }
        }
        if let Ok(rest) = encoder.finish() {
            let _ = to.send(Ok(Frame::data(rest.into()))).await;
        }
    });
    Response::from_parts(parts, pieces)
}

type Piece = Result<Frame<bytes::Bytes>, herder_http::BoxError>;

/// A body that a task writes. It ends with the task.
fn async_stream<F: Future<Output = ()> + Send + 'static>(
    write: impl FnOnce(tokio::sync::mpsc::Sender<Piece>) -> F,
) -> Body {
    /// Pieces that wait for a client.
    const PIECES_MAX: usize = 4;
    let (to, from) = tokio::sync::mpsc::channel(PIECES_MAX);
    tokio::spawn(write(to));
    let pieces = futures_util::stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) });
    StreamBody::new(pieces).boxed_unsync()
}
