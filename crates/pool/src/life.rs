//! The life of one engine in the pool: connect, follow, look whether it lives, read again after every doubt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use herder_model::{NodeState, Resources};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::board::now_nano;
use herder_docker::{Decoder, EngineError, spoken_version};

use crate::engine::{Depth, Engine};
use crate::events::{Doubt, attached, doubts};
use crate::{ingest, mirror};

/// Maximum time of an engine to identify itself, and to open its event stream.
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// Rest before an engine that was never validated is tried again; doubles up to the next.
const PENDING_REST_MIN: Duration = Duration::from_secs(1);
const PENDING_REST_MAX: Duration = Duration::from_secs(30);
/// Rest after a ping without answer, and before a broken session is begun anew: a hiccup is over by then.
const SUSPECT_REST: Duration = Duration::from_millis(200);
/// Length of a session after its full read that counts as stable. After a shorter one the next pause is longer.
const STABLE_TIME: Duration = Duration::from_secs(10);
const UNSTABLE_REST_MAX: Duration = Duration::from_secs(30);
/// Events of one engine that wait to be worked on. When more come, everything is read anew instead.
const EVENTS_WAITING_MAX: usize = 4096;
/// Maximum wait for the start of a stopped container that is connected to a network. It is mostly being started, and is
/// read once then instead of twice. A loaded engine needs some 100 ms between the two.
const START_TIME_MAX: Duration = Duration::from_millis(300);
/// Containers of one batch of events that are read at the same time.
const REREADS_MAX: usize = 8;
/// Maximum age of facts that only an inspection shows and no event reports.
const INSPECTED_AGE_MAX: Duration = Duration::from_secs(300);
/// Maximum time of another node to read its engine again. A list of 10,000 containers takes an engine about 2 s.
pub(crate) const REREAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Clocks that differ by less are taken as equal. As in classic Swarm.
const CLOCK_SKEW_MAX_S: i64 = 2;

/// Reason why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The engine failed; this counts.
    Failed(EngineError),
    /// The engine may be well, but what we know of it is in doubt.
    Doubt,
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> End {
        End::Failed(error)
    }
}

/// State that lasts from one session to the next.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Rest before the next session.
    pause: Duration,
    pending_rest: Duration,
    /// Sessions in a row that ended soon after their full read.
    unstable: u32,
    /// Time at which the session had read everything.
    pub(crate) welcomed: Option<Instant>,
    /// `timeNano` of the last event that was published: the next stream goes on from there.
    pub(crate) last_event_nano: i64,
}

/// Keeps the picture of one engine true until `stop` is cancelled.
pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut memory = Memory {
        pause: Duration::ZERO,
        pending_rest: PENDING_REST_MIN,
        unstable: 0,
        welcomed: None,
        last_event_nano: 0,
    };
    loop {
        let end = tokio::select! {
            () = stop.cancelled() => break,
            end = session(&engine, &mut memory) => end,
            // Who is told about an engine is told whether it lives.
            error = liveness(&engine), if engine.source.is_none() => End::Failed(error),
            () = engine.presumed.notified() => {
                presume_lost(&engine);
                continue;
            }
        };
        debug!(addr = engine.addr(), ?end, "session ended");
        if let End::Failed(error) = &end
            && engine.note_failure(error)
        {
            report_loss(&engine, error);
        }
        memory.pause = pause(&engine, &mut memory, &end);
    }
    leave(&engine);
}

/// The session ends at once: on a dead host, nothing else would end it soon.
fn presume_lost(engine: &Engine) {
    let lost = refused(engine, "the other nodes do not hear from its host".into());
    while engine.node().state == NodeState::Healthy {
        if engine.note_failure(&lost) {
            report_loss(engine, &lost);
        }
    }
}

