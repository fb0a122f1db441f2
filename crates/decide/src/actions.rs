//! DockerMod's actions: what a request means, which nodes take part, what the answer looks like.

pub mod conf;
pub mod template;

use std::sync::Arc;

use herder_model::Node;
use serde_json::{Map, Value, json};

/// Containers that one request may ask for.
pub const INSTANCES_MAX: usize = 1000;

/// What is to be done.
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
    ListTemplates,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    pub source: Source,
    /// With a number the answer is a list, even for 1.
    pub instances: Option<usize>,
    /// The node to create on; any, without.
    pub hostname: Option<String>,
    pub name: Option<String>,
}

/// Where the create body comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Template { name: String, variables: Map<String, Value> },
    Image(String),
    Body(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Restart,
    Delete,
    Inspect,
    /// Stops and deletes.
    Shutdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Containers,
    Images,
}

/// Why a request is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    #[error("{0} must be specified")]
    Missing(&'static str),
    #[error("no such action is supported")]
    Unknown,
    #[error("{field} must be {expected}, not {value}")]
    Field { field: &'static str, expected: &'static str, value: String },
}

impl ActionError {
    /// As the original answered.
    pub fn answer(&self) -> Value {
        match self {
            ActionError::Unknown => json!({ "error": self.to_string() }),
            _ => json!({ "status": "error", "message": self.to_string() }),
        }
    }
}

/// Reads a request.
pub fn parse(request: &Value) -> Result<Action, ActionError> {
    let text = |field: &'static str| match &request[field] {
        Value::Null => Ok(None),
        Value::String(text) if !text.is_empty() => Ok(Some(text.clone())),
        other => Err(ActionError::Field { field, expected: "a text", value: other.to_string() }),
    };
    let needed = |field: &'static str| text(field)?.ok_or(ActionError::Missing(field));
    let on_container = |verb| Ok(Action::OnContainer { verb, id: needed("id")? });
    let list = |what| {
        let all = match &request["all"] {
            Value::Null => false,
            Value::Bool(all) => *all,
            other => {
                return Err(ActionError::Field { field: "all", expected: "true or false", value: other.to_string() });
            }
        };
        Ok(Action::List { what, all, hostname: text("hostname")? })
    };
    match needed("action")?.as_str() {
        "register" => Ok(Action::Register { hostname: needed("hostname")? }),
        "unregister" => Ok(Action::Unregister { hostname: needed("hostname")? }),
        "create-container" => {
            let source = match (text("template")?, text("image")?, &request["body"]) {
                (Some(name), _, _) => Source::Template { name, variables: variables(request)? },
                (None, Some(image), _) => Source::Image(image),
                (None, None, body @ Value::Object(_)) => Source::Body(body.clone()),
                (None, None, _) => return Err(ActionError::Missing("template or image")),
            };
            create(request, source, text("hostname")?, text("name")?)
        }
        "create-raw-container" => match &request["body"] {
            Value::Null => Err(ActionError::Missing("body")),
            body @ Value::Object(_) => create(request, Source::Body(body.clone()), text("hostname")?, text("name")?),
            other => Err(ActionError::Field { field: "body", expected: "a JSON object", value: other.to_string() }),
        },
        "start-container" => on_container(Verb::Start),
        "stop-container" => on_container(Verb::Stop),
        "restart-container" => on_container(Verb::Restart),
        "delete-container" => on_container(Verb::Delete),
        "inspect-container" => on_container(Verb::Inspect),
        "shutdown-container" => on_container(Verb::Shutdown),
        "list-containers" => list(What::Containers),
        "list-images" => list(What::Images),
        "list-templates" => Ok(Action::ListTemplates),
        _ => Err(ActionError::Unknown),
    }
}

fn variables(request: &Value) -> Result<Map<String, Value>, ActionError> {
    match &request["variables"] {
        Value::Null => Ok(Map::new()),
        Value::Object(map) if map.values().all(|value| value.is_string() || value.is_number()) => Ok(map.clone()),
        other => Err(ActionError::Field {
            field: "variables",
            expected: "an object of texts and numbers",
            value: other.to_string(),
        }),
    }
}

