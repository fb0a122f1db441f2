//! Feeding the DNS server of this host, and starting it where there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use herder_decide::net::{Host, States};
use herder_dns::{CHANGES, Feed};
use herder_model::swarm::{NetChanges, NetState};
use herder_parts::aside::{Aside, AsideError};

/// The DNS server, and what it was fed.
#[derive(Debug)]
pub(super) struct NameServer {
    process: Aside,
    fed: BTreeMap<String, Arc<NetState>>,
    ended: BTreeSet<String>,
}

impl NameServer {
    /// `command` starts a server; options with its socket and folder are added.
    pub(super) fn new(command: Vec<OsString>, folder: &Path) -> NameServer {
        let socket = folder.join("net-dns.sock");
        let process = Aside::new("the DNS server of overlay networks", command, socket, folder);
        NameServer { process, fed: BTreeMap::new(), ended: BTreeSet::new() }
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_connected()
    }

    /// Returns when the server answers by these states.
    pub(super) async fn feed(&mut self, states: &States, host: &Host) -> Result<(), AsideError> {
        if self.process.connect().await? {
            self.fed.clear();
        }
        let takes_changes = self.process.level() >= CHANGES;
        let (mut put, mut changes) = (BTreeMap::new(), BTreeMap::new());
        for (id, state) in states {
            match self.fed.get(id) {
                Some(old) if Arc::ptr_eq(old, state) => {}
                Some(old) if takes_changes => _ = changes.insert(id.clone(), NetChanges::between(old, state)),
                _ => _ = put.insert(id.clone(), state.clone()),
            }
        }
        let removed: BTreeSet<String> = self.fed.keys().filter(|id| !states.contains_key(*id)).cloned().collect();
        if put.is_empty()
            && changes.is_empty()
            && removed.is_empty()
            && self.ended == host.ended
            && !self.fed.is_empty()
        {
            return Ok(());
        }
        let feed =
            Feed { node: host.node.clone(), put, changes, removed, ended: host.ended.clone(), ..Feed::default() };
        self.process.feed(feed).await?;
        self.fed.clone_from(states);
        self.ended.clone_from(&host.ended);
        Ok(())
    }

    /// Returns when the server has gone away; never if there is none yet.
    pub(super) async fn gone(&mut self) {
        self.process.gone().await;
    }
}
