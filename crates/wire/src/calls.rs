//! Typed calls between nodes: gRPC over the node link.

use std::error::Error as _;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::transport::Channel;

use crate::channels::Channels;
pub use crate::channels::Peer;
use crate::link::{Link, LinkError, Road};

#[expect(unreachable_pub, clippy::allow_attributes, reason = "made by tonic")]
mod proto {
    tonic::include_proto!("herder.node.v1");
}

pub use proto::node_server::Node as Answers;
pub use proto::{
    ClaimReply, ClaimRequest, CreateReply, CreateRequest, FollowReply, FollowRequest, JoinReply, JoinRequest, Part,
    PortsReply, PortsRequest, RereadReply, RereadRequest, SettleReply, SettleRequest, TakenPort, Template,
    TemplatesReply, TemplatesRequest,
};
pub use tonic::{Code, Request, Response, Status, Streaming, async_trait};

/// The news stream of one node's engine.
pub type NewsStream = Pin<Box<dyn Stream<Item = Result<FollowReply, Status>> + Send>>;

use proto::node_client::NodeClient;
use proto::node_server::NodeServer;

/// A create may bring an image over first.
const CREATE_TIME_MAX: Duration = Duration::from_secs(600);
/// Managers give a place within 20 s, or none.
const JOIN_TIME_MAX: Duration = Duration::from_secs(60);
/// A claim is a look into memory.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(3);
/// A client waits; a node that is slower warns when it finds a port taken.
const PORTS_TIME_MAX: Duration = Duration::from_secs(1);
/// An engine lists 10,000 containers in about 2 s.
const REREAD_TIME_MAX: Duration = Duration::from_secs(30);
/// A create body, with room around it; as large as the door takes them.
const MESSAGE_BYTES_MAX: usize = 9 << 20;

/// Serves the calls of one peer until it closes the connection, or has outgrown it.
pub async fn serve<A: Answers>(answers: Arc<A>, stream: TlsStream<TcpStream>, outgrown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(NodeServer::from_arc(answers).max_decoding_message_size(MESSAGE_BYTES_MAX));
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = outgrown => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a peer's connection for calls ended");
    }
}

/// Calls to other nodes; one connection for each, opened when first needed.
#[derive(Debug)]
pub struct Calls {
    channels: Channels,
}

impl Calls {
    pub fn new(link: Arc<Link>) -> Calls {
        Calls { channels: Channels::new(link, Road::Calls) }
    }

    /// This node's end of them.
    pub fn link(&self) -> &Arc<Link> {
        self.channels.link()
    }

    pub async fn create(&self, peer: &Peer, request: CreateRequest) -> Result<CreateReply, Status> {
        self.ask(peer, "create", request, Some(CREATE_TIME_MAX), async |mut at, it| at.create(it).await).await
    }

    pub async fn join(&self, peer: &Peer, request: JoinRequest) -> Result<JoinReply, Status> {
        self.ask(peer, "join", request, Some(JOIN_TIME_MAX), async |mut at, it| at.join(it).await).await
    }

    pub async fn claim(&self, peer: &Peer, request: ClaimRequest) -> Result<ClaimReply, Status> {
        self.ask(peer, "claim", request, Some(CLAIM_TIME_MAX), async |mut at, it| at.claim(it).await).await
    }

    pub async fn settle(&self, peer: &Peer, request: SettleRequest) -> Result<(), Status> {
        self.ask(peer, "settle", request, Some(CLAIM_TIME_MAX), async |mut at, it| at.settle(it).await).await.map(drop)
    }

    /// The peer's templates of this name, or all of them.
    pub async fn templates(&self, peer: &Peer, name: Option<&str>) -> Result<Vec<Template>, Status> {
        let request = TemplatesRequest { name: name.unwrap_or_default().to_owned() };
        let reply: TemplatesReply = self
            .ask(peer, "templates", request, Some(CLAIM_TIME_MAX), async |mut at, it| at.templates(it).await)
            .await?;
        Ok(reply.templates)
    }

