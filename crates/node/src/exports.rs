//! The engine as workers of a swarm reach it from other nodes: it gives images, and does nothing else.

use std::pin::pin;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::peers::denied;
use crate::roads::local;

type Body = BoxBody<Bytes, hyper::Error>;

/// Answers requests of a worker until it closes the connection, or has outgrown it.
pub(super) async fn serve(
    engine: String,
    peer: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    outgrown: impl Future<Output = ()>,
) {
    let service = service_fn(move |request| {
        let engine = engine.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&engine, request).await) }
    });
    let mut connection = pin!(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(peer), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = outgrown => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a worker's connection to the engine ended");
    }
}

async fn answer(engine: &str, request: Request<Incoming>) -> Response<Body> {
    if !is_export(request.method(), request.uri().path()) {
        return refusal(StatusCode::FORBIDDEN, &denied("reach engines of other nodes"));
    }
    match forward(engine, request).await {
        Ok(response) => response.map(|body| body.boxed()),
        Err(error) => refusal(StatusCode::BAD_GATEWAY, &format!("the engine does not answer: {error}")),
    }
}

/// True if this is `GET /images/NAME/get` or `GET /images/get`, with or without a version.
fn is_export(method: &Method, path: &str) -> bool {
    let mut parts = path.split('/').skip(1).peekable();
    let is_version = |part: &str| part.strip_prefix('v').is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit()));
    parts.next_if(|part| is_version(part));
    let parts: Vec<&str> = parts.collect();
    // What an engine makes of `..`, encoded or not, is not for this list.
    let is_plain = !path.contains("..") && !path.to_ascii_lowercase().contains("%2e") && !path.contains("//");
    method == Method::GET
        && is_plain
        && parts.first() == Some(&"images")
        && parts.len() > 1
        && parts.last() == Some(&"get")
}

async fn forward(
    engine: &str,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(local(engine).await?)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn refusal(status: StatusCode, text: &str) -> Response<Body> {
    let body = serde_json::json!({ "message": text }).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_get_images_and_nothing_else() {
        let check = |line: &str, expected: bool| {
            let (method, path) = line.split_once(' ').expect("a method and a path");
            assert_eq!(is_export(&method.parse().expect("a method"), path), expected, "{line}");
        };
        check("GET /images/web/get", true);
        check("GET /v1.50/images/registry:5000/team/web:1/get", true);
        check("GET /v1.41/images/get", true);
        check("POST /images/web/get", false);
        check("GET /images/web/json", false);
        check("GET /images", false);
        check("GET /containers/json", false);
        check("POST /v1.50/containers/create", false);
        check("GET /images/../containers/x/archive/get", false);
        check("GET /images/%2e%2E/containers/get", false);
        check("GET /v1.50//images/web/get", false);
        check("GET /containers/x/get", false);
        check("GET /exec/images/get", false);
    }
}
