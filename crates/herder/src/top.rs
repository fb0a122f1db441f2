//! `herder top`: nodes, services, tasks and events of a swarm, as they are now.
//!
//! What is shown is read anew when an event says that something changed, and now and then, for not every step of a task is an
//! event. Reading takes at most a fifth of the time, however large the swarm is.

mod draw;
mod picture;
mod view;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use herder_cli::Top;
use http::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::door::Door;
use crate::service::Events;
use picture::Picture;
use view::View;

/// Events come in bursts; one look is enough for those within this time.
const SETTLE_TIME: Duration = Duration::from_millis(150);

/// Without any event, it is looked after this time.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// A read that took long is not followed by another one before this many times as long.
const READ_SHARE: u32 = 4;

/// Ages are counted in seconds.
const TICK: Duration = Duration::from_secs(1);

/// Pause before a silent door is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Maximum wait for a key before the loop checks whether its reader is still there.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// Maximum number of keys that wait for the screen, which draws faster than a user types.
const KEYS_WAITING_MAX: usize = 64;

/// Events of this time are shown from the beginning.
const PAST: Duration = Duration::from_secs(600);

/// Silence after which the past counts as complete.
const PAST_WAIT: Duration = Duration::from_millis(100);

/// Maximum time for reading the past, in a swarm with constant events.
const PAST_TIME_MAX: Duration = Duration::from_millis(500);

/// Default size for a pipe: room for all tables.
const PIPE_SIZE: (u16, u16) = (120, 40);

/// News that wait for the screen.
const NEWS_WAITING_MAX: usize = 256;

/// Message of the door.
enum News {
    Lists(Lists),
    Event(Value),
    /// The door does not answer, with the reason.
    Trouble(String),
}

/// Nodes, services and tasks.
type Lists = (Vec<Value>, Vec<Value>, Vec<Value>);

pub(crate) async fn run(asked: Top) -> anyhow::Result<()> {
    let door = Door::of(&asked.door)?;
    let since = Timestamp::now().as_second() - PAST.as_secs().cast_signed();
    let mut events = Events::open(&door, Some(since)).await?;
    let mut picture = Picture { zone: Some(TimeZone::system()), ..Picture::default() };
    // What is wrong before anything is shown is an error; later it is a line on the screen.
    (picture.nodes, picture.services, picture.tasks) = read(&door).await?;
    let enough = Instant::now() + PAST_TIME_MAX;
    while let Ok(event) = timeout_at(enough.min(Instant::now() + PAST_WAIT), events.next()).await {
        picture.add(event?);
    }
    if asked.once {
        let terminal = || ratatui::crossterm::terminal::size().ok().filter(|_| std::io::stdout().is_terminal());
        let size = asked.size.or_else(terminal).unwrap_or(PIPE_SIZE);
        anstream::print!("{}", draw::text(&picture, &View::default(), size, Timestamp::now())?);
        return Ok(());
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("this is no terminal: `herder top --once` prints one frame");
    }
    let (told, news) = mpsc::channel(NEWS_WAITING_MAX);
    let feeder = tokio::spawn(feed(door, events, told));
    let mut terminal = ratatui::try_init()?;
    let ended = show(picture, news, &mut terminal).await;
    ratatui::restore();
    feeder.abort();
    ended
}

async fn show(
    mut picture: Picture,
    mut news: mpsc::Receiver<News>,
    terminal: &mut DefaultTerminal,
) -> anyhow::Result<()> {
    let mut view = View::default();
    let mut keys = keyboard();
    loop {
        terminal.draw(|frame| draw::draw(frame, &picture, &view, Timestamp::now()))?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    let rows = picture.count(view.focus(), view.all);
                    if !view.press(key, rows) {
                        return Ok(());
                    }
                }
                // Another size: it is drawn anew.
                Some(_) => {}
                None => bail!("the keyboard is gone"),
            },
            said = news.recv() => match said {
                Some(News::Lists(lists)) => {
                    (picture.nodes, picture.services, picture.tasks) = lists;
                    view.trouble.clear();
                }
                Some(News::Event(event)) => picture.add(event),
                Some(News::Trouble(why)) => view.trouble = format!("what is shown is old: {why}"),
                None => bail!("the reader of the door has ended"),
            },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Listens to the door and reads it, as long as anybody wants to know.
async fn feed(door: Door, mut events: Events, told: mpsc::Sender<News>) {
    while !told.is_closed() {
        let ended = listen(&door, &mut events, &told).await;
        let why = ended.err().map(|error| format!("{error:#}")).unwrap_or_default();
        let _ = told.send(News::Trouble(why)).await;
        while let Err(error) = again(&door, &mut events).await {
            if told.send(News::Trouble(format!("{error:#}"))).await.is_err() {
                return;
            }
        }
    }
}

async fn again(door: &Door, events: &mut Events) -> anyhow::Result<()> {
    tokio::time::sleep(AGAIN).await;
    *events = Events::open(door, None).await?;
    Ok(())
}

async fn listen(door: &Door, events: &mut Events, told: &mpsc::Sender<News>) -> anyhow::Result<()> {
    loop {
        let began = Instant::now();
        let lists = read(door).await?;
        if told.send(News::Lists(lists)).await.is_err() {
            return Ok(());
        }
        let earliest = Instant::now() + began.elapsed() * READ_SHARE;
        let mut look_at = earliest.max(Instant::now() + LOOK_PERIOD);
        while let Ok(event) = timeout_at(look_at, events.next()).await {
            if told.send(News::Event(event?)).await.is_err() {
                return Ok(());
            }
            look_at = look_at.min(earliest.max(Instant::now() + SETTLE_TIME));
        }
    }
}

async fn read(door: &Door) -> anyhow::Result<Lists> {
    tokio::try_join!(list(door, "/nodes"), list(door, "/services?status=true"), list(door, "/tasks"))
}

async fn list(door: &Door, path: &str) -> anyhow::Result<Vec<Value>> {
    match door.ask(Method::GET, path).await? {
        Value::Array(items) => Ok(items),
        _ => bail!("{} answers with a malformed document", door.host),
    }
}

/// Keys and sizes, from a thread of its own: there is no other way to wait for both.
fn keyboard() -> mpsc::Receiver<Event> {
    let (told, keys) = mpsc::channel(KEYS_WAITING_MAX);
    std::thread::spawn(move || {
        while !told.is_closed() {
            let read = match event::poll(KEY_WAIT) {
                Ok(true) => event::read(),
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            let Ok(event) = read else { return };
            if told.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}
