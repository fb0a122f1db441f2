//! Messages between nodes: questions, answers, and news of containers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::placing::{self, Refusal, Said};
use herder_model::{Node, NodeState};
use rand::RngExt as _;

use super::*;

/// Same as in `herder::up::peers`: number of attempts to settle a claim with an owner.
pub(super) const SETTLE_ATTEMPTS: u32 = 3;
const SETTLE_REST: Duration = Duration::from_secs(1);
impl World {
    /// A message on its way; it may get lost.
    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        let lost = from != to && self.pool.rng.random_range(0..1000) < self.pool.weather.loss;
        let way = if from == to { Duration::ZERO } else { self.pool.way() };
        let life = match &message {
            // Answers are for the program that asked.
            it if it.answers().is_some() => self.jobs[it.answers().expect("an answer").0].life,
            _ => self.pool.hosts[to].life,
        };
        if lost && matches!(message, Message::News { .. }) {
            // Sent again by TCP.
            return self.pool.later(way + Duration::from_millis(400), Event::Message { from, to, life, message });
        }
        if lost { self.lose(&message) } else { self.pool.later(way, Event::Message { from, to, life, message }) }
    }

    /// Drops a message silently; the waiting node finds its connection broken.
    pub(super) fn lose(&mut self, message: &Message) {
        if let Some((job, call)) = message.question().or(message.answers()) {
            self.pool.later(KEEPALIVE, Event::Late { job, call });
        }
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, life: u64, message: Message) {
        if !self.pool.reach(from, to) {
            if let Message::News { .. } = message {
                self.places[to].following[from] = false;
            }
            return self.lose(&message);
        }
        if !self.runs(to, life) {
            // The host answers that nobody listens, if it lives.
            if self.places[to].dark {
                return self.lose(&message);
            }
            if let Some((job, call)) = message.question() {
                self.send(to, from, Message::Broken { job, call });
            }
            return;
        }
        match message {
            Message::Claim { job, call, name, number } => {
                let answer = match self.give(to, &name, number) {
                    Ok(()) => Message::Given { job, call },
                    Err(why) => Message::Refused { job, call, said: Said::Failed, why: why.to_string() },
                };
                self.send(to, from, answer);
            }
            Message::Settle { number, settled } => {
                let now = self.pool.now - self.places[to].began;
                self.places[to].claims.settle(number, settled, now);
            }
            Message::Create { job, call } => self.admit(to, from, job, call),
            Message::News { node, version } => self.learn(to, from, node, version),
            answer => self.answered(answer),
        }
    }

    // Owners of names.

    pub(super) fn give(&mut self, owner: usize, name: &str, number: u64) -> Result<(), Refusal> {
        placing::check_name(&self.picture(owner), name, None)?;
        let now = self.pool.now - self.places[owner].began;
        let place = &mut self.places[owner];
        let (own, versions, pictures) = (place.version, &place.versions, &place.pictures);
        let seen = |addr: &str| {
            let node = (0..versions.len()).find(|node| address(*node) == addr)?;
            if node == owner { Some(own) } else { pictures[node].as_ref().map(|_| versions[node]) }
        };
        let given = place.claims.claim(name, number, now, seen);
        if given { Ok(()) } else { Err(Refusal::NameClaimed(name.to_owned())) }
    }

    pub(super) fn settle(&mut self, from: usize, to: usize, number: u64, settled: Settled, attempts: u32) {
        if attempts == 0 || from != to && !self.alive(from).values().any(|node| *node == to) {
            return;
        }
        let reached = self.pool.hosts[to].core.is_some() && self.pool.reach(from, to);
        let lost = from != to && self.pool.rng.random_range(0..1000) < self.pool.weather.loss;
        if reached && !lost {
            let (way, life) = (self.pool.way(), self.pool.hosts[to].life);
            let message = Message::Settle { number, settled: settled.clone() };
            return self.pool.later(way, Event::Message { from, to, life, message });
        }
        let life = self.pool.hosts[from].life;
        let again = Event::Settle { from, life, to, number, settled, attempts: attempts - 1 };
        self.pool.later(CLAIM_TIME_MAX + SETTLE_REST, again);
    }

    // Pictures.

    /// Returns the nodes that this node believes alive.
    pub(super) fn alive(&mut self, node: usize) -> &BTreeMap<String, usize> {
        if std::mem::take(&mut self.pool.hosts[node].viewed) {
            let mut new: Vec<usize> = self.pool.hosts[node].core().addresses().map(crate::network::number).collect();
            new.sort_unstable();
            let old: Vec<usize> = self.places[node].alive.values().copied().collect();
            // A thousand nodes look a thousand times, and mostly see the same.
            if new != old {
                self.places[node].alive = new.iter().map(|number| (id(*number), *number)).collect();
                for gone in old.iter().filter(|gone| new.binary_search(gone).is_err()) {
                    self.lost_sight(node, *gone);
                }
                for come in new.iter().filter(|come| **come != node && old.binary_search(come).is_err()) {
                    self.follow_one(node, *come);
                }
            }
        }
        &self.places[node].alive
    }

    /// Marks a node as lost for this door: its picture stays, nothing is placed there, and waiting calls fail.
    pub(super) fn lost_sight(&mut self, door: usize, gone: usize) {
        self.places[door].following[gone] = false;
        if let Some(picture) = &mut self.places[door].pictures[gone] {
            let picture = Arc::make_mut(picture);
            (picture.state, picture.health_indicator) = (NodeState::Unhealthy, 0);
        }
        let waits = |job: &Job| job.door == door && matches!(job.state, State::Asking { at, .. } if at == gone);
        let waiting: Vec<(usize, u64)> = self
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| waits(job))
            .map(|(number, job)| (number, job.call))
            .collect();
        for (job, call) in waiting {
            self.pool.later(Duration::ZERO, Event::Late { job, call });
        }
    }

    /// All nodes as this one sees them.
    pub(crate) fn picture(&self, node: usize) -> Vec<Arc<Node>> {
        let place = &self.places[node];
        let of = |(number, it): (usize, &Option<Arc<Node>>)| {
            if number == node { Some(place.engine.clone()) } else { it.clone() }
        };
        place.pictures.iter().enumerate().filter_map(of).collect()
    }

    pub(super) fn follow_soon(&mut self, node: usize) {
        let life = self.pool.hosts[node].life;
        self.pool.later(FOLLOW_REST, Event::Follow { node, life });
    }

    pub(super) fn follow(&mut self, node: usize) {
        let alive: Vec<usize> = self.alive(node).values().copied().collect();
        for other in alive.into_iter().filter(|other| *other != node) {
            if !self.places[node].following[other] {
                self.follow_one(node, other);
            }
        }
    }

    /// Asks for the whole picture of `of` and for all that changes from now on.
    fn follow_one(&mut self, node: usize, of: usize) {
        if self.pool.hosts[of].core.is_none() || !self.pool.reach(node, of) {
            return;
        }
        self.places[node].following[of] = true;
        let (engine, version) = (self.places[of].engine.clone(), self.places[of].version);
        self.send(of, node, Message::News { node: engine, version });
    }

    pub(super) fn learn(&mut self, node: usize, of: usize, picture: Arc<Node>, version: u64) {
        let place = &mut self.places[node];
        if !place.following[of] || version < place.versions[of] {
            return;
        }
        place.versions[of] = version;
        place.pictures[of] = Some(picture);
        let waits = |job: &Job| {
            matches!(job.state, State::Reading { at, version: wanted, .. } if at == of && version >= wanted)
                && job.door == node
        };
        let waiting: Vec<usize> = (0..self.jobs.len()).filter(|job| waits(&self.jobs[*job])).collect();
        let settled = Settled::Shown { addr: address(of), picture: version };
        waiting.into_iter().for_each(|job| self.end(job, End::Made, settled.clone()));
    }

    /// The engine of this node is not as it was.
    pub(super) fn changed(&mut self, node: usize) {
        self.places[node].version += 1;
        if self.pool.hosts[node].core.is_none() {
            return;
        }
        let (engine, version) = (self.places[node].engine.clone(), self.places[node].version);
        for other in 0..self.places.len() {
            if other != node && self.pool.hosts[other].core.is_some() && self.places[other].following[node] {
                self.send(node, other, Message::News { node: engine.clone(), version });
            }
        }
    }
}
