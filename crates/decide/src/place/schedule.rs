//! Scheduler: which node gets a container.
//!
//! Two steps: filters refuse the nodes that cannot take it, the strategy ranks those that can. Soft expressions hold in a
//! first pass; when that leaves nothing, a second pass goes without them. Pure, and ties are settled by name, so everybody
//! who sees the same nodes picks the same one.

mod filter;
mod refusal;

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::str::FromStr;
use std::sync::Arc;

use herder_model::{Node, Resources};
use rand::{Rng, RngExt as _};

pub use filter::{Filter, ports_promised};
pub use refusal::Unplaceable;

use crate::place::request::CreateRequest;
use filter::Asked;

/// Ranking of the nodes that fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The emptiest first.
    #[default]
    Spread,
    /// The fullest first.
    Binpack,
    /// Any that has room.
    Random,
}

impl FromStr for Strategy {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Strategy, &'static str> {
        match text {
            "spread" => Ok(Strategy::Spread),
            "binpack" | "binpacking" => Ok(Strategy::Binpack),
            "random" => Ok(Strategy::Random),
            _ => Err("strategy not supported"),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Strategy::Spread => "spread",
            Strategy::Binpack => "binpack",
            Strategy::Random => "random",
        })
    }
}

/// Filters in their order, and a strategy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    pub strategy: Strategy,
    pub filters: Vec<Filter>,
}

impl Default for Scheduler {
    fn default() -> Scheduler {
        Scheduler { strategy: Strategy::default(), filters: Filter::ALL.to_vec() }
    }
}

impl Scheduler {
    /// The nodes that can take the container, best first. Never empty.
    pub fn rank(
        &self,
        request: &CreateRequest,
        nodes: &[Arc<Node>],
        rng: &mut impl Rng,
    ) -> Result<Vec<Arc<Node>>, Unplaceable> {
        self.pick(request, nodes, rng, |fitting| {
            let all: Vec<Arc<Node>> = fitting.cloned().collect();
            (!all.is_empty()).then_some(all)
        })
    }

    /// Checks whether `node` alone can take the container in the first pass, where soft conditions hold.
    pub fn check(&self, request: &CreateRequest, node: &Arc<Node>, rng: &mut impl Rng) -> Result<(), Unplaceable> {
        let nodes = std::slice::from_ref(node);
        let asked = Asked::new(request, nodes, true);
        let fits = self.fitting(&asked, nodes, rng).next().is_some();
        if fits { Ok(()) } else { Err(refusal::explain(&self.filters, &asked, nodes)) }
    }

    /// The best node that can take the container and is `wanted`. None if only others can. Reads the containers of as few
    /// nodes as that needs.
    pub fn best(
        &self,
        request: &CreateRequest,
        nodes: &[Arc<Node>],
        rng: &mut impl Rng,
        wanted: impl Fn(&Node) -> bool,
    ) -> Result<Option<Arc<Node>>, Unplaceable> {
        self.pick(request, nodes, rng, |fitting| {
            let mut fitting = fitting.peekable();
            fitting.peek()?;
            Some(fitting.find(|node| wanted(node)).cloned())
        })
    }

    /// Returns the choice of `choose` among the nodes that fit, best first. Soft expressions count, unless it finds
    /// nothing so.
    fn pick<'n, T>(
        &self,
        request: &CreateRequest,
        nodes: &'n [Arc<Node>],
        rng: &mut impl Rng,
        choose: impl Fn(&mut dyn Iterator<Item = &'n Arc<Node>>) -> Option<T>,
    ) -> Result<T, Unplaceable> {
        let with_soft = Asked::new(request, nodes, true);
        if let Some(chosen) = choose(&mut self.fitting(&with_soft, nodes, rng)) {
            return Ok(chosen);
        }
        let hard = Asked::new(request, nodes, false);
        let chosen = if with_soft.has_soft() { choose(&mut self.fitting(&hard, nodes, rng)) } else { None };
        chosen.ok_or_else(|| refusal::explain(&self.filters, &hard, nodes))
    }

    /// The nodes that all filters accept, best first. The order of filters does not matter here, so those that read every
    /// container of a node come last, and only for nodes whose turn comes.
    fn fitting<'n>(
        &self,
        asked: &Asked<'_>,
        nodes: &'n [Arc<Node>],
        rng: &mut impl Rng,
    ) -> impl Iterator<Item = &'n Arc<Node>> {
        let (last, first): (Vec<Filter>, Vec<Filter>) =
            self.filters.iter().partition(|filter| filter.reads_containers());
        let accept = |filters: &[Filter], node: &Node| filters.iter().all(|filter| filter.accepts(asked, node));
        let wants = &asked.request.container.reserved;
        let likely = nodes.iter().filter(|node| accept(&first, node) && has_room(wants, node));
        let mut ordered = self.order(wants, likely, rng);
        std::iter::from_fn(move || ordered.pop()).map(|Reverse(it)| it.node).filter(move |node| accept(&last, node))
    }

    /// Ordered only as far as somebody asks.
    fn order<'n>(
        &self,
        wants: &Resources,
        nodes: impl Iterator<Item = &'n Arc<Node>>,
        rng: &mut impl Rng,
    ) -> BinaryHeap<Reverse<Candidate<'n>>> {
        let count = |node: &Node| i64::try_from(node.containers.len()).unwrap_or(i64::MAX);
        let seed: u64 = rng.random();
        let rank = |node: &Node| match self.strategy {
            Strategy::Spread => (load(wants, node) - 10 * node.health_indicator, count(node)),
            Strategy::Binpack => (-load(wants, node) - 10 * node.health_indicator, -count(node)),
            Strategy::Random => (lot(seed, node), 0),
        };
        nodes.map(|node| Reverse(Candidate { rank: rank(node), node })).collect()
    }
}

/// Returns the lot of the node: the same whichever other nodes take part.
fn lot(seed: u64, node: &Node) -> i64 {
    let mut hasher = DefaultHasher::new();
    (seed, &node.name, &node.addr).hash(&mut hasher);
    hasher.finish().cast_signed()
}

/// A node with its rank; the lowest comes first, then names settle it.
struct Candidate<'n> {
    rank: (i64, i64),
    node: &'n Arc<Node>,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let names = |it: &Self| {
            (it.node.name.as_str(), it.node.addr.as_str()).cmp(&(other.node.name.as_str(), other.node.addr.as_str()))
        };
        self.rank.cmp(&other.rank).then_with(|| names(self))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}

/// True if the node has what is asked for beyond what it has promised. Asking for nothing always fits.
fn has_room(asked: &Resources, node: &Node) -> bool {
    let fits = |asked: i64, used: i64, total: i64| asked <= 0 || used.saturating_add(asked) <= total;
    fits(asked.nano_cpus, node.used.nano_cpus, node.total.nano_cpus)
        && fits(asked.memory_bytes, node.used.memory_bytes, node.total.memory_bytes)
}

/// Returns the original's score. It is the load of the node afterwards, processors and memory each from 0 to 100;
/// 100 for what is not requested.
fn load(asked: &Resources, node: &Node) -> i64 {
    let score = |asked: i64, used: i64, total: i64| {
        let share =
            || i128::from(used).saturating_add(i128::from(asked)).saturating_mul(100) / i128::from(total.max(1));
        if asked > 0 { i64::try_from(share()).unwrap_or(i64::MAX / 4) } else { 100 }
    };
    score(asked.nano_cpus, node.used.nano_cpus, node.total.nano_cpus)
        + score(asked.memory_bytes, node.used.memory_bytes, node.total.memory_bytes)
}

#[cfg(test)]
mod tests;
