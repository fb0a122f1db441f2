//! Answers that the ingress gives itself.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};

use herder_http::Body;

/// A short page, as JSON for those who ask for it.
pub(crate) fn page(status: StatusCode, text: &str, asked: &HeaderMap) -> Response<Body> {
    let accepts = asked.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let (kind, body) = if accepts.contains("application/json") {
        ("application/json", format!("{}\n", serde_json::json!({"status": status.as_u16(), "message": text})))
    } else {
        ("text/plain; charset=utf-8", format!("{} {text}\n", status.as_u16()))
    };
    let mut reply = Response::new(full(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// A body of this text.
pub(crate) fn full(text: impl Into<bytes::Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A redirect, with a method that stays where it matters.
pub(crate) fn redirect(to: &str, permanent: bool, keeps_method: bool) -> Option<Response<Body>> {
    let mut reply = Response::new(full(""));
    *reply.status_mut() = match (permanent, keeps_method) {
        (true, false) => StatusCode::MOVED_PERMANENTLY,
        (true, true) => StatusCode::PERMANENT_REDIRECT,
        (false, false) => StatusCode::FOUND,
        (false, true) => StatusCode::TEMPORARY_REDIRECT,
    };
    reply.headers_mut().insert(header::LOCATION, HeaderValue::from_str(to).ok()?);
    Some(reply)
}
