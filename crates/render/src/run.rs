//! The loop: read changes, render, check, replace files, run commands.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use herder_gotemplate::Template;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::child::{Exec, Running};
use crate::command::{self, CommandError};
use crate::config::{Job, Order, Source as TextSource};
use crate::consul_template::Environment;
use crate::cycle::{Cycle, Wait};
use crate::data::{Answer, Data, Dep, Rendered};
use crate::place::{self, PlaceError};
use crate::render::{Dialect, Reading, read, render, render_confd};
use crate::source::{News, Source};
use crate::status::StatusFile;

/// Answers that wait to be taken.
const NEWS_WAITING_MAX: usize = 1024;

/// With `once`, the number of failures of a source that ends the run.
const ATTEMPTS_ONCE: u32 = 6;

/// More dependencies than this make no configuration.
const DEPS_MAX: usize = 10_000;

/// A check of a staged file takes at most this long.
const CHECK_TIME: Duration = Duration::from_secs(30);

/// Rests between attempts to write a file or to run a command that failed.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// Options of the renderer.
#[derive(Debug)]
pub struct Settings {
    pub jobs: Vec<Job>,
    pub wait: Wait,
    /// Ends when all templates were rendered once.
    pub once: bool,
    /// Print what would be written.
    pub dry: bool,
    /// Say what would change, and change nothing.
    pub noop: bool,
    /// Write files, and run neither checks nor commands.
    pub sync_only: bool,
    /// Leave staged files that failed their check.
    pub keep_stage: bool,
    /// A command that fails ends the run.
    pub strict: bool,
    /// A program that runs while files are rendered.
    pub exec: Option<Exec>,
    /// Folder in which the state of each file is told.
    pub status: Option<PathBuf>,
}

/// Says why rendering cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(String),
    #[error("{dep}: {error}")]
    Source { dep: Dep, error: String },
    #[error("{0}")]
    Template(String),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("the program of -exec cannot be started: {0}")]
    Exec(std::io::Error),
}

impl RunError {
    /// The exit code of consul-template for it.
    pub fn code(&self) -> u8 {
        match self {
            RunError::Config(_)
            | RunError::Source { .. }
            | RunError::Template(_)
            | RunError::Place(_)
            | RunError::Command(_)
            | RunError::Exec(_) => 14,
        }
    }
}

struct Entry {
    job: Job,
    template: Template,
    used: BTreeSet<Dep>,
    cycle: Cycle,
    /// True if it was rendered at least once.
    rendered: bool,
    failures: u32,
}

struct Renderer<'s> {
    settings: &'s Settings,
    source: Source,
    data: Data,
    entries: Vec<Entry>,
    followers: BTreeMap<Dep, AbortHandle>,
    news: mpsc::Sender<News>,
    env: BTreeMap<String, String>,
    started: Instant,
    /// Commands that failed: when they are tried again.
    again: Vec<(Order, Duration, u32, Instant)>,
    /// Output of the last run of each command that failed.
    said: BTreeMap<Order, String>,
    status: Option<StatusFile>,
    /// A file changed in the last turn.
    changed: bool,
    running: Option<Running>,
}

impl Drop for Renderer<'_> {
    fn drop(&mut self) {
        self.followers.values().for_each(AbortHandle::abort);
    }
}

