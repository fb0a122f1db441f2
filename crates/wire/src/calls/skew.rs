//! Tests calls between a node of this version and one of the next. One of them lacks fields and calls.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::uri::PathAndQuery;
use hyper::body::Incoming as Body;
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::tests::PeerService;
use super::*;
use crate::identity::{Identity, server_name};
use crate::link::Incoming;

const CLAIM: &str = "/herder.node.v1.Node/Claim";

/// The request with more fields, as a next version may have it.
#[derive(Clone, PartialEq, prost::Message)]
struct NextClaimRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "77")]
    number: u64,
    #[prost(string, repeated, tag = "78")]
    list: Vec<String>,
    #[prost(message, optional, tag = "79")]
    inner: Option<NextClaimReply>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NextClaimReply {
    #[prost(uint64, tag = "1")]
    claim: u64,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(bytes, tag = "77")]
    more: Vec<u8>,
}

fn protocols() -> Vec<Vec<u8>> {
    [&b"herder-calls/2"[..], b"herder-calls/1"].map(<[u8]>::to_vec).into()
}

/// Two nodes of one pool.
fn two() -> (Identity, Identity) {
    let now = SystemTime::now();
    let here = Identity::first("here", now).unwrap();
    let there = Identity::of("there", here.shared.clone(), now).unwrap();
    (here, there)
}

fn link(identity: Identity) -> (Arc<Link>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Link::new(identity, folder.path().to_owned()).unwrap(), folder)
}

/// Dials as the next version does.
struct NextConnector {
    identity: Identity,
    peer: Peer,
}

impl Service<http::Uri> for NextConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let config = self.identity.client(protocols()).unwrap();
        let name = server_name(&self.peer.id).try_into().unwrap();
        let addr = self.peer.addr.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(addr).await?;
            Ok(TokioIo::new(TlsConnector::from(config).connect(name, tcp).await?.into()))
        })
    }
}

async fn next_asks(channel: &Channel, path: &'static str) -> Result<NextClaimReply, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let inner = Some(NextClaimReply { claim: 3, reason: "x".into(), more: vec![0xff; 100] });
    let request = NextClaimRequest { name: "free".into(), number: u64::MAX, list: vec!["y".into()], inner };
    let codec: ProstCodec<NextClaimRequest, NextClaimReply> = ProstCodec::default();
    let reply = client.unary(Request::new(request), PathAndQuery::from_static(path), codec).await;
    reply.map(Response::into_inner)
}

#[tokio::test]
async fn fields_and_calls_of_the_next_version_are_no_harm_here() {
    let (here, there) = two();
    let id = here.id.clone();
    let (link, _folder) = link(here);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer { id, addr: listener.local_addr().unwrap().to_string() };
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    let accept = |incoming: Incoming| {
        assert_eq!(incoming.road, Road::Calls);
        let outgrown = incoming.outgrown();
        tokio::spawn(serve(Arc::new(PeerService), incoming.stream, outgrown));
    };
    tokio::spawn(link.serve(listener, stop, accept));
    let endpoint = Endpoint::from_static("http://node.herder");
    let channel = endpoint.connect_with_connector(NextConnector { identity: there, peer }).await.unwrap();
    let granted = NextClaimReply { claim: 1, reason: String::new(), more: Vec::new() };
    assert_eq!(next_asks(&channel, CLAIM).await.unwrap(), granted);
    for unknown in ["/herder.node.v1.Node/Marry", "/herder.node.v2.Node/Claim", "/x"] {
        let error = next_asks(&channel, unknown).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{unknown}: {error}");
    }
    // The same connection goes on.
    assert_eq!(next_asks(&channel, CLAIM).await.unwrap(), granted);
}

/// Answers claims as the next version does, and knows no other call.
#[derive(Clone)]
struct NextAnswers;

impl Service<Request<NextClaimRequest>> for NextAnswers {
    type Response = Response<NextClaimReply>;
    type Error = Status;
    type Future = Ready<Result<Response<NextClaimReply>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<NextClaimRequest>) -> Self::Future {
        let request = request.into_inner();
        // Fields that this version does not send mean nothing.
        let plain = request == NextClaimRequest { name: request.name.clone(), ..NextClaimRequest::default() };
        ready(Ok(Response::new(NextClaimReply { claim: 7, reason: format!("{plain}"), more: vec![1; 1000] })))
    }
}

async fn next_answers(request: http::Request<Body>) -> Result<http::Response<tonic::body::Body>, Infallible> {
    if request.uri().path() != CLAIM {
        return Ok(Status::unimplemented("").into_http());
    }
    let codec: ProstCodec<NextClaimReply, NextClaimRequest> = ProstCodec::default();
    Ok(tonic::server::Grpc::new(codec).unary(NextAnswers, request).await)
}

/// A node of the next version that serves calls over whichever of `protocols` the peer knows.
async fn next_node(identity: &Identity, protocols: Vec<Vec<u8>>) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer { id: identity.id.clone(), addr: listener.local_addr().unwrap().to_string() };
    let acceptor = TlsAcceptor::from(identity.server(protocols).unwrap());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(tcp).await {
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let service = hyper::service::service_fn(next_answers);
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        }
    });
    peer
}

fn claim(name: &str) -> ClaimRequest {
    ClaimRequest { name: name.into(), ..ClaimRequest::default() }
}

#[tokio::test]
async fn a_node_of_the_next_version_is_called_and_a_call_that_it_lacks_is_told() {
    let (here, there) = two();
    let (link, _folder) = link(here);
    let calls = Calls::new(link);
    let peer = next_node(&there, protocols()).await;
    let granted = ClaimReply { claim: 7, reason: "true".into() };
    assert_eq!(calls.claim(&peer, claim("free")).await.unwrap(), granted);
    let error = calls.templates(&peer, None).await.unwrap_err();
    let expected = format!("node {} is of a version that does not know the call `templates`; update it", peer.addr);
    assert_eq!((error.code(), error.message()), (Code::Unimplemented, expected.as_str()));
    assert_eq!(calls.claim(&peer, claim("free")).await.unwrap(), granted);
}

#[tokio::test]
async fn a_call_to_a_version_too_far_away_says_why_it_fails() {
    let (here, there) = two();
    let (link, _folder) = link(here);
    let calls = Calls::new(link);
    let peer = next_node(&there, protocols()[..1].to_vec()).await;
    let error = calls.claim(&peer, claim("free")).await.unwrap_err();
    assert!(error.message().contains("does not speak herder-calls/1"), "{error}");
    // It was updated, or goes back.
    let again = next_node(&there, protocols()).await;
    assert_eq!(calls.claim(&again, claim("free")).await.unwrap().claim, 7);
    let nobody = Peer { id: peer.id, addr: "127.0.0.1:1".into() };
    let error = calls.claim(&nobody, claim("free")).await.unwrap_err();
    assert!(error.message().contains("cannot reach node 127.0.0.1:1"), "{error}");
}
