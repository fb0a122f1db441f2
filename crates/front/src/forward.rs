//! Passing a call to the engine that owns its object: bytes in, bytes out, upgrades included.
//!
//! Status, error and body are the engine's own. Back-pressure is that of the two connections: nothing is collected here.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::versions;
use herder_model::NodeState;
use herder_pool::{Body, Engine};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, request};
use hyper::upgrade::OnUpgrade;

use crate::{ApiError, Call, Front, Reply, path};
use herder_http::{Counted, body, hijack};

pub(crate) use herder_http::body::{after, hold_until};

/// A node that became unhealthy may come back for this long before the streams from it are cut off. A loaded host misses
/// some pings without anything being wrong with its streams.
const LOST_GRACE: Duration = Duration::from_secs(3);

/// Headers that belong to one connection (RFC 9110, 7.6.1), and `Expect`, which is answered at the door.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
];

/// Passes `call` to `engine` at `path` (without version, decoded, such as `/containers/<id>/start`). The older of the
/// client's and the engine's version is put in front; the client's query string is kept unless `path` has a `?`.
/// Bodies stream both ways, hop-by-hop headers are dropped, the engine's status and error stay as they are. With
/// `Connection: Upgrade`, both connections become raw bytes after the engine's 101, each direction with its own end.
/// Ends with an error when the engine's node is lost meanwhile.
pub async fn to_engine(_front: &Front, call: Call, engine: &Arc<Engine>, path: String) -> Result<Reply, ApiError> {
    let Call { parts, body, version, .. } = call;
    let node = engine.node();
    let version = versions::for_engine(version.as_deref(), &node.api_version);
    let uri = path::for_engine(Some(&version), &path, parts.uri.query());
    let send = |request| async { Ok(engine.send(request).await?) };
    pass(parts, body, &uri, send, Box::pin(lost(engine.clone())), || unhealthy(&node.name)).await
}

/// Passes a call on to `uri` by `send`, streams and upgrades included. When `lost` ends, it fails with `gone`, or its
/// stream breaks off.
pub(crate) async fn pass<F: Future<Output = Result<Response<Body>, ApiError>>>(
    mut parts: request::Parts,
    body: Body,
    uri: &str,
    send: impl FnOnce(Request<Body>) -> F,
    mut lost: Pin<Box<dyn Future<Output = ()> + Send>>,
    gone: impl FnOnce() -> ApiError,
) -> Result<Reply, ApiError> {
    let client = wanted_upgrade(&mut parts);
    let counted = parts.extensions.remove::<Counted>();
    let request = engine_request(parts, body, uri, client.as_ref().map(|(upgrade, _)| upgrade))?;
    let mut response = tokio::select! {
        response = send(request) => response?,
        () = &mut lost => return Err(gone()),
    };
    strip(response.headers_mut(), &HOP_BY_HOP);
    match client {
        Some((upgrade, client)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let engine = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                hijack::join(client, engine, lost).await;
                drop(counted);
            });
            Ok(upgraded(&response, upgrade))
        }
        _ => Ok(response.map(|body| body::until(body, lost))),
    }
}

/// Returns the error of a call for a node that does not answer.
pub(crate) fn unhealthy(node: &str) -> ApiError {
    ApiError::unhealthy(node)
}

/// Ends when the engine has not been healthy for [`LOST_GRACE`].
async fn lost(engine: Arc<Engine>) {
    loop {
        engine.until_lost().await;
        tokio::time::sleep(LOST_GRACE).await;
        if engine.node().state != NodeState::Healthy {
            return;
        }
    }
}

/// The value of `Upgrade` and the handle to the raw connection, if the client asked for it.
fn wanted_upgrade(parts: &mut request::Parts) -> Option<(HeaderValue, OnUpgrade)> {
    let upgrade = parts.headers.get(header::UPGRADE)?.clone();
    let handle = parts.extensions.remove::<OnUpgrade>()?;
    Some((upgrade, handle))
}

fn engine_request(
    parts: request::Parts,
    body: Body,
    uri: &str,
    upgrade: Option<&HeaderValue>,
) -> Result<Request<Body>, ApiError> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri.parse().map_err(|_| ApiError::bad_request(format!("invalid path {uri:?}")))?;
    *request.headers_mut() = parts.headers;
    let headers = request.headers_mut();
    strip(headers, &HOP_BY_HOP);
    // The length of the body is known to the body itself; a handler may have replaced it.
    headers.remove(header::CONTENT_LENGTH);
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade.clone());
    }
    Ok(request)
}

/// Drops `names` and whatever else `Connection` names.
fn strip(headers: &mut HeaderMap, names: &[HeaderName]) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(names) {
        headers.remove(name);
    }
}

/// The engine's 101, reason phrase included: Docker says `101 UPGRADED`.
fn upgraded(engine: &Response<Body>, wanted: HeaderValue) -> Reply {
    let mut reply = Response::new(herder_pool::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = engine.headers().clone();
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    reply.headers_mut().insert(header::UPGRADE, wanted);
    if let Some(reason) = engine.extensions().get::<hyper::ext::ReasonPhrase>() {
        reply.extensions_mut().insert(reason.clone());
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "Upgrade, X-Hop"),
            ("x-hop", "1"),
            ("upgrade", "tcp"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "5"),
            ("x-registry-auth", "e30="),
            ("content-type", "application/x-tar"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers, &HOP_BY_HOP);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left.join(" "), "content-type x-registry-auth");
    }
}
