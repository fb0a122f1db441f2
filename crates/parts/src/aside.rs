//! Processes beside herder, which outlive it. They are started where there is none, and fed by lines of JSON over a
//! unix socket.
//!
//! Each line is a [`Feed`] with a number; the process answers with a [`Done`] of that number once it is in use. A release feeds also the
//! process that the one before has started.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Maximum time until a process opens its socket.
const START_TIME_MAX: Duration = Duration::from_secs(5);
const START_PAUSE: Duration = Duration::from_millis(20);

/// Maximum time until a process uses a feed.
const FEED_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reason why a process beside herder cannot be started or fed.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    #[error("{path}: {source}")]
    Socket { path: String, source: io::Error },
    #[error("it refuses its feed: {0}")]
    Refused(String),
    #[error("it does not answer: {0}")]
    Gone(io::Error),
}

/// A message to the process.
pub trait Feed: Serialize + DeserializeOwned + Send {
    /// The member that [`Done::number`] returns.
    fn number_mut(&mut self) -> &mut u64;
}

/// The answer of the process, once it uses a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    pub number: u64,
    /// Reason why not all of it is in use; else empty.
    pub error: String,
    /// Level of feeds that the process understands; 0 for the first ones.
    pub level: u32,
}

/// A connection to a process.
#[derive(Debug)]
pub struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
    number: u64,
    level: u32,
}

impl Client {
    /// # Errors
    ///
    /// If no process listens there.
    pub async fn connect(path: &Path) -> Result<Client, AsideError> {
        let failed = |source| AsideError::Socket { path: path.display().to_string(), source };
        let (read, write) = UnixStream::connect(path).await.map_err(failed)?.into_split();
        Ok(Client { lines: BufReader::new(read).lines(), write, number: 0, level: 0 })
    }

    /// Returns when the process uses what it was sent.
    ///
    /// # Errors
    ///
    /// [`AsideError::Gone`] if the connection has to be made anew; [`AsideError::Refused`] if not all of the feed is in use.
    pub async fn feed<F: Feed>(&mut self, mut feed: F) -> Result<(), AsideError> {
        self.number += 1;
        *feed.number_mut() = self.number;
        let line = serde_json::to_string(&feed).map_err(|error| AsideError::Refused(error.to_string()))?;
        let done = timeout(FEED_TIME_MAX, self.exchange(&line)).await;
        let done = done.map_err(|_| AsideError::Gone(io::ErrorKind::TimedOut.into()))?.map_err(AsideError::Gone)?;
        self.level = done.level;
        if done.error.is_empty() { Ok(()) } else { Err(AsideError::Refused(done.error)) }
    }

    async fn exchange(&mut self, line: &str) -> io::Result<Done> {
        self.write.write_all(format!("{line}\n").as_bytes()).await?;
        loop {
            let line = self.lines.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let done: Done = serde_json::from_str(&line)?;
            if done.number == self.number || done.number == 0 {
                return Ok(done);
            }
        }
    }

    /// Level of feeds that the process understands, as it said last.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Returns when the process has gone away.
    pub async fn closed(&mut self) {
        // Nothing is said unasked.
        while let Ok(Some(_)) = self.lines.next_line().await {}
    }
}

/// A process that is started when it is to be fed, unless one listens already.
#[derive(Debug)]
pub struct Aside {
    name: &'static str,
    command: Vec<OsString>,
    socket: PathBuf,
    client: Option<Client>,
}

impl Aside {
    /// `command` is a program and its arguments; the path of the socket and the folder follow as `--socket` and `--folder`.
    pub fn new(name: &'static str, command: Vec<OsString>, socket: PathBuf, folder: &Path) -> Aside {
        let options: [OsString; 4] = ["--socket".into(), socket.clone().into(), "--folder".into(), folder.into()];
        Aside { name, command: command.into_iter().chain(options).collect(), socket, client: None }
    }

    pub fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// Level of feeds that the process understands; 0 before its first answer.
    pub fn level(&self) -> u32 {
        self.client.as_ref().map_or(0, Client::level)
    }

    /// Connects to the process, and starts it where there is none. True if the connection is a new one.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub async fn connect(&mut self) -> Result<bool, AsideError> {
        let is_new = self.client.is_none();
        if is_new {
            self.client = Some(self.connected().await?);
        }
        Ok(is_new)
    }

    /// Connects to the process if there is one.
    pub async fn find(&mut self) -> bool {
        if self.client.is_none() {
            self.client = Client::connect(&self.socket).await.ok();
        }
        self.client.is_some()
    }

    /// Returns when the process uses the feed. Call [`Aside::connect`] before.
    ///
    /// # Errors
    ///
    /// If the process is gone, or refuses the feed.
    pub async fn feed<F: Feed>(&mut self, feed: F) -> Result<(), AsideError> {
        let Some(client) = &mut self.client else { return Err(AsideError::Gone(io::ErrorKind::NotConnected.into())) };
        let outcome = client.feed(feed).await;
        if let Err(AsideError::Gone(_)) = outcome {
            self.client = None;
        }
        outcome
    }

    /// Returns when the process has gone away; never if there is none that was fed.
    pub async fn gone(&mut self) {
        match &mut self.client {
            Some(client) => client.closed().await,
            None => std::future::pending().await,
        }
        self.client = None;
    }

    async fn connected(&self) -> Result<Client, AsideError> {
        if let Ok(client) = Client::connect(&self.socket).await {
            return Ok(client);
        }
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(AsideError::Gone(io::ErrorKind::NotFound.into()));
        };
        info!(program = %program.display(), "starting {}", self.name);
        let mut command = Command::new(program);
        // A process group of its own: what ends herder does not end it.
        command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(false);
        let mut child = command.spawn().map_err(AsideError::Gone)?;
        // Its end is seen by the connection; this only takes its status.
        tokio::spawn(async move { child.wait().await });
        let connecting = async {
            loop {
                match Client::connect(&self.socket).await {
                    Ok(client) => return client,
                    Err(_) => sleep(START_PAUSE).await,
                }
            }
        };
        timeout(START_TIME_MAX, connecting).await.map_err(|_| AsideError::Gone(io::ErrorKind::TimedOut.into()))
    }
}

/// Takes feeds of this level and below from the Unix socket `path`, for as long as this future is polled.
///
/// # Errors
///
/// If the socket cannot be made.
pub async fn serve<F, T, W>(path: &Path, level: u32, take: T) -> Result<(), AsideError>
where
    F: Feed + 'static,
    T: Fn(F) -> W + Clone + Send + 'static,
    W: Future<Output = Result<(), String>> + Send + 'static,
{
    // One that is left over by a process that was killed.
    let _ = tokio::fs::remove_file(path).await;
    let listener =
        UnixListener::bind(path).map_err(|source| AsideError::Socket { path: path.display().to_string(), source })?;
    // They end with this future.
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                connections.spawn(fed(stream, level, take.clone()));
            }
            Err(error) => {
                warn!(%error, "cannot accept a feed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads feeds from one connection, and says when each is in use.
async fn fed<F, T, W>(stream: UnixStream, level: u32, take: T)
where
    F: Feed,
    T: Fn(F) -> W,
    W: Future<Output = Result<(), String>>,
{
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let done = match serde_json::from_str::<F>(&line) {
            Ok(mut feed) => {
                let number = *feed.number_mut();
                Done { number, error: take(feed).await.err().unwrap_or_default(), level }
            }
            Err(error) => Done { number: 0, error: error.to_string(), level },
        };
        let Ok(line) = serde_json::to_string(&done) else { return };
        if write.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}
