//! Tests a pool that gets the news of another pool over a wire that can be cut.

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use herder_pool::fake::{FakeContainer, FakeEngine, FakeSpec};
use herder_pool::{Asking, Following, News, Part, Pool, Settings, Source};
use tokio::sync::watch;

mod shared;

use shared::*;

/// Sends everything of a pool as text, while it is not cut.
#[derive(Debug)]
struct Wire {
    pool: Arc<Pool>,
    whole: watch::Sender<bool>,
    /// Seconds by which the clock at the other end is ahead.
    ahead: i64,
}

impl Source for Wire {
    fn reports_on(&self, _: &str) -> bool {
        true
    }

    fn follow<'s>(&'s self, addr: &'s str) -> Asking<'s, Following> {
        Box::pin(async move {
            if !*self.whole.borrow() {
                return Err("the wire is cut".to_owned());
            }
            let ahead = self.ahead * 1_000_000_000;
            let news: BoxStream<'static, News> = self.pool.engine(addr).ok_or("unknown")?.news().boxed();
            let sent = news.map(move |news| {
                let news = News { now_nano: news.now_nano + ahead, ..news };
                serde_json::from_str(&serde_json::to_string(&news).unwrap()).map_err(|error| error.to_string())
            });
            let mut whole = self.whole.subscribe();
            let cut = async move { whole.wait_for(|whole| !whole).await.map(drop).unwrap_or_default() };
            Ok(sent.take_until(Box::pin(cut)).boxed() as Following)
        })
    }

    fn reread<'s>(&'s self, addr: &'s str, what: Part) -> Asking<'s, u64> {
        Box::pin(async move {
            let engine = self.pool.engine(addr).ok_or("unknown")?;
            engine.reread(what).await.map_err(|error| error.to_string())
        })
    }
}

/// Returns the pool that reads the engines, the wire, and the pool that gets the news.
fn pair(fakes: &[&FakeEngine], ahead: i64) -> (Arc<Pool>, Arc<Wire>, Arc<Pool>) {
    let reader = pool_of(fakes);
    let wire = Arc::new(Wire { pool: reader.clone(), whole: watch::Sender::new(true), ahead });
    let told = Pool::new(Settings { source: Some(wire.clone()), ..Settings::default() });
    told.set_members(&members(fakes));
    (reader, wire, told)
}

#[tokio::test]
async fn who_is_told_shows_the_same_and_asks_the_engine_nothing() {
    let engine = fake("n").await;
    let first = engine.add(FakeContainer::new("a"));
    let (reader, _wire, told) = pair(&[&engine], 0);
    let mut events = told.events();
    check(&told, "n Healthy a=running").await;
    engine.add(FakeContainer { memory_bytes: 100, host_port: 8080, ..FakeContainer::new("b") });
    check(&told, "n Healthy a=running b=running").await;
    engine.set_state(&first, "exited", true);
    check(&told, "n Healthy a=exited b=running").await;
    engine.remove(&first, true);
    check(&told, "n Healthy b=running").await;
    let (there, here) = (reader.nodes()[0].clone(), told.nodes()[0].clone());
    assert_eq!((here.used, &here.labels, &here.id), (there.used, &there.labels, &there.id));
    assert_eq!((here.images.len(), here.networks.len()), (there.images.len(), there.networks.len()));
    let list = |pool: &Pool| {
        let query = herder_decide::list::ContainerQuery { all: true, ..Default::default() };
        String::from_utf8(herder_decide::list::containers(&pool.nodes(), &query, 2_000_000_000).unwrap()).unwrap()
    };
    assert_eq!(list(&told), list(&reader));
    let heard = heard(&mut events, "destroy a").await;
    let one = heard.iter().filter(|event| *event == "engine_connect").count();
    assert_eq!(one, 1, "the reader's own events stay there: {heard:?}");
    assert_eq!(engine.requests("GET /events"), 1, "one event stream, that of the reader");
}

