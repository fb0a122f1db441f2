//! Serves an event bus with all its bridges and some services, for tests of clients. Usage: `bus URL TCP_ADDRESS`,
//! such as `bus tcp://127.0.0.1:0 127.0.0.1:0`. Prints the listening address.

mod services;

use std::io::Write as _;

use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(tcp_address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bus URL TCP_ADDRESS".into());
    };
    let (door, clients) = services::start(&url, &tcp_address, &CancellationToken::new()).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{door} {clients}")?;
    out.flush()?;
    Ok(tokio::signal::ctrl_c().await?)
}
