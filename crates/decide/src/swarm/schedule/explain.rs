//! Explanation in the words of swarm mode why no node takes a task. Each node counts for the first filter that refuses
//! it.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::demand::Filter;
use super::{Class, Group, Rank, Run};

/// Number of nodes that each filter refuses.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally([usize; Filter::ALL.len()]);

impl Tally {
    pub(super) fn add(&mut self, filter: Filter) {
        self.0[filter as usize] += 1;
    }

    /// Most nodes first, then in the order of the filters.
    pub(super) fn sentence(&self) -> String {
        let mut parts: Vec<(usize, Filter)> =
            Filter::ALL.into_iter().map(|filter| (self.0[filter as usize], filter)).filter(|it| it.0 > 0).collect();
        parts.sort_by_key(|(nodes, _)| std::cmp::Reverse(*nodes));
        let mut text = String::from("no suitable node");
        for (index, (nodes, filter)) in parts.iter().enumerate() {
            let before = if index == 0 { " (" } else { "; " };
            // Writing into a text cannot fail.
            let _ = write!(text, "{before}{}", filter.sentence(*nodes));
        }
        if !parts.is_empty() {
            text.push(')');
        }
        text
    }
}

impl Run<'_> {
    /// Writes to the tasks that found no node why that is so: (class, group, tasks of it that found one). Nodes are looked
    /// through once for each class.
    pub(super) fn explain(&mut self, classes: &[Class<'_>], refused: &[(usize, usize, usize)]) {
        let mut last = None;
        let mut known = Looked::default();
        for (class_no, group_no, placed) in refused {
            let class = &classes[*class_no];
            let group = &class.groups[*group_no];
            if last != Some(*class_no) {
                last = Some(*class_no);
                known = self.look(class);
            }
            let text = known.text(self, class, group);
            for record in &group.tasks[*placed..] {
                self.still_waiting(record, &text);
            }
        }
    }

    fn look(&self, class: &Class<'_>) -> Looked {
        let mut looked = Looked::default();
        for (rank, _) in (0..).zip(&self.hosts) {
            match self.refused(&class.conditions, &[], rank, || 0) {
                Some(filter) => looked.tally.add(filter),
                None => looked.others.push(rank),
            }
        }
        looked
    }
}

/// Values that are the same for all groups of a class.
#[derive(Default)]
struct Looked {
    tally: Tally,
    /// Nodes that only ports or the number of replicas can refuse.
    others: Vec<Rank>,
}

impl Looked {
    fn text(&self, run: &Run<'_>, class: &Class<'_>, group: &Group<'_>) -> String {
        let mut tally = self.tally;
        let mut counts: HashMap<Rank, u32> = HashMap::new();
        if class.conditions.max_replicas > 0 {
            for (rank, count) in run.counts_of(group.service) {
                *counts.entry(rank).or_default() += count;
            }
        }
        for rank in &self.others {
            let count = || counts.get(rank).copied().unwrap_or_default();
            if let Some(filter) = run.refused(&class.conditions, &group.ports, *rank, count) {
                tally.add(filter);
            }
        }
        tally.sentence()
    }
}
