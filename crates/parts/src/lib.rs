//! Named parts of a program, supervised: an unexpected end is noticed and healed.
//!
//! A part is a task that lives as long as the program or a node's life: a loop that leads, follows, renews. Its panic or its early
//! end is invisible to everybody who only waits for what it does. Here it is logged with its name, and then the part is started
//! again ([`Parts::restarted`]), or their owner begins anew ([`Parts::vital`], [`Parts::ended`]).

pub mod aside;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A part that ended unexpectedly is started again after this long, and twice as long after each further time …
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// … up to this long, so that an end is healed within 5 s of it even when it repeats.
const BACKOFF_MAX: Duration = Duration::from_secs(4);

/// Uptime after which a part counts as healthy, so that its restart delay begins again at the minimum.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The unexpected end of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its work returned.
    Returned,
    /// The part panicked, with this message.
    Panicked(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Returned => f.write_str("it returned"),
            End::Panicked(message) => write!(f, "it panicked: {message}"),
        }
    }
}

/// A vital part that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub part: &'static str,
    pub end: End,
}

/// The message of a panic that a test ordered.
pub const PANIC: &str = "a test made this part panic";

/// A fault that a test injects into a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Panic,
    Return,
}

/// The last fault that a test ordered, with a count so that the same fault can come twice.
type Order = (u64, Option<Fault>);

/// The parts of one owner. Clones are the same.
#[derive(Clone, Debug)]
pub struct Parts {
    stop: CancellationToken,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tasks: TaskTracker,
    ended: watch::Sender<Option<Ended>>,
    /// Each part's fault, by its name.
    faults: Mutex<BTreeMap<&'static str, watch::Sender<Order>>>,
}

impl Default for Parts {
    /// Creates parts without a stop token. They end only if dropped or aborted.
    fn default() -> Parts {
        Parts::new(CancellationToken::new())
    }
}

impl From<CancellationToken> for Parts {
    fn from(stop: CancellationToken) -> Parts {
        Parts::new(stop)
    }
}

impl From<&CancellationToken> for Parts {
    fn from(stop: &CancellationToken) -> Parts {
        Parts::new(stop.clone())
    }
}

impl From<&Parts> for Parts {
    fn from(parts: &Parts) -> Parts {
        parts.clone()
    }
}

impl Parts {
    /// Parts that may end once `stop` is cancelled, and not before.
    pub fn new(stop: CancellationToken) -> Parts {
        let shared = Shared { tasks: TaskTracker::new(), ended: watch::Sender::new(None), faults: Mutex::default() };
        Parts { stop, shared: Arc::new(shared) }
    }

    /// Returns a handle to the same parts with another stop token, for parts that may stop earlier.
    pub fn until(&self, stop: CancellationToken) -> Parts {
        Parts { stop, shared: self.shared.clone() }
    }

    /// Cancelled when parts shall end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a part that cannot be started again by itself. Its unexpected end is told to the owner by [`Parts::ended`].
    pub fn vital(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let (parts, fault) = (self.clone(), self.faults_of(name));
        self.shared.tasks.spawn(async move {
            let end = caught(work, fault).await;
            if parts.is_expected(&end) {
                return;
            }
            tracing::error!(part = name, %end, "a part has ended; restarting the parts that depend on it");
            parts.shared.ended.send_if_modified(|known| {
                let is_first = known.is_none();
                if is_first {
                    *known = Some(Ended { part: name, end });
                }
                is_first
            });
        })
    }

    /// Starts a part, and starts it again whenever it ends unexpectedly.
    pub fn restarted<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnMut() -> F + Send + 'static,
    ) -> JoinHandle<()> {
        self.start(name, true, work)
    }

    fn start<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        goes_on: bool,
        mut work: impl FnMut() -> F + Send + 'static,
    ) -> JoinHandle<()> {
        let (parts, mut fault) = (self.clone(), self.faults_of(name));
        self.shared.tasks.spawn(async move {
            let mut backoff = BACKOFF_MIN;
            loop {
                let began = Instant::now();
                fault.mark_unchanged();
                let end = caught(work(), fault.clone()).await;
                if parts.is_expected(&end) || (!goes_on && end == End::Returned) {
                    return;
                }
                if began.elapsed() >= HEALTHY_AFTER {
                    backoff = BACKOFF_MIN;
                }
                tracing::error!(part = name, %end, again_in = ?backoff, "a part has ended; restarting it");
                if parts.stop.run_until_cancelled(sleep(backoff)).await.is_none() {
                    return;
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        })
    }

    /// Same as [`Parts::restarted`], for work whose return is its proper end: only a panic starts it again.
    pub fn until_done<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnMut() -> F + Send + 'static,
    ) -> JoinHandle<()> {
        self.start(name, false, work)
    }

    /// Same as [`Parts::restarted`], for endless work: it is dropped when the parts end.
    pub fn looping<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        mut work: impl FnMut() -> F + Send + 'static,
    ) -> JoinHandle<()> {
        let stop = self.stop.clone();
        self.restarted(name, move || {
            let (stop, work) = (stop.clone(), work());
            async move {
                let _ = stop.run_until_cancelled_owned(work).await;
            }
        })
    }

    /// Waits for the first unexpected end of a vital part and returns it.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await.map(|it| it.clone()) {
            Ok(Some(ended)) => ended,
            // The sender lives as long as `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Waits until all parts have ended, once they shall. False if they have not in time.
    pub async fn all_ended(&self, limit: Duration) -> bool {
        self.shared.tasks.close();
        timeout(limit, self.shared.tasks.wait()).await.is_ok()
    }

    /// The names of all parts that were ever started here.
    pub fn names(&self) -> Vec<&'static str> {
        self.shared.faults.lock().keys().copied().collect()
    }

    /// Injects a fault into a part, for tests. False if there is none of this name.
    pub fn fault(&self, name: &str, fault: Fault) -> bool {
        let faults = self.shared.faults.lock();
        let Some(part) = faults.get(name) else { return false };
        part.send_modify(|(count, known)| {
            *count += 1;
            *known = Some(fault);
        });
        true
    }

    fn faults_of(&self, name: &'static str) -> watch::Receiver<Order> {
        self.shared.faults.lock().entry(name).or_insert_with(|| watch::Sender::new((0, None))).subscribe()
    }

    fn is_expected(&self, end: &End) -> bool {
        *end == End::Returned && self.stop.is_cancelled()
    }
}

