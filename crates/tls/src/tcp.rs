//! TCP as herder wants it, on both sides of a connection.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// A connection on which nothing came for this long is probed ...
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// ... this often ...
const PROBE_PERIOD: Duration = Duration::from_secs(5);
/// ... and given up after this many probes without an answer.
const PROBES_MAX: u32 = 3;

/// Sets `TCP_NODELAY` and keep-alive on a connection. Errors are only logged: the connection works all the same.
pub fn tune(stream: &TcpStream) {
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_socket_keepalive(stream, true)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepidle(stream, SILENCE_MAX)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepintvl(stream, PROBE_PERIOD)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepcnt(stream, PROBES_MAX)?));
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot tune a connection");
    }
}
