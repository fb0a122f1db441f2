//! JSON values as Python prints lists and mappings: clients of MasterMind read such texts.

use serde_json::Value;

/// The text that Python's `repr` gives.
pub(crate) fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(list) => format!("[{}]", list.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| format!("{}: {}", quoted(key), repr(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(quote);
    for letter in text.chars() {
        match letter {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            letter if letter == quote => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push(quote);
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn values_are_printed_as_python_prints_them() {
        for (value, expected) in [
            (
                json!([{"name": "shop_web", "status": "2/2", "health": []}]),
                "[{'name': 'shop_web', 'status': '2/2', 'health': []}]",
            ),
            (json!([true, false, null, 1]), "[True, False, None, 1]"),
            (json!("it's"), "\"it's\""),
            (json!("'\""), r#"'\'"'"#),
            (json!("a\\b\n"), r"'a\\b\n'"),
        ] {
            assert_eq!(super::repr(&value), expected);
        }
    }
}
