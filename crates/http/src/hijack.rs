//! A connection that stopped being HTTP: raw bytes in both directions, each with its own end.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{Either, select, try_join};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Bytes moved at once. Below 64 KiB the calls into the kernel cost more than the copying; above 256 KiB nothing is gained.
const PIECE_BYTES: usize = 128 << 10;

/// Both sides have agreed to the upgrade already; it takes no longer than writing one head.
const UPGRADE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Time for a client to close its own side after the engine's end. Its data is not read any more.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Joins two upgraded connections until both directions have ended, one breaks, or `lost` (the engine's node is gone).
/// Bytes that came together with the head are not lost.
pub async fn join(client: OnUpgrade, engine: OnUpgrade, lost: impl Future<Output = ()>) {
    let (client, engine) = match timeout(UPGRADE_WAIT_MAX, try_join(client, engine)).await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => return tracing::debug!(%error, "an upgrade failed"),
        Err(_) => return tracing::debug!("an upgrade did not happen in time"),
    };
    let both = exchange(TokioIo::new(client), TokioIo::new(engine));
    tokio::select! {
        result = both => if let Err(error) = result {
            tracing::debug!(%error, "a hijacked connection broke");
        },
        () = lost => tracing::info!("a hijacked connection ends because its node is lost"),
    }
}

/// Copies both ways. The end of the client's input goes on to the engine while output continues.
async fn exchange(
    client: impl AsyncRead + AsyncWrite + Unpin,
    engine: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (mut engine_reader, mut engine_writer) = tokio::io::split(engine);
    let input = std::pin::pin!(pump(&mut client_reader, &mut engine_writer));
    let output = std::pin::pin!(pump(&mut engine_reader, &mut client_writer));
    match select(input, output).await {
        Either::Left((input, output)) => {
            // An engine that ended while the client was still sending leaves output to be read.
            let written = output.await;
            input.and(written)
        }
        Either::Right((output, input)) => {
            output?;
            timeout(CLOSE_WAIT_MAX, input).await.unwrap_or(Ok(()))
        }
    }
}

async fn pump(reader: &mut (impl AsyncRead + Unpin), writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut piece = BytesMut::with_capacity(PIECE_BYTES);
    while reader.read_buf(&mut piece).await? > 0 {
        writer.write_all(&piece).await?;
        writer.flush().await?;
        piece.clear();
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs an engine's and a client's script on both ends of an exchange.
    async fn check(
        client_script: impl AsyncFnOnce(tokio::io::DuplexStream) -> String,
        engine_script: impl AsyncFnOnce(tokio::io::DuplexStream) -> String,
        expected: (&str, &str),
    ) {
        let (client, ours) = tokio::io::duplex(1000);
        let (engine, theirs) = tokio::io::duplex(1000);
        let (_, client, engine) = tokio::join!(exchange(ours, theirs), client_script(client), engine_script(engine));
        assert_eq!((client.as_str(), engine.as_str()), expected);
    }

    async fn read_all(stream: &mut tokio::io::DuplexStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("a stream that can be read");
        text
    }

    #[tokio::test]
    async fn output_goes_on_after_the_end_of_input() {
        check(
            async |mut client| {
                client.write_all(b"hi").await.expect("written");
                client.shutdown().await.expect("closed");
                read_all(&mut client).await
            },
            async |mut engine| {
                let input = read_all(&mut engine).await;
                engine.write_all(b"you said ").await.expect("written");
                engine.write_all(input.as_bytes()).await.expect("written");
                input
            },
            ("you said hi", "hi"),
        )
        .await;
    }

    #[tokio::test]
    async fn the_end_of_output_ends_the_exchange_when_the_client_closes() {
        check(
            async |mut client| read_all(&mut client).await,
            async |mut engine| {
                engine.write_all(b"done").await.expect("written");
                String::new()
            },
            ("done", ""),
        )
        .await;
    }

    #[tokio::test]
    async fn a_megabyte_arrives_whole_through_small_pipes() {
        let megabyte = "0123456789abcdef".repeat(1 << 16);
        let sent = megabyte.clone();
        check(
            async |mut client| read_all(&mut client).await,
            async |mut engine| {
                engine.write_all(sent.as_bytes()).await.expect("written");
                String::new()
            },
            (&megabyte, ""),
        )
        .await;
    }
}
