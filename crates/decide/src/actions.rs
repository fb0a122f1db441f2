//! DockerMod's actions: what a request means. Which nodes take part is in [`spread`], what the answer looks like in [`shape`].

pub mod body;
pub mod conf;
pub mod members;
pub mod shape;
pub mod shared;
pub mod spread;
pub mod template;

use serde_json::{Map, Value, json};

/// Containers that one request may ask for. Its answer lists each of them, so it has to have an end.
pub const INSTANCES_MAX: usize = 1000;

/// Seconds that a container may be given to stop. An hour: longer waits are mistakes of unit.
pub const GRACE_SECONDS_MAX: u64 = 3600;

/// One request, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub action: Action,
    /// Headers for the engine, in place of those that herder sends by itself. Creates do without.
    pub headers: Vec<(String, String)>,
}

/// Action of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Register {
        hostname: String,
    },
    Unregister {
        hostname: String,
    },
    Create(Create),
    /// Something with one container, by id, short id or name.
    OnContainer {
        verb: Verb,
        id: String,
    },
    List {
        what: What,
        all: bool,
        hostname: Option<String>,
    },
    /// Lists templates: with `text` as they are written, with `all` those of all nodes.
    ListTemplates {
        text: bool,
        all: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    pub source: Source,
    /// Put over what the source gives.
    pub body: Value,
    /// Number of instances. If given, the answer is a list, even for 1.
    pub instances: Option<usize>,
    /// The node to create on; any, without.
    pub hostname: Option<String>,
    pub name: Option<String>,
}

/// Source of the create body.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Template {
        name: String,
        variables: Map<String, Value>,
    },
    Image(String),
    /// Takes the body from `body` alone.
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    /// Seconds until it is killed; without, what the container says.
    Stop(Option<u64>),
    Restart(Option<u64>),
    /// Removes containers; with `force` running ones, too.
    Delete {
        force: bool,
    },
    Inspect,
    /// Stops and deletes.
    Shutdown(Option<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Containers,
    Images,
}

/// Reason why a request is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    #[error("{0} must be specified")]
    Missing(&'static str),
    #[error("no such action is supported")]
    Unknown,
    #[error("{field} must be {expected}, not {value}")]
    Field { field: String, expected: &'static str, value: String },
}

impl ActionError {
    /// Returns the answer in the original's words, where it had some.
    pub fn answer(&self) -> Value {
        match self {
            ActionError::Unknown => json!({ "error": self.to_string() }),
            ActionError::Missing(_) | ActionError::Field { .. } => shape::refused(&self.to_string()),
        }
    }
}

/// Longer values are cut where an error shows them.
const SHOWN_CHARS_MAX: usize = 80;

fn wrong(field: impl Into<String>, expected: &'static str, value: &Value) -> ActionError {
    let mut value = value.to_string();
    if value.chars().count() > SHOWN_CHARS_MAX {
        value = value.chars().take(SHOWN_CHARS_MAX).chain("…".chars()).collect();
    }
    ActionError::Field { field: field.into(), expected, value }
}

/// The fields of a request. `null` is as good as absent.
struct Fields<'r>(&'r Value);

impl Fields<'_> {
    fn text(&self, field: &'static str) -> Result<Option<String>, ActionError> {
        match &self.0[field] {
            Value::Null => Ok(None),
            Value::String(text) if !text.is_empty() => Ok(Some(text.clone())),
            other => Err(wrong(field, "a text", other)),
        }
    }

    fn needed(&self, field: &'static str) -> Result<String, ActionError> {
        self.text(field)?.ok_or(ActionError::Missing(field))
    }

    fn flag(&self, field: &'static str) -> Result<bool, ActionError> {
        match &self.0[field] {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            other => Err(wrong(field, "true or false", other)),
        }
    }

    fn number(&self, field: &'static str, max: u64, expected: &'static str) -> Result<Option<u64>, ActionError> {
        match &self.0[field] {
            Value::Null => Ok(None),
            other => match other.as_u64().filter(|number| *number <= max) {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(field, expected, other)),
            },
        }
    }

    fn object(&self, field: &'static str) -> Result<Map<String, Value>, ActionError> {
        match &self.0[field] {
            Value::Null => Ok(Map::new()),
            Value::Object(map) => Ok(map.clone()),
            other => Err(wrong(field, "a JSON object", other)),
        }
    }
}

