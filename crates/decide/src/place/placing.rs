//! Placing without a leader, step by step. A name is claimed, nodes are asked in turn, and the asked node decides.
//!
//! Loops that only wait and send carry the steps out: those of `front` and `herder` for real, and those of a simulation of a
//! thousand nodes (`crates/wire/tests/simulation`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_model::{Container, Name, Node};
use rand::Rng;

use crate::place::claims::owner_of;
use crate::place::request::CreateRequest;
use crate::place::schedule::{Filter, Scheduler, Strategy, Unplaceable};

/// Number of nodes that must give a name. With two, one may die, restart, or be known to some doors only: the other one
/// is asked by every door, and remembers.
pub const OWNERS: usize = 2;

/// Number of asked nodes that may be alive and yet silent. With one more, two doors that do not reach the same nodes
/// could each find two others.
pub const SILENT_MAX: usize = 1;

/// Reason why a container is not placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The original's text.
    #[error(
        "Conflict: The name {0} is already assigned. You have to delete (or rename) that container to be able to assign {0} \
         to a container again."
    )]
    NameTaken(String),
    /// Another door is about to use it, or has just done so.
    #[error("Conflict: The name {0} is being assigned to another container.")]
    NameClaimed(String),
    #[error(transparent)]
    Unplaceable(#[from] Unplaceable),
    #[error("no node is left that could take the container")]
    NobodyLeft,
}

/// A name may exist once in the cluster; the container with the id `replaced` does not count.
pub fn check_name(nodes: &[Arc<Node>], name: &str, replaced: Option<&str>) -> Result<(), Refusal> {
    let wanted = Name::new(name);
    let mut containers = nodes.iter().flat_map(|node| node.named(&wanted));
    let taken = containers.any(|container| Some(container.id.as_str()) != replaced);
    if taken && !name.is_empty() { Err(Refusal::NameTaken(name.to_owned())) } else { Ok(()) }
}

/// The best node that was not tried yet, by the door's own picture.
pub fn choose(
    scheduler: &Scheduler,
    request: &CreateRequest,
    nodes: &[Arc<Node>],
    tried: &[String],
    rng: &mut impl Rng,
) -> Result<Arc<Node>, Refusal> {
    scheduler.best(request, nodes, rng, |node| !tried.contains(&node.addr))?.ok_or(Refusal::NobodyLeft)
}

/// Checks what only the node itself knows for sure: its names, ports, slots, and free resources. Conditions on which
/// node it is were the door's to judge.
pub fn admits(
    here: &Arc<Node>,
    request: &CreateRequest,
    replaced: Option<&str>,
    rng: &mut impl Rng,
) -> Result<(), Refusal> {
    let nodes = std::slice::from_ref(here);
    check_name(nodes, &request.container.name, replaced)?;
    let scheduler = Scheduler { strategy: Strategy::default(), filters: vec![Filter::Port, Filter::ContainerSlots] };
    let mut plain = request.clone();
    plain.constraints.clear();
    plain.affinities.clear();
    plain.whitelists.clear();
    // Another node is better than one whose port is promised, and the door knows whether there is one.
    scheduler.check(&plain, here, rng)?;
    Ok(())
}

/// Placements under way. Each counts as a container until it is read back, so that no other one collides with it.
#[derive(Debug, Default)]
pub struct Tickets {
    next: u64,
    under_way: BTreeMap<u64, (String, Arc<Container>)>,
}

impl Tickets {
    /// Counts `container` on the node at `addr` from now on. The number of its ticket.
    pub fn add(&mut self, addr: String, container: Arc<Container>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.under_way.insert(number, (addr, container));
        number
    }

    pub fn end(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// Returns the containers under way, oldest first.
    pub fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.under_way.values().map(|(_, container)| container)
    }

    /// Puts what is under way in as containers.
    pub fn put_into(&self, nodes: &mut [Arc<Node>]) {
        for (number, (addr, container)) in &self.under_way {
            let Some(node) = nodes.iter_mut().find(|node| node.addr == *addr) else { continue };
            let there = |other: &Arc<Container>| {
                other.name == container.name && other.swarm_id == container.swarm_id && !other.name.is_empty()
                    || !container.swarm_id.is_empty() && other.swarm_id == container.swarm_id
            };
            // Read back already: counted once, not twice.
            if !node.containers.values().any(there) {
                // It has its ports: the client that asks for it is about to start it.
                let (id, state) = (format!("placing-{number}"), "running".to_owned());
                let container = Container { id, state, ..Container::clone(container) };
                Arc::make_mut(node).put_container(Arc::new(container));
            }
        }
    }
}

