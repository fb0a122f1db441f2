//! Names of fields in any case, as Go's `encoding/json` takes them: docker-py says `replicated` where the API says `Replicated`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// JSON of which the fields of structs may be written in any case. Keys of maps (labels, options) are as they are.
pub(super) struct CaseInsensitive(pub(super) Value);

/// The fields under the names that the struct knows. Of two that differ in case only, the exact one counts.
fn fold(given: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    let (exact, others): (Vec<_>, Vec<_>) = given.into_iter().partition(|(name, _)| fields.contains(&name.as_str()));
    let named = others.into_iter().map(|(name, value)| {
        let field = fields.iter().find(|field| field.eq_ignore_ascii_case(&name));
        (field.map_or(name, |field| (*field).to_owned()), value)
    });
    named.chain(exact).collect()
}

/// Structs with a field of bytes, and its name. Go takes an array of numbers there as well as base64.
const BYTES: [&str; 2] = ["SecretSpec", "ConfigSpec"];
const DATA: &str = "Data";

/// An array of numbers, each a byte.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_array()?.iter().map(|it| it.as_u64().and_then(|it| u8::try_from(it).ok())).collect()
}

impl<'de> Deserializer<'de> for CaseInsensitive {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(CaseInsensitive))),
            Value::Object(map) => visitor
                .visit_map(MapDeserializer::new(map.into_iter().map(|(key, value)| (key, CaseInsensitive(value))))),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => {
                let mut map = fold(map, fields);
                if BYTES.contains(&name)
                    && let Some(data) = map.get_mut(DATA)
                    && let Some(bytes) = bytes(data)
                {
                    *data = Value::String(BASE64_STANDARD.encode(bytes));
                }
                CaseInsensitive(Value::Object(map)).deserialize_any(visitor)
            }
            other => CaseInsensitive(other).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for CaseInsensitive {
    type Deserializer = CaseInsensitive;

    fn into_deserializer(self) -> CaseInsensitive {
        self
    }
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::ServiceSpec;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn read(given: Value) -> Result<ServiceSpec, Error> {
        <ServiceSpec as Deserialize>::deserialize(CaseInsensitive(given))
    }

    #[test]
    fn fields_may_be_written_in_any_case_and_keys_of_maps_may_not() {
        let check = |given: Value, expected: Value| {
            let said = read(given).map(|spec| serde_json::to_value(spec).expect("JSON"));
            let said = said.unwrap_or_else(|error| Value::String(error.to_string()));
            let part = |field: &str| if said.is_object() { said[field].clone() } else { said.clone() };
            for (field, value) in expected.as_object().expect("fields") {
                assert_eq!(&part(field), value, "{field}");
            }
        };
        check(
            json!({ "mode": { "replicated": { "REPLICAS": 2 } } }),
            json!({ "Mode": { "Replicated": { "Replicas": 2 } } }),
        );
        check(json!({ "Labels": { "name": "1", "Name": "2" } }), json!({ "Labels": { "name": "1", "Name": "2" } }));
        check(json!({ "name": "other", "Name": "exact", "NAME": "last" }), json!({ "Name": "exact" }));
        // A member that no struct has is kept as it was written.
        check(json!({ "nosuch": 1, "name": "x" }), json!({ "Name": "x", "nosuch": 1 }));
        check(
            json!({ "taskTemplate": { "containerSpec": { "env": ["a=1"] } } }),
            json!({ "TaskTemplate": { "ContainerSpec": { "Env": ["a=1"] }, "ForceUpdate": 0 } }),
        );
        check(json!({ "name": 5 }), json!({ "Name": "invalid type: integer `5`, expected a string" }));
    }

    proptest::proptest! {
        /// Written as the API says, all is read as without this.
        #[test]
        fn what_is_written_as_it_should_be_is_read_the_same(replicas in 0u64..9, name in "[a-zA-Z]{0,8}", key in "[a-zA-Z.]{1,8}") {
            let given = json!({
                "Name": name, "Labels": { key.clone(): name }, "Mode": { "Replicated": { "Replicas": replicas } },
                "TaskTemplate": { "ContainerSpec": { "Image": "x", "Labels": { key: "y" } }, "Resources": { "Limits": { "MemoryBytes": replicas } } }
            });
            let plain: ServiceSpec = serde_json::from_value(given.clone()).expect("a service");
            proptest::prop_assert_eq!(read(given).expect("a service"), plain);
        }
    }
}
