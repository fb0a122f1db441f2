//! Health of the engine beside this node.
//!
//! A node is only as alive as its engine: without it no task can start, stop or be seen. The verdict is told to the leader, which
//! counts a node without an engine as down.

use std::time::Duration;

use herder_docker::EngineError;
use herder_docker::LinkError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::call::{Engine, refusal};

/// Interval of pings to an engine that answers. A ping costs an engine some microseconds.
const PING_PERIOD: Duration = Duration::from_secs(1);
/// Interval of pings to a lost engine.
const LOST_PING_PERIOD: Duration = Duration::from_millis(200);
/// Silence after which an engine counts as lost. The leader learns of it within 5 s; an engine that systemd restarts is
/// back sooner.
const SILENT_MAX: Duration = Duration::from_secs(3);

/// Health of the engine, as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EngineHealth {
    /// The engine has neither answered nor been silent for long enough.
    #[default]
    Unknown,
    Answers,
    /// The engine is dead or hangs, with the reason.
    Lost(String),
}

impl EngineHealth {
    /// Returns the reason why the engine counts as lost; empty while it answers.
    pub fn error(&self) -> &str {
        match self {
            EngineHealth::Unknown | EngineHealth::Answers => "",
            EngineHealth::Lost(error) => error,
        }
    }
}

/// Asks the engine for ever, and keeps `health`.
pub(crate) async fn keep(engine: &Engine, health: &watch::Sender<EngineHealth>) {
    let mut answered = Instant::now();
    loop {
        let is_lost = matches!(*health.borrow(), EngineHealth::Lost(_));
        let limit = if is_lost { SILENT_MAX } else { SILENT_MAX.saturating_sub(answered.elapsed()) };
        let error = match engine.ping(limit).await {
            Ok(()) => None,
            // It refuses the call (a proxy before it may), but it answers.
            Err(error) if refusal(&error).is_some_and(|(status, _)| status < 500) => None,
            // What is left of the time that it has says nothing to anybody.
            Err(EngineError::Link(LinkError::Timeout { url, .. })) => {
                Some(LinkError::Timeout { url, seconds: SILENT_MAX.as_secs() }.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        match error {
            None => {
                answered = Instant::now();
                if is_lost {
                    info!("the engine answers again");
                }
                health.send_if_modified(|it| std::mem::replace(it, EngineHealth::Answers) != EngineHealth::Answers);
                sleep(PING_PERIOD).await;
            }
            Some(error) => {
                if !is_lost && answered.elapsed() >= SILENT_MAX {
                    warn!(error, "the engine is lost; managers run this node's tasks elsewhere");
                    health.send_replace(EngineHealth::Lost(error));
                }
                sleep(LOST_PING_PERIOD).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herder_docker::{Dial, Dialling, Duplex, Way};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Behaviour of the engine when it is called.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Mode {
        Answers,
        Hangs,
        Dead,
    }

    #[derive(Debug)]
    struct Fake(watch::Receiver<Mode>);

    impl Dial for Fake {
        fn dial<'d>(&'d self, _: &'d str) -> Dialling<'d> {
            Box::pin(async {
                if *self.0.borrow() == Mode::Dead {
                    return Err(std::io::ErrorKind::ConnectionRefused.into());
                }
                let (here, mut there) = tokio::io::duplex(4096);
                let mut mode = self.0.clone();
                tokio::spawn(async move {
                    let mut asked = [0; 4096];
                    while there.read(&mut asked).await.is_ok_and(|count| count > 0) {
                        if mode.wait_for(|it| *it != Mode::Hangs).await.is_err() || *mode.borrow() == Mode::Dead {
                            return;
                        }
                        let _ = there.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK").await;
                    }
                });
                Ok(Box::new(here) as Box<dyn Duplex>)
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_silent_is_lost_within_four_seconds_and_back_when_it_answers() {
        for silence in [Mode::Hangs, Mode::Dead] {
            let (mode, seen) = watch::channel(Mode::Answers);
            let engine = Engine::new("fake:1", Way::Through(Arc::new(Fake(seen))));
            let health = watch::Sender::default();
            let mut known = health.subscribe();
            let keeping = tokio::spawn(async move { keep(&engine, &health).await });
            known.wait_for(|it| *it == EngineHealth::Answers).await.expect("it is asked");
            sleep(Duration::from_secs(10)).await;
            assert_eq!(*known.borrow(), EngineHealth::Answers);
            mode.send_replace(silence);
            let began = Instant::now();
            let lost = known.wait_for(|it| matches!(it, EngineHealth::Lost(_))).await.expect("it is asked").clone();
            assert!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < Duration::from_secs(4), "{lost:?}");
            assert!(!lost.error().is_empty());
            mode.send_replace(Mode::Answers);
            let began = Instant::now();
            known.wait_for(|it| *it == EngineHealth::Answers).await.expect("it is asked");
            assert!(began.elapsed() < Duration::from_secs(1));
            keeping.abort();
        }
    }
}
