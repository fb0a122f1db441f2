//! The tree of a template. It writes itself as Go does, since errors quote it.

use std::fmt;

/// A part of a template.
#[derive(Debug)]
pub(crate) enum Node {
    Text(String),
    Action(Pipe),
    /// `if`, or `with`, which also sets the dot.
    Condition {
        with: bool,
        pipe: Pipe,
        then: Vec<Node>,
        other: Vec<Node>,
    },
    Range {
        pipe: Pipe,
        each: Vec<Node>,
        none: Vec<Node>,
    },
    Call(Call),
    Break,
    Continue,
}

/// `{{template "name" pipe}}`.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) at: usize,
    pub(crate) name: String,
    pub(crate) pipe: Option<Pipe>,
}

/// Commands of which each gets what the one before it gave, as its last argument.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) at: usize,
    /// Variables that the result of the pipeline is assigned to.
    pub(crate) declared: Vec<String>,
    /// True if the variables exist already.
    pub(crate) assigns: bool,
    pub(crate) commands: Vec<Command>,
}

/// A value, or a function with its arguments. Never empty.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) at: usize,
    pub(crate) words: Vec<Word>,
}

/// One operand.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) at: usize,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Dot,
    Nil,
    Bool(bool),
    Text { quoted: String, text: String },
    Number(Number),
    Field(Vec<String>),
    Variable { name: String, fields: Vec<String> },
    Function(String),
    Chain { of: Box<Word>, fields: Vec<String> },
    Group(Pipe),
}

/// A number as it is written, and what it can be.
#[derive(Debug)]
pub(crate) struct Number {
    pub(crate) text: String,
    pub(crate) int: Option<i64>,
    pub(crate) float: Option<f64>,
    /// A float where nothing else is wanted.
    pub(crate) is_float: bool,
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.declared.is_empty() {
            write!(f, "{} {} ", self.declared.join(", "), if self.assigns { "=" } else { ":=" })?;
        }
        for (at, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if at > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.words.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            match &word.what {
                What::Group(pipe) => write!(f, "{space}({pipe})")?,
                _ => write!(f, "{space}{word}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dotted =
            |f: &mut fmt::Formatter<'_>, fields: &[String]| fields.iter().try_for_each(|field| write!(f, ".{field}"));
        match &self.what {
            What::Dot => f.write_str("."),
            What::Nil => f.write_str("nil"),
            What::Bool(bool) => bool.fmt(f),
            What::Text { quoted, .. } => f.write_str(quoted),
            What::Number(number) => f.write_str(&number.text),
            What::Field(fields) => dotted(f, fields),
            What::Variable { name, fields } => {
                f.write_str(name)?;
                dotted(f, fields)
            }
            What::Function(name) => f.write_str(name),
            What::Chain { of, fields } => {
                match &of.what {
                    What::Group(pipe) => write!(f, "({pipe})")?,
                    _ => of.fmt(f)?,
                }
                dotted(f, fields)
            }
            What::Group(pipe) => pipe.fmt(f),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", crate::print::quote(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}
