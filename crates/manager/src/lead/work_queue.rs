//! Services to be looked at, one after the other, each in its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct WorkQueue {
    /// Services to reconcile.
    waiting: BTreeSet<String>,
    /// Looked at in the step that is made.
    seen: Vec<String>,
    /// The one that was looked at last: those after it come next, so that none waits for ever.
    last: String,
    /// Times at which services are due without an event. They are not by the host's clock, which may be set back.
    times: BTreeMap<String, Instant>,
    by_time: BTreeSet<(Instant, String)>,
}

impl WorkQueue {
    /// Adds a service. Tasks without one, as those of plain containers on a network, add nothing.
    pub(super) fn add(&mut self, service: &str) {
        if !service.is_empty() && !self.waiting.contains(service) {
            self.waiting.insert(service.to_owned());
        }
    }

    pub(super) fn add_all(&mut self, services: impl IntoIterator<Item = String>) {
        self.waiting.extend(services.into_iter().filter(|it| !it.is_empty()));
    }

    /// Those that wait for a time may have another one now.
    pub(super) fn add_due(&mut self) {
        self.waiting.extend(self.times.keys().cloned());
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn next_time(&self) -> Option<Instant> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// Adds those whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        let due = self.by_time.iter().take_while(|(time, _)| *time <= now);
        self.waiting.extend(due.map(|(_, service)| service.clone()));
    }

    pub(super) fn next(&mut self) -> Option<String> {
        let after = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let next = self.waiting.range::<str, _>(after).next().or_else(|| self.waiting.first()).cloned()?;
        self.waiting.remove(&next);
        self.last.clone_from(&next);
        self.seen.push(next.clone());
        Some(next)
    }

    /// Sets the time at which the service is due without an event.
    pub(super) fn set_time(&mut self, service: &str, time: Option<Instant>) {
        if let Some((service, time)) = self.times.remove_entry(service) {
            self.by_time.remove(&(time, service));
        }
        if let Some(time) = time {
            self.times.insert(service.to_owned(), time);
            self.by_time.insert((time, service.to_owned()));
        }
    }

    /// Drops the services whose decisions were written.
    pub(super) fn done(&mut self) {
        self.seen.clear();
    }

    /// Puts the services back whose decisions were not written.
    pub(super) fn again(&mut self) {
        self.waiting.extend(self.seen.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_service_has_its_turn_and_what_was_not_written_has_it_again() {
        let mut work_queue = WorkQueue::default();
        work_queue.add_all(["a", "b", "c"].map(str::to_owned));
        assert_eq!(work_queue.next().as_deref(), Some("a"));
        work_queue.done();
        work_queue.add("a");
        assert_eq!(work_queue.next().as_deref(), Some("b"));
        assert_eq!(work_queue.next().as_deref(), Some("c"));
        work_queue.again();
        let turns: Vec<String> = std::iter::from_fn(|| work_queue.next()).collect();
        assert_eq!(turns, ["a", "b", "c"]);
        assert!(!work_queue.is_waited_for());
    }

    #[test]
    fn a_service_is_looked_at_when_its_last_time_has_come() {
        let (mut work_queue, began) = (WorkQueue::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        work_queue.set_time("a", Some(at(5)));
        work_queue.set_time("b", Some(at(7)));
        work_queue.set_time("a", Some(at(9)));
        assert_eq!(work_queue.next_time(), Some(at(7)));
        work_queue.wake(at(8));
        assert_eq!((work_queue.next().as_deref(), work_queue.next()), (Some("b"), None));
        work_queue.set_time("b", None);
        assert_eq!(work_queue.next_time(), Some(at(9)));
        work_queue.add_due();
        assert_eq!(work_queue.next().as_deref(), Some("a"));
    }
}
