//! Reads and judges scenario scripts: what a user types, and what the user must see. Pure.

use std::time::Duration;

/// One command of a scenario with what it must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Line number in the file, from 1.
    pub line: usize,
    /// Command for `sh -c`.
    pub command: String,
    /// Try again until the expectation holds, at most this long. Zero: once.
    pub within: Duration,
    pub expected: Vec<String>,
    pub exit: i32,
}

/// Reads a script:
///
/// ```text
/// # a comment
/// $ docker ps -q | wc -l
///   3
/// within 5s $ docker info
///   …
///    node-2: …
///   …
/// $ docker rm -f nosuch
///   …No such container: nosuch…
/// exit 1
/// ```
///
/// Expected lines are indented by two blanks; `…` stands for anything within a line, and a line of `…` alone for any
/// number of lines. A command without expected lines may print what it likes.
pub(crate) fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            return Err(format!("line {number}: blanks alone expect nothing; let the command count its lines"));
        }
        if let Some(expected) = line.strip_prefix("  ") {
            let step = steps.last_mut().ok_or(format!("line {number}: expected output before any command"))?;
            step.expected.push(expected.to_owned());
        } else if let Some(code) = line.strip_prefix("exit ") {
            let step = steps.last_mut().ok_or(format!("line {number}: exit before any command"))?;
            step.exit = code.trim().parse().map_err(|_| format!("line {number}: `{code}` is no exit code"))?;
        } else if let Some((within, command)) = line.split_once("$ ") {
            let within = match within.trim() {
                "" => Duration::ZERO,
                other => seconds(other).ok_or(format!("line {number}: expected `within Ns $`, not `{other}`"))?,
            };
            steps.push(Step { line: number, command: command.into(), within, expected: vec![], exit: 0 });
        } else {
            return Err(format!("line {number}: not a command, not expected output: `{line}`"));
        }
    }
    Ok(steps)
}

fn seconds(text: &str) -> Option<Duration> {
    text.strip_prefix("within ")?.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

impl Step {
    /// Returns the faults of an answer.
    pub(crate) fn judge(&self, output: &str, exit: i32) -> Result<(), String> {
        let lines: Vec<&str> = output.lines().map(|line| line.trim_end()).collect();
        let expected: Vec<&str> = self.expected.iter().map(String::as_str).collect();
        if exit != self.exit {
            return Err(format!("exit code {exit}, expected {}", self.exit));
        }
        if !expected.is_empty() && !lines_match(&expected, &lines) {
            return Err(format!("the output differs from\n  {}", expected.join("\n  ")));
        }
        Ok(())
    }
}

fn lines_match(expected: &[&str], lines: &[&str]) -> bool {
    match (expected.first(), lines.first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(&"…"), _) => {
            lines_match(&expected[1..], lines) || (!lines.is_empty() && lines_match(expected, &lines[1..]))
        }
        (Some(_), None) => false,
        (Some(pattern), Some(line)) => glob(pattern, line) && lines_match(&expected[1..], &lines[1..]),
    }
}

/// True if `text` is `pattern`, where `…` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('…') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| glob(rest, &tail[at..]))
        }),
    }
}
