//! The templates of all nodes as one set.

use std::collections::{BTreeMap, BTreeSet};

/// A template as one node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    pub name: String,
    pub text: String,
    /// Seconds since 1970, by that node's clock.
    pub modified: u64,
}

/// A template of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    pub text: String,
    pub modified: u64,
    /// Nodes that have just this text.
    pub on: BTreeSet<String>,
    /// Nodes that have another one, which is not used.
    pub differs_on: BTreeSet<String>,
}

/// Merges the offers of all nodes (by name). Of two texts under one name the newer counts; of two of the same second
/// the greater, so that all nodes choose alike in any order.
pub fn merge<'n>(offers: impl IntoIterator<Item = (&'n str, &'n [Offered])>) -> BTreeMap<String, Shared> {
    let mut merged: BTreeMap<String, Shared> = BTreeMap::new();
    for (node, offered) in offers {
        for Offered { name, text, modified } in offered {
            let node = BTreeSet::from([node.to_owned()]);
            let new = Shared { text: text.clone(), modified: *modified, on: node, differs_on: BTreeSet::new() };
            match merged.remove(name) {
                None => drop(merged.insert(name.clone(), new)),
                Some(known) => drop(merged.insert(name.clone(), join(known, new))),
            }
        }
    }
    merged
}

fn join(mut a: Shared, mut b: Shared) -> Shared {
    if a.text == b.text {
        a.modified = a.modified.max(b.modified);
        a.on.append(&mut b.on);
        a.differs_on.append(&mut b.differs_on);
        return a;
    }
    let (mut last, mut first) = if (a.modified, &a.text) > (b.modified, &b.text) { (a, b) } else { (b, a) };
    last.differs_on.append(&mut first.on);
    last.differs_on.append(&mut first.differs_on);
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offered(name: &str, text: &str, modified: u64) -> Offered {
        Offered { name: name.into(), text: text.into(), modified }
    }

    #[test]
    fn what_was_changed_last_counts() {
        let (h1, h2, h3) = (
            [offered("web", "old", 1), offered("db", "same", 5)],
            [offered("web", "new", 2)],
            [offered("db", "same", 9), offered("web", "new", 1)],
        );
        let merged = merge([("h1", &h1[..]), ("h2", &h2), ("h3", &h3)]);
        let text: Vec<String> = merged
            .iter()
            .map(|(name, it)| format!("{name} {} {} {:?} {:?}", it.text, it.modified, it.on, it.differs_on))
            .collect();
        assert_eq!(text, [r#"db same 9 {"h1", "h3"} {}"#, r#"web new 2 {"h2", "h3"} {"h1"}"#]);
    }

    proptest! {
        /// Merges offers in different orders to the same texts.
        #[test]
        fn the_order_does_not_matter(
            offers in prop::collection::vec(prop::collection::btree_map("[ab]", ("[xy]", 0u64..3), 0..3), 1..5),
        ) {
            let nodes: Vec<(String, Vec<Offered>)> = offers
                .iter()
                .enumerate()
                .map(|(at, it)| {
                    let offered = it.iter().map(|(name, (text, modified))| offered(name, text, *modified));
                    (format!("n{at}"), offered.collect())
                })
                .collect();
            let forward = merge(nodes.iter().map(|(node, it)| (node.as_str(), it.as_slice())));
            let backward = merge(nodes.iter().rev().map(|(node, it)| (node.as_str(), it.as_slice())));
            let texts = |merged: &BTreeMap<String, Shared>| -> Vec<(String, String)> {
                merged.iter().map(|(name, it)| (name.clone(), it.text.clone())).collect()
            };
            prop_assert_eq!(texts(&forward), texts(&backward));
            for it in forward.values() {
                prop_assert!(it.on.is_disjoint(&it.differs_on));
            }
        }
    }
}
