//! Calls between the nodes of a swarm: managers' stores, and sessions of nodes with the leader.
//!
//! Bodies are opaque here; who called is proved by its certificate.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsStream;
use tonic::{Request, Response, Streaming};
pub use tonic::{Status, async_trait};

use crate::calls::answered;
use crate::channels::{Channels, Peer};
use crate::link::{Link, Road};
use crate::subject::Subject;

#[expect(unreachable_pub, clippy::allow_attributes, reason = "made by tonic")]
mod proto {
    tonic::include_proto!("herder.swarm.v1");
}

use proto::Message;
use proto::swarm_client::SwarmClient;
use proto::swarm_server::{Swarm, SwarmServer};

/// A part of a snapshot, or what a node with ten thousand tasks shall run.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Maximum time of a message between stores. The command may still reach the disks of most managers.
const RAFT_TIME_MAX: Duration = Duration::from_secs(30);
/// Messages of one session that wait to be sent. When a peer takes none for so long that it is full, the session ends.
pub const SESSION_WAITING_MAX: usize = 1024;

/// Inbound messages of a session, until one side goes away.
pub type Heard = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
/// Outbound messages of a session.
pub type Said = mpsc::Receiver<Bytes>;

/// Answers calls about the swarm.
#[async_trait]
pub trait Managers: Send + Sync + 'static {
    /// A message of the store of the node `from`.
    async fn raft(&self, from: &Subject, message: Bytes) -> Result<Bytes, Status>;
    /// The node `from` opens a session.
    async fn session(&self, from: &Subject, heard: Heard) -> Result<Said, Status>;
}

/// Serves the calls of the peer `from` until it closes the connection.
pub async fn serve(managers: Arc<dyn Managers>, from: Subject, stream: TlsStream<TcpStream>) {
    let answers = SwarmServer::new(Answers { managers, from });
    let service = TowerToHyperService::new(answers.max_decoding_message_size(MESSAGE_BYTES_MAX));
    let mut connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    connection.timer(hyper_util::rt::TokioTimer::new());
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a peer's connection for calls of the swarm ended");
    }
}

struct Answers {
    managers: Arc<dyn Managers>,
    from: Subject,
}

#[async_trait]
impl Swarm for Answers {
    async fn raft(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let body = self.managers.raft(&self.from, request.into_inner().body.into()).await?;
        Ok(Response::new(Message { body: body.into() }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

    async fn session(&self, request: Request<Streaming<Message>>) -> Result<Response<Self::SessionStream>, Status> {
        let said = self.managers.session(&self.from, heard(request.into_inner())).await?;
        Ok(Response::new(Box::pin(messages(said).map(Ok))))
    }
}

fn heard(stream: Streaming<Message>) -> Heard {
    Box::pin(stream.map(|message| message.map(|it| Bytes::from(it.body))))
}

fn messages(said: Said) -> impl Stream<Item = Message> + Send + 'static {
    futures_util::stream::unfold(said, |mut said| async {
        let body = said.recv().await?;
        Some((Message { body: body.into() }, said))
    })
}

/// Calls to other nodes of the swarm; one connection for each, opened when first needed.
#[derive(Debug)]
pub struct SwarmCalls {
    channels: Channels,
}

impl SwarmCalls {
    pub fn new(link: Arc<Link>) -> SwarmCalls {
        SwarmCalls { channels: Channels::new(link, Road::Swarm) }
    }

    pub async fn raft(&self, peer: &Peer, message: Bytes) -> Result<Bytes, Status> {
        let mut request = Request::new(Message { body: message.into() });
        request.set_timeout(RAFT_TIME_MAX);
        let reply = answered(peer, "raft", self.client(peer).raft(request).await)?;
        Ok(reply.body.into())
    }

    /// Opens a session; what is put into `said` is sent, until it is closed.
    pub async fn session(&self, peer: &Peer, said: Said) -> Result<Heard, Status> {
        let reply = self.client(peer).session(messages(said)).await;
        Ok(heard(answered(peer, "session", reply)?))
    }

    /// Forgets all connections: those that are opened from now on show this node's new certificate. Sessions go on.
    pub fn forget(&self) {
        self.channels.keep(&[]);
    }

    /// Forgets the connections to nodes that are not among these.
    pub fn keep(&self, peers: &[Peer]) {
        self.channels.keep(peers);
    }

    fn client(&self, peer: &Peer) -> SwarmClient<tonic::transport::Channel> {
        SwarmClient::new(self.channels.to(peer)).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::identity::Identity;
    use crate::link::Incoming;

    /// Returns each message with its sender.
    struct Echo;

    #[async_trait]
    impl Managers for Echo {
        async fn raft(&self, from: &Subject, message: Bytes) -> Result<Bytes, Status> {
            Ok([from.node.as_bytes(), b":", &message].concat().into())
        }

        async fn session(&self, from: &Subject, mut heard: Heard) -> Result<Said, Status> {
            let (say, said) = mpsc::channel(SESSION_WAITING_MAX);
            let from = from.clone();
            tokio::spawn(async move {
                while let Some(Ok(message)) = heard.next().await {
                    let _ = say.send([from.node.as_bytes(), b":", &message].concat().into()).await;
                }
            });
            Ok(said)
        }
    }

    #[tokio::test]
    async fn who_called_is_known_by_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::first("a", SystemTime::now()).unwrap();
        let second = Identity::of("b", first.shared.clone(), SystemTime::now()).unwrap();
        let (me, id) = (first.id.clone(), second.id.clone());
        let there = Link::new(second, folder.path().join("b")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Peer { id, addr: listener.local_addr().unwrap().to_string() };
        let stop = CancellationToken::new();
        let _end = stop.clone().drop_guard();
        let accept = |incoming: Incoming| {
            tokio::spawn(serve(Arc::new(Echo), incoming.subject, incoming.stream));
        };
        tokio::spawn(there.serve(listener, stop, accept));
        let calls = SwarmCalls::new(Link::new(first, folder.path().join("a")).unwrap());
        let expected = |text: &str| Bytes::from(format!("{me}:{text}"));
        assert_eq!(calls.raft(&peer, Bytes::from_static(b"vote")).await.unwrap(), expected("vote"));
        let (say, said) = mpsc::channel(1);
        let mut heard = calls.session(&peer, said).await.unwrap();
        for text in ["hello", "report"] {
            say.send(Bytes::from(text)).await.unwrap();
            assert_eq!(heard.next().await.unwrap().unwrap(), expected(text));
        }
        drop(say);
        assert!(heard.next().await.is_none(), "the session ends with who opened it");
    }
}
