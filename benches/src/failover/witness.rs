//! Records: acknowledged writes, and lifetimes of containers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::http::Connection;
use crate::pool::API;

/// Pause between two writes.
const REST: Duration = Duration::from_millis(20);
/// Longer than a manager tries.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Maximum time until the first write is acknowledged.
const WARM_TIME_MAX: Duration = Duration::from_secs(10);

/// Writes one config after the other, at one door.
#[derive(Debug)]
pub(super) struct Writer {
    stop: watch::Sender<bool>,
    count: watch::Receiver<usize>,
    work: JoinHandle<anyhow::Result<Written>>,
}

/// An acknowledged write.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Ids of configs, and when their writes began and were answered.
    acknowledged: Vec<(String, Instant, Instant)>,
}

impl Writer {
    pub(super) fn start(door: String) -> Writer {
        let ((stop, stopped), (counted, count)) = (watch::channel(false), watch::channel(0));
        Writer { stop, count, work: tokio::spawn(write(door, stopped, counted)) }
    }

    /// Waits until writes are acknowledged.
    pub(super) async fn warm(&self) -> anyhow::Result<()> {
        let mut count = self.count.clone();
        timeout(WARM_TIME_MAX, count.wait_for(|it| *it > 2)).await.context("no write is acknowledged")??;
        Ok(())
    }

    pub(super) async fn end(self) -> anyhow::Result<Written> {
        self.stop.send_replace(true);
        self.work.await?
    }
}

async fn write(door: String, stopped: watch::Receiver<bool>, counted: watch::Sender<usize>) -> anyhow::Result<Written> {
    let mut written = Written::default();
    let mut connection = Connection::open(&door).await?;
    let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    for number in 0_u64.. {
        if *stopped.borrow() {
            break;
        }
        let body = json!({"Name": format!("w-{run}-{number}"), "Data": "eA=="});
        let began = Instant::now();
        let path = format!("{API}/configs/create");
        match timeout(WRITE_TIME_MAX, connection.call("POST", &path, Some(&body))).await {
            Ok(Ok(made)) => {
                let id = made["ID"].as_str().context("no id was answered")?;
                written.acknowledged.push((id.to_owned(), began, Instant::now()));
                counted.send_modify(|it| *it += 1);
            }
            // Refused: whether it was written is not known.
            Ok(Err(_)) => {}
            Err(_) => connection = Connection::open(&door).await?,
        }
        sleep(REST).await;
    }
    Ok(written)
}

impl Written {
    /// Returns the time from a moment until a write that began after it was acknowledged. One that was under way tells
    /// the same, for it waits.
    pub(super) fn first_after(&self, moment: Instant) -> Duration {
        let after = self.acknowledged.iter().filter(|(_, began, _)| *began >= moment);
        after.map(|(_, _, answered)| *answered - moment).min().unwrap_or(WRITE_TIME_MAX)
    }

    pub(super) fn ids(self) -> Vec<String> {
        self.acknowledged.into_iter().map(|(id, _, _)| id).collect()
    }
}

/// Reads the records of containers. `service container` is the name of the file, and each line is a moment, in seconds
/// since this machine was started. Returns those of one service that lived at the same time.
pub(super) fn lived_twice(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut lives: BTreeMap<String, Vec<(f64, f64, String)>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(entry.path())?;
        let mut moments = text.lines().filter_map(|line| line.split(' ').next()?.parse::<f64>().ok());
        let Some(first) = moments.next() else { continue };
        let last = moments.next_back().unwrap_or(first);
        let Some((service, _)) = name.split_once('-') else { bail!("a strange file: {name}") };
        lives.entry(service.to_owned()).or_default().push((first, last, name));
    }
    let mut twice = Vec::new();
    for (service, mut lives) in lives {
        lives.sort_by(|one, other| one.0.total_cmp(&other.0));
        for pair in lives.windows(2) {
            if pair[1].0 <= pair[0].1 {
                twice.push(format!("{service} lived twice for {:.2} s: {pair:?}", pair[0].1 - pair[1].0));
            }
        }
    }
    Ok(twice)
}
