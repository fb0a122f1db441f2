//! Membership of managers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use herder_model::swarm::Reachability;
use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Instant};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::message::{Answer, Call, Refusal};
use crate::raft::{Address, Member, Metrics};
use crate::running::{Running, refusal};

/// A manager that is asked who it is answers within this, or is not there.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// A new manager has as long to get all that was written so far. The rest of the time of a request is for the change itself.
const CATCH_UP_WAIT: Duration = Duration::from_secs(15);
/// Maximum wait for the next leader when this one steps down.
const STEP_DOWN_WAIT: Duration = Duration::from_secs(2);

/// A manager, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerSeen {
    /// Id of the member's node.
    pub id: String,
    pub addr: String,
    pub leader: bool,
    pub reachability: Reachability,
}

impl Running {
    /// Returns the managers as the leader sees them.
    pub(crate) fn managers_seen(&self) -> Result<Vec<ManagerSeen>, Refusal> {
        let metrics = self.metrics();
        if metrics.heartbeat.is_none() {
            return Err(Refusal::NotLeader(metrics.current_leader));
        }
        Ok(self.seen(&metrics))
    }

    /// Returns the members without a leader: known members, but not their liveness.
    pub(crate) fn managers_known(&self) -> Vec<ManagerSeen> {
        self.seen(&self.metrics())
    }

    fn seen(&self, metrics: &Metrics) -> Vec<ManagerSeen> {
        let reached = self.reached(metrics);
        let voters = metrics.membership_config.voter_ids();
        let seen = voters.map(|voter| ManagerSeen {
            id: voter.node().to_owned(),
            addr: metrics.membership_config.get_node(&voter).map(|it| it.addr.clone()).unwrap_or_default(),
            leader: metrics.current_leader.as_ref() == Some(&voter),
            reachability: match metrics.heartbeat {
                None if voter != self.me => Reachability::Unknown,
                _ if reached.contains(&voter) => Reachability::Reachable,
                _ => Reachability::Unreachable,
            },
        });
        seen.collect()
    }

