//! The freed addresses that a manager takes in while another one leads.

use herder_decide::swarm::allocate::Addresses;
use herder_store::{Leadership, Seen, Watch};
use tokio::sync::watch;

use crate::Settings;

/// Waits until the store leads, and returns its term. `None` if the store has ended.
///
/// Meanwhile it takes in the addresses that are freed under other leaders: they rest also after a change of leaders, since
/// their containers may still run on a lost node.
pub(super) async fn follow(
    leadership: &mut watch::Receiver<Leadership>,
    watch: &mut Watch,
    addresses: &mut Addresses,
    settings: &Settings,
) -> Option<u64> {
    loop {
        tokio::select! {
            leads = leadership.wait_for(|it| it.me) => return leads.ok().map(|it| it.term),
            seen = watch.next() => learn_freed(addresses, &seen, settings),
        }
    }
}

/// Takes in the addresses that were freed by writes of other managers. The tasks that wait for one are not this manager's yet.
pub(super) fn learn_freed(addresses: &mut Addresses, seen: &Seen, settings: &Settings) {
    let now = settings.clock.now();
    if seen.resync {
        addresses.recall(&seen.view, now);
    }
    addresses.see(&seen.written, now);
}