/// Returns the pause before the next session. Meanwhile the engine is pinged.
fn pause(engine: &Engine, memory: &mut Memory, end: &End) -> Duration {
    if let Some(welcomed) = memory.welcomed.take() {
        memory.pending_rest = PENDING_REST_MIN;
        memory.unstable = if welcomed.elapsed() < STABLE_TIME { memory.unstable.saturating_add(1) } else { 0 };
    }
    let unstable = SUSPECT_REST.saturating_mul(1 << memory.unstable.min(10)).min(UNSTABLE_REST_MAX);
    match (engine.node().state, end) {
        (NodeState::Pending, _) => {
            let rest = memory.pending_rest;
            memory.pending_rest = (rest * 2).min(PENDING_REST_MAX);
            // A pool of engines that were all down does not come back in step.
            rest.mul_f64(0.5 + 0.5 * rand::random::<f64>())
        }
        (NodeState::Healthy, End::Doubt) => unstable,
        (NodeState::Healthy | NodeState::Unhealthy, _) => unstable.max(engine.settings.ping_period),
    }
}

/// The engine is no member any more.
fn leave(engine: &Engine) {
    engine.board.release(engine.addr());
    let node = engine.node();
    if node.state != NodeState::Pending {
        engine.update(|node| {
            node.state = NodeState::Unhealthy;
            node.error = Some("the node has left discovery".into());
        });
        engine.board.announce("engine_disconnect", &node);
    }
}

pub(crate) fn report_loss(engine: &Engine, error: &EngineError) {
    let node = engine.node();
    warn!(node = node.name, addr = engine.addr(), %error, "node is unhealthy");
    engine.board.announce("engine_disconnect", &node);
}

/// Pings until the engine fails too often. Returns the last failure, not yet counted.
async fn liveness(engine: &Engine) -> EngineError {
    let settings = &engine.settings;
    // Not all engines at the same moment.
    let mut rest =
        if is_suspect(engine) { settings.ping_period } else { settings.ping_period.mul_f64(rand::random::<f64>()) };
    loop {
        tokio::select! {
            () = sleep(rest) => {}
            () = engine.suspicion.notified(), if !is_suspect(engine) => {}
        }
        rest = settings.ping_period;
        if engine.node().state == NodeState::Pending {
            continue;
        }
        let began = Instant::now();
        if let Err(error) = Box::pin(engine.ping()).await {
            if engine.node().failures + 1 >= settings.failure_retry {
                return error;
            }
            engine.note_failure(&error);
            // A refused connection is no faster proof than silence: an engine that restarts refuses, too.
            rest = settings.ping_period.saturating_sub(began.elapsed()).max(SUSPECT_REST);
        }
    }
}

fn is_suspect(engine: &Engine) -> bool {
    engine.node().failures > 0
}

/// Connects, reads everything, and follows the engine until that fails.
async fn session(engine: &Engine, memory: &mut Memory) -> End {
    sleep(memory.pause).await;
    if let Some(source) = &engine.source {
        return mirror::session(engine, &**source, memory).await;
    }
    let events = async {
        hello(engine).await?;
        // Opened before the full read, so that no change falls between the two.
        let events = open_events(engine, memory.last_event_nano).await?;
        engine.refresh_all().await?;
        Ok::<_, EngineError>(events)
    };
    // In a box of its own, here and below: what is needed for a moment must not make the task of every engine as large as
    // that for ever.
    let (events, _reader) = match Box::pin(events).await {
        Ok(opened) => opened,
        Err(error) => return End::Failed(error),
    };
    welcome(engine);
    memory.welcomed = Some(Instant::now());
    tokio::select! {
        end = follow(engine, events, &mut memory.last_event_nano) => end,
        error = refresh(engine) => End::Failed(error),
    }
}

/// Works on events as they come.
async fn follow(engine: &Engine, mut events: mpsc::Receiver<Marked>, last_event_nano: &mut i64) -> End {
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, EVENTS_WAITING_MAX).await > 0 {
        await_starts(engine, &mut events, &mut batch).await;
        let worked = Box::pin(work_on(engine, &batch)).await;
        engine.touch(now_nano() / 1_000_000_000);
        let node = engine.node();
        // Also after a failure: what happened is no less true.
        for Marked { event, .. } in batch.drain(..) {
            let time_nano = event["timeNano"].as_i64().unwrap_or_default();
            if time_nano == 0 || time_nano > *last_event_nano {
                *last_event_nano = time_nano.max(*last_event_nano);
                engine.board.publish(event, &node);
            }
        }
        if let Err(error) = worked {
            return End::Failed(error);
        }
    }
    engine.suspicion.notify_one();
    End::Doubt
}

