//! SockJS without HTTP: its frames, and sessions that outlive the requests of a client that polls or streams.
//!
//! The frames are those of the SockJS protocol 0.3.3: `o` opens, `h` is a heartbeat, `a[…]` carries messages as JSON texts
//! within JSON, `c[code,"reason"]` closes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use crate::bridge::{Bridge, Dialect, Session};

/// A silent connection carries a heartbeat this often, so that proxies keep it.
pub const HEARTBEAT: Duration = Duration::from_secs(25);

/// A session without a request of its client is forgotten after this long.
const DETACHED_TIME_MAX: Duration = Duration::from_secs(5);

/// Sessions at the same time; more are refused.
const SESSIONS_MAX: usize = 1024;

/// Messages from the client that wait to be taken; `xhr_send` waits meanwhile.
const INPUT_MAX: usize = 64;

/// Messages for the client that wait for its next request; then its queue in the bus fills.
const OUTPUT_MAX: usize = 256;

/// Sent before anything else.
pub const OPEN: &str = "o";
/// Says that the connection lives.
pub const ALIVE: &str = "h";
/// The session is over.
pub const GO_AWAY: &str = "c[3000,\"Go away!\"]";
/// Another request of this client is being answered.
pub const ANOTHER: &str = "c[2010,\"Another connection still open\"]";

/// Messages as one frame.
pub fn messages<'m>(texts: impl IntoIterator<Item = &'m str>) -> String {
    format!("a{}", json!(texts.into_iter().collect::<Vec<&str>>()))
}

/// Reason why a client's payload cannot be read; the texts are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("Payload expected.")]
    Missing,
    #[error("Broken JSON encoding.")]
    Broken,
}

/// Reads what a client sent: an array of texts, or one text.
pub fn payload(bytes: &[u8]) -> Result<Vec<String>, PayloadError> {
    if bytes.is_empty() {
        return Err(PayloadError::Missing);
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::String(text)) => Ok(vec![text]),
        Ok(Value::Array(texts)) => texts
            .into_iter()
            .map(|text| if let Value::String(text) = text { Ok(text) } else { Err(PayloadError::Broken) })
            .collect(),
        Ok(_) | Err(_) => Err(PayloadError::Broken),
    }
}

/// The sessions of clients that come by single requests.
#[derive(Debug)]
pub struct Sessions {
    bridge: Arc<Bridge>,
    open: Mutex<HashMap<String, Arc<Polled>>>,
}

impl Sessions {
    pub fn new(bridge: Arc<Bridge>) -> Arc<Sessions> {
        Arc::new(Sessions { bridge, open: Mutex::default() })
    }

    /// The session of a request that wants messages; a new one if there is none. `None`: there are too many.
    pub fn open(self: &Arc<Self>, id: &str) -> Option<Arc<Polled>> {
        let mut open = self.open.lock();
        if let Some(session) = open.get(id) {
            return Some(session.clone());
        }
        if open.len() >= SESSIONS_MAX {
            tracing::warn!(max = SESSIONS_MAX, "too many SockJS sessions; one more is refused");
            return None;
        }
        let (input, inputs) = mpsc::channel(INPUT_MAX);
        let state = State { detached_since: Some(Instant::now()), ..State::default() };
        let session = Arc::new(Polled { input, state: Mutex::new(state), news: Notify::new(), room: Notify::new() });
        open.insert(id.to_owned(), session.clone());
        tokio::spawn(run(
            session.clone(),
            self.bridge.clone(),
            inputs,
            Forget { sessions: Arc::downgrade(self), id: id.to_owned() },
        ));
        Some(session)
    }

    /// The session of a request that brings messages.
    pub fn find(&self, id: &str) -> Option<Arc<Polled>> {
        self.open.lock().get(id).cloned()
    }

    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes the session off the list when its task ends, however that ends.
#[derive(Debug)]
struct Forget {
    sessions: Weak<Sessions>,
    id: String,
}

impl Drop for Forget {
    fn drop(&mut self) {
        if let Some(sessions) = self.sessions.upgrade() {
            sessions.open.lock().remove(&self.id);
        }
    }
}

/// A session of a client that polls or streams.
#[derive(Debug)]
pub struct Polled {
    input: mpsc::Sender<String>,
    state: Mutex<State>,
    /// Notified when there are frames for the client.
    news: Notify,
    /// Something changed for the session's task.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    output: VecDeque<String>,
    opened: bool,
    closed: bool,
    attached: bool,
    detached_since: Option<Instant>,
}

impl Polled {
    /// Takes messages of the client. False if the session is over.
    pub async fn take(&self, texts: Vec<String>) -> bool {
        for text in texts {
            if self.input.send(text).await.is_err() {
                return false;
            }
        }
        true
    }

    /// The one request that gets the messages; `None` while there is another one.
    pub fn attach(self: &Arc<Self>) -> Option<Attached> {
        let mut state = self.state.lock();
        if state.attached {
            return None;
        }
        state.attached = true;
        state.detached_since = None;
        drop(state);
        self.room.notify_one();
        Some(Attached { session: self.clone() })
    }

