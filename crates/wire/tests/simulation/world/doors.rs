//! Creates, from the door that is asked to the engine that carries them out.

use std::sync::Arc;
use std::time::Duration;

use herder_decide::placing::{self, Refusal, Said, Step, Turns};
use herder_model::Container;
use rand::RngExt as _;

use super::news::SETTLE_ATTEMPTS;
use super::*;

/// Same as in `herder::up::peers`: a door gives up claiming after this.
const OWNERS_TIME_MAX: Duration = Duration::from_secs(10);
/// Same as in `herder::up::members`.
const ALONE_TIME_MAX: Duration = Duration::from_secs(3);
/// Same as in `pool::mirror`: the maximum wait for a new container.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn begin(&mut self, job: usize) {
        let door = self.jobs[job].door;
        if self.pool.hosts[door].core.is_none() {
            self.jobs[job].end = Some((self.pool.now, End::BrokenOff));
            self.jobs[job].state = State::Ended;
            return;
        }
        self.jobs[job].life = self.pool.hosts[door].life;
        self.jobs[job].began = self.pool.now;
        self.claim(job);
    }

    pub(super) fn claim(&mut self, number: usize) {
        let now = self.pool.now;
        let (door, name) = (self.jobs[number].door, self.jobs[number].request.container.name.clone());
        if !self.runs(door, self.jobs[number].life) || !matches!(self.jobs[number].state, State::Claiming) {
            return;
        }
        let alone_until = self.places[door].began + ALONE_TIME_MAX;
        let alive: Vec<String> = self.alive(door).keys().cloned().collect();
        if alive.len() == 1 && now < alone_until {
            return self.look_soon(number);
        }
        if now >= self.jobs[number].began + OWNERS_TIME_MAX {
            return self.end(number, End::Refused("too few owners answer".into()), Settled::Free);
        }
        match self.jobs[number].claiming.next(&name, alive.iter().map(String::as_str)) {
            Step::Ask(id) => {
                let owner = self.places[door].alive[id];
                self.jobs[number].owners.push(owner);
                let call = self.call(number);
                let claim = Message::Claim { job: number, call, name: name.into(), number: self.jobs[number].number };
                self.pool.later(CLAIM_TIME_MAX, Event::Late { job: number, call });
                self.send(door, owner, claim);
            }
            Step::Have => self.place(number),
            Step::Stuck => {
                self.jobs[number].claiming.again();
                self.look_soon(number);
            }
        }
    }

    pub(super) fn look_soon(&mut self, job: usize) {
        let call = self.call(job);
        self.pool.later(Duration::from_millis(100), Event::Look { job, call });
    }

    /// The number of a new question; answers to older ones do not count any more.
    pub(super) fn call(&mut self, job: usize) -> u64 {
        self.next += 1;
        self.jobs[job].call = self.next;
        self.next
    }

    pub(super) fn place(&mut self, number: usize) {
        let door = self.jobs[number].door;
        let request = self.jobs[number].request.clone();
        let mut nodes = self.picture(door);
        self.places[door].tickets.put_into(&mut nodes);
        let turns = self.jobs[number].turns.get_or_insert_with(|| Turns::new(Vec::new(), 0));
        let chosen = placing::check_name(&nodes, &request.container.name, None)
            .and_then(|()| placing::choose(&self.scheduler, &request, &nodes, turns.tried(), &mut self.pool.rng));
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(refusal) => {
                let turns = self.jobs[number].turns.take().expect("its turns");
                return self.end(number, End::Refused(turns.nobody_left(refusal.to_string())), Settled::Free);
            }
        };
        let ticket = self.places[door].tickets.add(chosen.addr.clone(), Arc::new(request.container.clone()));
        let at = self.places.iter().position(|place| place.engine.addr == chosen.addr).expect("a known node");
        self.jobs[number].state = State::Asking { at, ticket };
        let call = self.call(number);
        if at == door {
            self.ask_engine(door, ticket, number, call);
        } else {
            self.send(door, at, Message::Create { job: number, call });
        }
    }

    /// The node has the last word.
    pub(super) fn admit(&mut self, here: usize, door: usize, job: usize, call: u64) {
        let request = self.jobs[job].request.clone();
        let mut nodes = [self.places[here].engine.clone()];
        self.places[here].tickets.put_into(&mut nodes);
        match placing::admits(&nodes[0], &request, None, &mut self.pool.rng) {
            Ok(()) => {
                let ticket = self.places[here].tickets.add(address(here), Arc::new(request.container.clone()));
                self.ask_engine(here, ticket, job, call);
            }
            Err(refusal) => {
                let said = if matches!(refusal, Refusal::NameTaken(_)) { Said::Failed } else { Said::No };
                self.send(here, door, Message::Refused { job, call, said, why: refusal.to_string() });
            }
        }
    }

    pub(super) fn ask_engine(&mut self, node: usize, ticket: u64, job: usize, call: u64) {
        let brings = self.pool.rng.random_range(0..1000) < self.images;
        let takes = if brings { self.pool.rng.random_range(500..8000) } else { 0 };
        let life = self.pool.hosts[node].life;
        self.pool.later(Duration::from_millis(takes), Event::Brought { node, life, ticket, job, call });
    }

    /// The engine does what it was asked for; it refuses a name that it has, and nothing else.
    pub(super) fn created(&mut self, node: usize, life: u64, ticket: u64, job: usize, call: u64) {
        let request = self.jobs[job].request.clone();
        let taken = placing::check_name(std::slice::from_ref(&self.places[node].engine), &request.container.name, None);
        if taken.is_ok() {
            self.next += 1;
            // Clients start what they create: so it has its ports.
            let (id, state) = (format!("{:064x}", self.next), "running".to_owned());
            let container = Container { id, state, ..request.container.clone() };
            self.note_name(node, &container.name, self.jobs[job].began);
            Arc::make_mut(&mut self.places[node].engine).put_container(Arc::new(container));
            self.changed(node);
            self.check_node(node);
        }
        if !self.runs(node, life) {
            return;
        }
        let (door, version) = (self.jobs[job].door, self.places[node].version);
        let answer = match taken {
            Ok(()) => Message::Made { job, call, version },
            Err(why) => Message::Refused { job, call, said: Said::Failed, why: why.to_string() },
        };
        if door == node {
            return self.answered(answer);
        }
        self.places[node].tickets.end(ticket);
        self.send(node, door, answer);
    }

    /// An answer to a question of a door, if it still waits for it.
    pub(super) fn answered(&mut self, answer: Message) {
        let Some((number, call)) = answer.answers() else { return };
        if self.jobs[number].call != call {
            return;
        }
        match (&self.jobs[number].state, answer) {
            (State::Claiming, Message::Given { .. }) => self.owner_said(number, true),
            (State::Claiming, Message::Refused { why, .. }) => self.end(number, End::Refused(why), Settled::Free),
            (State::Claiming, Message::Broken { .. }) => self.owner_said(number, false),
            (State::Asking { at, ticket }, Message::Made { version, .. }) => {
                let (at, ticket) = (*at, *ticket);
                let door = self.jobs[number].door;
                if at == door || self.places[door].versions[at] >= version {
                    return self.end(number, End::Made, Settled::Shown { addr: address(at), picture: version });
                }
                self.jobs[number].state = State::Reading { at, ticket, version };
                self.pool.later(ARRIVAL_TIME_MAX, Event::Late { job: number, call });
            }
            (State::Asking { .. }, Message::Refused { said, why, .. }) => self.node_said(number, said, why),
            (State::Asking { .. }, Message::Broken { .. }) => {
                self.node_said(number, Said::Nothing, "the node cannot be asked".into());
            }
            _ => {}
        }
    }

    pub(super) fn late(&mut self, number: usize, call: u64) {
        if self.jobs[number].call != call || !self.runs(self.jobs[number].door, self.jobs[number].life) {
            return;
        }
        match self.jobs[number].state {
            State::Claiming => self.owner_said(number, false),
            State::Asking { .. } => self.node_said(number, Said::Nothing, "the node does not answer".into()),
            State::Reading { at, version, .. } => {
                self.end(number, End::Made, Settled::Shown { addr: address(at), picture: version });
            }
            State::Ended => {}
        }
    }

    pub(super) fn owner_said(&mut self, number: usize, yes: bool) {
        let owner = id(*self.jobs[number].owners.last().expect("an owner that was asked"));
        let claiming = &mut self.jobs[number].claiming;
        if yes {
            claiming.given(&owner)
        } else {
            claiming.silent(&owner)
        }
        self.claim(number);
    }

    pub(super) fn node_said(&mut self, number: usize, said: Said, why: String) {
        let State::Asking { at, ticket } = self.jobs[number].state else { return };
        let door = self.jobs[number].door;
        let turns = self.jobs[number].turns.as_mut().expect("its turns");
        match turns.failed(&address(at), said, why) {
            Ok(()) => {
                self.places[door].tickets.end(ticket);
                self.place(number);
            }
            Err(why) => {
                self.end(number, End::Refused(why), if said.keeps_name() { Settled::InDoubt } else { Settled::Free })
            }
        }
    }

    pub(super) fn end(&mut self, number: usize, end: End, settled: Settled) {
        let door = self.jobs[number].door;
        let job = &mut self.jobs[number];
        if let State::Asking { ticket, .. } | State::Reading { ticket, .. } =
            std::mem::replace(&mut job.state, State::Ended)
        {
            self.places[door].tickets.end(ticket);
        }
        self.jobs[number].end = Some((self.pool.now, end));
        let claim = self.jobs[number].number;
        for owner in std::mem::take(&mut self.jobs[number].owners) {
            self.settle(door, owner, claim, settled.clone(), SETTLE_ATTEMPTS);
        }
    }
}