    /// Follows the news of the peer's engine until one of the two goes away.
    pub async fn follow(&self, peer: &Peer) -> Result<Streaming<FollowReply>, Status> {
        self.ask(peer, "follow", FollowRequest {}, None, async |mut at, it| at.follow(it).await).await
    }

    pub async fn reread(&self, peer: &Peer, request: RereadRequest) -> Result<RereadReply, Status> {
        self.ask(peer, "reread", request, Some(REREAD_TIME_MAX), async |mut at, it| at.reread(it).await).await
    }

    /// Those of the ports (`8080/tcp`) that programs of the peer's host listen on.
    pub async fn ports(&self, peer: &Peer, ports: Vec<String>) -> Result<Vec<TakenPort>, Status> {
        let request = PortsRequest { ports };
        let reply: PortsReply =
            self.ask(peer, "ports", request, Some(PORTS_TIME_MAX), async |mut at, it| at.ports(it).await).await?;
        Ok(reply.taken)
    }

    /// Forgets the connections to nodes that are not among these.
    pub fn keep(&self, peers: &[Peer]) {
        self.channels.keep(peers);
    }

    /// Makes a call. One that the peer did not begin, since it closed the connection just then, is made over another one.
    async fn ask<Q: Clone, R>(
        &self,
        peer: &Peer,
        call: &str,
        message: Q,
        limit: Option<Duration>,
        send: impl AsyncFn(NodeClient<Channel>, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, Status> {
        let request = || {
            let mut request = Request::new(message.clone());
            limit.into_iter().for_each(|it| request.set_timeout(it));
            request
        };
        let mut reply = send(self.client(peer), request()).await;
        if reply.as_ref().is_err_and(was_not_begun) {
            self.channels.forget(peer);
            reply = send(self.client(peer), request()).await;
        }
        answered(peer, call, reply)
    }

    fn client(&self, peer: &Peer) -> NodeClient<Channel> {
        NodeClient::new(self.channels.to(peer)).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// The answer of a peer. Where it is none, the status says why in words that name the peer.
pub(crate) fn answered<T>(peer: &Peer, call: &str, reply: Result<Response<T>, Status>) -> Result<T, Status> {
    reply.map(Response::into_inner).map_err(|status| {
        if status.code() == Code::Unimplemented {
            let text = format!("node {} is of a version that does not know the call `{call}`; update it", peer.addr);
            return Status::unimplemented(text);
        }
        let causes = std::iter::successors(status.source(), |error| (*error).source());
        let of_link = causes.filter_map(|error| error.downcast_ref::<LinkError>()).last();
        of_link.map_or(status.clone(), |error| Status::new(status.code(), error.to_string()))
    })
}

/// True if the peer has not begun the call.
///
/// The connection was closed before the call was sent, or was being closed in good order when it arrived (RFC 9113, 6.8).
fn was_not_begun(status: &Status) -> bool {
    let is_refused = |it: &h2::Error| it.is_go_away() && it.is_remote() && it.reason() == Some(h2::Reason::NO_ERROR);
    std::iter::successors(status.source(), |error| (*error).source()).any(|error| {
        error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
            || error.downcast_ref::<h2::Error>().is_some_and(is_refused)
    })
}

#[cfg(test)]
mod skew;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use futures_util::StreamExt as _;
    use tokio::net::TcpListener;
    use tokio::sync::Notify;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::identity::Identity;
    use crate::link::Incoming;

    /// Grants every name but `taken`.
    pub(super) struct PeerService;

    #[async_trait]
    impl Answers for PeerService {
        async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateReply>, Status> {
            Ok(Response::new(CreateReply { status: 201, body: request.into_inner().body, ..Default::default() }))
        }
        async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
            Ok(Response::new(JoinReply { status: 200, reason: request.into_inner().network }))
        }
        async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimReply>, Status> {
            let taken = request.into_inner().name == "taken";
            Ok(Response::new(ClaimReply { claim: u64::from(!taken), reason: String::new() }))
        }
        async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
            Ok(Response::new(SettleReply {}))
        }
        async fn templates(&self, request: Request<TemplatesRequest>) -> Result<Response<TemplatesReply>, Status> {
            let one = Template { name: request.into_inner().name, text: "{}".into(), modified: 7 };
            Ok(Response::new(TemplatesReply { templates: vec![one] }))
        }
        type FollowStream = NewsStream;
        async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<NewsStream>, Status> {
            let pieces = futures_util::stream::iter([1, 2]).map(|it| Ok(FollowReply { news: vec![it] }));
            Ok(Response::new(pieces.chain(futures_util::stream::pending()).boxed()))
        }
        async fn reread(&self, request: Request<RereadRequest>) -> Result<Response<RereadReply>, Status> {
            let number = if request.into_inner().part() == Part::Images { 1 } else { 0 };
            Ok(Response::new(RereadReply { number }))
        }
        async fn ports(&self, request: Request<PortsRequest>) -> Result<Response<PortsReply>, Status> {
            let taken = request.into_inner().ports.into_iter().map(|port| TakenPort { port, program: "x".into() });
            Ok(Response::new(PortsReply { taken: taken.collect() }))
        }
    }

    #[tokio::test]
    async fn calls_reach_the_peer_and_large_bodies_come_back_whole() {
        let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let _end = stop.clone().drop_guard();
        let (calls, peer) = two(folder.path(), Arc::default(), stop).await;
        for (name, expected) in [("free", 1), ("taken", 0)] {
            let request = ClaimRequest { name: name.into(), ..Default::default() };
            assert_eq!(calls.claim(&peer, request).await.unwrap().claim, expected, "{name}");
        }
        let templates = calls.templates(&peer, Some("test")).await.unwrap();
        assert_eq!(templates, [Template { name: "test".into(), text: "{}".into(), modified: 7 }]);
        let mut told = calls.follow(&peer).await.unwrap();
        for expected in [1, 2] {
            assert_eq!(told.message().await.unwrap().unwrap().news, [expected]);
        }
        let request = RereadRequest { part: Part::Images.into(), container: String::new() };
        assert_eq!(calls.reread(&peer, request).await.unwrap().number, 1);
        let taken = calls.ports(&peer, vec!["80/tcp".into()]).await.unwrap();
        assert_eq!(taken, [TakenPort { port: "80/tcp".into(), program: "x".into() }]);
        let body = vec![7; 8 << 20];
        let reply = calls.create(&peer, CreateRequest { body: body.clone(), ..Default::default() }).await.unwrap();
        assert_eq!((reply.status, reply.body), (201, body));
        let nobody = Peer { id: peer.id.clone(), addr: "127.0.0.1:1".into() };
        assert!(
            calls.settle(&nobody, SettleRequest { claim: 1, used: true, ..SettleRequest::default() }).await.is_err()
        );
    }

    /// Two nodes that know each other. Each connection of the second one is outgrown when `end` is told.
    async fn two(folder: &std::path::Path, end: Arc<Notify>, stop: CancellationToken) -> (Calls, Peer) {
        let first = Identity::first("a", SystemTime::now()).unwrap();
        let second = Identity::of("b", first.shared.clone(), SystemTime::now()).unwrap();
        let id = second.id.clone();
        let there = Link::new(second, folder.join("b")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Peer { id, addr: listener.local_addr().unwrap().to_string() };
        let accept = move |incoming: Incoming| {
            let outgrown = end.clone().notified_owned();
            tokio::spawn(serve(Arc::new(PeerService), incoming.stream, outgrown));
        };
        tokio::spawn(there.serve(listener, stop, accept));
        (Calls::new(Link::new(first, folder.join("a")).unwrap()), peer)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_that_meets_the_end_of_its_connection_is_made_over_another_one() {
        let (folder, end, stop) = (tempfile::tempdir().unwrap(), Arc::new(Notify::new()), CancellationToken::new());
        let _end = stop.clone().drop_guard();
        let (calls, peer) = two(folder.path(), end.clone(), stop).await;
        for round in 0..50 {
            let request = || ClaimRequest { name: "free".into(), ..Default::default() };
            calls.claim(&peer, request()).await.unwrap();
            end.notify_waiters();
            let reply = calls.claim(&peer, request()).await;
            assert!(reply.is_ok(), "round {round}: {reply:?}");
        }
    }
}
