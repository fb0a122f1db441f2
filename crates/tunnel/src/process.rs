//! The process: one device, one UDP socket, a thread for each direction.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::net::{TUNNEL, Tunnel};
use herder_parts::aside;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;
use tracing::{info, warn};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::TunnelError;
use crate::core::{BUFFER_BYTES, Core, Sink};
use crate::key::private_key;

/// Interval between looks at what was not answered.
const TICK: Duration = Duration::from_millis(250);
/// Ticks in a second.
const TICKS: u32 = 4;

/// Bytes that wait in a socket while the process works; the kernel may give less.
const SOCKET_BYTES: usize = 4 << 20;

/// File below a node's state folder with the state of the tunnel to each peer (`192.168.0.2:4790`).
pub const PEERS_FILE: &str = "net-tunnel-peers.json";

/// Level of the feeds of this release.
const LEVEL: u32 = 0;

/// Orders to the tunnel process. Members of later releases are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feed {
    pub number: u64,
    /// Wanted tunnels; none: the process ends, and its device with it.
    pub wanted: Option<Tunnel>,
}

impl aside::Feed for Feed {
    fn number_mut(&mut self) -> &mut u64 {
        &mut self.number
    }
}

/// The device and the socket that are in use.
struct Running {
    local: SocketAddr,
    mtu: u32,
    wire: Arc<Wire>,
}

struct Wire {
    core: Core,
    device: SyncDevice,
    socket: UdpSocket,
}

/// Both ends of packets. What cannot be sent is lost, as on any network.
struct Both<'w>(&'w Wire);

impl Sink for Both<'_> {
    fn network(&mut self, datagram: &[u8], to: SocketAddr) {
        let _ = self.0.socket.send_to(datagram, to);
    }

    fn host(&mut self, packet: &[u8]) {
        let _ = self.0.device.send(packet);
    }
}

/// Runs the tunnel process: carries packets as the unix socket `path` asks, with the key in `folder`. It ends when it
/// is told to, or when its device is gone.
///
/// # Errors
///
/// If there is no key, or no socket.
pub async fn serve(path: &Path, folder: &Path) -> Result<(), TunnelError> {
    let private = private_key(folder)?;
    let running: Arc<Mutex<Option<Running>>> = Arc::default();
    let (end, mut ended) = watch::channel(false);
    let taking = {
        let (running, end) = (running.clone(), end.clone());
        move |feed: Feed| {
            let outcome = take(&running, private, feed, &end).map_err(|error| error.to_string());
            std::future::ready(outcome)
        }
    };
    let ticking = async {
        let mut interval = tokio::time::interval(TICK);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut told = None;
        for n in (1..=TICKS).cycle() {
            interval.tick().await;
            let Some(wire) = running.lock().as_ref().map(|it| it.wire.clone()) else { continue };
            wire.core.tick(&mut buffer, &mut Both(&wire));
            if n == TICKS {
                wire.core.next_second();
                let now = wire.core.built();
                if told.replace(now.clone()).as_ref() != Some(&now) {
                    tell(&folder.join(PEERS_FILE), &now);
                }
            }
        }
    };
    tokio::select! {
        outcome = aside::serve(path, LEVEL, taking) => Ok(outcome?),
        () = ticking => Ok(()),
        _ = ended.wait_for(|it| *it) => Ok(()),
    }
}

/// Writes down which tunnels are built.
fn tell(path: &Path, built: &BTreeMap<SocketAddr, bool>) {
    let text = serde_json::to_vec(built).map_err(io::Error::from);
    if let Err(error) = text.and_then(|text| std::fs::write(path, text)) {
        warn!(%error, path = %path.display(), "cannot write which tunnels are built");
    }
}

fn take(running: &Mutex<Option<Running>>, private: [u8; 32], feed: Feed, end: &watch::Sender<bool>) -> io::Result<()> {
    let mut running = running.lock();
    let Some(wanted) = feed.wanted else {
        info!("no tunnels are wanted any more");
        end.send_replace(true);
        return Ok(());
    };
    if running.as_ref().is_some_and(|it| it.local != wanted.local) {
        // Threads wait on the old socket: a process of its own begins anew.
        end.send_replace(true);
        return Err(io::Error::other("the address of tunnels has changed; the process begins anew"));
    }
    if running.is_none() {
        *running = Some(begin(&wanted, private, end)?);
    }
    let Some(now) = running.as_mut() else { return Ok(()) };
    if now.mtu != wanted.mtu {
        now.wire.device.set_mtu(mtu(&wanted)?)?;
        now.mtu = wanted.mtu;
    }
    now.wire.core.set(&wanted.peers, &mut Both(&now.wire));
    Ok(())
}

fn mtu(wanted: &Tunnel) -> io::Result<u16> {
    u16::try_from(wanted.mtu).map_err(|_| io::Error::other(format!("no device has an MTU of {}", wanted.mtu)))
}

fn begin(wanted: &Tunnel, private: [u8; 32], end: &watch::Sender<bool>) -> io::Result<Running> {
    let said = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let socket = bound(wanted.local).map_err(said("UDP socket of tunnels"))?;
    let device = DeviceBuilder::new().name(TUNNEL).mtu(mtu(wanted)?).build_sync();
    let device = device.map_err(said("tunnel device"))?;
    let wire = Arc::new(Wire { core: Core::new(private), device, socket });
    let (out, back) = (wire.clone(), wire.clone());
    let ended = end.clone();
    std::thread::Builder::new().name("out".into()).spawn(move || {
        let (mut packet, mut buffer) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
        loop {
            match out.device.recv(&mut packet) {
                Ok(count) => out.core.outgoing(&packet[..count], &mut buffer, &mut Both(&out)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Somebody removed it; herder starts another process.
                    warn!(%error, "the tunnel device is gone");
                    ended.send_replace(true);
                    return;
                }
            }
        }
    })?;
    std::thread::Builder::new().name("in".into()).spawn(move || {
        let (mut datagram, mut buffer) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
        loop {
            // Errors are of datagrams sent before: a node that does not listen.
            if let Ok((count, from)) = back.socket.recv_from(&mut datagram) {
                back.core.incoming(&datagram[..count], from, &mut buffer, &mut Both(&back));
            }
        }
    })?;
    info!(local = %wanted.local, mtu = wanted.mtu, "carrying packets of encrypted networks");
    Ok(Running { local: wanted.local, mtu: wanted.mtu, wire })
}

fn bound(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None)?;
    // The default has to do where the kernel gives no more.
    let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    socket.bind(&local.into())?;
    Ok(socket.into())
}
