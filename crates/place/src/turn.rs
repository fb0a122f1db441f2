//! Choice among nodes that fit, where many containers are placed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_decide::actions::spread;
use herder_decide::schedule::{Scheduler, Strategy};
use herder_model::Node;
use parking_lot::Mutex;

/// State that the containers of one request share.
#[derive(Debug)]
pub struct Turns {
    /// Scheduler with the `spread` strategy; if `None`, the node's configured strategy applies.
    spread: Option<Scheduler>,
    /// The one node that may be chosen.
    only: Option<Arc<Node>>,
    given: Mutex<Given>,
}

#[derive(Debug, Default)]
struct Given {
    /// Address → containers given to that node so far.
    got: BTreeMap<String, usize>,
    /// Nodes that kept a container waiting too long. They get the next one only if there is no other node.
    late: BTreeSet<String>,
}

/// The turn of one container.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    at: Mutex<Option<Arc<Node>>>,
}

impl Turns {
    /// Returns the state for many containers that are spread evenly.
    pub fn even(scheduler: &Scheduler, only: Option<Arc<Node>>) -> Arc<Turns> {
        let spread = Scheduler { strategy: Strategy::Spread, filters: scheduler.filters.clone() };
        Arc::new(Turns { spread: Some(spread), only, given: Mutex::default() })
    }

    /// Returns the state for one container, which the strategy places.
    pub fn single(only: Option<Arc<Node>>) -> Arc<Turns> {
        Arc::new(Turns { spread: None, only, given: Mutex::default() })
    }

    pub fn next(self: &Arc<Self>) -> Arc<Turn> {
        Arc::new(Turn { turns: self.clone(), at: Mutex::default() })
    }
}

impl Turn {
    /// Returns the scheduler that ranks the nodes, if it is not the door's own.
    pub fn scheduler(&self) -> Option<&Scheduler> {
        self.turns.spread.as_ref()
    }

    /// Chooses one of the ranked nodes that was not tried yet. A node chosen before has refused.
    pub fn choose<'n>(&self, ranked: &'n [Arc<Node>], tried: &[String]) -> Option<&'n Arc<Node>> {
        let mut at = self.at.lock();
        let mut given = self.turns.given.lock();
        let Given { got, late } = &mut *given;
        if let Some(count) = at.as_ref().and_then(|node| got.get_mut(&node.addr)) {
            *count = count.saturating_sub(1);
        }
        let foreign = |addr: &str| self.turns.only.as_ref().is_some_and(|only| only.addr != addr);
        let out = |addr: &str| foreign(addr) || tried.iter().any(|it| it == addr);
        let chosen = spread::next(ranked, got, |addr| out(addr) || late.contains(addr));
        let chosen = chosen.or_else(|| spread::next(ranked, got, out))?;
        *got.entry(chosen.addr.clone()).or_default() += 1;
        *at = Some(chosen.clone());
        Some(chosen)
    }

    /// The one node that may be chosen.
    pub fn only(&self) -> Option<&Arc<Node>> {
        self.turns.only.as_ref()
    }

    /// The node chosen last.
    pub fn at(&self) -> Option<Arc<Node>> {
        self.at.lock().clone()
    }

    /// The node chosen last did not answer in time.
    pub fn was_late(&self) {
        if let Some(node) = self.at() {
            self.turns.given.lock().late.insert(node.addr.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use herder_model::NodeState;

    use super::*;

    fn nodes() -> Vec<Arc<Node>> {
        let node =
            |name: &str| Node { name: name.into(), addr: name.into(), state: NodeState::Healthy, ..Node::default() };
        ["a", "b", "c"].map(|name| Arc::new(node(name))).to_vec()
    }

    #[test]
    fn a_refusal_gives_the_turn_to_the_next_and_a_late_node_waits_until_the_end() {
        let (nodes, turns) = (nodes(), Turns::even(&Scheduler::default(), None));
        let chosen = |turn: &Turn, tried: &[&str]| {
            let tried: Vec<String> = tried.iter().map(|it| (*it).to_owned()).collect();
            turn.choose(&nodes, &tried).map_or_else(|| "-".to_owned(), |node| node.name.clone())
        };
        let first = turns.next();
        assert_eq!(chosen(&first, &[]), "a");
        assert_eq!(chosen(&first, &["a"]), "b");
        assert_eq!(first.at().expect("a node").name, "b");
        let second = turns.next();
        assert_eq!(chosen(&second, &[]), "a", "it has none, since it refused");
        second.was_late();
        let rest: Vec<String> = (0..4).map(|_| chosen(&turns.next(), &[])).collect();
        assert_eq!(rest.join(""), "cbcb");
        assert_eq!(chosen(&turns.next(), &["b", "c"]), "a", "nobody else is left");
        assert_eq!(chosen(&turns.next(), &["a", "b", "c"]), "-");
    }

    #[test]
    fn one_node_alone_may_be_meant() {
        let nodes = nodes();
        let turns = Turns::single(Some(nodes[2].clone()));
        assert_eq!(turns.next().choose(&nodes, &[]).expect("a node").name, "c");
        assert!(turns.next().choose(&nodes, &["c".to_owned()]).is_none());
    }
}
