//! The faults that a story injects into the world.

use std::collections::BTreeMap;

use super::truth::holds;
use super::*;

impl World {
    pub(super) fn remove(&mut self, node: usize, after: u64) {
        let from = format!("{after:064x}");
        let containers = &self.places[node].engine.containers;
        let Some(id) = containers.range(from..).chain(containers.iter()).map(|(id, _)| id.clone()).next() else {
            return;
        };
        let removed = Arc::make_mut(&mut self.places[node].engine).remove_container(&id).expect("a container");
        let elsewhere = self.places.iter().any(|place| holds(place, &removed.name));
        if let Some(last) = self.used.get_mut(&removed.name).and_then(|all| all.last_mut()).filter(|_| !elsewhere) {
            last.1 = Some(self.pool.now);
        }
        self.changed(node);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.pool.hosts.iter().any(|host| host.side != self.pool.hosts[0].side)
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.last_fault = self.pool.now;
        match fault {
            Fault::Stop(node) | Fault::Crash(node) if self.pool.hosts[node].core.is_some() => {
                let power = matches!(fault, Fault::Crash(_));
                self.pool.crash(node);
                self.places[node].host += u64::from(power);
                self.places[node].dark = power;
                self.forget(node, power);
            }
            Fault::Start(node) if self.pool.hosts[node].core.is_none() => {
                self.pool.start(node);
                let count = self.places.len();
                let place = &mut self.places[node];
                (place.began, place.dark) = (self.pool.now, false);
                (place.claims, place.tickets) = Default::default();
                (place.pictures, place.versions, place.following) =
                    (vec![None; count], vec![0; count], vec![false; count]);
                place.alive = BTreeMap::from([(id(node), node)]);
                // Each start is a new stream for those that listened to the last one.
                self.places.iter_mut().for_each(|place| place.following[node] = false);
                self.follow_soon(node);
            }
            Fault::Cut(sides) => {
                self.last_cut = Some(self.pool.now);
                self.pool.hosts.iter_mut().zip(sides).for_each(|(host, side)| host.side = side);
                self.break_calls();
            }
            Fault::Loss(loss) => self.pool.weather.loss = loss,
            Fault::Stop(_) | Fault::Crash(_) | Fault::Start(_) => {}
        }
    }

    /// Drops everything under way at a program that ended.
    pub(super) fn forget(&mut self, node: usize, power: bool) {
        for number in 0..self.jobs.len() {
            let job = &mut self.jobs[number];
            match job.state {
                State::Ended => {}
                _ if job.door == node && job.life > 0 => {
                    job.end = Some((self.pool.now, End::BrokenOff));
                    job.state = State::Ended;
                }
                // The connection breaks; that is noticed late when the host is dead.
                State::Asking { at, .. } if at == node => {
                    let call = job.call;
                    let after = if power { KEEPALIVE } else { self.pool.way() };
                    self.pool.later(after, Event::Late { job: number, call });
                }
                _ => {}
            }
        }
    }

    /// Calls between hosts that do not reach each other any more.
    pub(super) fn break_calls(&mut self) {
        for number in 0..self.jobs.len() {
            let (door, call) = (self.jobs[number].door, self.jobs[number].call);
            if let State::Asking { at, .. } = self.jobs[number].state
                && !self.pool.reach(door, at)
            {
                self.pool.later(KEEPALIVE, Event::Late { job: number, call });
            }
        }
    }
}
