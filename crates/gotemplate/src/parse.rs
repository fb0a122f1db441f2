//! Tokens → trees. The order of looking and the refusals are those of Go's text/template.

use std::collections::BTreeMap;

use crate::lex::{Kind, Token, lex};
use crate::literal;
use crate::node::{Call, Command, Node, Pipe, What, Word};

/// Maximum depth of groups and blocks; each level takes room on the stack.
const DEPTH_MAX: usize = 100;

/// Refuses a text: which byte of it, and why.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) at: usize,
    pub(crate) text: String,
}

type Parsed<T> = Result<T, Wrong>;

/// All templates of one text by name; the text itself has the empty name.
pub(crate) type Trees = BTreeMap<String, Vec<Node>>;

/// Parses a text. `known` says which functions there are.
pub(crate) fn parse(text: &str, left: &str, right: &str, known: &dyn Fn(&str) -> bool) -> Parsed<Trees> {
    let tokens = lex(text, left, right);
    let mut parser = Parser {
        tokens,
        next: 0,
        seen: 0,
        known,
        variables: vec!["$".into()],
        ranges: 0,
        depth: 0,
        trees: Trees::new(),
    };
    let mut root = Vec::new();
    loop {
        let kind = parser.peek().kind;
        match kind {
            Kind::End => break,
            Kind::Left if parser.second_word() == Some("define") => parser.define()?,
            _ => match parser.part()? {
                Part::Node(node) => root.extend(node),
                ended => return Err(parser.wrong(format!("unexpected {}", ended.told()))),
            },
        }
    }
    parser.trees.insert(String::new(), root);
    for call in &parser.calls_of_all() {
        if !parser.trees.contains_key(&call.1) {
            return Err(Wrong { at: call.0, text: format!("template {} not defined", crate::print::quote(&call.1)) });
        }
    }
    Ok(parser.trees)
}

struct Parser<'k> {
    tokens: Vec<Token>,
    next: usize,
    /// The last token that was looked at; errors name its line.
    seen: usize,
    known: &'k dyn Fn(&str) -> bool,
    variables: Vec<String>,
    ranges: usize,
    depth: usize,
    trees: Trees,
}

/// A part of a list of nodes, or what ends it.
enum Part {
    /// A node; `None` for a `{{define}}`, which leaves nothing.
    Node(Option<Node>),
    End,
    Else,
}

impl Part {
    fn told(&self) -> &'static str {
        match self {
            Part::Else => "{{else}}",
            _ => "{{end}}",
        }
    }
}

