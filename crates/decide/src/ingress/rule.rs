//! Rules of routes: Traefik's language, read and held against requests and connections.
//!
//! Version 3 is read as its documentation says. A rule of version 2 is one that says so (`ruleSyntax=v2`) or has its shape:
//! several arguments, `HostHeader`, `Headers`, `Query` with `key=value`, or `{name:regex}`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use super::syntax::{self, Call, Expression};

/// Bytes of compiled program that one expression of a rule may have.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A rule that can be held against requests.
#[derive(Clone, Debug)]
pub enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    Matches(Matcher),
}

/// One condition.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// Matches a host in lower case. `*` is any host, `*.x` any host with one label before `x`.
    Host(String),
    HostRegexp(Regex),
    Path(String),
    PathPrefix(String),
    PathRegexp(Regex),
    /// Matches a method in upper case.
    Method(String),
    /// Name in lower case, value.
    Header(String, String),
    HeaderRegexp(String, Regex),
    Query(String, String),
    /// The parameter is there, with any value.
    QueryKey(String),
    QueryRegexp(String, Regex),
    ClientIp(IpNet),
    Sni(String),
    SniRegexp(Regex),
    Alpn(String),
}

/// The kind of router that a rule belongs to: the matchers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Http,
    Tcp,
}

/// Reason why a text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("{0}")]
    Syntax(#[from] syntax::SyntaxError),
    #[error("{0} is no matcher; there are {1}")]
    Unknown(String, &'static str),
    #[error("{name} takes {wanted}, and has {found}")]
    Arguments { name: String, wanted: &'static str, found: usize },
    #[error("{name}: {value:?} {problem}")]
    Value { name: String, value: String, problem: String },
}

/// A request or connection that rules are held against. Host names are in lower case and without a port.
pub trait Subject {
    fn host(&self) -> &str;
    fn path(&self) -> &str;
    fn method(&self) -> &str;
    /// True, if a header of this name (in lower case) has a value that fits.
    fn header(&self, name: &str, fits: &dyn Fn(&str) -> bool) -> bool;
    /// True, if the query has a parameter of this name with a value that fits.
    fn query(&self, name: &str, fits: &dyn Fn(&str) -> bool) -> bool;
    fn client(&self) -> IpAddr;
    /// The name in the TLS greeting, in lower case; empty, if there is none.
    fn sni(&self) -> &str;
    fn alpn(&self, name: &str) -> bool;
}

impl Rule {
    /// Reads a rule. `old` reads it as version 2 whatever its shape.
    ///
    /// # Errors
    ///
    /// Returns what is wrong, and where.
    pub fn parse(text: &str, scope: Scope, old: bool) -> Result<Rule, RuleError> {
        let expression = syntax::parse(text)?;
        let old = old || is_old(&expression);
        build(&expression, scope, old)
    }

    /// Returns whether the rule matches a request.
    pub fn holds(&self, subject: &dyn Subject) -> bool {
        match self {
            Rule::All(rules) => rules.iter().all(|it| it.holds(subject)),
            Rule::Any(rules) => rules.iter().any(|it| it.holds(subject)),
            Rule::Not(rule) => !rule.holds(subject),
            Rule::Matches(matcher) => matcher.holds(subject),
        }
    }

    /// The hosts without which the rule cannot hold. None: it may hold for any host.
    pub fn needed_hosts(&self) -> Option<BTreeSet<String>> {
        match self {
            Rule::Matches(Matcher::Host(host) | Matcher::Sni(host)) if !host.contains('*') => {
                Some([host.clone()].into())
            }
            Rule::Matches(_) | Rule::Not(_) => None,
            Rule::All(rules) => rules.iter().filter_map(Rule::needed_hosts).min_by_key(BTreeSet::len),
            Rule::Any(rules) => rules.iter().map(Rule::needed_hosts).try_fold(BTreeSet::new(), |mut all, hosts| {
                all.extend(hosts?);
                Some(all)
            }),
        }
    }

    /// Names that a certificate for this route must have: the hosts that the rule asks for and does not exclude.
    pub fn hosts(&self) -> BTreeSet<String> {
        match self {
            Rule::Matches(Matcher::Host(host) | Matcher::Sni(host)) if host != "*" => [host.clone()].into(),
            Rule::Matches(_) | Rule::Not(_) => BTreeSet::new(),
            Rule::All(rules) | Rule::Any(rules) => rules.iter().flat_map(Rule::hosts).collect(),
        }
    }
}

impl Matcher {
    fn holds(&self, subject: &dyn Subject) -> bool {
        match self {
            Matcher::Host(pattern) => host_fits(pattern, subject.host()),
            Matcher::HostRegexp(regex) => regex.is_match(subject.host()),
            Matcher::Path(path) => subject.path() == path,
            Matcher::PathPrefix(prefix) => subject.path().starts_with(prefix.as_str()),
            Matcher::PathRegexp(regex) => regex.is_match(subject.path()),
            Matcher::Method(method) => subject.method() == method,
            Matcher::Header(name, value) => subject.header(name, &|it| it == value),
            Matcher::HeaderRegexp(name, regex) => subject.header(name, &|it| regex.is_match(it)),
            Matcher::Query(name, value) => subject.query(name, &|it| it == value),
            Matcher::QueryKey(name) => subject.query(name, &|_| true),
            Matcher::QueryRegexp(name, regex) => subject.query(name, &|it| regex.is_match(it)),
            Matcher::ClientIp(net) => net.contains(&subject.client()),
            Matcher::Sni(pattern) => host_fits(pattern, subject.sni()),
            Matcher::SniRegexp(regex) => regex.is_match(subject.sni()),
            Matcher::Alpn(name) => subject.alpn(name),
        }
    }
}

/// Returns whether a host matches `*`, `*.x` or a name.
pub fn host_fits(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if pattern == "*" {
        return true;
    }
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == parent),
        None => pattern == host,
    }
}

