//! The store of one manager.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use herder_model::swarm::{Change, Command, Feature, Time, View};
use openraft::errors::{InitializeError, RaftError};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ask::{AGAIN, Asked};
use crate::backend::BackendHandle;
use crate::board::{Board, Watch};
use crate::disk::{Disk, Found};
use crate::leading::{Leadership, Leads};
use crate::members::ManagerSeen;
use crate::message::{Answer, Call, Refusal};
use crate::raft::{Address, Outcome, Proposal, RequestId};
use crate::running::Running;
use crate::vault::Vault;
use crate::{COMMAND_BYTES_MAX, Key, Settings, StoreError, TransportError};

/// Maximum time for the previous owner to release a folder.
const LET_GO_WAIT: Duration = Duration::from_secs(2);
const LET_GO_POLL: Duration = Duration::from_millis(20);

/// Carries a request to another manager, where [`Store::handle`] answers it.
///
/// A request has at most 5 MiB. The transport says for sure who sends; it may lose requests and answers, deliver them late, and
/// wait as long as it likes: the store goes away when it has waited enough.
pub trait Transport: Send + Sync + 'static {
    /// `node` is the id of the node, `addr` what it was added with.
    fn call<'a>(&'a self, node: &'a str, addr: &'a str, request: Bytes)
    -> BoxFuture<'a, Result<Bytes, TransportError>>;
}