/// A name that a door is claiming: whom it asks next, and when it has the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claiming {
    given: BTreeSet<String>,
    silent: BTreeSet<String>,
}

/// Next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'n> {
    /// Ask this node for the name. If it says no, the name is taken, and nobody else is asked.
    Ask(&'n str),
    /// The door has the name.
    Have,
    /// Too few nodes answer. When others are known to live, it may be tried again.
    Stuck,
}

impl Claiming {
    /// `alive`: ids of the nodes that this door believes to live, its own included. They are asked in the order of their
    /// scores, which is the same for all doors: so one of two doors that want a name at the same time gets it.
    pub fn next<'n>(&self, name: &str, alive: impl IntoIterator<Item = &'n str>) -> Step<'n> {
        let alive: Vec<&str> = alive.into_iter().collect();
        if !self.given.is_empty() && self.given.len() >= OWNERS.min(alive.len()) {
            return Step::Have;
        }
        // Who does not answer because it died is soon known to be dead, and counts no more.
        let silent = alive.iter().filter(|id| self.silent.contains(**id)).count();
        let open = alive.into_iter().filter(|id| !self.given.contains(*id) && !self.silent.contains(*id));
        match owner_of(name, open) {
            Some(id) if silent <= SILENT_MAX => Step::Ask(id),
            _ => Step::Stuck,
        }
    }

    pub fn given(&mut self, id: &str) {
        self.given.insert(id.to_owned());
    }

    pub fn silent(&mut self, id: &str) {
        self.silent.insert(id.to_owned());
    }

    /// Allows silent nodes to be asked again.
    pub fn again(&mut self) {
        self.silent.clear();
    }
}

/// Answer of a node that was asked for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The node refuses; another one may accept.
    No,
    /// The node failed, as every other one would.
    Failed,
    /// The answer is missing, and the container may exist.
    Nothing,
}

impl Said {
    /// True if the name stays claimed after this final answer, since the container may exist.
    pub fn keeps_name(self) -> bool {
        self == Said::Nothing
    }
}

/// Nodes that are asked in turn for one container.
#[derive(Debug)]
pub struct Turns<E> {
    tried: Vec<String>,
    /// Number of further nodes to ask although the last one did not refuse.
    retries: u32,
    last: Option<E>,
}

impl<E> Turns<E> {
    /// `without`: addresses of nodes that are not asked at all.
    pub fn new(without: Vec<String>, retries: u32) -> Turns<E> {
        Turns { tried: without, retries, last: None }
    }

    /// Addresses of the nodes that are not asked any more.
    pub fn tried(&self) -> &[String] {
        &self.tried
    }

    /// Passes over a node that has just left.
    pub fn skip(&mut self, addr: &str) {
        self.tried.push(addr.to_owned());
    }

    /// Records that the node at `addr` failed, or that its outcome is unknown. Returns the error if that ends the
    /// placement.
    pub fn failed(&mut self, addr: &str, said: Said, error: E) -> Result<(), E> {
        match said {
            Said::No => {}
            Said::Failed if self.retries > 0 => self.retries -= 1,
            // What nobody knows is not asked of another one: the container could be made twice.
            Said::Failed | Said::Nothing => return Err(error),
        }
        self.tried.push(addr.to_owned());
        self.last = Some(error);
        Ok(())
    }