/// Waits for more events if all so far belong to starts or ends, which more events follow soon.
async fn await_starts(engine: &Engine, events: &mut mpsc::Receiver<Marked>, batch: &mut Vec<Marked>) {
    let node = engine.node();
    let runs = |id: &str| node.containers.get(id).is_some_and(|it| it.is_running());
    let more = async {
        while batch.iter().all(|it| attached(&it.event).is_some_and(|id| !runs(id))) {
            if events.recv_many(batch, EVENTS_WAITING_MAX).await == 0 {
                return;
            }
        }
    };
    // What came until then is worked on.
    let _ = timeout(START_TIME_MAX, more).await;
}

/// Reads the engine anew from time to time, whether there is doubt or not.
async fn refresh(engine: &Engine) -> EngineError {
    let (min, max) = (engine.settings.refresh_min, engine.settings.refresh_max);
    let mut inspected = Instant::now();
    loop {
        engine.touch(now_nano() / 1_000_000_000);
        sleep(min + max.saturating_sub(min).mul_f64(rand::random::<f64>())).await;
        let depth = if inspected.elapsed() < INSPECTED_AGE_MAX { Depth::Changes } else { Depth::Everything };
        let read = async {
            hello(engine).await?;
            engine.refresh(depth).await
        };
        if let Err(error) = Box::pin(read).await {
            return error;
        }
        if depth == Depth::Everything {
            inspected = Instant::now();
        }
    }
}

/// Asks the engine who it is; keeps what it says.
async fn hello(engine: &Engine) -> Result<(), EngineError> {
    let began = now_nano();
    let info = engine.ask("/info", HELLO_TIME_MAX).await?;
    let took_nano = now_nano() - began;
    let version = engine.ask("/version", HELLO_TIME_MAX).await?;
    let mut facts = ingest::facts(engine.addr(), &info, &version).map_err(|reason| refused(engine, reason))?;
    claim(engine, &facts.engine_id)?;
    if let Some(theirs) = facts.system_time.take() {
        note_skew(engine, (began + took_nano / 2) / 1_000_000_000 - theirs, took_nano / 1_000_000_000);
    }
    if engine.facts.lock().replace(facts.clone()).as_ref() == Some(&facts) {
        return Ok(());
    }
    if facts.has_node_label {
        warn!(
            addr = engine.addr(),
            "the engine's label `node` is left out: constraints use that word for the node's name"
        );
    }
    let overcommit = 1.0 + engine.settings.overcommit;
    #[expect(clippy::cast_possible_truncation, reason = "a share of an i64 that is far from its limits")]
    let scaled = |amount: i64| (amount as f64 * overcommit) as i64;
    engine.update(|node| {
        node.id = format!("{}|{}", facts.engine_id, engine.addr());
        node.name = facts.name;
        node.labels = facts.labels;
        engine.add_description(node);
        node.ncpu = facts.ncpu;
        node.total = Resources {
            nano_cpus: scaled(facts.ncpu.saturating_mul(1_000_000_000)),
            memory_bytes: scaled(facts.memory_bytes),
        };
        node.os_type = facts.os_type;
        node.architecture = facts.architecture;
        node.server_version = facts.server_version;
        node.api_version = spoken_version(&facts.api_version);
    });
    Ok(())
}

/// The address keeps the id it showed first, and no two addresses have the same. As in classic Swarm.
pub(crate) fn claim(engine: &Engine, engine_id: &str) -> Result<(), EngineError> {
    let (node, addr) = (engine.node(), engine.addr());
    let id = format!("{engine_id}|{addr}");
    if !node.id.is_empty() && node.id != id {
        engine.update(|node| {
            node.state = NodeState::Pending;
            node.health_indicator = 0;
        });
        if node.is_healthy() {
            engine.board.announce("engine_disconnect", &node);
        }
        return Err(refused(
            engine,
            format!(
                "Engine (ID: {}, Addr: {addr}) shows up with another ID:{id}. Please remove it from cluster, it can be added back.",
                node.id
            ),
        ));
    }
    engine.board.claim(engine_id, addr).map_err(|other| {
        refused(engine, format!("ID duplicated. {engine_id} shared by this node {addr} and another node {other}"))
    })
}

