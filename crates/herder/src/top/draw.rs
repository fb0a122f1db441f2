//! One frame: a line that sums up, tables, a line with the keys. Pure.
//!
//! A large terminal shows all tables, a small one that which is looked at.

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row as Shown, Table, TableState};

use super::picture::{PANES, Pane, Picture, Row, Tone, sort};
use super::view::{Look, View};

/// Size from which on all tables fit.
const LARGE: (u16, u16) = (110, 30);

/// Below this, a column says nothing.
const COLUMN_WIDTH_MIN: u16 = 4;

pub(super) fn draw(frame: &mut Frame<'_>, picture: &Picture, view: &View, now: Timestamp) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    let title = Span::styled(" herder top ", Style::new().add_modifier(Modifier::REVERSED));
    let said = match view.trouble.as_str() {
        "" => Span::raw(format!(" {}", picture.headline())),
        trouble => Span::styled(format!(" {trouble}"), Style::new().fg(Color::Red)),
    };
    frame.render_widget(Line::from(vec![title, said]), head);
    if frame.area().width >= LARGE.0 && frame.area().height >= LARGE.1 {
        let tasks = picture.count(Pane::Tasks, view.all);
        for (pane, area) in PANES.into_iter().zip(areas(body, picture, tasks)) {
            draw_table(frame, picture, view, pane, area, now);
        }
    } else {
        let [tabs, table] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(body);
        frame.render_widget(tab_line(picture, view), tabs);
        draw_table(frame, picture, view, view.focus(), table, now);
    }
    frame.render_widget(keys(view), foot);
}

/// Nodes and services side by side, tasks below, events at the end. Nobody gets more than there is to show, but events.
fn areas(body: Rect, picture: &Picture, tasks: usize) -> [Rect; 4] {
    // A border above and below, and the head of the table.
    let need = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(3);
    let top = need(picture.nodes.len().max(picture.services.len())).min(body.height / 3);
    let events_min = body.height / 4;
    let tasks = need(tasks).min(body.height - top - events_min);
    let [top, tasks, events] =
        Layout::vertical([Constraint::Length(top), Constraint::Length(tasks), Constraint::Min(0)]).areas(body);
    let [nodes, services] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(top);
    [nodes, services, tasks, events]
}

fn tab_line<'t>(picture: &Picture, view: &View) -> Line<'t> {
    let tab = |pane: Pane| {
        let count = picture.count(pane, view.all);
        let style = if pane == view.focus() { Modifier::REVERSED } else { Modifier::DIM };
        [Span::styled(format!(" {} {count} ", pane.title()), Style::new().add_modifier(style)), Span::raw(" ")]
    };
    PANES.into_iter().flat_map(tab).collect::<Vec<_>>().into()
}

fn keys<'t>(view: &View) -> Paragraph<'t> {
    let all = if view.all { "a live tasks" } else { "a all tasks" };
    let text = format!(" q quit  tab next table  ↑↓ move  ←→ sort by  r reverse  {all}");
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::DIM))
}

fn draw_table(frame: &mut Frame<'_>, picture: &Picture, view: &View, pane: Pane, area: Rect, now: Timestamp) {
    let (rows, look) = (sorted(picture, view, pane, now), view.look(pane));
    let is_focus = pane == view.focus();
    let bordered = frame.area().width >= LARGE.0 && frame.area().height >= LARGE.1;
    let columns = pane.columns();
    let heads = columns.iter().enumerate().map(|(at, (name, _))| {
        let mark =
            if at == look.column && pane != Pane::Events { if look.reverse { "↓" } else { "↑" } } else { "" };
        Cell::from(format!("{name}{mark}"))
    });
    let widths = widths(&rows, pane, area.width.saturating_sub(if bordered { 2 } else { 0 }));
    let marked = look.row.min(rows.len().saturating_sub(1));
    let count = rows.len();
    // Of a million tasks, only those on the screen are drawn.
    let height = usize::from(area.height);
    let first = marked.saturating_sub(height.saturating_sub(4));
    let shown = rows.into_iter().skip(first).take(height).map(|row| {
        let style = Style::new().fg(colour(row.tone));
        let state = match pane {
            Pane::Nodes => 1,
            Pane::Services | Pane::Tasks | Pane::Events => 2,
        };
        let cells = row.cells.into_iter().enumerate().map(move |(at, text)| {
            let coloured = at == state || at == pane.wide() && pane == Pane::Tasks;
            if coloured { Cell::from(text).style(style) } else { Cell::from(text) }
        });
        Shown::new(cells)
    });
    let mut table = Table::new(shown, widths).column_spacing(1);
    table = table.header(Shown::new(heads).style(Style::new().add_modifier(Modifier::BOLD)));
    if bordered {
        let title = format!(" {} {count} ", pane.title());
        let style = if is_focus { Style::new().fg(Color::Cyan) } else { Style::new().add_modifier(Modifier::DIM) };
        table = table.block(Block::bordered().title(title).border_style(style));
    }
    let mut state = TableState::default();
    if is_focus && count > 0 {
        table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        state.select(Some(marked - first));
    }
    frame.render_stateful_widget(table, area, &mut state);
}

