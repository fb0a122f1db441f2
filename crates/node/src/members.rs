//! Membership of the pool, fed by gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::NodeSettings;
use herder_decide::claims;
use herder_decide::placing::{Claiming, Step};
use herder_model::Liveness;
use herder_parts::Parts;
use herder_pool::discovery::Role;
use herder_pool::{Description, Pool};
use herder_wire::calls::Peer;
use herder_wire::gossip::{Seen, View};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Facts whose key begins so are labels.
const LABEL: &str = "label.";
const NAME: &str = "name";
/// Time after a start in which other nodes must answer. Each second, they ask three of those that they think dead.
/// After it this node counts as alone.
const ALONE_TIME_MAX: Duration = Duration::from_secs(3);

/// Returns the facts that this node publishes.
pub fn facts(settings: &NodeSettings) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::from([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    facts.extend(settings.name.clone().map(|name| (NAME.to_owned(), name)));
    facts.extend(settings.labels.iter().map(|(key, value)| (format!("{LABEL}{key}"), value.clone())));
    facts
}

fn description(seen: &Seen) -> Description {
    let labels =
        seen.facts.iter().filter_map(|(key, value)| Some((key.strip_prefix(LABEL)?.to_owned(), value.clone())));
    Description { name: seen.facts.get(NAME).cloned().unwrap_or_default(), labels: labels.collect() }
}

/// Address → node, and who lives.
#[derive(Debug)]
pub struct Directory {
    pub id: String,
    pub here: String,
    known: RwLock<Known>,
    /// Notified of every change of `known`.
    changed: watch::Sender<()>,
    /// End of the wait for other nodes.
    alone_until: Instant,
}

/// The next node to ask for a name.
#[derive(Debug)]
pub enum Next {
    Ask(Peer),
    Have,
    Stuck,
}

#[derive(Debug, Default)]
struct Known {
    by_addr: BTreeMap<String, String>,
    /// Ids of nodes that live, with their addresses; this one too.
    alive: BTreeMap<String, String>,
}

impl Directory {
    /// `others`: whether there may be others already.
    pub fn new(id: &str, here: &str, others: bool) -> Directory {
        let known = Known {
            by_addr: BTreeMap::from([(here.to_owned(), id.to_owned())]),
            alive: BTreeMap::from([(id.to_owned(), here.to_owned())]),
        };
        Directory {
            id: id.to_owned(),
            here: here.to_owned(),
            known: RwLock::new(known),
            changed: watch::Sender::new(()),
            alone_until: Instant::now() + if others { ALONE_TIME_MAX } else { Duration::ZERO },
        }
    }

    /// Watches for changes.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until this node knows another live one: before that it does not know which names are in use.
    pub async fn met_others(&self) {
        let mut changes = self.changes();
        let met = changes.wait_for(|()| self.known.read().alive.len() > 1);
        // They may be gone.
        let _ = timeout_at(self.alone_until, met).await;
    }

    /// The node at this address.
    pub fn at(&self, addr: &str) -> Option<Peer> {
        let id = self.known.read().by_addr.get(addr).cloned()?;
        Some(Peer { id, addr: addr.to_owned() })
    }

    pub fn by_id(&self, id: &str) -> Option<Peer> {
        let addr = self.known.read().alive.get(id).cloned()?;
        Some(Peer { id: id.to_owned(), addr })
    }

    /// The node that is to be asked for a name next.
    pub fn next_owner(&self, name: &str, claiming: &Claiming) -> Next {
        let known = self.known.read();
        match claiming.next(name, known.alive.keys().map(String::as_str)) {
            Step::Ask(id) => {
                Next::Ask(Peer { id: id.to_owned(), addr: known.alive.get(id).cloned().unwrap_or_default() })
            }
            Step::Have => Next::Have,
            Step::Stuck => Next::Stuck,
        }
    }

    /// Every live node but this one.
    pub fn others(&self) -> Vec<Peer> {
        let known = self.known.read();
        let others = known.alive.iter().filter(|(id, _)| **id != self.id);
        others.map(|(id, addr)| Peer { id: id.clone(), addr: addr.clone() }).collect()
    }

    /// True if this node emits the events about the node at this address. Exactly one node does.
    pub fn reports_on(&self, addr: &str) -> bool {
        let known = self.known.read();
        reporter(addr, known.alive.iter().map(|(id, at)| (id.as_str(), at.as_str()))).is_none_or(|id| id == self.id)
    }

    /// The same by what gossip saw at one moment; what is known here may be older or newer.
    pub fn reports_on_seen(&self, addr: &str, view: &View) -> bool {
        let alive = view.values().filter(|seen| seen.health <= Liveness::Suspect);
        let alive: Vec<(&str, String)> =
            alive.map(|seen| (seen.member.id.as_str(), seen.member.addr.to_string())).collect();
        reporter(addr, alive.iter().map(|(id, at)| (*id, at.as_str()))).is_none_or(|id| id == self.id)
    }

    fn learn(&self, view: &View) {
        let mut known = Known::default();
        for (id, seen) in view.iter().filter(|(_, seen)| seen.health != Liveness::Left) {
            let addr = seen.member.addr.to_string();
            // A host that was made anew has a new id at its old address.
            let better = !known.by_addr.contains_key(&addr) || seen.health != Liveness::Dead;
            if better {
                known.by_addr.insert(addr.clone(), id.clone());
            }
            if seen.health.is_there() {
                known.alive.insert(id.clone(), addr);
            }
        }
        known.by_addr.insert(self.here.clone(), self.id.clone());
        known.alive.insert(self.id.clone(), self.here.clone());
        *self.known.write() = known;
        self.changed.send_replace(());
    }

    fn addresses(&self) -> BTreeSet<String> {
        self.known.read().by_addr.keys().cloned().collect()
    }
}

/// Chooses the live node (id, address) that reports about the node at this address. It is not that node itself: while
/// it comes or goes, nodes would not agree on it. `None` if there is no other node.
fn reporter<'n>(addr: &str, alive: impl Iterator<Item = (&'n str, &'n str)>) -> Option<&'n str> {
    claims::owner_of(addr, alive.filter(|(_, at)| *at != addr).map(|(id, _)| id))
}

/// Makes the members of the pool what gossip says, until `stop`.
pub async fn follow(
    pool: Arc<Pool>,
    directory: Arc<Directory>,
    mut views: watch::Receiver<View>,
    stop: CancellationToken,
) {
    loop {
        let view = views.borrow_and_update().clone();
        directory.learn(&view);
        pool.set_members(&directory.addresses());
        for (id, seen) in view.iter() {
            let addr = seen.member.addr.to_string();
            let Some(engine) = pool.engine(&addr) else { continue };
            if directory.at(&addr).is_none_or(|peer| peer.id != *id) {
                continue;
            }
            engine.describe(description(seen));
            if seen.health == Liveness::Dead && *id != directory.id {
                engine.presume_lost();
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = views.changed() => if changed.is_err() { return },
        }
    }
}

/// Watches whether this node moves containers of lost nodes. One node does, and only on the larger side of a cut
/// network, so that there are no doubles.
pub fn rescheduler(views: watch::Receiver<View>, me: &str, parts: &Parts) -> watch::Receiver<Role> {
    let (told, role) = watch::channel(Role::Replica { primary: None });
    let me = me.to_owned();
    parts.looping("rescheduler's election", move || elect_rescheduler(views.clone(), me.clone(), told.clone()));
    role
}

async fn elect_rescheduler(mut views: watch::Receiver<View>, me: String, told: watch::Sender<Role>) {
    loop {
        let view = views.borrow_and_update().clone();
        let known = view.values().filter(|seen| seen.health != Liveness::Left).count().max(1);
        let alive: Vec<&str> =
            view.iter().filter(|(_, seen)| seen.health == Liveness::Alive).map(|(id, _)| id.as_str()).collect();
        let leads = alive.len() * 2 > known && claims::owner_of("reschedule", alive) == Some(&me);
        let now = if leads { Role::Primary } else { Role::Replica { primary: None } };
        told.send_if_modified(|role| std::mem::replace(role, now.clone()) != now);
        if views.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::reporter;

    #[test]
    fn all_agree_who_tells_of_a_node_that_some_still_see() {
        for gone in 1..=5 {
            let all = (1..=5).map(|node| (format!("n{node}"), format!("10.0.0.{node}:7946")));
            let all: Vec<(String, String)> = all.collect();
            let addr = format!("10.0.0.{gone}:7946");
            let with = reporter(&addr, all.iter().map(|(id, at)| (id.as_str(), at.as_str())));
            let others = all.iter().filter(|(_, at)| *at != addr);
            let without = reporter(&addr, others.map(|(id, at)| (id.as_str(), at.as_str())));
            assert!(with.is_some() && with == without, "{with:?} {without:?}");
        }
        assert_eq!(reporter("10.0.0.1:7946", [("n1", "10.0.0.1:7946")].into_iter()), None);
    }
}
