//! Template text → tokens, with the refusals of Go's lexer.

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Bytes from the start of the template.
    pub(crate) at: usize,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Error,
    End,
    Text,
    Left,
    Right,
    Space,
    Assign,
    Declare,
    Pipe,
    Open,
    Close,
    Char,
    CharConstant,
    Bool,
    Number,
    String,
    Raw,
    Dot,
    Field,
    Variable,
    Identifier,
    Nil,
    /// A word of the language.
    Word,
}

/// The words of the language, but `nil`.
const WORDS: &[&str] = &["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

impl Token {
    /// Returns the token in the form of refusals.
    pub(crate) fn told(&self) -> String {
        match self.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Error => self.text.clone(),
            Kind::Word | Kind::Nil | Kind::Dot => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                format!("{}...", crate::print::quote(&self.text.chars().take(10).collect::<String>()))
            }
            _ => crate::print::quote(&self.text),
        }
    }
}

/// Cuts a text into tokens; the last one is the end or an error.
pub(crate) fn lex(text: &str, left: &str, right: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, left, right, parens: 0, tokens: Vec::new() };
    let end = match lexer.run() {
        Ok(()) => Token { kind: Kind::End, at: text.len(), text: String::new() },
        Err((at, why)) => Token { kind: Kind::Error, at, text: why },
    };
    lexer.tokens.push(end);
    lexer.tokens
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    left: &'t str,
    right: &'t str,
    parens: usize,
    tokens: Vec<Token>,
}

