//! Judgement of nodes: which are down, which have ended their fenced tasks, and whose tasks are given up.

use herder_decide::swarm::members::{self, HeartbeatScale, Signs};
use herder_decide::swarm::{Proposal, give_up};
use herder_model::swarm::{SwarmNodeState, Time, View};
use tokio::time::Instant;

use super::Lead;
use super::tell::Session;

/// Message of a node that is down because it is silent, in swarm mode's words.
const SILENT: &str = "heartbeat failure";

impl Lead<'_> {
    /// Returns the node's last heartbeat, its heartbeat scale, and the marker of that heartbeat if a session is open.
    pub(super) fn heard(&self, node: &str) -> (Instant, HeartbeatScale, Option<u64>) {
        let (at, scale) = self.heard_at.get(node).copied().unwrap_or((self.began, self.scale));
        let session = self.sessions.get(node);
        let last_heartbeat = session.and_then(|it| it.last_heartbeat.heard());
        let at = at.max(self.began).max(last_heartbeat.map_or(self.began, |(at, _)| at));
        (at, scale.max(self.scale).max(session.map_or(scale, |it| it.scale)), last_heartbeat.map(|(_, sign)| sign))
    }

    /// Marks silent nodes as down.
    pub(super) fn judge(&mut self, proposal: &mut Proposal, now: Time) {
        // That a node is down may have been written late, when it had come again: it comes once more, and says that it is there.
        let is_down =
            |id: &String| proposal.view().nodes.get(id).is_some_and(|it| it.node.status.state == SwarmNodeState::Down);
        let contradicts = |(id, session): &(&String, &Session)| session.engine_lost.is_none() && is_down(id);
        let contradicting: Vec<String> = self.sessions.iter().filter(contradicts).map(|(id, _)| id.clone()).collect();
        for id in contradicting {
            self.close(&id);
        }
        let gossip = self.settings.gossip.borrow().clone();
        let view = proposal.view().clone();
        for record in view.nodes.values().filter(|it| !it.fenced_off) {
            let (id, was_down) = (&record.node.id, record.node.status.state == SwarmNodeState::Down);
            let (heard_at, scale, sign) = self.heard(id);
            let gossip = gossip.get(id).copied().unwrap_or_default();
            let signs = Signs { silent: heard_at.elapsed(), gossip, scale };
            let engine_lost = self.sessions.get(id).and_then(|it| it.engine_lost).filter(|_| was_down);
            if let Some(lost) = engine_lost {
                // Its lease has not been renewed since it told that; the watchdog beside it ends what is fenced.
                if members::is_fenced_off(Signs { silent: lost.elapsed(), ..signs }) {
                    let message = &*record.node.status.message;
                    self.add(proposal, members::goes(proposal.view(), id, message, true, now).into_iter().collect());
                    self.learn_lost(proposal.view(), id);
                }
                continue;
            }
            let fenced_off = members::is_fenced_off(signs);
            if was_down && fenced_off || !was_down && members::is_down(signs) {
                // It may have been heard, and answered, this moment.
                if let (Some(sign), Some(session)) = (sign, self.sessions.get(id))
                    && !session.last_heartbeat.close(sign)
                {
                    continue;
                }
                let hostname = &record.node.description.hostname;
                match was_down {
                    true => tracing::debug!(node = id, hostname, "a node that is down has ended its fenced tasks"),
                    false => tracing::warn!(node = id, hostname, ?signs, "marked a node as down"),
                }
                let message = if was_down { &*record.node.status.message } else { SILENT };
                self.heard_at.insert(id.clone(), (heard_at, scale));
                self.add(proposal, members::goes(proposal.view(), id, message, fenced_off, now).into_iter().collect());
                self.sessions.remove(id);
                self.learn_lost(proposal.view(), id);
            }
        }
        // Before their tasks are looked at: what is counted is when their turn came, not when it should have.
        for record in give_up(proposal.view(), now) {
            let id = record.node.id.clone();
            self.add(proposal, vec![record.into()]);
            self.learn_lost(proposal.view(), &id);
        }
    }

    /// Queues the services with tasks on a lost node, so that this step replaces those tasks.
    pub(super) fn learn_lost(&mut self, view: &View, id: &str) {
        self.work_queue.add_all(view.tasks_of_node(id).map(|it| it.task.service_id.clone()));
    }
}
