//! What a task printed.

use herder_decide::swarm::step::Seen;
use herder_docker::Body;
use herder_docker::EngineError;
use herder_model::swarm::TaskState;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::call::escaped;
use crate::observe::Shown;

/// The stream of one container, as its engine gives it.
#[derive(Debug)]
pub struct Logs {
    /// Frames of Docker's multiplexed form; of a container with a terminal, its bytes.
    pub body: Body,
    pub has_terminal: bool,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("task {id} is not on this node")]
    Unknown { id: String },
    /// It was rejected, say.
    #[error("task {id} has no container")]
    NoContainer { id: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Agent {
    /// `query` as of `GET /containers/{id}/logs`. Of a task whose container is not started yet there is nothing; who follows
    /// waits for the start, for as long as there may be one.
    pub async fn logs(&self, task: &str, query: &str) -> Result<Logs, LogsError> {
        let node = self.node();
        if !self.has(task) {
            return Err(LogsError::Unknown { id: task.to_owned() });
        }
        let mut shown = node.observer.watch(task);
        let started = |shown: &Shown| matches!(shown.seen, Seen::Running(_) | Seen::Ended { .. });
        let follows = query.split('&').any(|pair| matches!(pair, "follow=1" | "follow=true"));
        if follows {
            self.until_started(task, &mut shown, started).await;
        }
        let container = shown.borrow().id.clone();
        if container.is_empty() {
            return Err(LogsError::NoContainer { id: task.to_owned() });
        }
        let path = format!("/containers/{}", escaped(&container));
        let inspection = node.engine.get(format!("{path}/json")).json().await?;
        let response = node.engine.get(format!("{path}/logs?{query}")).open().await?;
        Ok(Logs { body: response.into_body(), has_terminal: inspection["Config"]["Tty"] == true })
    }

    async fn until_started(&self, task: &str, shown: &mut watch::Receiver<Shown>, started: fn(&Shown) -> bool) {
        let mut tasks = self.tasks();
        tokio::select! {
            // The sender lives as long as the task.
            _ = shown.wait_for(started) => {}
            _ = tasks.wait_for(|tasks| !tasks.contains(task)) => {}
            () = self.node().board.until(task, |status| status.state >= TaskState::Complete) => {}
        }
    }
}
