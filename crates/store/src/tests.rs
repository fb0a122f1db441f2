//! Tests from within: raft's own tests of a store, and a full disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use herder_model::swarm::{Change, ClusterRecord, Command, Config, ConfigSpec, Secret, Time};
use openraft::StorageError;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::BackendHandle;
use crate::board::Board;
use crate::disk::{Disk, LOG, Op, SNAPSHOT};
use crate::leading::Leads;
use crate::log::Log;
use crate::machine::Machine;
use crate::message::{Answer, Call, Refusal, Request, decode, encode};
use crate::raft::{Address, Entry, LogId, Member, Outcome, Proposal, RequestId, SnapshotMeta, Types, Vote};
use crate::running::Running;
use crate::seal::Sealer;
use crate::state::State;
use crate::{Settings, Store, StoreError, Transport, TransportError};

struct Folders;

impl StoreBuilder<Types, Log, Machine, TempDir> for Folders {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<Types>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.redb");
        Disk::create(&BackendHandle::default(), &path, &Sealer::new(&[1; 32]), "n1").expect("made");
        let (disk, found) = Disk::open(BackendHandle::default(), &path, Sealer::new(&[1; 32])).expect("opens");
        let disk = Arc::new(disk);
        Ok((folder, Log::new(Arc::clone(&disk), found, 1 << 20), Machine::new(disk, Board::new())))
    }
}

#[test]
fn the_store_is_what_raft_expects() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(Suite::test_all(Folders)).expect("all of it");
}

/// A disk in memory that can be full.
#[derive(Clone, Debug, Default)]
struct MemoryBackend {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl MemoryBackend {
    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn at(offset: u64, length: usize) -> std::ops::Range<usize> {
        let offset = usize::try_from(offset).expect("small");
        offset..offset + length
    }

