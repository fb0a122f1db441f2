//! Limits on handshakes that are under way, and on the log lines about those that fail.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Handshakes under way in all. Each takes some 30 kB and ends after 3 s.
const ALL_MAX: usize = 1024;

/// Handshakes under way from one source. A node opens at most a handful at the same time; one host of a hundred nodes
/// behind one address still gets in.
const SOURCE_MAX: usize = 64;

/// The network that one host of IPv6 may choose addresses from, in bits.
const IPV6_HOST_BITS: u32 = 64;

/// Minimum interval between two log lines about one kind of event.
const LINE_REST: Duration = Duration::from_secs(10);

/// Counts handshakes that are under way.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A handshake that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    of: Arc<Handshakes>,
    source: IpAddr,
}

impl Handshakes {
    /// Begins a handshake; `None` if there are too many, in all or of this source.
    pub(super) fn begin(self: &Arc<Self>, from: IpAddr) -> Option<Handshake> {
        let source = source(from);
        let mut under_way = self.under_way.lock();
        let of_source = under_way.by_source.get(&source).copied().unwrap_or_default();
        if under_way.all >= ALL_MAX || of_source >= SOURCE_MAX {
            return None;
        }
        under_way.all += 1;
        under_way.by_source.insert(source, of_source + 1);
        Some(Handshake { of: self.clone(), source })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut under_way = self.of.under_way.lock();
        under_way.all -= 1;
        if let Some(count) = under_way.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                under_way.by_source.remove(&self.source);
            }
        }
    }
}

/// Addresses of one host count as one.
fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> (128 - IPV6_HOST_BITS) << (128 - IPV6_HOST_BITS);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

/// Decides which events of one kind get a log line: the first one, then at most one each ten seconds.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogLimit {
    /// If a line is due, returns the number of events since the previous one.
    pub(super) fn due(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let (last, silent) = &mut *state;
        if last.is_some_and(|it| it.elapsed() < LINE_REST) {
            *silent += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_the_place_of_others() {
        let handshakes = Arc::new(Handshakes::default());
        let begin = |text: &str| handshakes.begin(text.parse().expect("an address"));
        let taken: Vec<_> = (0..SOURCE_MAX).map(|_| begin("10.0.0.1").expect("room")).collect();
        assert!(begin("10.0.0.1").is_none() && begin("::ffff:10.0.0.1").is_none());
        assert!(begin("10.0.0.2").is_some());
        drop(taken);
        assert!(begin("10.0.0.1").is_some());
        // A host of IPv6 has many addresses.
        let taken: Vec<_> = (0..SOURCE_MAX).map(|n| begin(&format!("2001:db8::{n:x}")).expect("room")).collect();
        assert!(begin("2001:db8::ffff").is_none() && begin("2001:db8:0:1::1").is_some());
        drop(taken);
        let under_way = handshakes.under_way.lock();
        assert!(under_way.all == 0 && under_way.by_source.is_empty(), "{under_way:?}");
    }

    #[test]
    fn there_is_a_limit_for_all_sources_together() {
        let handshakes = Arc::new(Handshakes::default());
        let begin = |n: usize| handshakes.begin(IpAddr::from([10, 0, (n / 250) as u8, (n % 250) as u8]));
        let taken: Vec<_> = (0..ALL_MAX).map(|n| begin(n).expect("room")).collect();
        assert!(begin(ALL_MAX).is_none());
        drop(taken);
        assert!(begin(ALL_MAX).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_events_writes_few_lines() {
        let limit = LogLimit::default();
        let lines: Vec<_> = (0..1000).filter_map(|_| limit.due()).collect();
        assert_eq!(lines, [0]);
        tokio::time::advance(LINE_REST).await;
        assert_eq!(limit.due(), Some(999));
    }
}
