//! The life of one engine in the pool: connect, follow, look whether it lives, read again after every doubt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use herder_model::{NodeState, Resources};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::board::now_nano;
use crate::engine::{Engine, EngineError, older_version};
use crate::events::{Decoder, Doubt, doubts};
use crate::ingest;

/// How long an engine may take to say who it is, and to open its event stream.
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// Rest before an engine that was never validated is tried again; doubles up to the next.
const PENDING_REST_MIN: Duration = Duration::from_secs(1);
const PENDING_REST_MAX: Duration = Duration::from_secs(30);
/// Rest after a failed ping: a real failure shows soon, a hiccup is over.
const SUSPECT_REST: Duration = Duration::from_millis(200);
/// Events of one engine that wait to be worked on. When more come, everything is read anew instead.
const EVENTS_WAITING_MAX: usize = 4096;
/// Containers of one batch of events that are read at the same time.
const REREADS_MAX: usize = 8;
/// Clocks that differ by less are taken as equal. As in classic Swarm.
const CLOCK_SKEW_MAX_S: i64 = 2;

/// Keeps the picture of one engine true until `stop` is cancelled.
pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut rest = PENDING_REST_MIN;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            // Both end only with the reason why the session is over.
            error = session(&engine) => error,
            error = liveness(&engine) => error,
        };
        if engine.note_failure(&ended) {
            report_loss(&engine, &ended);
        }
        let pause = match engine.node().state {
            NodeState::Healthy => SUSPECT_REST,
            NodeState::Unhealthy => engine.settings.ping_period,
            NodeState::Pending => rest,
        };
        rest =
            if engine.node().state == NodeState::Pending { (rest * 2).min(PENDING_REST_MAX) } else { PENDING_REST_MIN };
        debug!(addr = engine.addr(), error = %ended, ?pause, "session ended");
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(pause) => {}
        }
    }
    let node = engine.node();
    engine.board.release(engine.addr());
    if node.state != NodeState::Pending {
        engine.update(|node| {
            node.state = NodeState::Unhealthy;
            node.error = Some("the node has left discovery".into());
        });
        engine.board.announce("engine_disconnect", &node);
    }
}

fn report_loss(engine: &Engine, error: &EngineError) {
    let node = engine.node();
    warn!(node = node.name, addr = engine.addr(), %error, "node is unhealthy");
    engine.board.announce("engine_disconnect", &node);
}

/// Pings until the engine fails too often. Returns the last failure, not yet counted.
async fn liveness(engine: &Engine) -> EngineError {
    let settings = &engine.settings;
    loop {
        let suspect = engine.node().failures > 0;
        let rest = if suspect { SUSPECT_REST } else { settings.ping_period };
        tokio::select! {
            () = sleep(rest) => {}
            () = engine.suspicion.notified(), if !suspect => {}
        }
        if engine.node().state == NodeState::Pending {
            continue;
        }
        match engine.fetch(Method::GET, "/_ping", None, settings.ping_timeout).await {
            Ok(_) | Err(EngineError::Answer { .. }) => engine.note_success(),
            Err(error) if engine.node().failures + 1 >= settings.failure_retry => return error,
            Err(error) => {
                engine.note_failure(&error);
            }
        }
    }
}

/// Connects, reads everything, and follows the events. Returns why it could not go on.
async fn session(engine: &Engine) -> EngineError {
    match follow(engine).await {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn follow(engine: &Engine) -> Result<std::convert::Infallible, EngineError> {
    hello(engine).await?;
    // Opened before the full read, so that no change falls between the two.
    let (mut events, _reader) = open_events(engine).await?;
    engine.refresh_all().await?;
    welcome(engine);
    let mut next_full = Instant::now() + rest_until_refresh(engine);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            count = events.recv_many(&mut batch, EVENTS_WAITING_MAX) => {
                if count == 0 {
                    engine.suspicion.notify_one();
                    return Err(broken(engine, "the event stream ended"));
                }
                work_on(engine, std::mem::take(&mut batch)).await?;
            }
            () = sleep_until(next_full) => {
                engine.refresh_all().await?;
                next_full = Instant::now() + rest_until_refresh(engine);
            }
        }
    }
}

fn rest_until_refresh(engine: &Engine) -> Duration {
    let (min, max) = (engine.settings.refresh_min, engine.settings.refresh_max);
    min + max.saturating_sub(min).mul_f64(rand::random::<f64>())
}

