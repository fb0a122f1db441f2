//! Feeding the DNS server of this host, and starting it where there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::net::{Host, States};
use herder_dns::{Client, DnsError, Feed};
use herder_model::swarm::NetState;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tracing::info;

/// Maximum time until a DNS server opens its socket.
const START_TIME_MAX: Duration = Duration::from_secs(5);
const START_PAUSE: Duration = Duration::from_millis(20);

/// The DNS server, and what it was fed.
#[derive(Debug)]
pub(super) struct NameServer {
    /// Starts a server that listens on `socket`.
    command: Vec<OsString>,
    socket: PathBuf,
    client: Option<Client>,
    fed: BTreeMap<String, Arc<NetState>>,
    ended: BTreeSet<String>,
}

impl NameServer {
    /// `command` is a program and its arguments; the path of the socket and the folder follow as `--socket` and `--folder`.
    pub(super) fn new(command: Vec<OsString>, folder: &std::path::Path) -> NameServer {
        let socket = folder.join("net-dns.sock");
        let options: [OsString; 4] = ["--socket".into(), socket.clone().into(), "--folder".into(), folder.into()];
        let command = command.into_iter().chain(options).collect();
        NameServer { command, socket, client: None, fed: BTreeMap::new(), ended: BTreeSet::new() }
    }

    pub(super) fn is_running(&self) -> bool {
        self.client.is_some()
    }

    /// Returns when the server answers by these states.
    pub(super) async fn feed(&mut self, states: &States, host: &Host) -> Result<(), DnsError> {
        if self.client.is_none() {
            self.client = Some(self.connect().await?);
            self.fed.clear();
        }
        let put = states.iter().filter(|(id, state)| self.fed.get(*id).is_none_or(|old| !Arc::ptr_eq(old, state)));
        let put: BTreeMap<String, Arc<NetState>> = put.map(|(id, state)| (id.clone(), state.clone())).collect();
        let removed: BTreeSet<String> = self.fed.keys().filter(|id| !states.contains_key(*id)).cloned().collect();
        if put.is_empty() && removed.is_empty() && self.ended == host.ended && !self.fed.is_empty() {
            return Ok(());
        }
        let feed = Feed { node: host.node.clone(), put, removed, ended: host.ended.clone(), ..Feed::default() };
        let Some(client) = &mut self.client else { return Ok(()) };
        match client.feed(feed).await {
            Err(error @ DnsError::Gone(_)) => {
                self.client = None;
                return Err(error);
            }
            outcome => outcome?,
        }
        self.fed.clone_from(states);
        self.ended.clone_from(&host.ended);
        Ok(())
    }

    /// Returns when the server has gone away; never if there is none yet.
    pub(super) async fn gone(&mut self) {
        match &mut self.client {
            Some(client) => client.closed().await,
            None => std::future::pending().await,
        }
        self.client = None;
    }

    async fn connect(&self) -> Result<Client, DnsError> {
        if let Ok(client) = Client::connect(&self.socket).await {
            return Ok(client);
        }
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(DnsError::Gone(std::io::ErrorKind::NotFound.into()));
        };
        info!(program = %program.display(), "starting the DNS server of overlay networks");
        let mut command = Command::new(program);
        // A process group of its own: what ends herder does not end it.
        command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(false);
        let mut child = command.spawn().map_err(DnsError::Gone)?;
        // Its end is seen by the connection; this only takes its status.
        tokio::spawn(async move { child.wait().await });
        let connecting = async {
            loop {
                match Client::connect(&self.socket).await {
                    Ok(client) => return client,
                    Err(_) => sleep(START_PAUSE).await,
                }
            }
        };
        timeout(START_TIME_MAX, connecting).await.map_err(|_| DnsError::Gone(std::io::ErrorKind::TimedOut.into()))
    }
}
