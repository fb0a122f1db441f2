//! Go's text/template: the whole language, its functions, `printf`, and its error texts. Pure.
//!
//! Three things differ. Where Go would write `%!d(string=x)` into the output, the template fails. A `{{template}}` of a name that
//! is not defined is refused when the text is parsed, not when it runs. And a run has limits: of depth, of steps, of bytes.
//!
//! See ARCHITECTURE.md.

mod builtin;
mod functions;
mod lex;
mod literal;
mod node;
mod number;
mod parse;
mod print;
mod run;
mod value;

use parse::{Trees, Wrong};
use run::Runner;

pub use functions::{Functions, Param, Signature};
pub use run::MissingKey;
pub use value::{List, Map, Numbers, Struct, Value};

/// A value as `{{.}}` prints it.
pub fn text_of(value: &Value) -> String {
    print::plain(value)
}

/// Looks something up that is no field: function, argument → text or why not.
pub type Lookup<'l> = &'l dyn Fn(&str, &str) -> Result<String, String>;

/// Says why a text is no template, or why a template cannot be run: Go's sentence, with line and column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);

/// Options for reading and running a template.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// The name that errors tell.
    pub name: &'o str,
    pub left: &'o str,
    pub right: &'o str,
    pub missing_key: MissingKey,
    /// More than this may not come out of it.
    pub bytes_max: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { name: "template", left: "{{", right: "}}", missing_key: MissingKey::None, bytes_max: 16 << 20 }
    }
}

/// A template that was read: every block is closed, and every function, variable and template that it names exists.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
    trees: Trees,
    missing_key: MissingKey,
    bytes_max: usize,
}

impl Template {
    /// Reads a template. `functions` are those besides the ones of the language.
    ///
    /// # Errors
    /// Go's sentence, with the line.
    pub fn parse(text: &str, functions: &dyn Functions, options: Options<'_>) -> Result<Template, TemplateError> {
        let known = |name: &str| functions.signature(name).is_some() || builtin::signature(name).is_some();
        let trees = parse::parse(text, options.left, options.right, &known).map_err(|Wrong { at, text: why }| {
            TemplateError(format!("template: {}:{}: {why}", options.name, line(text, at)))
        })?;
        Ok(Template {
            name: options.name.to_owned(),
            text: text.to_owned(),
            trees,
            missing_key: options.missing_key,
            bytes_max: options.bytes_max,
        })
    }

    /// Runs the template over `root`.
    ///
    /// # Errors
    /// Go's sentence, with line and column.
    pub fn execute(&self, root: &Value, functions: &dyn Functions) -> Result<String, TemplateError> {
        let runner = Runner::new(&self.trees, functions, self.missing_key, self.bytes_max);
        runner.run(root).map_err(|failed| {
            let (name, at) = (&self.name, failed.at);
            let column = at - self.text[..at].rfind('\n').map_or(0, |end| end + 1);
            let template = if failed.template.is_empty() { name } else { &failed.template };
            TemplateError(format!(
                "template: {name}:{}:{column}: executing {} at <{}>: {}",
                line(&self.text, at),
                print::quote(template),
                failed.place,
                failed.text
            ))
        })
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// Expands a text of a service over `root`. `more` are the names of functions that `lookup` answers; `join` is there, too. At most
/// `bytes_max` bytes come out.
///
/// # Errors
/// The sentence that Go's text/template says, with line and column.
pub fn expand(text: &str, more: &[&str], root: &Value, lookup: Lookup<'_>, bytes_max: usize) -> Result<String, String> {
    let functions = ServiceFunctions { more, lookup };
    let options = Options { name: "expansion", missing_key: MissingKey::Error, bytes_max, ..Options::default() };
    let template = Template::parse(text, &functions, options).map_err(|error| error.0)?;
    template.execute(root, &functions).map_err(|error| error.0)
}

/// The functions of templates in services.
struct ServiceFunctions<'s> {
    more: &'s [&'s str],
    lookup: Lookup<'s>,
}

impl Functions for ServiceFunctions<'_> {
    fn signature(&self, name: &str) -> Option<Signature> {
        match name {
            "join" => Some(Signature { fixed: &[Param::Text], rest: Some(Param::Text) }),
            _ if self.more.contains(&name) => Some(Signature { fixed: &[Param::Text], rest: None }),
            _ => None,
        }
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let texts: Vec<&str> = arguments.iter().filter_map(Value::as_text).collect();
        match (name, texts.as_slice()) {
            ("join", [separator, texts @ ..]) => Ok(texts.join(separator).into()),
            (name, texts) => (self.lookup)(name, texts.first().unwrap_or(&"")).map(Value::Text),
        }
    }
}
