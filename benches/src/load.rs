//! Load on one address: some connections, each asking again as soon as it has its answer.

use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::future::try_join_all;

use crate::http::Connection;
use crate::report::{Times, middle};

/// Result of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub times: Vec<Duration>,
    pub busy: Duration,
}

impl Outcome {
    fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.busy.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Milliseconds below which this share of the answers came.
    pub(crate) fn ms(&self, share: f64) -> f64 {
        self.times.iter().copied().collect::<Times>().ms(share)
    }

    pub(crate) fn add(&mut self, other: Outcome) {
        self.times.extend(other.times);
        self.busy += other.busy;
    }
}

/// Connections that are open and warm.
#[derive(Debug)]
pub(crate) struct Load {
    connections: Vec<Connection>,
    request: Vec<u8>,
}

impl Load {
    pub(crate) async fn open(addr: &str, connections: usize, request: Vec<u8>) -> anyhow::Result<Load> {
        let connections = try_join_all((0..connections).map(|_| Connection::open(addr))).await?;
        let mut load = Load { connections, request };
        load.run(Duration::ZERO).await?;
        Ok(load)
    }

    /// Asks for this long; each connection at least once.
    pub(crate) async fn run(&mut self, period: Duration) -> anyhow::Result<Outcome> {
        let began = Instant::now();
        let request = &self.request;
        let parts = self.connections.iter_mut().map(|connection| async move {
            let (mut times, mut body) = (Vec::new(), Vec::new());
            loop {
                let asked = Instant::now();
                let status = connection.exchange(request, &mut body).await?;
                if status != 200 {
                    bail!("the answer is {status}: {}", String::from_utf8_lossy(&body));
                }
                times.push(asked.elapsed());
                if began.elapsed() >= period {
                    return Ok(times);
                }
            }
        });
        let times: Vec<Duration> = try_join_all(parts).await?.concat();
        Ok(Outcome { times, busy: began.elapsed() })
    }
}

/// Loads two sides in turn, so that both see the same weather. Both outcomes, and both rates in the middle round.
pub(crate) async fn side_by_side(
    (measured, baseline): (&mut Load, &mut Load),
    rounds: u32,
    period: Duration,
) -> anyhow::Result<(Outcome, Outcome, (f64, f64))> {
    let (mut first, mut second, mut rates) = (Outcome::default(), Outcome::default(), Vec::new());
    for _ in 0..rounds {
        let (theirs, ours) = (baseline.run(period).await?, measured.run(period).await?);
        rates.push((ours.per_second(), theirs.per_second()));
        second.add(theirs);
        first.add(ours);
    }
    Ok((first, second, middle(rates)))
}
