//! Feature levels: what the releases of a swarm can read and write.
//!
//! Each node tells the level of its release. The level of the swarm is the least of its managers', and is in its record; the
//! leader raises it when all can (`decide::swarm::nodes::level`). Nothing is written that needs a higher one.

use std::fmt;

use super::{Change, Kind, Object};

/// The level of this release. A release that writes something that the one before cannot read has a higher one.
pub const LEVEL: u32 = 2;

/// A feature that the swarm has from some level on. Releases that report no level have level 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Unknown members, words and kinds are preserved, and with them objects without a type of their own.
    Resources,
    /// Overlay networks, and what is on them.
    Networks,
    /// Managers certify the nodes, and no other node has the key of the root.
    Certificates,
}

impl Feature {
    /// The lowest level at which it may be used.
    pub fn level(self) -> u32 {
        match self {
            Feature::Resources => 1,
            Feature::Networks | Feature::Certificates => 2,
        }
    }

    /// Returns the feature that a change needs, if some release lacks it.
    pub fn of(change: &Change) -> Option<Feature> {
        match change {
            Change::Put(Object::Resource(_))
            | Change::Remove(Kind::Resource(_), _)
            | Change::Expect(Kind::Resource(_), ..) => Some(Feature::Resources),
            Change::Put(Object::Network(_)) | Change::Remove(Kind::Network, _) | Change::Expect(Kind::Network, ..) => {
                Some(Feature::Networks)
            }
            Change::Put(
                Object::Cluster(_)
                | Object::Node(_)
                | Object::Service(_)
                | Object::Task(_)
                | Object::Secret(_)
                | Object::Config(_),
            )
            | Change::PutSpec(_)
            | Change::Remove(..)
            | Change::Expect(..) => None,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::Resources => "stored resources",
            Feature::Networks => "overlay networks",
            Feature::Certificates => "certificates by managers",
        })
    }
}