#[tokio::test]
async fn after_a_cut_everything_is_told_anew_and_no_event_is_missed() {
    let engine = fake("n").await;
    let (a, b) = (engine.add(FakeContainer::new("a")), engine.add(FakeContainer::new("b")));
    let (reader, wire, told) = pair(&[&engine], 0);
    let mut events = told.events();
    check(&told, "n Healthy a=running b=running").await;
    wire.whole.send_replace(false);
    engine.set_state(&a, "exited", true);
    engine.remove(&b, true);
    check(&reader, "n Healthy a=exited").await;
    let took = check(&told, "n Unhealthy a=running b=running").await;
    assert!(took < DETECTION_MAX, "{took:?}");
    wire.whole.send_replace(true);
    let took = check(&told, "n Healthy a=exited").await;
    assert!(took < DETECTION_MAX, "{took:?}");
    assert_eq!(
        heard(&mut events, "destroy b").await,
        ["engine_connect", "engine_disconnect", "engine_reconnect", "die a", "destroy b"]
    );
}

#[tokio::test]
async fn an_engine_that_hangs_is_known_to_who_is_told() {
    let engine = fake("n").await;
    let (_reader, _wire, told) = pair(&[&engine], 0);
    check(&told, "n Healthy").await;
    engine.hang();
    let took = check(&told, "n Unhealthy").await;
    assert!(took < DETECTION_MAX, "{took:?}");
    assert!(told.nodes()[0].error.as_deref().unwrap_or_default().contains("did not answer within"));
    engine.resume();
    check(&told, "n Healthy").await;
}

#[tokio::test]
async fn what_is_asked_to_be_read_again_is_there_when_the_answer_comes() {
    let engine = fake("n").await;
    let (_reader, _wire, told) = pair(&[&engine], 0);
    check(&told, "n Healthy").await;
    for number in 0..20 {
        // Silent: only a look finds it.
        let name = format!("c{number}");
        let id = engine.add(FakeContainer::new(&name));
        let there = told.engine(&engine.addr()).expect("a member");
        there.refresh_container(&id).await.expect("an engine that answers");
        assert!(told.nodes()[0].containers.contains_key(&id), "{name}");
        engine.remove(&id, false);
        there.forget_container(&id);
        there.refresh_images().await.expect("an engine that answers");
        assert!(!told.nodes()[0].containers.contains_key(&id), "{name} is gone for the client that removed it");
    }
}

#[tokio::test]
async fn times_of_a_clock_that_is_ahead_are_moved() {
    let engine = FakeEngine::start(FakeSpec { clock_ahead: 0, ..FakeSpec::new("n") }).await.expect("a free port");
    engine.add(FakeContainer::new("a"));
    let (reader, _wire, told) = pair(&[&engine], 100);
    check(&told, "n Healthy a=running").await;
    let times = |pool: &Pool| {
        let node = pool.nodes()[0].clone();
        let it = node.containers.values().next().expect("one container").clone();
        let text: serde_json::Value = serde_json::from_str(&herder_decide::render::container(&node, &it, 0)).unwrap();
        (it.created, it.started_at, text["Created"].as_i64().unwrap_or_default())
    };
    let (there, here) = (times(&reader), times(&told));
    assert_eq!((here.0 - there.0, here.1 - there.1, here.2 - there.2), (-100, -100, -100));
}

#[tokio::test]
async fn many_containers_come_in_pieces_and_are_one_picture() {
    let engine = fake("n").await;
    for number in 0..1200 {
        engine.add(FakeContainer::new(&format!("c{number}")));
    }
    let (_reader, _wire, told) = pair(&[&engine], 0);
    let began = Instant::now();
    let mut changes = told.changes();
    loop {
        let seen = told.nodes().first().map_or(0, |node| node.containers.len());
        assert!(seen == 0 || seen == 1200, "a part of the picture is shown: {seen}");
        if seen == 1200 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{seen}");
        changes.changed().await.expect("the pool lives");
    }
}
