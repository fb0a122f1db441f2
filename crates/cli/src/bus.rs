//! `bus`: the event bus from the command line.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::duration;
use crate::error::UsageError;
use crate::up::Door;

/// Send and receive messages on the event bus.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder bus request herder '{\"action\": \"list-containers\", \"all\": true}'
  herder bus request herder.h1 '{\"action\": \"list-images\"}' --format json
  herder bus listen                                what happens to containers and nodes
  herder bus listen herder.events.node --count 1   until the next event
  echo '{\"x\": 1}' | herder bus publish news -

What clients may reach is set by the rules of the door; by default only documented addresses.
DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH mean what they mean to Docker's client.")]
pub struct BusArgs {
    #[command(subcommand)]
    pub verb: BusVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum BusVerb {
    /// Send to one receiver, in turn; whether it arrived is not reported
    Send(Post),
    /// Send to all receivers
    Publish(Post),
    /// Send to one receiver and print its answer
    Request(Request),
    /// Print the messages to some addresses
    Listen(Listen),
}

/// A message.
#[derive(Clone, Debug, Args)]
pub struct Post {
    #[command(flatten)]
    pub door: Door,
    /// Address of the message
    pub address: String,
    /// JSON, or else a text; `-` reads it from the input
    #[arg(default_value = "null", hide_default_value = true, allow_hyphen_values = true)]
    pub body: String,
    /// Header of the message; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    pub header: Vec<(String, String)>,
}

#[derive(Clone, Debug, Args)]
pub struct Request {
    #[command(flatten)]
    pub post: Post,
    /// Maximum time to wait for the answer
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub timeout: String,
    /// Output format of the answer: its body, or all of it as JSON
    #[arg(long, default_value = "plain", value_parser = ["plain", "json"])]
    pub format: String,
}

#[derive(Clone, Debug, Args)]
pub struct Listen {
    #[command(flatten)]
    pub door: Door,
    /// Address to listen at [default: all events of herder]
    pub address: Vec<String>,
    /// End after this number of messages
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,
    /// Answer every request with this; JSON, or else a text
    #[arg(long, value_name = "BODY")]
    pub reply: Option<String>,
    /// Output format of a message: address and body, or all of it as a line of JSON
    #[arg(long, default_value = "plain", value_parser = ["plain", "json"])]
    pub format: String,
}

impl Request {
    /// Returns the maximum waiting time.
    pub fn limit(&self) -> anyhow::Result<Duration> {
        let limit = duration::parse(&self.timeout).map_err(anyhow::Error::msg)?;
        Ok(limit.positive().ok_or(UsageError::Positive("--timeout"))?)
    }
}

/// One header, taken apart.
fn header(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "expected NAME=VALUE".to_owned())
}

/// JSON if it is some, else a text.
pub fn body(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.trim_end_matches('\n').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_or_a_text() {
        for (text, expected) in
            [("{\"a\": [1]}", "{\"a\":[1]}"), ("5", "5"), ("hello\n", "\"hello\""), ("{a", "\"{a\""), ("null", "null")]
        {
            assert_eq!(body(text).to_string(), expected);
        }
    }
}
