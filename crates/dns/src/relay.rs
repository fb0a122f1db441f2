//! Questions that other servers answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::packet::failure;

/// Servers that are asked for one question.
const SERVERS_MAX: usize = 3;

/// Maximum time of one server's answer.
const SERVER_TIME_MAX: Duration = Duration::from_secs(4);

const PORT: u16 = 53;

const PACKET_BYTES_MAX: usize = 65_535;

/// Asks one server after the other until one answers. SERVFAIL and REFUSED count as no answer, NXDOMAIN as one.
pub(crate) async fn ask(servers: &[IpAddr], packet: &[u8], is_tcp: bool) -> Option<Vec<u8>> {
    let host;
    let servers = if servers.is_empty() {
        host = host_servers(&tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default());
        &host
    } else {
        servers
    };
    for server in servers.iter().take(SERVERS_MAX) {
        let to = SocketAddr::new(*server, PORT);
        let asking = async {
            match is_tcp {
                true => by_tcp(to, packet).await,
                false => by_udp(to, packet).await,
            }
        };
        if let Ok(Ok(answer)) = timeout(SERVER_TIME_MAX, asking).await
            && let Ok(read) = Message::from_vec(&answer)
            && !matches!(read.metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused)
        {
            return Some(answer);
        }
    }
    failure(packet, ResponseCode::ServFail)
}

/// Name servers of the host.
fn host_servers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse().ok()).collect()
}

async fn by_udp(to: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of its own for each question: a stranger would have to guess it besides the number.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let count = socket.recv(&mut buffer).await?;
        if is_answer(packet, &buffer[..count]) {
            buffer.truncate(count);
            return Ok(buffer);
        }
    }
}

async fn by_tcp(to: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    write_framed(&mut stream, packet).await?;
    read_framed(&mut stream).await
}

/// The same number and the same question.
fn is_answer(asked: &[u8], answer: &[u8]) -> bool {
    let (Ok(asked), Ok(answer)) = (Message::from_vec(asked), Message::from_vec(answer)) else { return false };
    asked.metadata.id == answer.metadata.id && asked.queries == answer.queries
}

pub(crate) async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

pub(crate) async fn write_framed(stream: &mut TcpStream, packet: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), packet].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_host_are_read() {
        let text = "# c\nnameserver 192.0.2.1\nsearch x\n nameserver\t2001:db8::1\nnameserver rubbish\n";
        let wanted: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(host_servers(text), wanted);
    }
}
