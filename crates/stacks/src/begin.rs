//! The rules by which an operation on a stack begins, and the records that it writes. Pure.

use herder_decide::swarm::nodes::level;
use herder_deploy::images::Images;
use herder_model::swarm::{Change, Feature, Kind, Resource, ResourceError, View, Word};

use crate::bundle::{Bundle, check_name};
use crate::queue::{WAITING_MAX, line};
use crate::record::{
    DeployOptions, Found, Kinds, Operation, Revision, Stack, Verb, find, kinds, operations, record_name, revisions,
    stacks,
};

/// Revisions of a stack that are kept.
const REVISIONS_MAX: usize = 10;
/// Operations that are kept when they are over. Each is some kilobytes; clients look at recent ones.
const OVER_MAX: usize = 200;
/// Operations under way at the same time, those that wait for their turn included.
const UNDER_WAY_MAX: usize = 64;

/// A requested change of a stack.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Deploy a source.
    Deploy {
        bundle: Bundle,
        images: Images,
        options: DeployOptions,
    },
    /// Deploy the source of an earlier revision; 0 is the one before the present.
    Rollback {
        revision: u64,
        options: DeployOptions,
    },
    Remove {
        timeout_seconds: u64,
        volumes: bool,
    },
}

/// Ids of new objects.
#[derive(Clone, Debug)]
pub struct Ids {
    pub stack: String,
    pub revision: String,
    pub operation: String,
}

/// An operation that begins once the changes are written.
#[derive(Debug)]
pub struct Begun {
    pub changes: Vec<Change>,
    pub operation: String,
    pub revision: u64,
}

/// The reason for which no operation begins.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Wrong(String),
    #[error("operation {operation} works on stack {stack}; wait for its end, or cancel it")]
    Busy { stack: String, operation: String },
    #[error("{UNDER_WAY_MAX} operations are under way; try again later")]
    TooMany,
    #[error("{WAITING_MAX} operations wait for stack {0} already; try again later")]
    Full(String),
    /// Some manager's release does not know stacks.
    #[error("{0}")]
    Level(String),
    #[error("there is no stack {0}")]
    NoStack(String),
    #[error("stack {stack} has no revision {wanted}; it has {known}")]
    NoRevision { stack: String, wanted: String, known: String },
    #[error("there is no operation {0}")]
    NoOperation(String),
    #[error("operation {0} is over")]
    Over(String),
    #[error(transparent)]
    Record(#[from] ResourceError),
}

/// The caller of an operation, its time, and if it may wait behind others on the same stack.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub by: &'a str,
    /// RFC 3339.
    pub now: &'a str,
    pub waits: bool,
}

