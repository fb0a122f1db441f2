//! TCP and UDP, and the PROXY protocol in front of them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::Shared;
use crate::connect::{Stream, open};
use crate::request::Arrival;
use crate::table::Route;

const PIECE_BYTES: usize = 64 << 10;
/// Tasks that are tried for one connection.
const ATTEMPTS: usize = 3;
/// A flow of UDP without a packet is forgotten after this long.
const UDP_IDLE_MAX: Duration = Duration::from_secs(60);
const UDP_FLOWS_MAX: usize = 16_384;
const UDP_BYTES_MAX: usize = 65_535;
/// Packets of one client that wait for its task.
const UDP_WAITING_MAX: usize = 64;

/// Brings a connection to a task of the route's service, until both sides have ended.
pub(crate) async fn carry(
    shared: &Arc<Shared>,
    route: &Route,
    mut client: impl Stream,
    arrival: &Arrival,
) -> io::Result<()> {
    let upstream = route.service.is.read().clone();
    let mut tried = Vec::new();
    let mut last = io::Error::other("no task of the service takes connections now");
    while tried.len() < ATTEMPTS {
        let Some(task) = route.service.choose(arrival.peer.ip(), None, &tried) else { break };
        if tried.contains(&task.id) {
            break;
        }
        tried.push(task.id.clone());
        let Some(held) = shared.services.hold(&task) else { continue };
        match open(shared, &task, upstream.port).await {
            Ok(mut conn) => {
                if upstream.proxy_protocol > 0 {
                    conn.write_all(&proxy_header(upstream.proxy_protocol, arrival.peer, arrival.local)).await?;
                }
                let copied = copy_bidirectional_with_sizes(&mut client, &mut conn, PIECE_BYTES, PIECE_BYTES);
                let ended = shared.stop.run_until_cancelled(copied).await;
                drop(held);
                return ended.transpose().map(drop);
            }
            Err(error) => {
                tracing::debug!(service = route.service.name, task = task.id, %error, "a task cannot be reached");
                task.failed();
                last = error;
            }
        }
    }
    Err(last)
}

/// Writes the header of the PROXY protocol.
pub(crate) fn proxy_header(version: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    if version == 1 {
        let family = match (from.ip(), to.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
            (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
            _ => return b"PROXY UNKNOWN\r\n".to_vec(),
        };
        let (ports, ips) = ((from.port(), to.port()), (from.ip(), to.ip()));
        return format!("PROXY {family} {} {} {} {}\r\n", ips.0, ips.1, ports.0, ports.1).into_bytes();
    }
    let mut header = SIGNATURE.to_vec();
    header.push(0x21);
    let mut addresses = Vec::new();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.push(0x11);
            addresses.extend(from.octets());
            addresses.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.push(0x21);
            addresses.extend(from.octets());
            addresses.extend(to.octets());
        }
        _ => {
            header.extend([0x00, 0, 0]);
            return header;
        }
    }
    addresses.extend(from.port().to_be_bytes());
    addresses.extend(to.port().to_be_bytes());
    let length = u16::try_from(addresses.len()).unwrap_or_default();
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_1_BYTES_MAX: usize = 107;
const VERSION_2_BYTES_MAX: usize = 16 + 2048;

/// A PROXY header: client and destination, and its length in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyHeader {
    /// More bytes are needed.
    Part,
    /// The whole header; without addresses, the proxy speaks for itself.
    Whole(Option<(SocketAddr, SocketAddr)>, usize),
    Wrong,
}

/// Reads a header of the PROXY protocol, either version.
pub(crate) fn parse_proxy_header(bytes: &[u8]) -> ProxyHeader {
    let begins = |with: &[u8]| with.starts_with(&bytes[..bytes.len().min(with.len())]);
    if begins(SIGNATURE) {
        return if bytes.len() < 16 { ProxyHeader::Part } else { version_2(bytes) };
    }
    if !begins(b"PROXY ") {
        return ProxyHeader::Wrong;
    }
    let Some(end) = bytes.windows(2).take(VERSION_1_BYTES_MAX).position(|it| it == b"\r\n") else {
        return if bytes.len() < VERSION_1_BYTES_MAX { ProxyHeader::Part } else { ProxyHeader::Wrong };
    };
    let read = || {
        let words: Vec<&str> = std::str::from_utf8(&bytes[..end]).ok()?.split(' ').collect();
        match words[..] {
            ["PROXY", "UNKNOWN", ..] => Some(None),
            ["PROXY", family, from, to, from_port, to_port] => {
                let from = SocketAddr::new(from.parse().ok()?, from_port.parse().ok()?);
                let to = SocketAddr::new(to.parse().ok()?, to_port.parse().ok()?);
                let fits = match family {
                    "TCP4" => from.is_ipv4() && to.is_ipv4(),
                    "TCP6" => from.is_ipv6() && to.is_ipv6(),
                    _ => false,
                };
                fits.then_some(Some((from, to)))
            }
            _ => None,
        }
    };
    read().map_or(ProxyHeader::Wrong, |it| ProxyHeader::Whole(it, end + 2))
}

