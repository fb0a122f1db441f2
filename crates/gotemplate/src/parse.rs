//! Template text → tree. The words, their order and the refusals are those of Go's text/template.

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If { test: Pipe, then: Vec<Node>, other: Vec<Node> },
}

/// Commands of which each gets what the one before it gave, as its last argument.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) commands: Vec<Command>,
}

/// A value, or a function with its arguments. Never empty.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) first: Word,
    pub(super) rest: Vec<Word>,
}

impl Command {
    /// As it is written in errors.
    pub(super) fn text(&self) -> String {
        let words = std::iter::once(&self.first).chain(&self.rest);
        words.map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug)]
pub(super) struct Word {
    /// Bytes from the start of the template.
    pub(super) at: usize,
    pub(super) text: String,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Dot,
    Field(Vec<String>),
    Text(String),
    Number(i64),
    Bool(bool),
    Function(String),
    Group(Pipe),
}

/// Functions that every template knows.
const FUNCTIONS: &[&str] = &["and", "eq", "index", "join", "len", "ne", "not", "or", "print", "printf"];

/// Words of text/template that are not understood here.
const UNKNOWN_WORDS: &[&str] = &["block", "break", "continue", "define", "range", "template", "with"];

/// A template whose groups and conditions are nested deeper makes no sense; and each level takes room on the stack.
const DEPTH_MAX: usize = 32;

/// Why a text is no template, and where.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) text: String,
}

/// `more`: functions besides those that every template knows.
pub(super) fn parse(text: &str, more: &[&str]) -> Result<Vec<Node>, Wrong> {
    let mut parser = Parser { text, at: 0, more, depth: 0, trim: false };
    let (nodes, end) = parser.list()?;
    match end {
        Until::Text => Ok(nodes),
        Until::Else => Err(parser.wrong("unexpected {{else}}")),
        Until::End => Err(parser.wrong("unexpected {{end}}")),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    more: &'t [&'t str],
    depth: usize,
    /// The action before ended with a dash: white space after it does not count.
    trim: bool,
}

/// What ended a list of nodes.
enum Until {
    Text,
    Else,
    End,
}

