//! herder's side of the feed.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::DnsError;
use crate::feed::{Done, Feed};

/// Maximum time until the server uses a feed.
const FEED_TIME_MAX: Duration = Duration::from_secs(5);

/// A connection to the DNS server of this host.
#[derive(Debug)]
pub struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
    number: u64,
}

impl Client {
    /// # Errors
    ///
    /// If no server listens there.
    pub async fn connect(path: &Path) -> Result<Client, DnsError> {
        let failed = |source| DnsError::Socket { path: path.display().to_string(), source };
        let (read, write) = UnixStream::connect(path).await.map_err(failed)?.into_split();
        Ok(Client { lines: BufReader::new(read).lines(), write, number: 0 })
    }

    /// Returns when the server answers by what it was sent.
    ///
    /// # Errors
    ///
    /// [`DnsError::Gone`] if the connection has to be made anew; [`DnsError::Refused`] if not all of the feed is in use.
    pub async fn feed(&mut self, feed: Feed) -> Result<(), DnsError> {
        self.number += 1;
        let line = serde_json::to_string(&Feed { number: self.number, ..feed });
        let line = line.map_err(|error| DnsError::Refused(error.to_string()))?;
        let done = timeout(FEED_TIME_MAX, self.exchange(&line)).await;
        let done = done.map_err(|_| DnsError::Gone(io::ErrorKind::TimedOut.into()))?.map_err(DnsError::Gone)?;
        if done.error.is_empty() { Ok(()) } else { Err(DnsError::Refused(done.error)) }
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

    /// Returns when the server has gone away.
    pub async fn closed(&mut self) {
        // Nothing is said unasked.
        while let Ok(Some(_)) = self.lines.next_line().await {}
    }
}
