//! Disks that lie, keys that are missing, managers that are late.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{LIMIT, Swarm, addr, has, put, secret, until};
use herder_model::swarm::{Object, Time};
use herder_store::{COMMAND_BYTES_MAX, Key, StoreError};

/// Text that must be in no file of a store.
const CANARY: &str = "canary-5f0c1d7a";

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_written_is_on_the_disk_in_clear() {
    let swarm = Swarm::with(1, |settings| settings.snapshot_interval = 20).await;
    let store = swarm.store("n1");
    for number in 0..60 {
        let text = format!("{CANARY} {number}");
        store.commit(vec![secret(&format!("{CANARY}-{number}"), &text)], Time(1)).await.expect("written");
    }
    let found = || {
        let files = files(swarm.folder.path()).into_iter();
        let clear = files.filter(|path| {
            let bytes = fs::read(path).expect("readable");
            bytes.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes())
        });
        clear.collect::<Vec<_>>()
    };
    assert!(found().is_empty(), "{:?}", found());
    let path = swarm.folder.path().join("backup");
    fs::write(&path, store.backup(None).await.expect("backed up")).expect("written");
    assert_eq!(found(), [path], "the test finds nothing where there is something");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(swarm.path("n1").join("raft/key")).expect("there"));
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_store_opens_with_the_newest_key_only() {
    let mut swarm = Swarm::of(1).await;
    put(&swarm.store("n1"), "a").await.expect("written");
    let (one, two) = (Key::random(), Key::random());
    let store = swarm.store("n1");
    store.rotate_key(Some(one.clone())).await.expect("locked");
    put(&store, "b").await.expect("written while it is locked for others");
    swarm.kill("n1").await;
    let check = async |swarm: &mut Swarm, key: Option<&Key>, expected: &str| {
        swarm.key = key.cloned();
        match swarm.open("n1").await {
            Ok(store) => {
                assert_eq!(expected, "open");
                assert!(has(&store.read().await.expect("read"), "b"));
                true
            }
            Err(error) => {
                assert_eq!(error.to_string(), expected);
                false
            }
        }
    };
    check(&mut swarm, None, "the store is locked: it opens with the key of the swarm").await;
    check(&mut swarm, Some(&two), "the store could not be unlocked: invalid key provided").await;
    assert!(check(&mut swarm, Some(&one), "open").await);
    swarm.store("n1").rotate_key(Some(two.clone())).await.expect("another key");
    swarm.kill("n1").await;
    check(&mut swarm, Some(&one), "the store could not be unlocked: invalid key provided").await;
    assert!(check(&mut swarm, Some(&two), "open").await);
    swarm.store("n1").rotate_key(None).await.expect("no key");
    swarm.kill("n1").await;
    assert!(check(&mut swarm, None, "open").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_changed_on_the_disk_does_not_start() {
    let swarm = Swarm::with(1, |settings| {
        settings.snapshot_interval = 30;
        settings.keep = 5;
    })
    .await;
    for number in 0..100 {
        put(&swarm.store("n1"), &format!("secret {number}")).await.expect("written");
    }
    swarm.kill("n1").await;
    let path = swarm.path("n1").join("raft/store.redb");
    let whole = fs::read(&path).expect("there");
    let check = async |name: &str, bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        let error = swarm.open("n1").await.map(|_| ()).expect_err(name);
        assert!(matches!(error, StoreError::Damaged { .. }), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("cannot be used: ") && text.contains("let this node join again"), "{name}: {text}");
    };
    check("empty", b"").await;
    check("half", &whole[..whole.len() / 2]).await;
    check("another file", b"this is no database").await;
    let mut garbled = whole.clone();
    garbled[..4096].fill(0xaa);
    check("its head", &garbled).await;
    let mut opened = 0;
    for page in (0..whole.len()).step_by(4096) {
        let mut garbled = whole.clone();
        garbled[page + 100] ^= 0x10;
        fs::write(&path, &garbled).expect("written");
        match swarm.open("n1").await {
            // Nothing that counts was in that page.
            Ok(store) => {
                assert_eq!(store.read().await.expect("read").secrets.len(), 100, "page at {page}");
                swarm.kill("n1").await;
                opened += 1;
            }
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "page at {page}: {error}"),
        }
    }
    assert!(opened < whole.len() / 4096, "no page was found out");
    fs::write(&path, &whole).expect("written");
    assert_eq!(swarm.open("n1").await.expect("opens").read().await.expect("read").secrets.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_disk_was_damaged_gets_everything_from_the_others() {
    let swarm = Swarm::of(3).await;
    put(&swarm.store("n1"), "a").await.expect("written");
    swarm.kill("n2").await;
    fs::write(swarm.path("n2").join("raft/store.redb"), b"").expect("written");
    assert!(matches!(swarm.open("n2").await, Err(StoreError::Damaged { .. })));
    fs::remove_dir_all(swarm.path("n2")).expect("as the error says");
    swarm.join("n2").await;
    assert!(has(&swarm.store("n2").view(), "a"));
    assert_eq!(swarm.store("n1").managers().await.expect("runs").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_opened_once_and_by_its_own_node() {
    let swarm = Swarm::of(1).await;
    let error = swarm.open("n1").await.map(|_| ()).expect_err("in use");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    swarm.kill("n1").await;
    fs::rename(swarm.path("n1"), swarm.path("n2")).expect("moved");
    let error = swarm.open("n2").await.map(|_| ()).expect_err("another's").to_string();
    assert!(error.ends_with("belongs to n1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_dropped_lets_go_of_its_folder() {
    let swarm = Swarm::of(1).await;
    put(&swarm.store("n1"), "a").await.expect("written");
    swarm.forget("n1");
    assert!(has(&swarm.open("n1").await.expect("opens").read().await.expect("read"), "a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_comes_late_gets_a_snapshot_in_parts() {
    let swarm = Swarm::with(3, |settings| {
        settings.snapshot_interval = 50;
        settings.keep = 10;
    })
    .await;
    swarm.kill("n3").await;
    let text = "x".repeat(20_000);
    for number in 0..160 {
        let change = secret(&format!("s{number}"), &text);
        swarm.store("n1").commit(vec![change], Time(1)).await.expect("written");
    }
    let before = swarm.net.messages();
    let store = swarm.open("n3").await.expect("opens");
    let (_, mut watch) = store.watch();
    until(&store, |view| view.secrets.len() == 160).await;
    assert!(watch.next().await.resync, "it was not a snapshot");
    assert!(swarm.net.messages() - before >= 4, "3 MB came in one message");
    swarm.agree().await;
    // And it has it on its disk.
    for node in ["n3", "n1", "n2"] {
        swarm.kill(node).await;
    }
    for node in ["n3", "n1"] {
        swarm.open(node).await.expect("opens");
    }
    assert_eq!(swarm.agree().await.secrets.len(), 160);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_too_large_is_refused_and_one_that_just_fits_is_not() {
    let swarm = Swarm::of(3).await;
    let store = swarm.store("n2");
    let change = |size: usize| vec![secret("large", &"x".repeat(size))];
    let error = store.commit(change(COMMAND_BYTES_MAX), Time(1)).await.expect_err("too large");
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    store.commit(change(COMMAND_BYTES_MAX - 1000), Time(1)).await.expect("written");
    swarm.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_sees_every_write_in_order_or_is_told_that_it_did_not() {
    let swarm = Swarm::of(1).await;
    let store = swarm.store("n1");
    let (view, mut watch) = store.watch();
    assert_eq!(view.index, store.view().index);
    for name in ["a", "b", "c"] {
        put(&store, name).await.expect("written");
    }
    for name in ["a", "b", "c"] {
        let seen = watch.next().await;
        assert!(!seen.resync && has(&seen.view, name));
        let written: Vec<&str> = seen.written.iter().filter_map(|it| it.object().map(Object::name)).collect();
        assert_eq!(written, [name]);
    }
    put(&store, "a").await.expect_err("a conflict is no news");
    let waits = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
    assert!(waits.is_err(), "{waits:?}");
    let began = Instant::now();
    let writes = (0..1100).map(|number| {
        let (store, name) = (store.clone(), format!("many {number}"));
        async move { put(&store, &name).await.map(drop) }
    });
    futures_util::future::try_join_all(writes).await.expect("nobody waits for who watches");
    assert!(began.elapsed() < LIMIT);
    let seen = watch.next().await;
    assert!(seen.resync && seen.written.is_empty());
    assert_eq!(seen.view.secrets.len(), 1103);
    put(&store, "last").await.expect("written");
    let seen = watch.next().await;
    assert!(!seen.resync && has(&seen.view, "last"));
    assert_eq!(addr("n1"), "n1:2377");
}
