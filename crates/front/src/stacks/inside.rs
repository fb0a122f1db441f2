//! The door itself as the target of a deployment.

use std::sync::{Arc, Weak};

use futures_util::TryStreamExt as _;
use herder_deploy::{Answer, Api, Fault, Pieces};
use herder_docker::{empty, full, gather};
use herder_pool::Body;
use http::{Method, Request, Response, header};
use http_body_util::BodyDataStream;
use serde_json::Value;

use crate::Front;

/// Bytes of an answer at most: the tasks of a thousand services are some megabytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The Docker API of this door, called without a connection.
pub(crate) struct Inside {
    front: Weak<Front>,
    /// The id of the requests in logs.
    request_id: String,
}

impl Inside {
    pub(crate) fn new(front: &Arc<Front>, request_id: &str) -> Inside {
        Inside { front: Arc::downgrade(front), request_id: request_id.to_owned() }
    }
}

impl Api for Inside {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        let unreachable = |reason: String| Fault::Unreachable(format!("this cluster: {reason}"));
        let front = self.front.upgrade().ok_or_else(|| unreachable("the node is shutting down".into()))?;
        let request = Request::builder().method(method).uri(path).header("x-request-id", &self.request_id);
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(full(body.to_string())),
            None => request.body(empty()),
        };
        let reply = front.handle(request.map_err(|error| unreachable(error.to_string()))?).await;
        let status = reply.status().as_u16();
        let bytes =
            gather(reply.into_body(), ANSWER_BYTES_MAX).await.map_err(|error| unreachable(error.to_string()))?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|error| unreachable(format!("its answer is no JSON: {error}")))?
        };
        Ok(Answer { status, body })
    }

    async fn pieces(&self, path: &str) -> Result<Pieces, Fault> {
        let unreachable = |reason: String| Fault::Unreachable(format!("this cluster: {reason}"));
        let front = self.front.upgrade().ok_or_else(|| unreachable("the node is shutting down".into()))?;
        let request = Request::builder().uri(path).header("x-request-id", &self.request_id).body(empty());
        let reply = front.handle(request.map_err(|error| unreachable(error.to_string()))?).await;
        pieces(reply, path).await
    }
}

/// The body of a good answer, piece by piece; a refusal in its own words.
pub(super) async fn pieces(reply: Response<Body>, path: &str) -> Result<Pieces, Fault> {
    let status = reply.status();
    if status.is_success() {
        return Ok(Box::pin(BodyDataStream::new(reply.into_body()).map_err(|error| error.to_string())));
    }
    let bytes = gather(reply.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let message = body["message"].as_str().unwrap_or("no reason is given").to_owned();
    let what = path.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
    Err(Fault::Refused { what, status: status.as_u16(), message })
}

/// Bytes of a refusal at most.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