type Lexed<T> = Result<T, (usize, String)>;

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Returns whether a left delimiter has a trim marker.
fn trims_left(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space))
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind, from: usize) {
        self.tokens.push(Token { kind, at: from, text: self.text[from..self.at].to_owned() });
    }

    /// The length of a right delimiter here with its dash, and whether it has one.
    fn at_right(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        let trimmed = rest.strip_prefix(is_space).and_then(|rest| rest.strip_prefix('-'));
        if trimmed.is_some_and(|rest| rest.starts_with(self.right)) {
            return Some((2 + self.right.len(), true));
        }
        rest.starts_with(self.right).then_some((self.right.len(), false))
    }

    fn run(&mut self) -> Lexed<()> {
        loop {
            let rest = self.rest();
            let from = self.at;
            let Some(plain) = rest.find(self.left) else {
                self.at = self.text.len();
                if !rest.is_empty() {
                    self.push(Kind::Text, from);
                }
                return Ok(());
            };
            let behind = &rest[plain + self.left.len()..];
            let trims = trims_left(behind);
            let kept = if trims { rest[..plain].trim_end_matches(is_space).len() } else { plain };
            self.at += kept;
            if kept > 0 {
                self.push(Kind::Text, from);
            }
            self.at = from + plain;
            let marker = if trims { 2 } else { 0 };
            if behind[marker..].starts_with("/*") {
                self.at += self.left.len() + marker;
                self.comment()?;
                continue;
            }
            let from = self.at;
            self.at += self.left.len();
            self.push(Kind::Left, from);
            self.at += marker;
            self.parens = 0;
            self.action()?;
        }
    }

    fn comment(&mut self) -> Lexed<()> {
        let from = self.at;
        let end = self.rest()[2..].find("*/").ok_or_else(|| (from, "unclosed comment".to_owned()))?;
        self.at += end + 4;
        let closing = self.at_right().ok_or_else(|| (from, "comment ends before closing delimiter".to_owned()))?;
        self.close(closing);
        Ok(())
    }

    /// Steps over a right delimiter and what it trims.
    fn close(&mut self, (length, trims): (usize, bool)) {
        self.at += length;
        if trims {
            self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
        }
    }

    /// Lexes an action from behind its left delimiter to behind the right one.
    fn action(&mut self) -> Lexed<()> {
        loop {
            if let Some(closing) = self.at_right() {
                if self.parens > 0 {
                    return Err((self.at, "unclosed left paren".to_owned()));
                }
                let from = self.at + closing.0 - self.right.len();
                self.at += closing.0;
                self.push(Kind::Right, from);
                self.at -= closing.0;
                self.close(closing);
                return Ok(());
            }
            self.token()?;
        }
    }

    fn token(&mut self) -> Lexed<()> {
        let (from, rest) = (self.at, self.rest());
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { return Err((from, "unclosed action".to_owned())) };
        let second = chars.next();
        let one = |lexer: &mut Lexer<'_>, kind: Kind, length: usize| {
            lexer.at += length;
            lexer.push(kind, from);
            Ok(())
        };
        match c {
            c if is_space(c) => {
                // The last space before a dash belongs to the delimiter.
                while self.rest().starts_with(is_space) && self.at_right().is_none() {
                    self.at += 1;
                }
                self.push(Kind::Space, from);
                Ok(())
            }
            '=' => one(self, Kind::Assign, 1),
            ':' if second == Some('=') => one(self, Kind::Declare, 2),
            ':' => Err((from, "expected :=".to_owned())),
            '|' => one(self, Kind::Pipe, 1),
            '(' => {
                self.parens += 1;
                one(self, Kind::Open, 1)
            }
            ')' if self.parens == 0 => Err((from, "unexpected right paren".to_owned())),
            ')' => {
                self.parens -= 1;
                one(self, Kind::Close, 1)
            }
            '"' => self.quoted('"', Kind::String, "unterminated quoted string"),
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant"),
            '`' => match rest[1..].find('`') {
                Some(end) => one(self, Kind::Raw, end + 2),
                None => Err((from, "unterminated raw quoted string".to_owned())),
            },
            '$' => self.name(Kind::Variable),
            '.' if !second.is_some_and(|c| c.is_ascii_digit()) => self.name(Kind::Field),
            '.' | '+' | '-' | '0'..='9' => self.number(),
            c if is_word(c) => self.identifier(),
            c if c.is_ascii() && !c.is_ascii_control() => one(self, Kind::Char, 1),
            c => Err((from, format!("unrecognized character in action: {}", code(c)))),
        }
    }

    fn quoted(&mut self, end: char, kind: Kind, why: &str) -> Lexed<()> {
        let from = self.at;
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, '\n')) | None => break,
                    Some(_) => {}
                },
                c if c == end => {
                    self.at += offset + 1;
                    self.push(kind, from);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err((from, why.to_owned()))
    }

    /// `.`, `.name`, `$`, `$name`.
    fn name(&mut self, kind: Kind) -> Lexed<()> {
        let from = self.at;
        self.at += 1;
        self.at += self.rest().find(|c| !is_word(c)).unwrap_or(self.rest().len());
        self.terminated(from)?;
        let bare = self.at == from + 1;
        self.push(if bare && kind == Kind::Field { Kind::Dot } else { kind }, from);
        Ok(())
    }

    fn identifier(&mut self) -> Lexed<()> {
        let from = self.at;
        self.at += self.rest().find(|c| !is_word(c)).unwrap_or(self.rest().len());
        self.terminated(from)?;
        let kind = match &self.text[from..self.at] {
            word if WORDS.contains(&word) => Kind::Word,
            "nil" => Kind::Nil,
            "true" | "false" => Kind::Bool,
            _ => Kind::Identifier,
        };
        self.push(kind, from);
        Ok(())
    }

    /// Names stand apart from what follows.
    fn terminated(&self, from: usize) -> Lexed<()> {
        let rest = self.rest();
        match rest.chars().next() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => Ok(()),
            Some(c) if is_space(c) || rest.starts_with(self.right) => Ok(()),
            Some(c) => Err((from, format!("bad character {}", code(c)))),
        }
    }

    fn number(&mut self) -> Lexed<()> {
        let from = self.at;
        let accept = |lexer: &mut Lexer<'_>, set: &str| {
            let there = lexer.rest().starts_with(|c| set.contains(c));
            lexer.at += usize::from(there);
            there
        };
        let run = |lexer: &mut Lexer<'_>, set: &str| while accept(lexer, set) {};
        accept(self, "+-");
        let mut digits = "0123456789_";
        if accept(self, "0") {
            digits = if accept(self, "xX") {
                "0123456789abcdefABCDEF_"
            } else if accept(self, "oO") {
                "01234567_"
            } else if accept(self, "bB") {
                "01_"
            } else {
                digits
            };
        }
        run(self, digits);
        if accept(self, ".") {
            run(self, digits);
        }
        if digits.len() == 11 && accept(self, "eE") {
            accept(self, "+-");
            run(self, "0123456789_");
        }
        let next = self.rest().chars().next();
        if let Some(c) = next.filter(|c| is_word(*c) || matches!(c, '+' | '-')) {
            self.at += c.len_utf8();
            return Err((from, format!("bad number syntax: {}", crate::print::quote(&self.text[from..self.at]))));
        }
        self.push(Kind::Number, from);
        Ok(())
    }
}

/// `U+0041 'A'`, as Go's `%#U` writes a character.
fn code(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}
