//! The invariants of the world.

use std::collections::BTreeSet;
use std::time::Duration;

use herder_decide::names;
use herder_model::{Name, Node, Resources};

use super::*;

/// After a cut, every node knows all containers again within this.
const HEALING_TIME_MAX: Duration = Duration::from_secs(8);

/// Beginnings of refusals, and whether they are about a name.
const REASONS: [(&str, bool); 7] = [
    ("Conflict: The name", true),
    ("no resources available to schedule container\n", false),
    ("Unable to find a node that satisfies the following conditions", false),
    ("No healthy node available", false),
    ("too few owners answer", false),
    ("the node does not answer", false),
    ("the node cannot be asked", false),
];

impl World {
    pub(super) fn note_name(&mut self, node: usize, name: &str, began: Duration) {
        let now = self.pool.now;
        let elsewhere = (0..self.places.len()).any(|other| other != node && holds(&self.places[other], name));
        if elsewhere {
            let cut = self.is_cut() || self.last_cut.is_some_and(|cut| cut + HEALING_TIME_MAX >= began);
            let calm = now.saturating_sub(self.last_fault);
            let what =
                format!("{name} on n{node:04} at {now:?}, asked for at {began:?}; the last fault was {calm:?} ago");
            let double = Double { what, cut };
            self.doubles.push(double);
        } else {
            self.used.entry(name.to_owned()).or_default().push((now, None));
        }
    }

    pub(super) fn check_node(&self, node: usize) {
        let engine = &self.places[node].engine;
        let containers = || engine.containers.values();
        let used = containers().fold(Resources::default(), |sum, it| sum + it.reserved);
        assert!(used.memory_bytes <= engine.total.memory_bytes, "memory of {} at {:?}", engine.name, self.pool.now);
        assert!(used.nano_cpus <= engine.total.nano_cpus, "processors of {} at {:?}", engine.name, self.pool.now);
        let slots: usize = engine.labels["containerslots"].parse().expect("a number");
        assert!(engine.containers.len() <= slots, "slots of {} at {:?}", engine.name, self.pool.now);
        let mut ports = BTreeSet::new();
        for port in containers().flat_map(|it| &it.host_ports) {
            assert!(ports.insert(port.first), "port {} of {} at {:?}", port.first, engine.name, self.pool.now);
        }
    }

    /// Every create has ended.
    pub(crate) fn all_ended(&self) -> Result<(), String> {
        match self.jobs.iter().position(|job| job.end.is_none()) {
            None => Ok(()),
            Some(job) => Err(format!("create {job} is {:?} since {:?}", self.jobs[job].state, self.jobs[job].began)),
        }
    }

    /// Everybody sees everything as it is.
    pub(crate) fn agrees(&self) -> Result<(), String> {
        for (seer, place) in self.places.iter().enumerate() {
            for (number, other) in self.places.iter().enumerate().filter(|(number, _)| *number != seer) {
                let picture = place.pictures[number].as_ref().ok_or(format!("{seer} does not know {number}"))?;
                let ids = |node: &Node| node.containers.keys().cloned().collect::<Vec<_>>();
                let same = Arc::ptr_eq(picture, &other.engine) || ids(picture) == ids(&other.engine);
                if !same || !picture.is_healthy() {
                    return Err(format!("{seer} sees {number} as it was"));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn names_are_unique(&self) {
        let doubles: Vec<&str> = self.doubles.iter().map(|double| double.what.as_str()).collect();
        assert!(doubles.is_empty(), "{doubles:#?}");
    }

    /// Checks that a name is used twice only on the two sides of a cut.
    pub(crate) fn names_are_unique_but_for_cuts(&self) {
        let wrong = self.doubles.iter().filter(|double| !double.cut);
        let wrong: Vec<&str> = wrong.map(|double| double.what.as_str()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Checks that every refusal has a reason that is partly true.
    pub(crate) fn refusals_are_explained(&self) {
        for (number, job) in self.jobs.iter().enumerate() {
            let Some((end, End::Refused(why))) = &job.end else { continue };
            let told = REASONS.iter().find(|(begins, _)| why.starts_with(begins));
            let Some((_, of_name)) = told else { panic!("create {number}: {why}") };
            let name = &job.request.container.name;
            let rival = |other: &Job| other.request.container.name == *name && other.began <= *end;
            let others = self.jobs.iter().enumerate().filter(|(other, it)| *other != number && rival(it)).count();
            assert!(!of_name || others > 0, "create {number} is the only one of {name}: {why}");
        }
    }

    /// Names that are used twice are known as that to every node, and no others.
    pub(crate) fn duplicates_are_reported(&self) {
        let engines: Vec<_> = self.places.iter().map(|place| place.engine.clone()).collect();
        let truth = names::duplicates(&engines);
        for node in 0..self.places.len() {
            assert_eq!(names::duplicates(&self.picture(node)), truth, "at node {node}");
        }
    }
}

/// True if a container of this name is there.
pub(super) fn holds(place: &Place, name: &str) -> bool {
    place.engine.named(&Name::new(name)).next().is_some()
}
