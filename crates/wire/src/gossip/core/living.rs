//! The known members and their versions, in a form that is quickly compared.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use foca::Notification;

use super::super::facts::Version;
use super::Who;

/// Number of parts into which members are divided by their ids. Of 1,000 members, two parts fit into a packet. All
/// nodes must agree on it.
pub(super) const PARTS: usize = 64;
/// Ids of one part begin, as numbers, with the same bits.
const PART_SHIFT: u32 = u64::BITS - PARTS.trailing_zeros();

/// Version of a member's knowledge: facts, and starts. The greater one is newer.
pub(super) type Known = (Version, (u64, u32));

/// The same number for the same words, in all versions, on all machines. (Of the kind of FNV-1a.)
fn mix(words: impl IntoIterator<Item = u64>) -> u64 {
    let one = |sum: u64, word: u64| {
        let sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum ^ sum >> 29
    };
    words.into_iter().fold(0xcbf2_9ce4_8422_2325, one)
}

/// The number of an id. If two ever have the same, one of them is not compared, no more.
pub(super) fn number(id: &str) -> u64 {
    let (words, rest) = id.as_bytes().as_chunks::<8>();
    let rest = rest.iter().fold(1, |sum, byte| sum << 8 | u64::from(*byte));
    mix(words.iter().map(|bytes| u64::from_le_bytes(*bytes)).chain([rest, 0]))
}

/// A member that lives.
#[derive(Debug)]
pub(super) struct Lives {
    pub(super) who: Who,
    version: Version,
}

impl Lives {
    pub(super) fn known(&self) -> Known {
        (self.version, (self.who.generation, self.who.rebirths))
    }
}

/// All members that live, this node included, by the numbers of their ids.
#[derive(Debug)]
pub(super) struct Living {
    members: BTreeMap<u64, Lives>,
    /// Checksum of each part; equal on nodes with equal knowledge.
    sums: [u64; PARTS],
}

impl Default for Living {
    fn default() -> Living {
        Living { members: BTreeMap::new(), sums: [0; PARTS] }
    }
}

/// Change of a member.
#[derive(Debug)]
pub(super) enum Change {
    Here(Who),
    Gone(Who),
    /// The one has become the other, if it was here; else nothing.
    Renamed(Who, Who),
}

impl Change {
    pub(super) fn of(notification: &Notification<'_, Who>) -> Option<Change> {
        match notification {
            Notification::MemberUp(who) | Notification::Rejoin(who) => Some(Change::Here((*who).clone())),
            Notification::MemberDown(who) => Some(Change::Gone((*who).clone())),
            Notification::Rename(old, new) => Some(Change::Renamed((*old).clone(), (*new).clone())),
            _ => None,
        }
    }
}

impl Living {
    fn add_up(&mut self, number: u64) {
        if let Some(lives) = self.members.get(&number) {
            let ((start, count), (generation, rebirths)) = lives.known();
            let part = usize::try_from(number >> PART_SHIFT).unwrap_or(0);
            self.sums[part] ^= mix([number, start, count, generation, rebirths.into()]);
        }
    }

    /// Sums are changed by taking out what was and putting in what is.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut BTreeMap<u64, Lives>)) {
        self.add_up(number);
        change(&mut self.members);
        self.add_up(number);
    }

    /// `version`: of its facts.
    pub(super) fn put(&mut self, who: Who, version: Version) {
        let number = number(&who.id);
        // A host that moved may be known at two addresses.
        let order = |who: &Who| (who.generation, who.rebirths);
        if self.members.get(&number).is_none_or(|it| order(&it.who) <= order(&who)) {
            self.change(number, |members| drop(members.insert(number, Lives { who, version })));
        }
    }

    /// Removes a member. Returns true if it was among the live members.
    fn take(&mut self, who: &Who) -> bool {
        let number = number(&who.id);
        let here = self.get(number).is_some_and(|it| it.who == *who);
        if here {
            self.change(number, |members| drop(members.remove(&number)));
        }
        here
    }

    pub(super) fn apply(&mut self, change: Change, version: impl FnOnce(&str) -> Version) {
        let here = match change {
            Change::Here(who) => Some(who),
            Change::Renamed(old, new) => self.take(&old).then_some(new),
            Change::Gone(who) => {
                self.take(&who);
                None
            }
        };
        if let Some(who) = here {
            let version = version(&who.id);
            self.put(who, version);
        }
    }

    /// Records that newer facts of a member arrived.
    pub(super) fn learned(&mut self, id: &str, version: Version) {
        let number = number(id);
        self.change(number, |members| {
            if let Some(lives) = members.get_mut(&number) {
                lives.version = version;
            }
        });
    }

    pub(super) fn get(&self, number: u64) -> Option<&Lives> {
        self.members.get(&number)
    }

    pub(super) fn within(&self, numbers: RangeInclusive<u64>) -> impl Iterator<Item = (u64, &Lives)> {
        // A range that ends before it begins comes from elsewhere, and is not allowed here.
        let numbers = if numbers.is_empty() { 0..=0 } else { numbers };
        self.members.range(numbers).map(|(number, lives)| (*number, lives))
    }

    /// All sums, in a fixed form.
    pub(super) fn summary(&self) -> Vec<u8> {
        self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()
    }

    /// Numbers of those parts whose sums are others there.
    pub(super) fn differing(&self, summary: &[u8]) -> Vec<RangeInclusive<u64>> {
        let theirs = summary.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let differing = (0u64..).zip(self.sums.iter().zip(theirs)).filter(|(_, (ours, theirs))| *ours != theirs);
        differing
            .map(|(part, _)| part << PART_SHIFT..=(part << PART_SHIFT) + (u64::MAX >> PARTS.trailing_zeros()))
            .collect()
    }
}
