//! Lines that the tasks of a stack say, each with its task.

use std::collections::{BTreeMap, VecDeque};

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll, select_all, unfold};
use herder_compose::STACK_LABEL;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Api, Fault, Pieces, escape, filters, list};

/// The wanted lines.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Services by their names in the file or in the cluster; all if there are none.
    pub services: Vec<String>,
    pub follow: bool,
    /// Lines of each task, from the end, or `all`.
    pub tail: String,
    /// A time as the Docker API takes it, or empty.
    pub since: String,
}

/// A line that a task said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The name of the service in the file.
    pub service: String,
    /// The slot; of services with a task on each node, the node.
    pub slot: String,
    pub task: String,
    pub node: String,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    pub time: String,
    pub text: String,
}

impl Line {
    /// `web.1 | text`, with a name of this width.
    pub fn shown(&self, width: usize, has_time: bool) -> String {
        let name = format!("{}.{}", self.service, self.slot);
        let time = if has_time { format!("{} ", self.time) } else { String::new() };
        format!("{name:<width$} | {time}{}\n", self.text)
    }
}

/// Opened logs of a stack.
#[expect(missing_debug_implementations, reason = "streams have none")]
pub struct Logs {
    parts: SelectAll<BoxStream<'static, Result<Raw, String>>>,
    tasks: BTreeMap<String, (String, String)>,
    nodes: BTreeMap<String, String>,
    prefix: String,
    /// The width of the longest name of a task, for tables.
    pub width: usize,
}

/// A line with its service, before its task is looked up.
struct Raw {
    service: String,
    is_error: bool,
    bytes: Vec<u8>,
}