/// `skew` is how far the engine's clock is behind ours, known to about `blur` (both in seconds).
pub(crate) fn note_skew(engine: &Engine, skew: i64, blur: i64) {
    let old = engine.shift.load(Ordering::Relaxed);
    let shift = if skew.abs() > CLOCK_SKEW_MAX_S + blur { skew } else { 0 };
    // The same skew does not look the same each time; a second is within what can be seen.
    if (shift - old).abs() <= 1 + blur && (shift == 0) == (old == 0) {
        return;
    }
    engine.shift.store(shift, Ordering::Relaxed);
    if shift != 0 {
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
    report_welcome(engine, action);
}

pub(crate) fn report_welcome(engine: &Engine, action: &str) {
    let node = engine.node();
    info!(node = node.name, addr = engine.addr(), containers = node.containers.len(), action, "node is healthy");
    engine.board.announce(action, &node);
}

/// Opens the event stream. Its reader runs apart, so that the engine never waits for us; it ends with the handle.
/// Goes on after the event at `since_nano` (by the engine's clock), as far as the engine remembers.
async fn open_events(
    engine: &Engine,
    since_nano: i64,
) -> Result<(mpsc::Receiver<Marked>, tokio::task::JoinSet<()>), EngineError> {
    let path = match since_nano {
        0 => "/events".to_owned(),
        since => format!("/events?since={}.{:09}", since / 1_000_000_000, since % 1_000_000_000),
    };
    let open = timeout(HELLO_TIME_MAX, engine.open(Method::GET, &path, None)).await;
    let response = open.map_err(|_| refused(engine, "the event stream did not open in time".into()))??;
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    let mut reader = tokio::task::JoinSet::new();
    let mut body = response.into_body();
    let reads = engine.reads.clone();
    reader.spawn(async move {
        let mut decoder = Decoder::default();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(bytes) = frame.into_data() else { continue };
            decoder.push(&bytes);
            loop {
                let Ok(event) = decoder.next() else { return };
                let Some(event) = event else { break };
                // A full queue ends the stream: everything is read anew then.
                if sender.try_send(Marked { mark: reads.fetch_add(1, Ordering::Relaxed), event }).is_err() {
                    return;
                }
            }
        }
    });
    Ok((receiver, reader))
}

/// An event, and the number of a read when it came: reads with larger numbers have seen what it tells.
#[derive(Debug)]
struct Marked {
    mark: u64,
    event: Value,
}

/// Reads again what a batch of events puts in doubt. They are published after that: who hears of a change can see it.
async fn work_on(engine: &Engine, batch: &[Marked]) -> Result<(), EngineError> {
    let mut in_doubt: BTreeMap<Doubt, u64> = BTreeMap::new();
    for Marked { mark, event } in batch {
        in_doubt.extend(doubts(event).into_iter().map(|doubt| (doubt, *mark)));
    }
    let gone: Vec<String> =
        in_doubt.keys().filter_map(|doubt| if let Doubt::Gone(id) = doubt { Some(id.clone()) } else { None }).collect();
    for id in gone {
        engine.forget_container(&id);
        in_doubt.remove(&Doubt::Container(id));
    }
    let settled = stream::iter(in_doubt).map(|(doubt, mark)| settle(engine, doubt, mark));
    settled.buffer_unordered(REREADS_MAX).try_collect::<()>().await
}

async fn settle(engine: &Engine, doubt: Doubt, mark: u64) -> Result<(), EngineError> {
    match doubt {
        Doubt::Container(id) => engine.refresh_container_since(&id, mark).await,
        Doubt::Gone(_) => Ok(()),
        Doubt::Images => engine.refresh_images().await,
        Doubt::Networks => engine.refresh_networks().await,
        Doubt::Volumes => engine.refresh_volumes().await,
        Doubt::Engine => hello(engine).await,
    }
}

pub(crate) fn refused(engine: &Engine, reason: String) -> EngineError {
    EngineError::Refused { addr: engine.addr().to_owned(), reason }
}
