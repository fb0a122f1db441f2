//! One run of a seed. It has a thread, a runtime whose clock jumps from one event to the next, and the
//! outcome.

use std::fmt;
use std::panic;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::trace::Trace;
use crate::{chance, releases, stores, swarm};

/// Kind of story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// Stores alone, and clients that remember what they saw.
    Stores,
    /// Managers and agents over engines, and people who declare things.
    Swarm,
    /// The same with nodes of two releases, which are upgraded and go back.
    Releases,
    /// Same as `Swarm`, with panics in loops of leaders and agents.
    Parts,
}

impl Story {
    pub(crate) const ALL: [Story; 4] = [Story::Stores, Story::Swarm, Story::Releases, Story::Parts];
}

/// Outcome of a seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) story: Story,
    pub(crate) seed: u64,
    /// Checksum of all events. It is the same for the same seed.
    pub(crate) sum: u64,
    pub(crate) failures: Vec<String>,
    /// Description in a line.
    pub(crate) about: String,
}

/// Maximum length of a story by the simulated clock. An endless wait would make the clock run for ever.
const STORY_TIME_MAX: Duration = Duration::from_secs(180);

/// Prefix of the last lines.
pub(crate) const OUTCOME: &str = "# ";

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Story::Stores => "stores",
            Story::Swarm => "swarm",
            Story::Releases => "releases",
            Story::Parts => "parts",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OUTCOME}{} {}: {} (sum {:016x})", self.story, self.seed, self.about, self.sum)?;
        self.failures.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// Maximum time by the real clock, on a busy machine: a loop in which no time passes would never end.
const PLAY_TIME_MAX: Duration = Duration::from_secs(240);

/// Panics of threads that play, by the names of the threads.
static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// A panic in a task ends that task only; it is a fault of what is played all the same.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| match thread::current().name() {
            // The story wanted it.
            Some(_) if info.payload_as_str() == Some(herder_parts::PANIC) => {}
            Some(name) if name.starts_with("seed ") => PANICS.lock().push((name.to_owned(), info.to_string())),
            _ => before(info),
        }));
    });
}

/// Plays one seed to its end.
pub(crate) fn play(story: Story, seed: u64, told: bool) -> Outcome {
    note_panics();
    watch(story, seed);
    let name = format!("seed {seed}");
    // In memory, where there is such a place: files would only cost time.
    let shm = PathBuf::from("/dev/shm");
    let base = if shm.is_dir() { shm } else { std::env::temp_dir() };
    let folder = base.join(format!("herder-sim-{}", std::process::id()));
    // Of a process with this number that was killed.
    let _ = std::fs::remove_dir_all(&folder);
    let thread = thread::Builder::new().name(name.clone()).spawn({
        let folder = folder.clone();
        move || played(story, seed, folder, told)
    });
    let played = thread
        .map_err(|error| error.to_string())
        .and_then(|thread| thread.join().map_err(|_| "the story itself panicked".to_owned()));
    // It may not have been made.
    let _ = std::fs::remove_dir_all(&folder);
    let mut outcome =
        played.unwrap_or_else(|why| Outcome { story, seed, sum: 0, failures: vec![why], about: String::new() });
    let panics = std::mem::take(&mut *PANICS.lock());
    let (mine, others): (Vec<_>, Vec<_>) = panics.into_iter().partition(|(thread, _)| *thread == name);
    PANICS.lock().extend(others);
    outcome.failures.extend(mine.into_iter().map(|(_, text)| format!("a panic: {text}")));
    outcome
}

/// Ends the process when the story takes too long.
fn watch(story: Story, seed: u64) {
    thread::spawn(move || {
        thread::sleep(PLAY_TIME_MAX);
        println!("{OUTCOME}{story} {seed}: the clock stands still");
        std::process::exit(1);
    });
}

fn played(story: Story, seed: u64, folder: PathBuf, told: bool) -> Outcome {
    chance::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let failures = vec![format!("no runtime: {error}")];
            return Outcome { story, seed, sum: 0, failures, about: String::new() };
        }
    };
    let (trace, about) = runtime.block_on(async {
        let trace = Trace::begin(told);
        let told = async {
            match story {
                Story::Stores => stores::story(seed, folder, trace.clone()).await,
                Story::Swarm => swarm::story(seed, folder, trace.clone(), false).await,
                Story::Parts => swarm::story(seed, folder, trace.clone(), true).await,
                Story::Releases => releases::story(seed, folder, trace.clone()).await,
            }
        };
        let about = tokio::time::timeout(STORY_TIME_MAX, told).await.unwrap_or_else(|_| {
            trace.fail("the story does not end");
            String::new()
        });
        (trace, about)
    });
    drop(runtime);
    Outcome { story, seed, sum: trace.sum(), failures: trace.failures(), about }
}

/// Something that all tasks of a story share.
pub(crate) type Shared<T> = Arc<Mutex<T>>;