/// Reads a request. What is wrong is told with its field; fields that an action does not know are left alone, as in the
/// original.
pub fn parse(request: &Value) -> Result<Asked, ActionError> {
    if !request.is_object() {
        return Err(wrong("the request", "a JSON object", request));
    }
    let fields = Fields(request);
    let action = action(&fields)?;
    let mut headers = Vec::new();
    for (name, value) in fields.object("headers")? {
        match value.as_str() {
            Some(text) => headers.push((name, text.to_owned())),
            None => return Err(wrong(format!("headers.{name}"), "a text", &value)),
        }
    }
    Ok(Asked { action, headers })
}

fn action(fields: &Fields<'_>) -> Result<Action, ActionError> {
    let on = |verb| Ok(Action::OnContainer { verb, id: fields.needed("id")? });
    let grace = || fields.number("timeout", GRACE_SECONDS_MAX, "a number of seconds up to 3600");
    let list = |what| Ok(Action::List { what, all: fields.flag("all")?, hostname: fields.text("hostname")? });
    match fields.needed("action")?.as_str() {
        "register" => Ok(Action::Register { hostname: fields.needed("hostname")? }),
        "unregister" => Ok(Action::Unregister { hostname: fields.needed("hostname")? }),
        "create-container" => create(fields, source(fields)?),
        "create-raw-container" if fields.0["body"].is_null() => Err(ActionError::Missing("body")),
        "create-raw-container" => create(fields, Source::Raw),
        "start-container" => on(Verb::Start),
        "stop-container" => on(Verb::Stop(grace()?)),
        "restart-container" => on(Verb::Restart(grace()?)),
        "delete-container" => on(Verb::Delete { force: fields.flag("force")? }),
        "inspect-container" => on(Verb::Inspect),
        "shutdown-container" => on(Verb::Shutdown(grace()?)),
        "list-containers" => list(What::Containers),
        "list-images" => list(What::Images),
        "list-templates" => Ok(Action::ListTemplates { text: fields.flag("text")?, all: fields.flag("all")? }),
        _ => Err(ActionError::Unknown),
    }
}

/// A template wins over an image, as in the original.
fn source(fields: &Fields<'_>) -> Result<Source, ActionError> {
    let variables = variables(fields)?;
    match (fields.text("template")?, fields.text("image")?) {
        (Some(name), _) => Ok(Source::Template { name, variables }),
        (None, Some(image)) => Ok(Source::Image(image)),
        (None, None) if fields.0["body"].is_object() => Ok(Source::Raw),
        (None, None) => Err(ActionError::Missing("template or image")),
    }
}

fn variables(fields: &Fields<'_>) -> Result<Map<String, Value>, ActionError> {
    let variables = fields.object("variables")?;
    for (name, value) in &variables {
        if !(value.is_string() || value.is_number() || value.is_boolean()) {
            return Err(wrong(format!("variables.{name}"), "a text, a number, true or false", value));
        }
    }
    Ok(variables)
}

