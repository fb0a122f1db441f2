//! A sandbox endpoint: reads are answered by the real endpoint, writes are recorded and go no further.

use std::convert::Infallible;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use herder_docker::full;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::door::Door;

/// The door takes no more than this in one body of JSON.
const BODY_BYTES_MAX: usize = 8 << 20;

/// The id of what would be created.
pub(super) const PLANNED: &str = "planned";

/// A change that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) method: Method,
    /// Without the version: `services/web/update`, in parts.
    pub(super) path: Vec<String>,
    /// `1.50`, if the client said it.
    pub(super) version: Option<String>,
    pub(super) body: Value,
}

impl Wanted {
    fn is(&self, method: &Method, kind: &str, action: &str) -> bool {
        self.method == *method
            && self.path.first().is_some_and(|it| it == kind)
            && self.path.last().is_some_and(|it| it == action)
    }
}

/// A private door for one program.
pub(super) struct Sandbox {
    folder: PathBuf,
    wanted: Arc<Mutex<Vec<Wanted>>>,
    _stop: DropGuard,
}

impl Sandbox {
    pub(super) fn open(door: Arc<Door>) -> anyhow::Result<Sandbox> {
        let name = format!("herder-plan-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let folder = std::env::temp_dir().join(name);
        // Nobody else comes in, not even for a moment.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let stop = CancellationToken::new();
        let sandbox = Sandbox { folder, wanted: Arc::default(), _stop: stop.clone().drop_guard() };
        let listener = UnixListener::bind(sandbox.socket());
        let listener = listener.with_context(|| format!("cannot listen at {}", sandbox.socket().display()))?;
        tokio::spawn(stop.run_until_cancelled_owned(serve(listener, door, sandbox.wanted.clone())));
        Ok(sandbox)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("door.sock")
    }

    /// Returns the host in the form for Docker's CLI.
    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Returns the requested objects in order.
    pub(super) fn close(self) -> Vec<Wanted> {
        std::mem::take(&mut *self.wanted.lock())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn serve(listener: UnixListener, door: Arc<Door>, wanted: Arc<Mutex<Vec<Wanted>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (door, wanted) = (door.clone(), wanted.clone());
        let service = service_fn(move |request| {
            let (door, wanted) = (door.clone(), wanted.clone());
            async move { Ok::<_, Infallible>(answer(&door, &wanted, request).await) }
        });
        // Ends with its client, which is ours.
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(door: &Door, wanted: &Mutex<Vec<Wanted>>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let answered = match *request.method() {
        Method::GET | Method::HEAD => ask(door, wanted, request).await,
        _ => write_down(wanted, request).await,
    };
    answered.unwrap_or_else(|error| reply(StatusCode::BAD_GATEWAY, &json!({ "message": format!("{error:#}") })))
}

async fn ask(
    door: &Door,
    wanted: &Mutex<Vec<Wanted>>,
    request: Request<Incoming>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let kind = match &split(request.uri().path()).1[..] {
        [one] if one == "secrets" || one == "configs" => Some(one.clone()),
        _ => None,
    };
    let is_head = request.method() == Method::HEAD;
    let (mut parts, _) = request.into_parts();
    parts.headers.remove(header::CONNECTION);
    let response = door.send(Request::from_parts(parts, full(Bytes::new()))).await?;
    let Some(kind) = kind.filter(|_| response.status().is_success()) else {
        let mut reply = Response::new(Full::default());
        (*reply.status_mut(), *reply.headers_mut()) = (response.status(), response.headers().clone());
        // Its length is known here.
        reply.headers_mut().remove(header::TRANSFER_ENCODING);
        if !is_head {
            *reply.body_mut() = door.bytes(response).await?.into();
        }
        return Ok(reply);
    };
    // Services find what would be there by then.
    let mut list = door.read(response).await?;
    if let Some(list) = list.as_array_mut() {
        list.extend(wanted.lock().iter().filter(|it| it.is(&Method::POST, &kind, "create")).map(planned));
    }
    Ok(reply(StatusCode::OK, &list))
}

fn planned(wanted: &Wanted) -> Value {
    let name = &wanted.body["Name"];
    json!({
        "ID": format!("{PLANNED}-{}", name.as_str().unwrap_or_default()), "Version": {"Index": 0},
        "CreatedAt": "0001-01-01T00:00:00Z", "UpdatedAt": "0001-01-01T00:00:00Z",
        "Spec": {"Name": name, "Labels": wanted.body["Labels"]},
    })
}

async fn write_down(wanted: &Mutex<Vec<Wanted>>, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let whole = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| anyhow!("{error}"))?.to_bytes();
    let body = if whole.is_empty() { Value::Null } else { serde_json::from_slice(&whole)? };
    let (version, path) = split(parts.uri.path());
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let (status, answer) = match (parts.method.as_str(), &names[..]) {
        ("POST", ["networks" | "secrets" | "configs" | "services", "create"]) => {
            let id = format!("{PLANNED}-{}", body["Name"].as_str().unwrap_or_default());
            (StatusCode::CREATED, json!({ "ID": id, "Id": id, "Warnings": null, "Warning": "" }))
        }
        ("POST", ["secrets" | "configs" | "services", _, "update"]) => (StatusCode::OK, json!({ "Warnings": null })),
        ("DELETE", ["networks" | "secrets" | "configs" | "services", _]) => (StatusCode::OK, Value::Null),
        (method, _) => {
            let text = format!("{method} {} is no part of a plan", parts.uri.path());
            return Ok(reply(StatusCode::NOT_IMPLEMENTED, &json!({ "message": text })));
        }
    };
    wanted.lock().push(Wanted { method: parts.method, path, version, body });
    Ok(reply(status, &answer))
}

/// `/v1.50/services/create` → version and parts.
fn split(path: &str) -> (Option<String>, Vec<String>) {
    let mut parts: Vec<String> = path.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect();
    let version =
        parts.first().and_then(|it| it.strip_prefix('v')).filter(|it| it.starts_with(|c: char| c.is_ascii_digit()));
    let version = version.map(str::to_owned);
    if version.is_some() {
        parts.remove(0);
    }
    (version, parts)
}

fn reply(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::from(value.to_string()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_version_or_none() {
        let check = |path: &str, version: Option<&str>, parts: &[&str]| {
            assert_eq!(split(path), (version.map(str::to_owned), parts.iter().map(|it| (*it).to_owned()).collect()));
        };
        check("/v1.50/services/create", Some("1.50"), &["services", "create"]);
        check("/volumes", None, &["volumes"]);
        check("/", None, &[]);
    }
}
