//! Generic resources: named things of a node (`GPU=UUID1`), or a number of them (`SSD=4`).
//!
//! A task asks for a number of a kind. Of things with names it gets names of its own; no name is given twice.

use std::collections::BTreeMap;

use herder_model::swarm::{DiscreteResource, GenericResource, NamedResource};

/// Generic resources of a node that tasks hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims(BTreeMap<String, Claim>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Claim {
    count: i64,
    /// Name → how many hold it: more than one only where somebody else made a mistake.
    names: BTreeMap<String, u32>,
}

impl Claims {
    pub(crate) fn add(&mut self, resources: &[GenericResource]) {
        for resource in resources {
            match Thing::of(resource) {
                Some(Thing::Some(kind, count)) => self.0.entry(kind.to_owned()).or_default().count += count,
                Some(Thing::One(kind, name)) => {
                    *self.0.entry(kind.to_owned()).or_default().names.entry(name.to_owned()).or_default() += 1;
                }
                None => {}
            }
        }
    }

    pub(super) fn remove(&mut self, resources: &[GenericResource]) {
        for resource in resources {
            let Some(thing) = Thing::of(resource) else { continue };
            let Some(claim) = self.0.get_mut(thing.kind()) else { continue };
            match thing {
                Thing::Some(_, count) => claim.count -= count,
                Thing::One(_, name) => {
                    if let Some(holders) = claim.names.get_mut(name) {
                        *holders -= 1;
                        if *holders == 0 {
                            claim.names.remove(name);
                        }
                    }
                }
            }
            if *claim == Claim::default() {
                self.0.remove(thing.kind());
            }
        }
    }

    fn holds(&self, kind: &str, name: &str) -> bool {
        self.0.get(kind).is_some_and(|claim| claim.names.contains_key(name))
    }

    fn count(&self, kind: &str) -> i64 {
        self.0.get(kind).map_or(0, |claim| claim.count)
    }
}

/// Returns the claim of a task on the resources `has` of a node. `None` if it cannot have all of it.
pub(crate) fn claim(
    has: &[GenericResource],
    held: &Claims,
    wanted: &[GenericResource],
) -> Option<Vec<GenericResource>> {
    let mut got = Vec::new();
    if wanted.is_empty() {
        return Some(got);
    }
    let mut held = held.clone();
    for wanted in wanted.iter().filter_map(Thing::of) {
        let part = one(has, &held, wanted)?;
        held.add(&part);
        got.extend(part);
    }
    Some(got)
}

fn one(has: &[GenericResource], held: &Claims, wanted: Thing<'_>) -> Option<Vec<GenericResource>> {
    let things = || has.iter().filter_map(Thing::of).filter(|it| it.kind() == wanted.kind());
    let names = || things().filter_map(Thing::name).filter(|name| !held.holds(wanted.kind(), name));
    let named = |name: &str| {
        let (kind, value) = (wanted.kind().to_owned(), name.to_owned());
        let spec = NamedResource { kind, value, ..NamedResource::default() };
        GenericResource { named_resource_spec: Some(spec), ..GenericResource::default() }
    };
    match wanted {
        Thing::One(_, name) => names().find(|it| *it == name).map(|name| vec![named(name)]),
        Thing::Some(_, count) if count <= 0 => Some(Vec::new()),
        Thing::Some(kind, count) if things().any(|it| it.name().is_some()) => {
            let count = usize::try_from(count).ok()?;
            let mut got: Vec<&str> = Vec::new();
            // A node that names a thing twice has it once.
            for name in names() {
                if got.len() < count && !got.contains(&name) {
                    got.push(name);
                }
            }
            debug_assert!(got.iter().all(|name| !held.holds(kind, name)));
            (got.len() == count).then(|| got.into_iter().map(named).collect())
        }
        Thing::Some(kind, count) => {
            let total: i64 = things().map(|it| it.count()).sum();
            let spec = DiscreteResource { kind: kind.to_owned(), value: count, ..DiscreteResource::default() };
            let some = GenericResource { discrete_resource_spec: Some(spec), ..GenericResource::default() };
            (held.count(kind).saturating_add(count) <= total).then(|| vec![some])
        }
    }
}

/// Returns a number of things in words: `2 GPU`.
pub(super) fn words(wanted: &GenericResource) -> String {
    match Thing::of(wanted) {
        Some(Thing::Some(kind, count)) => format!("{count} {kind}"),
        Some(Thing::One(kind, name)) => format!("{kind} {name}"),
        None => String::new(),
    }
}

/// The two forms of a generic resource.
#[derive(Clone, Copy)]
enum Thing<'r> {
    One(&'r str, &'r str),
    Some(&'r str, i64),
}

impl<'r> Thing<'r> {
    fn of(resource: &'r GenericResource) -> Option<Thing<'r>> {
        if let Some(named) = &resource.named_resource_spec {
            return Some(Thing::One(&named.kind, &named.value));
        }
        resource.discrete_resource_spec.as_ref().map(|some| Thing::Some(&some.kind, some.value))
    }

    fn kind(self) -> &'r str {
        let (Thing::One(kind, _) | Thing::Some(kind, _)) = self;
        kind
    }

    fn name(self) -> Option<&'r str> {
        match self {
            Thing::One(_, name) => Some(name),
            Thing::Some(..) => None,
        }
    }

    fn count(self) -> i64 {
        match self {
            Thing::One(..) => 1,
            Thing::Some(_, count) => count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::testing::generic as things;

    #[track_caller]
    fn check(has: &str, held: &str, wanted: &str, expected: &str) {
        let mut claims = Claims::default();
        claims.add(&things(held));
        let got = claim(&things(has), &claims, &things(wanted));
        let text = got.map_or("none".to_owned(), |got| got.iter().map(words).collect::<Vec<_>>().join(", "));
        assert_eq!(text, expected, "{wanted} of {has} without {held}");
    }

    #[test]
    fn things_with_names_are_given_one_by_one() {
        check("GPU=a,GPU=b,GPU=c", "", "GPU:2", "GPU a, GPU b");
        check("GPU=a,GPU=b,GPU=c", "GPU=b", "GPU:2", "GPU a, GPU c");
        check("GPU=a,GPU=b,GPU=c", "GPU=b", "GPU:3", "none");
        check("GPU=a,GPU=b", "", "GPU:1,GPU:1", "GPU a, GPU b");
        check("GPU=a,GPU=a", "", "GPU:2", "none");
        check("GPU=a,GPU=b", "", "GPU=b", "GPU b");
        check("GPU=a,GPU=b", "GPU=b", "GPU=b", "none");
    }

    #[test]
    fn things_without_names_are_counted() {
        check("SSD:4", "SSD:1", "SSD:3", "3 SSD");
        check("SSD:4", "SSD:2", "SSD:3", "none");
        check("SSD:4,GPU=a", "", "SSD:1,GPU:1", "1 SSD, GPU a");
        check("SSD:4", "", "SSD:2,SSD:3", "none");
        check("SSD:4", "", "ssd:1", "none");
        check("", "", "SSD:0", "");
    }

    #[test]
    fn what_is_given_back_leaves_nothing() {
        let mut claims = Claims::default();
        claims.add(&things("GPU=a,SSD:2"));
        claims.add(&things("GPU=b,SSD:1"));
        claims.remove(&things("SSD:3,GPU=a,GPU=b"));
        assert_eq!(claims, Claims::default());
    }
}
