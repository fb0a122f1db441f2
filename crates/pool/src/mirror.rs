//! An engine that another node reads: what that node tells of it is believed.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use herder_model::NodeState;
use http::Method;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::board::now_nano;
use crate::engine::Engine;
use crate::life::{self, End, Memory};
use crate::news::{BEAT, News};
use herder_docker::{Decoder, EngineError};

/// Maximum time until a node begins its news.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Silence after which a node counts as lost.
const SILENCE_MAX: Duration = BEAT.saturating_mul(5);

/// Maximum time of an engine to repeat remembered events, and the number of attempts. Right after a cut, connections
/// from before it are dead, and only the first call finds that out.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(2);
const CATCH_UP_ATTEMPTS: u32 = 3;

/// Maximum wait for a picture that is known to have changed.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(2);

/// Travel time of news that is tolerated before clocks count as different.
const TRAVEL_TIME_S: i64 = 1;

/// The news of one node, from everything on.
pub type Following = Pin<Box<dyn Stream<Item = Result<News, String>> + Send>>;

/// A question to another node.
pub type Asking<'s, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 's>>;

/// Nodes that read their engines themselves. Errors are sentences for people.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// True if the engine at this address is read by another node.
    fn reports_on(&self, addr: &str) -> bool;
    fn follow<'s>(&'s self, addr: &'s str) -> Asking<'s, Following>;
    /// Has the node read again. Returns the number of the picture with the result.
    fn reread<'s>(&'s self, addr: &'s str, what: Part) -> Asking<'s, u64>;
}

/// The part of an engine to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// One container, by its full id.
    Container(String),
    Images,
    Networks,
    Volumes,
    All,
}

/// Believes what the node tells until that ends.
pub(crate) async fn session(engine: &Engine, source: &dyn Source, memory: &mut Memory) -> End {
    let follow = timeout(BEGIN_TIME_MAX, source.follow(engine.addr()));
    let failed = |reason: String| End::Failed(life::refused(engine, reason));
    let mut news = match follow.await {
        Ok(Ok(news)) => news,
        Ok(Err(reason)) => return failed(reason),
        Err(_) => return failed("the node does not tell what is on its engine".into()),
    };
    let mut pieces: Option<News> = None;
    loop {
        let piece = match timeout(SILENCE_MAX, news.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(reason))) => return failed(reason),
            Ok(None) => return failed("the node does not tell any more what is on its engine".into()),
            Err(_) => return failed(format!("the node has been silent for {} s", SILENCE_MAX.as_secs())),
        };
        let joined = match pieces.take() {
            Some(mut first) => {
                first.join(piece);
                first
            }
            None => piece,
        };
        if joined.more {
            pieces = Some(joined);
        } else if let Err(error) = Box::pin(take(engine, joined, memory)).await {
            return End::Failed(error);
        }
    }
}

/// Makes the picture what the news says; then tells of what happened.
async fn take(engine: &Engine, mut news: News, memory: &mut Memory) -> Result<(), EngineError> {
    if news.whole {
        if let Some(engine_id) =
            news.node.as_ref().and_then(|node| node.id.split('|').next()).filter(|id| !id.is_empty())
        {
            life::claim(engine, engine_id)?;
        }
        let behind_nano = now_nano() - news.now_nano;
        life::note_skew(engine, (behind_nano + 500_000_000).div_euclid(1_000_000_000), TRAVEL_TIME_S);
    }
    let before = engine.node().state;
    let (number, now, whole) = (news.number, news.now_nano, news.whole);
    let events = std::mem::take(&mut news.events);
    engine.believe(news);
    engine.arrived.send_replace(number);
    tell_change(engine, before, engine.node().state);
    if whole {
        if memory.last_event_nano > 0 && engine.node().is_healthy() {
            catch_up(engine, now, memory).await;
        }
        memory.last_event_nano = memory.last_event_nano.max(now);
        memory.welcomed = Some(tokio::time::Instant::now());
    }
    for event in events {
        publish(engine, event, memory);
    }
    Ok(())
}

fn tell_change(engine: &Engine, before: NodeState, after: NodeState) {
    let node = engine.node();
    match (before, after) {
        (NodeState::Healthy, NodeState::Unhealthy | NodeState::Pending) => {
            let error = life::refused(engine, node.error.clone().unwrap_or_default());
            life::report_loss(engine, &error);
        }
        (NodeState::Pending, NodeState::Healthy) => life::report_welcome(engine, "engine_connect"),
        (NodeState::Unhealthy, NodeState::Healthy) => life::report_welcome(engine, "engine_reconnect"),
        _ => {}
    }
}

/// Publishes the events of a gap, which the engine remembers.
async fn catch_up(engine: &Engine, until_nano: i64, memory: &mut Memory) {
    let time = |nano: i64| format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    let path = format!("/events?since={}&until={}", time(memory.last_event_nano), time(until_nano));
    let mut decoder = Decoder::default();
    for _ in 0..CATCH_UP_ATTEMPTS {
        match engine.fetch(Method::GET, &path, None, CATCH_UP_TIME_MAX).await {
            Ok(bytes) => {
                decoder.push(&bytes);
                break;
            }
            Err(error) => warn!(addr = engine.addr(), %error, "the engine does not tell what happened meanwhile"),
        }
    }
    let node = engine.node();
    while let Ok(Some(event)) = decoder.next() {
        publish(engine, herder_decide::events::decorate(event, &node), memory);
    }
}

/// Publishes an event if it is newer than all before it.
fn publish(engine: &Engine, event: serde_json::Value, memory: &mut Memory) {
    let time_nano = event["timeNano"].as_i64().unwrap_or_default();
    if time_nano == 0 || time_nano > memory.last_event_nano {
        memory.last_event_nano = time_nano.max(memory.last_event_nano);
        engine.board.send(event, &engine.node(), time_nano);
    }
}

impl Engine {
    /// Has the node beside the engine read again, and waits for the resulting picture.
    pub(crate) async fn reread_there(&self, source: &dyn Source, what: Part) -> Result<(), EngineError> {
        let asked = timeout(life::REREAD_TIME_MAX, source.reread(self.addr(), what)).await;
        let number = asked.unwrap_or_else(|_| Err("the node does not read its engine in time".into()));
        let number = number.map_err(|reason| life::refused(self, reason))?;
        self.await_picture(number).await;
        Ok(())
    }

    /// Waits until the picture with this number, or a later one, has come from the node beside the engine.
    pub async fn await_picture(&self, number: u64) {
        let mut arrived = self.arrived.subscribe();
        if timeout(ARRIVAL_TIME_MAX, arrived.wait_for(|arrived| *arrived >= number)).await.is_err() {
            info!(addr = self.addr(), number, "the result of another node's read does not arrive");
        }
    }

    /// Reads again what another node asks for. The number of the picture that shows what was seen.
    pub async fn reread(&self, what: Part) -> Result<u64, EngineError> {
        match what {
            Part::Container(id) => self.refresh_container(&id).await,
            Part::Images => self.refresh_images().await,
            Part::Networks => self.refresh_networks().await,
            Part::Volumes => self.refresh_volumes().await,
            Part::All => self.refresh_all().await,
        }?;
        Ok(self.version())
    }

    fn believe(&self, mut news: News) {
        let shift = self.shift.load(Ordering::Relaxed);
        let mut told = self.told.lock();
        if news.whole {
            told.forget_gone(|id| !news.put.iter().any(|container| container.id == id));
        }
        told.forget_gone(|id| news.gone.iter().any(|gone| gone == id));
        self.update(|node| news.apply(node, shift, |id| told.is_over(id)));
    }
}
