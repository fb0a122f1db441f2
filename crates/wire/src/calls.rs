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
        answered(peer, "create", self.client(peer).create(timed(request, CREATE_TIME_MAX)).await)
    }

    pub async fn join(&self, peer: &Peer, request: JoinRequest) -> Result<JoinReply, Status> {
        answered(peer, "join", self.client(peer).join(timed(request, JOIN_TIME_MAX)).await)
    }

    pub async fn claim(&self, peer: &Peer, request: ClaimRequest) -> Result<ClaimReply, Status> {
        answered(peer, "claim", self.client(peer).claim(timed(request, CLAIM_TIME_MAX)).await)
    }

    pub async fn settle(&self, peer: &Peer, request: SettleRequest) -> Result<(), Status> {
        answered(peer, "settle", self.client(peer).settle(timed(request, CLAIM_TIME_MAX)).await).map(drop)
    }

    /// The peer's templates of this name, or all of them.
    pub async fn templates(&self, peer: &Peer, name: Option<&str>) -> Result<Vec<Template>, Status> {
        let request = TemplatesRequest { name: name.unwrap_or_default().to_owned() };
        let reply = self.client(peer).templates(timed(request, CLAIM_TIME_MAX)).await;
        let reply: TemplatesReply = answered(peer, "templates", reply)?;
        Ok(reply.templates)
    }

    /// Follows the news of the peer's engine until one of the two goes away.
    pub async fn follow(&self, peer: &Peer) -> Result<Streaming<FollowReply>, Status> {
        answered(peer, "follow", self.client(peer).follow(FollowRequest {}).await)
    }

    pub async fn reread(&self, peer: &Peer, request: RereadRequest) -> Result<RereadReply, Status> {
        answered(peer, "reread", self.client(peer).reread(timed(request, REREAD_TIME_MAX)).await)
    }

    /// Those of the ports (`8080/tcp`) that programs of the peer's host listen on.
    pub async fn ports(&self, peer: &Peer, ports: Vec<String>) -> Result<Vec<TakenPort>, Status> {
        let request = timed(PortsRequest { ports }, PORTS_TIME_MAX);
        let reply: PortsReply = answered(peer, "ports", self.client(peer).ports(request).await)?;
        Ok(reply.taken)
    }

    /// Forgets the connections to nodes that are not among these.
    pub fn keep(&self, peers: &[Peer]) {
        self.channels.keep(peers);
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

fn timed<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

#[cfg(test)]
mod skew;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use futures_util::StreamExt as _;
    use tokio::net::TcpListener;
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
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::first("a", SystemTime::now()).unwrap();
        let second = Identity::of("b", first.shared.clone(), SystemTime::now()).unwrap();
        let id = second.id.clone();
        let there = Link::new(second, folder.path().join("b")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Peer { id, addr: listener.local_addr().unwrap().to_string() };
        let stop = CancellationToken::new();
        let _end = stop.clone().drop_guard();
        let accept = |incoming: Incoming| {
            let outgrown = incoming.outgrown();
            tokio::spawn(serve(Arc::new(PeerService), incoming.stream, outgrown));
        };
        tokio::spawn(there.serve(listener, stop, accept));
        let calls = Calls::new(Link::new(first, folder.path().join("a")).unwrap());
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
}
