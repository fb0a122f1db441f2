//! Listeners of the front: [`serve`] for Docker's clients, [`serve_bus`] for Vert.x clients of the event bus by TCP.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use herder_bus::bridge::{self, Bridge};
use herder_http::{Answer, Handler, Peer, RawHandler, Stream};
use herder_pool::Body;
use http::Request;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Span;

pub use herder_http::{BindError, Listener, bind, serve_newest};

use crate::Front;

/// Clients of the bus by TCP at the same time; more wait in the kernel.
const BUS_CLIENTS_MAX: usize = 1024;

impl Handler for Front {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Answer {
        Box::pin(async move { Front::handle(&self, request).await })
    }
}

/// Serves until `stop`; then no connection is taken any more, and requests under way have a moment to end.
pub async fn serve(front: Arc<Front>, listeners: Vec<Listener>, stop: CancellationToken) {
    serve_newest(watch::channel(front).1, listeners, stop).await;
}

/// Serves clients of the event bus, which speak the TCP bridge protocol of Vert.x, until `stop`.
pub async fn serve_bus(bridge: Arc<Bridge>, listener: Listener, stop: CancellationToken) {
    herder_http::serve_raw(Arc::new(BusClients(bridge)), listener, BUS_CLIENTS_MAX, stop).await;
}

#[derive(Debug)]
struct BusClients(Arc<Bridge>);

impl RawHandler for BusClients {
    fn serve(self: Arc<Self>, stream: Box<dyn Stream>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(bridge::tcp::connection(self.0.clone(), stream))
    }

    fn span(&self, peer: &Peer) -> Span {
        match peer {
            Peer::Tcp(addr) => tracing::info_span!("bus", client = %addr),
            Peer::Unix { .. } | Peer::Local => Span::none(),
        }
    }
}
