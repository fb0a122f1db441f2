//! Answers, in the shapes of DockerMod's documentation.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::What;

/// Status of an answer that did not come in time.
const LATE: u16 = 504;

/// One node's answer: Docker's headers as texts, its body and status, and who it was.
pub fn node_reply<'h>(
    node: &str,
    status: u16,
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    body: &[u8],
) -> Value {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let text = texts.entry(canonical(name)).or_default();
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(value);
    }
    let mut reply: Map<String, Value> = texts.into_iter().map(|(name, text)| (name, text.into())).collect();
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

/// Returns a failure on a node (or before one was chosen), in the shape of Docker's own errors.
pub fn failed(node: Option<&str>, status: u16, message: &str) -> Value {
    json!({
        "Content-Type": "application/json", "Response": {"Body": {"message": message}},
        "dockerInstance": node, "statusCode": status,
    })
}

/// A node that did not answer in time. The word is the original's.
pub fn late(node: Option<&str>, reason: &str) -> Value {
    json!({ "error": "timeout", "message": reason, "dockerInstance": node, "statusCode": LATE })
}

/// Returns a refusal of herder itself.
pub fn refused(message: &str) -> Value {
    json!({ "status": "error", "message": message })
}

/// No container has this id. `status` is what the original said.
pub fn unknown_id(message: &str) -> Value {
    json!({ "status": "timeout or no such id", "message": message, "statusCode": 404 })
}

/// Answers of many nodes, twice: each of them, as the original's code gave them, and together, as its documentation shows.
pub fn gathered(what: What, replies: Vec<Value>) -> Value {
    let answered = |reply: &&Value| reply["Response"]["Body"].is_array();
    let together = match what {
        What::Containers => replies.iter().flat_map(bodies).cloned().collect(),
        What::Images => images(&replies),
    };
    let first = replies.iter().find(answered).and_then(Value::as_object);
    let mut answer: Map<String, Value> = first.cloned().unwrap_or_default();
    // These are about one node only.
    for field in ["Content-Length", "dockerInstance"] {
        answer.shift_remove(field);
    }
    answer.insert("Response".into(), json!({ "Body": together }));
    answer.insert("statusCode".into(), if first.is_some() { 200 } else { LATE }.into());
    let list = match what {
        What::Containers => "containers",
        What::Images => "images",
    };
    answer.insert(list.into(), replies.into());
    Value::Object(answer)
}

fn bodies(reply: &Value) -> impl Iterator<Item = &Value> {
    reply["Response"]["Body"].as_array().into_iter().flatten()
}

/// An image on several nodes is one image, with all its tags, and says where it is.
fn images(replies: &[Value]) -> Vec<Value> {
    let mut order: Vec<Value> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for reply in replies {
        for image in bodies(reply) {
            let id = image["Id"].as_str().unwrap_or_default().to_owned();
            let at = *known.entry(id).or_insert_with(|| {
                order.push(image.clone());
                order.len() - 1
            });
            let one = &mut order[at];
            for field in ["RepoTags", "RepoDigests"] {
                add_missing(one, field, image[field].as_array().map_or(&[], Vec::as_slice));
            }
            add_missing(one, "dockerInstances", std::slice::from_ref(&reply["dockerInstance"]));
        }
    }
    order
}

fn add_missing(image: &mut Value, field: &str, values: &[Value]) {
    let Some(image) = image.as_object_mut() else { return };
    if values.is_empty() {
        return;
    }
    let there = image.entry(field).or_insert_with(|| json!([]));
    if there.is_null() {
        *there = json!([]);
    }
    if let Some(there) = there.as_array_mut() {
        for value in values {
            if !there.contains(value) {
                there.push(value.clone());
            }
        }
    }
}

/// Returns the status of the HTTP answer that carries `answer`. It is the engine's, but not 204 or 304, which cannot
/// have a document. Of a create of many: 201 if all were made, 200 if some, else that of the first failure.
pub fn status(answer: &Value) -> u16 {
    match (&answer["statusCode"], answer["containers"].as_array()) {
        (Value::Null, Some(replies)) => {
            let made = replies.iter().filter(|reply| reply["statusCode"] == 201).count();
            match replies.first() {
                Some(first) if made == 0 => of(&first["statusCode"]),
                _ if made == replies.len() => 201,
                _ => 200,
            }
        }
        (code, _) => of(code),
    }
}

