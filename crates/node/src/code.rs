//! One join code in the whole pool: whoever has a newer one tells it to all, with its facts.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_wire::gossip::{self, Gossip, GossipError, View};
use herder_wire::link::Link;
use herder_wire::rotation::{FACT_BYTES_MAX, Rotation};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::swarm;

/// The fact that holds the code's secret. Sealed with the rest of gossip, and shown nowhere.
const FACT: &str = "join";

/// Tells this node's facts, the join code's secret among them once it was changed. Every node tells it, so that it is known
/// after the one that made it is gone, and to those that come back.
#[derive(Debug)]
pub struct Teller {
    link: Arc<Link>,
    gossip: Arc<Gossip>,
    facts: BTreeMap<String, String>,
    /// The swarm that this node manages, if it does.
    swarm: watch::Receiver<Option<String>>,
    rotation: watch::Receiver<Rotation>,
    view: watch::Receiver<View>,
}

impl Teller {
    pub fn new(
        link: Arc<Link>,
        gossip: Arc<Gossip>,
        facts: BTreeMap<String, String>,
        swarm: watch::Receiver<Option<String>>,
    ) -> Teller {
        let (rotation, view) = (link.rotations(), gossip.view());
        Teller { link, gossip, facts, swarm, rotation, view }
    }

    /// Tells what is in force now. Fails if the facts are too long, also where the secret would only later not fit.
    pub async fn tell(&self) -> Result<(), GossipError> {
        let mut facts = self.facts.clone();
        facts.insert(FACT.to_owned(), "x".repeat(FACT_BYTES_MAX));
        gossip::check_facts(&facts)?;
        facts.remove(FACT);
        let rotation = *self.rotation.borrow();
        if !rotation.is_first() {
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
                        tracing::error!(%error, "cannot tell the other nodes the new join code");
                    }
                }
                Ok(()) = self.swarm.changed() => {
                    if let Err(error) = self.tell().await {
                        tracing::error!(%error, "cannot tell the other nodes that this one is a manager");
                    }
                }
            }
        }
    }

    fn learn(&mut self) {
        let view = self.view.borrow_and_update().clone();
        let told = view.values().filter_map(|seen| Rotation::of_fact(seen.facts.get(FACT)?));
        match told.max().map(|newest| self.link.adopt(newest)) {
            Some(Ok(true)) => {
                tracing::info!("the join code was changed on another node; the old one lets nobody in any more")
            }
            Some(Err(error)) => tracing::error!(%error, "the new join code is in force, but cannot be kept"),
            Some(Ok(false)) | None => {}
        }
    }
}
