//! The HTTP server: listeners, limits, callers, raw connections. Knows no Docker.
//!
//! See ARCHITECTURE.md.

pub mod body;
pub mod budget;
mod head;
pub mod hijack;
mod principal;
mod server;

pub use head::{Busy, HeadLimit, UnderWay};
pub use principal::{Peer, Principal};
pub use server::{
    Answer, BindError, Counted, Handler, Listener, ListenerNames, RawHandler, Stream, bind, one_connection,
    serve_newest, serve_raw,
};

/// Any error that a body can end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streaming body, in either direction.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;
