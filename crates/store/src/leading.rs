//! Leadership of the swarm, as one manager knows it.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::Settings;
use crate::raft::{Member, Metrics, Types};

/// The leader, as one manager knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Id of the node.
    pub leader: Option<String>,
    /// The term, which grows with every election.
    pub term: u64,
    /// True if this manager leads, has reached a majority lately, and its view contains all earlier writes.
    pub me: bool,
}

/// Time of the leader's last message. Raft itself goes on to believe in a silent leader.
#[derive(Debug)]
pub(crate) struct Heard {
    last: Mutex<Instant>,
    /// A leader is forgotten after so long: others may have another one by now.
    patience: Duration,
    /// True while this manager hands its leadership over; the next leader may begin before this one hears of it.
    retires: watch::Sender<bool>,
}

/// Keeps this manager from reporting itself as leader until it is dropped.
pub(crate) struct Retiring<'h>(&'h Heard);

impl Drop for Retiring<'_> {
    fn drop(&mut self) {
        self.0.retires.send_replace(false);
    }
}

impl Heard {
    pub(crate) fn new(patience: Duration) -> Heard {
        Heard { last: Mutex::new(Instant::now()), patience, retires: watch::Sender::new(false) }
    }

    pub(crate) fn now(&self) {
        *self.last.lock() = Instant::now();
    }

    pub(crate) fn retire(&self) -> Retiring<'_> {
        self.retires.send_replace(true);
        Retiring(self)
    }

    /// Returns the leader in these metrics, if it is not silent.
    pub(crate) fn leader<'m>(&self, metrics: &'m Metrics) -> Option<&'m Member> {
        let leader = metrics.current_leader.as_ref();
        leader.filter(|leader| **leader == metrics.id || self.last.lock().elapsed() < self.patience * 2)
    }
}

pub(crate) type Leads = Arc<watch::Sender<Leadership>>;

/// Keeps the leadership up to date until raft ends.
pub(crate) async fn follow(
    mut metrics: openraft::alias::WatchReceiverOf<Types, Metrics>,
    settings: Settings,
    heard: Arc<Heard>,
    leads: Leads,
) {
    let mut retires = heard.retires.subscribe();
    loop {
        retires.mark_unchanged();
        let now = of(&metrics.borrow_watched(), &settings, &heard);
        leads.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        // That nobody hears a leader any more is no news but the absence of news: look at each heartbeat.
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { break },
            _ = retires.changed() => {}
            () = sleep(settings.heartbeat) => {}
        }
    }
    leads.send_modify(|it| *it = Leadership { term: it.term, ..Leadership::default() });
}

fn of(metrics: &Metrics, settings: &Settings, heard: &Heard) -> Leadership {
    let term = metrics.current_term;
    if metrics.running_state.is_err() {
        return Leadership { term, ..Leadership::default() };
    }
    let alone = metrics.membership_config.voter_ids().all(|voter| voter == metrics.id);
    let backed = alone || metrics.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < settings.patience);
    let leading = metrics.state == ServerState::Leader && backed && !*heard.retires.borrow();
    let applied = metrics
        .last_applied
        .as_ref()
        .is_some_and(|last| last.leader_id.term == term && last.leader_id.node_id == metrics.id);
    let leader = heard.leader(metrics).filter(|leader| **leader != metrics.id || leading);
    Leadership { leader: leader.map(|leader| leader.node().to_owned()), term, me: leading && applied }
}
