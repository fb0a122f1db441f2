//! The syntax of rules: calls of matchers with `&&`, `||`, `!` and parentheses.

/// Rules are labels, and written by hand.
const RULE_BYTES_MAX: usize = 16 * 1024;
/// Parentheses and negations inside of each other.
const DEPTH_MAX: usize = 64;

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Call(Call),
}

/// `Name(`argument`, …)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub name: String,
    pub arguments: Vec<String>,
}

/// Reason why a text cannot be parsed as a rule. Places are counted in letters, from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    #[error("the rule is empty")]
    Empty,
    #[error("the rule has {0} bytes; at most {RULE_BYTES_MAX} are read")]
    TooLong(usize),
    #[error("parentheses and `!` are nested deeper than {DEPTH_MAX} times")]
    TooDeep,
    #[error("letter {at}: expected {wanted}, found {found}")]
    Unexpected { at: usize, wanted: &'static str, found: String },
}

/// Reads a rule.
///
/// # Errors
///
/// Returns the first place that cannot be read.
pub(super) fn parse(text: &str) -> Result<Expression, SyntaxError> {
    if text.trim().is_empty() {
        return Err(SyntaxError::Empty);
    }
    if text.len() > RULE_BYTES_MAX {
        return Err(SyntaxError::TooLong(text.len()));
    }
    let mut reader = Reader { text, at: 0, depth: 0 };
    let expression = reader.any()?;
    match reader.peek() {
        None => Ok(expression),
        Some(_) => Err(reader.unexpected("&&, || or the end of the rule")),
    }
}

struct Reader<'t> {
    text: &'t str,
    /// Byte that is read next.
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next letter that is no space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        self.peek();
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn unexpected(&mut self, wanted: &'static str) -> SyntaxError {
        let found = self.peek().map_or_else(|| "the end of the rule".to_owned(), |it| format!("`{it}`"));
        let at = self.text.get(..self.at).unwrap_or_default().chars().count() + 1;
        SyntaxError::Unexpected { at, wanted, found }
    }

    fn any(&mut self) -> Result<Expression, SyntaxError> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Or(parts) })
    }

    fn all(&mut self) -> Result<Expression, SyntaxError> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::And(parts) })
    }

    fn one(&mut self) -> Result<Expression, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(SyntaxError::TooDeep);
        }
        let expression = if self.take("!") {
            Expression::Not(Box::new(self.one()?))
        } else if self.take("(") {
            let inner = self.any()?;
            if !self.take(")") {
                return Err(self.unexpected("&&, || or )"));
            }
            inner
        } else {
            Expression::Call(self.call()?)
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn call(&mut self) -> Result<Call, SyntaxError> {
        self.peek();
        let rest = self.rest();
        let length = rest.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = rest[..length].to_owned();
        if name.is_empty() {
            return Err(self.unexpected("a matcher such as Host(`example.com`)"));
        }
        self.at += length;
        if !self.take("(") {
            return Err(self.unexpected("( after the name of a matcher"));
        }
        let mut arguments = Vec::new();
        if self.take(")") {
            return Ok(Call { name, arguments });
        }
        loop {
            arguments.push(self.text()?);
            if self.take(")") {
                return Ok(Call { name, arguments });
            }
            if !self.take(",") {
                return Err(self.unexpected(", or )"));
            }
        }
    }

    /// A text in backticks, as it is, or in quotes, with the escapes of Go's strings.
    fn text(&mut self) -> Result<String, SyntaxError> {
        match self.peek() {
            Some('`') => {
                let inner = &self.rest()[1..];
                let Some(end) = inner.find('`') else {
                    self.at = self.text.len();
                    return Err(self.unexpected("a closing backtick"));
                };
                let text = inner[..end].to_owned();
                self.at += end + 2;
                Ok(text)
            }
            Some('"') => self.quoted(),
            _ => Err(self.unexpected("a text in backticks or quotes")),
        }
    }

    fn quoted(&mut self) -> Result<String, SyntaxError> {
        let mut text = String::new();
        let inner = self.rest()[1..].to_owned();
        let mut letters = inner.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.at += at + 2;
                    return Ok(text);
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, it @ ('"' | '\\' | '\''))) => text.push(it),
                    _ => {
                        self.at += at + 1;
                        return Err(self.unexpected(r#"one of the escapes \\, \", \n, \t"#));
                    }
                },
                _ => text.push(letter),
            }
        }
        self.at = self.text.len();
        Err(self.unexpected("a closing quote"))
    }
}