/// Runs blocking work, such as writing a file, while other threads take over the tasks of this one.
///
/// A runtime of one thread, as tests have it, has no other: there the work is just done.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|it| it.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Runs the work until it returns or panics, or until a test ends it.
async fn caught(work: impl Future<Output = ()>, mut fault: watch::Receiver<Order>) -> End {
    let with_fault = async {
        let fault = async {
            if fault.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            fault.borrow().1
        };
        tokio::select! {
            // No dice: simulations play the same again.
            biased;
            () = work => {}
            fault = fault => assert!(fault != Some(Fault::Panic), "{PANIC}"),
        }
    };
    match AssertUnwindSafe(with_fault).catch_unwind().await {
        Ok(()) => End::Returned,
        Err(panic) => End::Panicked(message(panic.as_ref()).to_owned()),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_that_blocks_holds_up_no_other_task() {
        let (come, gone) = std::sync::mpsc::channel();
        let other = async move {
            tokio::task::yield_now().await;
            come.send("here").expect("somebody waits")
        };
        let blocked = tokio::spawn(async move {
            tokio::spawn(other);
            blocking(|| gone.recv_timeout(Duration::from_secs(30)))
        });
        assert_eq!(blocked.await.expect("no panic"), Ok("here"));
        assert_eq!(std::thread::spawn(|| blocking(|| 7)).join().expect("no panic"), 7, "without a runtime");
    }

    #[tokio::test]
    async fn work_that_blocks_is_done_on_one_thread_too() {
        assert_eq!(blocking(|| 7), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_vital_part_that_ends_is_told_with_its_name() {
        for (fault, end) in [(Fault::Return, "it returned"), (Fault::Panic, "it panicked: a test made this part panic")]
        {
            let stop = CancellationToken::new();
            let parts = Parts::new(stop.clone());
            let own_stop = stop.clone();
            parts.vital("first", async move { own_stop.cancelled().await });
            parts.vital("second", std::future::pending());
            assert_eq!(parts.names(), ["first", "second"]);
            assert!(!parts.fault("third", fault));
            assert!(timeout(Duration::from_secs(60), parts.ended()).await.is_err(), "all is well");
            assert!(parts.fault("second", fault));
            let Ended { part, end: ended } = parts.ended().await;
            assert_eq!((part, ended.to_string().as_str()), ("second", end));
            stop.cancel();
            assert!(parts.all_ended(Duration::from_secs(1)).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_is_started_again_each_time_later_up_to_a_limit() {
        let stop = CancellationToken::new();
        let parts = Parts::new(stop.clone());
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = starts.clone();
        parts.restarted("loop", move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { panic!("always") }
        });
        let after = async |time| {
            sleep(Duration::from_millis(time)).await;
            starts.load(Ordering::Relaxed)
        };
        // At 0, 100, 300, 700, 1500, 3100 ms, then every 3.2 s and 4 s.
        assert_eq!(after(50).await, 1);
        assert_eq!(after(100).await, 2);
        assert_eq!(after(200).await, 3);
        assert_eq!(after(3000).await, 6);
        assert_eq!(after(40_000).await, 16);
        stop.cancel();
        assert!(parts.all_ended(Duration::from_secs(1)).await);
        assert!(timeout(Duration::from_secs(60), parts.ended()).await.is_err(), "the owner need not begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_was_asked_for_is_none() {
        let stop = CancellationToken::new();
        let parts = Parts::new(stop.clone());
        let starts = Arc::new(AtomicUsize::new(0));
        let (counted, own_stop) = (starts.clone(), stop.clone());
        parts.restarted("one", move || {
            counted.fetch_add(1, Ordering::Relaxed);
            own_stop.clone().cancelled_owned()
        });
        parts.looping("two", std::future::pending);
        parts.vital("three", stop.clone().cancelled_owned());
        sleep(Duration::from_secs(1)).await;
        assert!(parts.fault("one", Fault::Panic) && parts.fault("two", Fault::Return));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(starts.load(Ordering::Relaxed), 2);
        stop.cancel();
        assert!(parts.all_ended(Duration::from_secs(1)).await);
        assert_eq!(starts.load(Ordering::Relaxed), 2);
        assert!(timeout(Duration::from_secs(60), parts.ended()).await.is_err());
    }
}
