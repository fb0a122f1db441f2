//! News of a node's engine for other nodes: first everything, then changes.
//!
//! One node reads an engine, however many want to know what is on it. A listener that is slow gets fewer and larger pieces:
//! each is the difference between what was told last and what is there now.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use herder_decide::words;
use herder_model::{ClusterEvent, Container, Image, Network, Node, Volume};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use crate::Engine;
use crate::board::now_nano;

/// Interval of news without changes.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// Containers in one piece of news. Some 3 kB each: a piece must fit into one message between nodes.
const CONTAINERS_MAX: usize = 500;

/// One piece of news. Fields are only added, never changed or taken away: nodes of two versions talk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct News {
    /// Number of the picture that the node has made of its engine, once this piece is known. Grows, also over restarts.
    pub number: u64,
    /// Nanoseconds since 1970 by the node's clock.
    pub now_nano: i64,
    /// True if this replaces everything known before.
    pub whole: bool,
    /// The next piece belongs to this one.
    pub more: bool,
    /// The node without what is on it.
    pub node: Option<Box<Node>>,
    /// Seconds since 1970 of the node's last look at its engine.
    pub updated_at: i64,
    /// Containers that are new or not as they were.
    pub put: Vec<Arc<Container>>,
    /// Ids of containers that are gone.
    pub gone: Vec<String>,
    pub images: Option<Vec<Arc<Image>>>,
    pub networks: Option<Vec<Arc<Network>>>,
    pub volumes: Option<Vec<Arc<Volume>>>,
    /// Events of the engine as `docker events` shows them. They are told after the changes that they are about.
    pub events: Vec<Value>,
}

impl News {
    /// Returns the changes from `last` (or everything) to `node`.
    fn between(last: Option<&Node>, node: &Node) -> News {
        let empty = Node::default();
        let old = last.unwrap_or(&empty);
        let known = |it: &&Arc<Container>| old.containers.get(&it.id).is_some_and(|old| Arc::ptr_eq(old, it));
        let gone = old.containers.keys().filter(|id| !node.containers.contains_key(*id));
        News {
            whole: last.is_none(),
            node: (last.is_none() || facts(old) != facts(node)).then(|| Box::new(bare(node))),
            updated_at: node.updated_at,
            put: node.containers.values().filter(|it| !known(it)).cloned().collect(),
            gone: gone.cloned().collect(),
            images: changed(last.map(|last| &*last.images), &node.images),
            networks: changed(last.map(|last| &*last.networks), &node.networks),
            volumes: changed(last.map(|last| &*last.volumes), &node.volumes),
            ..News::default()
        }
    }

    /// Pieces of a size that can be sent.
    fn cut(mut self) -> VecDeque<News> {
        let mut pieces = VecDeque::new();
        while self.put.len() > CONTAINERS_MAX {
            let rest = self.put.split_off(CONTAINERS_MAX);
            let rest = News { put: rest, events: std::mem::take(&mut self.events), ..self.blank() };
            pieces.push_back(News { more: true, ..std::mem::replace(&mut self, rest) });
        }
        pieces.push_back(self);
        pieces
    }

    fn blank(&self) -> News {
        News { number: self.number, now_nano: self.now_nano, updated_at: self.updated_at, ..News::default() }
    }

    /// Adds the next piece to one that has `more`.
    pub(crate) fn join(&mut self, next: News) {
        self.more = next.more;
        self.number = next.number;
        self.put.extend(next.put);
        self.gone.extend(next.gone);
        self.events.extend(next.events);
    }

    /// Makes `node` what this says, times moved by `shift` seconds. Containers for which `keep_out` says so stay out.
    pub(crate) fn apply(&mut self, node: &mut Node, shift: i64, keep_out: impl Fn(&str) -> bool) {
        if let Some(facts) = self.node.take() {
            let (addr, ip) = (std::mem::take(&mut node.addr), std::mem::take(&mut node.ip));
            let old = std::mem::replace(node, Node { addr, ip, ..*facts });
            (node.containers, node.names, node.used) = (old.containers, old.names, old.used);
            (node.images, node.networks, node.volumes) = (old.images, old.networks, old.volumes);
        }
        node.updated_at = self.updated_at + shift;
        if self.whole {
            let told: HashSet<&str> = self.put.iter().map(|it| it.id.as_str()).collect();
            let gone: Vec<String> = node.containers.keys().filter(|id| !told.contains(id.as_str())).cloned().collect();
            self.gone.extend(gone);
        }
        for id in &self.gone {
            node.remove_container(id);
        }
        for mut container in self.put.drain(..).filter(|it| !keep_out(&it.id)) {
            let told = Arc::make_mut(&mut container);
            move_times(told, shift);
            told.entry.status = words::status_of(told);
            node.put_container(container);
        }
        node.images = self.images.take().unwrap_or_else(|| std::mem::take(&mut node.images));
        node.networks = self.networks.take().unwrap_or_else(|| std::mem::take(&mut node.networks));
        node.volumes = self.volumes.take().unwrap_or_else(|| std::mem::take(&mut node.volumes));
    }
}

