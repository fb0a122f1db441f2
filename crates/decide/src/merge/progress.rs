//! Progress of one action on several nodes (pull, load, import) as one stream of JSON lines.
//!
//! The CLI draws one line for each `id`; the id is the node, so that every node has its line.

use serde_json::{Value, json};

/// What a client is told about a line that `node`'s engine wrote while it does `what` (such as `Pulling busybox:latest...`).
/// Layers are left out: the CLI could not tell those of one node from another's. `Null` (the engine has not said anything yet)
/// gives the opening line. Errors are not told at once, see [`Progress`].
pub fn pull_line(node: &str, what: &str, line: &Value) -> Value {
    let said = line["status"].as_str().or(line["stream"].as_str()).map(str::trim_end).filter(|text| !text.is_empty());
    let layer = line["id"].as_str().filter(|id| !id.is_empty());
    let status = match (said, layer) {
        (None, _) => what.to_owned(),
        (Some(said), None) => format!("{what} : {said}"),
        (Some(said), Some(layer)) => format!("{what} : {layer}: {said}"),
    };
    let detail = line.get("progressDetail").cloned().unwrap_or_else(|| json!({}));
    let mut out = json!({"status": status, "progressDetail": detail, "id": node});
    if let Some(progress) = line.get("progress") {
        out["progress"] = progress.clone();
    }
    out
}

/// Lines such as `Loaded image: …` that are kept for the end: an archive with more names than these is not made by hand.
const SAID_MAX: usize = 256;

/// How an action went on all its nodes: tells errors at the end, when it is known whether any node succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    what: String,
    failures: Vec<String>,
    succeeded: usize,
    /// What engines said for a person or a program to read, each once.
    said: Vec<String>,
}

impl Progress {
    /// `what` is such as `Pulling busybox:latest...`.
    pub fn new(what: &str) -> Progress {
        Progress { what: what.to_owned(), ..Progress::default() }
    }

    /// The line with which a node begins.
    pub fn begin(&self, node: &str) -> Value {
        pull_line(node, &self.what, &Value::Null)
    }

    /// The line of a node on which nothing is done, as it is not healthy.
    pub fn skipped(&self, node: &str) -> Value {
        pull_line(node, &self.what, &json!({"status": "skipped, the node is not healthy"}))
    }

    /// The line to tell the client, or none if the engine's line is an error, which is kept for the end.
    pub fn line(&mut self, node: &str, line: &Value) -> Option<Value> {
        let error = line["error"].as_str().or(line["errorDetail"]["message"].as_str());
        match error {
            Some(error) => {
                self.failed(node, error);
                None
            }
            None => {
                let said = line["stream"].as_str().filter(|it| !self.said.iter().any(|known| known == it));
                self.said.extend(said.filter(|_| self.said.len() < SAID_MAX).map(str::to_owned));
                Some(pull_line(node, &self.what, line))
            }
        }
    }

    /// Before the end: what the engines said, as one engine would. docker-py learns from it which images were loaded.
    pub fn said(&self) -> Vec<Value> {
        self.said.iter().map(|text| json!({"stream": text})).collect()
    }

    /// The node's action failed, or could not begin.
    pub fn failed(&mut self, node: &str, reason: &str) {
        let failure = format!("{node}: {}", reason.trim_end());
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    /// Everything that the node's engine said is told. If no error was among it, the node's action ended well.
    pub fn ended(&mut self, node: &str) {
        let prefix = format!("{node}: ");
        if !self.failures.iter().any(|failure| failure.starts_with(&prefix)) {
            self.succeeded += 1;
        }
    }

    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The last line: none if all went well, else the error with a line for each node that failed. Clients take the whole
    /// action as failed then.
    pub fn end(&self) -> Option<Value> {
        if self.failures.is_empty() {
            return None;
        }
        let message = self.failures.join("\n");
        let message = match self.succeeded {
            0 => message,
            count => format!("{message}\n(it went well on {count} other node{})", if count == 1 { "" } else { "s" }),
        };
        Some(json!({"error": message, "errorDetail": {"message": message}}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_line() {
        for (line, expected) in [
            (Value::Null, json!({"status": "Pulling b:1...", "progressDetail": {}, "id": "n1"})),
            (json!({"status": "Done"}), json!({"status": "Pulling b:1... : Done", "progressDetail": {}, "id": "n1"})),
            (
                json!({"status": "Downloading", "id": "aa", "progressDetail": {"current": 1}, "progress": "[=>]"}),
                json!({"status": "Pulling b:1... : aa: Downloading", "progressDetail": {"current": 1}, "id": "n1",
                    "progress": "[=>]"}),
            ),
            (
                json!({"stream": "Loaded image: b:1\n"}),
                json!({"status": "Pulling b:1... : Loaded image: b:1", "progressDetail": {}, "id": "n1"}),
            ),
        ] {
            assert_eq!(pull_line("n1", "Pulling b:1...", &line), expected);
        }
    }

    #[test]
    fn a_node_that_is_left_out_is_told() {
        let line = Progress::new("Pulling b:1...").skipped("n3");
        assert_eq!(line["status"], "Pulling b:1... : skipped, the node is not healthy");
        assert_eq!(line["id"], "n3");
    }

    #[test]
    fn what_engines_said_is_told_once_as_one_engine_would() {
        let mut progress = Progress::new("Loading Image...");
        for node in ["n1", "n2"] {
            progress.line(node, &json!({"status": "Loading layer", "id": "aa"}));
            progress.line(node, &json!({"stream": "Loaded image: b:1\n"}));
        }
        assert_eq!(progress.said(), [json!({"stream": "Loaded image: b:1\n"})]);
    }

    #[test]
    fn errors_come_at_the_end_with_their_nodes() {
        let mut progress = Progress::new("Pulling b:1...");
        assert_eq!(progress.end(), None);
        assert_eq!(
            progress.line("n1", &json!({"error": "no such host", "errorDetail": {"message": "no such host"}})),
            None
        );
        progress.failed("n1", "no such host");
        progress.failed("n2", "refused");
        progress.ended("n1");
        progress.ended("n3");
        let message = "n1: no such host\nn2: refused\n(it went well on 1 other node)";
        assert_eq!(progress.end(), Some(json!({"error": message, "errorDetail": {"message": message}})));
    }
}
