//! Access to the channels of the node link, by the peer's certificate and this node's roster. Pure.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::{ManagerAddr, Role};

use super::Road;
use crate::subject::Subject;

/// The nodes of a swarm as one node knows them. Without one, it is in a pool without managers, where all nodes are
/// equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Id of the swarm; empty until it has let this node in.
    pub cluster: String,
    /// Nodes that are managers now, as the leader has said.
    pub managers: Vec<ManagerAddr>,
    /// Ids of nodes that were removed.
    pub removed: BTreeSet<String>,
    /// Nodes that were demoted or removed from the managers, with when, in milliseconds since 1970. Certificates of
    /// managers that are not newer do not count.
    pub demoted: BTreeMap<String, u64>,
}

/// Rights of a peer on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// All that the channel is for.
    Full,
    /// Rights of a worker of a swarm: reads the news of all engines, images included, and changes nothing here.
    Worker,
}

/// Reason why a peer may not open a channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("node {0} was removed from the swarm")]
    Removed(String),
    #[error("node {node} is of the swarm {theirs}, not of {ours}")]
    OtherSwarm { node: String, theirs: String, ours: String },
    #[error("node {0} is no manager of this swarm")]
    NoManager(String),
}

impl Roster {
    /// True if the certificate is one of a manager's that still counts.
    pub fn has_manager_certificate(&self, subject: &Subject) -> bool {
        subject.role == Some(Role::Manager)
            && subject.cluster == self.cluster
            && !self.removed.contains(&subject.node)
            && self.demoted.get(&subject.node).is_none_or(|demoted| subject.issued_ms > *demoted)
    }

    /// True if the peer manages this swarm: the leader has named it, and its certificate does not say otherwise. Those
    /// of earlier releases say nothing of roles.
    pub fn is_manager(&self, subject: &Subject) -> bool {
        let named = self.managers.iter().any(|it| it.id == subject.node);
        match subject.role {
            Some(Role::Manager) => named && self.has_manager_certificate(subject),
            None => named && !self.demoted.contains_key(&subject.node),
            Some(_) => false,
        }
    }

    /// True if the peer may speak for the managers: it is one, or has just become one.
    pub fn may_lead(&self, subject: &Subject) -> bool {
        self.check_member(subject).is_ok()
            && (self.cluster.is_empty() || self.is_manager(subject) || self.has_manager_certificate(subject))
    }

    fn check_member(&self, subject: &Subject) -> Result<(), Denied> {
        if self.removed.contains(&subject.node) {
            return Err(Denied::Removed(subject.node.clone()));
        }
        let differ = !self.cluster.is_empty() && !subject.cluster.is_empty() && self.cluster != subject.cluster;
        if differ {
            let (theirs, ours) = (subject.cluster.clone(), self.cluster.clone());
            return Err(Denied::OtherSwarm { node: subject.node.clone(), theirs, ours });
        }
        Ok(())
    }
}

/// Returns the rights of a peer with this certificate on a channel that it opens.
pub(super) fn incoming(roster: Option<&Roster>, subject: &Subject, road: Road) -> Result<Access, Denied> {
    let Some(roster) = roster else { return Ok(Access::Full) };
    roster.check_member(subject)?;
    // Each call of a swarm's channel is checked by the store that it is for: a node that has just been made a manager is
    // known there first.
    let full = matches!(road, Road::Join | Road::Renew | Road::Swarm) || roster.is_manager(subject);
    Ok(if full { Access::Full } else { Access::Worker })
}

/// Checks that this node may trust the dialled peer with the content of the channel.
pub(super) fn outgoing(roster: Option<&Roster>, subject: &Subject, road: Road) -> Result<(), Denied> {
    let Some(roster) = roster else { return Ok(()) };
    roster.check_member(subject)?;
    // Until the swarm has let this node in, the node knows its managers by gossip of its pool only.
    if road != Road::Swarm || roster.may_lead(subject) { Ok(()) } else { Err(Denied::NoManager(subject.node.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Roster {
        Roster {
            cluster: "c".into(),
            managers: ["m", "old-release", "demoted-again"]
                .map(|id| ManagerAddr { id: id.into(), ..<_>::default() })
                .into(),
            removed: ["gone".to_owned()].into(),
            demoted: [("was".to_owned(), 10), ("demoted-again".to_owned(), 10)].into(),
        }
    }

    /// `id role cluster issued`.
    fn subject(text: &str) -> Subject {
        let words: Vec<&str> = text.split(' ').collect();
        let role = match words[1] {
            "manager" => Some(Role::Manager),
            "worker" => Some(Role::Worker),
            _ => None,
        };
        let cluster = if words[2] == "-" { "" } else { words[2] };
        Subject { node: words[0].into(), cluster: cluster.into(), role, issued_ms: words[3].parse().unwrap() }
    }

    #[test]
    fn each_channel_is_open_for_those_that_it_is_for() {
        let roster = roster();
        let check = |text: &str, expected: &str| {
            let subject = subject(text);
            let say = |access: Result<Access, Denied>| match access {
                Ok(Access::Full) => "full".to_owned(),
                Ok(Access::Worker) => "worker".to_owned(),
                Err(denied) => denied.to_string(),
            };
            let of = [Road::Engine, Road::Calls, Road::Bus].map(|road| say(incoming(Some(&roster), &subject, road)));
            assert!(of.iter().all(|it| *it == of[0]), "{of:?}");
            let leads = match outgoing(Some(&roster), &subject, Road::Swarm) {
                Ok(()) => "leads".to_owned(),
                Err(denied) => denied.to_string(),
            };
            let all = if of[0] == leads { leads } else { format!("{}, {leads}", of[0]) };
            assert_eq!(all, expected, "{text}");
            // Without a swarm all nodes are equal.
            assert_eq!(incoming(None, &subject, Road::Engine), Ok(Access::Full));
        };
        check("m manager c 20", "full, leads");
        check("w worker c 20", "worker, node w is no manager of this swarm");
        // Its certificate is of the time before it was promoted, or it was forged from a worker's.
        check("m worker c 20", "worker, node m is no manager of this swarm");
        check("w none - 0", "worker, node w is no manager of this swarm");
        check("old-release none - 0", "full, leads");
        // Promoted a moment ago: other nodes trust it as the leader, and let it act here when the leader has named it.
        check("new manager c 20", "worker, leads");
        check("was manager c 9", "worker, node was is no manager of this swarm");
        check("was manager c 11", "worker, leads");
        check("demoted-again manager c 9", "worker, node demoted-again is no manager of this swarm");
        check("demoted-again none - 0", "worker, node demoted-again is no manager of this swarm");
        check("demoted-again manager c 11", "full, leads");
        check("gone worker c 20", "node gone was removed from the swarm");
        check("gone manager c 20", "node gone was removed from the swarm");
        check("m manager other 20", "node m is of the swarm other, not of c");
    }

    #[test]
    fn a_node_that_is_about_to_enter_a_swarm_listens_to_the_managers_of_its_pool() {
        let roster = Roster::default();
        assert_eq!(outgoing(Some(&roster), &subject("m none - 0"), Road::Swarm), Ok(()));
        assert_eq!(outgoing(Some(&roster), &subject("m manager c 1"), Road::Swarm), Ok(()));
    }
}
