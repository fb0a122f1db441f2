//! Small facts of each member: sent with gossip and compared from time to time, so that they reach every node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use foca::{BroadcastHandler, Invalidates};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::GossipError;
use super::core::Who;

/// Facts of one member, keys and values together, in bytes: with them a packet still fits into a frame.
pub const FACTS_BYTES_MAX: usize = 1024;

/// Maximum of facts kept for unknown members, which may be forgotten or forged.
const MEMBERS_MAX: usize = 10_000;

/// Maximum of facts that are kept before their member is known.
const SPARE: usize = 64;

/// The newer one wins: start of the program, then count within it.
pub(super) type Version = (u64, u64);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SentFacts {
    pub(super) id: String,
    pub(super) version: Version,
    pub(super) facts: BTreeMap<String, String>,
}

impl fmt::Debug for SentFacts {
    /// Values stay out of logs: one of them may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts: Vec<&String> = self.facts.keys().collect();
        f.debug_struct("SentFacts")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("facts", &facts)
            .finish()
    }
}

/// Checks the size of facts.
pub fn check(facts: &BTreeMap<String, String>) -> Result<(), GossipError> {
    let length = facts.iter().map(|(key, value)| key.len() + value.len()).sum();
    if length > FACTS_BYTES_MAX { Err(GossipError::Facts { length }) } else { Ok(()) }
}

/// The facts of all members. Shared by gossip and by readers.
#[derive(Clone, Default)]
pub(super) struct Table(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    known: BTreeMap<String, (Version, Arc<BTreeMap<String, String>>)>,
    learned: Vec<(String, Version)>,
}

impl Table {
    /// True if it is news.
    pub(super) fn learn(&self, told: SentFacts) -> bool {
        let mut inner = self.0.lock();
        let news = inner.known.get(&told.id).is_none_or(|(version, _)| *version < told.version);
        let fits =
            check(&told.facts).is_ok() && (inner.known.contains_key(&told.id) || inner.known.len() < MEMBERS_MAX);
        if news && fits {
            inner.learned.push((told.id.clone(), told.version));
            inner.known.insert(told.id, (told.version, Arc::new(told.facts)));
        }
        news && fits
    }

    pub(super) fn of(&self, id: &str) -> Arc<BTreeMap<String, String>> {
        self.0.lock().known.get(id).map(|(_, facts)| facts.clone()).unwrap_or_default()
    }

    /// Returns the version of a member's facts; the lowest while none are known.
    pub(super) fn version(&self, id: &str) -> Version {
        self.0.lock().known.get(id).map(|(version, _)| *version).unwrap_or_default()
    }

    /// All that is known of a member.
    pub(super) fn told(&self, id: &str) -> SentFacts {
        let inner = self.0.lock();
        let known = inner.known.get(id).map(|(version, facts)| (*version, BTreeMap::clone(facts)));
        let (version, facts) = known.unwrap_or_default();
        SentFacts { id: id.to_owned(), version, facts }
    }

    /// Takes the members whose facts changed since the last call, with their versions.
    pub(super) fn take_learned(&self) -> Vec<(String, Version)> {
        std::mem::take(&mut self.0.lock().learned)
    }

    /// Returns ids of `members` from `from` on with their versions, `count` at most. If there are more, the end of the
    /// covered range is added.
    pub(super) fn digest(
        &self,
        from: &str,
        count: usize,
        members: &BTreeSet<String>,
    ) -> (Vec<(String, Version)>, Option<String>) {
        let inner = self.0.lock();
        let rest = inner.known.range(from.to_owned()..).filter(|(id, _)| members.contains(*id));
        let mut rest = rest.map(|(id, (version, _))| (id.clone(), *version));
        let part: Vec<_> = rest.by_ref().take(count).collect();
        (part, rest.next().map(|(id, _)| id))
    }

    /// Returns the facts that are newer here than in a digest of the range.
    pub(super) fn newer(&self, from: &str, to: Option<&str>, digest: &[(String, Version)]) -> Vec<SentFacts> {
        let theirs: BTreeMap<&str, Version> = digest.iter().map(|(id, version)| (id.as_str(), *version)).collect();
        let inner = self.0.lock();
        let range = inner.known.range(from.to_owned()..).take_while(|(id, _)| to.is_none_or(|to| id.as_str() < to));
        let newer = range.filter(|(id, (version, _))| theirs.get(id.as_str()).is_none_or(|old| old < version));
        newer
            .map(|(id, (version, facts))| SentFacts {
                id: id.clone(),
                version: *version,
                facts: BTreeMap::clone(facts),
            })
            .collect()
    }

    /// Forgets everybody but these, when there are many more.
    pub(super) fn keep(&self, ids: &BTreeSet<String>) {
        let mut inner = self.0.lock();
        if inner.known.len() > 2 * ids.len() + SPARE {
            inner.known.retain(|id, _| ids.contains(id));
        }
    }
}

/// Identifies what is on its way: the newer facts of a member replace its older ones.
#[derive(Debug)]
pub(super) struct Key {
    id: String,
    version: Version,
}

impl Invalidates for Key {
    fn invalidates(&self, other: &Key) -> bool {
        self.id == other.id && self.version >= other.version
    }
}

/// Bytes that are no facts.
#[derive(Debug)]
pub(super) struct NoFacts;

impl fmt::Display for NoFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes that are no facts")
    }
}

impl std::error::Error for NoFacts {}

impl BroadcastHandler<Who> for Table {
    type Key = Key;
    type Error = NoFacts;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Who>) -> Result<Option<Key>, NoFacts> {
        let told: SentFacts = postcard::from_bytes(data).map_err(|_| NoFacts)?;
        let key = Key { id: told.id.clone(), version: told.version };
        let news = self.learn(told);
        // What this node itself wants to tell is told, known or not.
        Ok((news || sender.is_none()).then_some(key))
    }
}
