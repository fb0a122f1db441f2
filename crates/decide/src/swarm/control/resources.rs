//! Objects of features that only store, list and watch them.

use herder_model::swarm::{Change, Feature, Kind, Resource, View, Word};

use super::{Changes, check_version};
use crate::swarm::nodes::level;
use crate::swarm::{Code, Denial, Refusal};

/// Finds a resource by its id or its name.
///
/// # Errors
///
/// Refuses a text that is neither.
pub fn resource<'v>(view: &'v View, kind: Word, text: &str) -> Result<&'v Resource, Denial> {
    let table = view.resources.get(&kind);
    let of_name = || view.named(Kind::Resource(kind), text);
    let found = table.and_then(|table| table.get(text).or_else(|| table.get(of_name()?)));
    found.map(AsRef::as_ref).ok_or_else(|| Refusal::new(Code::NotFound, format!("{kind} {text} not found")).into())
}

/// Writes a new resource.
///
/// # Errors
///
/// Refuses a name that another resource of the kind has, and all resources while a manager's release cannot read them.
pub fn create_resource(view: &View, resource: Resource) -> Changes {
    level::needs(view, Feature::Resources)?;
    let kind = Kind::Resource(resource.kind);
    if !resource.name.is_empty() && view.named(kind, &resource.name).is_some() {
        let text = format!("{kind} {} already exists", resource.name);
        return Err(Refusal::new(Code::AlreadyExists, text).into());
    }
    Ok(vec![resource.into()])
}

/// Writes a resource that the caller read at `version` and changed.
///
/// # Errors
///
/// Refuses a version that is not the present one, and all resources while a manager's release cannot read them.
pub fn update_resource(view: &View, version: u64, changed: Resource) -> Changes {
    level::needs(view, Feature::Resources)?;
    let known = resource(view, changed.kind, &changed.id)?;
    check_version(Kind::Resource(changed.kind), &changed.id, version, known.meta.version.index)?;
    let meta = known.meta.clone();
    Ok(vec![Resource { meta, ..changed }.into()])
}

/// Removes a resource by its id or its name.
///
/// # Errors
///
/// Refuses what is not there, and all resources while a manager's release cannot read them.
pub fn remove_resource(view: &View, kind: Word, text: &str) -> Changes {
    level::needs(view, Feature::Resources)?;
    let id = resource(view, kind, text)?.id.clone();
    Ok(vec![Change::Remove(Kind::Resource(kind), id)])
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{ClusterRecord, Command, Time};
    use serde_json::json;

    use super::*;

    fn kind() -> Word {
        Word::new("route").expect("a word")
    }

    fn route(id: &str, name: &str, to: &str) -> Resource {
        Resource::new(kind(), id, name, &json!({"to": to})).expect("a resource")
    }

    #[test]
    fn resources_are_declared_as_other_objects_are() {
        let mut view = View::default();
        let mut index = 0;
        let mut check = |decide: &dyn Fn(&View) -> Changes, expected: &str| {
            index += 1;
            let outcome = match decide(&view) {
                Err(denial) => format!("{} {denial}", denial.status()),
                Ok(changes) => {
                    view.apply(index, &Command { at: Time(index), changes }).expect("fits");
                    let all = view.resources_of(kind());
                    all.map(|it| format!("{}/{}@{}", it.id, it.name, it.meta.version.index))
                        .collect::<Vec<_>>()
                        .join(" ")
                }
            };
            assert_eq!(outcome, expected);
        };
        let rpc = |code: &str, text: &str| format!("rpc error: code = {code} desc = {text}");
        let low = "stored resources need feature level 1, and the swarm's managers agree on level 0: all managers can; try again in \
                   a moment";
        check(
            &|view| create_resource(view, route("a", "web", "x")),
            &format!("400 {}", rpc("FailedPrecondition", low)),
        );
        check(&|_| Ok(vec![ClusterRecord { level: 1, ..ClusterRecord::default() }.into()]), "");
        check(&|view| create_resource(view, route("a", "web", "x")), "a/web@3");
        check(
            &|view| create_resource(view, route("b", "WEB", "x")),
            &format!("409 {}", rpc("AlreadyExists", "route WEB already exists")),
        );
        check(
            &|view| update_resource(view, 2, route("a", "web", "y")),
            &format!("500 {}", rpc("Unknown", "update out of sequence")),
        );
        check(&|view| update_resource(view, 3, route("a", "api", "y")), "a/api@6");
        check(&|view| remove_resource(view, kind(), "web"), &format!("404 {}", rpc("NotFound", "route web not found")));
        check(&|view| remove_resource(view, kind(), "api"), "");
    }
}
