//! Naming of objects of one node in lists.

use std::borrow::Cow;

use herder_model::Node;

/// The form of names in lists. A name leads to its thing in every form, whatever lists show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// Docker's form, so that tools that compare names find them. A container is `/web` and also `/node/web`, a volume
    /// is its bare name, once for all nodes, and a network is its bare name unless several nodes have networks of it.
    #[default]
    Docker,
    /// Classic Swarm's form: `/node/web`, `node/volume`, `node/network`.
    Classic,
}

impl Naming {
    /// The name of a thing that is on one node only.
    pub fn on_node<'n>(self, node: &Node, name: &'n str) -> Cow<'n, str> {
        match self {
            Naming::Docker => name.into(),
            Naming::Classic => format!("{}/{name}", node.name).into(),
        }
    }
}
