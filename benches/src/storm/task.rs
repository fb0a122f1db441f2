//! The program of a task in the storm: answers requests, echoes websockets, and streams by gRPC, until it is stopped.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::BEAT;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves until SIGTERM.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], super::PORT))).await.context("cannot listen")?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = terminate.recv() => return Ok(()),
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that hangs up is nothing to tell of.
            let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut reply = Response::new(Full::new(Bytes::from_static(b"storm")).boxed_unsync());
    if request.headers().get(header::CONTENT_TYPE).is_some_and(|it| it == "application/grpc") {
        let messages = stream::unfold((), |()| async {
            sleep(BEAT).await;
            Some((Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 1, b'.']))), ()))
        });
        reply = Response::new(StreamBody::new(messages).boxed_unsync());
        reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
    } else if request.headers().contains_key(header::UPGRADE) {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgraded.await {
                let _ = echo(TokioIo::new(upgraded)).await;
            }
        });
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *reply.body_mut() = Full::new(Bytes::new()).boxed_unsync();
        reply.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        reply.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    } else if request.uri().path() == "/slow" {
        sleep(Duration::from_secs(1)).await;
    }
    Ok(reply)
}

/// Answers each message of a client, all shorter than 126 bytes, until it closes.
async fn echo(mut stream: TokioIo<hyper::upgrade::Upgraded>) -> std::io::Result<()> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let mut rest = vec![0; 4 + usize::from(head[1] & 0x7f)];
        stream.read_exact(&mut rest).await?;
        if head[0] & 0x0f == super::CLOSE {
            return stream.write_all(&[0x88, 0]).await;
        }
        stream.write_all(&[0x81, 1, b'.']).await?;
    }
}
