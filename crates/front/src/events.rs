//! `GET /events`: the events of all nodes as one stream, with what has been since a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use herder_decide::events::{self as decide, check, matches};
use herder_decide::list::Filters;
use herder_pool::{BoxError, Engine};
use http::{Method, Response, header};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};

use crate::path::encode_query;
use crate::{ApiError, Call, Front, Reply};

/// Maximum number of events that wait for the client. Beyond that the pool's own queue fills, and the client then
/// learns how many it missed.
const EVENTS_WAITING_MAX: usize = 64;

/// Maximum time until an engine sends its past.
const HISTORY_TIME_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn events(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.query.get("filters").unwrap_or("")).map_err(ApiError::bad_request)?;
    check(&filters).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let now = now_nano();
    let time = |key: &str| match call.query.get(key).filter(|text| !text.is_empty() && *text != "0") {
        None => Ok(None),
        Some(text) => decide::time(text, now).map(Some).map_err(|error| ApiError::bad_request(error.to_string())),
    };
    let (since, until) = (time("since")?, time("until")?);
    // Listened to before the past is asked for, so that nothing falls between.
    let mut live = front.pool.events();
    let mut declared = front.swarm.told.listen();
    let past = match since {
        Some(since) => history(front, since, until.unwrap_or(now).min(now)).await,
        None => Vec::new(),
    };
    let (mut out, body) = Channel::<Bytes, BoxError>::new(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        // By what they are, not by when they were: the clocks of hosts differ.
        let told: HashSet<Identity> = past.iter().map(|(time, event)| identity(*time, event)).collect();
        for (_, event) in past {
            if matches(&filters, &event) && send(&mut out, &event).await.is_err() {
                return;
            }
        }
        let end = until.map(|until| Instant::now() + Duration::from_nanos(u64::try_from(until - now).unwrap_or(0)));
        loop {
            let ended = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                event = live.recv() => event.map(|event| (event.time_nano, event.json)),
                event = declared.recv() => event,
                () = ended => return,
            };
            match event {
                // Sent already as the past.
                Ok((time, event)) if !told.is_empty() && told.contains(&identity(time, &event)) => {}
                Ok((time, _)) if until.is_some_and(|until| time > until) => return,
                Ok((_, event)) if matches(&filters, &event) => {
                    if send(&mut out, &event).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    out.abort(format!("the client was too slow: {missed} events are lost").into());
                    return;
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    let mut reply = Response::new(body.boxed_unsync());
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(reply)
}

/// Identity of an event: its time on its host, its kind, action and object.
type Identity = (i64, String, String, String);

fn identity(time: i64, event: &Value) -> Identity {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (time, text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]))
}

async fn send(out: &mut Sender<Bytes, BoxError>, event: &Value) -> Result<(), http_body_util::channel::SendError> {
    out.send_data(Bytes::from(format!("{event}\n"))).await
}

/// Returns all engines' events between two times, in order. An engine that does not answer is left out.
async fn history(front: &Front, since: i64, until: i64) -> Vec<(i64, Value)> {
    let asked = front.healthy_engines().into_iter().map(|engine| async move {
        history_of(&engine, since, until).await.unwrap_or_else(|error| {
            tracing::warn!(error, addr = engine.addr(), "cannot fetch event history from engine");
            Vec::new()
        })
    });
    let mut all: Vec<(i64, Value)> = join_all(asked).await.into_iter().flatten().collect();
    let declared = front.swarm.told.between(since, until);
    all.extend(declared.into_iter().map(|(time, event)| (time, Value::clone(&event))));
    all.sort_by_key(|(time, _)| *time);
    all
}

async fn history_of(engine: &Engine, since: i64, until: i64) -> Result<Vec<(i64, Value)>, String> {
    let stamp = |nano: i64| encode_query(&format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000));
    let path = format!("/events?since={}&until={}", stamp(since), stamp(until));
    let bytes = engine.fetch(Method::GET, &path, None, HISTORY_TIME_MAX).await.map_err(|error| error.to_string())?;
    let node = engine.node();
    let events = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>().map_while(Result::ok);
    Ok(events.map(|event| (event["timeNano"].as_i64().unwrap_or_default(), decide::decorate(event, &node))).collect())
}

fn now_nano() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_hosts_whose_clocks_differ_are_told_apart() {
        let event = |action: &str, id: &str| json!({"Type": "container", "Action": action, "Actor": {"ID": id}});
        let told: HashSet<Identity> =
            [(900, event("start", "a"))].iter().map(|(time, it)| identity(*time, it)).collect();
        assert!(told.contains(&identity(900, &event("start", "a"))));
        // Of a host whose clock is behind that of the last one that was told.
        for (time, event) in [(100, event("start", "b")), (900, event("die", "a")), (901, event("start", "a"))] {
            assert!(!told.contains(&identity(time, &event)), "{event}");
        }
    }
}
