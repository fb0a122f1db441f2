//! One client of a bridge, without its connection: its frames go in, frames for it come out.
//!
//! The TCP and the SockJS bridge of Vert.x differ in words only: `message` or `rec`, where errors are, who answers a ping.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::bridge::Bridge;
use crate::error::BusError;
use crate::inbox::Inbox;
use crate::message::{ADDRESS_BYTES_MAX, Headers, Message, ReplyTo};

/// Headers of a client that are for the bridge and not for the receiver.
const OWN_HEADERS: [&str; 3] = ["timeout", "localOnly", "codecName"];

/// The dialect of one of the two bridges of Vert.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Length-prefixed frames over TCP.
    Tcp,
    /// SockJS and raw WebSocket.
    SockJs,
}

/// A client's request under way, which resolves to its result.
type Asked = Pin<Box<dyn Future<Output = Heard> + Send + Sync>>;

/// Result of a request.
#[derive(Debug)]
struct Heard {
    /// The client's own name for the answer.
    reply_address: String,
    /// Address of the request.
    source: String,
    outcome: Result<Message, BusError>,
}

/// One client.
pub struct Session {
    bridge: Arc<Bridge>,
    dialect: Dialect,
    inbox: Inbox,
    requests: FuturesUnordered<Asked>,
    /// Ways back that the client was given, oldest first.
    replies: IndexMap<String, ReplyTo>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<&str> = self.inbox.addresses().collect();
        f.debug_struct("Session").field("dialect", &self.dialect).field("addresses", &addresses).finish_non_exhaustive()
    }
}

impl Session {
    pub fn new(bridge: Arc<Bridge>, dialect: Dialect) -> Session {
        let (inbox, requests, replies) = (bridge.bus.inbox(), FuturesUnordered::new(), IndexMap::new());
        Session { bridge, dialect, inbox, requests, replies }
    }

    /// Takes a frame of the client. What it hears at once, if anything.
    pub fn take(&mut self, text: &[u8]) -> Option<Value> {
        match serde_json::from_slice(text) {
            Ok(Value::Object(frame)) => self.act(frame),
            Ok(_) | Err(_) => self.refuse("invalid_json"),
        }
    }

    /// The next frame for the client. Safe to cancel. Never ends by itself.
    pub async fn next(&mut self) -> Value {
        loop {
            tokio::select! {
                message = self.inbox.recv() => {
                    if self.bridge.rules.may_see(&message.address, &message.body) {
                        let address = message.address.to_string();
                        return self.deliver(address, message);
                    }
                }
                Some(heard) = self.requests.next() => return self.answer(heard),
            }
        }
    }

    /// Messages that were dropped because the client did not keep up.
    pub fn dropped(&self) -> u64 {
        self.inbox.dropped()
    }

    fn act(&mut self, mut frame: Map<String, Value>) -> Option<Value> {
        let Some(kind) = frame.get("type").and_then(Value::as_str).map(str::to_owned) else {
            return self.refuse(self.word("missing_type", "unknown_type"));
        };
        if kind == "ping" {
            return (self.dialect == Dialect::Tcp).then(|| json!({"type": "pong"}));
        }
        if !["send", "publish", "register", "unregister"].contains(&kind.as_str()) {
            return self.refuse(self.word("invalid_type", "unknown_type"));
        }
        let Some(Value::String(address)) = frame.remove("address") else { return self.refuse("missing_address") };
        if address.len() > ADDRESS_BYTES_MAX {
            return self.refuse("max_address_length_reached");
        }
        match kind.as_str() {
            "register" => self.register(&address),
            "unregister" => self.unregister(&address),
            "publish" => self.publish(&address, frame),
            _ => self.send(address, frame),
        }
    }

    fn register(&mut self, address: &str) -> Option<Value> {
        if !self.bridge.rules.may_register(address) {
            return self.denied("register", address);
        }
        if self.inbox.is_registered(address) {
            // The TCP bridge takes it for a renewal.
            return (self.dialect == Dialect::SockJs).then(|| self.error("address_already_registered"));
        }
        if self.is_full() {
            return self.refuse("max_handlers_reached");
        }
        self.inbox.register(address).err().and_then(|_| self.refuse("registration_failure"))
    }

    fn unregister(&mut self, address: &str) -> Option<Value> {
        if !self.bridge.rules.may_register(address) {
            return self.denied("unregister", address);
        }
        let known = self.inbox.unregister(address);
        // Nobody waits for an answer there; the bridge for SockJS says nothing, that for TCP does.
        (!known && self.dialect == Dialect::Tcp).then(|| self.error("unknown_address"))
    }

    fn publish(&mut self, address: &str, mut frame: Map<String, Value>) -> Option<Value> {
        let body = frame.remove("body").unwrap_or_default();
        if !self.bridge.rules.may_send(address, &body) {
            return self.denied("publish", address);
        }
        if let Err(error) = self.bridge.bus.publish(address, own_headers(&frame), body) {
            tracing::debug!(%error, "a client's message was not published");
        }
        None
    }

