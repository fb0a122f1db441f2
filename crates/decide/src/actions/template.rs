//! Templates: create bodies with variables. `${NAME}` stands for a value, `${NAME:-other}` for a value or else this, `$$` for a
//! dollar sign.

mod fields;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::body;
use crate::place::request;

/// Reason why a template cannot be used. Names the file, and the field by its path, such as `HostConfig.Memory`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the name of a template has letters, digits, dots, hyphens and underscores only, not `{0}`")]
    Name(String),
    #[error("template {name}.json: no JSON: {reason}")]
    Json { name: String, reason: String },
    #[error("template {name}.json: expected a JSON object, Docker's create body")]
    NoObject { name: String },
    #[error("template {name}.json: {path}: the variable {variable} has no value and no default")]
    Variable { name: String, path: String, variable: String },
    #[error("template {name}.json: {path}: `${{` without `}}`")]
    Open { name: String, path: String },
    #[error(
        "template {name}.json: {path}: `{variable}` is no name of a variable; it has letters, digits and underscores"
    )]
    VariableName { name: String, path: String, variable: String },
    #[error("template {name}.json: {path} must be {expected}, not {value}")]
    Field { name: String, path: String, expected: &'static str, value: String },
    #[error("template {name}.json: Image is missing")]
    Image { name: String },
    #[error("template {name}.json: {reason}")]
    Body { name: String, reason: String },
    #[error("template {name}.json has no variable {variable}; it has: {known}")]
    Unused { name: String, variable: String, known: String },
}

/// A template's name becomes a file's; longer ones are mistakes.
const NAME_BYTES_MAX: usize = 100;

/// Checks the name of a template.
pub fn check_name(name: &str) -> Result<(), TemplateError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(fits) && !name.starts_with('.') {
        Ok(())
    } else {
        Err(TemplateError::Name(name.to_owned()))
    }
}

/// A template that was found right, as far as that can be said without values.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    name: String,
    body: Value,
    /// Each with its default, if it has one.
    pub variables: BTreeMap<String, Option<String>>,
    /// Fields that Docker does not know and drops without a word.
    pub unknown: Vec<String>,
}

/// Reads a template's text.
pub fn parse(name: &str, text: &str) -> Result<Template, TemplateError> {
    let json = |error: serde_json::Error| TemplateError::Json { name: name.to_owned(), reason: error.to_string() };
    let body: Value = serde_json::from_str(text).map_err(json)?;
    if !body.is_object() {
        return Err(TemplateError::NoObject { name: name.to_owned() });
    }
    let none = Map::new();
    let mut fill = Fill { name, values: &none, trial: true, variables: BTreeMap::new() };
    let tried = fill.value(&body, &mut String::new())?;
    let variables = fill.variables;
    let open = variables.values().any(Option::is_none);
    finish(name, tried, open)?;
    Ok(Template { unknown: fields::unknown(&body), name: name.to_owned(), body, variables })
}

impl Template {
    /// The create body that the template gives with these values.
    pub fn fill(&self, values: &Map<String, Value>) -> Result<Value, TemplateError> {
        if let Some(variable) = values.keys().find(|name| !self.variables.contains_key(*name)) {
            let known: Vec<&str> = self.variables.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(TemplateError::Unused { name: self.name.clone(), variable: variable.clone(), known });
        }
        let mut fill = Fill { name: &self.name, values, trial: false, variables: BTreeMap::new() };
        let filled = fill.value(&self.body, &mut String::new())?;
        finish(&self.name, filled, false)
    }
}

/// Checks a filled body and says it in today's words. With `open`, some variables have no value yet, and what they make of
/// the whole is not known.
fn finish(name: &str, mut body: Value, open: bool) -> Result<Value, TemplateError> {
    body::modernise(&mut body);
    if let Some((path, kind, value)) = fields::misfit(&body) {
        return Err(TemplateError::Field { name: name.to_owned(), path, expected: kind.words(), value });
    }
    match &body["Image"] {
        Value::String(image) if !image.is_empty() => {}
        Value::Null if open && body.get("Image").is_some() => {}
        _ => return Err(TemplateError::Image { name: name.to_owned() }),
    }
    match request::parse(None, body.clone(), "") {
        Err(error) if !open => Err(TemplateError::Body { name: name.to_owned(), reason: error.to_string() }),
        _ => Ok(body),
    }
}

