//! The parts that placing needs.

use std::sync::{Arc, OnceLock};

use herder_decide::schedule::Scheduler;
use herder_pool::Pool;

use crate::overlays::Overlays;
use crate::peers::{ClaimLedger, Peers};
use crate::transfer::Transfers;

/// Settings of placement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// More attempts after a create that failed (`--cluster-opt swarm.createretry`).
    pub create_retry: u32,
}

/// Places and moves the containers of a pool.
#[derive(Debug)]
pub struct Placer {
    pub pool: Arc<Pool>,
    pub scheduler: Scheduler,
    pub(crate) settings: Settings,
    pub(crate) transfers: Transfers,
    /// Only in a pool without masters.
    pub(crate) peers: OnceLock<Arc<dyn Peers>>,
    pub(crate) ledger: ClaimLedger,
    /// Only where the node may be in a swarm.
    pub(crate) overlays: OnceLock<Arc<dyn Overlays>>,
}

impl Placer {
    pub fn new(pool: Arc<Pool>, scheduler: Scheduler, settings: Settings) -> Arc<Placer> {
        let (transfers, peers, ledger, overlays) = Default::default();
        Arc::new(Placer { pool, scheduler, settings, transfers, peers, ledger, overlays })
    }

    /// The other nodes, in a pool without masters.
    pub fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.peers.get()
    }
}
