//! `GET /containers/json`: answered from memory. No engine is asked, and the text of a small cluster is made once a second at
//! most; that of a large one is made while it is sent, and never stands in memory as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use herder_decide::list::{self, ContainerQuery, Filters, ListError, Pieces};
use herder_pool::{BoxError, Engine};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{ApiError, Call, Front, Reply, call};

/// Different questions whose answer is kept. Everybody asks the same two or three.
const ANSWERS_MAX: usize = 4;

/// Pieces of a large list that wait for the client, some 130 kB each.
const PIECES_WAITING_MAX: usize = 8;

/// A longer answer is not kept: some 4,000 containers. Making one of 30 MB anew takes less time than reading it.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Answers that are still true: nothing changed, and no second has passed (`Up 5 seconds`).
#[derive(Debug, Default)]
pub(crate) struct Lists(Mutex<CachedLists>);

#[derive(Debug, Default)]
struct CachedLists {
    version: u64,
    second: i64,
    /// Query string as it was sent, and answer.
    answers: Vec<(String, Bytes)>,
}

impl Lists {
    /// The answer to `query` for this state of the pool and this second. While one caller makes it, the others wait for it.
    fn get<E>(
        &self,
        version: u64,
        second: i64,
        query: &str,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let mut kept = self.0.lock();
        if (kept.version, kept.second) != (version, second) {
            *kept = CachedLists { version, second, answers: Vec::new() };
        }
        if let Some((_, answer)) = kept.answers.iter().find(|(text, _)| text == query) {
            return Ok(answer.clone());
        }
        let answer = make()?;
        if kept.answers.len() >= ANSWERS_MAX {
            kept.answers.remove(0);
        }
        kept.answers.push((query.to_owned(), answer.clone()));
        Ok(answer)
    }
}

pub(crate) async fn list(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let text = call.parts.uri.query().unwrap_or("").to_owned();
    let filters = Filters::parse(call.query.get("filters").unwrap_or("")).map_err(ApiError::bad_request)?;
    refresh_if_told(front, &filters).await;
    if call.query.flag("size") {
        return with_sizes(front, &query(&call, filters)?).await;
    }
    let version = front.pool.version();
    let now = jiff::Timestamp::now().as_second();
    let answer = front.lists.get(version, now, &text, || {
        let query = query(&call, filters).map_err(NotKept::Refused)?;
        let pieces = list::pieces(&front.pool.nodes(), &query, now);
        let pieces = pieces.map_err(|error| NotKept::Refused(refused(error)))?;
        let length = pieces.bytes_about();
        if length > ANSWER_BYTES_MAX {
            return Err(NotKept::Large(pieces));
        }
        let mut answer = Vec::with_capacity(length);
        pieces.for_each(|piece| answer.extend(piece));
        Ok(Bytes::from(answer))
    });
    match answer {
        Ok(answer) => Ok(call::raw_json(StatusCode::OK, answer)),
        Err(NotKept::Refused(error)) => Err(error),
        Err(NotKept::Large(pieces)) => {
            let (sender, body) = Channel::<Bytes, BoxError>::new(PIECES_WAITING_MAX);
            tokio::spawn(send(pieces, sender));
            let empty = call::raw_json(StatusCode::OK, Bytes::new());
            Ok(empty.map(|_| body.boxed_unsync()))
        }
    }
}

/// Sends the pieces in a task of its own, so that one is rendered while the one before is written.
async fn send(pieces: Pieces, mut sender: Sender<Bytes, BoxError>) {
    for piece in pieces {
        if sender.send_data(piece.into()).await.is_err() {
            // The client has gone away.
            return;
        }
    }
}

/// Reason why a list is not cached.
enum NotKept {
    Refused(ApiError),
    /// Made while it is sent.
    Large(Pieces),
}

/// The list with `SizeRw` and `SizeRootFs`, for which the engines read their disks. An engine that does not answer leaves
/// them out.
async fn with_sizes(front: &Front, query: &ContainerQuery) -> Result<Reply, ApiError> {
    let engines = front.healthy_engines();
    let asked = engines.iter().map(|engine| engine.call(Method::GET, "/containers/json?all=1&size=1", None));
    let mut sizes: HashMap<String, Value> = HashMap::new();
    for (engine, answer) in engines.iter().zip(join_all(asked).await) {
        match answer {
            Ok(Value::Array(entries)) => {
                sizes.extend(
                    entries.into_iter().map(|entry| (entry["Id"].as_str().unwrap_or_default().to_owned(), entry)),
                );
            }
            Ok(_) => {}
            Err(error) => tracing::info!(addr = engine.addr(), %error, "cannot fetch sizes from engine"),
        }
    }
    let now = jiff::Timestamp::now().as_second();
    let answer = list::containers(&front.pool.nodes(), query, now);
    let answer = answer.map_err(refused)?;
    let mut entries: Vec<Value> =
        serde_json::from_slice(&answer).map_err(|error| ApiError::internal(error.to_string()))?;
    for entry in &mut entries {
        let Some(sized) = entry["Id"].as_str().and_then(|id| sizes.get(id)) else { continue };
        for field in ["SizeRw", "SizeRootFs"] {
            if let Some(size) = sized.get(field) {
                entry[field] = size.clone();
            }
        }
    }
    Ok(call::json(StatusCode::OK, &entries))
}

/// Reads engines anew when a flag of `herder manage` asks for it.
async fn refresh_if_told(front: &Front, filters: &Filters) {
    let settings = &front.settings;
    let name = settings.container_name_refresh_filter.as_deref().filter(|name| !name.is_empty());
    let all = name.is_some_and(|name| filters.values("name").any(|value| value == name));
    let by_node = settings.refresh_on_node_filter;
    let told = |engine: &Arc<Engine>| all || by_node && filters.values("node").any(|value| value == engine.node().name);
    let engines: Vec<Arc<Engine>> = front.healthy_engines().into_iter().filter(told).collect();
    for result in join_all(engines.iter().map(|engine| engine.refresh_all())).await {
        if let Err(error) = result {
            tracing::info!(%error, "cannot read an engine again");
        }
    }
}

fn refused(error: ListError) -> ApiError {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    ApiError::new(status, error.to_string())
}

fn query(call: &Call, filters: Filters) -> Result<ContainerQuery, ApiError> {
    let limit = match call.query.get("limit").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(text.parse::<i64>().map_err(|_| ApiError::bad_request(format!("invalid limit {text:?}")))?),
    };
    let text = |key: &str| call.query.get(key).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(ContainerQuery {
        all: call.query.flag("all"),
        limit: limit.filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok()),
        before: text("before"),
        since: text("since"),
        size: call.query.flag("size"),
        filters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_made_once_per_state_and_second() {
        let lists = Lists::default();
        let mut made = String::new();
        for (version, second, query) in [(1, 1, "a"), (1, 1, "a"), (1, 1, "b"), (2, 1, "a"), (2, 2, "a"), (2, 2, "a")] {
            let answer = lists.get(version, second, query, || {
                made.push_str(&format!("{query}{version}{second} "));
                Ok::<_, ()>(Bytes::from(format!("{query}{version}{second}")))
            });
            assert_eq!(answer, Ok(Bytes::from(format!("{query}{version}{second}"))));
        }
        assert_eq!(made, "a11 b11 a21 a22 ");
    }

    #[test]
    fn old_questions_are_dropped() {
        let lists = Lists::default();
        for number in 0..100 {
            let _ = lists.get(1, 1, &number.to_string(), || Ok::<_, ()>(Bytes::new()));
        }
        assert_eq!(lists.0.lock().answers.len(), ANSWERS_MAX);
    }
}
