//! Requests for the leader: it is looked for, and looked for again, until it has answered.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, timeout, timeout_at};

use crate::StoreError;
use crate::message::{Answer, Call, Refusal};
use crate::raft::Member;
use crate::running::Running;

/// Interval at which a member that refuses to lead is asked again, if no other leader appears before.
pub(crate) const AGAIN: Duration = Duration::from_millis(50);

/// Maximum number of hints followed in a row, since two members may name each other. So many hints are followed at
/// once; two that name each other are not followed for ever.
const HINTS_MAX: usize = 3;

/// An answer of the leader.
pub(crate) struct Asked {
    pub(crate) answer: Answer,
    /// True if an earlier attempt may have been carried out.
    pub(crate) again: bool,
}

impl Running {
    /// Asks the current leader until it answers. `call` makes the call anew for each attempt: repeating it must be
    /// harmless.
    pub(crate) async fn ask(&self, call: impl Fn() -> Call, until: Instant) -> Result<Asked, StoreError> {
        let mut again = false;
        let (mut hint, mut hints): (Option<Member>, usize) = (None, 0);
        let mut why = "the leader did not answer in time".to_owned();
        loop {
            let before = self.leading_sign();
            if let Some(why) = self.stopped() {
                return Err(if again { StoreError::Lost { why } } else { StoreError::Stopped { why } });
            }
            let leader = hint.take().or_else(|| self.leader());
            if let Some(leader) = leader {
                let asked = tokio::select! {
                    asked = timeout_at(until, self.ask_member(&leader, call())) => asked.ok(),
                    () = self.leads_no_more(&leader) => Some(Err("the leader changed".to_owned())),
                };
                match asked {
                    // It is not known how far that got.
                    None => again = true,
                    Some(Ok(Answer::Refused(Refusal::NotLeader(other)))) => {
                        hints += 1;
                        hint = other.filter(|it| *it != leader && hints < HINTS_MAX);
                    }
                    Some(Ok(Answer::Refused(Refusal::Unknown(what)))) | Some(Err(what)) => {
                        again = true;
                        why = what;
                    }
                    Some(Ok(Answer::Refused(Refusal::UnknownManager(_)))) if again => {
                        // It was removed when this was asked before.
                        return Ok(Asked { answer: Answer::Done, again });
                    }
                    Some(Ok(Answer::Refused(refusal))) => return Err(refusal.into()),
                    Some(Ok(answer)) => return Ok(Asked { answer, again }),
                }
            }
            if Instant::now() >= until {
                return Err(if again { StoreError::Lost { why } } else { StoreError::NoLeader });
            }
            if hint.is_none() {
                hints = 0;
                // Who leads is not known, or does not want to: wait for news, but not for long.
                let _ = timeout(AGAIN, self.another_sign(before)).await;
            }
        }
    }

    async fn ask_member(&self, member: &Member, call: Call) -> Result<Answer, String> {
        if *member == self.me {
            return Ok(self.answer_leader(call).await);
        }
        let Some(address) = self.address(member) else {
            return Err(format!("the address of {} is not known", member.node()));
        };
        self.links
            .call(member.node(), &address.addr, Some(member), call, &[])
            .await
            .map_err(|error| format!("{}: {error}", member.node()))
    }

    /// Returns the metrics that may change the answer. Many others change, also by asking.
    fn leading_sign(&self) -> (Option<Member>, u64, ServerState) {
        let metrics = self.metrics();
        (self.heard.leader(&metrics).cloned(), metrics.current_term, metrics.state)
    }

    async fn another_sign(&self, before: (Option<Member>, u64, ServerState)) {
        let mut metrics = self.raft.metrics();
        while self.leading_sign() == before {
            if metrics.changed().await.is_err() {
                // The store has stopped; the caller looks at that next.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this member hears of another leader than `leader`, or of none.
    async fn leads_no_more(&self, leader: &Member) {
        let mut metrics = self.raft.metrics();
        let before = self.leader();
        loop {
            let now = self.leader();
            if now != before && now.as_ref() != Some(leader) {
                return;
            }
            // Silence is no news: look now and then.
            if let Ok(Err(_)) = timeout(AGAIN, metrics.changed()).await {
                return;
            }
        }
    }
}