/// Begins an operation on `stack` at `target`, or puts it behind those that are under way there.
pub fn begin(
    view: &View,
    target: &str,
    stack: &str,
    wish: Wish,
    asking: Asking<'_>,
    ids: Ids,
) -> Result<Begun, Refused> {
    let Asking { by, now, waits } = asking;
    check_level(view)?;
    check_name(stack).map_err(|error| Refused::Wrong(error.to_string()))?;
    if matches!(wish, Wish::Deploy { .. } | Wish::Rollback { .. } | Wish::Remove { volumes: true, .. }) {
        names_are_free(view, target, stack, stack)?;
    }
    let kinds = kinds().ok_or_else(|| Refused::Wrong("this node knows too many kinds of objects".into()))?;
    let known = stacks(view, target).into_iter().find(|it| it.record.stack.eq_ignore_ascii_case(stack));
    if let Some(other) = known.as_ref().filter(|it| it.record.stack != stack) {
        return Err(Refused::Wrong(format!(
            "there is a stack {} already; its name differs in case only",
            other.record.stack
        )));
    }
    let mut all = operations(view);
    let line = line(view, target, stack);
    if let Some(first) = line.first() {
        let present = known.as_ref().map(|it| &it.record.operation).filter(|id| line.iter().any(|it| it.id == **id));
        // The one before the present is not known yet.
        if !waits || matches!(wish, Wish::Rollback { revision: 0, .. }) {
            let operation = present.unwrap_or(&first.id).clone();
            return Err(Refused::Busy { stack: stack.to_owned(), operation });
        }
        if line.len() > WAITING_MAX {
            return Err(Refused::Full(stack.to_owned()));
        }
    }
    if all.iter().filter(|it| !it.record.state.is_over()).count() >= UNDER_WAY_MAX {
        return Err(Refused::TooMany);
    }
    let mut changes = Vec::new();
    let (id, version, mut record) = match known {
        Some(it) => (it.id, it.version, it.record),
        None => (ids.stack, 0, Stack { target: target.to_owned(), stack: stack.to_owned(), ..Stack::default() }),
    };
    let mut operation = Operation {
        target: target.to_owned(),
        stack: stack.to_owned(),
        by: by.to_owned(),
        started: now.to_owned(),
        ..Operation::default()
    };
    let mut kept = revisions(view, target, stack);
    let revision = |bundle, images, options, repeats| Revision {
        target: target.to_owned(),
        stack: stack.to_owned(),
        by: by.to_owned(),
        bundle,
        images,
        options,
        repeats,
        ..Revision::default()
    };
    let new = match wish {
        Wish::Remove { timeout_seconds, volumes } => {
            operation.verb = Verb::Remove;
            operation.volumes = volumes;
            operation.timeout_seconds = timeout_seconds;
            None
        }
        Wish::Deploy { bundle, images, options } => Some(revision(bundle, images, options, 0)),
        Wish::Rollback { revision: wanted, options } => {
            operation.verb = Verb::Rollback;
            if version == 0 {
                return Err(Refused::NoStack(stack.to_owned()));
            }
            let before = |it: &&Found<Revision>| it.record.number < record.revision && it.record.outcome == "deployed";
            let former = match wanted {
                0 => kept.iter().find(before),
                _ => kept.iter().find(|it| it.record.number == wanted),
            };
            let former = former.ok_or_else(|| {
                let known: Vec<String> = kept.iter().map(|it| it.record.number.to_string()).collect();
                let wanted = if wanted == 0 { "before the present one".into() } else { wanted.to_string() };
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                Refused::NoRevision { stack: stack.to_owned(), wanted, known }
            })?;
            let Revision { bundle, images, number, .. } = former.record.clone();
            Some(revision(bundle, images, options, number))
        }
    };
    if let Some(mut new) = new {
        record.last += 1;
        new.number = record.last;
        operation.revision = new.number;
        operation.timeout_seconds = new.options.timeout_seconds;
        let name = format!("{}/{}", record_name(target, stack), new.number);
        changes.push(Resource::new(kinds.revision, &ids.revision, &name, &new)?.into());
        // The revision in place stays, however old it is, and those that wait for their turn.
        let waiting = |number: u64| line.iter().any(|it| it.record.revision == number);
        kept.retain(|it| it.record.number != record.revision && !waiting(it.record.number));
        for old in kept.iter().skip(REVISIONS_MAX - 2) {
            changes.push(Change::Remove(Kind::Resource(kinds.revision), old.id.clone()));
        }
    }
    if line.is_empty() {
        record.take(&ids.operation, &operation);
    }
    all.retain(|it| it.record.state.is_over());
    for old in all.iter().skip(OVER_MAX) {
        changes.push(Change::Remove(Kind::Resource(kinds.operation), old.id.clone()));
    }
    let revision = operation.revision;
    changes.push(put(view, kinds.stack, &id, &record_name(target, stack), version, &record)?);
    changes.push(Resource::new(kinds.operation, &ids.operation, "", &operation)?.into());
    Ok(Begun { changes, operation: ids.operation, revision })
}

