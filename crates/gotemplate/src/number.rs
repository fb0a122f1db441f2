//! Numbers printed as Go prints them.

use crate::print::{Spec, quote_char};

/// An integer by one verb.
pub(crate) fn int(number: i64, verb: char, spec: &Spec) -> Option<String> {
    let (radix, upper) = match verb {
        'v' | 'd' => (10, false),
        'b' => (2, false),
        'o' | 'O' => (8, false),
        'x' => (16, false),
        'X' => (16, true),
        'c' | 'q' | 'U' => return character(number, verb, spec),
        _ => return None,
    };
    let absolute = number.unsigned_abs();
    let mut digits = match (radix, upper) {
        (2, _) => format!("{absolute:b}"),
        (8, _) => format!("{absolute:o}"),
        (16, false) => format!("{absolute:x}"),
        (16, true) => format!("{absolute:X}"),
        _ => absolute.to_string(),
    };
    let sign = match (number < 0, spec.plus, spec.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    // A precision says how many digits; zeros of a width are digits, too.
    let mut least = spec.precision;
    if least == Some(0) && number == 0 {
        return Some(Spec { zero: false, ..*spec }.pad(""));
    }
    if least.is_none() && spec.zero && !spec.minus {
        least = spec.width.map(|width| width.saturating_sub(sign.len()));
    }
    let missing = least.unwrap_or(0).saturating_sub(digits.len());
    digits.insert_str(0, &"0".repeat(missing));
    let prefix = match (verb, spec.sharp) {
        ('O', _) => "0o",
        ('b', true) => "0b",
        ('o', true) if !digits.starts_with('0') => "0",
        ('x', true) => "0x",
        ('X', true) => "0X",
        _ => "",
    };
    Some(Spec { zero: false, ..*spec }.pad(&format!("{sign}{prefix}{digits}")))
}

fn character(number: i64, verb: char, spec: &Spec) -> Option<String> {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let spec = Spec { zero: spec.zero && verb == 'c', ..*spec };
    match verb {
        'c' => Some(spec.pad(&c.to_string())),
        'q' => Some(spec.pad(&quote_char(c, spec.plus))),
        _ => {
            let least = spec.precision.unwrap_or(4).max(4);
            let mut text = format!("U+{number:0least$X}");
            if spec.sharp {
                text.push_str(&format!(" '{c}'"));
            }
            Some(spec.pad(&text))
        }
    }
}

/// A float by one verb.
pub(crate) fn float(number: f64, verb: char, spec: &Spec) -> Option<String> {
    let precision = match verb {
        'v' | 'g' | 'G' => spec.precision,
        'e' | 'E' | 'f' | 'F' => Some(spec.precision.unwrap_or(6)),
        // With digits of base 2 and 16 nobody asks for a precision.
        'b' | 'x' | 'X' if spec.precision.is_none() => None,
        _ => return None,
    };
    if !number.is_finite() {
        let sign = if number < 0.0 {
            "-"
        } else if spec.plus {
            "+"
        } else if spec.space {
            " "
        } else {
            ""
        };
        let text = if number.is_nan() { "NaN" } else { "Inf" };
        let sign = if number == f64::INFINITY && sign.is_empty() { "+" } else { sign };
        return Some(Spec { zero: false, ..*spec }.pad(&format!("{sign}{text}")));
    }
    let absolute = number.abs();
    let mut digits = match verb {
        'e' | 'E' => exponential(absolute, precision.unwrap_or(6)),
        'f' | 'F' => format!("{absolute:.*}", precision.unwrap_or(6)),
        'b' => binary(absolute),
        'x' | 'X' => hexadecimal(absolute),
        _ => general(absolute, precision, spec.sharp),
    };
    if matches!(verb, 'E' | 'G' | 'X') {
        digits = digits.to_uppercase();
    }
    if spec.sharp && matches!(verb, 'e' | 'E' | 'f' | 'F') && !digits.contains('.') {
        let end = digits.find(['e', 'E']).unwrap_or(digits.len());
        digits.insert(end, '.');
    }
    let negative = number.is_sign_negative();
    let sign = match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    if spec.zero && !spec.minus {
        let room = spec.width.unwrap_or(0).saturating_sub(sign.len() + digits.len());
        return Some(format!("{sign}{}{digits}", "0".repeat(room)));
    }
    Some(spec.pad(&format!("{sign}{digits}")))
}

/// The mantissa and the exponent of two of a float that is not negative.
fn parts(number: f64) -> (u64, i64) {
    let bits = number.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), i64::try_from(bits >> 52).unwrap_or(0));
    if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) }
}

/// `7881299347898368p-51`.
fn binary(number: f64) -> String {
    let (mantissa, exponent) = parts(number);
    format!("{mantissa}p{exponent:+}")
}

/// `0x1.cp+01`.
fn hexadecimal(number: f64) -> String {
    let (mut mantissa, mut exponent) = parts(number);
    if mantissa == 0 {
        return "0x0p+00".to_owned();
    }
    // The first digit is 1.
    let shift = mantissa.leading_zeros() - 11;
    mantissa <<= shift;
    exponent += 52 - i64::from(shift);
    let digits = format!("{:013x}", mantissa & ((1 << 52) - 1));
    let digits = digits.trim_end_matches('0');
    let (dot, sign) = (if digits.is_empty() { "" } else { "." }, if exponent < 0 { '-' } else { '+' });
    format!("0x1{dot}{digits}p{sign}{:02}", exponent.abs())
}

/// `1.5e+00`.
fn exponential(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    with_exponent(&text)
}

/// Gives a number in Rust's form Go's exponent: a sign and two digits.
fn with_exponent(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Formats as `%g`. The result has the shortest digits that mean the number, or a given number of them, with an
/// exponent where it is large or small.
fn general(number: f64, precision: Option<usize>, sharp: bool) -> String {
    let shortest = format!("{number:e}");
    let rounded = precision.map(|precision| format!("{number:.*e}", precision.max(1) - 1));
    let (mantissa, exponent) = rounded.as_deref().unwrap_or(&shortest).split_once('e').unwrap_or(("0", "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let wanted = precision.map_or(6, |precision| precision.max(1));
    if !sharp {
        let kept = digits.trim_end_matches('0').len().max(1);
        digits.truncate(kept);
    } else if precision.is_none() {
        digits.push_str(&"0".repeat(6usize.saturating_sub(digits.len())));
    }
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    // Go: a precision beyond the digits that there are does not call for an exponent sooner.
    let mut bound = i64::try_from(wanted).unwrap_or(i64::MAX);
    if precision.is_some() && bound > length && length > exponent {
        bound = length;
    }
    if precision.is_none() {
        bound = 6;
    }
    if exponent < -4 || exponent >= bound {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        return with_exponent(&format!("{first}{dot}{rest}e{exponent}"));
    }
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        return format!("0.{}{digits}", "0".repeat(zeros));
    }
    let before = usize::try_from(exponent + 1).unwrap_or(1);
    if digits.len() <= before {
        return format!("{digits}{}", "0".repeat(before - digits.len()));
    }
    format!("{}.{}", &digits[..before], &digits[before..])
}
