//! Transfer of an image to a node that lacks it, streamed from engine to engine. Only the bytes between two sockets are
//! held here.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use herder_decide::names;
use herder_docker::path::for_engine;
use herder_pool::{Engine, EngineError};
use http::{HeaderValue, Method, Request, header};
use parking_lot::Mutex;
use serde_json::Value;

use crate::error::gather_answer;
use crate::{Error, Placer};

/// Maximum length of an engine's answer to a load: some lines of progress.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// (image id, address) → held while the image is on its way there. Who comes second waits and finds it there.
#[derive(Debug, Default)]
pub struct Transfers(Mutex<HashMap<(String, String), Weak<Turn>>>);

type Turn = tokio::sync::Mutex<()>;

impl Transfers {
    fn turn(&self, image_id: &str, addr: &str) -> Arc<Turn> {
        let mut turns = self.0.lock();
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = turns.entry((image_id.to_owned(), addr.to_owned())).or_default();
        turn.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Turn::new(()));
            *turn = Arc::downgrade(&new);
            new
        })
    }
}

impl Placer {
    /// Brings `image` to the node at `addr` from any other one. False if none has it under that name.
    pub async fn bring_image(&self, image: &str, addr: &str) -> Result<bool, Error> {
        match self.pool.engine(addr) {
            Some(target) => bring(self, image, &target).await,
            None => Ok(false),
        }
    }
}

/// Brings `image` to `target` from any healthy node that has it. False if no other node has it under that name.
pub async fn bring(placer: &Placer, image: &str, target: &Arc<Engine>) -> Result<bool, Error> {
    let nodes = placer.pool.nodes();
    let owners = names::image(&nodes, image);
    let mut last = None;
    for (node, image_there) in owners {
        let Some(source) = placer.pool.engine(&node.addr).filter(|_| node.is_healthy() && node.addr != target.addr())
        else {
            continue;
        };
        let turn = placer.transfers.turn(&image_there.id, target.addr());
        let _turn = turn.lock().await;
        if !names::image(&[target.node()], image).is_empty() {
            return Ok(true);
        }
        tracing::info!(image, from = node.name, to = target.node().name, "copying an image to a node");
        match copy(image, &source, target).await {
            Ok(()) => {
                target.refresh_images().await?;
                return Ok(!names::image(&[target.node()], image).is_empty());
            }
            Err(error) => {
                tracing::warn!(image, from = node.name, %error, "cannot copy an image to a node");
                last = Some(error);
            }
        }
    }
    last.map_or(Ok(false), Err)
}

/// Streams `GET /images/{image}/get` of one engine into `POST /images/load` of another.
pub async fn copy(image: &str, source: &Arc<Engine>, target: &Arc<Engine>) -> Result<(), Error> {
    let work = async {
        let archive = source.open(Method::GET, &for_engine(None, &format!("/images/{image}/get"), None), None).await?;
        let version = target.node().api_version.clone();
        let mut load = Request::new(archive.into_body());
        *load.method_mut() = Method::POST;
        let uri = for_engine(Some(&version), "/images/load?quiet=1", None);
        *load.uri_mut() = uri.parse().map_err(|error| Error::internal(format!("cannot load an image: {error}")))?;
        load.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        let (parts, body) = target.send(load).await?.into_parts();
        let bytes = gather_answer(body, ANSWER_BYTES_MAX).await?;
        let error = complaint(&bytes);
        if parts.status.is_success() && error.is_none() {
            return Ok(());
        }
        let message = error.unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
        let status = if parts.status.is_success() { 500 } else { parts.status.as_u16() };
        Err(EngineError::Answer { status, message }.into())
    };
    tokio::select! {
        result = work => result,
        () = source.until_lost() => Err(Error::unhealthy(&source.node().name)),
        () = target.until_lost() => Err(Error::unhealthy(&target.node().name)),
    }
}

/// A load may begin with 200 and end with `{"error": …}`; a refusal is `{"message": …}`.
fn complaint(answer: &[u8]) -> Option<String> {
    let lines = serde_json::Deserializer::from_slice(answer).into_iter::<Value>();
    lines.map_while(Result::ok).find_map(|line| {
        let text = line["error"].as_str().or_else(|| line["message"].as_str())?;
        Some(text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_at_the_end_of_a_load_is_found() {
        let check =
            |answer: &str, expected: Option<&str>| assert_eq!(complaint(answer.as_bytes()).as_deref(), expected);
        check("{\"stream\":\"Loaded image: a:1\\n\"}\r\n", None);
        check(
            "{\"stream\":\"x\"}\n{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}",
            Some("no space"),
        );
        check("{\"message\":\"invalid tar\"}", Some("invalid tar"));
        check("", None);
    }

    #[test]
    fn one_image_to_one_node_is_one_turn() {
        let transfers = Transfers::default();
        let first = transfers.turn("a", "n:1");
        assert!(Arc::ptr_eq(&first, &transfers.turn("a", "n:1")));
        assert!(!Arc::ptr_eq(&first, &transfers.turn("a", "n:2")));
        drop(first);
        transfers.turn("b", "n:1");
        assert_eq!(transfers.0.lock().len(), 1);
    }
}
