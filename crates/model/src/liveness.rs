//! Liveness of a node by the gossip of its pool.

/// Liveness of a node, as another node sees it in gossip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    #[default]
    Alive,
    /// The node does not answer, and no other node has contradicted yet.
    Suspect,
    Dead,
    /// The node said goodbye: it was stopped, and may be started again.
    Left,
}

impl Liveness {
    /// True for a node that is there, as far as is known: a suspect may still answer.
    pub fn is_there(self) -> bool {
        matches!(self, Liveness::Alive | Liveness::Suspect)
    }
}
