//! A discovery file is followed while it changes.

use std::collections::BTreeSet;
use std::time::Duration;

use herder_pool::discovery::{Discovery, Options};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

type Members = tokio::sync::watch::Receiver<Option<BTreeSet<String>>>;

async fn seen(members: &mut Members, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|addr| addr.to_string()).collect();
    let there = timeout(PATIENCE, members.wait_for(|seen| seen.as_ref() == Some(&expected))).await.map(drop);
    assert!(there.is_ok(), "expected {expected:?}, there are {:?}", members.borrow());
}

/// Checks that members stay the same for longer than a look at the file takes.
async fn unchanged(members: &mut Members) {
    let change = timeout(Duration::from_millis(2500), members.changed()).await;
    assert!(change.is_err(), "it became {:?}", members.borrow());
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cluster");
    // The heartbeat is far away: only the change can be what is noticed.
    let heartbeat = Duration::from_secs(3600);
    let discovery = Discovery::parse(&format!("file://{}", path.display()), &Options::default()).expect("a URL");
    let stop = CancellationToken::new();
    let mut members = discovery.watch(heartbeat, stop.clone());
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write("a:1 # first\n");
    seen(&mut members, &["a:1"]).await;
    write("a:1\n10.0.0.[1:2]:2375\n");
    seen(&mut members, &["10.0.0.1:2375", "10.0.0.2:2375", "a:1"]).await;
    // Nothing of a bad file is taken, nor does a missing one empty the list; a good one after them is read.
    write("nonsense\nb:1\n");
    unchanged(&mut members).await;
    std::fs::remove_file(&path).expect("removed");
    unchanged(&mut members).await;
    write("b:1\n");
    seen(&mut members, &["b:1"]).await;

    stop.cancel();
    timeout(PATIENCE, async { while members.changed().await.is_ok() {} }).await.expect("it stops");
}
