//! Election of the primary among several managers: the holder of the lock in the store.

use std::time::Duration;

use herder_kv::{Kv, Watch};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::patience::Patience;
use super::{Discovery, DiscoveryError, LEADER_KEY, Source, below};

/// Giving up the lead at the end takes no longer than this; else the lock runs out by itself.
const RESIGN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Role of this manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// This manager is the primary: it handles calls itself.
    Primary,
    /// Passes calls on to the primary, if one is known.
    Replica { primary: Option<String> },
}

/// This manager's part in the election. Dropping it resigns in the background.
#[derive(Debug)]
pub struct Election {
    role: watch::Receiver<Role>,
    stop: CancellationToken,
    candidate: JoinHandle<()>,
    follower: JoinHandle<()>,
}

impl Election {
    /// Stands for election as `advertise` (`host:port` that other managers reach), until `stop`. A primary that cannot
    /// renew its lock within `ttl` is a replica by then.
    pub fn start(
        discovery: &Discovery,
        advertise: &str,
        ttl: Duration,
        stop: &CancellationToken,
    ) -> Result<Election, DiscoveryError> {
        let Source::Kv { kv, prefix, .. } = &discovery.source else { return Err(DiscoveryError::NoElection) };
        let leader = below(prefix, LEADER_KEY);
        let stop = stop.child_token();
        let (sender, role) = watch::channel(Role::Replica { primary: None });
        let board = Board { advertise: advertise.to_owned(), sender };
        let (holding, held) = watch::channel(false);
        let candidate =
            Candidate { kv: kv.clone(), key: leader.clone(), advertise: advertise.to_owned(), ttl, holding };
        Ok(Election {
            role,
            candidate: tokio::spawn(candidate.run(stop.clone())),
            follower: tokio::spawn(follow(kv.watch_key(&leader), board, held, stop.clone())),
            stop,
        })
    }

    /// The role now and from now on.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Gives up the lead, so that another manager has it at once. Bounded.
    pub async fn resign(mut self) {
        self.stop.cancel();
        let both = async { tokio::join!(&mut self.candidate, &mut self.follower) };
        // Not in time: the lock runs out by itself.
        let _ = timeout(RESIGN_WAIT_MAX, both).await;
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Takes the lock whenever it is free.
struct Candidate {
    kv: Kv,
    key: String,
    advertise: String,
    ttl: Duration,
    holding: watch::Sender<bool>,
}

impl Candidate {
    async fn run(self, stop: CancellationToken) {
        let mut patience = Patience::new("standing for election in the store");
        loop {
            let attempt = self.kv.lock(&self.key, &self.advertise, self.ttl);
            let Some(result) = stop.run_until_cancelled(attempt).await else { return };
            let pause = match result {
                Ok(lock) => {
                    patience.worked();
                    self.holding.send_replace(true);
                    let lost = stop.run_until_cancelled(lock.lost()).await;
                    self.holding.send_replace(false);
                    if lost.is_none() {
                        return lock.release().await;
                    }
                    Duration::ZERO
                }
                Err(error) => patience.failed(&error),
            };
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

/// The observed leader, and whether it is this manager.
struct Board {
    advertise: String,
    sender: watch::Sender<Role>,
}

impl Board {
    /// The lock decides whether we lead, its key only who else does. Our own address there without the lock is that of an
    /// earlier run.
    fn show(&self, holding: bool, seen: Option<&String>) {
        let primary = seen.filter(|addr| **addr != self.advertise).cloned();
        let role = if holding { Role::Primary } else { Role::Replica { primary } };
        self.sender.send_if_modified(|known| {
            if *known == role {
                return false;
            }
            match &role {
                Role::Primary => info!(advertise = self.advertise, "this manager is the primary"),
                Role::Replica { primary: Some(primary) } => info!(primary, "this manager is a replica"),
                Role::Replica { primary: None } => info!("this manager is a replica; no primary is known"),
            }
            *known = role;
            true
        });
    }
}

async fn follow(mut watch: Watch, board: Board, mut holding: watch::Receiver<bool>, stop: CancellationToken) {
    let mut patience = Patience::new("following the primary in the store");
    let mut seen = None;
    loop {
        board.show(*holding.borrow_and_update(), seen.as_ref());
        let news = async {
            tokio::select! {
                news = watch.next() => Some(news),
                changed = holding.changed() => {
                    if changed.is_err() {
                        // The candidate has ended, and so does everything.
                        std::future::pending::<()>().await;
                    }
                    None
                }
            }
        };
        match stop.run_until_cancelled(news).await {
            None => return board.show(false, None),
            Some(None) => {}
            Some(Some(Ok(mut entries))) => {
                patience.worked();
                seen = entries.remove("").filter(|addr| !addr.is_empty());
            }
            // Who led before may still do; those who ask it will see.
            Some(Some(Err(error))) => {
                let pause = patience.failed(&error);
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = holding.changed() => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_decides_who_is_primary() {
        let check = |holding, seen: Option<&str>, expected: &str| {
            let (sender, role) = watch::channel(Role::Replica { primary: None });
            let board = Board { advertise: "me:1".to_owned(), sender };
            board.show(holding, seen.map(str::to_owned).as_ref());
            assert_eq!(format!("{:?}", *role.borrow()), expected);
        };
        check(true, None, "Primary");
        check(true, Some("you:1"), "Primary");
        check(false, Some("you:1"), "Replica { primary: Some(\"you:1\") }");
        check(false, Some("me:1"), "Replica { primary: None }");
        check(false, None, "Replica { primary: None }");
    }
}
