//! Claims of names that are about to be used. Few nodes look after a name; each gives it to one container at a time.
//!
//! Which nodes those are, every node finds out alone (rendezvous hashing, Thaler and Ravishankar 1998): the highest score of
//! name and node wins, so that a node that goes only moves the names that it looked after. How many are asked:
//! [`crate::place::placing::Claiming`].

use std::collections::BTreeMap;
use std::time::Duration;

/// Time after which a claim without news ends: longer than any create.
pub const CLAIM_TIME_MAX: Duration = Duration::from_secs(900);

/// Time for which a name stays claimed when the fate of its container is unknown. Long enough for every node to have
/// read the engine again, should it be there.
pub const DOUBT_TIME: Duration = Duration::from_secs(10);

/// Claims kept at once; an attacker with a certificate could else fill memory.
const CLAIMS_MAX: usize = 100_000;

/// The node that looks after `name`. `nodes` may be in any order; nothing if there is none.
pub fn owner_of<'n>(name: &str, nodes: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
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

/// The outcome of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The name was not used.
    Free,
    /// The name is used by a container that the node at `addr` shows. Picture `picture` of it and every later one has
    /// the container while it exists. From there on the picture answers for the name, and the claim is over: also if
    /// the container is gone by then.
    Shown { addr: String, picture: u64 },
    /// The container may have been made.
    InDoubt,
}

/// Claims that this node gave. Times are since any fixed moment.
#[derive(Debug, Default)]
pub struct Claims {
    by_name: BTreeMap<String, Claim>,
}

#[derive(Debug)]
struct Claim {
    number: u64,
    end: Duration,
    /// Condition that ends the claim earlier, if the name is used.
    shown: Option<Shown>,
}

/// The picture that answers for a used name.
#[derive(Debug)]
struct Shown {
    /// Address of the node.
    addr: String,
    picture: u64,
    /// End of the claim if this node has no picture of that node. That node has left, or was lost in a cut
    /// network.
    without: Duration,
}

impl Claim {
    fn holds(&self, now: Duration, seen: &impl Fn(&str) -> Option<u64>) -> bool {
        let holds = |shown: &Shown| seen(&shown.addr).map_or(shown.without > now, |seen| seen < shown.picture);
        self.end > now && self.shown.as_ref().is_none_or(holds)
    }
}

impl Claims {
    /// Claims the name under this number; true if that succeeded. The door makes the number up, so that it can ask
    /// again, and give back a claim whose answer was lost. `seen` is the number of the newest picture that this node
    /// has of the node at an address, if it has one.
    pub fn claim(&mut self, name: &str, number: u64, now: Duration, seen: impl Fn(&str) -> Option<u64>) -> bool {
        if self.by_name.len() >= CLAIMS_MAX {
            self.by_name.retain(|_, claim| claim.holds(now, &seen));
        }
        let taken = self.by_name.get(name).is_some_and(|claim| claim.number != number && claim.holds(now, &seen));
        if taken || self.by_name.len() >= CLAIMS_MAX {
            return false;
        }
        self.by_name.insert(name.to_owned(), Claim { number, end: now + CLAIM_TIME_MAX, shown: None });
        true
    }

    /// Takes note of what became of a claim.
    pub fn settle(&mut self, number: u64, settled: Settled, now: Duration) {
        let name = self.by_name.iter().find(|(_, claim)| claim.number == number).map(|(name, _)| name.clone());
        let Some(name) = name else { return };
        let (end, shown) = match settled {
            Settled::Free => {
                self.by_name.remove(&name);
                return;
            }
            Settled::Shown { addr, picture } => {
                (now + CLAIM_TIME_MAX, Some(Shown { addr, picture, without: now + DOUBT_TIME }))
            }
            Settled::InDoubt => (now + DOUBT_TIME, None),
        };
        self.by_name.insert(name, Claim { number, end, shown });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Events, one a word, with the newest picture of node `n:1` and the time in seconds before it. `+web/7` claims,
    /// and says whether that is given; `-7` frees, `=7@3` is shown by picture 3, `?7` is in doubt.
    #[track_caller]
    fn check(events: &str, expected: &str) {
        let (mut claims, mut answers) = (Claims::default(), String::new());
        for event in events.split_whitespace() {
            let mut parts = event.splitn(3, ':');
            let mut part = || parts.next().expect("three parts");
            let (second, picture, what) = (part().parse().expect("a second"), part().parse::<u64>().ok(), part());
            let (kind, rest) = what.split_at(1);
            let number = |text: &str| text.parse().expect("a number");
            match kind {
                "+" => {
                    let (name, claim) = rest.split_once('/').expect("a name and a number");
                    let given = claims.claim(name, number(claim), s(second), |addr| picture.filter(|_| addr == "n:1"));
                    answers += if given { "yes " } else { "no " };
                }
                "=" => {
                    let (claim, picture) = rest.split_once('@').expect("a number and a picture");
                    let settled = Settled::Shown { addr: "n:1".into(), picture: number(picture) };
                    claims.settle(number(claim), settled, s(second));
                }
                "?" => claims.settle(number(rest), Settled::InDoubt, s(second)),
                _ => claims.settle(number(rest), Settled::Free, s(second)),
            }
        }
        assert_eq!(answers.trim_end(), expected, "{events}");
    }

    #[test]
    fn a_name_is_given_once_until_it_is_settled() {
        check("0:1:+web/7 1:1:+web/8 1:1:+web/7 1:1:+db/9", "yes no yes yes");
        check("0:1:+web/7 2:1:-7 2:1:+web/10 3:1:-7 3:1:+web/11", "yes yes no");
        check("0:1:+web/7 899:1:+web/8 900:1:+web/9", "yes no yes");
    }

    #[test]
    fn a_used_claim_ends_when_the_picture_shows_what_became_of_it() {
        check("0:1:+web/7 0:1:=7@3 0:2:+web/8 0:3:+web/9", "yes no yes");
        check("0:1:+web/7 0:1:=7@3 60:2:+web/8 60:4:+web/9", "yes no yes");
        check("0:1:+web/7 0:1:=7@3 9:gone:+web/8 10:gone:+web/8", "yes no yes");
    }

    #[test]
    fn a_claim_in_doubt_is_kept_for_a_while() {
        check("0:1:+web/7 4:1:?7 13:9:+web/8 14:9:+web/8", "yes no yes");
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_names() {
        let nodes = ["a", "b", "c", "d", "e"];
        let mut count = BTreeMap::new();
        for number in 0..1000 {
            let name = format!("web-{number}");
            let with = owner_of(&name, nodes).expect("an owner");
            let without = owner_of(&name, nodes.into_iter().filter(|node| *node != "c")).expect("an owner");
            assert!(with == without || with == "c", "{name} moved from {with} to {without}");
            *count.entry(with).or_insert(0) += 1;
        }
        assert!(count.values().all(|count| (120..280).contains(count)), "{count:?}");
        assert_eq!(owner_of("x", []), None);
    }

    proptest! {
        #[test]
        fn nodes_agree_whatever_their_order(name in ".{0,20}", mut nodes in prop::collection::vec("[a-z]{1,5}", 1..9)) {
            let one = owner_of(&name, nodes.iter().map(String::as_str)).map(str::to_owned);
            nodes.reverse();
            prop_assert_eq!(one.as_deref(), owner_of(&name, nodes.iter().map(String::as_str)));
        }
    }
}