/// Asks the engine who it is; keeps what it says.
async fn hello(engine: &Engine) -> Result<(), EngineError> {
    let read = async |path: &str| -> Result<Value, EngineError> {
        let bytes = engine.fetch(Method::GET, path, None, HELLO_TIME_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| refused(engine, path, error.to_string()))
    };
    let (info, version) = (read("/info").await?, read("/version").await?);
    let facts = ingest::facts(engine.addr(), &info, &version).map_err(|reason| refused(engine, "/info", reason))?;
    let old_id = engine.node().id.clone();
    let id = format!("{}|{}", facts.engine_id, engine.addr());
    if !old_id.is_empty() && old_id != id {
        engine.update(|node| {
            node.state = NodeState::Pending;
            node.health_indicator = 0;
        });
        let reason = format!(
            "Engine (ID: {old_id}, Addr: {}) shows up with another ID:{id}. Please remove it from cluster, it can be added back.",
            engine.addr()
        );
        return Err(refused(engine, "/info", reason));
    }
    engine.board.claim(&facts.engine_id, engine.addr()).map_err(|other| {
        let reason = format!(
            "ID duplicated. {} shared by this node {} and another node {other}",
            facts.engine_id,
            engine.addr()
        );
        refused(engine, "/info", reason)
    })?;
    note_skew(engine, facts.system_time);
    let overcommit = 1.0 + engine.settings.overcommit;
    #[expect(clippy::cast_possible_truncation, reason = "a share of an i64 that is far from its limits")]
    let scaled = |amount: i64| (amount as f64 * overcommit) as i64;
    engine.update(|node| {
        node.id = id;
        node.name = facts.name;
        node.labels = facts.labels;
        node.ncpu = facts.ncpu;
        node.total = Resources {
            nano_cpus: scaled(facts.ncpu.saturating_mul(1_000_000_000)),
            memory_bytes: scaled(facts.memory_bytes),
        };
        node.os_type = facts.os_type;
        node.architecture = facts.architecture;
        node.server_version = facts.server_version;
        node.api_version = older_version(&facts.api_version);
    });
    Ok(())
}

fn note_skew(engine: &Engine, system_time: Option<i64>) {
    let skew = system_time.map_or(0, |theirs| now_nano() / 1_000_000_000 - theirs);
    let shift = if skew.abs() > CLOCK_SKEW_MAX_S { skew } else { 0 };
    if engine.shift.swap(shift, Ordering::Relaxed) != shift && shift != 0 {
        warn!(addr = engine.addr(), seconds = shift, "the engine's clock differs from ours; its times are shifted");
    }
}

/// Everything was read: the node takes work (again).
fn welcome(engine: &Engine) {
    let before = engine.update(|node| {
        let before = node.state;
        node.state = NodeState::Healthy;
        node.error = None;
        node.failures = 0;
        node.health_indicator = 100;
        node.updated_at = now_nano() / 1_000_000_000;
        before
    });
    let action = match before {
        NodeState::Pending => "engine_connect",
        NodeState::Unhealthy => "engine_reconnect",
        NodeState::Healthy => return,
    };
    let node = engine.node();
    info!(node = node.name, addr = engine.addr(), containers = node.containers.len(), action, "node is healthy");
    engine.board.announce(action, &node);
}

/// Opens the event stream. Its reader runs apart, so that the engine never waits for us; it ends with the handle.
async fn open_events(engine: &Engine) -> Result<(mpsc::Receiver<Value>, tokio::task::JoinSet<()>), EngineError> {
    let open = timeout(HELLO_TIME_MAX, engine.open(Method::GET, "/events", None)).await;
    let response = open.map_err(|_| broken(engine, "the event stream did not open in time"))??;
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    let mut reader = tokio::task::JoinSet::new();
    let mut body = response.into_body();
    reader.spawn(async move {
        let mut decoder = Decoder::default();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(bytes) = frame.into_data() else { continue };
            decoder.push(&bytes);
            loop {
                let Ok(event) = decoder.next() else { return };
                let Some(event) = event else { break };
                // A full queue ends the stream: everything is read anew then.
                if sender.try_send(event).is_err() {
                    return;
                }
            }
        }
    });
    Ok((receiver, reader))
}

/// Reads again what a batch of events puts in doubt, then publishes them in their order: who hears of a change can see it.
async fn work_on(engine: &Engine, batch: Vec<Value>) -> Result<(), EngineError> {
    let doubts: BTreeSet<Doubt> = batch.iter().flat_map(doubts).collect();
    let gone: BTreeSet<&String> =
        doubts.iter().filter_map(|doubt| if let Doubt::Gone(id) = doubt { Some(id) } else { None }).collect();
    for id in &gone {
        engine.forget_container(id);
    }
    let settled = |doubt: &Doubt| matches!(doubt, Doubt::Container(id) if gone.contains(id));
    let unsettled: Vec<Doubt> = doubts.iter().filter(|doubt| !settled(doubt)).cloned().collect();
    stream::iter(unsettled)
        .map(|doubt| settle(engine, doubt))
        .buffer_unordered(REREADS_MAX)
        .try_collect::<()>()
        .await?;
    engine.update(|node| node.updated_at = now_nano() / 1_000_000_000);
    let node = engine.node();
    for event in batch {
        engine.board.publish(event, &node);
    }
    Ok(())
}

async fn settle(engine: &Engine, doubt: Doubt) -> Result<(), EngineError> {
    match doubt {
        Doubt::Container(id) => engine.refresh_container(&id).await,
        Doubt::Gone(_) => Ok(()),
        Doubt::Images => engine.refresh_images().await,
        Doubt::Networks => engine.refresh_networks().await,
        Doubt::Volumes => engine.refresh_volumes().await,
        Doubt::Engine => hello(engine).await,
    }
}

fn refused(engine: &Engine, path: &str, reason: String) -> EngineError {
    EngineError::Unreadable { addr: engine.addr().to_owned(), path: path.to_owned(), reason }
}

fn broken(engine: &Engine, reason: &str) -> EngineError {
    let url = format!("tcp://{}", engine.addr());
    herder_drivers::engine::LinkError::Broken { url, source: reason.into() }.into()
}
