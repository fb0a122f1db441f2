//! Variables in values: `$V`, `${V}` and the operators of a shell.

use std::fmt;

/// Nesting of defaults in defaults. Bounds the stack.
const DEPTH_MAX: usize = 32;
/// Bytes of one value after interpolation: as much as a whole file may have.
const VALUE_MAX: usize = 1 << 20;

/// Effect of one variable of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) name: String,
    /// The operator with its colon, such as `:-`; empty for a plain variable.
    pub(crate) operator: &'static str,
    /// The text behind the operator as it is written.
    pub(crate) word: String,
}

/// A fault in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `${` that does not parse, with the part that does not.
    Syntax(String),
    /// `${V?message}` without a value.
    Required {
        name: String,
        message: String,
    },
    TooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Syntax(part) => write!(f, "`{part}` is not a variable that can be read"),
            Fault::Required { name, message } if message.is_empty() => {
                write!(f, "required variable {name} is missing a value")
            }
            Fault::Required { name, message } => write!(f, "required variable {name} is missing a value: {message}"),
            Fault::TooLong => write!(f, "the value is longer than {VALUE_MAX} bytes after interpolation"),
        }
    }
}

/// Replaces the variables of `text`. `lookup` gives the value of a variable; `used` hears of each variable that was read.
pub(crate) fn interpolate(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    used: &mut dyn FnMut(Use),
) -> Result<String, Fault> {
    let (parts, _) = parse(text, 0, 0)?;
    let mut result = String::with_capacity(text.len());
    evaluate(&parts, lookup, used, &mut result)?;
    Ok(result)
}

enum Part<'a> {
    Text(&'a str),
    Variable { name: &'a str, operator: Option<&'static str>, word: Vec<Part<'a>>, written: &'a str },
}

/// The operators, longest first.
const OPERATORS: [&str; 6] = [":-", ":?", ":+", "-", "?", "+"];

/// Parses up to the end or the closing brace, and returns its index. `depth` is above 0 inside of
/// braces.
fn parse(text: &str, from: usize, depth: usize) -> Result<(Vec<Part<'_>>, usize), Fault> {
    let bytes = text.as_bytes();
    let (mut parts, mut start, mut index, mut braces) = (Vec::new(), from, from, 0_usize);
    while let Some(&byte) = bytes.get(index) {
        match byte {
            b'{' if depth > 0 => braces += 1,
            b'}' if depth > 0 && braces == 0 => {
                parts.push(Part::Text(&text[start..index]));
                return Ok((parts, index));
            }
            b'}' if depth > 0 => braces -= 1,
            b'$' => {
                let next = bytes.get(index + 1).copied();
                if next == Some(b'$') {
                    parts.push(Part::Text(&text[start..=index]));
                    (index, start) = (index + 2, index + 2);
                    continue;
                }
                if next == Some(b'{') {
                    parts.push(Part::Text(&text[start..index]));
                    let (variable, end) = braced(text, index, depth)?;
                    parts.push(variable);
                    (index, start) = (end, end);
                    continue;
                }
                let length = name_length(&bytes[index + 1..]);
                if length > 0 {
                    parts.push(Part::Text(&text[start..index]));
                    let end = index + 1 + length;
                    let name = &text[index + 1..end];
                    parts.push(Part::Variable { name, operator: None, word: Vec::new(), written: "" });
                    (index, start) = (end, end);
                    continue;
                }
            }
            _ => {}
        }
        index += 1;
    }
    if depth > 0 {
        return Err(Fault::Syntax(shortened(&text[from.saturating_sub(2)..])));
    }
    parts.push(Part::Text(&text[start..]));
    Ok((parts, index))
}

