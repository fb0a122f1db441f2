//! Bounds the memory that request bodies may take together while handlers read them whole.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a body that are not counted: small requests never wait for large ones. 8192 connections hold 128 MiB of
/// these.
const FREE_BYTES: usize = 16 << 10;

/// The unit of counting; semaphores count less far than bytes go.
const UNIT_BYTES: usize = 4 << 10;

/// The share of a listener: sixteen bodies of the largest size, or thousands of common ones.
pub const LISTENER_BYTES: usize = 128 << 20;

/// The memory that the bodies of one listener's requests may take.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Budget {
        let units = bytes / UNIT_BYTES;
        Budget { free: Arc::new(Semaphore::new(units)), units }
    }

    /// The share of one body, of which nothing is taken yet.
    pub fn share(&self) -> Share {
        Share { budget: Some(self.clone()), permit: None, units: 0 }
    }
}

/// The part of a budget that one body takes. Given back when dropped.
#[derive(Debug, Default)]
pub struct Share {
    budget: Option<Budget>,
    permit: Option<OwnedSemaphorePermit>,
    units: usize,
}

impl Share {
    /// Takes what a body of `bytes` needs; waits while others have it. The caller bounds the wait. A body larger than the
    /// whole budget gets all of it.
    pub async fn grow_to(&mut self, bytes: usize) {
        let Some(budget) = &self.budget else { return };
        let wanted = bytes.saturating_sub(FREE_BYTES).div_ceil(UNIT_BYTES).min(budget.units);
        let more = wanted.saturating_sub(self.units);
        // Fails only for a closed semaphore, which this never is.
        let Ok(Ok(permit)) = (match u32::try_from(more) {
            Ok(0) => return,
            Ok(more) => Ok(budget.free.clone().acquire_many_owned(more).await),
            Err(error) => Err(error),
        }) else {
            return;
        };
        self.units = wanted;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
    }

    /// The bytes of the body; the share is given back with the last of them.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if self.permit.is_none() { bytes } else { Bytes::from_owner(Held { bytes, _share: self }) }
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_bodies_wait_for_each_other_and_small_ones_for_nobody() {
        let budget = Budget::new(1 << 20);
        let fits = async |share: &mut Share, bytes| timeout(Duration::from_secs(1), share.grow_to(bytes)).await.is_ok();
        let mut first = budget.share();
        assert!(fits(&mut first, 600 << 10).await);
        let mut second = budget.share();
        assert!(fits(&mut second, 300 << 10).await);
        assert!(!fits(&mut second, 600 << 10).await, "the first one has it");
        assert!(fits(&mut budget.share(), FREE_BYTES).await, "small");
        let held = first.hold(Bytes::from_static(b"x"));
        let part = held.slice(..1);
        drop(held);
        assert!(!fits(&mut second, 600 << 10).await, "a part is still held");
        drop(part);
        assert!(fits(&mut second, 600 << 10).await);
        drop(second);
        assert!(fits(&mut budget.share(), 1 << 30).await, "larger than everything");
        assert!(fits(&mut Share::default(), 1 << 30).await, "without a budget");
    }
}