/// Moves the container's times by `shift` seconds, also in its list entry.
fn move_times(container: &mut Container, shift: i64) {
    if shift == 0 {
        return;
    }
    let created = |seconds: i64| format!("\"Created\":{seconds},");
    let (old, new) = (created(container.created), created(container.created + shift));
    container.created += shift;
    // The holes stay where they are.
    if old.len() == new.len() {
        container.entry.text = container.entry.text.replacen(&old, &new, 1).into();
    }
    for time in [&mut container.started_at, &mut container.finished_at] {
        *time += if *time == 0 { 0 } else { shift };
    }
}

/// The node without what is on it.
fn bare(node: &Node) -> Node {
    let mut bare = node.clone();
    (bare.containers, bare.names) = Default::default();
    (bare.images, bare.networks, bare.volumes) = Default::default();
    bare
}

/// Returns the facts of the bare node whose changes are news.
fn facts(node: &Node) -> Value {
    let written = serde_json::to_value(node);
    let mut facts = written.unwrap_or_else(|error| {
        tracing::error!(node = node.name, %error, "the node's facts cannot be written as JSON: other nodes do not get the changes");
        Value::Null
    });
    facts["updated_at"].take();
    facts
}

fn changed<T>(last: Option<&[Arc<T>]>, now: &[Arc<T>]) -> Option<Vec<Arc<T>>> {
    let same = |last: &[Arc<T>]| last.len() == now.len() && last.iter().zip(now).all(|(a, b)| Arc::ptr_eq(a, b));
    (!last.is_some_and(same)).then(|| now.to_vec())
}

/// State of one listener: what was sent, and what waits.
struct NewsSender {
    engine: Arc<Engine>,
    versions: watch::Receiver<u64>,
    events: broadcast::Receiver<ClusterEvent>,
    last: Option<Arc<Node>>,
    pieces: VecDeque<News>,
}

impl Engine {
    /// Streams the news of this engine for other nodes; endless. Ends never.
    pub fn news(self: &Arc<Self>) -> impl Stream<Item = News> + Send + use<> {
        let sender = NewsSender {
            engine: self.clone(),
            versions: self.versions(),
            events: self.board.events(),
            last: None,
            pieces: VecDeque::new(),
        };
        stream::unfold(sender, async |mut sender| Some((sender.next().await, sender)))
    }
}

impl NewsSender {
    async fn next(&mut self) -> News {
        if let Some(piece) = self.pieces.pop_front() {
            return piece;
        }
        let mut events = Vec::new();
        if self.last.is_some() {
            let happened = async {
                tokio::select! {
                    // The engine is held by this reporter.
                    _ = self.versions.changed() => {}
                    event = next_event(&mut self.events, self.engine.addr()) => events.push(event),
                }
            };
            // Nothing happened: that is told, too.
            let _ = timeout(BEAT, happened).await;
        }
        // Those that came together are told together; each was published after the change that it is about.
        while let Ok(event) = self.events.try_recv() {
            events.extend(of_engine(event, self.engine.addr()));
        }
        // Before the look at the node: what changes between the two is looked at again.
        let number = *self.versions.borrow_and_update();
        let node = self.engine.node();
        let news = News::between(self.last.as_deref(), &node);
        let news = News { number, now_nano: now_nano(), events, ..news };
        self.last = Some(node);
        self.pieces = news.cut();
        self.pieces.pop_front().unwrap_or_default()
    }
}

/// The next event of the engine. One that comes too late to be remembered is not told; a listener that needs it asks the
/// engine.
async fn next_event(events: &mut broadcast::Receiver<ClusterEvent>, addr: &str) -> Value {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Some(event) = of_engine(event, addr) {
                    return event;
                }
            }
            Err(broadcast::error::RecvError::Lagged(count)) => {
                tracing::warn!(addr, count, "events of an engine were dropped")
            }
            // The board is gone, and the pool with it.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The event, if it is one of this engine and not the pool's own about it.
