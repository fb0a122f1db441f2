//! Publishes the newest applied view to readers, waiters and watchers.

use std::sync::Arc;

use herder_model::swarm::{View, Written};
use parking_lot::RwLock;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};

/// Writes that a watcher may be behind. One that is slower is told to look at everything again.
const BEHIND_MAX: usize = 1024;

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The view after the write.
    pub view: View,
    /// The writes, in order. Empty with [`Seen::resync`].
    pub written: Arc<[Written]>,
    /// The watcher missed writes, or the whole state was replaced: what it knows from before says nothing any more.
    pub resync: bool,
}

/// Stream of all writes, in order.
#[derive(Debug)]
pub struct Watch {
    board: Arc<Board>,
    news: broadcast::Receiver<Seen>,
    /// Index of the last view that was delivered.
    index: u64,
}

#[derive(Debug)]
pub(crate) struct Board {
    view: RwLock<View>,
    index: watch::Sender<u64>,
    news: broadcast::Sender<Seen>,
}

impl Board {
    pub(crate) fn new() -> Arc<Board> {
        let (news, _) = broadcast::channel(BEHIND_MAX);
        Arc::new(Board { view: RwLock::default(), index: watch::Sender::new(0), news })
    }

    pub(crate) fn view(&self) -> View {
        self.view.read().clone()
    }

    pub(crate) fn index(&self) -> u64 {
        self.view.read().index
    }

    /// Returns the secret by which managers prove their role, if there is one.
    pub(crate) fn managers_key(&self) -> Option<String> {
        let view = self.view.read();
        view.cluster.as_ref().map(|it| it.managers_key.clone()).filter(|it| !it.is_empty())
    }

    /// Hangs up a view that came of a command.
    pub(crate) fn put(&self, view: &View, written: Vec<Written>) {
        self.hang(view, written, false);
    }

    /// Hangs up a view that came of something else.
    pub(crate) fn replace(&self, view: &View) {
        self.hang(view, Vec::new(), true);
        self.tell();
    }

    fn hang(&self, view: &View, written: Vec<Written>, resync: bool) {
        let mut here = self.view.write();
        *here = view.clone();
        if resync || !written.is_empty() {
            // Under the lock, so that who begins to watch misses nothing. That nobody watches is fine.
            let _ = self.news.send(Seen { view: view.clone(), written: written.into(), resync });
        }
    }

    /// Wakes those who wait for a command. Once for many commands: they are many themselves.
    pub(crate) fn tell(&self) {
        let index = self.index();
        self.index.send_replace(index);
    }

    /// Waits until the view has this command.
    pub(crate) async fn reach(&self, index: u64) -> View {
        let mut seen = self.index.subscribe();
        loop {
            let view = self.view();
            if view.index >= index {
                return view;
            }
            if seen.changed().await.is_err() {
                // Not before the board is gone, and that is held here.
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn watch(self: &Arc<Board>) -> (View, Watch) {
        let here = self.view.read();
        let watch = Watch { board: Arc::clone(self), news: self.news.subscribe(), index: here.index };
        (here.clone(), watch)
    }
}

impl Watch {
    /// Waits for the next write. A receiver that lags too far gets the current view instead. Cancel-safe.
    pub async fn next(&mut self) -> Seen {
        loop {
            let news = self.news.recv().await;
            if let Err(RecvError::Closed) = news {
                // Not before the board is gone, and that is held here.
                std::future::pending::<()>().await;
            }
            if let Some(seen) = self.take(news.ok()) {
                return seen;
            }
        }
    }

    /// The same, if there is something already.
    pub fn try_next(&mut self) -> Option<Seen> {
        loop {
            let news = match self.news.try_recv() {
                Ok(seen) => Some(seen),
                Err(TryRecvError::Lagged(_)) => None,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            };
            if let Some(seen) = self.take(news) {
                return Some(seen);
            }
        }
    }

    /// Without news there were too many of them. Nothing comes of what is known already.
    fn take(&mut self, news: Option<Seen>) -> Option<Seen> {
        let Some(seen) = news else {
            let (view, fresh) = self.board.watch();
            *self = fresh;
            return Some(Seen { view, written: Arc::default(), resync: true });
        };
        if seen.view.index <= self.index && !seen.resync {
            return None;
        }
        self.index = seen.view.index;
        Some(seen)
    }
}
