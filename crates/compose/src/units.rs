//! Bytes, durations and modes as Compose writes them.

/// Reads an amount of bytes: a number with `b`, `k`, `m`, `g`, `t`, `p`, each also with `b` or `ib`. Base 1024, any case.
pub fn bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let end = text.find(|it: char| !(it.is_ascii_digit() || it == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let factor = 1_i64.checked_shl(10 * power)?;
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    // Beyond 2^53 a float does not hold every byte, and nobody's machine has as many.
    (value.is_finite() && value < 9e15).then_some(value as i64)
}

/// Nanoseconds of each unit, longest name first where one begins with another.
const DURATION_UNITS: [(&str, f64); 9] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3_600e9),
    ("d", 86_400e9),
    ("w", 604_800e9),
];

/// Reads a duration such as `1m30s` into nanoseconds. A bare number is refused, except 0.
pub fn duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|it: char| !(it.is_ascii_digit() || it == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, factor) = DURATION_UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * factor;
    }
    // i64 nanoseconds end after 292 years.
    (total < 9.2e18).then_some(total as i64)
}

/// Writes nanoseconds as Go writes a duration: `1h0m0s`, `1.5s`, `300ms`.
pub fn duration_text(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".into();
    }
    let (sign, value) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    let fraction = |value: u64, unit: u64| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if value < 1_000 {
        return format!("{sign}{value}ns");
    }
    if value < 1_000_000 {
        return format!("{sign}{}µs", fraction(value, 1_000));
    }
    if value < 1_000_000_000 {
        return format!("{sign}{}ms", fraction(value, 1_000_000));
    }
    let minutes = value / 60_000_000_000;
    let seconds = fraction(value % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration, duration_text};

    #[test]
    fn amounts_of_bytes() {
        let table = [
            ("0", Some(0)),
            ("512", Some(512)),
            ("1k", Some(1024)),
            ("1.5GB", Some(1_610_612_736)),
            ("64 MiB", Some(67_108_864)),
            ("2p", Some(2 << 50)),
            ("-1", None),
            ("1x", None),
            ("", None),
            ("9999999p", None),
        ];
        for (text, value) in table {
            assert_eq!(bytes(text), value, "{text}");
        }
    }

    #[test]
    fn durations_and_their_text() {
        let table = [
            ("1m30s", Some("1m30s")),
            ("90s", Some("1m30s")),
            ("1.5s", Some("1.5s")),
            ("300ms", Some("300ms")),
            ("1d", Some("24h0m0s")),
            ("1w2d", Some("216h0m0s")),
            ("10us", Some("10µs")),
            ("0", Some("0s")),
            ("30", None),
            ("s", None),
            ("", None),
            ("1x", None),
        ];
        for (text, wanted) in table {
            assert_eq!(duration(text).map(duration_text).as_deref(), wanted, "{text}");
        }
    }
}
