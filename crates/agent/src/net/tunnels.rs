//! Encrypted tunnels of this node: by the kernel where it has WireGuard, else by a process of herder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use herder_decide::net::Tunnel;
use herder_model::swarm::{TunnelEnd, TunnelWay};
use herder_net::{NetError, Wireguard, has_wireguard};
use herder_parts::aside::{Aside, AsideError};
use herder_tunnel::{Feed, TunnelError, decoded, private_key, public_key};
use tokio::time::timeout;
use tracing::warn;

/// The device that user space makes tunnel devices with.
const TUN: &str = "/dev/net/tun";

/// Maximum time that the process takes to end.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// Reason why there are no tunnels.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the process of tunnels: {0}")]
    Process(#[from] AsideError),
    #[error(transparent)]
    Key(#[from] TunnelError),
    #[error(transparent)]
    Kernel(#[from] NetError),
    #[error("cannot set up tunnels: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// Tunnels of this node, and what was wanted last.
#[derive(Debug)]
pub(super) struct Tunnels {
    folder: PathBuf,
    process: Aside,
    /// Taken while a thread works with it.
    kernel: Option<Wireguard>,
    /// Nothing before the first look.
    way: Option<TunnelWay>,
    put: Option<Tunnel>,
    /// A process of a herder before has been looked for.
    is_looked_for: bool,
}

impl Tunnels {
    pub(super) fn new(command: Vec<OsString>, folder: &Path) -> Tunnels {
        let socket = folder.join("net-tunnel.sock");
        let process = Aside::new("the tunnels of encrypted networks", command, socket, folder);
        let folder = folder.to_owned();
        Tunnels { folder, process, kernel: None, way: None, put: None, is_looked_for: false }
    }

    /// Returns when these tunnels are there.
    pub(super) async fn put(&mut self, wanted: &Tunnel) -> Result<(), Error> {
        let way = *self.way.get_or_insert_with(|| way().unwrap_or_default());
        match way {
            TunnelWay::Userspace => {
                let is_new = self.process.connect().await?;
                if !is_new && self.put.as_ref() == Some(wanted) {
                    return Ok(());
                }
                self.put = None;
                self.process.feed(Feed { wanted: Some(wanted.clone()), ..Feed::default() }).await?;
            }
            TunnelWay::Wireguard => {
                let (mut kernel, wanted, folder) =
                    (self.kernel.take().unwrap_or_default(), wanted.clone(), self.folder.clone());
                let work = tokio::task::spawn_blocking(move || {
                    let private = private_key(&folder)?;
                    let outcome = kernel.set(&wanted, private, decoded);
                    Ok::<_, Error>((kernel, outcome))
                });
                let (kernel, outcome) = work.await??;
                self.kernel = Some(kernel);
                outcome?;
            }
        }
        self.put = Some(wanted.clone());
        Ok(())
    }

    /// Ends all tunnels. Also those that a herder before has left.
    pub(super) async fn remove(&mut self) {
        if std::mem::replace(&mut self.is_looked_for, true) && self.put.is_none() {
            return;
        }
        self.put = None;
        if self.process.find().await {
            // The process may end before it answers.
            let _ = self.process.feed(Feed::default()).await;
            if timeout(END_TIME_MAX, self.process.gone()).await.is_err() {
                warn!("the process of tunnels does not end");
            }
        }
        if let Some(mut kernel) = self.kernel.take() {
            let removed = tokio::task::spawn_blocking(move || kernel.remove()).await;
            if let Ok(Err(error)) = removed {
                warn!(%error, "the tunnel device cannot be removed");
            }
        }
    }

    /// Returns when the process has ended by itself; never if there is none.
    pub(super) async fn gone(&mut self) {
        self.process.gone().await;
    }
}

/// The implementation of WireGuard that this host has.
fn way() -> Option<TunnelWay> {
    let has_tun = || std::fs::OpenOptions::new().read(true).write(true).open(TUN).is_ok();
    if has_wireguard() { Some(TunnelWay::Wireguard) } else { has_tun().then_some(TunnelWay::Userspace) }
}

/// This node's end of tunnels, as managers are told of it. Nothing if it can have none.
pub(super) fn end(folder: &Path) -> Option<TunnelEnd> {
    let way = way()?;
    match public_key(folder) {
        Ok(key) => Some(TunnelEnd { key, way, ..TunnelEnd::default() }),
        Err(error) => {
            warn!(%error, "this node has no part in encrypted networks");
            None
        }
    }
}
