//! Table of task states for reports. A slow reader sees fewer steps of a task, never an old one.
//!
//! Each report costs a manager a write. Nobody waits for a task to be on its way: that is told with the next news for which
//! somebody may wait, or after a moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::{Report, TaskState, TaskStatus};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Reports on their way to somebody who is busy. All others wait on the board, one for each task.
const REPORTS_UNDER_WAY_MAX: usize = 16;

/// Maximum delay of reports of intermediate states. Swarm mode delays all reports by as much.
const ON_THE_WAY_TIME: Duration = Duration::from_millis(100);

/// The last status of each task, with the number of its change.
#[derive(Debug)]
pub(crate) struct Board {
    told: Mutex<SentStates>,
    /// Sequence number of the last task status change.
    changes: watch::Sender<u64>,
    /// Number of the last one for which somebody may wait.
    urgent: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct SentStates {
    number: u64,
    last: BTreeMap<String, (u64, TaskStatus)>,
}

impl Board {
    pub(crate) fn new() -> Arc<Board> {
        Arc::new(Board { told: Mutex::default(), changes: watch::Sender::new(0), urgent: watch::Sender::new(0) })
    }

    pub(crate) fn tell(&self, task: &str, status: TaskStatus) {
        let is_urgent = !(TaskState::Accepted..TaskState::Running).contains(&status.state) || !status.err.is_empty();
        let number = {
            let mut told = self.told.lock();
            let number = told.number + 1;
            told.number = number;
            told.last.insert(task.to_owned(), (number, status));
            number
        };
        // Two may get here in either order.
        let newer = |last: &mut u64| std::mem::replace(last, number.max(*last)) < number;
        if is_urgent {
            self.urgent.send_if_modified(newer);
        }
        self.changes.send_if_modified(newer);
    }

    pub(crate) fn forget(&self, task: &str) {
        self.told.lock().last.remove(task);
    }

    /// Streams all reports, then every change, until the receiver or the table is dropped.
    pub(crate) fn follow(self: &Arc<Self>) -> mpsc::Receiver<Report> {
        let (sender, receiver) = mpsc::channel(REPORTS_UNDER_WAY_MAX);
        let (mut changes, mut urgent) = (self.changes.subscribe(), self.urgent.subscribe());
        urgent.mark_changed();
        // Not the board itself, so that it can end.
        let board = Arc::downgrade(self);
        tokio::spawn(async move {
            let (mut seen, mut until) = (0, None);
            loop {
                tokio::select! {
                    changed = urgent.changed() => if changed.is_err() { return },
                    changed = changes.changed(), if until.is_none() => {
                        if changed.is_err() {
                            return;
                        }
                        until = Some(Instant::now() + ON_THE_WAY_TIME);
                        continue;
                    }
                    () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                    () = sender.closed() => return,
                }
                changes.mark_unchanged();
                until = None;
                let Some(news) = board.upgrade().map(|board| board.since(seen)) else { return };
                for (number, report) in news {
                    seen = number;
                    if sender.send(report).await.is_err() {
                        return;
                    }
                }
            }
        });
        receiver
    }

    /// Returns the changes after this number, in order.
    fn since(&self, seen: u64) -> Vec<(u64, Report)> {
        let told = self.told.lock();
        let news = told.last.iter().filter(|(_, (number, _))| *number > seen);
        let mut news: Vec<(u64, Report)> = news
            .map(|(id, (number, status))| (*number, Report { task_id: id.clone(), status: status.clone() }))
            .collect();
        news.sort_by_key(|(number, _)| *number);
        news
    }
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::TaskState;

    use super::*;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    #[tokio::test]
    async fn everybody_sees_the_last_state_of_each_task_in_the_order_of_changes() {
        let board = Board::new();
        for state in [TaskState::Accepted, TaskState::Preparing] {
            board.tell("a", status(state));
            board.tell("b", status(state));
        }
        board.tell("a", status(TaskState::Ready));
        let shown = |report: Option<Report>| report.map(|it| format!("{} {:?}", it.task_id, it.status.state));
        let mut first = board.follow();
        assert_eq!(shown(first.recv().await).as_deref(), Some("b Preparing"));
        assert_eq!(shown(first.recv().await).as_deref(), Some("a Ready"));
        board.forget("b");
        board.tell("a", status(TaskState::Running));
        assert_eq!(shown(first.recv().await).as_deref(), Some("a Running"));
        assert_eq!(shown(board.follow().recv().await).as_deref(), Some("a Running"));
        drop(board);
        assert_eq!(shown(first.recv().await), None);
    }

    /// Each line: states that are reported one after the other, then those that the reader gets.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_on_its_way_is_told_with_the_next_news_or_after_a_moment() {
        for line in
            ["preparing: Preparing", "accepted preparing ready: Ready", "starting running: Running", "failed: Failed"]
        {
            let (told, heard) = line.split_once(": ").expect("a colon");
            let (board, began) = (Board::new(), Instant::now());
            let mut reports = board.follow();
            tokio::task::yield_now().await;
            for state in told.split(' ') {
                board.tell("a", status(serde_json::from_value(state.into()).expect("a state")));
                tokio::task::yield_now().await;
            }
            let report = reports.recv().await.expect("the board is there");
            assert_eq!(format!("{:?}", report.status.state), heard, "{line}");
            let waits = report.status.state < TaskState::Running;
            assert_eq!(began.elapsed() >= ON_THE_WAY_TIME, waits, "{line}");
        }
    }
}
