//! Expressions of placement: `zone==a`, `node!=~node-1`, `disk==/ssd|nvme/`. Grammar of classic Swarm.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;

/// Compiled expressions may not take more than this; a user's pattern is a few words.
const REGEX_BYTES_MAX: usize = 1 << 20;

// The two patterns are literals, tested below; a build with a wrong one fails every test.
static KEY: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^(?i)[a-z_][a-z0-9\-_.]+$").ok());
static VALUE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?i)[=!/]?(~)?[a-z0-9:\-_\s\.\*/\(\)\?\+\[\]\\\^\$\|]+$").ok());

/// One condition on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    pub key: String,
    /// `==`; else `!=`.
    pub equals: bool,
    /// Without the leading `~`.
    pub value: String,
    /// True for a preference (`~`) instead of a condition.
    pub soft: bool,
}

/// Reason why a text is not an expression. The sentences are those of classic Swarm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    #[error("One of operator ==, != is expected")]
    Operator,
    #[error("Key '{0}' is invalid")]
    Key(String),
    #[error("Value '{0}' is invalid")]
    Value(String),
}

impl FromStr for Expression {
    type Err = ExprError;

    fn from_str(text: &str) -> Result<Expression, ExprError> {
        // `==` is looked for first, as in the original.
        let (equals, (key, value)) = match (text.split_once("=="), text.split_once("!=")) {
            (Some(parts), _) => (true, parts),
            (None, Some(parts)) => (false, parts),
            (None, None) => return Err(ExprError::Operator),
        };
        let is = |pattern: &LazyLock<Option<Regex>>, text: &str| pattern.as_ref().is_some_and(|it| it.is_match(text));
        if !is(&KEY, key) {
            return Err(ExprError::Key(key.to_owned()));
        }
        if !is(&VALUE, value) {
            return Err(ExprError::Value(value.to_owned()));
        }
        let (soft, value) = value.strip_prefix('~').map_or((false, value), |value| (true, value));
        Ok(Expression { key: key.to_owned(), equals, value: value.to_owned(), soft })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, soft) = (if self.equals { "==" } else { "!=" }, if self.soft { "~" } else { "" });
        write!(f, "{}{operator}{soft}{}", self.key, self.value)
    }
}

/// An expression ready to be held against many nodes.
#[derive(Debug)]
pub struct Matcher {
    equals: bool,
    pattern: Pattern,
}

#[derive(Debug)]
enum Pattern {
    Plain(String),
    Regex(Regex),
    /// A broken regex matches nothing, as in the original.
    Never,
}

impl Expression {
    /// Compiles the value. `/re/` is searched anywhere; other text with special characters is a whole-word pattern in
    /// which `*` stands for anything.
    pub fn matcher(&self) -> Matcher {
        let inner = self.value.strip_prefix('/').and_then(|value| value.strip_suffix('/')).filter(|it| !it.is_empty());
        let special = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '/' | ' '));
        let source = match inner {
            Some(regex) => regex.to_owned(),
            None if !self.value.contains(special) => {
                return Matcher { equals: self.equals, pattern: Pattern::Plain(self.value.clone()) };
            }
            None => format!("^{}$", self.value.replace('*', ".*")),
        };
        let compiled = regex::RegexBuilder::new(&source).size_limit(REGEX_BYTES_MAX).build();
        Matcher { equals: self.equals, pattern: compiled.map_or(Pattern::Never, Pattern::Regex) }
    }
}

impl Matcher {
    /// `==` holds if any candidate matches, `!=` if none does.
    pub fn holds<'c>(&self, mut candidates: impl Iterator<Item = &'c str>) -> bool {
        let any = match &self.pattern {
            Pattern::Plain(text) => candidates.any(|candidate| candidate == text),
            Pattern::Regex(regex) => candidates.any(|candidate| regex.is_match(candidate)),
            Pattern::Never => false,
        };
        any == self.equals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, candidates: &str, expected: bool) {
        let expression: Expression = text.parse().unwrap();
        assert_eq!(expression.matcher().holds(candidates.split(',')), expected, "{text} on {candidates}");
    }

    #[test]
    fn values_are_words_globs_or_regexes() {
        check("zone==a1", "a1", true);
        check("zone==a1", "a12", false);
        check("zone!=a1", "b", true);
        check("zone!=a1", "b,a1", false);
        check("node==node-*", "node-12", true);
        check("node==no.e", "node", true);
        check("node==/od/", "node", true);
        check("node==/^od/", "node", false);
        check("node==/(?i)NODE/", "node", true);
        check("node==[", "node", false);
        check("node!=[", "node", true);
        check("image==busybox:1.35", "busybox:1.35", true);
    }

    #[test]
    fn bad_expressions_are_refused_in_the_originals_words() {
        for (text, expected) in [
            ("zone=a", "One of operator ==, != is expected"),
            ("1zone==a", "Key '1zone' is invalid"),
            ("z==a", "Key 'z' is invalid"),
            ("zone==@@", "Value '@@' is invalid"),
            ("zone==", "Value '' is invalid"),
        ] {
            assert_eq!(text.parse::<Expression>().unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(text in "[a-z_][a-z0-9.]{1,8}(==|!=)~?[a-z0-9:*./-]{1,12}") {
            if let Ok(expression) = text.parse::<Expression>() {
                prop_assert_eq!(expression.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_trouble(text in ".{0,60}", candidate in ".{0,20}") {
            if let Ok(expression) = text.parse::<Expression>() {
                let _ = expression.matcher().holds([candidate.as_str()].into_iter());
            }
        }
    }
}
