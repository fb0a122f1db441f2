//! Finding nodes of a pool on the local network, without knowing an address.
//!
//! A question names the pool by its CA's fingerprint, the answer is an address. Anybody on the network can ask, and anybody
//! can lie: an address is no proof of anything, the node link is.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::join_code::{self, Fingerprint, JoinCode};

/// Multicast group, of the block for private use (RFC 2365).
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 79, 46), 7947);

/// Maximum time of an answer on a local network.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(500);
/// Number of times that the question is sent, since packets get lost.
const ATTEMPTS: u32 = 3;
/// Question and answer are shorter.
const PACKET_BYTES_MAX: usize = 256;
/// Maximum number of answers that are read.
const ANSWERS_MAX: usize = 100;

const QUESTION: &str = "herder?1";
const ANSWER: &str = "herder!1";

/// Asks for nodes of the pool of this join code.
pub async fn ask(code: &JoinCode) -> io::Result<BTreeSet<SocketAddr>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let question = format!("{QUESTION} {}", name(&code.ca));
    let mut found = BTreeSet::new();
    for _ in 0..ATTEMPTS {
        socket.send_to(question.as_bytes(), GROUP).await?;
        let end = Instant::now() + ANSWER_TIME_MAX;
        let mut packet = [0; PACKET_BYTES_MAX];
        while let Ok(received) = timeout_at(end, socket.recv_from(&mut packet)).await {
            let (length, _) = received?;
            found.extend(answered(&packet[..length], &code.ca));
            if found.len() >= ANSWERS_MAX {
                return Ok(found);
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// Answers questions for the pool of this join code until `stop`.
pub async fn answer(code: &JoinCode, addr: SocketAddr, stop: CancellationToken) -> io::Result<()> {
    let socket = UdpSocket::from_std(listen()?)?;
    let reply = format!("{ANSWER} {} {addr}", name(&code.ca));
    let mut packet = [0; PACKET_BYTES_MAX];
    loop {
        let (length, from) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            received = socket.recv_from(&mut packet) => received?,
        };
        if is_question(&packet[..length], &code.ca) {
            socket.send_to(reply.as_bytes(), from).await?;
        }
    }
}

/// Several programs of one host may listen.
fn listen() -> io::Result<std::net::UdpSocket> {
    let fd = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    bind(&fd, &GROUP)?;
    let socket = std::net::UdpSocket::from(fd);
    socket.set_nonblocking(true)?;
    socket.join_multicast_v4(GROUP.ip(), &Ipv4Addr::UNSPECIFIED)?;
    Ok(socket)
}

fn name(ca: &Fingerprint) -> String {
    join_code::encode(ca, 50)
}

fn is_question(packet: &[u8], ca: &Fingerprint) -> bool {
    packet == format!("{QUESTION} {}", name(ca)).as_bytes()
}

fn answered(packet: &[u8], ca: &Fingerprint) -> Option<SocketAddr> {
    let text = std::str::from_utf8(packet).ok()?;
    text.strip_prefix(&format!("{ANSWER} {} ", name(ca)))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_and_answers_of_this_pool_count() {
        let (mine, other) = ([1; 32], [2; 32]);
        let question = format!("{QUESTION} {}", name(&mine));
        assert!(is_question(question.as_bytes(), &mine));
        assert!(!is_question(question.as_bytes(), &other));
        assert!(!is_question(b"\xff\xfe", &mine));
        let answer = format!("{ANSWER} {} 10.0.0.1:7946", name(&mine));
        assert_eq!(answered(answer.as_bytes(), &mine), Some(SocketAddr::from(([10, 0, 0, 1], 7946))));
        assert_eq!(answered(answer.as_bytes(), &other), None);
        // The secret has no part in it: holders of the code of before or after a change are found.
        let codes = [[3; 16], [4; 16]].map(|secret| JoinCode { ca: mine, secret });
        assert!(codes.iter().all(|code| is_question(question.as_bytes(), &code.ca)));
        assert_eq!(answered(&answer.as_bytes()[..answer.len() - 5], &mine), None);
    }
}
