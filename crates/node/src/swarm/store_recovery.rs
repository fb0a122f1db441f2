//! A manager whose store is not as it should be: it says so, and comes back when it can.
//!
//! What cannot be trusted is never started with. While other managers lead, a damaged store is set aside and its content comes
//! from them anew; without them a person has to decide. A disk that was full is tried again.

use std::sync::Arc;
use std::time::Duration;

use herder_store::StoreError;
use tokio::time::sleep;

use super::host::Host;
use super::kept::set_aside;

/// Pause between two attempts to open a store whose disk failed.
const OPEN_REST: Duration = Duration::from_secs(3);

impl Host {
    /// Logs why this manager's store is not open.
    pub(super) fn cannot_open(&self, error: &StoreError) {
        let mut known = self.known.lock();
        if matches!(error, StoreError::Locked) {
            // Also where it was open before its disk failed: nobody but a person has the key.
            (known.locked, known.broken) = (true, String::new());
            return;
        }
        let text = whole(error);
        if known.broken != text {
            tracing::error!(error = text, "this manager cannot open its store");
        }
        known.broken = text;
        drop(known);
        self.damaged.send_replace(matches!(error, StoreError::Damaged { .. }));
    }

    /// Opens again what has stopped, or could not be opened.
    pub(super) async fn mend(self: Arc<Host>) {
        let (mut managing, mut damaged) = (self.managing.subscribe(), self.damaged.subscribe());
        loop {
            damaged.mark_unchanged();
            let open = managing.borrow_and_update().clone();
            match open {
                Some(open) => {
                    tokio::select! {
                        // Who closes a store says so first.
                        biased;
                        _ = managing.changed() => {}
                        why = open.store.ended() => self.stopped(&why).await,
                    }
                }
                None if self.waits_for_disk() => {
                    sleep(OPEN_REST).await;
                    self.try_again().await;
                }
                // Whoever cannot open a store tells whether it is damaged.
                None => {
                    tokio::select! {
                        _ = managing.changed() => {}
                        _ = damaged.changed() => {}
                    }
                }
            }
        }
    }

    async fn stopped(&self, why: &str) {
        tracing::error!(why, "the store of this manager has stopped; it is opened again");
        self.known.lock().broken = format!("the store of this manager has stopped: {why}");
        self.close_store().await;
    }

    /// True if this is a manager whose store is whole, and could not be opened.
    fn waits_for_disk(&self) -> bool {
        let manages = self.kept.borrow().as_ref().is_some_and(|it| it.manages);
        manages && !self.known.lock().broken.is_empty() && !*self.damaged.borrow()
    }

    async fn try_again(&self) {
        if self.waits_for_disk()
            && let Err(error) = self.open_store(None).await
        {
            self.cannot_open(&error);
        }
    }

    /// The leader knows this node as a manager: what a damaged store had comes from the others.
    pub(super) async fn begin_empty(&self) {
        if !self.damaged.send_replace(false) {
            return;
        }
        match set_aside(&self.state) {
            Ok(place) => {
                let place = place.display();
                tracing::warn!(%place, "moved the damaged store away; the other managers send their state");
            }
            Err(error) => {
                tracing::error!(%error, "cannot move the damaged store away");
                return;
            }
        }
        if let Err(error) = self.open_store(None).await {
            self.cannot_open(&error);
        }
    }
}

/// Returns the error with its causes.
fn whole(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