    fn send(&mut self, address: String, mut frame: Map<String, Value>) -> Option<Value> {
        let body = frame.remove("body").unwrap_or_default();
        let reply_address = match frame.remove("replyAddress") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.len() <= ADDRESS_BYTES_MAX => Some(text),
            Some(_) => return self.refuse("invalid_reply_address"),
        };
        if let Some(way) = self.replies.shift_remove(&address) {
            return self.send_back(way, address, frame, body, reply_address);
        }
        if !self.bridge.rules.may_send(&address, &body) {
            return self.denied("send", &address);
        }
        let Some(reply_address) = reply_address else {
            if let Err(error) = self.bridge.bus.send(&address, own_headers(&frame), body) {
                tracing::debug!(%error, "a client's message was not sent");
            }
            return None;
        };
        if self.is_full() {
            return self.refuse("max_handlers_reached");
        }
        let (limit, headers) = (self.limit(&frame), own_headers(&frame));
        let bus = self.bridge.bus.clone();
        self.requests.push(Box::pin(async move {
            let outcome = bus.request(&address, headers, body, limit).await;
            Heard { reply_address, source: address, outcome }
        }));
        None
    }

    /// An answer of the client to a request that it was given.
    fn send_back(
        &mut self,
        way: ReplyTo,
        address: String,
        frame: Map<String, Value>,
        body: Value,
        reply_address: Option<String>,
    ) -> Option<Value> {
        let headers = own_headers(&frame);
        if let Some(code) = frame.get("failureCode").and_then(Value::as_i64) {
            let message = frame.get("message").and_then(Value::as_str).unwrap_or_default();
            let code = i32::try_from(code).unwrap_or(BusError::CODE_NONE);
            way.fail(BusError::failure(code, message));
            return None;
        }
        match reply_address {
            None => way.answer(headers, body),
            Some(_) if self.is_full() => return self.refuse("max_handlers_reached"),
            Some(reply_address) => {
                let limit = self.limit(&frame);
                self.requests.push(Box::pin(async move {
                    let outcome = way.request(headers, body, limit).await;
                    Heard { reply_address, source: address, outcome }
                }));
            }
        }
        None
    }

    fn deliver(&mut self, address: String, mut message: Message) -> Value {
        let reply_address = message.take_reply().map(|way| self.remember(way));
        let Message { headers, body, published, .. } = message;
        let mut frame = Map::new();
        frame.insert("type".into(), self.word("rec", "message").into());
        frame.insert("address".into(), address.into());
        if let Some(reply_address) = reply_address {
            frame.insert("replyAddress".into(), reply_address.into());
        }
        if self.dialect == Dialect::Tcp || !headers.0.is_empty() {
            frame.insert("headers".into(), Value::Object(headers.to_json()));
        }
        if self.dialect == Dialect::SockJs || !body.is_null() {
            frame.insert("body".into(), Arc::unwrap_or_clone(body));
        }
        if self.dialect == Dialect::Tcp {
            frame.insert("send".into(), (!published).into());
        }
        Value::Object(frame)
    }

    fn answer(&mut self, heard: Heard) -> Value {
        let Heard { reply_address, source, outcome } = heard;
        match outcome {
            Ok(message) => self.deliver(reply_address, message),
            Err(BusError { kind, code, message }) => {
                let mut frame = json!({"type": "err", "address": reply_address, "failureCode": code,
                    "failureType": kind.name(), "message": message});
                if self.dialect == Dialect::Tcp {
                    frame["sourceAddress"] = source.into();
                }
                frame
            }
        }
    }

    /// Stores a reply address under a name that cannot be guessed. The oldest one is dropped when there are too many.
    fn remember(&mut self, way: ReplyTo) -> String {
        if self.replies.len() >= self.bridge.limits.handlers {
            self.replies.shift_remove_index(0);
        }
        let name = format!("{:032x}", rand::random::<u128>());
        self.replies.insert(name.clone(), way);
        name
    }

    fn limit(&self, frame: &Map<String, Value>) -> Duration {
        let wanted = frame.get("headers").and_then(|headers| headers.get("timeout"));
        let wanted = wanted.and_then(|it| it.as_u64().or_else(|| it.as_str()?.parse().ok()));
        wanted.filter(|ms| *ms > 0).map_or(self.bridge.limits.reply_time, Duration::from_millis).min(REPLY_TIME_MAX)
    }

    fn is_full(&self) -> bool {
        self.inbox.addresses().count() + self.requests.len() >= self.bridge.limits.handlers
    }

    fn denied(&self, what: &str, address: &str) -> Option<Value> {
        tracing::warn!(address, "a bridge client may not {what} there: no rule allows it");
        self.refuse("access_denied")
    }

    fn refuse(&self, code: &str) -> Option<Value> {
        Some(self.error(code))
    }

    fn error(&self, code: &str) -> Value {
        match self.dialect {
            Dialect::Tcp => json!({"type": "err", "message": code}),
            Dialect::SockJs => json!({"type": "err", "body": code}),
        }
    }

    fn word(&self, sockjs: &'static str, tcp: &'static str) -> &'static str {
        if self.dialect == Dialect::SockJs { sockjs } else { tcp }
    }
}

/// A client may wait this long for an answer at most.
const REPLY_TIME_MAX: Duration = Duration::from_secs(3600);

/// The headers that go on to the receiver.
fn own_headers(frame: &Map<String, Value>) -> Headers {
    let Some(Value::Object(headers)) = frame.get("headers") else { return Headers::default() };
    let mut headers = Headers::from_json(headers);
    headers.0.retain(|(name, _)| !OWN_HEADERS.contains(&name.as_str()));
    headers
}