    /// Returns the final error when no node is left: the last node's own error tells more.
    pub fn nobody_left(self, error: E) -> E {
        self.last.unwrap_or(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Answers of nodes: `+` gives the name, `-` is silent. Then the nodes that were asked, and the result.
    fn check(alive: &str, silent: &str, expected: &str) {
        let alive: Vec<&str> = alive.split_whitespace().collect();
        let (mut claiming, mut asked) = (Claiming::default(), String::new());
        loop {
            match claiming.next("web", alive.iter().copied()) {
                Step::Ask(id) if silent.contains(id) => {
                    asked += &format!("{id}- ");
                    claiming.silent(id);
                }
                Step::Ask(id) => {
                    asked += &format!("{id}+ ");
                    claiming.given(id);
                }
                Step::Have => return assert_eq!(asked + "has it", expected, "{alive:?}, silent: {silent}"),
                Step::Stuck => return assert_eq!(asked + "stuck", expected, "{alive:?}, silent: {silent}"),
            }
        }
    }

    #[test]
    fn two_nodes_give_a_name() {
        check("a b c d e", "", "e+ a+ has it");
        check("a b c d e", "e", "e- a+ b+ has it");
        check("a b c d e", "e a", "e- a- stuck");
        check("a b", "", "a+ b+ has it");
        check("a b", "a", "a- b+ stuck");
        check("a", "", "a+ has it");
        check("", "", "stuck");
    }

    #[test]
    fn a_silent_node_that_is_known_to_be_dead_does_not_count() {
        let mut claiming = Claiming::default();
        claiming.silent("b");
        claiming.given("a");
        assert_eq!(claiming.next("web", ["a", "b"]), Step::Stuck);
        assert_eq!(claiming.next("web", ["a"]), Step::Have);
        claiming.again();
        assert_eq!(claiming.next("web", ["a", "b"]), Step::Ask("b"));
    }

    #[test]
    fn what_is_in_doubt_is_not_asked_of_another_node() {
        let mut turns = Turns::new(vec!["n0".into()], 1);
        assert_eq!(turns.failed("n1", Said::No, "full"), Ok(()));
        assert_eq!(turns.failed("n2", Said::Failed, "no such image"), Ok(()));
        assert_eq!(turns.tried(), ["n0", "n1", "n2"]);
        assert_eq!(turns.failed("n3", Said::Nothing, "lost"), Err("lost"));
        assert_eq!(turns.failed("n4", Said::Failed, "no such image"), Err("no such image"));
        assert_eq!(turns.nobody_left("nobody"), "no such image");
        assert_eq!([Said::No, Said::Failed, Said::Nothing].map(Said::keeps_name), [false, false, true]);
    }

    #[test]
    fn a_node_admits_what_it_has_room_for() {
        let mut node = Node { name: "n1".into(), addr: "n1:1".into(), ..Node::default() };
        node.total.memory_bytes = 100 << 20;
        node.labels.insert("containerslots".into(), "2".into());
        let request = |name: &str, memory: i64, port: u16| {
            let body = serde_json::json!({
                "Image": "x", "Env": ["constraint:node==elsewhere"],
                "HostConfig": { "Memory": memory << 20, "PortBindings": { "80/tcp": [{ "HostPort": port.to_string() }] } },
            });
            crate::place::request::parse(Some(name), body, name).expect("a request")
        };
        let mut tickets = Tickets::default();
        let mut admit = |request: &CreateRequest, expected: &str| {
            let mut nodes = [Arc::new(node.clone())];
            tickets.put_into(&mut nodes);
            let refused = admits(&nodes[0], request, None, &mut rand::rng());
            assert_eq!(refused.as_ref().map_or_else(ToString::to_string, |()| "yes".into()), expected);
            if refused.is_ok() {
                tickets.add("n1:1".into(), Arc::new(request.container.clone()));
            }
        };
        admit(&request("web", 60, 80), "yes");
        admit(&request("web", 1, 81), &Refusal::NameTaken("web".into()).to_string());
        admit(
            &request("db", 1, 80),
            "Unable to find a node that satisfies the following conditions \n[port 80 (Bridge mode)]\
             \nn1: port: port 80 is taken by container web",
        );
        admit(
            &request("db", 50, 81),
            "no resources available to schedule container\nn1: resources: asks for 50 MiB of memory, 60 of 100 MiB are reserved",
        );
        admit(&request("db", 40, 81), "yes");
    }

    proptest! {
        /// Two claims of a name ask a common node. One node may come, go, or not answer between them.
        #[test]
        fn two_doors_ask_a_node_in_common(
            name in "[a-z]{1,8}",
            nodes in prop::collection::btree_set("[a-z]{1,5}", 3..9),
            odd in any::<prop::sample::Index>(),
        ) {
            let all: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let odd = all[odd.index(all.len())];
            let asked = |alive: &[&str], silent: &str| {
                let mut claiming = Claiming::default();
                while let Step::Ask(id) = claiming.next(&name, alive.iter().copied()) {
                    if id == silent { claiming.silent(id) } else { claiming.given(id) }
                }
                claiming.given
            };
            let without: Vec<&str> = all.iter().copied().filter(|id| *id != odd).collect();
            let usual = asked(&all, "");
            for other in [asked(&all, odd), asked(&without, "")] {
                prop_assert!(usual.intersection(&other).next().is_some(), "{:?} and {:?}", usual, other);
            }
        }
    }
}
