//! The pool's shared join code: nodes gossip the newest one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_wire::gossip::{self, Gossip, GossipError, PoolKeys, View};
use herder_wire::link::{Link, Roster};
use herder_wire::rotation::{FACT_BYTES_MAX, Rotation};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::swarm;

/// The fact that holds the code's secret. Sealed with the rest of gossip, and shown nowhere.
const FACT: &str = "join";

/// Publishes this node's facts, with the join code's secret once it was changed. All nodes publish it, so that it
/// outlives its author and reaches nodes that come back.
#[derive(Clone, Debug)]
pub struct FactsPublisher {
    link: Arc<Link>,
    gossip: Arc<Gossip>,
    facts: BTreeMap<String, String>,
    /// The swarm that this node manages, if it does.
    swarm: watch::Receiver<Option<String>>,
    rotation: watch::Receiver<Rotation>,
    /// The roster of the swarm, if there is one.
    rosters: watch::Receiver<Option<Arc<Roster>>>,
    view: watch::Receiver<View>,
}

impl FactsPublisher {
    pub fn new(
        link: Arc<Link>,
        gossip: Arc<Gossip>,
        facts: BTreeMap<String, String>,
        swarm: watch::Receiver<Option<String>>,
    ) -> FactsPublisher {
        let (rotation, view, rosters) = (link.rotations(), gossip.view(), link.rosters());
        FactsPublisher { link, gossip, facts, swarm, rotation, rosters, view }
    }

    /// Publishes the rotation in force. Fails if the facts are too long, also where the secret would only later not
    /// fit.
    pub async fn tell(&self) -> Result<(), GossipError> {
        let mut facts = self.facts.clone();
        facts.insert(FACT.to_owned(), "x".repeat(FACT_BYTES_MAX));
        gossip::check_facts(&facts)?;
        facts.remove(FACT);
        let rotation = *self.rotation.borrow();
        // A swarm is entered with its tokens, which only managers have.
        if !rotation.is_first() && self.rosters.borrow().is_none() {
            facts.insert(FACT.to_owned(), rotation.fact());
        }
        if let Some(swarm) = &*self.swarm.borrow() {
            facts.insert(swarm::FACT.to_owned(), swarm.clone());
        }
        self.gossip.set_facts(facts).await
    }

    /// Learns from the others and tells them, until `stop`.
    pub async fn keep(mut self, stop: CancellationToken) {
        loop {
            self.learn();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.view.changed() => if changed.is_err() { return },
                changed = self.rotation.changed() => {
                    if changed.is_err() { return }
                    if let Err(error) = self.tell().await {
                        tracing::error!(%error, "cannot send the new join code to other nodes");
                    }
                }
                Ok(()) = self.rosters.changed() => {
                    if let Err(error) = self.tell().await {
                        tracing::error!(%error, "cannot publish the join code of this node");
                    }
                }
                Ok(()) = self.swarm.changed() => {
                    if let Err(error) = self.tell().await {
                        tracing::error!(%error, "cannot inform the other nodes that this one is a manager");
                    }
                }
            }
        }
    }

    fn learn(&mut self) {
        let view = self.view.borrow_and_update().clone();
        // Any node could tell one.
        if self.rosters.borrow().is_some() {
            return;
        }
        let told = view.values().filter_map(|seen| Rotation::of_fact(seen.facts.get(FACT)?));
        match told.max().map(|newest| self.link.adopt(newest)) {
            Some(Ok(true)) => {
                tracing::info!("the join code was changed on another node; the old one is no longer valid")
            }
            Some(Err(error)) => tracing::error!(%error, "the new join code is in force, but cannot be saved"),
            Some(Ok(false)) | None => {}
        }
    }
}

/// Time after a change of key during which packets by the old key are opened. All nodes know the new one by then.
const OLD_KEY_TIME: Duration = Duration::from_secs(60);

/// Keeps the keys of gossip those of this node's identity, until `stop`.
pub async fn keep_keys(link: Arc<Link>, gossip: Arc<Gossip>, stop: CancellationToken) {
    let mut identities = link.identities();
    let mut before = link.identity().shared.gossip_key;
    let mut known = None;
    loop {
        let identity = identities.borrow_and_update().clone();
        let (seals, next) = (identity.shared.gossip_key, identity.shared.gossip_next);
        let was = (before != seals).then_some(before);
        let keys = PoolKeys { seals, opens_also: was.into_iter().chain(next).collect() };
        if known.as_ref() != Some(&keys) {
            if known.is_some() {
                tracing::info!(changing = next.is_some(), "gossip uses another key");
            }
            gossip.set_keys(keys.clone()).await;
            known = Some(keys);
        }
        let rest = if was.is_some() { OLD_KEY_TIME } else { Duration::MAX };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = identities.changed() => if changed.is_err() { return },
            () = sleep(rest) => before = seals,
        }
    }
}
