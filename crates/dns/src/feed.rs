//! Messages from herder to the DNS server: JSON, one message a line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herder_decide::net::{Host, States};
use herder_model::swarm::{NetChanges, NetState};
use herder_parts::aside;
use serde::{Deserialize, Serialize};

/// Level of feeds from which servers take changes of networks.
pub const CHANGES: u32 = 1;

/// A change of what the server knows. Members of later releases are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feed {
    /// Number that the answer repeats.
    pub number: u64,
    /// Id of this node.
    pub node: String,
    /// Networks that are new or have changed, by id.
    pub put: BTreeMap<String, Arc<NetState>>,
    /// Changes of networks that the server knows, by id. Only for servers of level [`CHANGES`].
    pub changes: BTreeMap<String, NetChanges>,
    /// Networks that are gone.
    pub removed: BTreeSet<String>,
    /// Endpoints of this node whose containers have ended.
    pub ended: BTreeSet<String>,
    /// The server shall end: another one takes its place.
    pub end: bool,
}

impl aside::Feed for Feed {
    fn number_mut(&mut self) -> &mut u64 {
        &mut self.number
    }
}

/// Everything that the server knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    pub(crate) node: String,
    pub(crate) states: States,
    pub(crate) ended: BTreeSet<String>,
}

impl Knowledge {
    pub(crate) fn take(&mut self, feed: Feed) {
        self.node = feed.node;
        self.ended = feed.ended;
        self.states.retain(|id, _| !feed.removed.contains(id));
        self.states.extend(feed.put);
        for (id, changes) in &feed.changes {
            if let Some(state) = self.states.get_mut(id) {
                Arc::make_mut(state).apply(changes);
            }
        }
    }

    /// A feed that makes another server know the same.
    pub(crate) fn as_feed(&self) -> Feed {
        Feed { node: self.node.clone(), put: self.states.clone(), ended: self.ended.clone(), ..Feed::default() }
    }

    pub(crate) fn host(&self) -> Host {
        Host { node: self.node.clone(), ended: self.ended.clone(), ..Host::default() }
    }

    /// Gateway addresses to listen on, each with its network.
    pub(crate) fn gateways(&self) -> BTreeMap<IpAddr, String> {
        let users = self.states.iter().filter(|(_, state)| !state.facts.ingress);
        users.flat_map(|(id, state)| state.facts.subnets.iter().map(|it| (it.gateway, id.clone()))).collect()
    }
}
