//! Plans, progress and lists of stacks, as people and programs read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{Table, presets};
use herder_compose::{STACK_LABEL, Variable};
use herder_deploy::{Action, News, Plan, Progress, sign};
use serde_json::{Value, json};

/// Characters of a value that a line shows at most.
const VALUE_CHARS_MAX: usize = 60;

/// A plan as text: a line for each change, with the fields that change below it.
pub(super) fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let changes = || plan.steps.iter().filter(|step| step.action != Action::Keep);
    for step in changes() {
        let _ = writeln!(text, "{} {:<7} {}", sign(step.action), step.kind.word(), step.name);
        let width = step.fields.iter().map(|field| field.name.chars().count()).max().unwrap_or_default();
        for field in &step.fields {
            let arrow = format!("{} → {}", short(&field.old), short(&field.new));
            let _ = writeln!(text, "    {:<width$}  {}", field.name, arrow.trim());
        }
    }
    let of = |action: Action| plan.steps.iter().filter(|step| step.action == action).count();
    let summary = if plan.is_empty() {
        "nothing to do".to_owned()
    } else {
        let (create, update, remove) = (of(Action::Create), of(Action::Update), of(Action::Remove));
        format!("{create} to create, {update} to update, {remove} to remove")
    };
    let _ = writeln!(text, "stack {}: {summary}", plan.stack);
    text.extend(plan.notes.iter().map(|note| format!("note: {note}\n")));
    text.extend(plan.refused.iter().map(|reason| format!("refused: {reason}\n")));
    text
}

/// A plan for programs.
pub(super) fn json(plan: &Plan) -> Value {
    let changes = plan.steps.iter().map(|step| {
        let fields = step.fields.iter().map(|it| json!({"Name": it.name, "Old": it.old, "New": it.new}));
        json!({"Action": step.action, "Kind": step.kind, "Name": step.name, "Fields": fields.collect::<Vec<_>>()})
    });
    json!({
        "Stack": plan.stack,
        "Changes": changes.collect::<Vec<_>>(),
        "Notes": plan.notes,
        "Refused": plan.refused,
    })
}

fn short(text: &str) -> String {
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(VALUE_CHARS_MAX - 1).chain(['…']).collect()
}

/// Prints the news of a deployment on stderr, one line each.
#[derive(Default)]
pub(super) struct NewsLines(News);

impl NewsLines {
    pub(super) fn tell(&mut self, news: &Progress<'_>) {
        if let Some(line) = self.0.line(news) {
            eprintln!("{line}");
        }
    }
}

/// The variables that files read.
pub(super) fn variables(variables: &[Variable], as_json: bool) -> String {
    if as_json {
        return format!("{:#}\n", json!(variables));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NAME", "DEFAULT", "REQUIRED", "SET", "USED AT"]);
    for variable in variables {
        let yes = |is: bool| if is { "yes" } else { "no" };
        table.add_row([
            variable.name.as_str(),
            variable.default.as_deref().unwrap_or_default(),
            yes(variable.required),
            yes(variable.is_set),
            variable.used_at.first().map_or("", String::as_str),
        ]);
    }
    trimmed(&table)
}

/// The stacks of a swarm, with the number of their services.
pub(super) fn stacks(services: &[Value], as_json: bool) -> String {
    let mut stacks: BTreeMap<&str, usize> = BTreeMap::new();
    for stack in services.iter().filter_map(|service| service["Spec"]["Labels"][STACK_LABEL].as_str()) {
        *stacks.entry(stack).or_default() += 1;
    }
    if as_json {
        let list: Vec<Value> = stacks.iter().map(|(name, count)| json!({"Name": name, "Services": count})).collect();
        return format!("{}\n", json!(list));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NAME", "SERVICES"]);
    for (name, count) in stacks {
        table.add_row([name.to_owned(), count.to_string()]);
    }
    trimmed(&table)
}

/// The stacks that a door of herder keeps.
pub(super) fn kept_stacks(stacks: &Value, as_json: bool) -> String {
    let stacks = stacks.as_array().map_or(&[][..], Vec::as_slice);
    if as_json {
        let list = stacks.iter().map(|it| {
            json!({"Name": it["name"], "Services": it["services"], "State": it["state"], "Revision": it["revision"],
                "By": it["by"], "Error": it["error"]})
        });
        return format!("{}\n", json!(list.collect::<Vec<_>>()));
    }
    let rows = stacks.iter().map(|it| [&it["name"], &it["services"], &it["state"], &it["revision"]].map(word));
    table(["NAME", "SERVICES", "STATE", "REVISION"], rows)
}

/// A value as one word of a table.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', " "),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A table with these heads.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    trimmed(&table)
}

/// A table without the blanks at the ends of its lines.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim())).collect()
}