/// Parses the `${…}` that begins at `at`; the index behind it comes back.
fn braced(text: &str, at: usize, depth: usize) -> Result<(Part<'_>, usize), Fault> {
    let fault = || Fault::Syntax(shortened(&text[at..]));
    let from = at + 2;
    let length = name_length(&text.as_bytes()[from..]);
    let behind = from + length;
    if length == 0 || depth >= DEPTH_MAX {
        return Err(fault());
    }
    let name = &text[from..behind];
    let rest = &text[behind..];
    if rest.starts_with('}') {
        return Ok((Part::Variable { name, operator: None, word: Vec::new(), written: "" }, behind + 1));
    }
    let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)).ok_or_else(fault)?;
    let begin = behind + operator.len();
    let (word, end) = parse(text, begin, depth + 1).map_err(|_| fault())?;
    Ok((Part::Variable { name, operator: Some(operator), word, written: &text[begin..end] }, end + 1))
}

/// The first characters of a text that does not parse.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(40).collect()
}

fn name_length(bytes: &[u8]) -> usize {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match bytes.first() {
        Some(first) if first.is_ascii_alphabetic() || *first == b'_' => {
            bytes.iter().take_while(|it| is_name(it)).count()
        }
        _ => 0,
    }
}

fn evaluate(
    parts: &[Part<'_>],
    lookup: &dyn Fn(&str) -> Option<String>,
    used: &mut dyn FnMut(Use),
    result: &mut String,
) -> Result<(), Fault> {
    for part in parts {
        match part {
            Part::Text(text) => result.push_str(text),
            Part::Variable { name, operator, word, written } => {
                let operator = operator.unwrap_or_default();
                used(Use { name: (*name).to_owned(), operator, word: (*written).to_owned() });
                let value = lookup(name);
                let counts = value.as_deref().is_some_and(|value| !operator.starts_with(':') || !value.is_empty());
                match operator.trim_start_matches(':') {
                    "-" if !counts => evaluate(word, lookup, used, result)?,
                    "+" if counts => evaluate(word, lookup, used, result)?,
                    "+" => {}
                    "?" if !counts => {
                        let mut message = String::new();
                        evaluate(word, lookup, used, &mut message)?;
                        return Err(Fault::Required { name: (*name).to_owned(), message });
                    }
                    _ => result.push_str(value.as_deref().unwrap_or_default()),
                }
            }
        }
        if result.len() > VALUE_MAX {
            return Err(Fault::TooLong);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::interpolate;

    /// `A=a`, `E` is empty, everything else is unset.
    fn shown(text: &str) -> String {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "E" => Some(String::new()),
            _ => None,
        };
        let mut names = Vec::new();
        match interpolate(text, &lookup, &mut |it| names.push(it.name)) {
            Ok(text) => format!("{text} ({})", names.join(" ")),
            Err(fault) => format!("! {fault}"),
        }
    }

    #[test]
    fn variables_are_replaced_by_the_rules_of_the_specification() {
        let table = "
            $A | a (A)
            x${A}y | xay (A)
            $$A | $A ()
            $$$A | $a ($A)
            $U-x | -x (U)
            ${U:-d} | d (U)
            ${E:-d} | d (E)
            ${E-d} |  (E)
            ${U-d} | d (U)
            ${A:+r} | r (A)
            ${E:+r} |  (E)
            ${E+r} | r (E)
            ${U+r} |  (U)
            ${U:?no u} | ! required variable U is missing a value: no u
            ${E:?} | ! required variable E is missing a value
            ${E?no e} |  (E)
            ${U:-${A}} | a (U A)
            ${U:-x${V:-y}z} | xyz (U V)
            ${A:-${U:?never}} | a (A)
            ${U:-{\"k\": {}}} | {\"k\": {}} (U)
            ${U:-a:-b} | a:-b (U)
            ${U?a-b} | ! required variable U is missing a value: a-b
            cost: 5$ | cost: 5$ ()
            $1 | $1 ()
            ${1} | ! `${1}` is not a variable that can be read
            ${A | ! `${A` is not a variable that can be read
            ${A!x} | ! `${A!x}` is not a variable that can be read
            ${} | ! `${}` is not a variable that can be read
        ";
        for line in table.lines().filter(|line| line.contains(" | ")) {
            let (text, wanted) = line.trim().split_once(" | ").unwrap();
            // `$$` gives a dollar; the name behind it is text.
            let wanted = wanted.replace("($A)", "(A)");
            assert_eq!(shown(text), wanted, "{text}");
        }
    }
}
