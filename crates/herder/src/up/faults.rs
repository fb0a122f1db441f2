//! Faults that tests of debug builds do to the parts of a running node.
//!
//! Lines such as `panic leader` or `return gossip` in the file `fault` of the state folder say which, and SIGUSR2 says when.
//! Release builds have none of it.

use std::path::Path;

use herder_parts::Fault;

#[cfg(debug_assertions)]
#[derive(Debug)]
pub(super) struct Faults {
    file: std::path::PathBuf,
    signals: tokio::signal::unix::Signal,
    /// Read, and not yet done.
    waiting: std::collections::VecDeque<(String, Fault)>,
}

#[cfg(debug_assertions)]
impl Faults {
    pub(super) fn new(state: &Path) -> std::io::Result<Faults> {
        let signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined2())?;
        Ok(Faults { file: state.join("fault"), signals, waiting: std::collections::VecDeque::new() })
    }

    /// The next fault that is asked for.
    pub(super) async fn next(&mut self) -> (String, Fault) {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return next;
            }
            if self.signals.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            let text = tokio::fs::read_to_string(&self.file).await.unwrap_or_default();
            for line in text.lines() {
                match line.split_once(' ') {
                    Some(("panic", part)) => self.waiting.push_back((part.to_owned(), Fault::Panic)),
                    Some(("return", part)) => self.waiting.push_back((part.to_owned(), Fault::Return)),
                    _ => tracing::warn!(file = %self.file.display(), line, "no fault"),
                }
            }
        }
    }
}

#[cfg(not(debug_assertions))]
#[derive(Debug)]
pub(super) struct Faults(());

#[cfg(not(debug_assertions))]
impl Faults {
    pub(super) fn new(_: &Path) -> std::io::Result<Faults> {
        Ok(Faults(()))
    }

    /// Waits for ever, since there is none.
    pub(super) async fn next(&mut self) -> (String, Fault) {
        std::future::pending().await
    }
}
