//! Requests of this node that wait for answers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::error::BusError;
use crate::message::Message;

/// Requests that may wait at the same time. Bounds memory when nobody answers; 50,000 a second with an answer within two
/// seconds fit.
pub(crate) const REQUESTS_MAX: usize = 100_000;

/// Result of a request.
pub(crate) type Outcome = Result<Message, BusError>;

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    requests: Mutex<HashMap<u64, Request>>,
}

#[derive(Debug)]
struct Request {
    /// Node that was asked; answers of other nodes are ignored.
    asked: Arc<str>,
    waiter: Waiter,
}

#[derive(Debug)]
enum Waiter {
    One(oneshot::Sender<Outcome>),
    Many { answers: mpsc::Sender<(Arc<str>, Gathered)>, expected: Option<u32>, got: u32 },
}

/// Message of a node to a gathering.
#[derive(Debug)]
pub(crate) enum Gathered {
    Answer(Outcome),
    /// The node sends nothing more.
    Done,
}

impl Pending {
    /// Waits for one answer of `asked`.
    pub(crate) fn one(&self, id: u64, asked: Arc<str>) -> Result<oneshot::Receiver<Outcome>, BusError> {
        let (sender, receiver) = oneshot::channel();
        self.insert(id, Request { asked, waiter: Waiter::One(sender) })?;
        Ok(receiver)
    }

    /// Waits for the answers of all receivers at `asked`.
    pub(crate) fn many(
        &self,
        id: u64,
        asked: Arc<str>,
        answers: mpsc::Sender<(Arc<str>, Gathered)>,
    ) -> Result<(), BusError> {
        self.insert(id, Request { asked, waiter: Waiter::Many { answers, expected: None, got: 0 } })
    }

    fn insert(&self, id: u64, request: Request) -> Result<(), BusError> {
        let mut requests = self.requests.lock();
        if requests.len() >= REQUESTS_MAX {
            return Err(BusError {
                kind: crate::Kind::Error,
                code: BusError::CODE_OVERFLOW,
                message: format!("{REQUESTS_MAX} requests wait for answers already; try again later"),
            });
        }
        requests.insert(id, request);
        Ok(())
    }

    /// The request ends without an answer. How many answers are missing, if it was there.
    pub(crate) fn give_up(&self, id: u64) -> Option<u32> {
        let request = self.requests.lock().remove(&id)?;
        Some(request.waiter.missing())
    }

    /// Node `from` says how many answers will come. Those for whom nobody waits any more are ignored.
    pub(crate) fn expect(&self, from: &str, id: u64, receivers: u32) {
        let mut requests = self.requests.lock();
        let Some(request) = requests.get_mut(&id).filter(|request| &*request.asked == from) else { return };
        let Waiter::Many { answers, expected, got } = &mut request.waiter else { return };
        *expected = Some(receivers);
        if *got >= receivers {
            let told = answers.try_send((request.asked.clone(), Gathered::Done));
            requests.remove(&id);
            drop((requests, told));
        }
    }

    /// Node `from` answers. False if nobody waits for that.
    pub(crate) fn settle(&self, from: &str, id: u64, outcome: Outcome) -> bool {
        let mut requests = self.requests.lock();
        let Some(request) = requests.get_mut(&id).filter(|request| &*request.asked == from) else {
            drop(requests);
            return false;
        };
        // What cannot be handed over is dropped after the lock: it may want to tell its asker so.
        match &mut request.waiter {
            Waiter::One(_) => {
                let request = requests.remove(&id);
                drop(requests);
                if let Some(Request { waiter: Waiter::One(waiter), .. }) = request {
                    let _ = waiter.send(outcome);
                }
            }
            Waiter::Many { answers, expected, got } => {
                *got += 1;
                let node = request.asked.clone();
                let first = answers.try_send((node.clone(), Gathered::Answer(outcome)));
                let done = expected.is_some_and(|expected| *got >= expected);
                let second = if done { Some(answers.try_send((node, Gathered::Done))) } else { None };
                let ended = if done { requests.remove(&id) } else { None };
                drop(requests);
                drop((first, second, ended));
            }
        }
        true
    }

    /// Fails the requests to a node that went away.
    pub(crate) fn lost(&self, node: &str) {
        let lost: Vec<Request> =
            self.requests.lock().extract_if(|_, request| &*request.asked == node).map(|(_, request)| request).collect();
        for Request { asked, waiter } in lost {
            let missing = waiter.missing();
            match waiter {
                Waiter::One(waiter) => drop(waiter.send(Err(BusError::gone(node)))),
                Waiter::Many { answers, .. } => {
                    for _ in 0..missing {
                        drop(answers.try_send((asked.clone(), Gathered::Answer(Err(BusError::gone(node))))));
                    }
                    drop(answers.try_send((asked, Gathered::Done)));
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.lock().len()
    }
}

/// Answers that wait for a gathering to read them; more are dropped.
pub(crate) const ANSWERS_WAITING_MAX: u32 = 4096;

impl Waiter {
    fn missing(&self) -> u32 {
        match self {
            Waiter::One(_) => 1,
            Waiter::Many { expected, got, .. } => {
                expected.unwrap_or(got + 1).saturating_sub(*got).min(ANSWERS_WAITING_MAX)
            }
        }
    }
}