fn create(
    request: &Value,
    source: Source,
    hostname: Option<String>,
    name: Option<String>,
) -> Result<Action, ActionError> {
    let wrong = |expected| ActionError::Field { field: "instances", expected, value: request["instances"].to_string() };
    let instances = match &request["instances"] {
        Value::Null => None,
        Value::Number(count) => {
            let count = count.as_u64().and_then(|count| usize::try_from(count).ok());
            // The original took 0 as 1.
            let count = count.filter(|count| *count <= INSTANCES_MAX).map(|count| count.max(1));
            Some(count.ok_or_else(|| wrong("a number from 1 to 1000"))?)
        }
        _ => return Err(wrong("a number from 1 to 1000")),
    };
    if name.is_some() && instances.is_some_and(|count| count > 1) {
        return Err(wrong("1 when a name is given"));
    }
    Ok(Action::Create(Create { source, instances, hostname, name }))
}

/// Which node takes which instance: one round over all healthy nodes, the emptiest first, then again. Counts differ by one at
/// most.
pub fn spread(nodes: &[Arc<Node>], instances: usize) -> Vec<String> {
    let mut healthy: Vec<&Arc<Node>> = nodes.iter().filter(|node| node.is_healthy()).collect();
    healthy.sort_by_key(|node| (node.containers.len(), node.name.clone()));
    healthy.iter().map(|node| node.name.clone()).cycle().take(if healthy.is_empty() { 0 } else { instances }).collect()
}

/// The create body that the original made of an image: it pings, so that it runs.
pub fn from_image(image: &str) -> Value {
    json!({
        "Image": image, "Hostname": "", "User": "", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Cmd": ["/bin/ping", "8.8.8.8"], "WorkingDir": "",
        "ExposedPorts": {"80/tcp": {}, "22/udp": {}},
        "HostConfig": {"Memory": 0, "MemorySwap": 0, "Privileged": false},
    })
}

/// One node's answer: Docker's headers, status and body, and who it was.
pub fn node_reply<'h>(
    node: &str,
    status: u16,
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    body: &[u8],
) -> Value {
    let mut reply = Map::new();
    for (name, value) in headers {
        reply.insert(canonical(name), value.into());
    }
    let response = match serde_json::from_slice::<Value>(body) {
        Ok(body) => json!({ "Body": body }),
        // Nothing, or a text.
        Err(_) => String::from_utf8_lossy(body).into(),
    };
    reply.insert("Response".into(), response);
    reply.insert("dockerInstance".into(), node.into());
    reply.insert("statusCode".into(), status.into());
    Value::Object(reply)
}

