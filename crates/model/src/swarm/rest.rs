//! Members of records that this release does not know.
//!
//! A newer release adds members to records. A node of this release that reads such a record, changes it and writes it back keeps
//! what it does not know (docs/adr: "State outlives releases"). Each record has a last field [`Rest`] for that; it takes one
//! pointer, and nothing else as long as it is empty.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer, forward_to_deserialize_any};
use serde_json::{Map, Value};

/// The members of one record that this release does not know, as they were read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rest(Option<Box<Map<String, Value>>>);

impl Rest {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.as_ref()?.get(name)
    }

    /// Sets a member of this name. Not for members that the record itself has.
    pub fn insert(&mut self, name: impl Into<String>, value: Value) {
        self.0.get_or_insert_default().insert(name.into(), value);
    }

    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let removed = self.0.as_mut()?.shift_remove(name);
        if self.0.as_ref().is_some_and(|it| it.is_empty()) {
            self.0 = None;
        }
        removed
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().flat_map(|it| it.iter())
    }
}

impl From<Map<String, Value>> for Rest {
    fn from(members: Map<String, Value>) -> Rest {
        Rest((!members.is_empty()).then(|| Box::new(members)))
    }
}

impl fmt::Debug for Rest {
    /// Prints only the names of the unknown fields, since their values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

impl Hash for Rest {
    /// Records that differ only here share a hash.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().count().hash(state);
    }
}

impl Serialize for Rest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(self.0.as_ref().map(|it| it.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Rest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rest, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Rest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("members of a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rest, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = map.next_entry()? {
                    members.insert(name, value);
                }
                Ok(members.into())
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Implements `Serialize` and `Deserialize` for records that have a [`Rest`], from what
/// `#[serde(remote = "Self")]` makes. The record's last field is
/// `#[serde(flatten, skip_deserializing)] pub rest: Rest`.
///
/// `flatten` alone would do for plain JSON, but it hides the names of the fields from the deserializer, and clients may write
/// those in any case of letters; it also copies every value on its way.
///
/// `remote = "Self"` makes functions `serialize` and `deserialize` of the record itself, which hide those of the traits. Call the latter by
/// their traits (`<Record as Deserialize>::deserialize`), as `serde_json` and all generic code do: the record's own one keeps nothing.
macro_rules! keeps_rest {
    ($($record:ty),* $(,)?) => {$(
        impl serde::Serialize for $record {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$record>::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $record {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$record, D::Error> {
                let mut rest = serde_json::Map::new();
                let read = <$record>::deserialize($crate::swarm::rest::Keeping { inner: deserializer, rest: &mut rest });
                let mut record = read?;
                record.rest = rest.into();
                Ok(record)
            }
        }
    )*};
}
pub(crate) use keeps_rest;

/// Reads a struct, and keeps the members that the struct does not have.
pub(crate) struct Keeping<'r, D> {
    pub(crate) inner: D,
    pub(crate) rest: &'r mut Map<String, Value>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Keeping<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(D::Error::custom("only structs keep what they do not know"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, KeepingVisitor { visitor, fields, rest: self.rest })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct KeepingVisitor<'r, V> {
    visitor: V,
    fields: &'static [&'static str],
    rest: &'r mut Map<String, Value>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for KeepingVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(KnownMembers { map, fields: self.fields, rest: self.rest })
    }
}

/// Passes on the members that a struct has, and keeps the others.
struct KnownMembers<'r, A> {
    map: A,
    fields: &'static [&'static str],
    rest: &'r mut Map<String, Value>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for KnownMembers<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        loop {
            let Some(name) = self.map.next_key::<Name<'de>>()? else { return Ok(None) };
            if self.fields.contains(&name.as_str()) {
                return match name {
                    Name::Borrowed(name) => seed.deserialize(BorrowedStrDeserializer::new(name)),
                    Name::Owned(name) => seed.deserialize(StringDeserializer::new(name)),
                }
                .map(Some);
            }
            let value = self.map.next_value()?;
            self.rest.insert(name.into_string(), value);
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.map.size_hint()
    }
}

/// The name of a member, without a copy where there is one to point to.
enum Name<'de> {
    Borrowed(&'de str),
    Owned(String),
}

impl Name<'_> {
    fn as_str(&self) -> &str {
        match self {
            Name::Borrowed(name) => name,
            Name::Owned(name) => name,
        }
    }

    fn into_string(self) -> String {
        match self {
            Name::Borrowed(name) => name.to_owned(),
            Name::Owned(name) => name,
        }
    }
}

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<'de>, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a member")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name::Borrowed(name))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name::Owned(name.to_owned()))
            }

            fn visit_string<E>(self, name: String) -> Result<Name<'de>, E> {
                Ok(Name::Owned(name))
            }
        }
        deserializer.deserialize_str(Names)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::swarm::{Secret, ServiceSpec, TaskStatus};

    /// Read and written; members of a later release stay, at every depth.
    #[test]
    fn members_of_a_later_release_are_kept() {
        let spec = json!({"Name": "web", "Labels": {"a": "b"}, "Novelty": {"Deep": [1, {"x": null}]}, "TaskTemplate": {
            "ContainerSpec": {"Image": "app", "Novelty": 1, "Mounts": [{"Type": "bind", "Novelty": "m"}]}, "ForceUpdate": 0,
            "Novelty": true}, "Mode": {"Global": {"Novelty": 2}}, "EndpointSpec": {"Novelty": "e", "Ports": [{"Novelty": 3}]}});
        let read: ServiceSpec = serde_json::from_value(spec.clone()).expect("a specification");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), spec);
        let text = serde_json::to_string(&read).expect("JSON");
        assert_eq!(serde_json::from_str::<ServiceSpec>(&text).expect("the same"), read);
        // Where the common members are flattened, too.
        let secret = json!({"ID": "s", "Version": {"Index": 3}, "CreatedAt": "c", "UpdatedAt": "u",
            "Spec": {"Name": "s", "Labels": null}, "Novelty": [1]});
        let read: Secret = serde_json::from_value(secret.clone()).expect("a secret");
        assert_eq!((read.meta.version.index, read.rest.get("Novelty")), (3, Some(&json!([1]))));
        assert_eq!(serde_json::to_value(&read).expect("JSON"), secret);
    }

    #[test]
    fn a_record_without_unknown_members_pays_one_pointer() {
        assert_eq!(size_of::<super::Rest>(), size_of::<usize>());
        let read: TaskStatus = serde_json::from_value(json!({"State": "running"})).expect("a status");
        assert!(read.rest.is_empty());
        assert_eq!(format!("{:?}", read.rest), "{}");
    }

    #[test]
    fn what_is_unknown_is_not_in_the_debug_form() {
        let read: TaskStatus = serde_json::from_value(json!({"Token": "hidden"})).expect("a status");
        let text = format!("{read:?}");
        assert!(text.contains("Token") && !text.contains("hidden"), "{text}");
    }
}
