//! The swarm at the door: every call about what is declared.
//!
//! The door reads a view, `decide::swarm` says what is to be written, and the managers write it. What a swarm is made of
//! (store, certificates, agents) is behind [`Swarm`].

pub(crate) mod backup;
mod body;
pub(crate) mod cluster;
mod events;
pub mod export;
pub(crate) mod files;
mod fold;
pub(crate) mod info;
pub(crate) mod ingress;
pub(crate) mod logs;
pub(crate) mod networks;
pub(crate) mod nodes;
pub(crate) mod services;
pub(crate) mod tasks;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use herder_decide::swarm::Denial;
use herder_decide::swarm::local;
use herder_model::swarm::{Change, Conflict, Kind, Time, View};
use http::StatusCode;
use serde_json::json;
use tokio::time::timeout;

use crate::{ApiError, Front, Reply, call};

pub(crate) use events::EventLog;
pub use events::follow;
pub use herder_node::swarm::{Committed, LogPiece, LogsOf, LogsWanted, NotWritten, Restored, Swarm};

/// Maximum time of silent managers. They give up by themselves after 20 s, as swarm mode's do, with a reason.
const MANAGERS_TIME_MAX: Duration = Duration::from_secs(25);

/// Time for which swarm mode waits for a node to join; it goes on trying afterwards.
const JOIN_TIME_MAX: Duration = Duration::from_secs(20);

/// Attempts at a change without a version of the client when the object was written meanwhile. Each time somebody else
/// got on, so that as many clients may write at the same time.
const ATTEMPTS_MAX: u32 = 64;

/// State of the door for the swarm.
#[derive(Debug, Default)]
pub(crate) struct SwarmDoor {
    swarm: OnceLock<Arc<dyn Swarm>>,
    pub(crate) told: EventLog,
}

impl Front {
    /// Gives the door a swarm. Only the first call counts. Without one, all calls about swarms are refused as on a node that is
    /// in none. [`follow`] makes events of what is written.
    pub fn set_swarm(&self, swarm: Arc<dyn Swarm>) {
        if self.swarm.swarm.set(swarm).is_err() {
            tracing::error!("a door is given a swarm twice; the second one is ignored");
        }
    }

    pub(crate) fn swarm(&self) -> Option<&Arc<dyn Swarm>> {
        self.swarm.swarm.get()
    }
}

/// `GET /herder/why/{task or service}`: why a task is where it is, or why it waits.
pub(crate) async fn why(front: &Arc<Front>, subject: String) -> Result<Reply, ApiError> {
    let swarm = front.swarm().ok_or_else(|| ApiError::not_found("this node can be in no swarm"))?;
    let view = read(swarm).await?;
    let why = herder_decide::swarm::why(&view, &subject, now());
    let why = why.ok_or_else(|| ApiError::not_found(format!("there is no task or service {subject}")))?;
    let node = |it: &herder_decide::swarm::NodeWhy| {
        let refused: Vec<&str> = it.refused.iter().map(|it| it.detail.as_str()).collect();
        json!({"ID": it.id, "Hostname": it.hostname, "Chosen": it.chosen, "Refused": refused, "Tasks": it.tasks})
    };
    let nodes: Vec<_> = why.nodes.iter().map(node).collect();
    let answer = json!({
        "Subject": why.subject, "Verdict": why.verdict, "Help": why.help, "Nodes": nodes, "text": why.to_string(),
    });
    Ok(call::json(StatusCode::OK, &answer))
}

/// Returns the present view.
pub(crate) async fn read(swarm: &Arc<dyn Swarm>) -> Result<View, ApiError> {
    local::needs_manager(&swarm.status())?;
    timeout(MANAGERS_TIME_MAX, swarm.read()).await.unwrap_or_else(|_| Err(too_slow()))
}

/// Decides on a view and writes that. If somebody else writes meanwhile, `again` decides anew.
async fn change(
    swarm: &Arc<dyn Swarm>,
    again: bool,
    decide: impl Fn(&View) -> Result<Vec<Change>, Denial>,
) -> Result<(), ApiError> {
    let mut attempts = 1;
    loop {
        let changes = decide(&read(swarm).await?)?;
        let written = timeout(MANAGERS_TIME_MAX, swarm.commit(changes)).await;
        match written.unwrap_or_else(|_| Err(too_slow().into())) {
            Ok(_) => return Ok(()),
            // Somebody else took the address or the port that was chosen: another one is.
            Err(NotWritten::Conflict(Conflict::Sequence { kind: Kind::Network, .. })) if attempts < ATTEMPTS_MAX => {
                attempts += 1;
            }
            Err(NotWritten::Conflict(_)) if again && attempts < ATTEMPTS_MAX => attempts += 1,
            Err(NotWritten::Conflict(conflict)) => return Err(Denial::from(conflict).into()),
            Err(NotWritten::Failed(error)) => return Err(error),
        }
    }
}

fn too_slow() -> ApiError {
    let seconds = MANAGERS_TIME_MAX.as_secs();
    let text = format!(
        "rpc error: code = DeadlineExceeded desc = the swarm's managers did not answer within {seconds} s; see `docker info` for \
         those that are known"
    );
    ApiError::internal(text)
}

fn now() -> Time {
    Time(u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default())
}

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Digits of an id, and of a token's secret: 128 bits.
const ID_DIGITS: usize = 25;

/// 25 digits of base 36, as swarm mode's ids and secrets are.
pub(crate) fn new_id() -> String {
    id_of(rand::random())
}

/// A number as an id.
pub(crate) fn id_of(mut rest: u128) -> String {
    let mut digits = [b'0'; ID_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[usize::try_from(rest % 36).unwrap_or_default()];
        rest /= 36;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ids_have_25_digits_and_differ() {
        let ids: BTreeSet<String> = (0..1000).map(|_| super::new_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(
            ids.iter().all(|id| id.len() == 25 && id.bytes().all(|it| it.is_ascii_digit() || it.is_ascii_lowercase()))
        );
    }
}
