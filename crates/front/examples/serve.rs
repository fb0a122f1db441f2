//! Serves the Docker API over some engines, for trying the door alone: `serve tcp://127.0.0.1:23750 host:port…`.

use std::collections::BTreeSet;

use herder_decide::schedule::Scheduler;
use herder_front::{Front, FrontSettings, server};
use herder_place::reschedule;
use herder_pool::{Pool, Settings};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: serve URL ENGINE…")?;
    let pool = Pool::new(Settings::default());
    pool.set_members(&arguments.collect::<BTreeSet<String>>());
    let front = Front::new(pool, Scheduler::default(), FrontSettings::default());
    let listener = server::bind(&url, None).await?;
    let stop = CancellationToken::new();
    tokio::spawn(reschedule::run(front.placer.clone(), stop.clone()));
    tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    server::serve(front, vec![listener], stop).await;
    Ok(())
}
