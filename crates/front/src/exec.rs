//! Exec: created in a container, then called by an id that does not name the container.
//!
//! The engine of an id is remembered for speed only; an id made through another door is found by asking the engines.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use herder_pool::Engine;
use http::Method;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::call::gather_answer;
use crate::containers::find;
use crate::{ApiError, Call, Front, Reply, forward};

/// Exec ids whose engine is remembered. Forgetting one costs a question to every engine.
const REMEMBERED_MAX: usize = 10_000;

/// The answer to an exec create is an id, or an error.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Maximum time for an engine to tell whether it knows an exec id.
const ASK_TIME_MAX: Duration = Duration::from_secs(5);

/// Engines of the youngest [`REMEMBERED_MAX`] exec ids.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    addrs: HashMap<String, String>,
    order: VecDeque<String>,
}

impl Execs {
    fn remember(&self, id: &str, addr: &str) {
        let Remembered { addrs, order } = &mut *self.0.lock();
        if addrs.insert(id.to_owned(), addr.to_owned()).is_none() {
            order.push_back(id.to_owned());
        }
        if order.len() > REMEMBERED_MAX
            && let Some(oldest) = order.pop_front()
        {
            addrs.remove(&oldest);
        }
    }

    fn addr(&self, id: &str) -> Option<String> {
        self.0.lock().addrs.get(id).cloned()
    }
}

/// `POST /containers/{name}/exec`
pub(crate) async fn create(front: &Arc<Front>, call: Call, name: &str) -> Result<Reply, ApiError> {
    let found = find(front, name, &format!("No such container {name}"))?;
    let reply =
        forward::to_engine(front, call, &found.engine, format!("/containers/{}/exec", found.container.id)).await?;
    let (parts, body) = reply.into_parts();
    let bytes = gather_answer(body, ANSWER_BYTES_MAX).await?;
    #[derive(Deserialize)]
    struct Created {
        #[serde(rename = "Id")]
        id: String,
    }
    if let Ok(Created { id }) = serde_json::from_slice(&bytes) {
        front.execs.remember(&id, found.engine.addr());
    }
    Ok(Reply::from_parts(parts, herder_pool::full(bytes)))
}

/// `/exec/{id}/{action}`: `start` (hijacked), `resize`, `json`.
pub(crate) async fn act(front: &Arc<Front>, call: Call, id: &str, action: &str) -> Result<Reply, ApiError> {
    let engine = owner(front, id).await?;
    forward::to_engine(front, call, &engine, format!("/exec/{id}/{action}")).await
}

async fn owner(front: &Front, id: &str) -> Result<Arc<Engine>, ApiError> {
    let missing = || ApiError::not_found(format!("Exec {id} not found"));
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(missing());
    }
    if let Some(engine) = front.execs.addr(id).and_then(|addr| front.pool.engine(&addr)) {
        let node = engine.node();
        return if node.is_healthy() { Ok(engine) } else { Err(forward::unhealthy(&node.name)) };
    }
    let mut answers: FuturesUnordered<_> =
        front.healthy_engines().into_iter().map(|engine| knows(engine, id)).collect();
    while let Some(answer) = answers.next().await {
        if let Some(engine) = answer {
            front.execs.remember(id, engine.addr());
            return Ok(engine);
        }
    }
    Err(missing())
}

async fn knows(engine: Arc<Engine>, id: &str) -> Option<Arc<Engine>> {
    let answer = engine.fetch(Method::GET, &format!("/exec/{id}/json"), None, ASK_TIME_MAX).await;
    answer.is_ok().then_some(engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_exec_is_forgotten_first() {
        let execs = Execs::default();
        for number in 0..=REMEMBERED_MAX {
            execs.remember(&number.to_string(), "a:1");
        }
        assert_eq!(execs.addr("0"), None);
        assert_eq!(execs.addr("1").as_deref(), Some("a:1"));
        assert_eq!(execs.0.lock().order.len(), REMEMBERED_MAX);
    }
}
