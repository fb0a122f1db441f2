//! Refusal of a container that no node can take: the original's text first, then every node with its reason.

use std::fmt;
use std::sync::Arc;

use herder_model::Node;

use super::filter::{Asked, Filter};
use super::has_room;

/// Nodes that are named with their reasons; a message for people has an end.
const NODES_NAMED_MAX: usize = 20;

/// No node can take the container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unplaceable {
    /// The original's text.
    pub summary: String,
    /// Node name → why it was refused.
    pub reasons: Vec<(String, String)>,
}

impl fmt::Display for Unplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        for (node, reason) in self.reasons.iter().take(NODES_NAMED_MAX) {
            write!(f, "\n{node}: {reason}")?;
        }
        match self.reasons.len().saturating_sub(NODES_NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more nodes"),
        }
    }
}

pub(super) fn explain(filters: &[Filter], asked: &Asked<'_>, nodes: &[Arc<Node>]) -> Unplaceable {
    let mut left: Vec<&Arc<Node>> = nodes.iter().collect();
    let mut conditions: Vec<String> = Vec::new();
    let mut failing = None;
    for filter in filters {
        conditions.extend(filter.conditions(asked));
        left.retain(|node| filter.accepts(asked, node));
        if left.is_empty() {
            failing = Some(*filter);
            break;
        }
    }
    let summary = match failing {
        _ if nodes.is_empty() => "No nodes available in the cluster".to_owned(),
        Some(Filter::Health) => "No healthy node available in the cluster".to_owned(),
        Some(_) => {
            let lines: String = conditions.iter().map(|line| format!("\n[{line}]")).collect();
            format!("Unable to find a node that satisfies the following conditions {lines}")
        }
        None => "no resources available to schedule container".to_owned(),
    };
    let reasons = nodes.iter().map(|node| (title(node), reason(filters, asked, node))).collect();
    Unplaceable { summary, reasons }
}

fn title(node: &Node) -> String {
    if node.name.is_empty() { node.addr.clone() } else { node.name.clone() }
}

fn reason(filters: &[Filter], asked: &Asked<'_>, node: &Node) -> String {
    if let Some(filter) = filters.iter().find(|filter| !filter.accepts(asked, node)) {
        return format!("{filter}: {}", filter.reason(asked, node));
    }
    let wants = &asked.request.container.reserved;
    debug_assert!(!has_room(wants, node), "a node that fits is not refused");
    let (cpus, mib) = (|nano: i64| nano as f64 / 1e9, |bytes: i64| bytes >> 20);
    if node.used.memory_bytes.saturating_add(wants.memory_bytes) > node.total.memory_bytes && wants.memory_bytes > 0 {
        format!(
            "resources: asks for {} MiB of memory, {} of {} MiB are reserved",
            mib(wants.memory_bytes),
            mib(node.used.memory_bytes),
            mib(node.total.memory_bytes)
        )
    } else {
        format!(
            "resources: asks for {} CPUs, {} of {} are reserved",
            cpus(wants.nano_cpus),
            cpus(node.used.nano_cpus),
            cpus(node.total.nano_cpus)
        )
    }
}