fn version_2(bytes: &[u8]) -> ProxyHeader {
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let whole = 16 + length;
    if bytes[12] >> 4 != 2 || whole > VERSION_2_BYTES_MAX {
        return ProxyHeader::Wrong;
    }
    let Some(body) = bytes.get(16..whole) else { return ProxyHeader::Part };
    let port = |at: usize| body.get(at..at + 2).map(|it| u16::from_be_bytes([it[0], it[1]]));
    let addresses = || match bytes[13] >> 4 {
        1 => {
            let ip = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(body.get(at..at + 4)?).ok()?));
            Some((SocketAddr::new(ip(0)?, port(8)?), SocketAddr::new(ip(4)?, port(10)?)))
        }
        2 => {
            let ip = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(body.get(at..at + 16)?).ok()?));
            Some((SocketAddr::new(ip(0)?, port(32)?), SocketAddr::new(ip(16)?, port(34)?)))
        }
        _ => None,
    };
    match (bytes[12] & 0xf, bytes[13] >> 4) {
        // A check of the proxy itself, or a family that is no address.
        (0, _) | (1, 0 | 3) => ProxyHeader::Whole(None, whole),
        (1, _) => addresses().map_or(ProxyHeader::Wrong, |it| ProxyHeader::Whole(Some(it), whole)),
        _ => ProxyHeader::Wrong,
    }
}

/// Reads the PROXY header that a trusted peer begins with.
pub(crate) async fn read_proxy_header(
    stream: &mut TcpStream,
    head: &mut BytesMut,
) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    loop {
        match parse_proxy_header(head) {
            ProxyHeader::Whole(addresses, length) => {
                head.advance(length);
                return Ok(addresses);
            }
            ProxyHeader::Wrong => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the connection does not begin with a PROXY header",
                ));
            }
            ProxyHeader::Part => {}
        }
        if stream.read_buf(head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

type Flows = Arc<Mutex<HashMap<SocketAddr, tokio::sync::mpsc::Sender<Vec<u8>>>>>;

/// Brings packets to tasks, and answers back. A client stays with its task until it is silent.
pub(crate) async fn carry_udp(shared: Arc<Shared>, entrypoint: String, socket: Arc<UdpSocket>) {
    let flows = Flows::default();
    let mut packet = vec![0; UDP_BYTES_MAX];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut packet).await else { continue };
        let Some(data) = packet.get(..length).map(<[u8]>::to_vec) else { continue };
        let known = flows.lock().get(&client).cloned();
        if let Some(flow) = known {
            // A task that takes nothing loses packets, as a network does.
            let _ = flow.try_send(data);
            continue;
        }
        if flows.lock().len() >= UDP_FLOWS_MAX {
            continue;
        }
        let Some(route) = shared.table.load().find_udp(&entrypoint).cloned() else { continue };
        let (to_flow, from_client) = tokio::sync::mpsc::channel(UDP_WAITING_MAX);
        let _ = to_flow.try_send(data);
        flows.lock().insert(client, to_flow);
        let (shared, socket, flows) = (shared.clone(), socket.clone(), flows.clone());
        tokio::spawn(async move {
            if let Err(error) = flow(&shared, &route, client, from_client, &socket).await {
                tracing::debug!(%client, %error, "a flow of packets ended badly");
            }
            flows.lock().remove(&client);
        });
    }
}

async fn flow(
    shared: &Arc<Shared>,
    route: &Route,
    client: SocketAddr,
    mut from_client: tokio::sync::mpsc::Receiver<Vec<u8>>,
    socket: &UdpSocket,
) -> io::Result<()> {
    let port = route.service.is.read().port;
    let none = || io::Error::other("no task of the service takes packets now");
    let task = route.service.choose(client.ip().to_canonical(), None, &[]).ok_or_else(none)?;
    let _held = shared.services.hold(&task).ok_or_else(none)?;
    let backend = task.backend.read().clone();
    let own = shared.reach.datagrams(&task.id, &backend, port).await?;
    let mut answer = vec![0; UDP_BYTES_MAX];
    let step = async |from_client: &mut tokio::sync::mpsc::Receiver<Vec<u8>>, answer: &mut Vec<u8>| {
        tokio::select! {
            data = from_client.recv() => match data {
                Some(data) => own.send(&data).await.map(|_| true),
                None => Ok(false),
            },
            length = own.recv(answer) => {
                let length = length?;
                socket.send_to(answer.get(..length).unwrap_or_default(), client).await.map(|_| true)
            }
        }
    };
    loop {
        match timeout(UDP_IDLE_MAX, step(&mut from_client, &mut answer)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_header_is_read_as_it_was_written() {
        for (from, to) in [("1.2.3.4:5", "6.7.8.9:80"), ("[::1]:5", "[2001:db8::1]:443")] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            for version in [1, 2] {
                let mut bytes = proxy_header(version, from, to);
                let length = bytes.len();
                bytes.extend(b"GET /");
                assert_eq!(parse_proxy_header(&bytes), ProxyHeader::Whole(Some((from, to)), length), "{version}");
                for cut in 1..length {
                    assert_eq!(parse_proxy_header(&bytes[..cut]), ProxyHeader::Part, "{version} {cut}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_proxy_header_is_refused() {
        let check = |text: &[u8], expected: ProxyHeader| assert_eq!(parse_proxy_header(text), expected, "{text:?}");
        check(b"GET / HTTP/1.1\r\n", ProxyHeader::Wrong);
        check(b"PROXY UNKNOWN\r\n", ProxyHeader::Whole(None, 15));
        check(b"PROXY TCP4 1.2.3.4 5.6.7.8 x 80\r\n", ProxyHeader::Wrong);
        check(b"PROXY TCP6 1.2.3.4 5.6.7.8 1 80\r\n", ProxyHeader::Wrong);
        check(b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", ProxyHeader::Wrong);
        check(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 120]].concat(), ProxyHeader::Wrong);
        check(&[SIGNATURE, &[0x21, 0x11, 0, 2, 0, 0]].concat(), ProxyHeader::Wrong);
        check(&[SIGNATURE, &[0x31, 0x11, 0, 0]].concat(), ProxyHeader::Wrong);
        check(&[SIGNATURE, &[0x20, 0x00, 0, 0]].concat(), ProxyHeader::Whole(None, 16));
    }
}
