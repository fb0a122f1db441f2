//! Bodies and parameters of calls about the swarm, read and refused as Docker's server does.

use herder_decide::list::Filters;
use herder_decide::swarm::spec::without_nulls;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fold::CaseInsensitive;
use crate::call::JSON_BYTES_MAX;
use crate::{ApiError, Call, Query, guard};

/// The body as JSON; an empty one is an empty object.
pub(super) async fn value(call: &mut Call) -> Result<Value, ApiError> {
    let bytes = call.bytes(JSON_BYTES_MAX).await?;
    guard::is_json(&call.parts.headers, bytes.is_empty())?;
    if bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let mut value: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let reason = if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() };
        invalid(&reason)
    })?;
    if !value.is_object() && !value.is_null() {
        return Err(invalid("expected an object"));
    }
    without_nulls(&mut value);
    Ok(value)
}

/// The body as what is wanted.
pub(super) async fn read<T: DeserializeOwned + Default>(call: &mut Call) -> Result<T, ApiError> {
    parse(value(call).await?)
}

pub(super) fn parse<T: DeserializeOwned + Default>(value: Value) -> Result<T, ApiError> {
    if value.is_null() {
        return Ok(T::default());
    }
    serde_path_to_error::deserialize(CaseInsensitive(value)).map_err(|error| {
        // A path of one point is the body itself.
        let path = error.path().to_string();
        let reason = error.into_inner().to_string();
        invalid(&if path == "." { reason } else { format!("{path}: {reason}") })
    })
}

fn invalid(reason: &str) -> ApiError {
    ApiError::bad_request(format!("invalid JSON: {reason}"))
}

/// The version that the client saw. The texts are those of Go's `strconv`.
pub(super) fn version(query: &Query, what: &str) -> Result<u64, ApiError> {
    let text = query.get("version").unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    text.parse().map_err(|_| {
        let reason = if digits { "value out of range" } else { "invalid syntax" };
        let reason = format!("strconv.ParseUint: parsing {text:?}: {reason}");
        ApiError::bad_request(match what {
            "secret" | "config" => format!("invalid {what} version"),
            _ => format!("invalid {what} version '{text}': {reason}"),
        })
    })
}

/// A parameter that must be a boolean if it is there.
pub(super) fn flag(query: &Query, key: &str) -> Result<bool, ApiError> {
    match query.get(key).unwrap_or_default() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        other => Err(ApiError::bad_request(format!("invalid value for {key}: {other}"))),
    }
}

pub(super) fn filters(query: &Query) -> Result<Filters, ApiError> {
    Filters::parse(query.get("filters").unwrap_or("")).map_err(ApiError::bad_request)
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{ConfigSpec, SecretSpec, ServiceSpec};
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_numbers() {
        let check = |query: &str, what: &str, expected: &str| {
            let said = version(&crate::path::query(query), what);
            assert_eq!(said.map_or_else(|error| error.to_string(), |it| it.to_string()), expected, "{query}");
        };
        check("version=12", "service", "12");
        check("", "service", r#"invalid service version '': strconv.ParseUint: parsing "": invalid syntax"#);
        check("version=-1", "node", r#"invalid node version '-1': strconv.ParseUint: parsing "-1": invalid syntax"#);
        check(
            "version=99999999999999999999",
            "swarm",
            r#"invalid swarm version '99999999999999999999': strconv.ParseUint: parsing "99999999999999999999": value out of range"#,
        );
        check("version=x", "secret", "invalid secret version");
    }

    #[test]
    fn what_is_refused_names_its_field() {
        let check = |body: Value, expected: &str| {
            let said = parse::<ServiceSpec>(body).map_or_else(|error| error.to_string(), |_| String::new());
            assert_eq!(said, format!("invalid JSON: {expected}"));
        };
        check(
            json!({"taskTemplate": {"ContainerSpec": {"Env": ["a", 5]}}}),
            "TaskTemplate.ContainerSpec.Env[1]: invalid type: integer `5`, expected a string",
        );
        check(
            json!({"Mode": {"Replicated": {"Replicas": "two"}}}),
            "Mode.Replicated.Replicas: invalid type: string \"two\", expected u64",
        );
        check(json!({"Labels": {"a": 1}}), "Labels.a: invalid type: integer `1`, expected a string");
    }

    #[test]
    fn bytes_may_be_numbers() {
        let secret: SecretSpec = parse(json!({"Name": "s", "data": [104, 105]})).expect("a secret");
        assert_eq!(secret.data, "aGk=");
        let config: ConfigSpec = parse(json!({"Name": "c", "Data": []})).expect("a config");
        assert_eq!(config.data, "");
        for wrong in [json!([256]), json!(["a"]), json!([-1]), json!({})] {
            let said =
                parse::<SecretSpec>(json!({"Data": wrong})).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(said.starts_with("invalid JSON: Data: "), "{said}");
        }
    }

    #[test]
    fn flags_are_booleans() {
        let check = |query: &str, expected: &str| {
            let said = flag(&crate::path::query(query), "x");
            assert_eq!(said.map_or_else(|error| error.to_string(), |it| it.to_string()), expected, "{query}");
        };
        check("", "false");
        check("x=1", "true");
        check("x=False", "false");
        check("x=yes", "invalid value for x: yes");
    }
}
