//! A plan as people read it, and as programs do. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::change::{Action, Change, Plan, Tasks};

/// Maximum length of a value that is shown in a line.
const VALUE_CHARS_MAX: usize = 60;

impl Action {
    fn sign(self) -> char {
        match self {
            Action::Create => '+',
            Action::Update => '~',
            Action::Remove => '-',
            Action::Keep => '=',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Remove => "remove",
            Action::Keep => "keep",
        }
    }
}

impl Tasks {
    fn parts(self) -> [(&'static str, u64); 4] {
        [("start", self.start), ("replace", self.replace), ("end", self.end), ("keep", self.keep)]
    }
}

pub(super) fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let changes = || plan.changes.iter().filter(|it| it.action != Action::Keep);
    let width = changes().map(|it| it.name.chars().count()).max().unwrap_or_default();
    for change in changes() {
        let parts = change.tasks.parts().into_iter().filter(|(_, count)| *count > 0);
        let parts: Vec<String> = parts.map(|(word, count)| format!("{word} {count}")).collect();
        let line = format!("{} {:<7} {:<width$}  {}", change.action.sign(), change.kind, change.name, parts.join(", "));
        let _ = writeln!(text, "{}", line.trim_end());
        let names = change.fields.iter().map(|it| it.name.chars().count()).max().unwrap_or_default();
        for field in &change.fields {
            let arrow = format!("{} → {}", short(&field.old), short(&field.new));
            let _ = writeln!(text, "    {:<names$}  {}", field.name, arrow.trim());
        }
    }
    let _ = writeln!(text, "stack {}: {}", plan.stack, summary(plan));
    let notes = plan.notes.iter().map(|it| format!("note: {it}\n"));
    text.extend(notes.chain(plan.refused.iter().map(|it| format!("refused: {it}\n"))));
    text
}

fn summary(plan: &Plan) -> String {
    let of = |action: Action| plan.changes.iter().filter(|it| it.action == action).count();
    if plan.is_empty() {
        let services = plan.changes.iter().filter(|it| it.kind == "service").count();
        return format!("nothing would change ({services} service{})", if services == 1 { "" } else { "s" });
    }
    let tasks = |part: fn(&Tasks) -> u64| plan.changes.iter().map(|it| part(&it.tasks)).sum::<u64>();
    format!(
        "{} to create, {} to update, {} to remove; tasks: {} to start, {} to replace, {} to end",
        of(Action::Create),
        of(Action::Update),
        of(Action::Remove),
        tasks(|it| it.start),
        tasks(|it| it.replace),
        tasks(|it| it.end)
    )
}

fn short(text: &str) -> String {
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(VALUE_CHARS_MAX - 1).chain(['…']).collect()
}

pub(super) fn json(plan: &Plan) -> Value {
    let change = |it: &Change| {
        let fields: Vec<Value> =
            it.fields.iter().map(|it| json!({"Name": it.name, "Old": it.old, "New": it.new})).collect();
        let tasks: serde_json::Map<String, Value> =
            it.tasks.parts().into_iter().map(|(word, count)| (capital(word), count.into())).collect();
        let mut change = json!({"Action": it.action.word(), "Kind": it.kind, "Name": it.name, "Fields": fields});
        if it.kind == "service" {
            change["Tasks"] = tasks.into();
        }
        change
    };
    json!({
        "Stack": plan.stack, "Changes": plan.changes.iter().map(change).collect::<Vec<_>>(), "Notes": plan.notes,
        "Refused": plan.refused,
    })
}

fn capital(word: &str) -> String {
    word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect()
}