/// Opens the logs of a stack.
pub async fn open(api: &impl Api, stack: &str, asked: &Asked) -> Result<Logs, Fault> {
    let label = filters(&json!({"label": [format!("{STACK_LABEL}={stack}")]}));
    let services = list(api, &format!("/services?filters={label}"), "services").await?;
    if services.is_empty() {
        return Err(Fault::Missing(vec![format!("there is no stack {stack}")]));
    }
    let tasks = list(api, &format!("/tasks?filters={label}"), "tasks").await?;
    let nodes = list(api, "/nodes", "nodes").await?;
    let prefix = format!("{stack}_");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named: BTreeMap<String, String> =
        services.iter().map(|it| (text(&it["Spec"]["Name"]), text(&it["ID"]))).collect();
    let mut wanted = Vec::new();
    for service in &asked.services {
        let found = named.get_key_value(&format!("{prefix}{service}")).or_else(|| named.get_key_value(service));
        let found = found.ok_or_else(|| Fault::Missing(vec![format!("stack {stack} has no service {service}")]))?;
        wanted.push(found);
    }
    if asked.services.is_empty() {
        wanted = named.iter().collect();
    }
    let mut parts = Vec::new();
    for (name, id) in &wanted {
        let query = [("tail", &asked.tail), ("since", &asked.since)];
        let query = query.iter().filter(|(_, value)| !value.is_empty());
        let query: String = query.map(|(key, value)| format!("&{key}={}", escape(value))).collect();
        let follow = u8::from(asked.follow);
        let path = format!("/services/{id}/logs?stdout=1&stderr=1&details=1&timestamps=1&follow={follow}{query}");
        let pieces = api.pieces(&path).await?;
        let has_terminal = services
            .iter()
            .find(|it| it["ID"] == id.as_str())
            .is_some_and(|it| it["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] == true);
        parts.push(lines((*name).clone(), pieces, !has_terminal));
    }
    let slots = tasks.iter().map(|it| {
        let slot = it["Slot"].as_u64().filter(|slot| *slot > 0).map(|slot| slot.to_string());
        (text(&it["ID"]), (slot.unwrap_or_default(), text(&it["NodeID"])))
    });
    let hosts = nodes.iter().map(|it| (text(&it["ID"]), text(&it["Description"]["Hostname"])));
    let (slots, hosts): (BTreeMap<_, _>, BTreeMap<_, _>) = (slots.collect(), hosts.collect());
    let longest = wanted.iter().map(|(name, _)| name.len().saturating_sub(prefix.len())).max().unwrap_or(0);
    let slot = slots
        .values()
        .map(|(slot, node)| if slot.is_empty() { hosts.get(node).map_or(0, String::len) } else { slot.len() });
    let width = longest + 1 + slot.max().unwrap_or(0);
    Ok(Logs { parts: select_all(parts), tasks: slots, nodes: hosts, prefix, width })
}

impl Logs {
    /// The next line; nothing at the end.
    pub async fn next(&mut self) -> Option<Result<Line, String>> {
        let raw = match self.parts.next().await? {
            Ok(raw) => raw,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(self.line(&raw)))
    }

    fn line(&self, raw: &Raw) -> Line {
        let (time, details, text) = split(&raw.bytes);
        let detail = |key: &str| {
            let found = details.split(',').filter_map(|it| it.split_once('=')).find(|(name, _)| *name == key);
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let (task, node) = (detail("com.docker.swarm.task.id"), detail("com.docker.swarm.node.id"));
        let host = self.nodes.get(&node).cloned().unwrap_or(node);
        let slot = self.tasks.get(&task).map(|(slot, _)| slot.clone()).filter(|slot| !slot.is_empty());
        Line {
            service: raw.service.strip_prefix(&self.prefix).unwrap_or(&raw.service).to_owned(),
            slot: slot.unwrap_or_else(|| host.clone()),
            task,
            node: host,
            stream: if raw.is_error { "stderr" } else { "stdout" },
            time,
            text,
        }
    }
}

/// Time, details and text of a line as the Docker API sends it with all of them.
fn split(bytes: &[u8]) -> (String, String, String) {
    let line = String::from_utf8_lossy(bytes);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let (time, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (details, text) = rest.split_once(' ').unwrap_or((rest, ""));
    (time.to_owned(), details.to_owned(), text.to_owned())
}

/// Bytes of a line that has not ended, after which it is cut.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The lines in the pieces of an answer.
fn lines(service: String, pieces: Pieces, is_framed: bool) -> BoxStream<'static, Result<Raw, String>> {
    let state = (pieces, Splitter::new(is_framed), service);
    let stream = unfold(state, |(mut pieces, mut splitter, service)| async move {
        loop {
            if let Some((is_error, bytes)) = splitter.line() {
                return Some((Ok(Raw { service: service.clone(), is_error, bytes }), (pieces, splitter, service)));
            }
            if splitter.is_over {
                return None;
            }
            match pieces.next().await {
                Some(Ok(piece)) => splitter.take(&piece),
                Some(Err(error)) => {
                    splitter.is_over = true;
                    return Some((Err(error), (pieces, splitter, service)));
                }
                None => splitter.end(),
            }
        }
    });
    stream.boxed()
}

/// Takes frames and lines apart. Frames have a header of 8 bytes: the stream, three zeros, and the length.
#[derive(Debug, Default)]
pub struct Splitter {
    is_framed: bool,
    is_over: bool,
    bytes: Vec<u8>,
    /// Bytes of the incomplete last line of stdout and of stderr.
    open: [Vec<u8>; 2],
    ready: VecDeque<(bool, Vec<u8>)>,
}

impl Splitter {
    /// Takes frames apart, or lines only where a terminal wrote them.
    pub fn new(is_framed: bool) -> Splitter {
        Splitter { is_framed, ..Splitter::default() }
    }

    /// Takes a piece of the answer.
    pub fn take(&mut self, piece: &[u8]) {
        if !self.is_framed {
            self.said(0, piece);
            return;
        }
        self.bytes.extend_from_slice(piece);
        while let Some(head) = self.bytes.first_chunk::<8>() {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let stream = usize::from(head[0] == 2);
            if self.bytes.len() < 8 + length {
                return;
            }
            let rest = self.bytes.split_off(8 + length);
            let frame = std::mem::replace(&mut self.bytes, rest);
            self.said(stream, &frame[8..]);
        }
    }

    fn said(&mut self, stream: usize, bytes: &[u8]) {
        let open = &mut self.open[stream];
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(part);
            if part.ends_with(b"\n") || open.len() > LINE_BYTES_MAX {
                self.ready.push_back((stream == 1, std::mem::take(open)));
            }
        }
    }

    fn end(&mut self) {
        for (stream, open) in self.open.iter_mut().enumerate() {
            if !open.is_empty() {
                self.ready.push_back((stream == 1, std::mem::take(open)));
            }
        }
        self.is_over = true;
    }

    /// The next whole line, and whether it was said on stderr.
    pub fn line(&mut self) -> Option<(bool, Vec<u8>)> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_become_lines_however_they_are_cut() {
        let frame = |stream: u8, text: &str| {
            let mut frame = vec![stream, 0, 0, 0];
            frame.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
            frame.extend_from_slice(text.as_bytes());
            frame
        };
        let all = [frame(1, "T d one\n"), frame(2, "T d err\n"), frame(1, "T d ha"), frame(1, "lf\nT d last")].concat();
        for size in [1, 3, 100] {
            let mut splitter = Splitter::new(true);
            all.chunks(size).for_each(|piece| splitter.take(piece));
            splitter.end();
            let lines = std::iter::from_fn(|| splitter.line());
            let lines: Vec<String> = lines.map(|(is_error, line)| format!("{} {is_error}", split(&line).2)).collect();
            assert_eq!(lines, ["one false", "err true", "half false", "last false"], "{size}");
        }
    }
}