fn of_engine(event: ClusterEvent, addr: &str) -> Option<Value> {
    let json = &event.json;
    let theirs = json["node"]["Addr"] == *addr && json["Type"] != "swarm";
    theirs.then(|| Arc::unwrap_or_clone(event.json))
}

#[cfg(test)]
mod tests {
    use herder_model::Resources;
    use proptest::prelude::*;

    use super::*;

    /// A node with these containers (name and memory), and an image.
    fn node(name: &str, containers: &[(u8, i64)], image: &str) -> Node {
        let mut node = Node { name: name.into(), addr: "n:1".into(), ncpu: 2, ..Node::default() };
        for (number, memory_bytes) in containers {
            let reserved = Resources { nano_cpus: 0, memory_bytes: *memory_bytes };
            let (id, name) = (format!("id{number}"), format!("c{number}"));
            node.put_container(Arc::new(Container { id, name, reserved, ..Container::default() }));
        }
        node.images = vec![Arc::new(Image { id: image.into(), ..Image::default() })];
        node
    }

    fn show(node: &Node) -> String {
        let containers: Vec<String> =
            node.containers.values().map(|it| format!("{}:{}", it.name, it.reserved.memory_bytes)).collect();
        let images: Vec<&str> = node.images.iter().map(|image| image.id.as_str()).collect();
        format!("{} {} used {} {images:?} {}", node.name, containers.join(" "), node.used.memory_bytes, node.ncpu)
    }

    #[test]
    fn news_of_the_version_before_and_of_the_next_one_are_understood() {
        let news = News::between(None, &node("a", &[(1, 5)], "x"));
        let text = serde_json::to_value(&news).unwrap();
        let shown = |text: Value| {
            let mut told = Node::default();
            serde_json::from_value::<News>(text).unwrap().apply(&mut told, 0, |_| false);
            show(&told)
        };
        let expected = shown(text.clone());
        assert_eq!(expected, "a c1:5 used 5 [\"x\"] 2");
        for place in ["", "/node", "/put/0", "/put/0/entry", "/put/0/reserved", "/images/0"] {
            let object = |text: &Value| text.pointer(place).and_then(Value::as_object).unwrap().clone();
            // Of the next version: something more.
            let mut more = text.clone();
            *more.pointer_mut(place).unwrap() = {
                let mut object = object(&text);
                object.insert("of the next version".into(), serde_json::json!({"x": [1]}));
                Value::Object(object)
            };
            assert_eq!(shown(more), expected, "{place}");
            // Of the one before: whatever is missing is as if it were empty.
            for field in object(&text).keys() {
                let mut less = text.clone();
                less.pointer_mut(place).and_then(Value::as_object_mut).unwrap().remove(field);
                shown(less);
            }
        }
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let containers = prop::collection::btree_map(0..20_u8, 0..5_i64, 0..12);
        ("[ab]", containers, "[xy]")
            .prop_map(|(name, containers, image)| node(&name, &containers.into_iter().collect::<Vec<_>>(), &image))
    }

    proptest! {
        #[test]
        fn who_takes_all_news_shows_what_is_there(nodes in prop::collection::vec(any_node(), 1..6), restart in 0..6_usize) {
            let mut told = Node { addr: "n:1".into(), ..Node::default() };
            let mut last: Option<Node> = None;
            for (number, node) in nodes.into_iter().enumerate() {
                let news = News::between(last.as_ref().filter(|_| number != restart), &node);
                let text = serde_json::to_string(&news).unwrap();
                let mut news: News = serde_json::from_str(&text).unwrap();
                news.apply(&mut told, 0, |_| false);
                prop_assert_eq!(show(&told), show(&node));
                last = Some(node);
            }
        }

        #[test]
        fn pieces_joined_are_the_whole(count in 0..4 * CONTAINERS_MAX) {
            let put = (0..count).map(|id| Arc::new(Container { id: id.to_string(), ..Container::default() })).collect();
            let news = News { number: 7, whole: true, events: vec![Value::Null], put, ..News::default() };
            let mut pieces = news.cut();
            prop_assert!(pieces.iter().all(|piece| piece.put.len() <= CONTAINERS_MAX));
            let mut joined = pieces.pop_front().expect("one at least");
            while let Some(piece) = pieces.pop_front() {
                prop_assert!(joined.more);
                joined.join(piece);
            }
            prop_assert!(!joined.more && joined.whole);
            prop_assert_eq!((joined.number, joined.events.len(), joined.put.len()), (7, 1, count));
        }
    }
}
