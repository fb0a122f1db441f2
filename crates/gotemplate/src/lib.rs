//! A subset of Go's text/template, with its error texts. Pure.
//!
//! See ARCHITECTURE.md.

mod parse;
mod run;

use parse::Wrong;
use run::{Failed, Runner};

pub use run::{Lookup, Value};

/// Expands `text` over `root`. `more` are the names of functions that `lookup` answers. At most `bytes_max` bytes come out.
///
/// # Errors
/// The sentence that Go's text/template says, with line and column.
pub fn expand(text: &str, more: &[&str], root: &Value, lookup: Lookup<'_>, bytes_max: usize) -> Result<String, String> {
    let nodes = parse::parse(text, more).map_err(|Wrong { at, text: why }| {
        let line = 1 + text[..at].matches('\n').count();
        format!("template: expansion:{line}: {why}")
    })?;
    let mut out = String::new();
    let runner = Runner { root, lookup, bytes_max };
    runner.run(&nodes, &mut out).map_err(|Failed { at, place, text: why }| {
        let line = 1 + text[..at].matches('\n').count();
        let column = at - text[..at].rfind('\n').map_or(0, |end| end + 1);
        format!(r#"template: expansion:{line}:{column}: executing "expansion" at <{place}>: {why}"#)
    })?;
    Ok(out)
}
