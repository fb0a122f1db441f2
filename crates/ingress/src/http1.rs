//! HTTP/1 on one connection. A connection that waits for its next request has no buffers.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use herder_http::{Body, BoxError, Busy, HeadLimit};
use http::{Request, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

use crate::connect::Stream;
use crate::listen::{HEAD_BYTES_MAX, HEAD_TIME_MAX, HEADERS_MAX, IDLE_TIME_MAX, STOP_TIME_MAX};
use crate::request::Arrival;
use crate::{Shared, proxy};

/// Time after an answer until a connection gives its buffers back. A client that loads a page asks again sooner.
const PARK_AFTER: Duration = Duration::from_millis(250);
/// The first bytes of a request that are read into a parked connection.
const FIRST_BYTES: usize = 64;
/// A connection that is kept is closed when nothing came for so long after it was known that herder ends. Before, the next answer of a
/// client that asks all the time tells it, so that none of its requests meets a closed connection.
const QUIET_TIME: Duration = Duration::from_secs(2);

/// Serves the requests of one connection.
///
/// hyper keeps about 30 KB for each connection, whether it has a request or not. So hyper is given up between requests, and made
/// again with the first byte of the next one.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    arrival: &Arc<Arrival>,
    mut stream: impl Stream + 'static,
) -> Result<(), BoxError> {
    let mut head = Bytes::new();
    loop {
        // Boxed, so that a parked connection does not have the size of one with a request.
        match Box::pin(requests(shared, arrival, stream, head)).await? {
            Some(parked) => (stream, head) = parked,
            None => return Ok(()),
        }
        if head.is_empty() {
            match first_bytes(shared, &mut stream).await? {
                Some(first) => head = first,
                None => {
                    let _ = timeout(STOP_TIME_MAX, stream.shutdown()).await;
                    return Ok(());
                }
            }
        }
    }
}

/// Waits for the next request of a parked connection. None: the connection is to be closed.
async fn first_bytes(shared: &Shared, stream: &mut (impl Stream + 'static)) -> io::Result<Option<Bytes>> {
    let mut first = [0; FIRST_BYTES];
    let quiet = async {
        shared.leaving.cancelled().await;
        sleep(QUIET_TIME).await;
    };
    tokio::select! {
        read = timeout(IDLE_TIME_MAX.saturating_sub(PARK_AFTER), stream.read(&mut first)) => {
            let count = read.unwrap_or(Ok(0))?;
            Ok((count > 0).then(|| Bytes::copy_from_slice(&first[..count])))
        }
        () = quiet => Ok(None),
    }
}

/// Serves requests until the connection ends, or has none for a while. `head` was read already.
async fn requests<S: Stream + 'static>(
    shared: &Arc<Shared>,
    arrival: &Arc<Arrival>,
    stream: S,
    head: Bytes,
) -> Result<Option<(S, Bytes)>, BoxError> {
    let progress = Arc::new(Progress::default());
    let io = Watched { head, stream, progress: progress.clone() };
    let io = TokioIo::new(HeadLimit::new(io, progress.busy.clone(), HEAD_TIME_MAX));
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = progress.busy.begin();
        progress.is_body_read.store(request.body().is_end_stream(), Ordering::Relaxed);
        let progress = progress.clone();
        let request =
            request.map(|body| RequestBody { body: body.map_err(Into::into).boxed_unsync(), progress }.boxed_unsync());
        // Boxed, since hyper keeps the place of one for the whole life of a connection.
        let handled = Box::pin(proxy::handle(shared.clone(), arrival.clone(), request));
        async move {
            let reply = handled.await;
            if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
                under_way.for_ever();
                return Ok::<_, std::convert::Infallible>(reply);
            }
            Ok(reply.map(|body| under_way.until_the_end_of(body)))
        }
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(true)
        .serve_connection(io, service)
        .with_upgrades();
    let is_parked = tokio::select! {
        parked = until_rest(&mut connection, &progress) => parked?,
        () = shared.leaving.cancelled() => {
            match timeout(QUIET_TIME, &mut connection).await {
                Ok(result) => result?,
                Err(_) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    timeout(STOP_TIME_MAX, &mut connection).await.unwrap_or(Ok(()))?;
                }
            }
            false
        }
    };
    let Some(parts) = connection.into_parts().filter(|_| is_parked) else { return Ok(None) };
    let watched = parts.io.into_inner().into_inner();
    Ok(Some((watched.stream, copied(&[parts.read_buf, watched.head]))))
}

/// The same bytes in a buffer of their size. hyper's has 8 KB, and stays for as long as any of its bytes, or none of them, is held.
fn copied(pieces: &[Bytes]) -> Bytes {
    Bytes::from(pieces.concat())
}

/// Drives a connection to its end, or until it had nothing to do for a while. True for the latter.
async fn until_rest<S: Stream + 'static, H>(
    connection: &mut UpgradeableConnection<TokioIo<HeadLimit<Watched<S>>>, H>,
    progress: &Progress,
) -> hyper::Result<bool>
where
    H: HttpService<Incoming, ResBody = Body>,
    H::Error: Into<BoxError>,
    UpgradeableConnection<TokioIo<HeadLimit<Watched<S>>>, H>: Future<Output = hyper::Result<()>> + Unpin,
{
    let mut timer = pin!(sleep(PARK_AFTER));
    let mut since = None;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(result.map(|()| false));
        }
        let rest = progress.rest();
        if rest != std::mem::replace(&mut since, rest) && rest.is_some() {
            timer.as_mut().reset(Instant::now() + PARK_AFTER);
        }
        match rest {
            Some(_) => timer.as_mut().poll(cx).map(|()| Ok(true)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Progress of the last request of a connection.
#[derive(Debug, Default)]
struct Progress {
    busy: Busy,
    /// Nothing was written since everything was flushed.
    is_flushed: AtomicBool,
    /// Count of requests when bytes were read last.
    read_at: AtomicU64,
    /// The body of the last request was read to its end.
    is_body_read: AtomicBool,
}

impl Progress {
    /// Returns the count of requests if nothing is under way. The last answer is sent, and nothing of the next request has come.
    fn rest(&self) -> Option<u64> {
        let count = self.busy.count();
        let is_between = count > 0 && count.is_multiple_of(2) && self.read_at.load(Ordering::Relaxed) != count;
        let is_done = self.is_flushed.load(Ordering::Relaxed) && self.is_body_read.load(Ordering::Relaxed);
        (is_between && is_done).then_some(count)
    }
}

/// A stream that notes what is read and written. `head` comes before its bytes.
struct Watched<S> {
    head: Bytes,
    stream: S,
    progress: Arc<Progress>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        } else {
            let count = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head[..count]);
            self.head.advance(count);
        }
        self.progress.read_at.store(self.progress.busy.count(), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.progress.is_flushed.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.progress.is_flushed.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when all of its own buffer is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.progress.is_flushed.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.is_flushed.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A request's body that notes its end.
struct RequestBody {
    body: Body,
    progress: Arc<Progress>,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.progress.is_body_read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
