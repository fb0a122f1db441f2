//! Tests a connection that is parked between requests: nothing of a request is lost, and no limit begins anew.

use futures_util::future::BoxFuture;
use herder_model::swarm::Backend;
use tokio::io::DuplexStream;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Conn, Ingress, Reach};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// A parked connection, with its client's address and timers.
const PARKED_BYTES_MAX: usize = 1024;

#[derive(Debug)]
struct Nowhere;

impl Reach for Nowhere {
    fn connect<'r>(&'r self, _: &'r str, _: &'r Backend, _: u16) -> BoxFuture<'r, io::Result<Conn>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }

    fn datagrams<'r>(&'r self, _: &'r str, _: &'r Backend, _: u16) -> BoxFuture<'r, io::Result<UdpSocket>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

/// A client's end of a connection to an ingress that answers 404. The task returns the age of the connection.
fn client() -> (DuplexStream, JoinHandle) {
    let (client, stream) = tokio::io::duplex(4096);
    let served = tokio::spawn(async move {
        let ingress = Ingress::new(Arc::new(Nowhere), CancellationToken::new());
        let local = ([127, 0, 0, 1], 1).into();
        let arrival = Arrival { entrypoint: "web".into(), peer: local, local, tls: false, sni: String::new() };
        let began = Instant::now();
        let arrival = Arc::new(arrival);
        let serving = serve(&ingress.shared, &arrival, stream);
        assert!(size_of_val(&serving) < PARKED_BYTES_MAX, "{} bytes", size_of_val(&serving));
        let _ = serving.await;
        began.elapsed()
    });
    (client, served)
}

type JoinHandle = tokio::task::JoinHandle<Duration>;

/// Reads one answer, and returns its status.
async fn status(client: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let length = head.lines().find_map(|it| it.strip_prefix("content-length: ")?.parse().ok());
    client.read_exact(&mut vec![0; length.unwrap_or(0)]).await.expect("a body");
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

async fn rest(mut client: DuplexStream) -> String {
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.expect("an end");
    rest
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_takes_requests_and_ends_when_it_is_idle() {
    let (mut client, served) = client();
    for pause in [PARK_AFTER / 2, PARK_AFTER * 2, IDLE_TIME_MAX / 2, Duration::ZERO] {
        client.write_all(REQUEST).await.expect("written");
        assert_eq!(status(&mut client).await, "404");
        sleep(pause).await;
    }
    // A head that comes in pieces.
    client.write_all(&REQUEST[..5]).await.expect("written");
    sleep(PARK_AFTER * 2).await;
    client.write_all(&REQUEST[5..]).await.expect("written");
    assert_eq!(status(&mut client).await, "404");
    let idle = Instant::now();
    assert_eq!(rest(client).await, "");
    served.await.expect("it ends");
    let idle = idle.elapsed();
    assert!(idle >= IDLE_TIME_MAX - PARK_AFTER && idle <= IDLE_TIME_MAX + PARK_AFTER, "{idle:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_are_all_answered() {
    let (mut client, _served) = client();
    client.write_all(&[REQUEST, REQUEST, &REQUEST[..9]].concat()).await.expect("written");
    assert_eq!([status(&mut client).await, status(&mut client).await], ["404", "404"]);
    sleep(PARK_AFTER * 4).await;
    client.write_all(&REQUEST[9..]).await.expect("written");
    assert_eq!(status(&mut client).await, "404");
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_has_no_more_time_for_being_parked() {
    for together in [true, false] {
        let (mut client, served) = client();
        client.write_all(REQUEST).await.expect("written");
        if together {
            client.write_all(b"GET").await.expect("written");
        }
        assert_eq!(status(&mut client).await, "404");
        sleep(PARK_AFTER * 2).await;
        while client.write_all(b"G").await.is_ok() && !served.is_finished() {
            sleep(PARK_AFTER).await;
        }
        let time = served.await.expect("it ends");
        assert!(time <= HEAD_TIME_MAX + PARK_AFTER * 4, "{time:?}");
    }
}

/// The rest of a body that nobody reads is never taken for a request.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_read_ends_the_connection() {
    let (mut client, served) = client();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", REQUEST.len());
    client.write_all(head.as_bytes()).await.expect("written");
    assert_eq!(status(&mut client).await, "404");
    sleep(PARK_AFTER * 2).await;
    let _ = client.write_all(REQUEST).await;
    assert_eq!(rest(client).await, "");
    served.await.expect("it ends");
}

#[test]
fn a_parked_connection_holds_no_buffer_of_hyper() {
    let buffer = Arc::new([7; 8192]);
    let of_buffer = Bytes::from_owner(Shared8K(buffer.clone()));
    let copy = copied(&[of_buffer.slice(..2), of_buffer.slice(8191..)]);
    assert_eq!(copy, [7; 3][..]);
    drop(of_buffer);
    assert_eq!(Arc::strong_count(&buffer), 1);
}

struct Shared8K(Arc<[u8; 8192]>);

impl AsRef<[u8]> for Shared8K {
    fn as_ref(&self) -> &[u8] {
        &*self.0
    }
}
