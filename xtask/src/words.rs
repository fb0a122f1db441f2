//! Word list of all crates: private nouns for which the field has a word.

use std::process::Command;

use crate::run;

/// A word that is not used, and the one to use.
pub(crate) const WORDS: [(&str, &str); 26] = [
    ("Agenda", "WorkQueue"),
    ("Clerk", "PeerService"),
    ("Ear", "SessionHandler"),
    ("Folded", "case_insensitive"),
    ("Gate", "LinkAcceptor"),
    ("Hands", "BackendHandle"),
    ("Keeper", "ClaimLedger"),
    ("Kept", "PersistedState"),
    ("Medium", "Backend"),
    ("Mind", "NodeInputs"),
    ("Mouth", "SessionSender"),
    ("Pace", "HeartbeatScale"),
    ("Pulse", "LastHeartbeat"),
    ("Standing", "JoinStatus"),
    ("Surroundings", "HostDeps"),
    ("Teller", "Broadcaster"),
    ("Told", "SentState"),
    ("Wishes", "FocaActions"),
    ("agenda", "work_queue"),
    ("clerk", "service"),
    ("mending", "store_recovery"),
    ("misfits", "mismatched"),
    ("mouth", "sender"),
    ("pulse", "last_heartbeat"),
    ("shunned", "backoff"),
    ("whoever", "the caller, the client, the node"),
];

/// Returns the uses of [`WORDS`], as lines to print.
pub(crate) fn violations() -> anyhow::Result<Vec<String>> {
    let files = run::read(Command::new("git").args(["ls-files", "crates/*/src/*.rs"]))?;
    let mut violations = Vec::new();
    for path in files.lines() {
        // A file that was removed and not yet committed is listed, too.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        violations.extend(found(&text).into_iter().map(|(line, why)| format!("{path}:{line}: {why}")));
    }
    Ok(violations)
}

/// Lines with a word of the list, counted from 1.
fn found(text: &str) -> Vec<(usize, String)> {
    let words = |line: &str| -> Vec<String> {
        line.split(|it: char| !it.is_alphanumeric() && it != '_').map(str::to_owned).collect()
    };
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(number, line)| {
            let words = words(line);
            let hits = WORDS.iter().filter(move |(word, _)| words.iter().any(|it| it == word));
            hits.map(move |(word, instead)| (number + 1, format!("`{word}`: say `{instead}`")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn whole_words_are_found() {
        let text = "struct Kept;\nstruct KeptOpen;\n// whoever asks\n";
        let found: Vec<String> = super::found(text).into_iter().map(|(line, why)| format!("{line} {why}")).collect();
        assert_eq!(found, ["1 `Kept`: say `PersistedState`", "3 `whoever`: say `the caller, the client, the node`"]);
    }
}
