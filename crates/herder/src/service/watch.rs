//! Follows services until they are as declared: bars for people, lines for pipes.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use herder_docker::{Body, empty};
use herder_model::swarm::{Service, Task};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::progress::{Host, Outcome, Progress, STEPS, Slot, progress};
use crate::door::Door;
use crate::plan::encode;

/// Events come in bursts; one look is enough for those within this time.
const SETTLE_TIME: Duration = Duration::from_millis(60);

/// Interval of looks besides events, since not every step of a task is one.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Time for which a silent door, or one without a leader, is asked again.
const TROUBLE_MAX: Duration = Duration::from_secs(30);

/// More bars than this fit on no screen; a line says how many tasks run.
const BARS_MAX: usize = 20;

/// An event of one line has less.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Stream of a door's events.
pub(crate) struct Events {
    body: Body,
    rest: BytesMut,
}

impl Events {
    /// Opens the stream; with `since` (seconds since 1970) past events come first.
    pub(crate) async fn open(door: &Door, since: Option<i64>) -> anyhow::Result<Events> {
        let kinds = encode(&json!({ "type": ["service", "container", "node", "secret", "config"] }));
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        let request = Request::builder().method(Method::GET).uri(format!("/events?filters={kinds}{since}"));
        let response = door.send(request.body(empty())?).await?;
        if !response.status().is_success() {
            return Err(door.refusal(response).await);
        }
        Ok(Events { body: response.into_body(), rest: BytesMut::new() })
    }

    /// The next event. Nothing is lost if this is dropped before it comes.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                if let Ok(event) = serde_json::from_slice(&line) {
                    return Ok(event);
                }
                continue;
            }
            if self.rest.len() > EVENT_BYTES_MAX {
                bail!("the answer of the door is malformed");
            }
            let frame = self.body.frame().await.context("the door has closed: it may have stopped")?;
            let frame = frame.map_err(anyhow::Error::from_boxed).context("the door sends nothing any more")?;
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }
}

