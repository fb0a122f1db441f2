//! Hooks of a task: commands in its container, and containers of their own before it starts.

use std::time::Duration;

use herder_decide::swarm::container::Create;
use herder_decide::swarm::container::hooks::{self, Hook, failure};
use herder_decide::swarm::step::Seen;
use herder_docker::{Body, EngineError, classify};
use herder_model::swarm::TaskStatus;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::networks::connect;
use super::{Life, Node, Stuck};
use crate::call::{Engine, escaped, refusal};
use crate::observe::Shown;

/// Maximum time of one hook. A migration of a large database takes minutes.
const HOOK_TIME_MAX: Duration = Duration::from_secs(3600);

/// The engine has the exit code of a command a moment after its output has ended.
const EXIT_LOOKS_MAX: u32 = 40;
const EXIT_LOOK_PERIOD: Duration = Duration::from_millis(50);

/// Bytes of output that are kept for the last line.
const OUTPUT_BYTES_MAX: usize = 1024;
/// Characters of the last line in a message.
const LINE_CHARS_MAX: usize = 200;

impl Life {
    /// Runs the `PreStart` steps of a task whose container is made.
    pub(super) async fn pre_start(&mut self, task: &Create, auth: &str, shown: &Shown) -> Result<(), Stuck> {
        if self.hooks.pre_start.is_empty() {
            return Ok(());
        }
        self.turn = None;
        let node = self.node.clone();
        for (number, hook) in (1..).zip(self.hooks.clone().pre_start) {
            self.put(TaskStatus { message: format!("pre_start {number}"), ..self.told.clone() }, shown);
            let step = hooks::step(task, &self.id, &hook, number);
            let off = Life::called_off(self.order.clone());
            let failure = tokio::select! {
                biased;
                () = off => {
                    self.remove_steps().await;
                    return Err(Stuck::Changed);
                }
                ran = before(&node, &step, number, auth) => ran?,
            };
            if let Some(why) = failure {
                // Its container stays as long as the task: for a look at it.
                return Err(Stuck::Refused(why));
            }
        }
        self.remove_steps().await;
        Ok(())
    }

    /// Removes the containers of `PreStart` steps.
    pub(super) async fn remove_steps(&self) {
        for name in &self.steps {
            if let Err(error) = remove(&self.node.engine, name).await {
                warn!(task = self.id, %error, "cannot remove the container of a hook");
            }
        }
    }

    /// Runs the hooks of a container that has just been started.
    pub(super) async fn post_start(&mut self, shown: &Shown) -> Result<(), Stuck> {
        self.turn = None;
        let node = self.node.clone();
        for (number, hook) in (1..).zip(self.hooks.clone().post_start) {
            let off = Life::called_off(self.order.clone());
            let ran = tokio::select! {
                biased;
                () = off => return Err(Stuck::Changed),
                ran = run(&node.engine, &shown.id, "post_start", number, &hook) => ran,
            };
            let failure = match ran {
                Err(error) => {
                    let why = refusal(&error).map(|(_, why)| format!("post_start {number}: {why}"));
                    Some(why.ok_or(error)?)
                }
                Ok(failure) => failure,
            };
            let Some(why) = failure else { continue };
            // The end of the container ends its commands as well; then that is what the task tells.
            node.observer.look(&self.id, &shown.id).await?;
            if matches!(self.shown.borrow().seen, Seen::Running(_)) {
                self.failure = why;
            }
            break;
        }
        self.post_started = true;
        Ok(())
    }

    /// Runs the hooks of a container that is about to be stopped, within its grace period. The rest is for the stop.
    pub(super) async fn pre_stop(&mut self, shown: &Shown) {
        if self.hooks.pre_stop.is_empty() || std::mem::replace(&mut self.pre_stopped, true) {
            return;
        }
        let grace = self.stop_seconds.unwrap_or_default();
        let begun = Instant::now();
        let all = async {
            for (number, hook) in (1..).zip(&self.hooks.pre_stop) {
                match run(&self.node.engine, &shown.id, "pre_stop", number, hook).await {
                    Ok(None) => {}
                    Ok(Some(why)) => warn!(task = self.id, why, "a hook failed; the container is stopped all the same"),
                    Err(error) => {
                        warn!(task = self.id, %error, "cannot run a hook; the container is stopped all the same")
                    }
                }
            }
        };
        if timeout(Duration::from_secs(grace.unsigned_abs()), all).await.is_err() {
            warn!(task = self.id, "the pre_stop hooks have taken the whole grace period");
        }
        let spent = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
        // The signal gets a moment in any case.
        self.stop_seconds = Some((grace - spent).max(1));
    }
}

/// The end of a hook.
#[derive(Debug)]
struct Ended {
    exit_code: i64,
    last_line: String,
}

/// Runs a hook in a running container; the failure comes back, if there is one.
async fn run(
    engine: &Engine,
    container: &str,
    kind: &str,
    number: usize,
    hook: &Hook,
) -> Result<Option<String>, EngineError> {
    let Ok(ended) = timeout(HOOK_TIME_MAX, exec(engine, container, hook)).await else {
        return Ok(Some(late(kind, number)));
    };
    let ended = ended?;
    Ok((ended.exit_code != 0).then(|| failure(kind, number, ended.exit_code, &ended.last_line)))
}

fn late(kind: &str, number: usize) -> String {
    format!("{kind} {number}: not done within {} s", HOOK_TIME_MAX.as_secs())
}

