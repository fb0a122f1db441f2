//! A message as a receiver sees it, and the way back to its sender.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::bus::Bus;
use crate::error::BusError;

/// An address may have this many bytes; the limit of the Vert.x bridges.
pub const ADDRESS_BYTES_MAX: usize = 200;

/// Names with values, in the order given. A name may come several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reads a JSON object. Arrays are several values of one name; numbers and booleans are kept as their text.
    pub fn from_json(object: &Map<String, Value>) -> Headers {
        let mut headers = Vec::with_capacity(object.len());
        for (name, value) in object {
            match value {
                Value::Array(values) => headers.extend(values.iter().map(|value| (name.clone(), plain(value)))),
                value => headers.push((name.clone(), plain(value))),
            }
        }
        Headers(headers)
    }

    /// A JSON object; several values of one name become an array.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        for (name, value) in &self.0 {
            match object.get_mut(name) {
                None => drop(object.insert(name.clone(), Value::from(value.as_str()))),
                Some(Value::Array(values)) => values.push(Value::from(value.as_str())),
                Some(first) => *first = Value::Array(vec![first.take(), Value::from(value.as_str())]),
            }
        }
        object
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A message as a receiver sees it. One that asks for an answer and is dropped without fails the asker at once.
#[derive(Debug)]
pub struct Message {
    /// The address it was sent to; for answers, a word that stands for the request.
    pub address: Arc<str>,
    pub headers: Arc<Headers>,
    pub body: Arc<Value>,
    /// True if it went to all receivers, false if to this one only.
    pub published: bool,
    /// Id of the node that it came from; `None` if it was sent on this one.
    pub from: Option<Arc<str>>,
    pub(crate) reply: Option<ReplyTo>,
    /// Roughly the bytes it takes in memory, for the bound of its queue.
    pub(crate) weight: usize,
}

impl Message {
    /// True if somebody waits for an answer.
    pub fn wants_reply(&self) -> bool {
        self.reply.is_some()
    }

    /// The way back, for an answer at a later time. The second call gives `None`.
    pub fn take_reply(&mut self) -> Option<ReplyTo> {
        self.reply.take()
    }

    /// Answers. Nothing happens if nobody asked.
    pub fn reply(mut self, headers: Headers, body: Value) {
        if let Some(reply) = self.reply.take() {
            reply.answer(headers, body);
        }
    }

    /// Answers with a failure. Nothing happens if nobody asked.
    pub fn fail(mut self, code: i32, message: &str) {
        if let Some(reply) = self.reply.take() {
            reply.fail(BusError::failure(code, message));
        }
    }
}

/// Way back to the sender of a request; it can be used once. Dropped unused, it reports that no answer will come.
#[derive(Debug)]
pub struct ReplyTo {
    pub(crate) bus: Weak<Bus>,
    pub(crate) node: Arc<str>,
    pub(crate) id: u64,
    pub(crate) used: bool,
}

impl ReplyTo {
    /// Answers.
    pub fn answer(mut self, headers: Headers, body: Value) {
        self.used = true;
        if let Some(bus) = self.bus.upgrade() {
            bus.answer(&self.node, self.id, Ok((headers, body, None)));
        }
    }

    /// Answers with a failure.
    pub fn fail(mut self, error: BusError) {
        self.used = true;
        if let Some(bus) = self.bus.upgrade() {
            bus.answer(&self.node, self.id, Err(error));
        }
    }

    /// Replies with a request of its own, and returns the asker's reply to that request.
    pub async fn request(mut self, headers: Headers, body: Value, limit: Duration) -> Result<Message, BusError> {
        self.used = true;
        let bus = self.bus.upgrade().ok_or_else(|| BusError::gone(&self.node))?;
        bus.answer_and_ask(&self.node, self.id, headers, body, limit).await
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if !self.used
            && let Some(bus) = self.bus.upgrade()
        {
            bus.answer(&self.node, self.id, Err(BusError::unanswered()));
        }
    }
}

/// Refuses what is no address: empty, over [`ADDRESS_BYTES_MAX`] bytes, or with control characters.
pub(crate) fn check_address(address: &str) -> Result<(), BusError> {
    let problem = if address.is_empty() {
        "is empty".to_owned()
    } else if address.len() > ADDRESS_BYTES_MAX {
        format!("has {} bytes; at most {ADDRESS_BYTES_MAX} are allowed", address.len())
    } else if address.chars().any(char::is_control) {
        "has control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(BusError::invalid(format!("the address {problem}")))
}

/// Roughly the bytes that a value takes in memory.
pub(crate) fn weight(headers: &Headers, body: &Value) -> usize {
    let headers: usize = headers.0.iter().map(|(name, value)| name.len() + value.len() + size_of::<String>() * 2).sum();
    headers + weight_of(body)
}

fn weight_of(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(weight_of).sum(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| size_of::<String>() * 2 + name.len() + weight_of(value)).sum()
            }
        }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_become_json_and_come_back() {
        let check = |from: Value, to: Value| {
            let object = from.as_object().expect("an object");
            assert_eq!(Value::Object(Headers::from_json(object).to_json()), to);
        };
        check(json!({"a": "1", "b": ["x", "y", "z"]}), json!({"a": "1", "b": ["x", "y", "z"]}));
        check(json!({"n": 5, "t": true, "one": ["x"], "none": []}), json!({"n": "5", "t": "true", "one": "x"}));
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        let check = |address: &str, expected: &str| {
            let told = check_address(address).map_or_else(|error| error.message, |()| String::new());
            assert_eq!(told, expected, "{address}");
        };
        check("herder.n1", "");
        check(&"ä".repeat(100), "");
        check("", "the address is empty");
        check(&"x".repeat(201), "the address has 201 bytes; at most 200 are allowed");
        check("a\nb", "the address has control characters");
    }
}