/// `content-type` → `Content-Type`.
fn canonical(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

/// A node that did not answer in time.
pub fn late(node: &str) -> Value {
    json!({ "error": "timeout", "dockerInstance": node })
}

/// Answers of many nodes: each of them under `list` (as the original gave them), and together (as its documentation shows).
pub fn gathered(list: &str, replies: Vec<Value>) -> Value {
    let bodies = replies.iter().filter_map(|reply| reply["Response"]["Body"].as_array());
    let together: Vec<Value> = bodies.flatten().cloned().collect();
    json!({ list: replies, "Response": { "Body": together }, "Content-Type": "application/json", "statusCode": 200 })
}

#[cfg(test)]
mod tests {
    use herder_model::{Container, NodeState};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(request: Value, expected: &str) {
        let text = match parse(&request) {
            Ok(action) => format!("{action:?}"),
            Err(error) => error.answer().to_string(),
        };
        assert!(text.contains(expected), "{request} gave {text}");
    }

    #[test]
    fn requests_are_read_and_faults_named() {
        check(json!({"action": "register", "hostname": "h1"}), r#"Register { hostname: "h1" }"#);
        check(json!({"action": "register"}), r#"{"status":"error","message":"hostname must be specified"}"#);
        check(json!({"action": "create-container", "template": "test", "image": "x", "instances": 4}), "Template");
        check(json!({"action": "create-container", "image": "ubuntu"}), r#"Image("ubuntu"), instances: None"#);
        check(json!({"action": "create-container", "image": "x", "instances": 0}), "instances: Some(1)");
        check(json!({"action": "create-container", "image": "x", "instances": -1}), "a number from 1 to 1000, not -1");
        check(json!({"action": "create-container", "image": "x", "instances": 5000}), "a number from 1 to 1000");
        check(json!({"action": "create-container", "image": 7}), "image must be a text, not 7");
        check(json!({"action": "create-container"}), "template or image must be specified");
        check(json!({"action": "create-raw-container"}), "body must be specified");
        check(json!({"action": "create-raw-container", "body": []}), "body must be a JSON object");
        check(json!({"action": "start-container"}), "id must be specified");
        check(json!({"action": "stop-container", "id": "b276fbe"}), r#"Stop, id: "b276fbe""#);
        check(json!({"action": "list-containers", "all": true}), "all: true");
        check(json!({"action": "list-images", "all": "yes"}), "all must be true or false");
        check(json!({"action": "fly"}), r#"{"error":"no such action is supported"}"#);
        check(json!({}), "action must be specified");
        check(json!([1]), "action must be specified");
    }

    fn node(name: &str, containers: usize, state: NodeState) -> Arc<Node> {
        let mut node = Node { name: name.into(), state, ..Node::default() };
        for number in 0..containers {
            node.put_container(Arc::new(Container { id: number.to_string(), ..Container::default() }));
        }
        Arc::new(node)
    }

    #[test]
    fn the_emptiest_nodes_come_first() {
        let nodes = [
            node("a", 3, NodeState::Healthy),
            node("b", 0, NodeState::Unhealthy),
            node("c", 1, NodeState::Healthy),
            node("d", 1, NodeState::Healthy),
        ];
        assert_eq!(spread(&nodes, 5), ["c", "d", "a", "c", "d"]);
        assert!(spread(&nodes[1..2], 5).is_empty());
    }

    #[test]
    fn a_node_answers_in_the_documented_shape() {
        let reply = node_reply("h1", 201, [("content-type", "application/json")], br#"{"Id":"1","Warnings":null}"#);
        assert_eq!(
            reply,
            json!({"Content-Type": "application/json", "Response": {"Body": {"Id": "1", "Warnings": null}},
                   "dockerInstance": "h1", "statusCode": 201})
        );
        assert_eq!(node_reply("h1", 204, [], b"")["Response"], "");
        let gathered = gathered("containers", vec![node_reply("h1", 200, [], b"[1,2]"), late("h2")]);
        assert_eq!(gathered["Response"]["Body"], json!([1, 2]));
        assert_eq!(gathered["containers"][1], json!({"error": "timeout", "dockerInstance": "h2"}));
    }

    proptest! {
        #[test]
        fn instances_are_spread_evenly(loads in prop::collection::vec(0usize..9, 1..8), instances in 1usize..50) {
            let nodes: Vec<Arc<Node>> =
                loads.iter().enumerate().map(|(at, load)| node(&format!("n{at}"), *load, NodeState::Healthy)).collect();
            let spread = spread(&nodes, instances);
            prop_assert_eq!(spread.len(), instances);
            let counts: Vec<usize> =
                nodes.iter().map(|node| spread.iter().filter(|name| **name == node.name).count()).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }

        #[test]
        fn any_request_is_read_without_panic(text in r#"\{("(action|id|image|instances|all|body|template|hostname)":("[a-z-]{0,20}"|-?[0-9]{1,9}|true|null|\{\}),){0,4}"x":1\}"#) {
            if let Ok(request) = serde_json::from_str::<Value>(&text) {
                let _ = parse(&request);
            }
        }
    }
}