impl Parser<'_> {
    fn wrong(&self, text: impl Into<String>) -> Wrong {
        Wrong { at: self.tokens[self.seen].at, text: text.into() }
    }

    fn unexpected(&self, token: &Token, place: &str) -> Wrong {
        if token.kind == Kind::Error {
            return Wrong { at: token.at, text: token.text.clone() };
        }
        self.wrong(format!("unexpected {} in {place}", token.told()))
    }

    fn peek(&mut self) -> &Token {
        self.seen = self.next;
        &self.tokens[self.next]
    }

    fn take(&mut self) -> Token {
        self.seen = self.next;
        let token = self.tokens[self.next].clone();
        // The last token stays: there is nothing behind the end.
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn back(&mut self, to: usize) {
        self.next = to;
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.take();
        }
    }

    fn peek_word(&mut self) -> &Token {
        self.skip_space();
        self.peek()
    }

    fn take_word(&mut self) -> Token {
        self.skip_space();
        self.take()
    }

    /// The word behind a left delimiter that is next.
    fn second_word(&self) -> Option<&str> {
        let mut behind = self.tokens[self.next + 1..].iter();
        let token = behind.find(|token| token.kind != Kind::Space)?;
        (token.kind == Kind::Word).then_some(token.text.as_str())
    }

    fn right(&mut self, place: &str) -> Parsed<()> {
        let token = self.take_word();
        if token.kind == Kind::Right { Ok(()) } else { Err(self.unexpected(&token, place)) }
    }

    fn deeper(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.wrong(format!("nested more than {DEPTH_MAX} deep"))) } else { Ok(()) }
    }

    /// Nodes up to `{{end}}` or `{{else}}`.
    fn list(&mut self) -> Parsed<(Vec<Node>, Part)> {
        let mut nodes = Vec::new();
        loop {
            if self.peek_word().kind == Kind::End {
                return Err(self.wrong("unexpected EOF"));
            }
            match self.part()? {
                Part::Node(node) => nodes.extend(node),
                ended => return Ok((nodes, ended)),
            }
        }
    }

    fn part(&mut self) -> Parsed<Part> {
        let token = self.take_word();
        match token.kind {
            Kind::Text => Ok(Part::Node(Some(Node::Text(token.text)))),
            Kind::Left => self.action(),
            _ => Err(self.unexpected(&token, "input")),
        }
    }

    fn action(&mut self) -> Parsed<Part> {
        self.skip_space();
        let start = self.next;
        let token = self.take();
        if token.kind != Kind::Word {
            self.back(start);
            return Ok(Part::Node(Some(Node::Action(self.pipe("command", Kind::Right)?))));
        }
        let node = match token.text.as_str() {
            "if" => self.condition("if")?,
            "with" => self.condition("with")?,
            "range" => self.range()?,
            "template" => self.template()?,
            "block" => self.block()?,
            "break" | "continue" => {
                self.right(&format!("{{{{{}}}}}", token.text))?;
                if self.ranges == 0 {
                    return Err(self.wrong(format!("{{{{{}}}}} outside {{{{range}}}}", token.text)));
                }
                if token.text == "break" { Node::Break } else { Node::Continue }
            }
            "end" => {
                self.right("end")?;
                return Ok(Part::End);
            }
            "else" => {
                let next = self.peek_word();
                if !(next.kind == Kind::Word && matches!(next.text.as_str(), "if" | "with")) {
                    self.right("else")?;
                }
                return Ok(Part::Else);
            }
            _ => return Err(self.unexpected(&token, "command")),
        };
        Ok(Part::Node(Some(node)))
    }

    /// Parses from behind `if` or `with`.
    fn condition(&mut self, word: &str) -> Parsed<Node> {
        self.deeper()?;
        let mark = self.variables.len();
        let pipe = self.pipe(word, Kind::Right)?;
        let (then, ended) = self.list()?;
        let mut other = Vec::new();
        if let Part::Else = ended {
            // `{{else if …}}` has one `{{end}}` with the condition before it; so has `{{else with …}}` after `with`.
            if self.peek_word().kind == Kind::Word {
                let next = self.take();
                if next.text != word {
                    return Err(self.unexpected(&next, "else"));
                }
                other.push(self.condition(word)?);
            } else {
                other = self.rest_of_else()?;
            }
        }
        self.variables.truncate(mark);
        self.depth -= 1;
        Ok(Node::Condition { with: word == "with", pipe, then, other })
    }

    fn rest_of_else(&mut self) -> Parsed<Vec<Node>> {
        match self.list()? {
            (nodes, Part::End) => Ok(nodes),
            (_, ended) => Err(self.wrong(format!("expected end; found {}", ended.told()))),
        }
    }

    fn range(&mut self) -> Parsed<Node> {
        self.deeper()?;
        let mark = self.variables.len();
        let pipe = self.pipe("range", Kind::Right)?;
        self.ranges += 1;
        let (each, ended) = self.list()?;
        self.ranges -= 1;
        let mut none = Vec::new();
        if let Part::Else = ended {
            if self.peek_word().kind == Kind::Word {
                let next = self.take();
                return Err(self.unexpected(&next, "else"));
            }
            none = self.rest_of_else()?;
        }
        self.variables.truncate(mark);
        self.depth -= 1;
        Ok(Node::Range { pipe, each, none })
    }

    fn name(&mut self, place: &str) -> Parsed<(usize, String)> {
        let token = self.take_word();
        match token.kind {
            Kind::String | Kind::Raw => Ok((token.at, self.text(&token)?)),
            _ => Err(self.unexpected(&token, place)),
        }
    }

    fn text(&self, token: &Token) -> Parsed<String> {
        literal::text(&token.text).ok_or_else(|| self.wrong("invalid syntax"))
    }

    fn template(&mut self) -> Parsed<Node> {
        const PLACE: &str = "template clause";
        let (at, name) = self.name(PLACE)?;
        self.skip_space();
        let start = self.next;
        let pipe = match self.take().kind {
            Kind::Right => None,
            _ => {
                self.back(start);
                Some(self.pipe(PLACE, Kind::Right)?)
            }
        };
        Ok(Node::Call(Call { at, name, pipe }))
    }

    fn block(&mut self) -> Parsed<Node> {
        const PLACE: &str = "block clause";
        let (at, name) = self.name(PLACE)?;
        let pipe = self.pipe(PLACE, Kind::Right)?;
        self.definition(&name, PLACE)?;
        Ok(Node::Call(Call { at, name, pipe: Some(pipe) }))
    }

    fn define(&mut self) -> Parsed<()> {
        const PLACE: &str = "define clause";
        self.take();
        self.take_word();
        let (_, name) = self.name(PLACE)?;
        self.right(PLACE)?;
        self.definition(&name, PLACE)
    }

    /// The body of a template of its own, up to its end.
    fn definition(&mut self, name: &str, place: &str) -> Parsed<()> {
        self.deeper()?;
        let variables = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (nodes, ended) = self.list()?;
        if !matches!(ended, Part::End) {
            return Err(self.wrong(format!("unexpected {} in {place}", ended.told())));
        }
        (self.variables, self.ranges) = (variables, ranges);
        self.depth -= 1;
        // An empty one is no second definition; and something takes its place.
        let empty =
            |nodes: &[Node]| nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()));
        match self.trees.get(name) {
            Some(there) if !empty(there) => {
                if empty(&nodes) {
                    return Ok(());
                }
                let name = crate::print::quote(name);
                Err(self.wrong(format!("template: multiple definition of template {name}")))
            }
            _ => {
                self.trees.insert(name.to_owned(), nodes);
                Ok(())
            }
        }
    }

    fn pipe(&mut self, place: &str, end: Kind) -> Parsed<Pipe> {
        let mut pipe = Pipe { at: self.peek_word().at, declared: Vec::new(), assigns: false, commands: Vec::new() };
        self.declarations(&mut pipe, place)?;
        loop {
            self.skip_space();
            let start = self.next;
            let token = self.take();
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::Raw
                | Kind::String
                | Kind::Variable
                | Kind::Open => {
                    self.back(start);
                    pipe.commands.push(self.command()?);
                }
                _ => return Err(self.unexpected(&token, place)),
            }
        }
        if pipe.commands.is_empty() {
            return Err(self.wrong(format!("missing value for {place}")));
        }
        for (at, command) in pipe.commands.iter().enumerate().skip(1) {
            if let What::Bool(_) | What::Dot | What::Nil | What::Number(_) | What::Text { .. } = command.words[0].what {
                return Err(self.wrong(format!("non executable command in pipeline stage {}", at + 1)));
            }
        }
        Ok(pipe)
    }

    /// `$a :=`, `$a =`, `$a, $b :=`.
    fn declarations(&mut self, pipe: &mut Pipe, place: &str) -> Parsed<()> {
        while self.peek_word().kind == Kind::Variable {
            let start = self.next;
            let variable = self.take();
            let next = self.peek_word().clone();
            match next.kind {
                Kind::Assign | Kind::Declare => {
                    pipe.assigns = next.kind == Kind::Assign;
                    self.take();
                    self.declare(pipe, variable.text);
                    return Ok(());
                }
                Kind::Char if next.text == "," => {
                    self.take();
                    self.declare(pipe, variable.text);
                    if place != "range" || pipe.declared.len() > 1 {
                        return Err(self.wrong(format!("too many declarations in {place}")));
                    }
                    if !matches!(self.peek_word().kind, Kind::Variable | Kind::Right | Kind::Close) {
                        return Err(self.wrong("range can only initialize variables"));
                    }
                }
                _ => {
                    self.back(start);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn declare(&mut self, pipe: &mut Pipe, name: String) {
        pipe.declared.push(name.clone());
        self.variables.push(name);
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut command = Command { at: self.peek_word().at, words: Vec::new() };
        loop {
            self.skip_space();
            command.words.extend(self.operand()?);
            let start = self.next;
            let token = self.take();
            match token.kind {
                Kind::Space => continue,
                Kind::Right | Kind::Close => self.back(start),
                Kind::Pipe => {}
                _ => return Err(self.unexpected(&token, "operand")),
            }
            break;
        }
        if command.words.is_empty() { Err(self.wrong("empty command")) } else { Ok(command) }
    }

    fn operand(&mut self) -> Parsed<Option<Word>> {
        let Some(word) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(word));
        }
        let at = self.peek().at;
        let mut more = Vec::new();
        while self.peek().kind == Kind::Field {
            more.push(self.take().text[1..].to_owned());
        }
        // Go counts the place of a longer field from its second dot on.
        let what = match word.what {
            What::Field(mut fields) => {
                fields.extend(more);
                What::Field(fields)
            }
            What::Variable { name, mut fields } => {
                fields.extend(more);
                What::Variable { name, fields }
            }
            What::Bool(_) | What::Text { .. } | What::Number(_) | What::Nil | What::Dot => {
                let term = crate::print::quote(&word.to_string());
                return Err(self.wrong(format!("unexpected . after term {term}")));
            }
            what => What::Chain { of: Box::new(Word { at: word.at, what }), fields: more },
        };
        Ok(Some(Word { at, what }))
    }

    fn term(&mut self) -> Parsed<Option<Word>> {
        self.skip_space();
        let start = self.next;
        let token = self.take();
        let at = token.at;
        let what = match token.kind {
            Kind::Identifier => {
                if !(self.known)(&token.text) {
                    return Err(self.wrong(format!("function {} not defined", crate::print::quote(&token.text))));
                }
                What::Function(token.text)
            }
            Kind::Dot => What::Dot,
            Kind::Nil => What::Nil,
            Kind::Variable => {
                if !self.variables.contains(&token.text) {
                    return Err(self.wrong(format!("undefined variable {}", crate::print::quote(&token.text))));
                }
                What::Variable { name: token.text, fields: Vec::new() }
            }
            Kind::Field => What::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => What::Bool(token.text == "true"),
            Kind::CharConstant | Kind::Number => {
                What::Number(literal::number(&token.text).map_err(|why| self.wrong(why))?)
            }
            Kind::Open => {
                self.deeper()?;
                let pipe = self.pipe("parenthesized pipeline", Kind::Close)?;
                self.depth -= 1;
                What::Group(pipe)
            }
            Kind::String | Kind::Raw => What::Text { text: self.text(&token)?, quoted: token.text },
            _ => {
                self.back(start);
                return Ok(None);
            }
        };
        Ok(Some(Word { at, what }))
    }

    /// Every `{{template}}`: place and name.
    fn calls_of_all(&self) -> Vec<(usize, String)> {
        fn of(nodes: &[Node], calls: &mut Vec<(usize, String)>) {
            for node in nodes {
                match node {
                    Node::Call(call) => calls.push((call.at, call.name.clone())),
                    Node::Condition { then, other, .. } => {
                        of(then, calls);
                        of(other, calls);
                    }
                    Node::Range { each, none, .. } => {
                        of(each, calls);
                        of(none, calls);
                    }
                    Node::Text(_) | Node::Action(_) | Node::Break | Node::Continue => {}
                }
            }
        }
        let mut calls = Vec::new();
        self.trees.values().for_each(|nodes| of(nodes, &mut calls));
        calls
    }
}