    fn open(&self) -> redb::Database {
        redb::Builder::new().create_with_backend(self.clone()).expect("opens")
    }
}

impl redb::StorageBackend for MemoryBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock();
        let there = bytes.get(MemoryBackend::at(offset, out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.bytes.lock().resize(usize::try_from(len).expect("small"), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.bytes.lock()[MemoryBackend::at(offset, data.len())].copy_from_slice(data);
        Ok(())
    }
}

struct Nobody;

impl Transport for Nobody {
    fn call<'a>(&'a self, _: &'a str, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async { Err(TransportError("nobody is there".to_owned())) })
    }
}

async fn run(backend: &MemoryBackend, board: &Arc<Board>, member: Option<Member>) -> Running {
    if let Some(member) = member {
        Disk::fill(&backend.open(), &Sealer::new(&[1; 32]), member).expect("made");
    }
    let (disk, found) =
        Disk::with(BackendHandle::default(), backend.open(), "memory".into(), Sealer::new(&[1; 32])).expect("opens");
    let leads = Leads::new(watch::Sender::default());
    let settings = Settings::new("memory", "n1");
    Running::start(&settings, Arc::new(Nobody), Arc::clone(board), leads, (disk, found)).await.expect("starts")
}

async fn write(running: &Running, name: &str) -> Result<Outcome, StoreError> {
    let mut secret = Secret { id: name.to_owned(), ..Secret::default() };
    secret.spec.name = name.to_owned();
    let command = Command { at: Time(1), changes: vec![Change::from(secret)] };
    let proposal = Proposal { request: RequestId(rand::random()), since: 0, command };
    let asked = running.ask(|| Call::Commit(proposal.clone()), Instant::now() + running.wait).await?;
    match asked.answer {
        Answer::Outcome(outcome) => Ok(outcome),
        _ => Err(StoreError::Refused("strange".to_owned())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_store_with_its_reason_and_loses_nothing_that_was_acknowledged() {
    let (backend, member) = (MemoryBackend::default(), Member::new("n1"));
    let running = run(&backend, &Board::new(), Some(member.clone())).await;
    running.raft.initialize(BTreeMap::from([(member, Address::default())])).await.expect("begins");
    for name in ["a", "b"] {
        assert!(matches!(write(&running, name).await, Ok(Outcome::Done(_))));
    }
    backend.full.store(true, Ordering::Relaxed);
    let error = write(&running, "c").await.expect_err("the disk is full");
    assert!(matches!(error, StoreError::Lost { .. } | StoreError::Stopped { .. }), "{error}");
    let error = write(&running, "d").await.expect_err("it has stopped").to_string();
    assert!(error.starts_with("the store has stopped: ") && error.contains("no storage space"), "{error}");
    running.stop().await;
    drop(running);

    backend.full.store(false, Ordering::Relaxed);
    let board = Board::new();
    let running = run(&backend, &board, None).await;
    assert!(matches!(write(&running, "e").await, Ok(Outcome::Done(_))));
    let view = board.view();
    for name in ["a", "b", "e"] {
        assert!(view.secrets.contains_key(name), "{name}");
    }
    assert!(!view.secrets.contains_key("d"));
    running.stop().await;
}

/// Raft counts commands, and would keep thousands of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_few_but_long_commands_is_cut_short() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { log_bytes: 2 << 20, ..Settings::new(folder.path().join("store"), "n1") };
    let store = Store::open(settings.clone(), Arc::new(Nobody)).await.expect("opens");
    store.begin("n1:1").await.expect("begins");
    for number in 0..24 {
        let mut config = Config { id: format!("c{number:02}"), ..Config::default() };
        config.spec = ConfigSpec { name: config.id.clone(), data: "x".repeat(1 << 20), ..ConfigSpec::default() };
        store.commit(vec![config.into()], Time(1)).await.expect("written");
    }
    let running = store.running().expect("it runs");
    let mut metrics = running.raft.metrics();
    let purged = async {
        while metrics.borrow_watched().purged.as_ref().is_none_or(|it| it.index < 5) {
            metrics.changed().await.expect("raft goes on");
        }
    };
    tokio::time::timeout(running.wait, purged).await.expect("what is in the snapshot is not in the log");
    drop(running);
    store.shutdown().await;
    drop(store);
    let store = Store::open(settings, Arc::new(Nobody)).await.expect("opens");
    store.lead().await.expect("it leads");
    assert_eq!(store.view().configs.len(), 24);
    store.shutdown().await;
}

/// A node of the pool that is no manager has a certificate, and takes the same road.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_claims_to_be_a_manager_is_refused_and_one_that_is_one_is_heard() {
    let (backend, member, board) = (MemoryBackend::default(), Member::new("n1"), Board::new());
    let running = run(&backend, &board, Some(member.clone())).await;
    running.raft.initialize(BTreeMap::from([(member, Address::default())])).await.expect("begins");
    assert!(matches!(write(&running, "before").await, Ok(Outcome::Done(_))));
    let cluster = ClusterRecord { managers_key: "key".into(), ..ClusterRecord::default() };
    let mut secret = Secret { id: "a".into(), ..Secret::default() };
    secret.spec.name = "a".into();
    let changes = vec![Change::from(cluster), Change::from(secret)];
    let proposal = Proposal { request: RequestId(1), since: 0, command: Command { at: Time(1), changes } };
    running.ask(|| Call::Commit(proposal.clone()), Instant::now() + running.wait).await.expect("written");
    let before = board.view();
    let other = Member::new("worker");
    let leader_id = openraft::vote::RaftLeaderId::new(running.metrics().current_term + 10, other.clone());
    let vote = Vote { leader_id, committed: false };
    let last = Some(LogId { leader_id: vote.leader_id.clone(), index: 1000 });
    let append = |leader_commit| {
        let vote = Vote { committed: true, ..vote.clone() };
        Call::Append(AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit })
    };
    let ask = async |call: Call, proof: String| {
        let request = Request { from: other.clone(), to: None, call, proof };
        let request = encode(&request, &[]).expect("JSON");
        let answer = running.handle("worker", request).await.expect("an answer");
        decode::<Answer>(&answer).expect("JSON").0
    };
    let forged =
        ["", "key", "AAAA"].map(str::to_owned).into_iter().chain([crate::proof::of("key", &Member::new("worker"))]);
    for proof in forged {
        for call in [
            append(None),
            append(last.clone()),
            Call::Vote(VoteRequest::new(vote.clone(), last.clone())),
            Call::PreVote(VoteRequest::new(vote.clone(), last.clone())),
            Call::Commit(Proposal { request: RequestId(2), ..proposal.clone() }),
            Call::Remove { node: "n1".into() },
            Call::StepDown { leader: running.me.clone() },
        ] {
            let answer = ask(call, proof.clone()).await;
            let Answer::Refused(Refusal::Other(why)) = answer else { panic!("it was heard") };
            assert!(why.contains("manager of this swarm"), "{why}");
        }
    }
    // Not even in the name of one.
    let request = Request { from: running.me.clone(), to: None, call: append(None), proof: String::new() };
    let error = running.handle("worker", encode(&request, &[]).expect("JSON")).await.expect_err("refused");
    assert_eq!(error.to_string(), "worker speaks for n1");
    let view = board.view();
    assert!(running.metrics().current_leader == Some(running.me.clone()) && view.index == before.index);
    assert!(matches!(write(&running, "after").await, Ok(Outcome::Done(_))));
    // One that n1 has not heard of yet, but that is one.
    let answer = ask(Call::Vote(VoteRequest::new(vote.clone(), last)), crate::proof::of("key", &other)).await;
    assert!(matches!(answer, Answer::Vote(_)));
    running.stop().await;
}

#[tokio::test]
async fn what_could_not_be_written_has_nothing_after_it() {
    let backend = MemoryBackend::default();
    let sealer = || Sealer::new(&[1; 32]);
    Disk::fill(&backend.open(), &sealer(), Member::new("n1")).expect("made");
    let (disk, _) = Disk::with(BackendHandle::default(), backend.open(), "memory".into(), sealer()).expect("opens");
    disk.write(vec![Op::Purged(None)]).await.expect("written");
    backend.full.store(true, Ordering::Relaxed);
    disk.write(vec![Op::Purged(None)]).await.expect_err("full");
    backend.full.store(false, Ordering::Relaxed);
    disk.write(vec![Op::Purged(None)]).await.expect_err("there would be a hole");
    disk.close().await;
}

/// The database is in order, but not what is in it.
#[tokio::test]
async fn what_is_not_as_it_was_sealed_is_named() {
    let sealer = || Sealer::new(&[1; 32]);
    let check = async |change: fn(&redb::WriteTransaction), key: &[u8; 32], expected: &str| {
        let backend = MemoryBackend::default();
        Disk::fill(&backend.open(), &sealer(), Member::new("n1")).expect("made");
        let (disk, _) = Disk::with(BackendHandle::default(), backend.open(), "memory".into(), sealer()).expect("opens");
        let entry = |index| -> Entry {
            let leader_id = openraft::vote::RaftLeaderId::new(1, Member::from(1));
            openraft::entry::RaftEntry::new_blank(LogId { leader_id, index })
        };
        let log = (0..4).map(|index| Op::Log(index, crate::envelope::wrap(&entry(index)).expect("JSON")));
        let snapshot = crate::snapshot::encode(&State::default()).expect("JSON");
        let snapshot = Op::Snapshot(SnapshotMeta::default(), snapshot.into());
        disk.write(log.chain([snapshot]).collect()).await.expect("written");
        disk.close().await;
        let database = backend.open();
        let transaction = database.begin_write().expect("begins");
        change(&transaction);
        transaction.commit().expect("written");
        drop(database);
        let opened =
            Disk::with(BackendHandle::default(), backend.open(), "memory".into(), Sealer::new(key)).map(|_| ());
        let text = opened.as_ref().map_or_else(ToString::to_string, |()| "opens".to_owned());
        assert!(text.starts_with(expected), "{text}");
    };
    fn log(transaction: &redb::WriteTransaction) -> redb::Table<'_, u64, &'static [u8]> {
        transaction.open_table(LOG).expect("there")
    }
    fn taken(table: &mut redb::Table<'_, u64, &'static [u8]>, key: u64) -> Vec<u8> {
        table.remove(key).expect("reads").expect("there").value().to_vec()
    }
    let key = &[1; 32];
    check(|_| {}, key, "opens").await;
    check(|_| {}, &[2; 32], "the member id in memory cannot be used: its seal is broken").await;
    let garbled = |transaction: &redb::WriteTransaction| {
        let mut value = taken(&mut log(transaction), 2);
        *value.last_mut().expect("bytes") ^= 1;
        log(transaction).insert(2, &*value).expect("written");
    };
    check(garbled, key, "the log in memory cannot be used: entry 2: its seal is broken").await;
    let moved = |transaction: &redb::WriteTransaction| {
        let value = taken(&mut log(transaction), 1);
        log(transaction).insert(3, &*value).expect("written");
    };
    check(moved, key, "the log in memory cannot be used: entry 3: its seal is broken").await;
    let missing = |transaction: &redb::WriteTransaction| drop(taken(&mut log(transaction), 1));
    check(missing, key, "the log in memory cannot be used: entry 1 is not there, 2 is").await;
    let partial = |transaction: &redb::WriteTransaction| {
        drop(taken(&mut transaction.open_table(SNAPSHOT).expect("there"), 0));
    };
    check(partial, key, "the snapshot in memory cannot be used: part 0 is not there").await;
}