impl<'t> Parser<'t> {
    fn wrong(&self, text: impl Into<String>) -> Wrong {
        Wrong { at: self.at, text: text.into() }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn deeper(&mut self) -> Result<(), Wrong> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.wrong(format!("nested more than {DEPTH_MAX} deep"))) } else { Ok(()) }
    }

    fn list(&mut self) -> Result<(Vec<Node>, Until), Wrong> {
        let mut nodes = Vec::new();
        loop {
            let rest = self.rest();
            let (mut plain, opens) = rest.split_once("{{").map_or((rest, false), |(plain, _)| (plain, true));
            self.at += plain.len() + if opens { 2 } else { 0 };
            if std::mem::take(&mut self.trim) {
                plain = plain.trim_start();
            }
            let mut after = self.rest().chars();
            if opens && after.next() == Some('-') && after.next().is_some_and(char::is_whitespace) {
                self.at += 1;
                plain = plain.trim_end();
            }
            if !plain.is_empty() {
                nodes.push(Node::Text(plain.to_owned()));
            }
            if !opens {
                return Ok((nodes, Until::Text));
            }
            match self.action()? {
                Action::Comment => {}
                Action::Node(node) => nodes.push(node),
                Action::End(end) => return Ok((nodes, end)),
            }
        }
    }

    /// From behind `{{` to behind `}}`, or to behind the `{{end}}` that belongs to it.
    fn action(&mut self) -> Result<Action, Wrong> {
        self.space();
        if self.rest().starts_with("/*") {
            let end = self.rest().find("*/").ok_or_else(|| self.wrong("unclosed comment"))?;
            self.at += end + 2;
            self.space();
            return if self.closes() {
                Ok(Action::Comment)
            } else {
                Err(self.wrong("comment ends before closing delimiter"))
            };
        }
        let word: &str = self.peek_name();
        match word {
            "if" => {
                self.at += word.len();
                Ok(Action::Node(self.condition()?))
            }
            "else" | "end" => {
                self.at += word.len();
                self.space();
                if word == "else" && self.peek_name() == "if" {
                    return Ok(Action::End(Until::Else));
                }
                if !self.closes() {
                    return Err(self.wrong(format!("unexpected text in {word}")));
                }
                Ok(Action::End(if word == "else" { Until::Else } else { Until::End }))
            }
            word if UNKNOWN_WORDS.contains(&word) => {
                Err(self.wrong(format!("{word:?} is not supported; conditions, fields and functions are")))
            }
            _ => {
                let pipe = self.pipe()?;
                if self.closes() { Ok(Action::Node(Node::Action(pipe))) } else { Err(self.unexpected("command")) }
            }
        }
    }

    /// From behind `if`.
    fn condition(&mut self) -> Result<Node, Wrong> {
        self.deeper()?;
        let test = self.pipe()?;
        if !self.closes() {
            return Err(self.unexpected("if"));
        }
        let (then, end) = self.list()?;
        let other = match end {
            Until::End => Vec::new(),
            // `{{else if …}}` has one `{{end}}` with the condition before it.
            Until::Else if self.peek_name() == "if" => {
                self.at += "if".len();
                vec![self.condition()?]
            }
            Until::Else => match self.list()? {
                (nodes, Until::End) => nodes,
                (_, Until::Else) => return Err(self.wrong("expected end; found {{else}}")),
                (_, Until::Text) => return Err(self.wrong("unexpected EOF")),
            },
            Until::Text => return Err(self.wrong("unexpected EOF")),
        };
        self.depth -= 1;
        Ok(Node::If { test, then, other })
    }

    fn pipe(&mut self) -> Result<Pipe, Wrong> {
        let mut commands = Vec::new();
        loop {
            let mut words = Vec::new();
            loop {
                self.space();
                let rest = self.rest();
                if rest.is_empty() {
                    return Err(self.wrong("unclosed action"));
                }
                if rest.starts_with(['|', ')']) || self.at_close().is_some() {
                    break;
                }
                words.push(self.word()?);
            }
            let mut words = words.into_iter();
            let first = words.next().ok_or_else(|| self.wrong("missing value for command"))?;
            if !commands.is_empty() && !matches!(first.what, What::Function(_) | What::Field(_) | What::Group(_)) {
                let text = format!("non executable command in pipeline stage {}", commands.len() + 1);
                return Err(self.wrong(text));
            }
            commands.push(Command { first, rest: words.collect() });
            if !self.rest().starts_with('|') {
                return Ok(Pipe { commands });
            }
            self.at += 1;
        }
    }

    fn word(&mut self) -> Result<Word, Wrong> {
        let start = self.at;
        let rest = self.rest();
        let (at, what) = match rest.chars().next().unwrap_or_default() {
            '.' => self.field(),
            '"' => (start, What::Text(self.quoted()?)),
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| self.wrong("unterminated raw quoted string"))?;
                self.at += end + 2;
                (start, What::Text(rest[1..=end].to_owned()))
            }
            '(' => {
                self.at += 1;
                self.deeper()?;
                let pipe = self.pipe()?;
                if !self.rest().starts_with(')') {
                    return Err(self.wrong("unclosed left paren"));
                }
                self.at += 1;
                self.depth -= 1;
                (start, What::Group(pipe))
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => {
                let end = rest[1..].find(|c: char| !c.is_alphanumeric()).map_or(rest.len(), |end| end + 1);
                let number =
                    rest[..end].parse().map_err(|_| self.wrong(format!("bad number syntax: {:?}", &rest[..end])))?;
                self.at += end;
                (start, What::Number(number))
            }
            c if c.is_alphabetic() || c == '_' => {
                let name = self.peek_name();
                self.at += name.len();
                let what = match name {
                    "true" | "false" => What::Bool(name == "true"),
                    _ if FUNCTIONS.contains(&name) || self.more.contains(&name) => What::Function(name.to_owned()),
                    _ => return Err(self.wrong(format!("function {name:?} not defined"))),
                };
                (start, what)
            }
            _ => return Err(self.unexpected("operand")),
        };
        // Words stand apart.
        let parted = self.rest().is_empty()
            || self.rest().starts_with(['|', ')', ' ', '\t', '\r', '\n'])
            || self.at_close().is_some();
        if !parted {
            return Err(self.unexpected("operand"));
        }
        Ok(Word { at, text: self.text[start..self.at].to_owned(), what })
    }

    /// `.`, `.a`, `.a.b`. Go counts the place of the latter from its second dot on.
    fn field(&mut self) -> (usize, What) {
        let (start, mut second, mut names) = (self.at, None, Vec::new());
        while let Some(rest) = self.rest().strip_prefix('.') {
            let name = name_of(rest);
            if name.is_empty() {
                break;
            }
            if names.len() == 1 {
                second = Some(self.at);
            }
            names.push(name.to_owned());
            self.at += 1 + name.len();
        }
        if names.is_empty() {
            self.at += 1;
            return (start, What::Dot);
        }
        (second.unwrap_or(start), What::Field(names))
    }

    fn quoted(&mut self) -> Result<String, Wrong> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(text);
                }
                '\n' => break,
                '\\' => text.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, 'r')) => '\r',
                    Some((_, c @ ('"' | '\\'))) => c,
                    _ => return Err(self.wrong("invalid syntax")),
                }),
                c => text.push(c),
            }
        }
        Err(self.wrong("unterminated quoted string"))
    }

    fn unexpected(&self, place: &str) -> Wrong {
        match self.rest().chars().next() {
            Some(c) => self.wrong(format!("unexpected {:?} in {place}", c.to_string())),
            None => self.wrong("unclosed action"),
        }
    }

    fn space(&mut self) {
        let rest = self.rest();
        // The dash of ` -}}` needs the space before it; it is looked for where the action ends.
        self.at += rest.len() - rest.trim_start().len();
    }

    /// The length of the end of an action here, and whether it trims.
    fn at_close(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        if rest.starts_with("}}") {
            return Some((2, false));
        }
        let spaced = self.text[..self.at].ends_with(char::is_whitespace);
        (spaced && rest.starts_with("-}}")).then_some((3, true))
    }

    /// Steps over the end of an action, if it is here.
    fn closes(&mut self) -> bool {
        self.space();
        let Some((length, trim)) = self.at_close() else { return false };
        self.at += length;
        self.trim = trim;
        true
    }

    fn peek_name(&self) -> &'t str {
        name_of(self.rest())
    }
}

enum Action {
    Comment,
    Node(Node),
    End(Until),
}

fn name_of(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}