async fn exec(engine: &Engine, container: &str, hook: &Hook) -> Result<Ended, EngineError> {
    let created =
        engine.post(format!("/containers/{}/exec", escaped(container))).body(&hooks::exec(hook)).json().await?;
    let id = escaped(created["Id"].as_str().unwrap_or_default());
    let start = json!({"Detach": false, "Tty": false});
    let output = engine.post(format!("/exec/{id}/start")).body(&start).open().await?;
    let last_line = last_line(output.into_body()).await;
    let mut looks = 1;
    loop {
        let state = engine.get(format!("/exec/{id}/json")).json().await?;
        if state["Running"] != true || looks == EXIT_LOOKS_MAX {
            return Ok(Ended { exit_code: state["ExitCode"].as_i64().unwrap_or(-1), last_line });
        }
        looks += 1;
        sleep(EXIT_LOOK_PERIOD).await;
    }
}

/// Runs the container of a `PreStart` step to its end; the failure comes back, if there is one.
///
/// One that runs already is waited for, and one that has succeeded is not run again: this node's herder may have been started anew.
async fn before(node: &Node, step: &Create, number: usize, auth: &str) -> Result<Option<String>, EngineError> {
    let engine = &node.engine;
    let path = format!("/containers/{}", escaped(&step.name));
    let there = match engine.get(format!("{path}/json")).json().await {
        Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => Value::Null,
        there => there?,
    };
    match (there["State"]["Status"].as_str(), there["State"]["ExitCode"].as_i64()) {
        (Some("exited"), Some(0)) => return Ok(None),
        (Some("running"), _) => {}
        (status, _) => {
            if status.is_some() {
                remove(engine, &step.name).await?;
            }
            make(node, step, auth).await?;
            connect(engine, &step.name, &step.networks).await?;
            engine.post(format!("{path}/start")).done().await?;
        }
    }
    let Ok(ended) = timeout(HOOK_TIME_MAX, engine.post(format!("{path}/wait")).limit(HOOK_TIME_MAX).json()).await
    else {
        return Ok(Some(late("pre_start", number)));
    };
    match ended?["StatusCode"].as_i64().unwrap_or(-1) {
        0 => Ok(None),
        exit_code => {
            // A log driver may be one that cannot be read.
            let log = engine.get(format!("{path}/logs?stdout=1&stderr=1&tail=1")).open().await;
            let last_line = match log {
                Ok(log) => last_line(log.into_body()).await,
                Err(_) => String::new(),
            };
            Ok(Some(failure("pre_start", number, exit_code, &last_line)))
        }
    }
}

async fn make(node: &Node, step: &Create, auth: &str) -> Result<(), EngineError> {
    let engine = &node.engine;
    for volume in &step.volumes {
        engine.post("/volumes/create").body(volume).done().await?;
    }
    let path = format!("/containers/create?name={}", escaped(&step.name));
    match engine.post(&path).body(&step.body).done().await {
        Err(error) if refusal(&error).is_some_and(|(status, text)| classify::misses_image(status, text)) => {
            node.arrivals.bring(node, &step.image, auth).await;
            engine.post(&path).body(&step.body).done().await
        }
        made => made,
    }
}

/// Removes a hook's container, whatever it does. One that is gone is removed.
async fn remove(engine: &Engine, name: &str) -> Result<(), EngineError> {
    match engine.delete(format!("/containers/{}?v=1&force=1", escaped(name))).done().await {
        Err(error) if refusal(&error).is_some_and(|(status, _)| matches!(status, 404 | 409)) => Ok(()),
        removed => removed,
    }
}

/// The last line of an output that has a header before each piece.
async fn last_line(mut body: Body) -> String {
    let mut tail = Tail::default();
    // An output that breaks off has a last line, too.
    while let Some(Ok(frame)) = body.frame().await {
        tail.push(frame.data_ref().map_or(&[][..], |data| data));
    }
    tail.line()
}

/// Bytes of the header of a piece; the last four are the length of the piece.
const HEADER_BYTES: usize = 8;

/// The end of an output.
#[derive(Debug, Default)]
struct Tail {
    header: Vec<u8>,
    /// Bytes of the present piece that are to come.
    left: usize,
    text: Vec<u8>,
}

impl Tail {
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = if self.left == 0 { HEADER_BYTES - self.header.len() } else { self.left };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.left > 0 {
                self.left -= now.len();
                self.text.extend_from_slice(now);
                let over = self.text.len().saturating_sub(OUTPUT_BYTES_MAX);
                self.text.drain(..over);
                continue;
            }
            self.header.extend_from_slice(now);
            if let [.., a, b, c, d] = self.header[..]
                && self.header.len() == HEADER_BYTES
            {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.header.clear();
            }
        }
    }

    /// The last line that is not empty.
    fn line(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        line.chars().filter(|it| !it.is_control()).take(LINE_CHARS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Tail;

    #[test]
    fn the_last_line_is_found_in_pieces() {
        let piece = |text: &str| [&[1, 0, 0, 0, 0, 0, 0, text.len() as u8], text.as_bytes()].concat();
        for (pieces, expected) in
            [(vec!["one\ntwo\n"], "two"), (vec!["one\n", "tw", "o"], "two"), (vec!["a\n", "\n \n"], "a"), (vec![], "")]
        {
            let all: Vec<u8> = pieces.iter().flat_map(|text| piece(text)).collect();
            for size in [1, 3, 100] {
                let mut tail = Tail::default();
                all.chunks(size).for_each(|bytes| tail.push(bytes));
                assert_eq!(tail.line(), expected, "{pieces:?} by {size}");
            }
        }
    }
}
