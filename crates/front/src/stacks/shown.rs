//! Records of stacks as the stack API shows them. Pure.

use std::collections::BTreeSet;

use herder_compose::STACK_LABEL;
use herder_deploy::{Action, Plan};
use herder_stacks::{Found, Operation, Revision, Stack};
use serde_json::{Value, json};

pub(crate) fn operation(found: &Found<Operation>) -> Value {
    let it = &found.record;
    let steps = it.steps.iter().enumerate().map(|(n, step)| {
        json!({"n": n + 1, "action": step.action, "kind": step.kind, "subject": step.subject, "state": step.state})
    });
    json!({
        "id": found.id,
        "kind": it.verb,
        "target": it.target,
        "stack": it.stack,
        "revision": it.revision,
        "state": it.state,
        "by": it.by,
        "started": it.started,
        "finished": if it.finished.is_empty() { Value::Null } else { it.finished.clone().into() },
        "steps": steps.collect::<Vec<_>>(),
        "log": it.log,
        "log_dropped": it.log_dropped,
        "cancel": it.cancel,
        "late": it.late,
        "error": if it.error.is_empty() { Value::Null } else { it.error.clone().into() },
    })
}

pub(crate) fn stack(found: &Found<Stack>) -> Value {
    let it = &found.record;
    let text = |text: &String| if text.is_empty() { Value::Null } else { text.clone().into() };
    json!({
        "id": found.id,
        "name": it.stack,
        "target": it.target,
        "state": it.state,
        "revision": it.revision,
        "last_revision": it.last,
        "operation": text(&it.operation),
        "error": text(&it.error),
        "by": it.by,
        "pins": it.pins,
        "created": found.created_at,
        "updated": found.updated_at,
    })
}

/// Stacks that were made otherwise, by the labels of services: Docker's own client keeps no record.
pub(crate) fn unrecorded(target: &str, known: &BTreeSet<String>, services: &[Value]) -> Vec<Value> {
    let names = services.iter().filter_map(|it| it["Spec"]["Labels"][STACK_LABEL].as_str());
    let names: BTreeSet<&str> = names.filter(|it| !known.contains(*it)).collect();
    let record = |name: &str| {
        json!({
            "id": null, "name": name, "target": target, "state": "active", "revision": 0, "last_revision": 0,
            "operation": null, "error": null, "by": "", "pins": {}, "created": null, "updated": null,
        })
    };
    names.into_iter().map(record).collect()
}

/// A revision without what its files and variables hold: both may be secrets.
pub(crate) fn revision(found: &Found<Revision>) -> Value {
    let it = &found.record;
    json!({
        "number": it.number,
        "target": it.target,
        "stack": it.stack,
        "by": it.by,
        "created": found.created_at,
        "outcome": it.outcome,
        "repeats": it.repeats,
        "options": it.options,
        "files": it.bundle.files.iter().filter(|(_, file)| file.is_some()).map(|(path, _)| path).collect::<Vec<_>>(),
        "variables": it.bundle.environment.keys().collect::<Vec<_>>(),
        "images": it.images,
    })
}

pub(crate) fn plan(plan: &Plan) -> Value {
    let changes = plan.steps.iter().map(|step| {
        let fields = step.fields.iter().map(|it| json!({"name": it.name, "old": it.old, "new": it.new}));
        json!({"action": step.action, "kind": step.kind, "name": step.name, "fields": fields.collect::<Vec<_>>()})
    });
    let of = |action: Action| plan.steps.iter().filter(|step| step.action == action).count();
    json!({
        "stack": plan.stack,
        "changes": changes.collect::<Vec<_>>(),
        "create": of(Action::Create),
        "update": of(Action::Update),
        "remove": of(Action::Remove),
        "keep": of(Action::Keep),
        "notes": plan.notes,
        "refused": plan.refused,
    })
}