/// Returns whether an expression has a form that only version 2 has.
fn is_old(expression: &Expression) -> bool {
    match expression {
        Expression::And(parts) | Expression::Or(parts) => parts.iter().any(is_old),
        Expression::Not(part) => is_old(part),
        Expression::Call(call) => {
            let name = call.name.to_ascii_lowercase();
            let several = call.arguments.len() > 1;
            match name.as_str() {
                "host" | "method" | "clientip" | "hostsni" | "alpn" => several,
                "path" | "pathprefix" => several || call.arguments.iter().any(|it| it.contains('{')),
                "hostregexp" | "hostsniregexp" => several || call.arguments.iter().any(|it| is_template(it)),
                "query" => several && call.arguments.iter().all(|it| it.contains('=')) || is_pair(call),
                "hostheader" | "headers" | "headersregexp" => true,
                _ => false,
            }
        }
    }
}

/// `{name:regex}` or `{name}`, and no repetition such as `a{2,3}`.
fn is_template(text: &str) -> bool {
    let names = text.match_indices('{').filter_map(|(at, _)| text.get(at + 1..)?.chars().next());
    names.into_iter().any(char::is_alphabetic)
}

fn is_pair(call: &Call) -> bool {
    matches!(&call.arguments[..], [one] if one.contains('='))
}

fn build(expression: &Expression, scope: Scope, old: bool) -> Result<Rule, RuleError> {
    let all = |parts: &[Expression]| parts.iter().map(|it| build(it, scope, old)).collect::<Result<Vec<_>, _>>();
    Ok(match expression {
        Expression::And(parts) => Rule::All(all(parts)?),
        Expression::Or(parts) => Rule::Any(all(parts)?),
        Expression::Not(part) => Rule::Not(Box::new(build(part, scope, old)?)),
        Expression::Call(call) => match (scope, old) {
            (Scope::Http, false) => Rule::Matches(http(call)?),
            (Scope::Http, true) => old_http(call)?,
            (Scope::Tcp, _) => tcp(call, old)?,
        },
    })
}

const HTTP_MATCHERS: &str = "Host, HostRegexp, Path, PathPrefix, PathRegexp, Method, Header, HeaderRegexp, Query, \
                             QueryRegexp, ClientIP";
const OLD_MATCHERS: &str =
    "Host, HostHeader, HostRegexp, Path, PathPrefix, Method, Headers, HeadersRegexp, Query, ClientIP";
const TCP_MATCHERS: &str = "HostSNI, HostSNIRegexp, ClientIP, ALPN";

