//! Progress of one action on several nodes (pull, load, import) as one stream of JSON lines.
//!
//! The CLI draws one line for each `id`; the id is the node, so that every node has its line. What an engine says of the whole
//! action, which programs read (`Pulling from …` with the tag as id, digest, status, `Loaded image: …`), is told as the engine
//! says it, once. With one node, all is told as its engine says it.

use serde_json::{Value, json};

/// Returns the client's line for a line that `node`'s engine wrote during `what` (such as `Pulling busybox:latest...`).
/// Layers are left out: the CLI could not tell those of one node from another's. `Null` (the engine has not said
/// anything yet) gives the opening line. Errors are not told at once, see [`Progress`].
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

/// Maximum number of lines such as `Loaded image: …` that are kept for the end. An archive with more names is not made
/// by hand.
const SAID_MAX: usize = 256;

/// Progress of an action on all its nodes. Errors come at the end, when it is known whether any node succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    what: String,
    failures: Vec<String>,
    succeeded: usize,
    /// Lines of engines about the whole action, each once.
    said: Vec<Value>,
    form: Form,
    /// True after the line with which a pull begins.
    introduced: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Several,
    /// The engine's lines as they are.
    One,
    /// Only lines of nodes.
    Classic,
}

impl Progress {
    /// `what` is such as `Pulling busybox:latest...`.
    pub fn new(what: &str) -> Progress {
        Progress { what: what.to_owned(), ..Progress::default() }
    }

    /// Returns the progress for one node, which passes its engine's lines on unchanged.
    pub fn of_one() -> Progress {
        Progress { form: Form::One, ..Progress::default() }
    }

    /// Returns the progress in classic Swarm's form. It has the lines of nodes, and of the whole only what
    /// programs read of a load.
    pub fn classic(what: &str) -> Progress {
        Progress { form: Form::Classic, ..Progress::new(what) }
    }

    /// The line with which a node begins.
    pub fn begin(&self, node: &str) -> Option<Value> {
        (self.form != Form::One).then(|| pull_line(node, &self.what, &Value::Null))
    }

    /// The line of a node on which nothing is done, as it is not healthy.
    pub fn skipped(&self, node: &str) -> Option<Value> {
        let skipped = json!({"status": "skipped, the node is not healthy"});
        (self.form != Form::One).then(|| pull_line(node, &self.what, &skipped))
    }

    /// Returns the line for the client, or `None` if the engine's line is kept for the end.
    pub fn line(&mut self, node: &str, line: &Value) -> Option<Value> {
        let error = line["error"].as_str().or(line["errorDetail"]["message"].as_str());
        if let Some(error) = error {
            self.failed(node, error);
            return None;
        }
        if self.form == Form::One {
            return Some(line.clone());
        }
        let status = line["status"].as_str().unwrap_or_default();
        if self.form == Form::Several && status.starts_with("Pulling from ") {
            let first = !std::mem::replace(&mut self.introduced, true);
            return first.then(|| line.clone());
        }
        let of_whole = self.form == Form::Several && (status.starts_with("Digest: ") || status.starts_with("Status: "));
        if (line["stream"].is_string() || of_whole) && !self.said.contains(line) && self.said.len() < SAID_MAX {
            self.said.push(line.clone());
        }
        Some(pull_line(node, &self.what, line))
    }

    /// Returns the merged summary lines, which follow the progress of all nodes. docker-py learns from them which
    /// images were loaded. `up to date` is dropped if another node downloaded the image.
    pub fn said(&self) -> Vec<Value> {
        let is_new =
            |line: &Value| line["status"].as_str().is_some_and(|it| it.starts_with("Status: Downloaded newer "));
        let is_old = |line: &Value| line["status"].as_str().is_some_and(|it| it.starts_with("Status: Image is up to "));
        let newer = self.said.iter().any(is_new);
        let (mut rest, mut status): (Vec<&Value>, Vec<&Value>) =
            self.said.iter().filter(|line| !(newer && is_old(line))).partition(|line| !is_new(line) && !is_old(line));
        rest.append(&mut status);
        rest.into_iter().cloned().collect()
    }

    /// The node's action failed, or could not begin.
    pub fn failed(&mut self, node: &str, reason: &str) {
        let failure = format!("{node}: {}", reason.trim_end());
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    /// Marks the end of the node's lines. Without an error among them, the node succeeded.
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
        let alone = self.form == Form::One;
        let reason = |failure: &String| if alone { failure.split_once(": ").map(|it| it.1.to_owned()) } else { None };
        let message: Vec<String> = self.failures.iter().map(|it| reason(it).unwrap_or_else(|| it.clone())).collect();
        let message = message.join("\n");
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
        let line = Progress::new("Pulling b:1...").skipped("n3").unwrap();
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
    fn the_whole_of_a_pull_is_told_as_one_engine_would() {
        let lines = |status: &str| {
            let layer = json!({"status": "Already exists", "progressDetail": {}, "id": "aa"});
            let (digest, status) =
                (json!({"status": "Digest: sha256:1"}), json!({"status": format!("Status: {status}")}));
            [json!({"status": "Pulling from b", "id": "1"}), layer, digest, status]
        };
        let (old, new) = (lines("Image is up to date for b:1"), lines("Downloaded newer image for b:1"));
        let mut progress = Progress::new("Pulling b:1...");
        let told: Vec<_> = old.iter().filter_map(|line| progress.line("n1", line)).collect();
        assert_eq!((&told[0], &told[1]["id"], told.len()), (&old[0], &json!("n1"), 4));
        assert_eq!(new.iter().filter_map(|line| progress.line("n2", line)).count(), 3);
        assert_eq!(progress.said(), new[2..]);
        let mut one = Progress::of_one();
        assert_eq!((one.begin("n1"), one.skipped("n2")), (None, None));
        assert_eq!(old.iter().filter_map(|line| one.line("n1", line)).collect::<Vec<_>>(), old);
        one.failed("n1", "no space: none");
        assert_eq!(one.end().unwrap()["error"], "no space: none");
        let mut classic = Progress::classic("Pulling b:1...");
        assert!(new.iter().all(|line| classic.line("n1", line).unwrap()["id"] == "n1"));
        assert!(classic.said().is_empty());
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
