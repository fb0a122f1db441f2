//! Places the tasks of one group.
//!
//! Nodes without a task of the service come first, from the heap of their leaf; then those that have some, from a heap that is
//! made when it is needed. Of the branches of a preference the one with the fewest tasks of the service comes first, so that
//! they even out as far as there is room in them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::demand::Conditions;
use super::fleet::NO_SERVICE;
use super::pool::{BranchNo, Entry, Pool, hash};
use super::{ASSIGNED, Group, NO_RANK, Rank, Run};

pub(super) struct Placing<'r, 'f> {
    run: &'r mut Run<'f>,
    pool: &'r mut Pool,
    conditions: &'r Conditions,
    group: &'r Group<'f>,
    /// Nodes at which tasks were placed.
    ranks: Vec<Rank>,
    /// Leaves, by branch.
    leaves: Vec<Leaf>,
    /// Children with room, as far as known, by branch.
    open: Vec<BinaryHeap<Reverse<Child>>>,
}

#[derive(Default)]
struct Leaf {
    /// Taken from the pool for now; for other groups they are still there.
    aside: Vec<Rank>,
    /// Known nodes, the best first: failures, tasks of the service, load and rank.
    used: Option<BinaryHeap<Reverse<(u32, u32, Entry)>>>,
}

/// Tasks of the service, load of the least loaded node, lot, number.
type Child = (u32, u32, u64, BranchNo);

impl<'r, 'f> Placing<'r, 'f> {
    pub(super) fn new(
        run: &'r mut Run<'f>,
        pool: &'r mut Pool,
        conditions: &'r Conditions,
        group: &'r Group<'f>,
    ) -> Placing<'r, 'f> {
        for (rank, count) in run.counts_of(group.service) {
            pool.known.add(rank, 0, count);
        }
        for (number, failures) in run.fleet.failures_of(group.service_id(), group.version, run.now) {
            let rank = run.ranks[number as usize];
            if rank != NO_RANK {
                pool.known.add(rank, failures, 0);
            }
        }
        let leaves = pool.branches.iter().map(|_| Leaf::default()).collect();
        let mut placing = Placing { run, pool, conditions, group, ranks: Vec::new(), leaves, open: Vec::new() };
        if placing.pool.branches.len() > 1 {
            placing.open_branches();
        }
        placing
    }

    /// Places as many tasks as it can, in their order; says how many.
    pub(super) fn place(mut self) -> usize {
        let tasks = &self.group.tasks;
        let mut placed = 0;
        while placed < tasks.len() && self.run.left > 0 {
            let Some(rank) = self.next_in(0) else { break };
            let Some(claimed) = self.run.take(self.conditions, &self.group.ports, rank) else { break };
            self.run.assign(tasks[placed], rank, claimed, ASSIGNED);
            self.put_back(rank);
            placed += 1;
        }
        self.end();
        placed
    }

    fn open_branches(&mut self) {
        let branches = &self.pool.branches;
        let mut counts = vec![0_u32; branches.len()];
        for (rank, _, count) in self.pool.known.iter() {
            let mut at = Some(self.pool.leaf(rank));
            while let Some(branch) = at {
                counts[branch as usize] += count;
                at = branches[branch as usize].parent;
            }
        }
        // Children stand after their parents.
        let mut least: Vec<u32> =
            branches.iter().map(|it| it.nodes.peek().map_or(u32::MAX, |Reverse(entry)| entry.load())).collect();
        for (number, branch) in branches.iter().enumerate().rev() {
            if let Some(parent) = branch.parent {
                least[parent as usize] = least[parent as usize].min(least[number]);
            }
        }
        let child = |number: BranchNo| {
            let at = number as usize;
            Reverse((counts[at], least[at], hash(&(self.group.service_id(), branches[at].hash)), number))
        };
        self.open = branches.iter().map(|branch| branch.children.iter().map(|it| child(*it)).collect()).collect();
    }