fn http(call: &Call) -> Result<Matcher, RuleError> {
    let name = call.name.to_ascii_lowercase();
    Ok(match name.as_str() {
        "host" => Matcher::Host(host(call, one(call)?)?),
        "hostregexp" => Matcher::HostRegexp(regex(call, ascii(call, one(call)?)?)?),
        "path" => Matcher::Path(path(call, one(call)?)?.to_owned()),
        "pathprefix" => Matcher::PathPrefix(path(call, one(call)?)?.to_owned()),
        "pathregexp" => Matcher::PathRegexp(regex(call, one(call)?)?),
        "method" => Matcher::Method(one(call)?.to_ascii_uppercase()),
        "header" => two(call).map(|(key, value)| Matcher::Header(key.to_ascii_lowercase(), value.to_owned()))?,
        "headerregexp" => {
            let (key, value) = two(call)?;
            Matcher::HeaderRegexp(key.to_ascii_lowercase(), regex(call, value)?)
        }
        "query" => match &call.arguments[..] {
            // A parameter without a value is one with an empty value.
            [key] => Matcher::Query(key.clone(), String::new()),
            [key, value] => Matcher::Query(key.clone(), value.clone()),
            _ => return Err(arguments(call, "one or two arguments")),
        },
        "queryregexp" => {
            let (key, value) = two(call)?;
            Matcher::QueryRegexp(key.to_owned(), regex(call, value)?)
        }
        "clientip" => Matcher::ClientIp(net(call, one(call)?)?),
        _ => return Err(RuleError::Unknown(call.name.clone(), HTTP_MATCHERS)),
    })
}

/// Matchers of version 2 take several arguments, of which one must fit, but for `Query`: of that all must.
fn old_http(call: &Call) -> Result<Rule, RuleError> {
    let name = call.name.to_ascii_lowercase();
    let any = |matcher: &dyn Fn(&str) -> Result<Matcher, RuleError>| {
        let matchers = call.arguments.iter().map(|it| matcher(it).map(Rule::Matches)).collect::<Result<Vec<_>, _>>()?;
        if matchers.is_empty() { Err(arguments(call, "at least one argument")) } else { Ok(flat(Rule::Any, matchers)) }
    };
    match name.as_str() {
        "host" | "hostheader" => any(&|it| host(call, it).map(Matcher::Host)),
        "hostregexp" => any(&|it| Ok(Matcher::HostRegexp(regex(call, &template(call, it, r"[^.]+", "^", "$")?)?))),
        "path" => any(&|it| {
            Ok(match path(call, it)?.contains('{') {
                true => Matcher::PathRegexp(regex(call, &template(call, it, "[^/]+", "^", "$")?)?),
                false => Matcher::Path(it.to_owned()),
            })
        }),
        "pathprefix" => any(&|it| {
            Ok(match path(call, it)?.contains('{') {
                true => Matcher::PathRegexp(regex(call, &template(call, it, "[^/]+", "^", "")?)?),
                false => Matcher::PathPrefix(it.to_owned()),
            })
        }),
        "method" => any(&|it| Ok(Matcher::Method(it.to_ascii_uppercase()))),
        "clientip" => any(&|it| net(call, it).map(Matcher::ClientIp)),
        "headers" => two(call).map(|(key, it)| Rule::Matches(Matcher::Header(key.to_ascii_lowercase(), it.to_owned()))),
        "headersregexp" => {
            let (key, value) = two(call)?;
            Ok(Rule::Matches(Matcher::HeaderRegexp(key.to_ascii_lowercase(), regex(call, value)?)))
        }
        "query" => {
            let matchers = call.arguments.iter().map(|it| match it.split_once('=') {
                Some((key, value)) => Rule::Matches(Matcher::Query(key.to_owned(), value.to_owned())),
                None => Rule::Matches(Matcher::QueryKey(it.clone())),
            });
            let matchers: Vec<Rule> = matchers.collect();
            if matchers.is_empty() {
                Err(arguments(call, "at least one argument"))
            } else {
                Ok(flat(Rule::All, matchers))
            }
        }
        _ => Err(RuleError::Unknown(call.name.clone(), OLD_MATCHERS)),
    }
}