/// The replicated state of a swarm, as one manager has it.
pub struct Store {
    pub(crate) settings: Settings,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) vault: Vault,
    pub(crate) board: Arc<Board>,
    leads: Leads,
    running: RwLock<Option<Arc<Running>>>,
    /// Serialises starts and ends of raft.
    pub(crate) lifecycle: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in a folder, or makes it. It takes part in its swarm from now on; a new one has none before
    /// [`Store::begin`], or until a leader adds it ([`Store::add_manager`]).
    pub async fn open(settings: Settings, transport: Arc<dyn Transport>) -> Result<Arc<Store>, StoreError> {
        let opened = settings.clone();
        let backend = BackendHandle(settings.backend.clone());
        let vault = on_thread(&backend, move || {
            let backend = BackendHandle(opened.backend.clone());
            let fill = |path: &std::path::Path, sealer: &crate::seal::Sealer| {
                Disk::create(&backend, path, sealer, &opened.node)
            };
            Vault::open(&opened.folder, opened.key.as_ref(), fill)
        });
        let store = Store {
            vault: vault.await?,
            settings,
            transport,
            board: Board::new(),
            leads: Leads::new(watch::Sender::new(Leadership::default())),
            running: RwLock::new(None),
            lifecycle: tokio::sync::Mutex::default(),
        };
        let disk = store.open_disk().await?;
        store.start(disk).await?;
        Ok(Arc::new(store))
    }

    pub(crate) fn backend(&self) -> BackendHandle {
        BackendHandle(self.settings.backend.clone())
    }

    pub(crate) async fn open_disk(&self) -> Result<(Disk, Found), StoreError> {
        let until = Instant::now() + LET_GO_WAIT;
        let opened = loop {
            let (path, sealer) = (self.vault.database(), self.vault.sealer());
            let backend = self.backend();
            match on_thread(&self.backend(), move || Disk::open(backend, &path, sealer)).await {
                Err(StoreError::InUse { .. }) if Instant::now() < until => sleep(LET_GO_POLL).await,
                opened => break opened?,
            }
        };
        let of = opened.1.member.node();
        if of != self.settings.node {
            let why = format!("the store in {} belongs to {of}", self.settings.folder.display());
            return Err(StoreError::Refused(why));
        }
        Ok(opened)
    }

    pub(crate) async fn start(&self, disk: (Disk, Found)) -> Result<(), StoreError> {
        let (board, leads) = (Arc::clone(&self.board), Arc::clone(&self.leads));
        let running = Running::start(&self.settings, Arc::clone(&self.transport), board, leads, disk).await?;
        *self.running.write() = Some(Arc::new(running));
        Ok(())
    }

    pub(crate) fn running(&self) -> Result<Arc<Running>, StoreError> {
        self.running.read().clone().ok_or_else(|| StoreError::Stopped { why: "it was shut down".to_owned() })
    }

    pub(crate) async fn stop(&self) {
        let running = self.running.write().take();
        if let Some(running) = running {
            running.stop().await;
        }
    }

    /// Answers a request of another manager, as its [`Transport::call`] sent it. `from` is the node that sent it, for sure.
    pub async fn handle(&self, from: &str, request: Bytes) -> Result<Bytes, StoreError> {
        self.running()?.handle(from, request).await
    }

    /// Returns this manager's view. It may be behind, the more so if it is cut off.
    pub fn view(&self) -> View {
        self.board.view()
    }

    /// Returns a view that contains everything that was written before this call.
    pub async fn read(&self) -> Result<View, StoreError> {
        let running = self.running()?;
        let until = Instant::now() + self.settings.wait;
        let asked = running.ask(|| Call::ReadIndex, until).await.map_err(nothing_done)?;
        let Answer::Index(index) = asked.answer else {
            return Err(strange());
        };
        timeout_at(until, self.board.reach(index)).await.map_err(|_| StoreError::NoLeader)
    }

    /// Writes these changes, all or none, on a majority of the managers. The view has them; so has [`Store::view`] from now on.
    ///
    /// `at` is the time that the written objects get.
    pub async fn commit(&self, changes: Vec<Change>, at: Time) -> Result<View, StoreError> {
        let running = self.running()?;
        let until = Instant::now() + self.settings.wait;
        let command = self.command(changes, at)?;
        loop {
            let proposal = self.proposal(command.clone());
            let Asked { answer, again } = running.ask(|| Call::Commit(proposal.clone()), until).await?;
            match answer {
                Answer::Outcome(Outcome::Late) if again => return Err(lost("it took too long")),
                // This manager is far behind, but nothing was done: again, and from where it is now.
                Answer::Outcome(Outcome::Late) if Instant::now() < until => sleep(AGAIN).await,
                Answer::Outcome(Outcome::Late) => return Err(StoreError::NoLeader),
                answer => return self.written(answer, until).await,
            }
        }
    }

    /// Same as [`Store::commit`], but only if this manager leads in this term. A leader's decision rests on its own
    /// observations, so a later leader must not write it.
    pub async fn commit_in(&self, term: u64, changes: Vec<Change>, at: Time) -> Result<View, StoreError> {
        let running = self.running()?;
        let until = Instant::now() + self.settings.wait;
        let proposal = self.proposal(self.command(changes, at)?);
        match running.write_in(term, proposal).await {
            Answer::Refused(Refusal::NotLeader(_)) | Answer::Outcome(Outcome::Late) => Err(StoreError::LeadsNoMore),
            Answer::Refused(refusal) => Err(refusal.into()),
            answer => self.written(answer, until).await,
        }
    }

    /// A command that every manager's release can read.
    fn command(&self, changes: Vec<Change>, at: Time) -> Result<Command, StoreError> {
        let level = self.board.view().level();
        let too_new = changes.iter().filter_map(Feature::of).find(|it| it.level() > level);
        match too_new {
            Some(feature) => Err(StoreError::Level { feature, level }),
            None => command(changes, at),
        }
    }

    fn proposal(&self, command: Command) -> Proposal {
        Proposal { request: RequestId(rand::random()), since: self.board.index(), command }
    }

    /// The view that has what was written.
    async fn written(&self, answer: Answer, until: Instant) -> Result<View, StoreError> {
        match answer {
            Answer::Outcome(Outcome::Done(index)) => {
                let reached = timeout_at(until, self.board.reach(index)).await;
                reached.map_err(|_| lost("it was written, but this manager is cut off and has not received it"))
            }
            Answer::Outcome(Outcome::Conflict(conflict)) => Err(conflict.into()),
            _ => Err(strange()),
        }
    }

    /// Watches all writes from now on. The view contains earlier ones.
    pub fn watch(&self) -> (View, Watch) {
        self.board.watch()
    }

    /// Watches the leadership, as this manager knows it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leads.subscribe()
    }

    /// Returns true if this store belongs to a swarm.
    pub async fn begun(&self) -> Result<bool, StoreError> {
        let initialized = self.running()?.raft.is_initialized().await;
        initialized.map_err(|fatal| StoreError::Stopped { why: fatal.to_string() })
    }

    /// Begins a swarm with this manager alone, which others reach at this address. It leads when this returns.
    pub async fn begin(&self, addr: &str) -> Result<(), StoreError> {
        let running = self.running()?;
        let address = Address { addr: addr.to_owned() };
        let members = std::collections::BTreeMap::from([(running.me.clone(), address)]);
        match running.raft.initialize(members).await {
            Ok(()) => self.lead().await,
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                Err(StoreError::AlreadyBegun { node: self.settings.node.clone() })
            }
            Err(error) => Err(StoreError::Stopped { why: error.to_string() }),
        }
    }

    /// Waits until this manager leads.
    pub(crate) async fn lead(&self) -> Result<(), StoreError> {
        let mut leads = self.leads.subscribe();
        let led = timeout_at(Instant::now() + self.settings.wait, leads.wait_for(|it| it.me)).await;
        led.map_err(|_| StoreError::NoLeader)?.map(drop).map_err(|_| StoreError::NoLeader)
    }

    /// Makes a node, whose store belongs to no swarm yet, a manager. It has everything when this returns. A manager that is
    /// one already gets the new address; one that lost its folder is taken back without what it had. If this fails, it may be tried
    /// again with the same store.
    pub async fn add_manager(&self, id: &str, addr: &str) -> Result<(), StoreError> {
        let call = || Call::Add { node: id.to_owned(), addr: addr.to_owned() };
        self.done(call).await
    }

    /// Removes this node from the managers. Its store should be shut down then, and its folder removed.
    pub async fn remove_manager(&self, id: &str) -> Result<(), StoreError> {
        self.done(|| Call::Remove { node: id.to_owned() }).await
    }

    /// Lets another manager lead, the one that has most.
    pub async fn transfer(&self) -> Result<(), StoreError> {
        let leader = self.running()?.leader().ok_or(StoreError::NoLeader)?;
        self.done(|| Call::StepDown { leader: leader.clone() }).await
    }

    async fn done(&self, call: impl Fn() -> Call) -> Result<(), StoreError> {
        let asked = self.running()?.ask(call, Instant::now() + self.settings.wait).await?;
        if matches!(asked.answer, Answer::Done) { Ok(()) } else { Err(strange()) }
    }

    /// The managers as the leader sees them. Without a leader: who they are, and nobody knows who is there.
    pub async fn managers(&self) -> Result<Vec<ManagerSeen>, StoreError> {
        let running = self.running()?;
        let until = Instant::now() + self.settings.patience * 4;
        match running.ask(|| Call::Managers, until).await {
            Ok(Asked { answer: Answer::Managers(seen), .. }) => Ok(seen),
            Ok(_) => Err(strange()),
            Err(StoreError::NoLeader | StoreError::Lost { .. }) => Ok(running.managers_known()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the key that opens the folder; `None` leaves it open without one.
    pub async fn rotate_key(&self, key: Option<Key>) -> Result<(), StoreError> {
        let _one = self.lifecycle.lock().await;
        herder_parts::blocking(|| self.vault.lock(key.as_ref()))
    }

    /// Lets another manager lead, if this one does and another one can: for a leader whose own work has failed.
    pub async fn give_up_lead(&self) {
        if let Ok(running) = self.running()
            && running.metrics().current_leader.as_ref() == Some(&running.me)
            && let Err(error) = running.step_down().await
        {
            tracing::warn!(?error, "no other manager can lead; this one goes on");
        }
    }

    /// Ends this manager's part in good order: if it leads, another one does before. The folder may be opened again then.
    pub async fn shutdown(&self) {
        let _one = self.lifecycle.lock().await;
        if let Ok(running) = self.running() {
            // If nobody else can lead, the others will find out.
            let _ = running.step_down().await;
        }
        self.stop().await;
    }

    /// Resolves with the cause when the store has stopped by itself, as it does on a failing disk. It must be opened
    /// anew then.
    pub async fn ended(&self) -> String {
        loop {
            let Ok(running) = self.running() else {
                // Between an end and a start, by what needs that, somebody holds this.
                let _one = self.lifecycle.lock().await;
                match self.running() {
                    Ok(_) => continue,
                    Err(_) => return "it was shut down".to_owned(),
                }
            };
            let why = running.ended().await;
            // It may have been started again meanwhile, by what needs that.
            let _one = self.lifecycle.lock().await;
            if self.running().is_ok_and(|it| Arc::ptr_eq(&it, &running)) || self.running().is_err() {
                return why;
            }
        }
    }

    /// Ends at once, and without a word to others, as a program that is killed.
    pub async fn abandon(&self) {
        let _one = self.lifecycle.lock().await;
        self.stop().await;
    }
}

/// Runs work that waits for disks on a thread where it blocks no task.
pub(crate) async fn on_thread<T: Send + 'static>(
    backend: &BackendHandle,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = backend.work(work).await;
    done.unwrap_or_else(|error| Err(StoreError::Stopped { why: error.to_string() }))
}

fn command(changes: Vec<Change>, at: Time) -> Result<Command, StoreError> {
    let command = Command { at, changes };
    let bytes = length(&command);
    if bytes > COMMAND_BYTES_MAX { Err(StoreError::TooLarge { bytes }) } else { Ok(command) }
}

fn lost(why: &str) -> StoreError {
    StoreError::Lost { why: why.to_owned() }
}

/// Returns the length in JSON.
fn length(command: &Command) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, command).map_or(usize::MAX, |()| count.0)
}

fn strange() -> StoreError {
    StoreError::Refused("the leader's answer does not fit the question".to_owned())
}

/// Maps a lost outcome to an ordinary failure, since a question changes nothing.
fn nothing_done(error: StoreError) -> StoreError {
    if matches!(error, StoreError::Lost { .. }) { StoreError::NoLeader } else { error }
}
