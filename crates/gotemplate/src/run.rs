//! Runs a template's trees. The order of evaluation, and the place that an error names, are those of Go's text/template.

use std::fmt;

use crate::builtin;
use crate::functions::{Functions, Param, Signature};
use crate::node::{Call, Command, Node, Pipe, What, Word};
use crate::parse::Trees;
use crate::print;
use crate::value::Value;

/// Templates that call each other, blocks within blocks, groups within groups: more than this would take too much stack.
const DEPTH_MAX: usize = 200;

/// Nodes and iterations of one run; a second or so of work, and many times what a large configuration takes.
const STEPS_MAX: u64 = 2_000_000;

/// Ratio of bytes that functions may make to those that may come out.
const MADE_SHARE: usize = 16;

/// The meaning of a key that is not in a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// No value; printed as `<no value>`.
    #[default]
    None,
    Error,
}

/// Reason why a template cannot be run, with its place.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) at: usize,
    /// Text at that place.
    pub(crate) place: String,
    /// The template that it is in.
    pub(crate) template: String,
    pub(crate) text: String,
}

type Ran<T> = Result<T, Box<Failed>>;

/// The control flow after a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// Something of a tree that errors can name.
#[derive(Clone, Copy)]
enum Place<'t> {
    Word(&'t Word),
    Pipe(&'t Pipe),
    Command(&'t Command),
    Call(&'t Call),
    Start,
}

/// One run of a template.
pub(crate) struct Runner<'r> {
    pub(crate) trees: &'r Trees,
    pub(crate) functions: &'r dyn Functions,
    pub(crate) missing_key: MissingKey,
    /// More than this is no file and no name.
    pub(crate) bytes_max: usize,
    name: &'r str,
    place: Place<'r>,
    variables: Vec<(String, Value)>,
    out: String,
    depth: usize,
    steps: u64,
    made: usize,
}

impl fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'r> Runner<'r> {
    pub(crate) fn new(
        trees: &'r Trees,
        functions: &'r dyn Functions,
        missing_key: MissingKey,
        bytes_max: usize,
    ) -> Runner<'r> {
        Runner {
            trees,
            functions,
            missing_key,
            bytes_max,
            name: "",
            place: Place::Start,
            variables: Vec::new(),
            out: String::new(),
            depth: 0,
            steps: 0,
            made: 0,
        }
    }

    pub(crate) fn run(mut self, root: &Value) -> Ran<String> {
        self.variables.push(("$".to_owned(), root.clone()));
        if let Some(nodes) = self.trees.get("") {
            self.list(root, nodes)?;
        }
        Ok(self.out)
    }

    fn fail<T>(&self, text: impl Into<String>) -> Ran<T> {
        let (at, place) = match self.place {
            Place::Word(word) => (word.at, word.to_string()),
            Place::Pipe(pipe) => (pipe.at, pipe.to_string()),
            Place::Command(command) => (command.at, command.to_string()),
            Place::Call(call) => (call.at, call.to_string()),
            Place::Start => (0, "template".to_owned()),
        };
        Err(Box::new(Failed { at, place, template: self.name.to_owned(), text: text.into() }))
    }

    fn deeper(&mut self) -> Ran<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail(format!("exceeded maximum template depth ({DEPTH_MAX})"));
        }
        Ok(())
    }

    fn step(&mut self) -> Ran<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return self.fail(format!("it takes more than {STEPS_MAX} steps"));
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Ran<()> {
        if self.out.len() + text.len() > self.bytes_max {
            self.place = Place::Start;
            return self.fail(format!("more than {} bytes come out of it", self.bytes_max));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn list(&mut self, dot: &Value, nodes: &'r [Node]) -> Ran<Flow> {
        self.deeper()?;
        for node in nodes {
            self.step()?;
            let flow = self.node(dot, node)?;
            if flow != Flow::On {
                self.depth -= 1;
                return Ok(flow);
            }
        }
        self.depth -= 1;
        Ok(Flow::On)
    }

    fn node(&mut self, dot: &Value, node: &'r Node) -> Ran<Flow> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.declared.is_empty() {
                    self.write(&print::plain(&value))?;
                }
            }
            Node::Condition { with, pipe, then, other } => {
                let mark = self.variables.len();
                let value = self.pipe(dot, pipe)?;
                let flow = match (value.is_true(), with) {
                    (true, true) => self.list(&value, then)?,
                    (true, false) => self.list(dot, then)?,
                    (false, _) => self.list(dot, other)?,
                };
                self.variables.truncate(mark);
                return Ok(flow);
            }
            Node::Range { pipe, each, none } => return self.range(dot, pipe, each, none),
            Node::Call(call) => self.template(dot, call)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(&mut self, dot: &Value, pipe: &'r Pipe, each: &'r [Node], none: &'r [Node]) -> Ran<Flow> {
        let start = self.variables.len();
        let value = self.pipe(dot, pipe)?;
        let mark = self.variables.len();
        let pairs: Box<dyn Iterator<Item = (Value, Value)>> = match &value {
            Value::List(list) => Box::new(list.items.iter().cloned().enumerate().map(|(at, item)| (at.into(), item))),
            Value::Map(map) => {
                Box::new(map.entries.iter().map(|(key, value)| (Value::Text(key.clone()), value.clone())))
            }
            Value::Number(count) => Box::new((0..*count).map(|at| (Value::Number(at), Value::Number(at)))),
            Value::None => Box::new(std::iter::empty()),
            other => return self.fail(format!("range can't iterate over {}", print::plain(other))),
        };
        let mut any = false;
        for (at, item) in pairs {
            any = true;
            self.step()?;
            match pipe.declared.as_slice() {
                [] => {}
                [one] => self.set_range(pipe.assigns, mark, 1, one, item.clone())?,
                [first, second, ..] => {
                    self.set_range(pipe.assigns, mark, 2, first, at)?;
                    self.set_range(pipe.assigns, mark, 1, second, item.clone())?;
                }
            }
            let flow = self.list(&item, each)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        // A `{{break}}` in the part for nothing belongs to the range around.
        let flow = if any { Flow::On } else { self.list(dot, none)? };
        self.variables.truncate(start);
        Ok(flow)
    }

    /// Sets a variable of a range; a new one stands `before` places before `mark`.
    fn set_range(&mut self, assigns: bool, mark: usize, before: usize, name: &str, value: Value) -> Ran<()> {
        if assigns {
            return self.set(name, value);
        }
        if let Some(slot) = mark.checked_sub(before).and_then(|at| self.variables.get_mut(at)) {
            slot.1 = value;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value) -> Ran<()> {
        match self.variables.iter_mut().rev().find(|(there, _)| there == name) {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => self.fail(format!("undefined variable: {name}")),
        }
    }

    fn template(&mut self, dot: &Value, call: &'r Call) -> Ran<()> {
        self.place = Place::Call(call);
        let Some((name, nodes)) = self.trees.get_key_value(&call.name) else {
            return self.fail(format!("template {} not defined", print::quote(&call.name)));
        };
        let dot = match &call.pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::None,
        };
        let variables = std::mem::replace(&mut self.variables, vec![("$".to_owned(), dot.clone())]);
        let caller = std::mem::replace(&mut self.name, name);
        self.list(&dot, nodes)?;
        (self.variables, self.name) = (variables, caller);
        Ok(())
    }

    fn pipe(&mut self, dot: &Value, pipe: &'r Pipe) -> Ran<Value> {
        self.deeper()?;
        self.place = Place::Pipe(pipe);
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(dot, command, last)?);
        }
        self.depth -= 1;
        let value = last.unwrap_or(Value::None);
        for name in &pipe.declared {
            if pipe.assigns {
                self.set(name, value.clone())?;
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &'r Command, last: Option<Value>) -> Ran<Value> {
        let (first, rest) = (&command.words[0], &command.words[1..]);
        self.place = Place::Word(first);
        match &first.what {
            What::Field(fields) => self.fields(dot, dot, fields, first, rest, last),
            What::Chain { of, fields } => {
                let receiver = self.chain_start(dot, of, first)?;
                self.fields(dot, &receiver, fields, first, rest, last)
            }
            What::Variable { name, fields } if !fields.is_empty() => {
                let receiver = self.variable(name)?;
                self.fields(dot, &receiver, fields, first, rest, last)
            }
            What::Function(name) => self.function(dot, name, Place::Command(command), rest, last),
            _ if last.is_some() || !rest.is_empty() => {
                self.fail(format!("can't give argument to non-function {first}"))
            }
            What::Nil => self.fail("nil is not a command"),
            _ => self.value(dot, first),
        }
    }

    fn chain_start(&mut self, dot: &Value, of: &'r Word, chain: &'r Word) -> Ran<Value> {
        if matches!(of.what, What::Nil) {
            return self.fail(format!("indirection through explicit nil in {chain}"));
        }
        self.argument(dot, of, Param::Any)
    }

    fn variable(&self, name: &str) -> Ran<Value> {
        match self.variables.iter().rev().find(|(there, _)| there == name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.fail(format!("undefined variable: {name}")),
        }
    }

    /// A word on its own.
    fn value(&mut self, dot: &Value, word: &'r Word) -> Ran<Value> {
        self.place = Place::Word(word);
        match &word.what {
            What::Dot => Ok(dot.clone()),
            What::Nil => Ok(Value::None),
            What::Bool(bool) => Ok(Value::Bool(*bool)),
            What::Text { text, .. } => Ok(Value::Text(text.clone())),
            What::Number(number) => match (number.is_float, number.int, number.float) {
                (false, Some(int), _) => Ok(Value::Number(int)),
                (_, _, Some(float)) => Ok(Value::Float(float)),
                _ => self.fail(format!("{} overflows int", number.text)),
            },
            What::Field(fields) => self.fields(dot, dot, fields, word, &[], None),
            What::Variable { name, fields } => {
                let value = self.variable(name)?;
                if fields.is_empty() { Ok(value) } else { self.fields(dot, &value, fields, word, &[], None) }
            }
            What::Chain { of, fields } => {
                let receiver = self.chain_start(dot, of, word)?;
                self.fields(dot, &receiver, fields, word, &[], None)
            }
            What::Group(pipe) => self.pipe(dot, pipe),
            What::Function(name) => self.function(dot, name, Place::Word(word), &[], None),
        }
    }

    /// A word as an argument of a type.
    fn argument(&mut self, dot: &Value, word: &'r Word, param: Param) -> Ran<Value> {
        self.place = Place::Word(word);
        match (&word.what, param) {
            (What::Nil, Param::Any | Param::List | Param::Map) => return Ok(Value::None),
            (What::Nil, _) => return self.fail(format!("cannot assign nil to {}", param.told())),
            (What::Number(number), Param::Number) => {
                return match number.int {
                    Some(int) => Ok(Value::Number(int)),
                    None => self.fail(format!("expected integer; found {word}")),
                };
            }
            (What::Number(number), Param::Float) => {
                return match number.float {
                    Some(float) => Ok(Value::Float(float)),
                    None => self.fail(format!("expected float; found {word}")),
                };
            }
            (What::Text { .. }, Param::Text) | (What::Bool(_), Param::Bool) => {}
            (What::Number(_) | What::Bool(_) | What::Text { .. }, param) if param != Param::Any => {
                return match param {
                    Param::Number => self.fail(format!("expected integer; found {word}")),
                    Param::Float => self.fail(format!("expected float; found {word}")),
                    Param::List | Param::Map => {
                        self.fail(format!("can't handle {word} for arg of type {}", param.told()))
                    }
                    param => self.fail(format!("expected {}; found {word}", param.told())),
                };
            }
            _ => {}
        }
        let value = self.value(dot, word)?;
        self.fitting(value, param)
    }

    fn fitting(&self, value: Value, param: Param) -> Ran<Value> {
        match value {
            value if param.takes(&value) => Ok(value),
            Value::None => self.fail(format!("invalid value; expected {}", param.told())),
            value => self.fail(format!("wrong type for value; expected {}; got {}", param.told(), value.kind())),
        }
    }

    /// Evaluates a chain of fields; the last one may be a method with arguments.
    fn fields(
        &mut self,
        dot: &Value,
        receiver: &Value,
        fields: &'r [String],
        word: &'r Word,
        rest: &'r [Word],
        last: Option<Value>,
    ) -> Ran<Value> {
        let Some((name, before)) = fields.split_last() else { return Ok(receiver.clone()) };
        let mut receiver = receiver.clone();
        for name in before {
            receiver = self.field(dot, &receiver, name, word, &[], None)?;
        }
        self.field(dot, &receiver, name, word, rest, last)
    }

    fn field(
        &mut self,
        dot: &Value,
        receiver: &Value,
        name: &str,
        word: &'r Word,
        rest: &'r [Word],
        last: Option<Value>,
    ) -> Ran<Value> {
        if *receiver == Value::None {
            if self.missing_key == MissingKey::Error {
                return self.fail(format!("nil data; no entry for key {}", print::quote(name)));
            }
            return Ok(Value::None);
        }
        if let Some(signature) = self.functions.method(receiver, name) {
            let arguments = self.arguments(dot, name, signature, rest, last)?;
            let called = self.functions.call_method(receiver, name, &arguments);
            return self.called(called, name, Place::Word(word));
        }
        let has_arguments = last.is_some() || !rest.is_empty();
        match receiver {
            Value::Struct(fields) => {
                if let Some((_, value)) = fields.fields.iter().find(|(field, _)| *field == name) {
                    if has_arguments {
                        return self.fail(format!("{name} has arguments but cannot be invoked as function"));
                    }
                    return Ok(value.clone());
                }
            }
            Value::Map(map) => {
                if has_arguments {
                    return self.fail(format!("{name} is not a method but has arguments"));
                }
                return match map.entries.get(name) {
                    Some(value) => Ok(value.clone()),
                    None if self.missing_key == MissingKey::Error => {
                        self.fail(format!("map has no entry for key {}", print::quote(name)))
                    }
                    None => Ok(Value::None),
                };
            }
            _ => {}
        }
        self.fail(format!("can't evaluate field {name} in type {}", receiver.kind()))
    }

    /// Calls a function. Errors name `whole`; until the call, the place stays at the present one.
    fn function(
        &mut self,
        dot: &Value,
        name: &str,
        whole: Place<'r>,
        rest: &'r [Word],
        last: Option<Value>,
    ) -> Ran<Value> {
        let own = self.functions.signature(name);
        let Some(signature) = own.or_else(|| builtin::signature(name)) else {
            return self.fail(format!("{} is not a defined function", print::quote(name)));
        };
        if own.is_none() && matches!(name, "and" | "or") {
            return self.and_or(dot, name, rest, last);
        }
        let arguments = self.arguments(dot, name, signature, rest, last)?;
        let called =
            if own.is_some() { self.functions.call(name, &arguments) } else { builtin::call(name, &arguments) };
        self.called(called, name, whole)
    }

    fn called(&mut self, called: Result<Value, String>, name: &str, whole: Place<'r>) -> Ran<Value> {
        let value = match called {
            Ok(value) => value,
            Err(why) => {
                self.place = whole;
                return self.fail(format!("error calling {name}: {why}"));
            }
        };
        // Doubling a text again and again must not fill the memory.
        if let Value::Text(text) = &value {
            self.made = self.made.saturating_add(text.len());
        } else if !matches!(name, "index") {
            self.made = self.made.saturating_add(value.weight() / 4);
        }
        if self.made > self.bytes_max.saturating_mul(MADE_SHARE) {
            return self.fail(format!("its functions make more than {} times {} bytes", MADE_SHARE, self.bytes_max));
        }
        Ok(value)
    }

    fn check_count(&self, name: &str, signature: Signature, given: usize, words: usize) -> Ran<()> {
        let least = signature.fixed.len();
        if signature.rest.is_some() {
            if given < least {
                return self.fail(format!("wrong number of args for {name}: want at least {least} got {words}"));
            }
        } else if given != least {
            return self.fail(format!("wrong number of args for {name}: want {least} got {given}"));
        }
        Ok(())
    }

    fn arguments(
        &mut self,
        dot: &Value,
        name: &str,
        signature: Signature,
        rest: &'r [Word],
        last: Option<Value>,
    ) -> Ran<Vec<Value>> {
        self.check_count(name, signature, rest.len() + usize::from(last.is_some()), rest.len())?;
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for (at, word) in rest.iter().enumerate() {
            arguments.push(self.argument(dot, word, signature.param(at))?);
        }
        if let Some(last) = last {
            arguments.push(self.fitting(last, signature.param(rest.len()))?);
        }
        Ok(arguments)
    }

    /// Stops at the argument that decides.
    fn and_or(&mut self, dot: &Value, name: &str, rest: &'r [Word], last: Option<Value>) -> Ran<Value> {
        let signature = Signature { fixed: &[Param::Any], rest: Some(Param::Any) };
        self.check_count(name, signature, rest.len() + usize::from(last.is_some()), rest.len())?;
        let mut value = Value::None;
        for word in rest {
            value = self.argument(dot, word, Param::Any)?;
            if value.is_true() == (name == "or") {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }
}
