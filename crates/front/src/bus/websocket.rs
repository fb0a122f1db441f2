//! The event bus over WebSocket: frames of the bridge as messages, bare or in SockJS's wrapping.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use herder_bus::bridge::{Bridge, Dialect, Session, sockjs};
use http::header::HeaderValue;
use http::{Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::BusDoor;
use crate::{ApiError, Call, Reply};
use herder_http::Counted;

/// A client that takes nothing for this long is given up.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// Form of frames on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// One frame of the bridge a message: binary as Vert.x sends them, or text.
    Raw {
        text: bool,
    },
    SockJs,
}

/// Agrees to the upgrade, and serves the client once it is done.
pub(super) fn open(door: &BusDoor, call: &mut Call, form: Form) -> Result<Reply, ApiError> {
    let headers = &call.parts.headers;
    let wanted = headers.get(header::UPGRADE).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let upgrade = call.parts.extensions.remove::<OnUpgrade>();
    let (true, Some(key), Some(upgrade)) = (wanted, key, upgrade) else {
        return Err(ApiError::bad_request("this is a WebSocket: Can \"Upgrade\" only to \"WebSocket\"."));
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken"));
    }
    let key = HeaderValue::from_str(&key).map_err(|error| ApiError::internal(error.to_string()))?;
    let counted = call.parts.extensions.remove::<Counted>();
    let bridge = door.bridge.clone();
    tokio::spawn(async move {
        if let Err(error) = serve(bridge, upgrade, form).await {
            tracing::debug!(%error, "a WebSocket ended badly");
        }
        drop(counted);
    });
    let mut reply = Response::new(herder_pool::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    Ok(reply)
}

/// Event of one turn of the loop.
enum Turn {
    Said(Message),
    Ended,
    Frame(Value),
    Heartbeat,
    Late,
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn serve(bridge: Arc<Bridge>, upgrade: OnUpgrade, form: Form) -> Result<(), tungstenite::Error> {
    let upgraded = upgrade.await.map_err(|error| tungstenite::Error::Io(std::io::Error::other(error)))?;
    let frame_max = bridge.limits.frame_bytes;
    let config = WebSocketConfig::default().max_message_size(Some(frame_max)).max_frame_size(Some(frame_max));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let ping_time = bridge.limits.ping_time;
    let mut session = Session::new(bridge, Dialect::SockJs);
    if let Form::SockJs = form {
        write(&mut socket, Message::text(sockjs::OPEN)).await?;
    }
    let (mut heard, mut written) = (Instant::now(), Instant::now());
    loop {
        let turn = tokio::select! {
            said = socket.next() => said.transpose()?.map_or(Turn::Ended, Turn::Said),
            frame = session.next() => Turn::Frame(frame),
            () = sleep_until(heard + ping_time) => Turn::Late,
            () = sleep_until(written + sockjs::HEARTBEAT) => Turn::Heartbeat,
        };
        match turn {
            Turn::Ended => return Ok(()),
            Turn::Late => {
                let frame = CloseFrame { code: CloseCode::Away, reason: "Session expired".into() };
                return write(&mut socket, Message::Close(Some(frame))).await;
            }
            Turn::Frame(frame) => {
                write(&mut socket, form.wrap(&frame)).await?;
                written = Instant::now();
            }
            Turn::Heartbeat => {
                if let Form::SockJs = form {
                    write(&mut socket, Message::text(sockjs::ALIVE)).await?;
                }
                written = Instant::now();
            }
            Turn::Said(message) => {
                heard = Instant::now();
                let Some(texts) = form.unwrap(message) else {
                    return write(&mut socket, Message::Close(None)).await;
                };
                for text in texts {
                    if let Some(answer) = session.take(&text) {
                        write(&mut socket, form.wrap(&answer)).await?;
                        written = Instant::now();
                    }
                }
            }
        }
    }
}

async fn write(socket: &mut Socket, message: Message) -> Result<(), tungstenite::Error> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the client does not read");
    timeout(WRITE_TIME_MAX, socket.send(message)).await.map_err(|_| late())?
}

impl Form {
    fn wrap(self, frame: &Value) -> Message {
        match self {
            Form::Raw { text: true } => Message::text(frame.to_string()),
            Form::Raw { text: false } => Message::binary(frame.to_string()),
            Form::SockJs => Message::text(sockjs::messages([frame.to_string().as_str()])),
        }
    }

    /// Returns the frames of a message; `None` if it is malformed.
    fn unwrap(self, message: Message) -> Option<Vec<Vec<u8>>> {
        let bytes = match message {
            Message::Text(text) => text.as_bytes().to_vec(),
            Message::Binary(bytes) => bytes.to_vec(),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => return Some(Vec::new()),
        };
        match self {
            Form::Raw { .. } => Some(vec![bytes]),
            Form::SockJs if bytes.is_empty() => Some(Vec::new()),
            Form::SockJs => Some(sockjs::payload(&bytes).ok()?.into_iter().map(String::into_bytes).collect()),
        }
    }
}
