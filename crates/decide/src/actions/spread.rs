//! Choice of the node for the next of many instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_model::Node;

/// Returns the node of `ranked` (the nodes that fit, best first) for the next instance. It is healthy, not in `avoid`,
/// and has got the fewest so far; of those it is the best. That is one round over all nodes and then round again, and
/// the numbers differ by one at most over the nodes that accept.
pub fn next<'n>(
    ranked: &'n [Arc<Node>],
    got: &BTreeMap<String, usize>,
    avoid: impl Fn(&str) -> bool,
) -> Option<&'n Arc<Node>> {
    let candidates = ranked.iter().filter(|node| node.is_healthy() && !avoid(&node.addr));
    candidates.min_by_key(|node| got.get(&node.addr).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use herder_model::NodeState;
    use proptest::prelude::*;

    use super::*;

    fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
        let node = |name: &&str| {
            let state = if name.ends_with('!') { NodeState::Unhealthy } else { NodeState::Healthy };
            Arc::new(Node { name: (*name).into(), addr: (*name).into(), state, ..Node::default() })
        };
        names.iter().map(node).collect()
    }

    #[test]
    fn each_gets_one_before_any_gets_two() {
        let ranked = nodes(&["c", "sick!", "a", "b"]);
        let mut got = BTreeMap::new();
        let mut order = String::new();
        for _ in 0..5 {
            let node = next(&ranked, &got, |_| false).expect("a node");
            order.push_str(&node.name);
            *got.entry(node.addr.clone()).or_default() += 1;
        }
        assert_eq!(order, "cabca");
        assert!(next(&ranked[1..2], &got, |_| false).is_none());
        assert_eq!(next(&ranked, &got, |addr| addr == "c").expect("a node").name, "b");
    }

    proptest! {
        /// Some nodes refuse; what they refuse goes to the others.
        #[test]
        fn the_numbers_differ_by_one_at_most_over_those_that_accept(
            refusing in prop::collection::vec(any::<bool>(), 1..9), instances in 1usize..60,
        ) {
            let names: Vec<String> = (0..refusing.len()).map(|at| format!("n{at}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let ranked = nodes(&names);
            let accepts = |addr: &str| names.iter().position(|name| *name == addr).is_some_and(|at| !refusing[at]);
            let mut got: BTreeMap<String, usize> = BTreeMap::new();
            let mut placed = 0;
            for _ in 0..instances {
                let mut tried = BTreeSet::new();
                while let Some(node) = next(&ranked, &got, |addr| tried.contains(addr)) {
                    if accepts(&node.addr) {
                        *got.entry(node.addr.clone()).or_default() += 1;
                        placed += 1;
                        break;
                    }
                    tried.insert(node.addr.clone());
                }
            }
            let counts: Vec<usize> =
                names.iter().filter(|name| accepts(name)).map(|name| got.get(*name).copied().unwrap_or(0)).collect();
            prop_assert_eq!(placed, if counts.is_empty() { 0 } else { instances });
            if let (Some(most), Some(least)) = (counts.iter().max(), counts.iter().min()) {
                prop_assert!(most - least <= 1, "{:?}", counts);
            }
        }
    }
}
