//! Rules for clients of a bridge. Pure.
//!
//! *Inbound* rules are for what clients send and publish, *outbound* ones for what they register for. An empty list allows
//! nothing. Ways back are not subject to rules: the receiver of a request may answer it, once.

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// Both lists.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub inbound: Vec<Rule>,
    pub outbound: Vec<Rule>,
}

/// One permission. Without address and expression it fits every address.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Exactly this address.
    address: Option<String>,
    /// Alternative to the address: an expression that matches all of it.
    expression: Option<Regex>,
    /// Fields, with their values, that the body must have.
    structure: Option<Value>,
}

/// Reason why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The source names line, column and key.
    #[error("the rules of the bus are not in their form")]
    Form(#[from] serde_json::Error),
    #[error("`addressRegex` of rule {number} of `{list}` is no regular expression")]
    Expression { list: &'static str, number: usize, source: Box<regex::Error> },
    #[error("`match` of rule {number} of `{list}` must be an object, not {value}")]
    Match { list: &'static str, number: usize, value: Value },
}

/// The file, in the words of Vert.x.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    inbound: Vec<Line>,
    #[serde(default)]
    outbound: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    address: Option<String>,
    #[serde(alias = "address_re", rename = "addressRegex")]
    expression: Option<String>,
    #[serde(rename = "match")]
    structure: Option<Value>,
}

impl Rules {
    /// Reads `{"inbound": […], "outbound": […]}`; each rule has `address` or `addressRegex`, and perhaps `match`.
    pub fn parse(text: &str) -> Result<Rules, RulesError> {
        let File { inbound, outbound } = serde_json::from_str(text)?;
        let read = |list, lines: Vec<Line>| {
            let rules = lines.into_iter().zip(1..).map(|(line, number)| Rule::read(line, list, number));
            rules.collect::<Result<Vec<Rule>, RulesError>>()
        };
        Ok(Rules { inbound: read("inbound", inbound)?, outbound: read("outbound", outbound)? })
    }

    /// The default: to the documented addresses of `cluster`, its nodes and containers; from the events.
    pub fn documented(cluster: &str) -> Rules {
        let nodes = format!("{}\\.[A-Za-z0-9][A-Za-z0-9_.-]*", regex::escape(cluster));
        let expression = |text: &str| Rule { expression: Regex::new(&format!("^(?:{text})$")).ok(), ..Rule::default() };
        let inbound = vec![
            Rule { address: Some(cluster.to_owned()), ..Rule::default() },
            expression(&nodes),
            expression("[0-9a-f]{64}"),
        ];
        Rules { inbound, outbound: super::EVENT_ADDRESSES.map(Rule::address).to_vec() }
    }

    /// Everything both ways. For tests, and for those who trust all their clients.
    pub fn everything() -> Rules {
        Rules { inbound: vec![Rule::default()], outbound: vec![Rule::default()] }
    }

    /// True if a client may send `body` to `address`.
    pub fn may_send(&self, address: &str, body: &Value) -> bool {
        self.inbound.iter().any(|rule| rule.fits_address(address) && rule.fits_body(body))
    }

    /// True if a client may register for `address`.
    pub fn may_register(&self, address: &str) -> bool {
        self.outbound.iter().any(|rule| rule.fits_address(address))
    }

    /// True if a client that registered for `address` may see a message with `body`.
    pub fn may_see(&self, address: &str, body: &Value) -> bool {
        self.outbound.iter().any(|rule| rule.fits_address(address) && rule.fits_body(body))
    }
}

impl Rule {
    /// Allows exactly `address`.
    pub fn address(address: &str) -> Rule {
        Rule { address: Some(address.to_owned()), ..Rule::default() }
    }

    /// `number` counts the rules of `list` from 1.
    fn read(line: Line, list: &'static str, number: usize) -> Result<Rule, RulesError> {
        // By itself first: `a)|(b` would become one that fits more than it says.
        let whole = |text: String| Regex::new(&text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        let whole = line.expression.map(whole).transpose();
        let expression = whole.map_err(|source| RulesError::Expression { list, number, source: Box::new(source) })?;
        match line.structure {
            Some(value) if !value.is_object() => Err(RulesError::Match { list, number, value }),
            structure => Ok(Rule { address: line.address, expression, structure }),
        }
    }

    fn fits_address(&self, address: &str) -> bool {
        match (&self.address, &self.expression) {
            (None, None) => true,
            (exact, expression) => {
                exact.as_deref() == Some(address) || expression.as_ref().is_some_and(|it| it.is_match(address))
            }
        }
    }

    fn fits_body(&self, body: &Value) -> bool {
        self.structure.as_ref().is_none_or(|wanted| contains(body, wanted))
    }
}

/// True if `value` has everything that `wanted` has: fields of objects, elements of arrays, else the same value.
fn contains(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(fields), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| fields.get(name).is_some_and(|value| contains(value, wanted)))
        }
        (Value::Array(values), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| values.iter().any(|value| contains(value, wanted)))
        }
        (value, wanted) => value == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each line: may it be sent, may it be registered?
    fn check(rules: &Rules, lines: &[(&str, Value, bool, bool)]) {
        for (address, body, send, register) in lines {
            let got = (rules.may_send(address, body), rules.may_register(address));
            assert_eq!(got, (*send, *register), "{address} {body}");
        }
    }

    #[test]
    fn by_default_only_documented_addresses_are_allowed() {
        let id = "0123456789abcdef".repeat(4);
        check(
            &Rules::documented("my.pool"),
            &[
                ("my.pool", json!({}), true, false),
                ("my.pool.host-1.example", json!({}), true, false),
                ("myxpool", json!({}), false, false),
                ("my.pool.", json!({}), false, false),
                ("my.pool.a\nb", json!({}), false, false),
                (&id, json!({}), true, false),
                (&id[1..], json!({}), false, false),
                ("herder.events.container", json!({}), false, true),
                ("herder.events.containers", json!({}), false, false),
                ("anything", json!({}), false, false),
            ],
        );
        check(&Rules::default(), &[("my.pool", json!({}), false, false)]);
        check(&Rules::everything(), &[("my.pool", json!({}), true, true)]);
    }

    #[test]
    fn rules_are_read_in_the_words_of_vertx() {
        let text = r#"{"inbound": [{"address": "exact"}, {"addressRegex": "a|b.c"},
            {"address": "only", "match": {"action": "list", "deep": {"x": [1]}}}], "outbound": [{}]}"#;
        let full = json!({"action": "list", "deep": {"x": [2, 1], "y": 0}, "more": 1});
        check(
            &Rules::parse(text).expect("rules"),
            &[
                ("exact", json!(1), true, true),
                ("exactly", json!(1), false, true),
                ("a", json!(1), true, true),
                ("bxc", json!(1), true, true),
                ("ab.c", json!(1), false, true),
                ("bxcd", json!(1), false, true),
                ("only", full, true, true),
                ("only", json!({"action": "list"}), false, true),
                ("only", json!("list"), false, true),
            ],
        );
    }

    #[test]
    fn rules_that_make_no_sense_are_told() {
        let check = |text: &str, expected: &str| {
            let error = Rules::parse(text).expect_err("refused");
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            let told = format!("{error}{source}");
            assert!(told.starts_with(expected), "{told}");
        };
        let form = |what: &str| format!("the rules of the bus are not in their form: {what}");
        check(
            r#"{"inbuond": []}"#,
            &form("unknown field `inbuond`, expected `inbound` or `outbound` at line 1 column 10"),
        );
        check("{\n\"inbound\": 5}", &form("invalid type: integer `5`, expected a sequence at line 2 column 12"));
        check("", &form("EOF while parsing a value at line 1 column 0"));
        let role = r#"{"inbound": [{"address": "a", "requiredAuthority": "x"}]}"#;
        check(role, &form("unknown field `requiredAuthority`, expected one of `address`, `addressRegex`"));
        let expression = r#"{"inbound": [{}, {"addressRegex": "("}]}"#;
        check(expression, "`addressRegex` of rule 2 of `inbound` is no regular expression: regex parse error");
        let halves = r#"{"outbound": [{"addressRegex": "a)|(b"}]}"#;
        check(halves, "`addressRegex` of rule 1 of `outbound` is no regular expression: regex parse error");
        check(r#"{"outbound": [{"match": 5}]}"#, "`match` of rule 1 of `outbound` must be an object, not 5");
    }
}
