//! The migration job: puts the votes of an earlier poll into the store, and ends.

use std::io;

use crate::{setting, store};

/// Stores each line of `VOTES`, a voter and a vote. Stores nothing if a line is anything else.
pub(crate) fn run() -> io::Result<()> {
    let (votes, address) = (setting("VOTES", ""), setting("STORE", "store:7002"));
    for line in votes.lines() {
        if line.split(' ').count() != 2 {
            return Err(io::Error::other(format!("`{line}` is not a voter and a vote")));
        }
    }
    for line in votes.lines() {
        store::ask(&address, &format!("SET {line}"))?;
    }
    println!("stored {} votes", votes.lines().count());
    Ok(())
}
