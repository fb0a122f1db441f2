//! Scheduler: which node gets a container.
//!
//! Two steps: filters refuse the nodes that cannot take it, the strategy ranks those that can. Soft expressions hold in a
//! first pass; when that leaves nothing, a second pass goes without them. Pure, and ties are settled by name, so everybody
//! who sees the same nodes picks the same one.

mod filter;
mod refusal;

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use herder_model::{Node, Resources};
use rand::Rng;
use rand::seq::SliceRandom as _;

pub use filter::Filter;
pub use refusal::Unplaceable;

use crate::request::CreateRequest;
use filter::Asked;

/// How the nodes that fit are ranked.
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
        let with_soft = Asked::new(request, nodes, true);
        let fitting = self.fitting(&with_soft, nodes);
        let fitting = if fitting.is_empty() && with_soft.has_soft() {
            self.fitting(&Asked::new(request, nodes, false), nodes)
        } else {
            fitting
        };
        if fitting.is_empty() {
            return Err(refusal::explain(&self.filters, &Asked::new(request, nodes, false), nodes));
        }
        Ok(self.order(request, fitting, rng))
    }

    fn fitting<'n>(&self, asked: &Asked<'_>, nodes: &'n [Arc<Node>]) -> Vec<&'n Arc<Node>> {
        // All must accept, in whatever order: those that read every container of a node come last.
        let mut filters = self.filters.clone();
        filters.sort_by_key(|filter| filter.reads_containers());
        let fits = |node: &&Arc<Node>| {
            filters.iter().all(|filter| filter.accepts(asked, node))
                && has_room(&asked.request.container.reserved, node)
        };
        nodes.iter().filter(fits).collect()
    }

    fn order(&self, request: &CreateRequest, mut fitting: Vec<&Arc<Node>>, rng: &mut impl Rng) -> Vec<Arc<Node>> {
        let asked = &request.container.reserved;
        match self.strategy {
            Strategy::Spread => fitting.sort_by_cached_key(|node| {
                (
                    load(asked, node) - 10 * node.health_indicator,
                    node.containers.len(),
                    node.name.as_str(),
                    node.addr.as_str(),
                )
            }),
            Strategy::Binpack => fitting.sort_by_cached_key(|node| {
                let weight = load(asked, node) + 10 * node.health_indicator;
                (Reverse(weight), Reverse(node.containers.len()), node.name.as_str(), node.addr.as_str())
            }),
            Strategy::Random => {
                fitting.sort_by_key(|node| (node.name.as_str(), node.addr.as_str()));
                fitting.shuffle(rng);
            }
        }
        fitting.into_iter().cloned().collect()
    }
}

/// True if the node has what is asked for beyond what it has promised. Asking for nothing always fits.
fn has_room(asked: &Resources, node: &Node) -> bool {
    let fits = |asked: i64, used: i64, total: i64| asked <= 0 || used.saturating_add(asked) <= total;
    fits(asked.nano_cpus, node.used.nano_cpus, node.total.nano_cpus)
        && fits(asked.memory_bytes, node.used.memory_bytes, node.total.memory_bytes)
}

/// The original's score: how full the node would be, processors and memory each from 0 to 100; 100 for what is not asked.
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
