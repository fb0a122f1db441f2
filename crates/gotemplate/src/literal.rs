//! Go's literals: quoted texts, characters, numbers.

use crate::node::Number;

/// The text that a literal in `"…"` or in backquotes stands for.
pub(crate) fn text(quoted: &str) -> Option<String> {
    if let Some(raw) = quoted.strip_prefix('`') {
        return Some(raw.strip_suffix('`')?.replace('\r', ""));
    }
    unescape(quoted.strip_prefix('"')?.strip_suffix('"')?, '"')
}

fn unescape(text: &str, quote: char) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == quote {
            return None;
        }
        let mut add = |c: char| bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        if c != '\\' {
            add(c);
            continue;
        }
        match chars.next()? {
            'a' => add('\x07'),
            'b' => add('\x08'),
            'f' => add('\x0c'),
            'n' => add('\n'),
            'r' => add('\r'),
            't' => add('\t'),
            'v' => add('\x0b'),
            '\\' => add('\\'),
            c if c == quote => add(c),
            'x' => bytes.push(u8::try_from(digits(&mut chars, 2, 16, None)?).ok()?),
            'u' => add(char::from_u32(digits(&mut chars, 4, 16, None)?)?),
            'U' => add(char::from_u32(digits(&mut chars, 8, 16, None)?)?),
            c @ '0'..='7' => bytes.push(u8::try_from(digits(&mut chars, 2, 8, c.to_digit(8))?).ok()?),
            _ => return None,
        }
    }
    // Go's strings may be any bytes; ours are UTF-8.
    String::from_utf8(bytes).ok()
}

fn digits(chars: &mut std::str::Chars<'_>, count: usize, radix: u32, first: Option<u32>) -> Option<u32> {
    (0..count)
        .try_fold(first.unwrap_or(0), |sum, _| sum.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?))
}

/// The number that a literal stands for: `7`, `0x1f`, `1_000`, `1e3`, `'a'`.
pub(crate) fn number(written: &str) -> Result<Number, String> {
    let text = written.to_owned();
    if let Some(quoted) = written.strip_prefix('\'') {
        let inner = quoted.strip_suffix('\'').and_then(|inner| unescape(inner, '\''));
        let mut chars = inner.as_deref().unwrap_or_default().chars();
        let (Some(c), None) = (chars.next(), chars.next()) else {
            return Err(format!("malformed character constant: {written}"));
        };
        let code = u32::from(c);
        return Ok(Number { text, int: Some(code.into()), float: Some(code.into()), is_float: false });
    }
    let bad = || format!("illegal number syntax: {}", crate::print::quote(written));
    let unsigned = written.trim_start_matches(['+', '-']);
    let negative = written.starts_with('-');
    let lower = unsigned.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some(two) if two.starts_with('0') && two.as_bytes()[1].is_ascii_digit() => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // Underscores part digits, or the prefix from digits.
    if digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && radix == 10) {
        return Err(bad());
    }
    let whole = u64::from_str_radix(&digits.replace('_', ""), radix).ok();
    let signed = whole.map(|whole| if negative { -i128::from(whole) } else { i128::from(whole) });
    match signed.map(i64::try_from) {
        Some(Ok(int)) => {
            #[expect(clippy::cast_precision_loss, reason = "Go rounds here, too")]
            let float = Some(int as f64);
            return Ok(Number { text, int: Some(int), float, is_float: false });
        }
        // Too large where it is used, and not before.
        Some(Err(_)) if !negative => return Ok(Number { text, int: None, float: None, is_float: false }),
        _ => {}
    }
    let float: f64 = lower.replace('_', "").parse().map_err(|_| bad())?;
    if !lower.contains(['.', 'e', 'p']) {
        return Err(format!("integer overflow: {}", crate::print::quote(written)));
    }
    if !float.is_finite() {
        return Err(bad());
    }
    let float = if negative { -float } else { float };
    #[expect(clippy::cast_possible_truncation, reason = "checked by going back")]
    let int = Some(float as i64).filter(|int| {
        #[expect(clippy::cast_precision_loss, reason = "checked by the comparison")]
        let back = *int as f64;
        back == float && float.abs() < 9.0e18
    });
    Ok(Number { text, int, float: Some(float), is_float: true })
}
