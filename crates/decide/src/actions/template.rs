//! Templates: create bodies with variables. `${NAME}` stands for a value, `${NAME:-other}` for a value or else this, `$$` for a
//! dollar sign.

use serde_json::{Map, Value};

use crate::request;

/// Why a template cannot be used. Names the field by its path, such as `HostConfig.Memory`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the name of a template has letters, digits, dots, hyphens and underscores only, not `{0}`")]
    Name(String),
    #[error("template {name}: no JSON: {reason}")]
    Json { name: String, reason: String },
    #[error("template {name}: {path}: the variable {variable} has no value and no default")]
    Variable { name: String, path: String, variable: String },
    #[error("template {name}: {path}: `${{` without `}}`")]
    Open { name: String, path: String },
    #[error("template {name}: Image is missing or no text")]
    Image { name: String },
    #[error("template {name}: {reason}")]
    Body { name: String, reason: String },
}

/// Whether a text can be a template's name: it becomes a file's.
pub fn check_name(name: &str) -> Result<(), TemplateError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !name.is_empty() && name.len() <= 100 && name.bytes().all(fits) && !name.starts_with('.') {
        Ok(())
    } else {
        Err(TemplateError::Name(name.to_owned()))
    }
}

/// The create body that a template's text gives with these values.
pub fn fill(name: &str, text: &str, values: &Map<String, Value>) -> Result<Value, TemplateError> {
    let mut body: Value = serde_json::from_str(text)
        .map_err(|error| TemplateError::Json { name: name.to_owned(), reason: error.to_string() })?;
    fill_value(name, &mut body, &mut String::new(), values)?;
    if !body["Image"].is_string() {
        return Err(TemplateError::Image { name: name.to_owned() });
    }
    match request::parse(None, body.clone(), "") {
        Ok(_) => Ok(body),
        Err(error) => Err(TemplateError::Body { name: name.to_owned(), reason: error.to_string() }),
    }
}

fn fill_value(
    name: &str,
    value: &mut Value,
    path: &mut String,
    values: &Map<String, Value>,
) -> Result<(), TemplateError> {
    let length = path.len();
    match value {
        Value::String(text) if text.contains('$') => *value = fill_text(name, text, path, values)?,
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{at}]"));
                fill_value(name, item, path, values)?;
                path.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                fill_value(name, field, path, values)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A text that is one variable and nothing else keeps the value's kind, so that numbers stay numbers.
fn fill_text(name: &str, text: &str, path: &str, values: &Map<String, Value>) -> Result<Value, TemplateError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('{') {
            let open = || TemplateError::Open { name: name.to_owned(), path: path.to_owned() };
            let (inside, tail) = tail.split_once('}').ok_or_else(open)?;
            let (variable, default) = match inside.split_once(":-") {
                Some((variable, default)) => (variable, Some(default)),
                None => (inside, None),
            };
            let value = match (values.get(variable), default) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => default.into(),
                (None, None) => {
                    let (name, path, variable) = (name.to_owned(), path.to_owned(), variable.to_owned());
                    return Err(TemplateError::Variable { name, path, variable });
                }
            };
            if value.is_number() && out.is_empty() && tail.is_empty() {
                return Ok(value);
            }
            match value {
                Value::String(value) => out.push_str(&value),
                other => out.push_str(&other.to_string()),
            }
            rest = tail;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let values = json!({ "TAG": "1.2", "MEM": 64 });
        let result = fill("test", text, values.as_object().expect("an object"));
        let result = result.map_or_else(|error| error.to_string(), |body| body.to_string());
        assert_eq!(result, expected, "{text}");
    }

    #[test]
    fn variables_are_filled_in() {
        check(r#"{"Image":"x:${TAG}"}"#, r#"{"Image":"x:1.2"}"#);
        check(r#"{"Image":"x:${NO:-3}","User":"$$5 $x"}"#, r#"{"Image":"x:3","User":"$5 $x"}"#);
        check(r#"{"Image":"x","HostConfig":{"Memory":"${MEM}"}}"#, r#"{"Image":"x","HostConfig":{"Memory":64}}"#);
        check(r#"{"Image":"x","Cmd":["a","${MEM}m"]}"#, r#"{"Image":"x","Cmd":["a","64m"]}"#);
    }

    #[test]
    fn a_bad_template_names_its_field() {
        check(
            r#"{"Image":"x","Cmd":["a","${NO}"]}"#,
            "template test: Cmd[1]: the variable NO has no value and no default",
        );
        check(r#"{"Image":"x","HostConfig":{"A":"${NO"}}"#, "template test: HostConfig.A: `${` without `}`");
        check(r#"{"Cmd":[]}"#, "template test: Image is missing or no text");
        check("{", "template test: no JSON: EOF while parsing an object at line 1 column 1");
        check(r#"{"Image":"x","Labels":[]}"#, "template test: invalid Labels: `[]`, expected an object of strings");
    }

    #[test]
    fn names_stay_in_their_folder() {
        for (name, fits) in
            [("test", true), ("a.b-c_1", true), ("../x", false), (".x", false), ("", false), ("a/b", false)]
        {
            assert_eq!(check_name(name).is_ok(), fits, "{name}");
        }
    }
}