fn sorted(picture: &Picture, view: &View, pane: Pane, now: Timestamp) -> Vec<Row> {
    let Look { column, reverse, .. } = view.look(pane);
    let mut rows = picture.rows(pane, view.all, now);
    if pane != Pane::Events {
        sort(&mut rows, column, reverse);
    }
    rows
}

/// Each column as wide as what is in it; where there is less room, the widest give it up. One takes what is left.
fn widths(rows: &[Row], pane: Pane, room: u16) -> Vec<Constraint> {
    let columns = pane.columns();
    let gaps = u16::try_from(columns.len()).unwrap_or_default().saturating_sub(1);
    let room = room.saturating_sub(gaps);
    let content = |at: usize| {
        let longest = rows.iter().map(|row| row.cells[at].chars().count()).max().unwrap_or_default();
        // The mark of the order stands behind the name.
        u16::try_from(longest.max(columns[at].0.len() + 1)).unwrap_or(u16::MAX).min(room)
    };
    let mut widths: Vec<u16> = (0..columns.len()).map(|at| content(at).max(columns[at].1)).collect();
    if sum(&widths) > room {
        widths = (0..columns.len()).map(content).collect();
    }
    while sum(&widths) > room {
        let widest = (0..widths.len()).max_by_key(|at| widths[*at]).filter(|at| widths[*at] > COLUMN_WIDTH_MIN);
        let Some(widest) = widest else { break };
        widths[widest] -= 1;
    }
    let spare = room.saturating_sub(sum(&widths));
    widths[pane.wide()] += spare;
    widths.into_iter().map(Constraint::Length).collect()
}

fn sum(widths: &[u16]) -> u16 {
    widths.iter().fold(0, |sum: u16, width| sum.saturating_add(*width))
}

fn colour(tone: Tone) -> Color {
    match tone {
        Tone::Good => Color::Green,
        Tone::Busy => Color::Yellow,
        Tone::Bad => Color::Red,
        Tone::Plain => Color::Reset,
    }
}

/// One frame as text.
pub(super) fn text(picture: &Picture, view: &View, size: (u16, u16), now: Timestamp) -> anyhow::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1))?;
    terminal.draw(|frame| draw(frame, picture, view, now))?;
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect();
    let lines = cells.chunks(usize::from(size.0)).map(|line| line.concat().trim_end().to_owned() + "\n");
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::{moment, picture};
    use super::*;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    fn shown(keys: &[KeyCode], size: (u16, u16)) -> String {
        let mut view = View::default();
        keys.iter().for_each(|code| assert!(view.press(KeyEvent::new(*code, KeyModifiers::NONE), 9)));
        text(&picture(), &view, size, moment()).expect("a frame")
    }

    #[test]
    fn a_small_terminal_shows_the_table_that_is_looked_at() {
        let frame = shown(&[], (80, 8));
        assert_eq!(
            frame,
            " herder top  nodes 2/3 · services 0/1 · tasks 2/3 · managers 2, leader h1
 Nodes 3   Services 1   Tasks 3   Events 2
NAME↑      STATE  AVAIL  ROLE      TASKS  CPUS  MEMORY   ADDRESS
h1         ready  active leader    1      2     2.0GiB   10.0.0.1
h2         ready  active manager   1      2     2.0GiB   10.0.0.1
h3         down   active worker    0      2     2.0GiB   10.0.0.1

 q quit  tab next table  ↑↓ move  ←→ sort by  r reverse  a all tasks
"
        );
        let frame = shown(&[KeyCode::Char('3'), KeyCode::Right, KeyCode::Char('r')], (80, 8));
        let lines: Vec<&str> = frame.lines().collect();
        assert!(lines[2].starts_with("NAME             NODE↓"), "{frame}");
        assert!(lines[3].starts_with("web.10           h2         running"), "{frame}");
        assert!(lines[5].contains("no suitable node"), "{frame}");
    }

    #[test]
    fn a_large_terminal_shows_all_tables() {
        let frame = shown(&[], (120, 40));
        for part in ["┌ Nodes 3 ─", "┌ Services 1 ─", "┌ Tasks 3 ─", "┌ Events 2 ─", "web.10", "busybox:1", "web → 3"]
        {
            assert!(frame.contains(part), "{part}: {frame}");
        }
        assert_eq!(frame.lines().count(), 40);
    }

    #[test]
    fn no_size_is_too_small() {
        for size in [(1, 1), (5, 3), (10, 2), (109, 30), (110, 30), (300, 100)] {
            shown(&[KeyCode::Tab, KeyCode::End], size);
        }
    }

    #[test]
    fn the_marked_row_is_on_the_screen() {
        let mut picture = picture();
        let one = picture.tasks[0].clone();
        picture.tasks = (1..=100)
            .map(|slot| {
                let mut task = one.clone();
                task["Slot"] = slot.into();
                task
            })
            .collect();
        let mut view = View::default();
        for code in [KeyCode::Char('3'), KeyCode::End] {
            view.press(KeyEvent::new(code, KeyModifiers::NONE), 100);
        }
        let frame = text(&picture, &view, (80, 24), moment()).expect("a frame");
        assert!(frame.contains("web.100") && !frame.contains("web.10 "), "{frame}");
    }
}
