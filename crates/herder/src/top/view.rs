//! The visible part of the picture, and the effect of keys. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::picture::{PANES, Pane};

/// Lines that a page has.
const PAGE: usize = 10;

/// View of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The column by which rows are sorted.
    pub(super) column: usize,
    pub(super) reverse: bool,
    /// The row that is marked, from the top.
    pub(super) row: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct View {
    focus: usize,
    looks: [Look; PANES.len()],
    /// True if tasks that ended are shown, too.
    pub(super) all: bool,
    /// Reason why the picture may be old. Empty while all is well.
    pub(super) trouble: String,
}

impl View {
    pub(super) fn focus(&self) -> Pane {
        PANES[self.focus % PANES.len()]
    }

    pub(super) fn look(&self, pane: Pane) -> Look {
        self.looks[at(pane)]
    }

    /// False: it shall end. `rows` is how many the focused table has.
    pub(super) fn press(&mut self, key: KeyEvent, rows: usize) -> bool {
        let columns = self.focus().columns().len();
        let look = &mut self.looks[self.focus % PANES.len()];
        let last = rows.saturating_sub(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Tab => self.focus = (self.focus + 1) % PANES.len(),
            KeyCode::BackTab => self.focus = (self.focus + PANES.len() - 1) % PANES.len(),
            KeyCode::Char(digit @ '1'..='4') => self.focus = usize::from(digit as u8 - b'1'),
            KeyCode::Up | KeyCode::Char('k') => look.row = look.row.min(last).saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => look.row = (look.row + 1).min(last),
            KeyCode::PageUp => look.row = look.row.min(last).saturating_sub(PAGE),
            KeyCode::PageDown => look.row = (look.row + PAGE).min(last),
            KeyCode::Home => look.row = 0,
            KeyCode::End => look.row = last,
            KeyCode::Left => look.column = (look.column + columns - 1) % columns,
            KeyCode::Right => look.column = (look.column + 1) % columns,
            KeyCode::Char('r') => look.reverse = !look.reverse,
            KeyCode::Char('a') => self.all = !self.all,
            _ => {}
        }
        true
    }
}

fn at(pane: Pane) -> usize {
    PANES.iter().position(|it| *it == pane).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys by name; then the position: the table, the column (`-` before it if it is reversed) and the row.
    #[track_caller]
    fn check(keys: &str, expected: &str) {
        let mut view = View::default();
        let mut goes_on = true;
        for name in keys.split_whitespace() {
            let code = match name {
                "tab" => KeyCode::Tab,
                "backtab" => KeyCode::BackTab,
                "up" => KeyCode::Up,
                "down" => KeyCode::Down,
                "left" => KeyCode::Left,
                "right" => KeyCode::Right,
                "end" => KeyCode::End,
                "page" => KeyCode::PageDown,
                "esc" => KeyCode::Esc,
                other => KeyCode::Char(other.trim_start_matches('^').chars().next().unwrap_or(' ')),
            };
            let held = if name.starts_with('^') { KeyModifiers::CONTROL } else { KeyModifiers::NONE };
            goes_on = view.press(KeyEvent::new(code, held), 3);
        }
        let pane = view.focus();
        let look = view.look(pane);
        let column = pane.columns()[look.column].0;
        let sign = if look.reverse { "-" } else { "" };
        let told = format!("{} {sign}{column} {}{}", pane.title(), look.row, if goes_on { "" } else { " ends" });
        assert_eq!(told, expected);
    }

    #[test]
    fn keys_move_between_tables_columns_and_rows() {
        check("", "Nodes NAME 0");
        check("tab", "Services NAME 0");
        check("tab tab tab tab", "Nodes NAME 0");
        check("backtab", "Events TIME 0");
        check("3", "Tasks NAME 0");
        check("down down down down", "Nodes NAME 2");
        check("page up", "Nodes NAME 1");
        check("end up up up", "Nodes NAME 0");
        check("right r", "Nodes -STATE 0");
        check("left", "Nodes ADDRESS 0");
        check("right tab", "Services NAME 0");
        check("c x", "Nodes NAME 0");
        for end in ["q", "esc", "^c"] {
            check(end, "Nodes NAME 0 ends");
        }
    }
}
