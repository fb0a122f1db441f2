//! Whole states in and out of a store: backups, and a swarm begun anew by one that is left.
//!
//! A backup is a line of text, what kind of body it has, its length, its SHA-256, and the body: a snapshot, sealed if a key was
//! given.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::View;
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;
use ring::digest::{SHA256, digest};

use crate::disk::{Disk, Found, Op};
use crate::raft::{Address, LogId, Member, Membership, SnapshotMeta, Vote};
use crate::seal::{Sealer, Unsealed};
use crate::state::State;
use crate::store::on_thread;
use crate::{Key, Store, StoreError, snapshot};

const MAGIC: &[u8] = b"herder backup 1\n";
const PLAIN: u8 = b'p';
const SEALED: u8 = b's';
const SHA256_BYTES: usize = 32;
const PLACE: &str = "backup";

/// A backup that was read whole: it is as it was written, and this version knows what is in it.
#[derive(Debug)]
pub struct Backup {
    state: State,
}

impl Backup {
    /// Reads a backup to its end. A key is needed if it was sealed with one.
    pub fn open(bytes: &[u8], key: Option<&Key>) -> Result<Backup, StoreError> {
        let bad = |why: String| StoreError::Backup { why };
        let plain = unpack(bytes, key, bad)?;
        Ok(Backup { state: snapshot::decode(&plain).map_err(bad)? })
    }

    /// Returns the declared objects at the time of the backup.
    pub fn view(&self) -> &View {
        &self.state.view
    }
}

impl Store {
    /// All that this manager knows, as bytes to keep elsewhere. It needs no majority. With a key they are sealed; without one
    /// they hold secrets as they are.
    pub async fn backup(&self, key: Option<Key>) -> Result<Vec<u8>, StoreError> {
        self.backup_of(self.view(), key).await
    }

    /// Makes a backup of a given view.
    pub async fn backup_of(&self, view: View, key: Option<Key>) -> Result<Vec<u8>, StoreError> {
        on_thread(&self.backend(), move || {
            let doing = || StoreError::io("write the backup");
            let plain = snapshot::encode(&State::of(view, Vec::new())).map_err(|error| doing()(error.into()))?;
            Ok(pack(&plain, key.as_ref()))
        })
        .await
    }

    /// Begins a swarm with what is in a backup, and with this manager alone, which others reach at this address. The store
    /// must belong to no swarm.
    pub async fn restore(&self, backup: Backup, addr: &str) -> Result<(), StoreError> {
        let _one = self.lifecycle.lock().await;
        if self.begun().await? {
            return Err(StoreError::AlreadyBegun { node: self.settings.node.clone() });
        }
        self.stop().await;
        let disk = self.open_disk().await?;
        self.refound(disk, backup.state, None, addr).await
    }

    /// Begins the swarm anew with this manager alone: for one that is left where the majority is lost for good. All objects
    /// stay. Managers that come back do not belong to it: their folders must be removed.
    pub async fn force_new_cluster(&self, addr: &str) -> Result<(), StoreError> {
        let _one = self.lifecycle.lock().await;
        if !self.begun().await? {
            return Err(StoreError::NotBegun);
        }
        self.stop().await;
        let (disk, found) = self.open_disk().await?;
        match everything(&disk).await {
            Ok((state, last)) => self.refound((disk, found), state, last, addr).await,
            Err(error) => {
                self.start((disk, found)).await?;
                Err(error)
            }
        }
    }

