//! The worker: takes votes from the queue and puts them into the store. Any number may run.

use std::io;
use std::thread;
use std::time::Duration;

use crate::{setting, store, wire};

/// Rest before a queue or store that does not answer is asked again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

pub(crate) fn run() -> io::Result<()> {
    let (queue, address) = (setting("QUEUE", "queue:7001"), setting("STORE", "store:7002"));
    println!("working from {queue} to {address}");
    loop {
        if let Err(error) = carry_one(&queue, &address) {
            eprintln!("will try again: {error}");
            thread::sleep(RETRY_PERIOD);
        }
    }
}

/// Waits for one vote and stores it. The queue keeps it until then.
fn carry_one(queue: &str, address: &str) -> io::Result<()> {
    let mut queue = wire::Link::open(queue)?;
    let answer = queue.ask("POP")?;
    let Some(vote) = answer.strip_prefix("VOTE ") else { return Ok(()) };
    store::ask(address, &format!("SET {vote}"))?;
    queue.ask("DONE").map(drop)
}
