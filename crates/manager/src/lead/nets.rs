//! Decisions about overlay networks, and the messages to nodes about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_decide::swarm::{Proposal, allocate, attachments, networks};
use herder_model::swarm::{Attachment, Change, Feature, NetNews, NetUpdate, NetworkRecord, Time, ToNode, View};

use super::Lead;
use super::tell::Session;

/// Number of nodes that get all of their networks in one step; the others wait for the next one.
const WHOLE_MAX: usize = 256;

impl Lead<'_> {
    /// Gives a service the virtual IPs and ports that it has not yet.
    pub(super) fn complete(&mut self, proposal: &mut Proposal, service: &str) {
        let record = proposal.view().services.get(service).cloned();
        let completed = record.and_then(|it| self.addresses.complete(proposal.view(), &it));
        self.add(proposal, completed.map(Change::from).into_iter().collect());
    }

    /// Creates the ingress network and allocates node addresses on it.
    pub(super) fn keep_networks(&mut self, proposal: &mut Proposal) {
        if !std::mem::take(&mut self.networks) {
            return;
        }
        if proposal.view().level() < Feature::Networks.level() {
            return;
        }
        if let Some(cluster) = proposal.view().cluster.clone() {
            let first = allocate::first_ingress(proposal.view(), &cluster, (self.settings.new_id)());
            self.add(proposal, first);
        }
        let changes = allocate::node_addresses(proposal.view(), self.addresses);
        self.networks = !self.add(proposal, changes);
    }

    /// Writes down which plain containers of a node are to be on networks.
    pub(super) fn attach(
        &mut self,
        node: &str,
        wanted: &BTreeMap<String, Option<Attachment>>,
        proposal: &mut Proposal,
        now: Time,
    ) {
        if proposal.view().level() < Feature::Networks.level() {
            return;
        }
        for (id, wanted) in wanted {
            let change = match wanted {
                Some(wanted) => attachments::attach(proposal.view(), self.addresses, node, id, wanted, now),
                None => attachments::release(proposal.view(), node, id),
            };
            self.add(proposal, change.into_iter().collect());
        }
    }

    /// Sends network updates to nodes, with the versions that all nodes have applied.
    pub(super) fn tell_networks(&mut self, view: &View) {
        let mut updates = self.nets.advance(view);
        let sessions = &self.sessions;
        for settled in self.nets.settle(|node| sessions.contains_key(node)) {
            // A change of this moment says it as well.
            updates.entry(settled.network_id.clone()).or_insert(settled);
        }
        let records = std::mem::take(&mut self.net_records);
        if updates.is_empty() && self.net_nodes.is_empty() && !self.net_whole && records.is_empty() {
            return;
        }
        let visible = |id: &String| view.networks.get(&**id).filter(|it| !it.is_removing()).cloned();
        let changed: Vec<Arc<NetworkRecord>> = records.iter().filter_map(visible).collect();
        let removed: Vec<String> = records.into_iter().filter(|id| visible(id).is_none()).collect();
        self.net_whole = false;
        let mut whole = 0;
        let mut deaf = Vec::new();
        for (node, session) in &mut self.sessions {
            if session.nets.is_none() {
                if whole == WHOLE_MAX || !session.is_welcome {
                    self.net_whole = true;
                    continue;
                }
                whole += 1;
            } else if updates.is_empty() && changed.is_empty() && removed.is_empty() && !self.net_nodes.contains(node) {
                continue;
            }
            self.net_nodes.remove(node);
            let networks = self.nets.of_node(view, node);
            let mut news = news(session, &updates, networks.iter().copied(), |id| self.nets.whole(id));
            if news.whole {
                news.known = networks::visible(view).cloned().collect();
            } else {
                (news.known, news.removed) = (changed.clone(), removed.clone());
            }
            if news != NetNews::default() && !session.say.say(&ToNode::Networks(Box::new(news))) {
                deaf.push(node.clone());
            }
        }
        for node in deaf {
            tracing::warn!(node, "closing session: the node does not take messages");
            self.close(&node);
        }
    }
}

/// Returns the message for a node about these networks.
fn news<'n>(
    session: &mut Session,
    updates: &BTreeMap<String, NetUpdate>,
    networks: impl Iterator<Item = &'n str>,
    whole: impl Fn(&str) -> Option<NetUpdate>,
) -> NetNews {
    let is_whole = session.nets.is_none();
    let mut known = session.nets.take().unwrap_or_default();
    let mut news = NetNews { whole: is_whole, ..NetNews::default() };
    let mut told = BTreeMap::new();
    for id in networks {
        let update = match (known.remove(id), updates.get(id)) {
            (Some(version), Some(update)) if update.applies_to == version => Some(update.clone()),
            (Some(version), None) => {
                told.insert(id.to_owned(), version);
                None
            }
            _ => whole(id),
        };
        if let Some(update) = update {
            told.insert(id.to_owned(), update.results_in);
            news.updates.push(update);
        }
    }
    news.gone = known.into_keys().collect();
    session.nets = Some(told);
    news
}