    /// Makes the state the whole content of the folder, in one write. It becomes that of a new member in a swarm of
    /// its own.
    async fn refound(
        &self,
        (disk, found): (Disk, Found),
        mut state: State,
        last: Option<LogId>,
        addr: &str,
    ) -> Result<(), StoreError> {
        let me = Member::new(&self.settings.node);
        let term = last.as_ref().map_or(1, |it| it.leader_id.term);
        let index = last.as_ref().map_or(state.view.index, |it| it.index);
        state.pass(index);
        let last = last.unwrap_or_else(|| LogId { leader_id: leader(term, &me), index });
        let nodes = BTreeMap::from([(me.clone(), Address { addr: addr.to_owned() })]);
        let members = openraft::Membership::new(vec![BTreeSet::from([me.clone()])], nodes)
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        let meta = SnapshotMeta {
            last_log_id: Some(last.clone()),
            last_membership: Membership::new(Some(last.clone()), members),
        };
        let doing = || StoreError::io("begin the swarm again");
        let bytes = snapshot::encode(&state).map_err(|error| doing()(error.into()))?;
        let vote = Vote { leader_id: leader(term, &me), committed: false };
        disk.set_committed(Some(last.clone()));
        let ops = vec![
            Op::CutFrom(0),
            Op::Snapshot(meta, bytes.into()),
            Op::Purged(Some(last)),
            Op::Vote(vote),
            Op::Member(me),
        ];
        let written = disk.write(ops).await.map_err(doing());
        disk.close().await;
        drop((disk, found));
        let disk = self.open_disk().await?;
        self.start(disk).await?;
        written?;
        self.lead().await
    }
}

fn leader(term: u64, member: &Member) -> openraft::alias::LeaderIdOf<crate::raft::Types> {
    RaftLeaderId::new(term, member.clone())
}

/// Maximum bytes of log entries in one read.
const READ_BYTES: usize = 16 << 20;

/// All that a folder has: the snapshot, and every entry of the log. What was acknowledged is among it, if anywhere; what was
/// not may become so.
async fn everything(disk: &Disk) -> Result<(State, Option<LogId>), StoreError> {
    let doing = || StoreError::io("read the whole store");
    let snapshot = disk.snapshot().await.map_err(doing())?;
    let mut last = None;
    let mut state = State::default();
    if let Some((meta, bytes)) = snapshot {
        state = snapshot::decode(&bytes).map_err(|why| doing()(std::io::Error::other(why)))?;
        last = meta.last_log_id;
    }
    loop {
        let next = last.as_ref().map_or(0, |last: &LogId| last.index + 1);
        let entries = disk.entries(next..u64::MAX, READ_BYTES).await.map_err(doing())?;
        let Some((newest, _)) = entries.last() else { break };
        last = Some(newest.log_id.clone());
        for (entry, _) in &entries {
            match &entry.payload {
                EntryPayload::Normal(proposal) => drop(state.apply(entry.log_id.index, proposal)),
                EntryPayload::Blank | EntryPayload::Membership(_) => state.pass(entry.log_id.index),
            }
        }
    }
    Ok((state, last))
}

fn pack(plain: &[u8], key: Option<&Key>) -> Vec<u8> {
    let (kind, body) = match key {
        Some(key) => (SEALED, Sealer::new(key.bytes()).seal(PLACE, plain)),
        None => (PLAIN, plain.to_vec()),
    };
    let mut bytes = MAGIC.to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
    bytes.extend_from_slice(digest(&SHA256, &body).as_ref());
    bytes.extend_from_slice(&body);
    bytes
}

fn unpack(bytes: &[u8], key: Option<&Key>, bad: impl Fn(String) -> StoreError) -> Result<Vec<u8>, StoreError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("it does not begin as one".to_owned()))?;
    let short = || bad("it is not whole".to_owned());
    let (kind, rest) = rest.split_first().ok_or_else(short)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (sum, body) = rest.split_first_chunk::<SHA256_BYTES>().ok_or_else(short)?;
    if u64::from_be_bytes(*length) != body.len() as u64 {
        return Err(short());
    }
    if digest(&SHA256, body).as_ref() != sum {
        return Err(bad("its checksum does not fit: it was changed".to_owned()));
    }
    match (*kind, key) {
        (PLAIN, _) => Ok(body.to_vec()),
        (SEALED, None) => Err(bad("it is sealed, and no key was given".to_owned())),
        (SEALED, Some(key)) => Sealer::new(key.bytes()).open(PLACE, body).map_err(|error| match error {
            Unsealed::Broken => bad("the key is not the one that it was sealed with".to_owned()),
            other => bad(other.to_string()),
        }),
        (kind, _) => Err(bad(format!("it is of a kind ({kind}) that this version of herder does not know"))),
    }
}
