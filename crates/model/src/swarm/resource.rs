//! Objects of kinds that have no type of their own in the store.

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Meta, Rest, Word, is_default};

/// An object that the store keeps without knowing what is in it.
///
/// Features that only need to keep, watch and list objects (stacks, targets, routes) store them in this form. An object of a kind
/// that only a later release knows is read as one, too: it is kept, replicated and backed up as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// The name that the kind has in logs, snapshots and messages.
    #[serde(skip)]
    pub kind: Word,
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    /// Unique within its kind, whatever the case of its letters; empty: it has none.
    #[serde(rename = "Name", skip_serializing_if = "is_default")]
    pub name: String,
    /// All other members.
    #[serde(flatten)]
    pub body: Rest,
}

/// Reason why a value cannot be stored as a resource, or a resource cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    #[error("resource {kind} {id}: {source}")]
    Json {
        kind: Word,
        id: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("a resource of kind {kind} must be a JSON object")]
    NoObject { kind: Word },
    #[error("a resource of kind {kind} cannot have a member {member} of its own")]
    Taken { kind: Word, member: &'static str },
}

/// Members that every resource has.
const COMMON: [&str; 5] = ["ID", "Version", "CreatedAt", "UpdatedAt", "Name"];

impl Resource {
    /// A new object. `value` must be a JSON object without the members that every resource has.
    pub fn new<T: Serialize>(kind: Word, id: &str, name: &str, value: &T) -> Result<Resource, ResourceError> {
        let (id, name) = (id.to_owned(), name.to_owned());
        let mut resource = Resource { kind, id, meta: Meta::default(), name, body: Rest::default() };
        resource.set(value)?;
        Ok(resource)
    }

    /// Decodes the object as the type of its feature.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ResourceError> {
        let body: Map<String, Value> = self.body.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        serde_json::from_value(Value::Object(body)).map_err(|source| self.json(source))
    }

    /// Replaces the members that `value` has. The others stay: a later release may have written them.
    pub fn set<T: Serialize>(&mut self, value: &T) -> Result<(), ResourceError> {
        let kind = self.kind;
        let value = serde_json::to_value(value).map_err(|source| self.json(source))?;
        let Value::Object(members) = value else { return Err(ResourceError::NoObject { kind }) };
        if let Some(member) = COMMON.into_iter().find(|it| members.contains_key(*it)) {
            return Err(ResourceError::Taken { kind, member });
        }
        for (name, value) in members {
            self.body.insert(name, value);
        }
        Ok(())
    }

    fn json(&self, source: serde_json::Error) -> ResourceError {
        ResourceError::Json { kind: self.kind, id: self.id.clone(), source }
    }

    /// Reads a resource of this kind.
    pub(super) fn of(kind: Word) -> ResourceOf {
        ResourceOf(kind)
    }
}

/// Reads a [`Resource`]: its kind stands before it.
pub(super) struct ResourceOf(Word);

impl<'de> DeserializeSeed<'de> for ResourceOf {
    type Value = Resource;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Resource, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            #[serde(rename = "ID")]
            id: String,
            #[serde(flatten)]
            meta: Meta,
            #[serde(rename = "Name")]
            name: String,
            #[serde(flatten)]
            body: Rest,
        }
        let Body { id, meta, name, body } = Body::deserialize(deserializer)?;
        Ok(Resource { kind: self.0, id, meta, name, body })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::swarm::{Change, Command, Kind, Object, Time, View};

    fn word(text: &str) -> Word {
        Word::new(text).expect("a word")
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Stack {
        services: Vec<String>,
    }

    /// One resource after the other, as commands: `+` puts it, `-` removes it. Then what is there.
    #[test]
    fn resources_are_made_changed_listed_and_removed_as_all_objects_are() {
        let (mut view, mut index) = (View::default(), 0);
        let mut check = |kind: &str, line: &str, expected: &str| {
            let (id, rest) = line.split_once(' ').expect("an id");
            index += 1;
            let change = match rest {
                "-" => Change::Remove(Kind::Resource(word(kind)), id.to_owned()),
                _ => {
                    let (name, version) = rest.split_once('@').expect("a name and a version");
                    let stack = Stack { services: vec![name.to_owned()] };
                    let mut resource = Resource::new(word(kind), id, name, &stack).expect("a resource");
                    resource.meta.version.index = version.parse().expect("a number");
                    resource.into()
                }
            };
            let outcome = view.apply(index, &Command { at: Time(index), changes: vec![change] });
            let all = view.resources.values().flat_map(|table| table.values());
            let all: Vec<String> =
                all.map(|it| format!("{}/{}={}@{}", it.kind, it.id, it.name, it.meta.version.index)).collect();
            assert_eq!(
                outcome.map_or_else(|conflict| conflict.to_string(), |_| all.join(" ")),
                expected,
                "{kind} {line}"
            );
            let again = View::of(view.index, view.objects());
            assert!(view.objects().eq(again.objects()));
        };
        check("stack", "a shop@0", "stack/a=shop@1");
        check("stack", "b SHOP@0", "name conflicts with an existing object: stack SHOP already exists");
        check("target", "a shop@0", "stack/a=shop@1 target/a=shop@3");
        check("stack", "a blog@1", "stack/a=blog@4 target/a=shop@3");
        check("stack", "a shop@1", "update out of sequence");
        check("target", "a -", "stack/a=blog@4");
        check("stack", "c @0", "stack/a=blog@4 stack/c=@7");
        check("stack", "d @0", "stack/a=blog@4 stack/c=@7 stack/d=@8");
        check("stack", "gone x@5", "stack gone not found");
    }

    #[test]
    fn a_feature_reads_what_it_wrote_and_keeps_what_it_does_not_know() {
        let mut resource =
            Resource::new(word("stack"), "a", "shop", &Stack { services: vec!["web".into()] }).expect("a resource");
        resource.body.insert("Novelty", json!({"x": 1}));
        resource.set(&Stack { services: vec!["db".into()] }).expect("a resource");
        let object = Object::Resource(resource.clone().into());
        let text = serde_json::to_value(&object).expect("JSON");
        let expected = json!({"stack": {"ID": "a", "Version": {}, "CreatedAt": "", "UpdatedAt": "", "Name": "shop",
            "services": ["db"], "Novelty": {"x": 1}}});
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_value::<Object>(text).expect("the same"), object);
        assert_eq!(resource.read::<Stack>().expect("a stack"), Stack { services: vec!["db".into()] });
        let refused = |value: Value| Resource::new(word("stack"), "a", "", &value).expect_err("refused").to_string();
        assert_eq!(refused(json!([1])), "a resource of kind stack must be a JSON object");
        assert_eq!(refused(json!({"ID": "b"})), "a resource of kind stack cannot have a member ID of its own");
    }
}
