//! Template and answers → text, or what is missing. Pure.

use std::collections::{BTreeMap, BTreeSet};

use herder_gotemplate::{Functions, MissingKey, Options, Template, Value};

use crate::confd::Confd;
use crate::consul_template::{ConsulTemplate, Environment};
use crate::data::{Asking, Data, Dep, Rendered};

/// A configuration file has at most this many bytes.
pub const RENDERED_BYTES_MAX: usize = 16 << 20;

/// The dialect of a template: its set of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    ConsulTemplate,
    Confd,
}

/// Options of a template.
#[derive(Clone, Debug)]
pub struct Reading<'r> {
    pub name: &'r str,
    pub left: &'r str,
    pub right: &'r str,
    pub error_on_missing_key: bool,
    pub dialect: Dialect,
}

/// Reads a template, which is refused here if it names what there is not.
///
/// # Errors
/// Go's sentence, with the line.
pub fn read(text: &str, reading: &Reading<'_>) -> Result<Template, String> {
    let options = Options {
        name: reading.name,
        left: reading.left,
        right: reading.right,
        missing_key: if reading.error_on_missing_key { MissingKey::Error } else { MissingKey::None },
        bytes_max: RENDERED_BYTES_MAX,
    };
    let (data, environment, keys) = (Data::default(), Environment::default(), BTreeMap::new());
    let asking = Asking::new(&data);
    let consul = ConsulTemplate::new(&asking, &environment);
    let confd = Confd { keys: &keys, environment: &environment, is_file: |_| false };
    let functions: &dyn Functions = match reading.dialect {
        Dialect::ConsulTemplate => &consul,
        Dialect::Confd => &confd,
    };
    Template::parse(text, functions, options).map_err(|error| error.to_string())
}

/// Renders a template of consul-template's kind, and tells what it asked for. Nothing counts before all of that is answered: an error over
/// answers that are missing is none.
pub fn render(template: &Template, data: &Data, environment: &Environment) -> (Rendered, BTreeSet<Dep>) {
    let asking = Asking::new(data);
    let functions = ConsulTemplate::new(&asking, environment);
    let result = template.execute(&Value::None, &functions);
    let (used, missing) = asking.done();
    let rendered = match result {
        _ if !missing.is_empty() => Rendered::Missing(missing),
        Ok(text) => Rendered::Text(text),
        Err(error) => Rendered::Failed(error.to_string()),
    };
    (rendered, used)
}

/// Renders a template of confd's kind over the keys that it declared.
///
/// # Errors
/// Go's sentence, with line and column.
pub fn render_confd(
    template: &Template,
    keys: &BTreeMap<String, String>,
    environment: &Environment,
    is_file: fn(&str) -> bool,
) -> Result<String, String> {
    let functions = Confd { keys, environment, is_file };
    template.execute(&Value::None, &functions).map_err(|error| error.to_string())
}