/// Refuses writes while some manager's release would act otherwise on the records of stacks.
pub(crate) fn check_level(view: &View) -> Result<(), Refused> {
    level::needs(view, Feature::Stacks).map_err(|denial| Refused::Level(denial.to_string()))
}

/// Refuses the name of a stack while a renamed one still has objects with that name in front. Both would use them.
///
/// `own` is the present name of the stack that wants it.
pub(crate) fn names_are_free(view: &View, target: &str, stack: &str, own: &str) -> Result<(), Refused> {
    let prefix = format!("{stack}_");
    for other in stacks(view, target).into_iter().filter(|it| it.record.stack != own) {
        let pins = other.record.pins.values().flat_map(|all| all.values());
        let names: Vec<&str> = pins.filter(|name| name.starts_with(&prefix)).map(String::as_str).collect();
        if !names.is_empty() {
            return Err(Refused::Wrong(format!(
                "stack {} was renamed and still has {}: choose another name than {stack}, or rename it back",
                other.record.stack,
                names.join(", ")
            )));
        }
    }
    Ok(())
}

/// Asks for the end of an operation: what it did is undone.
pub fn cancel(view: &View, id: &str) -> Result<Vec<Change>, Refused> {
    let no_operation = || Refused::NoOperation(id.to_owned());
    let Kinds { operation: kind, .. } = kinds().ok_or_else(no_operation)?;
    let found = find::<Operation>(view, kind, id).ok_or_else(no_operation)?;
    if found.record.state.is_over() {
        return Err(Refused::Over(id.to_owned()));
    }
    let changed = Operation { cancel: true, ..found.record };
    Ok(vec![put(view, kind, id, "", found.version, &changed)?])
}