fn tcp(call: &Call, old: bool) -> Result<Rule, RuleError> {
    let name = call.name.to_ascii_lowercase();
    if !old && call.arguments.len() != 1 {
        return Err(arguments(call, "one argument"));
    }
    let matcher = |it: &str| {
        Ok(Rule::Matches(match name.as_str() {
            "hostsni" => Matcher::Sni(host(call, it)?),
            "hostsniregexp" if is_template(it) => {
                Matcher::SniRegexp(regex(call, &template(call, it, "[^.]+", "^", "$")?)?)
            }
            "hostsniregexp" => Matcher::SniRegexp(regex(call, it)?),
            "clientip" => Matcher::ClientIp(net(call, it)?),
            "alpn" => Matcher::Alpn(it.to_owned()),
            _ => return Err(RuleError::Unknown(call.name.clone(), TCP_MATCHERS)),
        }))
    };
    let rules = call.arguments.iter().map(|it| matcher(it)).collect::<Result<Vec<_>, _>>()?;
    if rules.is_empty() { Err(arguments(call, "at least one argument")) } else { Ok(flat(Rule::Any, rules)) }
}

fn flat(of: fn(Vec<Rule>) -> Rule, mut rules: Vec<Rule>) -> Rule {
    match rules.len() {
        1 => rules.remove(0),
        _ => of(rules),
    }
}

fn one(call: &Call) -> Result<&str, RuleError> {
    match &call.arguments[..] {
        [one] => Ok(one),
        _ => Err(arguments(call, "one argument")),
    }
}

fn two(call: &Call) -> Result<(&str, &str), RuleError> {
    match &call.arguments[..] {
        [one, two] => Ok((one, two)),
        _ => Err(arguments(call, "two arguments")),
    }
}

fn arguments(call: &Call, wanted: &'static str) -> RuleError {
    RuleError::Arguments { name: call.name.clone(), wanted, found: call.arguments.len() }
}

fn wrong(call: &Call, value: &str, problem: impl Into<String>) -> RuleError {
    RuleError::Value { name: call.name.clone(), value: value.to_owned(), problem: problem.into() }
}

fn ascii<'t>(call: &Call, text: &'t str) -> Result<&'t str, RuleError> {
    if text.is_ascii() {
        return Ok(text);
    }
    Err(wrong(call, text, "has letters that are not ASCII: write the name in its punycode form"))
}

fn host(call: &Call, text: &str) -> Result<String, RuleError> {
    let host = ascii(call, text)?.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if host.is_empty() {
        return Err(wrong(call, text, "is no host"));
    }
    let rest = host.strip_prefix("*.").unwrap_or(if host == "*" { "" } else { host });
    if rest.contains('*') || host == "*." {
        return Err(wrong(call, text, "may have `*` only alone, or as its first label"));
    }
    if host.contains(['/', ':', ' ']) && host.parse::<IpAddr>().is_err() {
        return Err(wrong(call, text, "is no host: leave out scheme, port and path"));
    }
    Ok(host.to_owned())
}

fn path<'t>(call: &Call, text: &'t str) -> Result<&'t str, RuleError> {
    if text.starts_with('/') { Ok(text) } else { Err(wrong(call, text, "does not begin with /")) }
}

fn net(call: &Call, text: &str) -> Result<IpNet, RuleError> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.ok_or_else(|| wrong(call, text, "is no address and no CIDR"))
}

fn regex(call: &Call, text: &str) -> Result<Regex, RuleError> {
    let built = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| wrong(call, text, format!("is no regular expression: {}", short(&error))))
}

/// The last line of an error of the crate says what is wrong; the ones before draw where.
fn short(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

/// Turns `{name:regex}` of version 2 into a regular expression. A part without one fits `default`.
fn template(call: &Call, text: &str, default: &str, start: &str, end: &str) -> Result<String, RuleError> {
    let mut out = format!("{start}(?:");
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out += &regex::escape(&rest[..at]);
        let inner = &rest[at + 1..];
        let close = closing(inner).ok_or_else(|| wrong(call, text, "has a { without its }"))?;
        let part = inner[..close].split_once(':').map_or(default, |(_, regex)| regex);
        out += &format!("(?:{part})");
        rest = &inner[close + 1..];
    }
    out += &regex::escape(rest);
    out += ")";
    out += end;
    Ok(out)
}

/// Finds the end of the brace that is open before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
