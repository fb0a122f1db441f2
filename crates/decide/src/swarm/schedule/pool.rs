//! The nodes that fit for a class of tasks, the least loaded first, in the branches of its preferences.
//!
//! `spread` preferences make a tree: the outermost label splits the nodes into branches by its value (without the label: the
//! empty one), the next one each of those. A leaf is a heap of nodes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hasher as _};

use super::demand::Conditions;
use super::{Rank, Run};

/// Number of a branch. 0 is the root.
pub(super) type BranchNo = u32;
const ROOT: BranchNo = 0;

pub(super) struct Pool {
    pub branches: Vec<Branch>,
    /// The leaf of each node, also of those that do not fit: what runs there counts for the branch. Empty if there is only
    /// the root.
    leaf_of: Vec<BranchNo>,
    /// Nodes that fit when the pool was made.
    pub fits: Vec<bool>,
    pub known: Known,
}

/// State of the service being placed: nodes that have tasks of it, or failed with it.
#[derive(Default)]
pub(super) struct Known {
    /// Counted failures and active tasks, by rank.
    by_rank: Vec<(u32, u32)>,
    ranks: Vec<Rank>,
}

impl Known {
    pub(super) fn contains(&self, rank: Rank) -> bool {
        self.by_rank[rank as usize] != (0, 0)
    }

    /// True if the node was not known before.
    pub(super) fn add(&mut self, rank: Rank, failures: u32, count: u32) -> bool {
        let known = &mut self.by_rank[rank as usize];
        let is_new = *known == (0, 0);
        *known = (known.0 + failures, known.1 + count);
        if is_new {
            self.ranks.push(rank);
        }
        is_new
    }

    pub(super) fn get(&self, rank: Rank) -> (u32, u32) {
        self.by_rank[rank as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Rank, u32, u32)> {
        self.ranks.iter().map(|rank| (*rank, self.get(*rank).0, self.get(*rank).1))
    }

    pub(super) fn clear(&mut self) {
        for rank in self.ranks.drain(..) {
            self.by_rank[rank as usize] = (0, 0);
        }
    }
}

#[derive(Default)]
pub(super) struct Branch {
    pub parent: Option<BranchNo>,
    pub children: Vec<BranchNo>,
    /// Hash of the label's value.
    pub hash: u64,
    /// Nodes of a leaf: load and rank, the least first. Nodes get fuller only by way of this heap, so its loads are
    /// right.
    pub nodes: BinaryHeap<Reverse<Entry>>,
}

/// Load and rank of a node, in this order of importance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry(u64);

impl Entry {
    pub(super) fn new(load: u32, rank: Rank) -> Entry {
        Entry(u64::from(load) << 32 | u64::from(rank))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the rank")]
    pub(super) fn rank(self) -> Rank {
        self.0 as u32
    }

    pub(super) fn load(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Pool {
    pub(super) fn new(run: &Run<'_>, conditions: &Conditions) -> Pool {
        let known = Known { by_rank: vec![(0, 0); run.hosts.len()], ranks: Vec::new() };
        let mut pool = Pool { branches: vec![Branch::default()], leaf_of: Vec::new(), fits: Vec::new(), known };
        if !conditions.spread.is_empty() {
            pool.grow(run, conditions);
        }
        let mut nodes: Vec<Vec<Reverse<Entry>>> = pool.branches.iter().map(|_| Vec::new()).collect();
        pool.fits = (0..).zip(&run.hosts).map(|(rank, _)| run.refused(conditions, &[], rank, || 0).is_none()).collect();
        for (rank, fits) in (0..).zip(&pool.fits) {
            if *fits {
                nodes[pool.leaf(rank) as usize].push(Reverse(Entry::new(run.load[rank as usize], rank)));
            }
        }
        for (branch, nodes) in pool.branches.iter_mut().zip(nodes) {
            branch.nodes = BinaryHeap::from(nodes);
        }
        pool
    }

    fn grow(&mut self, run: &Run<'_>, conditions: &Conditions) {
        let mut known: HashMap<(BranchNo, &str), BranchNo> = HashMap::new();
        for host in &run.hosts {
            let mut at = ROOT;
            for label in &conditions.spread {
                let value = host.record.as_ref().map_or("", |record| label.of_node(record));
                at = *known.entry((at, value)).or_insert_with(|| self.add(at, value));
            }
            self.leaf_of.push(at);
        }
    }

    fn add(&mut self, parent: BranchNo, value: &str) -> BranchNo {
        let number = BranchNo::try_from(self.branches.len()).unwrap_or(BranchNo::MAX);
        self.branches[parent as usize].children.push(number);
        let hash = hash(&value);
        self.branches.push(Branch { parent: Some(parent), hash, ..Branch::default() });
        number
    }

    pub(super) fn leaf(&self, rank: Rank) -> BranchNo {
        self.leaf_of.get(rank as usize).copied().unwrap_or(ROOT)
    }
}

pub(super) fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