/// Writes a record; members of the stored one that this release does not know stay.
pub(crate) fn put<T: serde::Serialize>(
    view: &View,
    kind: Word,
    id: &str,
    name: &str,
    version: u64,
    record: &T,
) -> Result<Change, ResourceError> {
    let stored = view.resources.get(&kind).and_then(|table| table.get(id)).filter(|_| version != 0);
    let mut resource = match stored {
        Some(stored) => Resource::clone(stored),
        None => Resource::new(kind, id, name, record)?,
    };
    resource.set(record)?;
    resource.meta.version.index = version;
    Ok(resource.into())
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Command, Time, View};

    use super::*;
    use crate::due;
    use crate::record::tests::view_of_this_release;
    use crate::record::{OperationState, StackState};

    /// Plays one line after the other: `deploy`, `rollback N`, `remove`, `end STATE OUTCOME`. Then the stack and its revisions.
    fn play(lines: &[&str]) -> String {
        play_with(lines, false).0
    }

    /// The same, with operations that may wait; the view comes back, too.
    fn play_with(lines: &[&str], waits: bool) -> (String, View) {
        let mut view = view_of_this_release();
        let mut index = 0;
        let mut said = String::new();
        for line in lines {
            let mut words = line.split_whitespace();
            let verb = words.next().expect("a verb");
            index += 1;
            let ids = Ids { stack: "s".into(), revision: format!("r{index}"), operation: format!("o{index}") };
            let now = format!("2026-11-30T00:00:{index:02}Z");
            let options = DeployOptions::default();
            let changes = match verb {
                "end" => {
                    let kinds = kinds().expect("kinds");
                    let stack = stacks(&view, "own").remove(0);
                    let operation = find::<Operation>(&view, kinds.operation, &stack.record.operation).expect("one");
                    let over = Operation { state: OperationState::Succeeded, ..operation.record };
                    let mut revision = revisions(&view, "own", "shop").remove(0);
                    revision.record.outcome = "deployed".into();
                    let ended = Stack { revision: over.revision, state: StackState::Active, ..stack.record };
                    Ok(vec![
                        put(&view, kinds.operation, &operation.id, "", operation.version, &over).expect("a record"),
                        put(&view, kinds.stack, &stack.id, "", stack.version, &ended).expect("a record"),
                        put(&view, kinds.revision, &revision.id, "", revision.version, &revision.record).expect("one"),
                    ])
                }
                verb => {
                    let wish = match verb {
                        "deploy" => Wish::Deploy { bundle: Bundle::default(), images: Images::new(), options },
                        "rollback" => {
                            let revision = words.next().expect("a number").parse().expect("a number");
                            Wish::Rollback { revision, options }
                        }
                        _ => Wish::Remove { timeout_seconds: 1, volumes: false },
                    };
                    let asking = Asking { by: "me", now: &now, waits };
                    begin(&view, "own", "shop", wish, asking, ids).map(|it| it.changes)
                }
            };
            match changes {
                Ok(changes) => {
                    view.apply(index, &Command { at: Time(index), changes }).expect("it fits");
                }
                Err(refused) => said = format!("{said}{refused}; "),
            }
        }
        let stack = stacks(&view, "own").remove(0).record;
        let numbers = revisions(&view, "own", "shop");
        let numbers: Vec<String> = numbers
            .iter()
            .map(|it| match it.record.repeats {
                0 => it.record.number.to_string(),
                repeats => format!("{}={repeats}", it.record.number),
            })
            .collect();
        (format!("{said}{:?} {} of {}", stack.state, stack.revision, numbers.join(" ")), view)
    }

    #[test]
    fn operations_on_one_stack_wait_for_one_another() {
        let line = ["deploy", "deploy", "remove", "deploy"];
        let (said, view) = play_with(&line, true);
        assert_eq!(said, "Deploying 0 of 3 2 1");
        let ids = |all: Vec<Found<Operation>>| all.into_iter().map(|it| it.id).collect::<Vec<_>>().join(" ");
        assert_eq!(ids(due(&view)), "o1");
        assert_eq!(ids(crate::queue::line(&view, "own", "shop")), "o1 o2 o3 o4");
        // Those behind it wait with their revisions, however many there are; one more is refused.
        let many = ["deploy"; 17];
        let (said, view) = play_with(&many, true);
        assert_eq!(said, "Deploying 0 of 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1");
        assert_eq!(ids(due(&view)), "o1");
        let refused = play_with(&["deploy"; 18], true).0;
        assert!(refused.starts_with("16 operations wait for stack shop already; try again later; "), "{refused}");
        let refused = play_with(&["deploy", "end", "deploy", "rollback 0"], true).0;
        assert!(refused.starts_with("operation o3 works on stack shop; wait for its end, or cancel it; "), "{refused}");
    }

    #[test]
    fn operations_begin_one_after_the_other() {
        assert_eq!(play(&["deploy"]), "Deploying 0 of 1");
        assert_eq!(
            play(&["deploy", "deploy"]),
            "operation o1 works on stack shop; wait for its end, or cancel it; Deploying 0 of 1"
        );
        assert_eq!(play(&["deploy", "end", "deploy", "end"]), "Active 2 of 2 1");
        assert_eq!(play(&["deploy", "end", "remove"]), "Removing 1 of 1");
    }

    #[test]
    fn a_rollback_repeats_an_earlier_revision() {
        let start = ["deploy", "end", "deploy", "end"];
        let then = |line: &'static str| play(&[&start[..], &[line]].concat());
        assert_eq!(then("rollback 0"), "Deploying 2 of 3=1 2 1");
        assert_eq!(then("rollback 1"), "Deploying 2 of 3=1 2 1");
        assert_eq!(then("rollback 7"), "stack shop has no revision 7; it has 2, 1; Active 2 of 2 1");
        assert_eq!(
            play(&["deploy", "end", "rollback 0"]),
            "stack shop has no revision before the present one; it has 1; Active 1 of 1"
        );
    }

    #[test]
    fn ten_revisions_are_kept() {
        let lines: Vec<&str> = ["deploy", "end"].into_iter().cycle().take(30).collect();
        assert_eq!(play(&lines), "Active 15 of 15 14 13 12 11 10 9 8 7 6");
    }
}
