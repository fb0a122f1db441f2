//! Comparison of wanted and seen kernel state.

use std::collections::BTreeMap;

use super::Table;
use super::item::{Family, Item, Value};

/// One step towards the wanted state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Adds or replaces an entry.
    Put(Item, Value),
    Remove(Item),
    /// Replaces a whole nft table in one transaction, by a script for `nft -f`.
    Load(Family, String),
    /// Changes elements of one nft table in one transaction: first the removals, then what is put.
    Batch(Family, Vec<Op>),
    /// Removes an nft table.
    Drop(Family),
}

/// Returns the steps from `seen` to `wanted`, in an order that never leads packets to what is not there yet. Chains for numbers of
/// backends that no service has any more are left until the table is loaded anew.
pub fn plan(wanted: &Table, seen: &BTreeMap<Item, Value>) -> Vec<Op> {
    let mut steps = Steps::default();
    let differs = |item: &Item| wanted.items.get(item) != seen.get(item);
    // A device that is made anew has no entries, and a bridge that gets another MAC has no neighbours.
    let is_lost = |item: &Item| match item {
        Item::Neighbour { dev, .. } => {
            let mac = Item::BridgeMac(dev.clone());
            wanted.items.contains_key(&mac) && differs(&mac)
        }
        Item::Fdb { dev, .. } | Item::BridgeFdb { dev, .. } => differs(&Item::Vxlan(dev.clone())),
        _ => false,
    };
    let is_loaded = |family: Family| differs(&Item::Base(family));
    for item in seen.keys().filter(|item| !wanted.items.contains_key(*item)) {
        match item {
            Item::Base(family) => steps.drops.push(Op::Drop(*family)),
            // A sysctl has no state of before that is known.
            Item::Chain(..) | Item::Sysctl(_) | Item::BridgeMac(_) => {}
            Item::Element(family, ..) if is_loaded(*family) => {}
            Item::Element(family, ..) => steps.batch(*family).0.push(Op::Remove(item.clone())),
            _ if is_lost(item) => {}
            _ => steps.removals.push(Op::Remove(item.clone())),
        }
    }
    for (item, value) in wanted.items.iter().filter(|(item, _)| differs(item) || is_lost(item)) {
        match item {
            Item::Base(family) => steps.puts.push(Op::Load(*family, wanted.script(*family))),
            Item::Chain(family, _) | Item::Element(family, ..) if is_loaded(*family) => {}
            Item::Element(family, ..) => {
                let (removals, puts) = steps.batch(*family);
                if seen.contains_key(item) {
                    removals.push(Op::Remove(item.clone()));
                }
                puts.push(Op::Put(item.clone(), value.clone()));
            }
            _ => steps.puts.push(Op::Put(item.clone(), value.clone())),
        }
    }
    steps.in_order()
}

/// Carries out steps on a map in place of a kernel. It does what the kernel does by itself: a device takes its entries
/// along, a bridge that gets another MAC its neighbors. For tests and simulations.
///
/// # Errors
///
/// A step that the kernel refuses.
pub fn carry_out(ops: &[Op], wanted: &Table, kernel: &mut BTreeMap<Item, Value>) -> Result<(), String> {
    for op in ops {
        match op {
            Op::Put(item, value) => {
                forget_entries(item, kernel);
                if matches!(item, Item::Element(..)) && kernel.contains_key(item) {
                    return Err(format!("{item} is there already"));
                }
                kernel.insert(item.clone(), value.clone());
            }
            Op::Remove(item) => {
                forget_entries(item, kernel);
                if kernel.remove(item).is_none() {
                    return Err(format!("{item} is not there"));
                }
            }
            Op::Load(family, _) => {
                kernel.retain(|item, _| item.family() != Some(*family));
                let own = wanted.items.iter().filter(|(item, _)| item.family() == Some(*family));
                kernel.extend(own.map(|(item, value)| (item.clone(), value.clone())));
            }
            Op::Drop(family) => kernel.retain(|item, _| item.family() != Some(*family)),
            Op::Batch(_, ops) => carry_out(ops, wanted, kernel)?,
        }
    }
    Ok(())
}

fn forget_entries(item: &Item, kernel: &mut BTreeMap<Item, Value>) {
    kernel.retain(|it, _| match (item, it) {
        (Item::Vxlan(name), Item::Fdb { dev, .. } | Item::BridgeFdb { dev, .. }) => dev != name,
        (Item::BridgeMac(name), Item::Neighbour { dev, .. }) => dev != name,
        _ => true,
    });
}

#[derive(Default)]
struct Steps {
    puts: Vec<Op>,
    /// Removals and what is put, of each table.
    batches: BTreeMap<Family, (Vec<Op>, Vec<Op>)>,
    drops: Vec<Op>,
    removals: Vec<Op>,
}

impl Steps {
    fn batch(&mut self, family: Family) -> &mut (Vec<Op>, Vec<Op>) {
        self.batches.entry(family).or_default()
    }

    /// Orders the operations. Routes and neighbors are added before the nft elements that use them, and removed after
    /// them.
    fn in_order(mut self) -> Vec<Op> {
        self.removals.reverse();
        let batches = self
            .batches
            .into_iter()
            .map(|(family, (removals, puts))| Op::Batch(family, removals.into_iter().chain(puts).collect()));
        self.puts.into_iter().chain(batches).chain(self.drops).chain(self.removals).collect()
    }
}
