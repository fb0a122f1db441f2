//! Go's fmt package: how values are printed, and `printf` with its verbs, flags, widths and precisions.
//!
//! Where Go writes its error texts into the output (`%!d(string=x)`), this refuses.

use std::fmt::Write as _;

use crate::number;
use crate::value::Value;

/// Go's own limit for widths and precisions.
const WIDTH_MAX: i64 = 1_000_000;

/// The flags of one directive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) plus: bool,
    pub(crate) minus: bool,
    pub(crate) sharp: bool,
    pub(crate) space: bool,
    pub(crate) zero: bool,
    pub(crate) width: Option<usize>,
    pub(crate) precision: Option<usize>,
    /// `%+v`: names of fields.
    pub(crate) plus_v: bool,
    /// `%#v`: Go syntax.
    pub(crate) sharp_v: bool,
}

impl Spec {
    /// Puts the text into its width.
    pub(crate) fn pad(&self, text: &str) -> String {
        let room = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        if self.minus {
            format!("{text}{}", " ".repeat(room))
        } else {
            format!("{}{text}", if self.zero { "0" } else { " " }.repeat(room))
        }
    }
}

/// A text in double quotes with Go's escapes.
pub(crate) fn quote(text: &str) -> String {
    quoted(text, '"', false)
}

fn quoted(text: &str, mark: char, ascii: bool) -> String {
    let mut out = String::from(mark);
    for c in text.chars() {
        match c {
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if is_printable(c) && (!ascii || c.is_ascii()) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..0x20 | 0x7f => write!(out, "\\x{code:02x}"),
                    0..0x1_0000 => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(mark);
    out
}

fn is_printable(c: char) -> bool {
    // Rust escapes what has no shape, and marks that join the letter before them, which Go prints.
    c == ' ' || c == '\'' || c == '"' || c == '\\' || c.is_alphanumeric() || c.escape_debug().len() == 1
}

/// The value as `{{.}}` prints it.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::None => "<no value>".to_owned(),
        value => verb_v(value),
    }
}

/// The value as `%v` prints it.
pub(crate) fn verb_v(value: &Value) -> String {
    if let Value::Text(text) = value {
        return text.clone();
    }
    // Every value has a `%v`.
    format(value, 'v', &Spec::default()).unwrap_or_default()
}

/// Like Go's Sprint: a space between two values of which neither is a text.
pub(crate) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let parted = |value: &Value| !matches!(value, Value::Text(_));
        if at > 0 && parted(value) && parted(&values[at - 1]) {
            out.push(' ');
        }
        out.push_str(&verb_v(value));
    }
    out
}

/// Like Go's Sprintln: spaces between all, and a line feed.
pub(crate) fn sprintln(values: &[Value]) -> String {
    let texts: Vec<String> = values.iter().map(verb_v).collect();
    texts.join(" ") + "\n"
}

/// Like Go's Sprintf.
///
/// # Errors
/// Names the directive that Go would have answered with `%!`.
pub(crate) fn printf(pattern: &str, values: &[Value]) -> Result<String, String> {
    let mut reader = Reader { chars: pattern.chars().collect(), at: 0, values, next: 0, reordered: false };
    let mut out = String::new();
    while let Some(c) = reader.take() {
        if c == '%' {
            out.push_str(&reader.directive()?);
        } else {
            out.push(c);
        }
    }
    if !reader.reordered && reader.next < values.len() {
        return Err(format!("the format {} leaves {} of its values over", quote(pattern), values.len() - reader.next));
    }
    Ok(out)
}

struct Reader<'v> {
    chars: Vec<char>,
    at: usize,
    values: &'v [Value],
    next: usize,
    reordered: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn directive(&mut self) -> Result<String, String> {
        let start = self.at - 1;
        let mut spec = Spec::default();
        loop {
            match self.peek() {
                Some('#') => spec.sharp = true,
                // Zeros stand on the left only.
                Some('0') => spec.zero = !spec.minus,
                Some('+') => spec.plus = true,
                Some('-') => (spec.minus, spec.zero) = (true, false),
                Some(' ') => spec.space = true,
                _ => break,
            }
            self.at += 1;
        }
        self.index()?;
        if self.peek() == Some('*') {
            self.at += 1;
            let width = self.star("width")?;
            (spec.minus, spec.zero) = (spec.minus || width < 0, spec.zero && width >= 0);
            spec.width = usize::try_from(width.abs()).ok();
        } else {
            spec.width = self.number()?;
        }
        if self.peek() == Some('.') {
            self.at += 1;
            self.index()?;
            spec.precision = if self.peek() == Some('*') {
                self.at += 1;
                // A negative one counts as none.
                usize::try_from(self.star("precision")?).ok()
            } else {
                Some(self.number()?.unwrap_or(0))
            };
        }
        self.index()?;
        let Some(verb) = self.take() else { return Err("the format ends within a directive".to_owned()) };
        if verb == '%' {
            return Ok("%".to_owned());
        }
        let written: String = self.chars[start..self.at].iter().collect();
        let Some(value) = self.values.get(self.next) else { return Err(format!("there is no value for {written}")) };
        self.next += 1;
        if verb == 'v' {
            (spec.sharp_v, spec.plus_v) = (spec.sharp, spec.plus);
            (spec.sharp, spec.plus) = (false, false);
        }
        format(value, verb, &spec)
            .ok_or_else(|| format!("{written} does not fit {} of type {}", verb_v(value), value.kind()))
    }

    fn number(&mut self) -> Result<Option<usize>, String> {
        let mut number: Option<i64> = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            self.at += 1;
            number = Some(number.unwrap_or(0) * 10 + i64::from(digit));
            if number > Some(WIDTH_MAX) {
                return Err(format!("a width or precision is larger than {WIDTH_MAX}"));
            }
        }
        Ok(number.and_then(|number| usize::try_from(number).ok()))
    }

    fn star(&mut self, what: &str) -> Result<i64, String> {
        let value = self.values.get(self.next);
        self.next += 1;
        match value {
            Some(Value::Number(number)) if number.abs() <= WIDTH_MAX => Ok(*number),
            Some(other) => Err(format!("{} is no {what}", verb_v(other))),
            None => Err(format!("there is no value for the {what}")),
        }
    }

    /// `[2]`: which value is next.
    fn index(&mut self) -> Result<(), String> {
        if self.peek() != Some('[') {
            return Ok(());
        }
        self.at += 1;
        let number = self.number()?;
        match number {
            Some(number @ 1..) if number <= self.values.len() && self.take() == Some(']') => {
                (self.next, self.reordered) = (number - 1, true);
                Ok(())
            }
            _ => Err("the number in brackets names no value".to_owned()),
        }
    }
}

