//! Lengths of time as Go programs write them: `30s`, `1m30s`, `500ms`. Pure.

use std::time::Duration;

/// Reads a length of time. A bare number is refused, as in the original: nobody knows its unit.
pub(crate) fn parse(text: &str) -> Result<Signed, String> {
    let wrong = || format!("invalid duration `{text}`; expected a number with a unit, such as 30s, 1m30s or 500ms");
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    rest = text.strip_prefix('+').unwrap_or(rest);
    if rest == "0" {
        return Ok(Signed { negative, length: Duration::ZERO });
    }
    let mut length = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let seconds = match &rest[digits..digits + unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        length += number * seconds;
        rest = &rest[digits + unit..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Ok(Signed { negative, length: Duration::try_from_secs_f64(length).map_err(|_| wrong())? })
}

/// A length of time that may be below zero, so that the check can say so in the original's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) negative: bool,
    pub(crate) length: Duration,
}

impl Signed {
    /// The length, if it is above zero.
    pub(crate) fn positive(self) -> Option<Duration> {
        (!self.negative && !self.length.is_zero()).then_some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("30s", "30s"),
            ("1m30s", "90s"),
            ("500ms", "500ms"),
            ("1.5h", "5400s"),
            ("-1s", "-1s"),
            ("+1s", "1s"),
            ("0", "0ns"),
        ] {
            let Signed { negative, length } = parse(text).unwrap();
            assert_eq!(format!("{}{length:?}", if negative { "-" } else { "" }), expected, "{text}");
        }
        for text in ["", "30", "x", "3 s", "5d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
