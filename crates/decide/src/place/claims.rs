//! Names that are about to be used: each is looked after by few nodes, each of which says yes to one container at a time.
//!
//! Which nodes those are, every node finds out alone (rendezvous hashing, Thaler and Ravishankar 1998): the highest score of
//! name and node wins, so that a node that goes only moves the names that it looked after. How many are asked:
//! [`crate::place::placing::Claiming`].

use std::collections::BTreeMap;
use std::time::Duration;

/// A claim whose owner is never heard of again ends after this: longer than any create.
pub const CLAIM_TIME_MAX: Duration = Duration::from_secs(900);

/// After a create, the name stays claimed until every node has surely read the new container.
pub const USED_TIME: Duration = Duration::from_secs(10);

/// Claims kept at once; an attacker with a certificate could else fill memory.
const CLAIMS_MAX: usize = 100_000;

/// The node that looks after `name`. `nodes` may be in any order; nothing if there is none.
pub fn keeper<'n>(name: &str, nodes: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    nodes.into_iter().max_by_key(|node| (score(name, node), *node))
}

/// FNV-1a (64 bit) over both, well mixed (the finalizer of SplitMix64). Part of the protocol: nodes must agree.
fn score(name: &str, node: &str) -> u64 {
    let bytes = name.bytes().chain([0]).chain(node.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// Claims that this node gave. Times are since any fixed moment.
#[derive(Debug, Default)]
pub struct Claims {
    /// Name → number and end.
    given: BTreeMap<String, (u64, Duration)>,
}

impl Claims {
    /// Whether the name is now claimed under this number, which the door has made up: so it can ask again, and give back what
    /// it never knew that it had.
    pub fn claim(&mut self, name: &str, number: u64, now: Duration) -> bool {
        if self.given.len() >= CLAIMS_MAX {
            self.given.retain(|_, (_, end)| *end > now);
        }
        let taken = self.given.get(name).is_some_and(|(other, end)| *other != number && *end > now);
        if taken || self.given.len() >= CLAIMS_MAX {
            return false;
        }
        self.given.insert(name.to_owned(), (number, now + CLAIM_TIME_MAX));
        true
    }

    /// What became of a claim: the name is used, or free again.
    pub fn settle(&mut self, claim: u64, used: bool, now: Duration) {
        let name = self.given.iter().find(|(_, (number, _))| *number == claim).map(|(name, _)| name.clone());
        let Some(name) = name else { return };
        if used {
            self.given.insert(name, (claim, now + USED_TIME));
        } else {
            self.given.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_name_is_given_once_until_it_is_settled() {
        let mut claims = Claims::default();
        assert!(claims.claim("web", 7, s(0)));
        assert!(!claims.claim("web", 8, s(1)));
        assert!(claims.claim("web", 7, s(1)), "asked again by the same door");
        assert!(claims.claim("db", 9, s(1)));
        claims.settle(7, false, s(2));
        assert!(claims.claim("web", 10, s(2)));
        claims.settle(7, false, s(3));
        assert!(!claims.claim("web", 11, s(3)), "an old claim settles nothing");
        claims.settle(10, true, s(4));
        assert!(!claims.claim("web", 11, s(13)), "nodes may not have seen it yet");
        assert!(claims.claim("web", 11, s(14)));
        assert!(claims.claim("web", 12, s(14) + CLAIM_TIME_MAX), "a claim of the dead ends");
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_names() {
        let nodes = ["a", "b", "c", "d", "e"];
        let mut count = BTreeMap::new();
        for number in 0..1000 {
            let name = format!("web-{number}");
            let with = keeper(&name, nodes).expect("a keeper");
            let without = keeper(&name, nodes.into_iter().filter(|node| *node != "c")).expect("a keeper");
            assert!(with == without || with == "c", "{name} moved from {with} to {without}");
            *count.entry(with).or_insert(0) += 1;
        }
        assert!(count.values().all(|count| (120..280).contains(count)), "{count:?}");
        assert_eq!(keeper("x", []), None);
    }

    proptest! {
        #[test]
        fn nodes_agree_whatever_their_order(name in ".{0,20}", mut nodes in prop::collection::vec("[a-z]{1,5}", 1..9)) {
            let one = keeper(&name, nodes.iter().map(String::as_str)).map(str::to_owned);
            nodes.reverse();
            prop_assert_eq!(one.as_deref(), keeper(&name, nodes.iter().map(String::as_str)));
        }
    }
}
