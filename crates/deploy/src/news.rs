//! The news of a deployment as lines of text, each line once.

use std::collections::BTreeMap;

use crate::apply::Progress;
use crate::plan::Action;

/// The sign of an action in plans and news.
pub fn sign(action: Action) -> char {
    match action {
        Action::Create => '+',
        Action::Update => '~',
        Action::Remove => '-',
        Action::Keep => '=',
    }
}

/// Makes lines of the news of a deployment.
#[derive(Debug, Default)]
pub struct News {
    /// The last line of each service, so that it is not repeated.
    last: BTreeMap<String, String>,
}

impl News {
    /// Returns the line for a piece of news; `None` if it repeats the last one about its service.
    pub fn line(&mut self, news: &Progress<'_>) -> Option<String> {
        match news {
            Progress::Step(step) => Some(format!("{} {:<7} {}", sign(step.action), step.kind.word(), step.name)),
            Progress::Waiting { service, status, before } => {
                let failure = status.failure.as_ref().map(|it| format!(": {}", it.message)).unwrap_or_default();
                let before = before.map(|before| format!(" ({before} waits for it)")).unwrap_or_default();
                let (done, wanted) = (status.done, status.wanted);
                self.once(service, format!("  {service}: {done} of {wanted} tasks run{failure}{before}"))
            }
            Progress::Converged { service, status } => {
                self.once(service, format!("  {service}: {} of {} tasks run", status.done, status.wanted))
            }
            Progress::Undo { kind, name, failure } => Some(match failure {
                None => format!("undone: {} {name}", kind.word()),
                Some(failure) => format!("cannot undo {} {name}: {failure}", kind.word()),
            }),
        }
    }

    fn once(&mut self, service: &str, line: String) -> Option<String> {
        if self.last.get(service) == Some(&line) {
            return None;
        }
        self.last.insert(service.to_owned(), line.clone());
        Some(line)
    }
}
