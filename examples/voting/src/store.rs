//! The store: the last vote of each voter, kept in a file that survives the container.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{setting, wire};

/// Voter → vote, and the log it is read back from.
struct Votes {
    by_voter: BTreeMap<String, String>,
    log: File,
}

pub(crate) fn run() -> io::Result<()> {
    let votes = Arc::new(Mutex::new(Votes::open(Path::new(&setting("DATA", "/data/votes")))?));
    let key = with_key("");
    wire::serve(&setting("PORT", "7002"), move || {
        let (votes, key) = (votes.clone(), key.clone());
        move |line: &str| match line.strip_prefix(key.as_str()) {
            Some(line) => votes.lock().unwrap_or_else(PoisonError::into_inner).answer(line),
            None => "ERR wrong key".into(),
        }
    })
}

/// Returns the command for the store, with its key first, if it has one.
fn with_key(line: &str) -> String {
    match setting("STORE_KEY", "").as_str() {
        "" => line.to_owned(),
        key => format!("{key} {line}"),
    }
}

/// Asks the store at `address`; an answer that begins with `ERR` is an error.
pub(crate) fn ask(address: &str, line: &str) -> io::Result<String> {
    let answer = wire::ask(address, &with_key(line))?;
    if answer.starts_with("ERR") { Err(io::Error::other(answer)) } else { Ok(answer) }
}

impl Votes {
    fn open(path: &Path) -> io::Result<Votes> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let by_voter =
            text.lines().filter_map(|line| line.split_once(' ')).map(|(voter, vote)| (voter.into(), vote.into()));
        let by_voter = by_voter.collect();
        Ok(Votes { by_voter, log: OpenOptions::new().create(true).append(true).open(path)? })
    }

    /// `SET <voter> <vote>` → `OK`; `COUNT` → `{"a":n,"b":n}`.
    fn answer(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["SET", voter, vote] => match writeln!(self.log, "{voter} {vote}") {
                Ok(()) => {
                    self.by_voter.insert(voter.into(), vote.into());
                    "OK".into()
                }
                Err(error) => format!("ERR {error}"),
            },
            ["COUNT"] => {
                let count = |option: &str| self.by_voter.values().filter(|vote| *vote == option).count();
                format!("{{\"a\":{},\"b\":{}}}", count("a"), count("b"))
            }
            _ => "ERR expected SET VOTER VOTE or COUNT".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_counts_once_also_after_a_restart() {
        let path = std::env::temp_dir().join(format!("voting-store-{}", std::process::id()));
        let mut votes = Votes::open(&path).unwrap();
        for (line, expected) in [("SET x a", "OK"), ("SET y a", "OK"), ("SET x b", "OK"), ("COUNT", r#"{"a":1,"b":1}"#)]
        {
            assert_eq!(votes.answer(line), expected, "{line}");
        }
        let restarted = Votes::open(&path).unwrap().answer("COUNT");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(restarted, r#"{"a":1,"b":1}"#);
    }
}