    /// Members that answered the leader lately, and itself.
    fn reached(&self, metrics: &Metrics) -> BTreeSet<Member> {
        let lately = self.patience * 2;
        let heard = metrics.heartbeat.iter().flatten();
        let heard = heard.filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() < lately));
        heard.map(|(member, _)| member.clone()).chain([self.me.clone()]).collect()
    }

    /// The newest metrics, if this one leads.
    pub(crate) fn leading(&self) -> Result<Metrics, Refusal> {
        let metrics = self.metrics();
        if metrics.heartbeat.is_some() { Ok(metrics) } else { Err(Refusal::NotLeader(metrics.current_leader)) }
    }

    /// Adds a manager; called on the leader. An earlier folder of the node ceases to be a member.
    pub(crate) async fn add(&self, node: &str, addr: &str) -> Result<(), Refusal> {
        let metrics = self.leading()?;
        let voters: BTreeSet<Member> = metrics.membership_config.voter_ids().collect();
        let known: BTreeSet<Member> = metrics.membership_config.nodes().map(|(member, _)| member.clone()).collect();
        let member = self.greet(node, addr, &known).await?;
        let address = Address { addr: addr.to_owned() };
        // A leader that was lost in the middle of a change leaves it to the next one to end it.
        let between = metrics.membership_config.membership().get_joint_config().len() > 1;
        let whole = !between && !known.iter().any(|it| it.node() == node && *it != member);
        let moved = metrics.membership_config.get_node(&member) != Some(&address);
        let change = ChangeMembers::SetNodes(BTreeMap::from([(member.clone(), address.clone())]));
        match (voters.contains(&member), moved) {
            (true, true) => self.change(change).await?,
            (true, false) => {}
            (false, _) => self.catch_up(&member, address).await?,
        }
        if voters.contains(&member) && whole {
            return Ok(());
        }
        let before = known.into_iter().filter(|it| it.node() == node && *it != member);
        let before: BTreeSet<Member> = before.collect();
        let (old_voters, old_others) = before.into_iter().partition(|it| voters.contains(it));
        self.change(ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(BTreeSet::from([member])),
            ChangeMembers::RemoveVoters(old_voters),
            ChangeMembers::RemoveNodes(old_others),
        ]))
        .await
    }

    /// Gives a member that does not vote yet everything that was written.
    async fn catch_up(&self, member: &Member, address: Address) -> Result<(), Refusal> {
        let (node, addr) = (member.node().to_owned(), address.addr.clone());
        match timeout(CATCH_UP_WAIT, self.raft.add_learner(member.clone(), address, true)).await {
            Ok(added) => added.map(drop).map_err(refusal),
            Err(_) => {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([member.clone()]))).await?;
                let why = format!("it did not get everything within {CATCH_UP_WAIT:?}");
                Err(Refusal::Unreachable { node, addr, why })
            }
        }
    }

    /// Asks a node who it is.
    async fn greet(&self, node: &str, addr: &str, known: &BTreeSet<Member>) -> Result<Member, Refusal> {
        let fails = |why: String| Refusal::Unreachable { node: node.to_owned(), addr: addr.to_owned(), why };
        if node == self.me.node() {
            return Ok(self.me.clone());
        }
        let answer = timeout(HELLO_WAIT, self.links.call(node, addr, None, Call::Hello, &[])).await;
        match answer.map_err(|_| fails(format!("nothing came within {HELLO_WAIT:?}")))? {
            Ok(Answer::Hello { member, .. }) if member.node() != node => {
                Err(fails(format!("{} is there instead", member.node())))
            }
            // One that has other managers only is of another swarm.
            Ok(Answer::Hello { managers, .. })
                if !managers.is_empty() && !managers.iter().any(|it| known.contains(it)) =>
            {
                Err(Refusal::AlreadyBegun(node.to_owned()))
            }
            Ok(Answer::Hello { member, .. }) => Ok(member),
            Ok(Answer::Refused(refusal)) => Err(fails(format!("it refused: {refusal:?}"))),
            Ok(_) => Err(fails("its answer is malformed".to_owned())),
            Err(error) => Err(fails(error.to_string())),
        }
    }

    /// Removes a manager; called on the leader.
    pub(crate) async fn remove(&self, node: &str) -> Result<(), Refusal> {
        let metrics = self.leading()?;
        let voters: BTreeSet<Member> = metrics.membership_config.voter_ids().collect();
        let (gone, stay): (BTreeSet<Member>, BTreeSet<Member>) = voters.into_iter().partition(|it| it.node() == node);
        if gone.is_empty() {
            return Err(Refusal::UnknownManager(node.to_owned()));
        }
        let reached = self.reached(&metrics);
        if stay.intersection(&reached).count() < stay.len() / 2 + 1 {
            return Err(Refusal::QuorumLoss);
        }
        if gone.contains(&self.me) {
            // The others go on without a pause, and the next leader does it.
            self.step_down().await?;
            return Err(Refusal::NotLeader(self.leader()));
        }
        self.change(ChangeMembers::RemoveVoters(gone)).await
    }

    /// Lets the one lead that has most of the log, of those that are there.
    pub(crate) async fn step_down(&self) -> Result<(), Refusal> {
        self.leading()?;
        let done = async {
            let next = self.successor().await?;
            // From the moment of the transfer another one may lead.
            let _retiring = self.heard.retire();
            let _ = self.leads.subscribe().wait_for(|it| !it.me).await;
            let failed = |fatal: openraft::errors::Fatal<_>| Refusal::Unknown(fatal.to_string());
            self.raft.trigger().transfer_leader(next).await.map_err(failed)?;
            let mut metrics = self.raft.metrics();
            while metrics.borrow_watched().current_leader.as_ref().is_none_or(|leader| *leader == self.me) {
                metrics.changed().await.map_err(|_| Refusal::Unknown("the store has stopped".to_owned()))?;
            }
            Ok(())
        };
        timeout(STEP_DOWN_WAIT, done).await.unwrap_or(Err(Refusal::NobodyElse))
    }

    /// Waits for another manager that answers: a new one, or those of a new leader, have not yet.
    async fn successor(&self) -> Result<Member, Refusal> {
        let mut changes = self.raft.metrics();
        loop {
            let metrics = self.leading()?;
            let mut voters: Vec<Member> = metrics.membership_config.voter_ids().collect();
            voters.retain(|it| *it != self.me);
            if voters.is_empty() {
                return Err(Refusal::NobodyElse);
            }
            let reached = self.reached(&metrics);
            let has = |member: &Member| metrics.replication.as_ref().and_then(|all| all.get(member).cloned()).flatten();
            if let Some(next) = voters.into_iter().filter(|it| reached.contains(it)).max_by_key(has) {
                return Ok(next);
            }
            changes.changed().await.map_err(|_| Refusal::Unknown("the store has stopped".to_owned()))?;
        }
    }

    async fn change(&self, change: ChangeMembers<Member, Address>) -> Result<(), Refusal> {
        self.raft.change_membership(change, false).await.map(drop).map_err(refusal)
    }
}