/// Follows these services, by id, until each is as declared. Fails if one will not be.
pub(super) async fn follow(door: &Door, mut events: Events, ids: &[String]) -> anyhow::Result<()> {
    let mut screen = Screen::new();
    let mut stuck = Vec::new();
    let mut open: Vec<&String> = ids.iter().collect();
    let (mut well, mut told) = (Instant::now(), String::new());
    loop {
        let mut still = Vec::new();
        for id in open {
            let (service, tasks, hosts) = match look(door, id).await {
                Ok(seen) => seen.context("the service was removed meanwhile")?,
                // Its managers may be choosing another leader.
                Err(error) if well.elapsed() < TROUBLE_MAX => {
                    let trouble = format!("{error:#}; it is asked again");
                    if told != trouble {
                        screen.note(&trouble);
                        told = trouble;
                    }
                    still.push(id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            well = Instant::now();
            let name = service.spec.name.clone();
            let seen = progress(&service, &tasks, &hosts);
            screen.show(&name, &seen);
            match seen.outcome {
                None => still.push(id),
                Some(Outcome::Done) => screen.end(&name, &format!("{} of {} tasks run", seen.done, seen.wanted)),
                Some(Outcome::Stuck(why)) => stuck.push(format!("{name}: {why}")),
            }
        }
        open = still;
        if open.is_empty() {
            break;
        }
        if until_news(&mut events, ids).await.is_err() {
            sleep(LOOK_PERIOD).await;
            // Until that works, it is looked now and then.
            if let Ok(again) = Events::open(door, None).await {
                events = again;
            }
        }
    }
    screen.close();
    if stuck.is_empty() { Ok(()) } else { bail!(stuck.join("; ")) }
}

/// Resolves at an event of one of the services, or when a look is due.
async fn until_news(events: &mut Events, ids: &[String]) -> anyhow::Result<()> {
    let anyway = Instant::now() + LOOK_PERIOD;
    while let Ok(event) = timeout_at(anyway, events.next()).await {
        let event = event?;
        let actor = &event["Actor"];
        let of = actor["Attributes"]["com.docker.swarm.service.id"].as_str().or(actor["ID"].as_str());
        if of.is_some_and(|of| ids.iter().any(|id| id == of)) {
            sleep_until((Instant::now() + SETTLE_TIME).min(anyway)).await;
            return Ok(());
        }
    }
    Ok(())
}

/// The service and its tasks; nothing, if it is gone.
async fn look(door: &Door, id: &str) -> anyhow::Result<Option<(Service, Vec<Task>, BTreeMap<String, Host>)>> {
    let filters = encode(&json!({ "id": [id] }));
    let mut services = door.ask(Method::GET, &format!("/services?status=true&filters={filters}")).await?;
    let Some(service) = services.get_mut(0).map(Value::take) else { return Ok(None) };
    let filters = encode(&json!({ "service": [id] }));
    let tasks = door.ask(Method::GET, &format!("/tasks?filters={filters}")).await?;
    let strange = || format!("{} answers with a malformed document", door.host);
    let service = serde_json::from_value(service).with_context(strange)?;
    Ok(Some((service, serde_json::from_value(tasks).with_context(strange)?, hosts(door).await?)))
}

async fn hosts(door: &Door) -> anyhow::Result<BTreeMap<String, Host>> {
    let nodes = door.ask(Method::GET, "/nodes").await?;
    let host = |it: &Value| {
        let name = it["Description"]["Hostname"].as_str()?.to_owned();
        Some((it["ID"].as_str()?.to_owned(), Host { name, is_down: it["Status"]["State"] == "down" }))
    };
    Ok(nodes.as_array().into_iter().flatten().filter_map(host).collect())
}

/// Output of progress.
enum Screen {
    /// One bar for each slot, by its name; the first one is for the whole.
    Bars(MultiProgress, BTreeMap<String, ProgressBar>),
    /// Lines, with the last one of each slot.
    Lines(BTreeMap<String, String>),
}

impl Screen {
    fn new() -> Screen {
        if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
            Screen::Bars(MultiProgress::new(), BTreeMap::new())
        } else {
            Screen::Lines(BTreeMap::new())
        }
    }

    fn show(&mut self, name: &str, seen: &Progress) {
        let note = if seen.note.is_empty() { String::new() } else { format!("; {}", seen.note) };
        let whole = format!("{} of {} tasks run{note}", seen.done, seen.wanted);
        match self {
            Screen::Bars(all, bars) => {
                let top = bar(all, bars, name);
                top.set_length(seen.wanted.max(1));
                top.set_position(if seen.wanted == 0 { 1 } else { seen.done });
                top.set_message(whole);
                let prefix = format!("{name}.");
                let gone = |it: &String| it.starts_with(&prefix) && !seen.slots.iter().any(|slot| slot.name == *it);
                for (_, bar) in bars.extract_if(.., |it, _| gone(it)) {
                    bar.finish_and_clear();
                }
                for slot in seen.slots.iter().take(BARS_MAX) {
                    let bar = bar(all, bars, &slot.name);
                    bar.set_length(STEPS);
                    bar.set_position(slot.step);
                    bar.set_message(said(slot));
                }
            }
            Screen::Lines(last) => {
                for slot in &seen.slots {
                    tell(last, &slot.name, said(slot));
                }
                // While nothing is known yet, there is nothing to tell.
                if seen.outcome != Some(Outcome::Done) && !seen.slots.is_empty() {
                    tell(last, name, whole);
                }
            }
        }
    }

    /// Something about the whole.
    fn note(&mut self, text: &str) {
        match self {
            // Nothing to be shown is no failure.
            Screen::Bars(all, _) => drop(all.println(text)),
            Screen::Lines(last) => tell(last, "door", text.to_owned()),
        }
    }

    /// A service is as declared.
    fn end(&mut self, name: &str, text: &str) {
        match self {
            Screen::Bars(_, bars) => {
                if let Some(bar) = bars.get(name) {
                    bar.finish_with_message(text.to_owned());
                }
            }
            Screen::Lines(last) => tell(last, name, format!("as declared: {text}")),
        }
    }

    /// Leaves the last state on the screen.
    fn close(self) {
        if let Screen::Bars(_, bars) = self {
            bars.values().for_each(ProgressBar::abandon);
        }
    }
}

fn said(slot: &Slot) -> String {
    if slot.error.is_empty() { slot.state.clone() } else { format!("{}: {}", slot.state, slot.error) }
}

fn tell(last: &mut BTreeMap<String, String>, name: &str, text: String) {
    if last.get(name) != Some(&text) {
        anstream::println!("{name}: {text}");
        last.insert(name.to_owned(), text);
    }
}

fn bar(all: &MultiProgress, bars: &mut BTreeMap<String, ProgressBar>, name: &str) -> ProgressBar {
    let make = || {
        let style = ProgressStyle::with_template("{prefix:24!} {bar:20} {wide_msg}");
        let bar = ProgressBar::new(STEPS).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        all.add(bar.with_prefix(name.to_owned()))
    };
    bars.entry(name.to_owned()).or_insert_with(make).clone()
}