    /// The node that is next within the branch; nothing if there is none with room.
    fn next_in(&mut self, branch: BranchNo) -> Option<Rank> {
        if self.pool.branches[branch as usize].children.is_empty() {
            return self.next_in_leaf(branch);
        }
        // A branch that gave nothing is full, and stays so.
        while let Some(Reverse((count, least, lot, child))) = self.open[branch as usize].pop() {
            if let Some(rank) = self.next_in(child) {
                self.open[branch as usize].push(Reverse((count + 1, least, lot, child)));
                return Some(rank);
            }
        }
        None
    }

    fn next_in_leaf(&mut self, branch: BranchNo) -> Option<Rank> {
        self.unused(branch).or_else(|| self.used(branch))
    }

    /// The least loaded node that has no task of the service.
    fn unused(&mut self, branch: BranchNo) -> Option<Rank> {
        let Pool { branches, known, .. } = &mut *self.pool;
        let (nodes, leaf) = (&mut branches[branch as usize].nodes, &mut self.leaves[branch as usize]);
        while let Some(Reverse(entry)) = nodes.peek() {
            let rank = entry.rank();
            // Nodes only get fuller: one that is full now is so for all groups of the pool.
            let is_full = !self.run.has_room(self.conditions, rank);
            if is_full || known.contains(rank) || self.run.is_taken(&self.group.ports, rank) {
                nodes.pop();
                if !is_full {
                    leaf.aside.push(rank);
                }
            } else {
                return Some(rank);
            }
        }
        None
    }

    /// The best of the nodes that have tasks of the service, or failed with it.
    fn used(&mut self, branch: BranchNo) -> Option<Rank> {
        let Placing { run, pool, leaves, conditions, group, .. } = self;
        let used = leaves[branch as usize].used.get_or_insert_with(|| {
            let here = |rank: Rank| pool.fits[rank as usize] && pool.leaf(rank) == branch;
            let nodes = pool.known.iter().filter(|(rank, ..)| here(*rank));
            let entry = |rank: Rank| Entry::new(run.load[rank as usize], rank);
            nodes.map(|(rank, failures, count)| Reverse((failures, count, entry(rank)))).collect()
        });
        while let Some(Reverse((_, count, entry))) = used.pop() {
            let rank = entry.rank();
            let below = conditions.max_replicas == 0 || u64::from(count) < conditions.max_replicas;
            if below && run.has_room(conditions, rank) && !run.is_taken(&group.ports, rank) {
                return Some(rank);
            }
        }
        None
    }

    /// The node has one task more, and is in line again.
    fn put_back(&mut self, rank: Rank) {
        let branch = self.pool.leaf(rank) as usize;
        let entry = Entry::new(self.run.load[rank as usize], rank);
        let nodes = &mut self.pool.branches[branch].nodes;
        if self.group.service == NO_SERVICE {
            // It is where it was found: at the top.
            if let Some(mut top) = nodes.peek_mut() {
                *top = Reverse(entry);
            }
            return;
        }
        let leaf = &mut self.leaves[branch];
        if self.pool.known.add(rank, 0, 1) {
            nodes.pop();
            leaf.aside.push(rank);
        }
        if let Some(used) = &mut leaf.used {
            let (failures, count) = self.pool.known.get(rank);
            used.push(Reverse((failures, count, entry)));
        }
        self.ranks.push(rank);
    }

    fn end(mut self) {
        self.pool.known.clear();
        for (branch, leaf) in self.pool.branches.iter_mut().zip(&mut self.leaves) {
            let load = &self.run.load;
            branch.nodes.extend(leaf.aside.drain(..).map(|rank| Reverse(Entry::new(load[rank as usize], rank))));
        }
        if !self.ranks.is_empty() {
            self.run.placed.entry(self.group.service).or_default().append(&mut self.ranks);
        }
    }
}