fn of(code: &Value) -> u16 {
    let code = code.as_u64().and_then(|code| u16::try_from(code).ok());
    code.filter(|code| matches!(code, 201 | 400..=599)).unwrap_or(200)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(reply: Value, expected: &str, http: u16) {
        assert_eq!((reply.to_string().as_str(), status(&reply)), (expected, http));
    }

    #[test]
    fn a_node_answers_in_the_documented_shape() {
        let json = [("content-length", "27"), ("content-type", "application/json"), ("date", "Tue")];
        check(
            node_reply("h1", 201, json, br#"{"Id":"1","Warnings":null}"#),
            r#"{"Content-Length":"27","Content-Type":"application/json","Date":"Tue","Response":{"Body":{"Id":"1","Warnings":null}},"dockerInstance":"h1","statusCode":201}"#,
            201,
        );
        check(node_reply("h1", 204, [], b""), r#"{"Response":"","dockerInstance":"h1","statusCode":204}"#, 200);
        check(node_reply("h1", 304, [], b""), r#"{"Response":"","dockerInstance":"h1","statusCode":304}"#, 200);
        check(
            node_reply("h1", 404, [("x-a", "1"), ("x-a", "2")], b"no such thing"),
            r#"{"X-A":"1, 2","Response":"no such thing","dockerInstance":"h1","statusCode":404}"#,
            404,
        );
    }

    #[test]
    fn failures_say_who_and_why() {
        check(
            late(Some("h2"), "no answer within 2.5 s"),
            r#"{"error":"timeout","message":"no answer within 2.5 s","dockerInstance":"h2","statusCode":504}"#,
            504,
        );
        check(
            failed(None, 500, "full"),
            r#"{"Content-Type":"application/json","Response":{"Body":{"message":"full"}},"dockerInstance":null,"statusCode":500}"#,
            500,
        );
        check(
            unknown_id("No such container: x"),
            r#"{"status":"timeout or no such id","message":"No such container: x","statusCode":404}"#,
            404,
        );
    }

    #[test]
    fn answers_of_many_nodes_are_given_one_by_one_and_together() {
        let reply = |node: &str, body: &str| node_reply(node, 200, [("content-length", "2")], body.as_bytes());
        check(
            gathered(
                What::Containers,
                vec![late(Some("h0"), "x"), reply("h1", r#"[{"Id":"a"}]"#), reply("h2", r#"[{"Id":"b"}]"#)],
            ),
            r#"{"Response":{"Body":[{"Id":"a"},{"Id":"b"}]},"statusCode":200,"containers":[{"error":"timeout","message":"x","dockerInstance":"h0","statusCode":504},{"Content-Length":"2","Response":{"Body":[{"Id":"a"}]},"dockerInstance":"h1","statusCode":200},{"Content-Length":"2","Response":{"Body":[{"Id":"b"}]},"dockerInstance":"h2","statusCode":200}]}"#,
            200,
        );
        let images = gathered(
            What::Images,
            vec![
                reply("h1", r#"[{"Id":"a","RepoTags":["x:1"]},{"Id":"b","RepoTags":null}]"#),
                reply("h2", r#"[{"Id":"a","RepoTags":["x:1","x:2"]},{"Id":"b","RepoTags":["y:1"]}]"#),
            ],
        );
        assert_eq!(
            images["Response"]["Body"].to_string(),
            r#"[{"Id":"a","RepoTags":["x:1","x:2"],"dockerInstances":["h1","h2"]},{"Id":"b","RepoTags":["y:1"],"dockerInstances":["h1","h2"]}]"#
        );
        assert_eq!(status(&gathered(What::Images, vec![late(Some("h1"), "x")])), 504);
    }

    #[test]
    fn a_create_of_many_is_made_made_in_part_or_not_made() {
        let of = |codes: &[u16]| {
            let replies: Vec<Value> = codes.iter().map(|code| node_reply("h", *code, [], b"{}")).collect();
            status(&json!({ "containers": replies }))
        };
        assert_eq!(of(&[201, 201]), 201);
        assert_eq!(of(&[404, 201]), 200);
        assert_eq!(of(&[404, 500]), 404);
        assert_eq!(of(&[204, 204]), 200);
    }

    proptest! {
        /// Keeps the parts of any answers of engines, and sets a status that HTTP knows.
        #[test]
        fn nothing_is_lost_between_the_nodes(
            parts in prop::collection::vec((any::<bool>(), 0u16..1000, ".{0,30}", 0usize..4), 0..6),
        ) {
            let list = |count: usize| Value::from(vec![json!({"Id": "x", "RepoTags": ["a:1"]}); count]).to_string();
            let replies: Vec<Value> = parts
                .iter()
                .map(|(listed, status, text, count)| {
                    let body = if *listed { list(*count) } else { text.clone() };
                    node_reply("h", *status, [], body.as_bytes())
                })
                .collect();
            for reply in &replies {
                prop_assert!((200..600).contains(&status(reply)));
            }
            let entries: usize = parts.iter().filter(|part| part.0).map(|part| part.3).sum();
            let containers = gathered(What::Containers, replies.clone());
            prop_assert!(containers["Response"]["Body"].as_array().map_or(0, Vec::len) >= entries);
            prop_assert_eq!(containers["containers"].as_array().map_or(0, Vec::len), replies.len());
            let images = gathered(What::Images, replies.clone());
            prop_assert_eq!(images["images"].as_array().map_or(0, Vec::len), replies.len());
        }
    }
}