/// Puts values in, and notes which variables there are.
struct Fill<'f> {
    name: &'f str,
    values: &'f Map<String, Value>,
    /// A variable without value and default is `null`, or `x` within a text, in place of an error.
    trial: bool,
    variables: BTreeMap<String, Option<String>>,
}

/// Stands for a value that is not known yet.
const ANY: &str = "x";

impl Fill<'_> {
    fn value(&mut self, value: &Value, path: &mut String) -> Result<Value, TemplateError> {
        let length = path.len();
        Ok(match value {
            Value::String(text) if text.contains('$') => self.text(text, path)?,
            Value::Array(items) => {
                let mut filled = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{at}]"));
                    filled.push(self.value(item, path)?);
                    path.truncate(length);
                }
                filled.into()
            }
            Value::Object(fields) => {
                let mut filled = Map::new();
                for (key, field) in fields {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(key);
                    let key = if key.contains('$') { self.key(key, path)? } else { key.clone() };
                    filled.insert(key, self.value(field, path)?);
                    path.truncate(length);
                }
                Value::Object(filled)
            }
            other => other.clone(),
        })
    }

    fn key(&mut self, key: &str, path: &str) -> Result<String, TemplateError> {
        Ok(match self.text(key, path)? {
            Value::String(text) => text,
            Value::Null => ANY.to_owned(),
            other => other.to_string(),
        })
    }

    /// Expands a text. One that is a single variable takes the kind of the value and of its field: numbers stay
    /// numbers.
    fn text(&mut self, text: &str, path: &str) -> Result<Value, TemplateError> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(tail) = rest.strip_prefix('$') {
                out.push('$');
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix('{') {
                let open = || TemplateError::Open { name: self.name.to_owned(), path: path.to_owned() };
                let (inside, tail) = tail.split_once('}').ok_or_else(open)?;
                let value = self.variable(inside, path)?;
                if inside.len() + 3 == text.len() {
                    return Ok(fields::kind(path).map_or(value.clone(), |kind| kind.fit(value)));
                }
                match value {
                    Value::String(value) => out.push_str(&value),
                    Value::Null => out.push_str(ANY),
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

    fn variable(&mut self, inside: &str, path: &str) -> Result<Value, TemplateError> {
        let (variable, default) = match inside.split_once(":-") {
            Some((variable, default)) => (variable, Some(default)),
            None => (inside, None),
        };
        let name = |it: &Self| (it.name.to_owned(), path.to_owned(), variable.to_owned());
        if variable.is_empty() || !variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let (name, path, variable) = name(self);
            return Err(TemplateError::VariableName { name, path, variable });
        }
        let known = self.variables.entry(variable.to_owned()).or_default();
        if known.is_none() {
            *known = default.map(str::to_owned);
        }
        match (self.values.get(variable), default) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(default)) => Ok(default.into()),
            (None, None) if self.trial => Ok(Value::Null),
            (None, None) => {
                let (name, path, variable) = name(self);
                Err(TemplateError::Variable { name, path, variable })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_with(text: &str, values: Value, expected: &str) {
        let values = values.as_object().cloned().unwrap_or_default();
        let result = parse("test", text).and_then(|template| template.fill(&values));
        let result = result.map_or_else(|error| error.to_string(), |body| body.to_string());
        assert_eq!(result, expected, "{text}");
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        check_with(text, json!({}), expected);
    }

    #[test]
    fn variables_are_filled_in() {
        check_with(r#"{"Image":"x:${TAG}"}"#, json!({"TAG": "1.2"}), r#"{"Image":"x:1.2"}"#);
        check(r#"{"Image":"x:${NO:-3}","User":"$$5 $x"}"#, r#"{"Image":"x:3","User":"$5 $x"}"#);
        check_with(r#"{"Image":"x","Cmd":["a","${MEM}m"]}"#, json!({"MEM": 64}), r#"{"Image":"x","Cmd":["a","64m"]}"#);
        check_with(
            r#"{"Image":"x","ExposedPorts":{"${PORT}/tcp":{}}}"#,
            json!({"PORT": 80}),
            r#"{"Image":"x","ExposedPorts":{"80/tcp":{}}}"#,
        );
        check(r#"{"Image":"${IMAGE:-a}"}"#, r#"{"Image":"a"}"#);
    }

    #[test]
    fn a_variable_takes_the_kind_of_its_field() {
        let memory = r#"{"Image":"x","HostConfig":{"Memory":"${MEM:-64}","Privileged":"${ALL:-false}"}}"#;
        let filled = |memory, all| format!(r#"{{"Image":"x","HostConfig":{{"Memory":{memory},"Privileged":{all}}}}}"#);
        check(memory, &filled("64", "false"));
        check_with(memory, json!({"MEM": "5", "ALL": true}), &filled("5", "true"));
        check_with(
            memory,
            json!({"MEM": "much"}),
            r#"template test.json: HostConfig.Memory must be a number, not "much""#,
        );
        check_with(
            r#"{"Image":"x","User":"${U}","Cmd":["${U}"],"Labels":{"a.b":"${U}"},"HostConfig":{"Dns":["${U}"]}}"#,
            json!({"U": 7}),
            r#"{"Image":"x","User":"7","Cmd":["7"],"Labels":{"a.b":"7"},"HostConfig":{"Dns":["7"]}}"#,
        );
    }

    #[test]
    fn a_bad_template_names_its_file_and_field() {
        for (text, expected) in [
            ("{", "no JSON: EOF while parsing an object at line 1 column 1"),
            (r#"{"Image":"x","Cmd":["a","${NO}"]}"#, "Cmd[1]: the variable NO has no value and no default"),
            (r#"{"Image":"x","HostConfig":{"A":"${NO"}}"#, "HostConfig.A: `${` without `}`"),
            (
                r#"{"Image":"x","User":"${A-B}"}"#,
                "User: `A-B` is no name of a variable; it has letters, digits and underscores",
            ),
            ("[]", "expected a JSON object, Docker's create body"),
            (r#"{"Cmd":[]}"#, "Image is missing"),
            (r#"{"Image":""}"#, "Image is missing"),
            (r#"{"Image":7}"#, "Image must be a text, not 7"),
            (r#"{"Image":"x","Labels":[]}"#, "Labels must be an object of texts, not []"),
            (r#"{"Image":"x","Env":["A=1",2]}"#, "Env[1] must be a text, not 2"),
            (r#"{"Image":"x","HostConfig":{"Memory":"64"}}"#, "HostConfig.Memory must be a number, not \"64\""),
            (r#"{"Image":"x","HostConfig":[]}"#, "HostConfig must be an object, not []"),
        ] {
            check(text, &format!("template test.json: {expected}"));
        }
        let zone = r#"{"Image":"x","Env":["constraint:zone=a"]}"#;
        let error = parse("test", zone).expect_err("a bad expression").to_string();
        assert!(error.contains("template test.json: error from constraint filter"), "{error}");
    }

    #[test]
    fn a_value_for_a_variable_that_is_none_is_a_mistake() {
        let text = r#"{"Image":"x:${TAG:-1}"}"#;
        check_with(text, json!({"TGA": "2"}), "template test.json has no variable TGA; it has: TAG");
    }

    #[test]
    fn variables_and_fields_without_effect_are_known_beforehand() {
        let text =
            r#"{"Image":"${I}:${TAG:-1}","Cmdd":["x"],"PortSpecs":["80"],"HostConfig":{"Memory":"${MEM}","Memroy":1}}"#;
        let template = parse("test", text).expect("a template");
        let variables: Vec<String> = template.variables.iter().map(|pair| format!("{pair:?}")).collect();
        assert_eq!(variables.join(" "), r#"("I", None) ("MEM", None) ("TAG", Some("1"))"#);
        assert_eq!(template.unknown, ["Cmdd", "HostConfig.Memroy"]);
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