/// One value by one verb; none where the verb does not fit the value.
pub(crate) fn format(value: &Value, verb: char, spec: &Spec) -> Option<String> {
    if verb == 'T' {
        return Some(spec.pad(value.kind()));
    }
    match value {
        Value::None => (verb == 'v').then(|| Spec { zero: false, ..*spec }.pad("<nil>")),
        Value::Bool(bool) => matches!(verb, 't' | 'v').then(|| spec.pad(&bool.to_string())),
        Value::Number(number) => number::int(*number, verb, spec),
        Value::Float(float) => number::float(*float, verb, spec),
        Value::Text(text) => text_by(text, verb, spec),
        Value::List(list) => {
            let items: Option<Vec<String>> = list.items.iter().map(|item| inner(item, verb, spec)).collect();
            Some(if spec.sharp_v && verb == 'v' {
                format!("{}{{{}}}", list.kind, items?.join(", "))
            } else {
                format!("[{}]", items?.join(" "))
            })
        }
        Value::Map(map) => {
            let pair = |(key, value): (&String, &Value)| {
                Some(format!("{}:{}", text_by(key, verb, spec)?, inner(value, verb, spec)?))
            };
            let pairs: Option<Vec<String>> = map.entries.iter().map(pair).collect();
            Some(if spec.sharp_v && verb == 'v' {
                format!("{}{{{}}}", map.kind, pairs?.join(", "))
            } else {
                format!("map[{}]", pairs?.join(" "))
            })
        }
        Value::Struct(fields) => {
            let named = spec.plus_v || spec.sharp_v;
            let field = |(name, value): &(&str, Value)| {
                let value = inner(value, verb, spec)?;
                Some(if named { format!("{name}:{value}") } else { value })
            };
            let texts: Option<Vec<String>> = fields.fields.iter().map(field).collect();
            Some(if spec.sharp_v {
                format!("{}{{{}}}", fields.kind, texts?.join(", "))
            } else {
                format!("{{{}}}", texts?.join(" "))
            })
        }
        Value::Object(kind, _) => (verb == 'v').then(|| format!("<{kind}>")),
    }
}

/// A value within another one, where nothing is `<nil>` by any name.
fn inner(value: &Value, verb: char, spec: &Spec) -> Option<String> {
    match value {
        Value::None if spec.sharp_v => Some("interface {}(nil)".to_owned()),
        value => format(value, verb, spec),
    }
}

fn text_by(text: &str, verb: char, spec: &Spec) -> Option<String> {
    let cut = |text: &str| text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect::<String>();
    match verb {
        'v' if spec.sharp_v => Some(spec.pad(&quote(text))),
        'v' | 's' => Some(spec.pad(&cut(text))),
        'q' => {
            let text = cut(text);
            let raw = spec.sharp && !text.chars().any(|c| c == '`' || (c.is_control() && c != '\t'));
            Some(spec.pad(&if raw { format!("`{text}`") } else { quoted(&text, '"', spec.plus) }))
        }
        'x' | 'X' => {
            let bytes = &text.as_bytes()[..spec.precision.unwrap_or(text.len()).min(text.len())];
            let mut out = String::new();
            let prefix = if verb == 'x' { "0x" } else { "0X" };
            for (at, byte) in bytes.iter().enumerate() {
                if spec.space && at > 0 {
                    out.push(' ');
                }
                if spec.sharp && (at == 0 || spec.space) {
                    out.push_str(prefix);
                }
                let _ = if verb == 'x' { write!(out, "{byte:02x}") } else { write!(out, "{byte:02X}") };
            }
            Some(spec.pad(&out))
        }
        _ => None,
    }
}

/// A character in single quotes.
pub(crate) fn quote_char(c: char, ascii: bool) -> String {
    quoted(c.encode_utf8(&mut [0; 4]), '\'', ascii)
}
