//! Events of scope `swarm`: sent to listeners, and remembered for `since`.

use std::collections::VecDeque;
use std::sync::Arc;

use herder_decide::swarm::events::event;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::now;
use crate::Front;

/// Number of remembered events, as in the Docker Engine.
const REMEMBERED: usize = 256;

/// Maximum number of events that wait for a listener; a slower one learns how many it missed.
const WAITING_MAX: usize = 1024;

/// An event with its time, in nanoseconds since 1970.
pub(crate) type Event = (i64, Arc<Value>);

/// Listeners and remembered events.
#[derive(Debug)]
pub(crate) struct EventLog {
    listeners: broadcast::Sender<Event>,
    past: Mutex<VecDeque<Event>>,
}

impl Default for EventLog {
    fn default() -> EventLog {
        EventLog { listeners: broadcast::Sender::new(WAITING_MAX), past: Mutex::default() }
    }
}

impl EventLog {
    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.listeners.subscribe()
    }

    /// Returns the events between two times.
    pub(crate) fn between(&self, since: i64, until: i64) -> Vec<Event> {
        let past = self.past.lock();
        past.iter().filter(|(time, _)| (since..=until).contains(time)).cloned().collect()
    }

    fn tell(&self, json: Value) {
        let event = (json["timeNano"].as_i64().unwrap_or_default(), Arc::new(json));
        let mut past = self.past.lock();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listens: that is no failure.
        let _ = self.listeners.send(event);
    }
}

/// Makes events of what is written in the swarm, until `stop`.
pub async fn follow(front: Arc<Front>, stop: CancellationToken) {
    let Some(swarm) = front.swarm() else { return };
    let mut written = swarm.written();
    loop {
        let next = stop.run_until_cancelled(written.recv()).await;
        match next {
            Some(Ok(written)) => {
                written.iter().filter_map(|it| event(it, now())).for_each(|it| front.swarm.told.tell(it));
            }
            Some(Err(RecvError::Lagged(missed))) => tracing::warn!(missed, "events of the swarm are lost"),
            Some(Err(RecvError::Closed)) | None => return,
        }
    }
}
