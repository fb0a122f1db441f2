//! Files of `KEY=value` lines: `.env` and `env_file`.

use crate::interpolate::{Use, interpolate};

/// A malformed line of a file. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: u32,
    pub(crate) message: String,
}

/// A variable of a file; `None` is a key without `=`, whose value comes from the environment.
pub(crate) type Variable = (String, Option<String>);

/// Parses a file in the dialect of Compose: `export`, comments, quotes, values over several lines, and variables. These
/// are looked up in the file above their line first and then by `lookup`.
pub(crate) fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Variable>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = Cursor { text, index: 0, line: 1 };
    let mut variables: Vec<Variable> = Vec::new();
    while let Some(line) = rest.key_line() {
        let body = line.trim_start();
        if body.is_empty() || body.starts_with('#') {
            rest.skip_line();
            continue;
        }
        let number = rest.line;
        let fault = |message: String| Fault { line: number, message };
        let indent = line.len() - body.len();
        let exported = body.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
        let declared = exported.map_or(body, str::trim_start);
        let key_length = declared.find(['=', ':', ' ', '\t']).unwrap_or(declared.len());
        let key = &declared[..key_length];
        let key = key.split('#').next().unwrap_or(key);
        if !is_key(key) {
            if key.starts_with(|first: char| first.is_ascii_digit()) {
                rest.skip_line();
                continue;
            }
            return Err(fault(format!("`{key}` is not the name of a variable")));
        }
        let behind = declared[key_length..].trim_start_matches([' ', '\t']);
        let Some(value) = behind.strip_prefix(['=', ':']) else {
            if !(behind.is_empty() || behind.starts_with('#')) {
                return Err(fault(format!("a `=` is missing behind `{key}`")));
            }
            variables.push((key.to_owned(), lookup(key)));
            rest.skip_line();
            continue;
        };
        let value = value.trim_start_matches([' ', '\t']);
        rest.index += indent + (body.len() - value.len());
        let value = {
            let earlier = |name: &str| {
                let here = variables.iter().rev().find(|(key, _)| key == name).and_then(|(_, value)| value.clone());
                lookup(name).or(here)
            };
            rest.value(&earlier).map_err(fault)?
        };
        variables.push((key.to_owned(), Some(value)));
    }
    Ok(variables)
}

/// Reads `format: raw`: `KEY=value` lines whose values are taken as they are.
pub(crate) fn parse_raw(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Variable>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines =
        text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    lines
        .map(|(line, number)| match line.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), Some(value.to_owned()))),
            Some(_) => Err(Fault { line: number, message: "a name is missing before `=`".into() }),
            None => Ok((line.to_owned(), lookup(line))),
        })
        .collect()
}

fn is_key(key: &str) -> bool {
    let first = key.chars().next();
    first.is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && key.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '-' | '[' | ']'))
}

struct Cursor<'a> {
    text: &'a str,
    index: usize,
    line: u32,
}

impl<'a> Cursor<'a> {
    /// The line at the cursor, without its end.
    fn key_line(&self) -> Option<&'a str> {
        let rest = self.text.get(self.index..).filter(|rest| !rest.is_empty())?;
        rest.split_inclusive('\n').next().map(|line| line.trim_end_matches(['\n', '\r']))
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.index..];
        self.index += rest.find('\n').map_or(rest.len(), |end| end + 1);
        self.line += 1;
    }

    /// Reads a value, up to the end of its line, or of its last line for a quoted one.
    fn value(&mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
        let rest = &self.text[self.index..];
        let quote = rest.chars().next().filter(|first| matches!(first, '\'' | '"'));
        let Some(quote) = quote else {
            let line = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
            let end = line.find(" #").or_else(|| line.find("\t#")).unwrap_or(line.len());
            let value = if line.starts_with('#') { "" } else { line[..end].trim_end() };
            let value = expand(value, lookup)?;
            self.skip_line();
            return Ok(value);
        };
        let body = &rest[1..];
        let end = closing(body, quote).ok_or_else(|| format!("the quote {quote} is not closed"))?;
        let raw = &body[..end];
        let value = if quote == '\'' { raw.replace("\\'", "'") } else { double_quoted(raw, lookup)? };
        self.line += u32::try_from(raw.matches('\n').count()).unwrap_or(0);
        self.index += end + 2;
        let behind = self.key_line().unwrap_or_default().trim();
        if !(behind.is_empty() || behind.starts_with('#')) {
            return Err(format!("`{behind}` follows the closing quote"));
        }
        self.skip_line();
        Ok(value)
    }
}

/// The index of the quote that closes a value; a backslash keeps the character behind it.
fn closing(body: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (index, character) in body.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(index),
            _ => {}
        }
    }
    None
}

fn double_quoted(raw: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut text = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, false) => text.push(character),
            (_, true) => match characters.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some('"') => text.push('"'),
                Some('\\') => text.push('\\'),
                // An escaped dollar is no variable.
                Some('$') => text.push_str("$$"),
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
        }
    }
    expand(&text, lookup)
}

fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    interpolate(text, lookup, &mut |_: Use| {}).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Fault, parse};

    fn shown(text: &str) -> String {
        let lookup = |name: &str| (name == "OUT").then(|| "outer".to_owned());
        match parse(text, &lookup) {
            Ok(variables) => {
                let shown = variables.iter().map(|(key, value)| match value {
                    Some(value) => format!("{key}={value:?}"),
                    None => key.clone(),
                });
                shown.collect::<Vec<_>>().join(" ")
            }
            Err(Fault { line, message }) => format!("line {line}: {message}"),
        }
    }

    #[test]
    fn files_are_read_in_the_dialect_of_compose() {
        let table = [
            ("A=1\nB=two words\n", r#"A="1" B="two words""#),
            ("export A=1", r#"A="1""#),
            ("# c\n\nA=1 # c\nB=x#y", r#"A="1" B="x#y""#),
            ("A='$OUT \\' x'", r#"A="$OUT ' x""#),
            ("A=\"$OUT\\n${U:-d}\\$x\"", r#"A="outer\nd$x""#),
            ("A=\"one\ntwo\"\nB=2", r#"A="one\ntwo" B="2""#),
            ("OUT\nNO", r#"OUT="outer" NO"#),
            ("A=x\nB=${A}y", r#"A="x" B="xy""#),
            ("1A=x\nB=1", r#"B="1""#),
            ("A=", r#"A="""#),
            ("A: yaml", r#"A="yaml""#),
            ("A=1\r\nB=2\r\n", r#"A="1" B="2""#),
            ("A='x", "line 1: the quote ' is not closed"),
            ("B=1\nA b=c", "line 2: a `=` is missing behind `A`"),
            ("=x", "line 1: `` is not the name of a variable"),
            ("A=${", "line 1: `${` is not a variable that can be read"),
        ];
        for (text, wanted) in table {
            assert_eq!(shown(text), wanted, "{text}");
        }
    }
}
