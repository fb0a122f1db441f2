//! Following the members of a source. Runs until it is stopped; the last known set stays while the source is away.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use herder_kv::{Entries, Watch};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::patience::Patience;
use super::{DiscoveryError, Source, address, file};

/// Interval of looks for a change of a file, if the heartbeat is not shorter. A look costs one call into the kernel.
const LOOK_PERIOD_MAX: Duration = Duration::from_secs(1);

type Sender = watch::Sender<Option<BTreeSet<String>>>;

pub(super) fn start(
    source: Source,
    heartbeat: Duration,
    stop: CancellationToken,
) -> watch::Receiver<Option<BTreeSet<String>>> {
    let (sender, receiver) = watch::channel(None);
    match source {
        Source::Nodes(nodes) => {
            sender.send_replace(Some(nodes));
            // Held open until the stop, so that receivers see no end before it.
            tokio::spawn(async move {
                stop.cancelled().await;
                drop(sender);
            });
        }
        Source::File(path) => {
            tokio::spawn(async move { stop.run_until_cancelled(follow_file(path, heartbeat, sender)).await });
        }
        Source::Kv { kv, dir, .. } => {
            let watch = kv.watch_dir(&dir);
            tokio::spawn(async move { stop.run_until_cancelled(follow_store(watch, sender)).await });
        }
    }
    receiver
}

/// Reads the file when it looks different, and at every heartbeat.
async fn follow_file(path: PathBuf, heartbeat: Duration, sender: Sender) {
    let mut patience = Patience::new("reading the discovery file");
    let mut known = None;
    let mut read_at = Instant::now();
    loop {
        let stamp = file::stamp(&path);
        if stamp != known || stamp.is_none() || read_at.elapsed() >= heartbeat {
            (known, read_at) = (stamp, Instant::now());
            match file::read(&path) {
                Ok(members) => {
                    patience.worked();
                    send(&sender, members);
                }
                // Half written perhaps: it is looked at again soon, changed or not.
                Err(error) => {
                    known = None;
                    patience.failed(&error);
                }
            }
        }
        sleep(heartbeat.min(LOOK_PERIOD_MAX)).await;
    }
}

async fn follow_store(mut watch: Watch, sender: Sender) {
    let mut patience = Patience::new("following the members in the store");
    let mut bad = BTreeSet::new();
    loop {
        match watch.next().await {
            Ok(entries) => {
                patience.worked();
                send(&sender, members(entries, &mut bad));
            }
            Err(error) => sleep(patience.failed(&DiscoveryError::from(error))).await,
        }
    }
}

/// The addresses are in the values; an entry made by hand may have its address only as its name. What is no address is
/// left out, and said once.
fn members(entries: Entries, bad: &mut BTreeSet<String>) -> BTreeSet<String> {
    let mut members = BTreeSet::new();
    let mut still_bad = BTreeSet::new();
    for (name, value) in entries {
        let addr = if value.trim().is_empty() { name } else { value.trim().to_owned() };
        match address::check(&addr) {
            Ok(()) => {
                members.insert(addr);
            }
            Err(error) => {
                if !bad.contains(&addr) {
                    warn!(%error, "skipping an entry of the store");
                }
                still_bad.insert(addr);
            }
        }
    }
    *bad = still_bad;
    members
}

/// Stores the members and notifies receivers only if they changed.
fn send(sender: &Sender, members: BTreeSet<String>) {
    sender.send_if_modified(|known| {
        let news = known.as_ref() != Some(&members);
        *known = Some(members);
        news
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_no_addresses_are_left_out() {
        let pairs = [("a:1", "a:1"), ("by-hand:2", ""), ("node3", "c:3\n"), ("x", "no port"), ("y", "")];
        let entries = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut bad = BTreeSet::new();
        assert_eq!(Vec::from_iter(members(entries, &mut bad)), ["a:1", "by-hand:2", "c:3"]);
        assert_eq!(Vec::from_iter(bad), ["no port", "y"]);
    }
}