/// Renders until `stop` is cancelled, or once, or until the program of `exec` ends; returns its exit code then.
///
/// # Errors
/// A template that cannot be read; with `once` or `strict` also what else went wrong.
pub async fn run(
    settings: &Settings,
    source: Source,
    env: &BTreeMap<String, String>,
    stop: &CancellationToken,
) -> Result<Option<u8>, RunError> {
    let mut entries = Vec::new();
    for job in &settings.jobs {
        let name = job.name();
        let text = match &job.source {
            TextSource::Text(text) => text.clone(),
            TextSource::File(path) => match crate::builtin::template(path) {
                Some(text) => text.to_owned(),
                None => std::fs::read_to_string(path).map_err(|error| RunError::Config(format!("{name}: {error}")))?,
            },
        };
        let reading = Reading {
            name: &name,
            left: &job.left,
            right: &job.right,
            error_on_missing_key: job.error_on_missing_key,
            dialect: job.dialect,
        };
        let template = read(&text, &reading).map_err(RunError::Config)?;
        let mut cycle = Cycle::default();
        cycle.change(Duration::ZERO);
        entries.push(Entry { job: job.clone(), template, used: BTreeSet::new(), cycle, rendered: false, failures: 0 });
    }
    let (news, mut heard) = mpsc::channel(NEWS_WAITING_MAX);
    let mut renderer = Renderer {
        settings,
        source,
        data: Data::default(),
        entries,
        followers: BTreeMap::new(),
        news,
        env: env.clone(),
        started: Instant::now(),
        again: Vec::new(),
        said: BTreeMap::new(),
        status: settings.status.as_deref().map(StatusFile::new),
        changed: false,
        running: None,
    };
    loop {
        renderer.turn().await?;
        renderer.show();
        let all_there = renderer.entries.iter().all(|entry| entry.rendered);
        if settings.once && all_there {
            return Ok(None);
        }
        renderer.supervise(all_there).await?;
        let due = renderer.due();
        tokio::select! {
            () = stop.cancelled() => {
                if let Some(running) = &mut renderer.running {
                    running.end().await;
                }
                return Ok(None);
            }
            code = ended(&mut renderer.running) => return Ok(Some(code)),
            news = heard.recv() => match news {
                Some(news) => renderer.hear(news)?,
                None => return Ok(None),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

async fn ended(running: &mut Option<Running>) -> u8 {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}

impl Renderer<'_> {
    /// Starts the program of `exec` when all files are there, and tells it of changes.
    async fn supervise(&mut self, all_there: bool) -> Result<(), RunError> {
        let changed = std::mem::take(&mut self.changed);
        let Some(exec) = self.settings.exec.as_ref().filter(|_| all_there) else { return Ok(()) };
        match &mut self.running {
            Some(running) if changed => running.reload().await.map_err(RunError::Exec),
            Some(_) => Ok(()),
            // One whose check failed is not there.
            None if self.entries.iter().any(|it| it.failures > 0) => Ok(()),
            None => {
                self.running = Some(Running::start(exec).map_err(RunError::Exec)?);
                Ok(())
            }
        }
    }

    /// Tells the state of files and commands.
    fn show(&mut self) {
        let failed = self
            .again
            .iter()
            .map(|(order, ..)| (command::told(order), self.said.get(order).cloned().unwrap_or_default()));
        let failed = failed.collect();
        if let Some(status) = &mut self.status {
            status.commands(failed);
            status.write();
        }
    }

    fn is(&mut self, at: usize, state: &str, reason: String) {
        if let Some(status) = &mut self.status {
            status.set(&self.entries[at].job.destination, state, reason);
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the time at which the next rendering or command is due.
    fn due(&self) -> Option<Instant> {
        let renderings = self.entries.iter().filter_map(|entry| {
            let wait =
                if self.settings.once { Wait { min: Duration::ZERO, max: Duration::ZERO } } else { self.wait(entry) };
            entry.cycle.due(wait).map(|due| self.started + due)
        });
        renderings.chain(self.again.iter().map(|(.., at)| *at)).min()
    }

    fn wait(&self, entry: &Entry) -> Wait {
        // The first rendering waits for nobody.
        match entry.rendered {
            false => Wait { min: Duration::ZERO, max: Duration::ZERO },
            true => entry.job.wait.unwrap_or(self.settings.wait),
        }
    }

    fn hear(&mut self, news: News) -> Result<(), RunError> {
        match news {
            News::Answer(dep, answer) => {
                debug!(%dep, "answered");
                let now = self.now();
                if self.data.set(dep.clone(), answer) {
                    let concerned = self.entries.iter_mut().filter(|entry| entry.used.contains(&dep));
                    concerned.for_each(|entry| entry.cycle.change(now));
                }
                Ok(())
            }
            News::Failed { dep, error, attempts } if self.settings.once && attempts >= ATTEMPTS_ONCE => {
                Err(RunError::Source { dep, error })
            }
            News::Failed { dep, error, attempts } => {
                warn!(%dep, error, attempts, "the source does not answer; rendered files stay");
                Ok(())
            }
        }
    }

    /// Renders what is due, then runs the commands that follow from it.
    async fn turn(&mut self) -> Result<(), RunError> {
        let mut commands: Vec<(Order, Duration)> = Vec::new();
        let now = self.now();
        for at in 0..self.entries.len() {
            let entry = &self.entries[at];
            let wait =
                if self.settings.once { Wait { min: Duration::ZERO, max: Duration::ZERO } } else { self.wait(entry) };
            if entry.cycle.due(wait).is_none_or(|due| due > now) {
                continue;
            }
            self.entries[at].cycle.done();
            match self.render(at) {
                Ok(None) => {}
                Ok(Some(text)) => match self.put(at, &text).await {
                    Ok(changed) => {
                        self.changed |= changed;
                        if changed || !self.entries[at].rendered || self.entries[at].failures > 0 {
                            self.is(at, "rendered", String::new());
                        }
                        let entry = &mut self.entries[at];
                        (entry.rendered, entry.failures) = (true, 0);
                        let job = &entry.job;
                        let order = job.command.clone().filter(|_| changed && !self.settings.sync_only);
                        if let Some(order) = order.filter(|order| !commands.iter().any(|(there, _)| there == order)) {
                            commands.push((order, job.command_timeout));
                        }
                    }
                    Err(error) if self.settings.once => return Err(error),
                    Err(error) => self.failed(at, &error),
                },
                Err(error) if self.settings.once => return Err(error),
                // The next change may make it whole.
                Err(error) => {
                    self.is(at, "failed", error.to_string());
                    self.entries[at].failures = 1;
                    warn!(%error, "the old file stays");
                }
            }
        }
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.again).into_iter().partition(|(.., at)| *at <= now);
        self.again = later;
        let mut failures = BTreeMap::new();
        for (order, limit, count, _) in due {
            failures.insert(order.clone(), count);
            if !commands.iter().any(|(there, _)| *there == order) {
                commands.push((order, limit));
            }
        }
        for (order, limit) in commands {
            // A newer run of a command stands for the one that was to be tried again.
            self.again.retain(|(there, ..)| *there != order);
            match command::run(&order, limit).await {
                Ok(()) => info!(?order, "ran"),
                Err(error) if self.settings.strict || self.settings.once => return Err(error.into()),
                Err(error) => {
                    let count = failures.get(&order).copied().unwrap_or(0) + 1;
                    let rest = rest(count);
                    self.said.insert(order.clone(), error.to_string());
                    warn!(%error, "trying the command again in {rest:?}");
                    self.again.push((order, limit, count, Instant::now() + rest));
                }
            }
        }
        Ok(())
    }

    /// The text of a file; none while something that it needs is not answered.
    fn render(&mut self, at: usize) -> Result<Option<String>, RunError> {
        let now = jiff::Timestamp::now();
        let environment = Environment { env: self.env.clone(), now: (now.to_string(), now.as_second()) };
        let entry = &self.entries[at];
        let (rendered, used) = match entry.job.dialect {
            Dialect::ConsulTemplate => render(&entry.template, &self.data, &environment),
            Dialect::Confd => confd(entry, &self.data, &environment),
        };
        self.entries[at].used = used;
        self.follow()?;
        match rendered {
            Rendered::Text(text) => Ok(Some(text)),
            Rendered::Missing(missing) => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                let missing = missing.join(", ");
                debug!(file = %self.entries[at].job.destination.display(), missing, "waiting for answers");
                self.is(at, "waiting", missing);
                Ok(None)
            }
            Rendered::Failed(why) => Err(RunError::Template(why)),
        }
    }

    /// Follows what is used, and nothing else.
    fn follow(&mut self) -> Result<(), RunError> {
        let used: BTreeSet<Dep> = self.entries.iter().flat_map(|entry| entry.used.iter().cloned()).collect();
        if used.len() > DEPS_MAX {
            return Err(RunError::Template(format!("the templates ask for more than {DEPS_MAX} things")));
        }
        self.followers.retain(|dep, follower| {
            let wanted = used.contains(dep);
            if !wanted {
                follower.abort();
            }
            wanted
        });
        self.data.keep(&used);
        for dep in used {
            if !self.followers.contains_key(&dep) {
                let following = tokio::spawn(self.source.clone().follow(dep.clone(), self.news.clone()));
                self.followers.insert(dep, following.abort_handle());
            }
        }
        Ok(())
    }

    /// True if the file changed.
    async fn put(&self, at: usize, text: &str) -> Result<bool, RunError> {
        let (job, settings) = (&self.entries[at].job, self.settings);
        if settings.dry {
            // To the output, and not to the log.
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "> {}\n{text}", job.destination.display());
            return Ok(false);
        }
        if settings.noop {
            let there = std::fs::read_to_string(&job.destination).ok();
            if there.as_deref() != Some(text) {
                info!(file = %job.destination.display(), "dry run: would change");
            }
            return Ok(false);
        }
        let Some(staged) = place::stage(job, text)? else { return Ok(false) };
        if let Some(check) = job.check.as_ref().filter(|_| !settings.sync_only) {
            let order = command::check_of(check, staged.path());
            if let Err(error) = command::run(&order, CHECK_TIME).await {
                if settings.keep_stage {
                    let kept = staged.keep();
                    info!(?kept, "the staged file is kept");
                }
                return Err(error.into());
            }
        }
        staged.put()?;
        info!(file = %job.destination.display(), bytes = text.len(), "rendered");
        Ok(true)
    }

    /// Records a file that could not be replaced: a check waits for the next change, a disk is tried again.
    fn failed(&mut self, at: usize, error: &RunError) {
        let now = self.now();
        self.is(at, "failed", error.to_string());
        let entry = &mut self.entries[at];
        entry.failures = entry.failures.saturating_add(1);
        let file = entry.job.destination.display();
        if let RunError::Place(PlaceError::Io { .. }) = error {
            let rest = rest(entry.failures);
            warn!(%error, %file, "the old file stays; tried again in {rest:?}");
            entry.cycle.change(now + rest);
        } else {
            warn!(%error, %file, "the old file stays until the next change");
        }
        // Later changes are waited out again.
        entry.rendered = true;
    }
}

fn rest(failures: u32) -> Duration {
    REST_MIN.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(REST_MAX)
}

/// Renders a template of confd's kind over the keys that it declared.
fn confd(entry: &Entry, data: &Data, environment: &Environment) -> (Rendered, BTreeSet<Dep>) {
    let prefix = entry.job.prefix.trim_matches('/');
    let full = |key: &str| match (prefix, key.trim_matches('/')) {
        ("", key) => key.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, key) => format!("{prefix}/{key}"),
    };
    let asking = crate::data::Asking::new(data);
    let mut keys = BTreeMap::new();
    for key in entry.job.keys.iter().map(|key| full(key)) {
        if let Some(Answer::Entries(entries)) = asking.ask(Dep::Tree(key.clone())) {
            let below = entries.iter().filter(|(name, _)| !name.is_empty() && !name.ends_with('/'));
            keys.extend(below.map(|(name, value)| (format!("{key}/{name}"), value.clone())));
        }
        if key.is_empty() {
            continue;
        }
        if let Some(Answer::Entries(entries)) = asking.ask(Dep::Key(key.clone()))
            && let Some(value) = entries.get("")
        {
            keys.insert(key, value.clone());
        }
    }
    let shown = keys.into_iter().map(|(key, value)| {
        let below = key.strip_prefix(prefix).unwrap_or(&key).trim_start_matches('/');
        (format!("/{below}"), value)
    });
    let keys: BTreeMap<String, String> = shown.collect();
    let (used, missing) = asking.done();
    if !missing.is_empty() {
        return (Rendered::Missing(missing), used);
    }
    let is_file = |path: &str| std::path::Path::new(path).exists();
    let rendered = render_confd(&entry.template, &keys, environment, is_file);
    (rendered.map_or_else(Rendered::Failed, Rendered::Text), used)
}