    /// Returns the waiting messages as a frame.
    fn frame(&self) -> Option<String> {
        let mut state = self.state.lock();
        if !state.opened {
            state.opened = true;
            return Some(OPEN.to_owned());
        }
        if !state.output.is_empty() {
            let texts = std::mem::take(&mut state.output);
            drop(state);
            self.room.notify_one();
            return Some(messages(texts.iter().map(String::as_str)));
        }
        state.closed.then(|| GO_AWAY.to_owned())
    }
}

/// A request that gets the messages of its session.
#[derive(Debug)]
pub struct Attached {
    session: Arc<Polled>,
}

impl Attached {
    /// The next frame; a heartbeat if there is none for long. After [`GO_AWAY`], nothing else comes.
    pub async fn next(&mut self) -> String {
        loop {
            let news = self.session.news.notified();
            if let Some(frame) = self.session.frame() {
                return frame;
            }
            if timeout(HEARTBEAT, news).await.is_err() {
                return ALIVE.to_owned();
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.session.state.lock();
        state.attached = false;
        state.detached_since = Some(Instant::now());
        drop(state);
        self.session.room.notify_one();
    }
}

/// Moves messages until the client stays away.
async fn run(polled: Arc<Polled>, bridge: Arc<Bridge>, mut inputs: mpsc::Receiver<String>, forget: Forget) {
    let ping_time = bridge.limits.ping_time;
    let mut session = Session::new(bridge, Dialect::SockJs);
    let mut heard = Instant::now();
    loop {
        let (deadline, has_room) = {
            let state = polled.state.lock();
            let detached = state.detached_since.map(|since| since + DETACHED_TIME_MAX);
            (
                detached.map_or(heard + ping_time, |detached| detached.min(heard + ping_time)),
                state.output.len() < OUTPUT_MAX,
            )
        };
        let frame = tokio::select! {
            () = sleep_until(deadline) => break,
            () = polled.room.notified() => None,
            Some(text) = inputs.recv() => {
                heard = Instant::now();
                session.take(text.as_bytes())
            }
            frame = session.next(), if has_room => Some(frame),
        };
        if let Some(frame) = frame {
            polled.state.lock().output.push_back(frame.to_string());
            polled.news.notify_one();
        }
    }
    polled.state.lock().closed = true;
    polled.news.notify_one();
    drop(forget);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::{Limits, Rules};
    use crate::memory::Mesh;

    #[test]
    fn what_clients_send_is_read() {
        let check = |text: &str, expected: Result<&[&str], &str>| {
            let got = payload(text.as_bytes()).map_err(|error| error.to_string());
            let expected = expected.map(|texts| texts.iter().map(ToString::to_string).collect()).map_err(str::to_owned);
            assert_eq!(got, expected, "{text}");
        };
        check(r#"["a","b"]"#, Ok(&["a", "b"]));
        check(r#""a""#, Ok(&["a"]));
        check("[]", Ok(&[]));
        check("", Err("Payload expected."));
        check("[1]", Err("Broken JSON encoding."));
        check(r#"["a"#, Err("Broken JSON encoding."));
        check("{}", Err("Broken JSON encoding."));
    }

    fn sessions() -> Arc<Sessions> {
        let bus = Mesh::new(10).bus("n1", crate::Settings::default());
        Sessions::new(Bridge::new(bus, Rules::everything(), Limits::default()))
    }

    async fn say(session: &Polled, frame: Value) {
        assert!(session.take(vec![frame.to_string()]).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_outlives_its_requests_for_five_seconds() {
        let sessions = sessions();
        let session = sessions.open("s1").expect("room");
        let mut poll = session.attach().expect("the first one");
        assert_eq!(poll.next().await, "o");
        assert!(session.attach().is_none(), "one at a time");
        drop(poll);
        say(&session, json!({"type": "register", "address": "a"})).await;
        say(&session, json!({"type": "send", "address": "a", "body": 1})).await;
        say(&session, json!({"type": "send", "address": "a", "body": "x"})).await;
        let mut poll = session.attach().expect("free again");
        let expected =
            [json!({"type": "rec", "address": "a", "body": 1}), json!({"type": "rec", "address": "a", "body": "x"})];
        let texts = expected.map(|frame| frame.to_string());
        assert_eq!(poll.next().await, messages(texts.iter().map(String::as_str)));
        drop(poll);
        assert!(sessions.find("s1").is_some());
        tokio::time::sleep(Duration::from_millis(5001)).await;
        assert!(sessions.find("s1").is_none());
        assert!(!session.take(vec!["x".into()]).await);
        assert_eq!(session.attach().expect("free").next().await, GO_AWAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_pinging_is_gone() {
        let sessions = sessions();
        let session = sessions.open("s1").expect("room");
        let mut poll = session.attach().expect("the first one");
        assert_eq!(poll.next().await, "o");
        for _ in 0..5 {
            say(&session, json!({"type": "ping"})).await;
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
        assert_eq!(poll.next().await, GO_AWAY);
        assert!(sessions.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_poll_bounds_what_waits() {
        let sessions = sessions();
        let session = sessions.open("s1").expect("room");
        session.attach().expect("the first one").next().await;
        say(&session, json!({"type": "register", "address": "a"})).await;
        for number in 0..10_000 {
            let _ = sessions.bridge.bus.send("a", crate::Headers::default(), json!(number));
            tokio::task::yield_now().await;
        }
        assert!(session.state.lock().output.len() <= OUTPUT_MAX);
        assert_eq!(sessions.bridge.bus.stats().dropped, 10_000 - 4096 - OUTPUT_MAX as u64);
    }
}
