//! A lock that is held: kept alive in the background, given back on drop, and telling when it is lost.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{OPERATION_TIME_MAX, RETRY_PAUSE, Trouble, Watch, consul, etcd, zookeeper};

/// Number of renewals of a lease within its time: one may be lost.
const RENEWALS_PER_TTL: u32 = 3;

/// A lock in a store. Dropping it gives it back, in the background.
#[derive(Debug)]
pub struct Lock {
    stop: CancellationToken,
    lost: CancellationToken,
    renewal: JoinHandle<()>,
}

/// Lock of a back end.
#[derive(Debug)]
pub(super) enum Held {
    Consul(consul::Held),
    Etcd(etcd::Held),
    Zookeeper(zookeeper::Held),
}

impl Held {
    /// Renews until that is no longer possible, and says why.
    async fn keep(&mut self) -> String {
        match self {
            Held::Consul(held) => held.keep().await,
            Held::Etcd(held) => held.keep().await,
            Held::Zookeeper(held) => held.keep().await,
        }
    }

    async fn release(self) -> Result<(), Trouble> {
        match self {
            Held::Consul(held) => held.release().await,
            Held::Etcd(held) => held.release().await,
            Held::Zookeeper(held) => held.release().await,
        }
    }
}

impl Lock {
    pub(super) fn new(held: Held, watch: Watch, value: &str) -> Lock {
        let (stop, lost) = (CancellationToken::new(), CancellationToken::new());
        let renewal = tokio::spawn(keep(held, watch, value.to_owned(), stop.clone(), lost.clone()));
        Lock { stop, lost, renewal }
    }

    /// Waits until the lock is no longer held: not renewed in time, or taken away in the store.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Gives the lock back, so that the next one in line has it at once. Bounded: a store that does not answer lets it
    /// run out by itself.
    pub async fn release(mut self) {
        self.stop.cancel();
        // Another limit than the one inside would only cut that one short.
        let _ = timeout(OPERATION_TIME_MAX * 2, &mut self.renewal).await;
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn keep(mut held: Held, watch: Watch, value: String, stop: CancellationToken, lost: CancellationToken) {
    let reason = tokio::select! {
        reason = held.keep() => Some(reason),
        () = taken(watch, &value) => Some("another client wrote or removed its key".to_owned()),
        () = stop.cancelled() => None,
    };
    lost.cancel();
    if let Some(reason) = reason {
        tracing::warn!(reason, "a lock in the store is lost");
    }
    if let Ok(Err(trouble)) = timeout(OPERATION_TIME_MAX, held.release()).await {
        tracing::debug!(?trouble, "a lock could not be given back and will run out");
    }
}

/// Ends when the key no longer has our value. A store that does not answer says nothing about that.
async fn taken(mut watch: Watch, value: &str) {
    loop {
        match watch.next().await {
            Ok(entries) if entries.get("").is_none_or(|there| there != value) => return,
            Ok(_) => {}
            Err(_) => sleep(RETRY_PAUSE * RENEWALS_PER_TTL).await,
        }
    }
}

/// Renews every third of `ttl`, counted from before the request that began it. `renew` says false if the store no longer
/// knows the lease. Returns why it ended: always before the store can give the lock to another.
pub(super) async fn renew_until_lost<F>(ttl: Duration, began: Instant, mut renew: impl FnMut() -> F) -> String
where
    F: Future<Output = Result<bool, Trouble>>,
{
    let mut valid_until = began + ttl;
    let mut pause = ttl / RENEWALS_PER_TTL;
    loop {
        sleep(pause).await;
        let started = Instant::now();
        match timeout_at(valid_until, renew()).await {
            Ok(Ok(true)) => {
                valid_until = started + ttl;
                pause = ttl / RENEWALS_PER_TTL;
            }
            Ok(Ok(false)) => return "the store let it run out".to_owned(),
            Ok(Err(_)) if Instant::now() + RETRY_PAUSE < valid_until => pause = RETRY_PAUSE,
            Ok(Err(_)) | Err(_) => return format!("the store did not renew it within {ttl:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Answers of the store, one letter per renewal: `y`es, `n`o longer known, `e`rror, `h`angs. Gives the reason for the
    /// end and the time of it in tenths of a second, for a lease of 9 s.
    async fn check(answers: &str, expected: &str) {
        let began = Instant::now();
        let answers = RefCell::new(answers.chars());
        let reason = renew_until_lost(Duration::from_secs(9), began, || {
            let answer = answers.borrow_mut().next();
            async move {
                match answer {
                    Some('y') => Ok(true),
                    Some('e') => Err(Trouble::Away("gone".to_owned())),
                    Some('h') | None => std::future::pending().await,
                    Some(_) => Ok(false),
                }
            }
        });
        let reason = reason.await;
        assert_eq!(format!("{reason} at {}", began.elapsed().as_millis() / 100), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_lost_when_the_store_says_so() {
        check("yyn", "the store let it run out at 90").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_lost_no_later_than_its_time_after_the_last_renewal() {
        check("yh", "the store did not renew it within 9s at 120").await;
        check("h", "the store did not renew it within 9s at 90").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_absence_of_the_store_does_not_lose_a_lease() {
        check("yeeeyn", "the store let it run out at 96").await;
    }
}