fn create(fields: &Fields<'_>, source: Source) -> Result<Action, ActionError> {
    let instances = fields.number("instances", INSTANCES_MAX as u64, "a number from 1 to 1000")?;
    // The original took 0 as 1.
    let instances = instances.and_then(|count| usize::try_from(count).ok()).map(|count| count.max(1));
    let name = fields.text("name")?;
    if name.is_some() && instances.is_some_and(|count| count > 1) {
        return Err(wrong("instances", "1 when a name is given", &fields.0["instances"]));
    }
    let body = Value::Object(fields.object("body")?);
    Ok(Action::Create(Create { source, body, instances, hostname: fields.text("hostname")?, name }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(request: Value, expected: &str) {
        let text = match parse(&request) {
            Ok(asked) => format!("{asked:?}"),
            Err(error) => error.answer().to_string(),
        };
        assert!(text.contains(expected), "{request} gave {text}");
    }

    #[test]
    fn requests_are_read() {
        check(json!({"action": "register", "hostname": "h1"}), r#"Register { hostname: "h1" }"#);
        check(json!({"action": "create-container", "template": "test", "image": "x", "instances": 4}), "Template");
        check(
            json!({"action": "create-container", "image": "ubuntu"}),
            r#"Image("ubuntu"), body: Object {}, instances: None"#,
        );
        check(json!({"action": "create-container", "image": "x", "instances": 0}), "instances: Some(1)");
        check(
            json!({"action": "create-container", "image": "x", "instances": 1, "name": "web"}),
            r#"name: Some("web")"#,
        );
        check(json!({"action": "create-container", "body": {"Image": "x"}}), "Raw");
        check(json!({"action": "create-raw-container", "image": "y", "body": {"Image": "x"}}), "Raw");
        check(json!({"action": "stop-container", "id": "b276fbe"}), r#"Stop(None), id: "b276fbe""#);
        check(json!({"action": "restart-container", "id": "b", "timeout": 3}), "Restart(Some(3))");
        check(json!({"action": "delete-container", "id": "b", "force": true}), "Delete { force: true }");
        check(json!({"action": "list-containers", "all": true, "hostname": null}), "all: true, hostname: None");
        check(json!({"action": "list-templates"}), "ListTemplates { text: false, all: false }");
        check(
            json!({"action": "inspect-container", "id": "b", "headers": {"Accept": "*/*"}}),
            r#"headers: [("Accept", "*/*")]"#,
        );
    }

    #[test]
    fn faults_name_their_field_in_the_originals_words() {
        let missing = |field: &str| format!(r#"{{"status":"error","message":"{field} must be specified"}}"#);
        check(json!({}), &missing("action"));
        check(json!({"action": "register"}), &missing("hostname"));
        check(json!({"action": "unregister", "hostname": null}), &missing("hostname"));
        check(json!({"action": "create-container"}), &missing("template or image"));
        check(json!({"action": "create-raw-container"}), &missing("body"));
        check(json!({"action": "start-container"}), &missing("id"));
        check(json!({"action": "fly"}), r#"{"error":"no such action is supported"}"#);
        check(json!([1]), "the request must be a JSON object, not [1]");
        check(json!({"action": 7}), "action must be a text, not 7");
        check(json!({"action": "start-container", "id": ""}), r#"id must be a text, not \"\""#);
        check(json!({"action": "start-container", "id": ["a"]}), r#"id must be a text, not [\"a\"]"#);
        check(json!({"action": "create-container", "image": 7}), "image must be a text, not 7");
        check(json!({"action": "create-container", "image": "x", "instances": -1}), "a number from 1 to 1000, not -1");
        check(json!({"action": "create-container", "image": "x", "instances": "4"}), r#"not \"4\""#);
        check(json!({"action": "create-container", "image": "x", "instances": 5000}), "instances must be a number");
        check(
            json!({"action": "create-container", "image": "x", "instances": 2, "name": "web"}),
            "instances must be 1 when a name is given, not 2",
        );
        check(
            json!({"action": "create-container", "template": "x", "variables": {"A": [1]}}),
            "variables.A must be a text, a number, true or false, not [1]",
        );
        check(json!({"action": "create-raw-container", "body": []}), "body must be a JSON object, not []");
        check(json!({"action": "list-images", "all": "yes"}), "all must be true or false");
        check(json!({"action": "stop-container", "id": "x", "timeout": 99999}), "timeout must be a number of seconds");
        check(json!({"action": "list-images", "headers": {"A": 1}}), "headers.A must be a text, not 1");
        check(json!({"action": "x".repeat(500)}), "no such action");
        check(json!({"action": ["x".repeat(500)]}), r#"xxx…""#);
    }

    /// Any JSON of a depth that a client may send.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Reads any request as an action or an error that names something, without a panic in what follows.
        #[test]
        fn any_request_is_read_or_refused(
            name in prop_oneof![
                Just("create-container".to_owned()), Just("create-raw-container".to_owned()),
                Just("stop-container".to_owned()), Just("list-containers".to_owned()), ".{0,20}",
            ],
            fields in prop::collection::btree_map(
                "action|id|image|instances|all|body|template|hostname|name|variables|headers|timeout|force", any_json(), 0..8),
        ) {
            let mut request: Map<String, Value> = fields.into_iter().collect();
            request.entry("action").or_insert(name.into());
            match parse(&Value::Object(request)) {
                Ok(Asked { action: Action::Create(create), .. }) => {
                    prop_assert!(create.instances.is_none_or(|count| (1..=INSTANCES_MAX).contains(&count)));
                    let mut made = match create.source {
                        Source::Image(image) => body::from_image(&image),
                        _ => json!({}),
                    };
                    body::overlay(&mut made, create.body);
                    body::modernise(&mut made);
                    let _ = crate::place::request::parse(create.name.as_deref(), made, "");
                }
                Ok(_) => {}
                Err(error) => {
                    let answer = error.answer();
                    prop_assert!(answer["message"].is_string() || answer["error"].is_string());
                }
            }
        }

        #[test]
        fn any_text_is_a_template_a_configuration_or_an_error(text in ".{0,60}", json in any_json()) {
            for text in [text, json.to_string()] {
                let _ = conf::parse(&text);
                if let Ok(template) = template::parse("t", &text) {
                    let _ = template.fill(&Map::new());
                }
            }
        }
    }
}
