//! The simple form of HCL that configuration files of consul-template have: blocks, and keys with texts, numbers, switches and lists. Pure.

use serde_json::{Map, Value};

/// Blocks within blocks.
const DEPTH_MAX: usize = 10;

/// Reads a file. A block that comes several times becomes a list.
///
/// # Errors
/// Says which line is not understood.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    reader.body(0).map(Value::Object)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn wrong<T>(&self, why: &str) -> Result<T, String> {
        let line = 1 + self.text[..self.at].matches('\n').count();
        Err(format!("line {line}: {why}"))
    }

    /// Steps over white space, commas and comments.
    fn space(&mut self) -> Result<(), String> {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', ',']).len();
            let rest = self.rest();
            if rest.starts_with('#') || rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                match rest.find("*/") {
                    Some(end) => self.at += end + 2,
                    None => return self.wrong("a comment is not closed"),
                }
            } else {
                return Ok(());
            }
        }
    }

    fn takes(&mut self, c: char) -> bool {
        let there = self.rest().starts_with(c);
        self.at += if there { c.len_utf8() } else { 0 };
        there
    }

    fn body(&mut self, depth: usize) -> Result<Map<String, Value>, String> {
        if depth > DEPTH_MAX {
            return self.wrong("blocks are nested too deep");
        }
        let mut map: Map<String, Value> = Map::new();
        loop {
            self.space()?;
            if self.rest().is_empty() && depth == 0 || depth > 0 && self.takes('}') {
                return Ok(map);
            }
            let key = self.word()?;
            self.space()?;
            if self.takes('=') {
                self.space()?;
                let value = self.value(depth)?;
                map.insert(key, value);
                continue;
            }
            // A label of a block is not needed for anything here.
            if self.rest().starts_with('"') {
                self.word()?;
                self.space()?;
            }
            if !self.takes('{') {
                return self.wrong(&format!("expected `=` or a block after `{key}`"));
            }
            let block = Value::Object(self.body(depth + 1)?);
            match map.get_mut(&key) {
                None => {
                    map.insert(key, block);
                }
                Some(Value::Array(blocks)) => blocks.push(block),
                Some(one) => *one = Value::Array(vec![one.take(), block]),
            }
        }
    }

    fn word(&mut self) -> Result<String, String> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(rest.len());
        if end == 0 {
            return self.wrong("expected a name");
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(text);
                }
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    _ => return self.wrong("an unknown escape in a text"),
                },
                c => text.push(c),
            }
        }
        self.wrong("a text is not closed")
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        let rest = self.rest();
        if rest.starts_with('"') {
            return self.quoted().map(Value::String);
        }
        if rest.starts_with("<<") {
            return self.heredoc().map(Value::String);
        }
        if self.takes('{') {
            return self.body(depth + 1).map(Value::Object);
        }
        if self.takes('[') {
            let mut items = Vec::new();
            loop {
                self.space()?;
                if self.takes(']') {
                    return Ok(Value::Array(items));
                }
                if depth > DEPTH_MAX || self.rest().is_empty() {
                    return self.wrong("a list is not closed");
                }
                items.push(self.value(depth + 1)?);
            }
        }
        let word = self.word()?;
        match word.as_str() {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            // Permissions are written in octal.
            octal if octal.len() > 1 && octal.starts_with('0') => match i64::from_str_radix(octal, 8) {
                Ok(number) => Ok(number.into()),
                Err(_) => self.wrong(&format!("`{octal}` is no number")),
            },
            number => match number.parse::<i64>() {
                Ok(number) => Ok(number.into()),
                Err(_) => self.wrong(&format!("`{number}` is neither a text in quotes nor a number")),
            },
        }
    }

    fn heredoc(&mut self) -> Result<String, String> {
        self.at += 2;
        let indented = self.takes('-');
        let (mark, rest) = self.rest().split_once('\n').unwrap_or((self.rest(), ""));
        let mark = mark.trim();
        let mut lines = Vec::new();
        let mut length = self.rest().len() - rest.len();
        for line in rest.split_inclusive('\n') {
            length += line.len();
            if line.trim() == mark {
                self.at += length;
                return Ok(lines.concat());
            }
            lines.push(if indented { line.trim_start_matches([' ', '\t']) } else { line });
        }
        self.wrong(&format!("the end `{mark}` of a text is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_files_are_read() {
        let text = "# a comment\nconsul { address = \"127.0.0.1:8500\" }\ntemplate {\n  source = \"a\"\n  perms = 0644\n  exec = [\"x\", \"y\"]\n  wait { min = \"2s\" max = \"10s\" }\n}\n\
            template { contents = <<EOF\nhello {{ .x }}\nEOF\n backup = true }\nmax_stale = 5";
        let found = parse(text).expect("HCL");
        assert_eq!(
            found.to_string(),
            r#"{"consul":{"address":"127.0.0.1:8500"},"template":[{"source":"a","perms":420,"exec":["x","y"],"wait":{"min":"2s","max":"10s"}},{"contents":"hello {{ .x }}\n","backup":true}],"max_stale":5}"#
        );
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_line() {
        for (text, why) in [
            ("a = \n b", "line 2: `b` is neither"),
            ("a {", "line 1: expected a name"),
            ("a \"x", "line 1: a text is not closed"),
            ("x\n= <<EOF\nabc", "line 2: the end `EOF`"),
            ("a b", "line 1: expected `=` or a block after `a`"),
            ("a = [1", "line 1: a list is not closed"),
            ("=", "line 1: expected a name"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
    }
}
