//! `herder bus`: a client of a door's event bus, over its WebSocket.

use std::collections::VecDeque;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use herder_bus::bridge::EVENT_ADDRESSES;
use herder_cli::{BusArgs, BusVerb, Listen, Post, bus_body};
use herder_docker::empty;
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, interval, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::door::{DOOR_WAIT_MAX, Door};

/// A door forgets clients that say nothing for ten seconds.
const PING_PERIOD: Duration = Duration::from_secs(5);

/// The answer to a request may come this long after its time is over, which the bus itself watches.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// The only request's own name for its answer.
const REPLY_ADDRESS: &str = "answer";

pub(crate) async fn run(asked: BusArgs) -> anyhow::Result<()> {
    match asked.verb {
        BusVerb::Send(post) => tell("send", &post).await,
        BusVerb::Publish(post) => tell("publish", &post).await,
        BusVerb::Request(request) => {
            let limit = request.limit()?;
            let frame = message("send", &request.post, Some(limit))?;
            let answer = ask(&request.post.door, frame, limit).await?;
            let text = if request.format == "json" { kept(answer) } else { plain(&answer["body"]) };
            anstream::println!("{text}");
            Ok(())
        }
        BusVerb::Listen(listen) => hear(&listen).await,
    }
}

async fn tell(kind: &str, post: &Post) -> anyhow::Result<()> {
    let mut line = Line::open(&Door::of(&post.door)?).await?;
    line.say(&message(kind, post, None)?).await?;
    line.settle().await
}

async fn ask(door: &herder_cli::Door, frame: Value, limit: Duration) -> anyhow::Result<Value> {
    let door = Door::of(door)?;
    let mut line = Line::open(&door).await?;
    line.say(&frame).await?;
    let deadline = Instant::now() + limit + ANSWER_GRACE;
    loop {
        let heard = timeout_at(deadline, line.hear()).await;
        let frame =
            heard.map_err(|_| anyhow!("the door at {} does not report the result of the request", door.host))??;
        if frame["address"] != REPLY_ADDRESS {
            continue;
        }
        if frame["type"] == "err" {
            let text = |field: &str| plain(&frame[field]);
            bail!("{} ({}): {}", text("failureType"), text("failureCode"), text("message"));
        }
        return Ok(frame);
    }
}

async fn hear(listen: &Listen) -> anyhow::Result<()> {
    let mut addresses: Vec<&str> = listen.address.iter().map(String::as_str).collect();
    if addresses.is_empty() {
        addresses = EVENT_ADDRESSES.to_vec();
    }
    let reply = listen.reply.as_deref().map(bus_body);
    let mut line = Line::open(&Door::of(&listen.door)?).await?;
    for address in addresses {
        line.say(&json!({"type": "register", "address": address})).await?;
    }
    line.settle().await?;
    let mut left = listen.count.unwrap_or(u64::MAX);
    while left > 0 {
        let frame = line.hear().await?;
        if let (Some(reply), Some(way)) = (&reply, frame["replyAddress"].as_str()) {
            line.say(&json!({"type": "send", "address": way, "body": reply})).await?;
        }
        let text = match listen.format.as_str() {
            "json" => kept(frame),
            _ => format!("{} {}", plain(&frame["address"]), plain(&frame["body"])),
        };
        anstream::println!("{text}");
        left -= 1;
    }
    // What was answered last must be on its way before the line is cut.
    line.settle().await
}

/// The frame of a message.
fn message(kind: &str, post: &Post, reply_within: Option<Duration>) -> anyhow::Result<Value> {
    let mut body = post.body.clone();
    if body == "-" {
        body.clear();
        std::io::stdin().read_to_string(&mut body).context("cannot read the input")?;
    }
    let headers = post.header.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let mut headers: Map<String, Value> = headers.collect();
    let mut frame = json!({"type": kind, "address": post.address, "body": bus_body(&body)});
    if let Some(limit) = reply_within {
        headers.insert("timeout".into(), u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).into());
        frame["replyAddress"] = REPLY_ADDRESS.into();
    }
    frame["headers"] = headers.into();
    Ok(frame)
}

/// Returns the content of a frame as JSON: address, headers and body.
fn kept(mut frame: Value) -> String {
    let mut kept = json!({});
    for field in ["address", "headers", "body"] {
        let value = frame[field].take();
        // The address of an answer is our own word for it.
        if !(value.is_null() && field == "headers" || value == REPLY_ADDRESS && field == "address") {
            kept[field] = value;
        }
    }
    kept.to_string()
}

/// Texts without quotes, all else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A connection to the bus.
struct Line {
    socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    pings: tokio::time::Interval,
    /// Frames that arrived before they were asked for.
    waiting: VecDeque<Value>,
}

impl Line {
    async fn open(door: &Door) -> anyhow::Result<Line> {
        let request = http::Request::get("/eventbus/websocket?text=1")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .body(empty())?;
        let mut response = door.send(request).await?;
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            StatusCode::NOT_FOUND => bail!("the door at {} has no event bus; nodes of `herder up` have one", door.host),
            _ => return Err(door.refusal(response).await.context("the event bus is not opened")),
        }
        let upgraded = hyper::upgrade::on(&mut response).await.context("the upgrade failed")?;
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        Ok(Line { socket, pings: interval(PING_PERIOD), waiting: VecDeque::new() })
    }

    async fn say(&mut self, frame: &Value) -> anyhow::Result<()> {
        self.socket.send(Message::text(frame.to_string())).await.context("the door went away")
    }

    /// The next message or failure. What the door refuses is an error.
    async fn hear(&mut self) -> anyhow::Result<Value> {
        if let Some(frame) = self.waiting.pop_front() {
            return Ok(frame);
        }
        loop {
            match self.read().await? {
                Read::Frame(frame) => return Ok(frame),
                Read::Pong => {}
            }
        }
    }

    /// Waits until the door has processed all frames so far, and returned its refusals.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.socket.send(Message::Ping(bytes::Bytes::new())).await.context("the door went away")?;
        let deadline = Instant::now() + DOOR_WAIT_MAX;
        loop {
            match timeout_at(deadline, self.read()).await.context("the door does not answer")?? {
                Read::Pong => return Ok(()),
                Read::Frame(frame) => self.waiting.push_back(frame),
            }
        }
    }

    async fn read(&mut self) -> anyhow::Result<Read> {
        loop {
            let message = tokio::select! {
                message = self.socket.next() => message,
                _ = self.pings.tick() => {
                    self.say(&json!({"type": "ping"})).await?;
                    continue;
                }
            };
            let bytes = match message.context("the door closed the connection")?? {
                Message::Text(text) => text.as_bytes().to_vec(),
                Message::Binary(bytes) => bytes.to_vec(),
                Message::Pong(_) => return Ok(Read::Pong),
                Message::Close(frame) => {
                    bail!(
                        "the door closed the connection: {}",
                        frame.map(|it| it.reason.to_string()).unwrap_or_default()
                    )
                }
                Message::Ping(_) | Message::Frame(_) => continue,
            };
            let frame: Value = serde_json::from_slice(&bytes).context("the door sends malformed JSON")?;
            if frame["type"] == "err" && frame["address"].is_null() {
                bail!("{}", refusal(&plain(&frame["body"])));
            }
            return Ok(Read::Frame(frame));
        }
    }
}

enum Read {
    Frame(Value),
    Pong,
}

fn refusal(code: &str) -> String {
    match code {
        "access_denied" => "access_denied: no rule of the door allows this address or message".to_owned(),
        "max_address_length_reached" => "max_address_length_reached: the address is too long".to_owned(),
        code => format!("the door refuses: {code}"),
    }
}
