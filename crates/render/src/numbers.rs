//! Arithmetic and sequences of templates. Pure.

use herder_gotemplate::Value;

/// A loop longer than this makes no configuration.
const LOOP_MAX: i64 = 100_000;

/// One operation on two numbers; whole ones stay whole.
pub(crate) fn arithmetic(operation: &str, first: &Value, second: &Value) -> Result<Value, String> {
    let wrong = |value: &Value| format!("{} is no number", herder_gotemplate::text_of(value));
    if let (Value::Number(first), Value::Number(second)) = (first, second) {
        let result = match operation {
            "add" => first.checked_add(*second),
            "subtract" => first.checked_sub(*second),
            "multiply" => first.checked_mul(*second),
            "divide" => first.checked_div(*second),
            _ => first.checked_rem(*second),
        };
        return result.map(Value::Number).ok_or_else(|| match *second {
            0 if matches!(operation, "divide" | "modulo") => "division by zero".to_owned(),
            _ => format!("{first} {operation} {second} is too large"),
        });
    }
    let float = |value: &Value| match value {
        #[expect(clippy::cast_precision_loss, reason = "as Go converts it")]
        Value::Number(number) => Ok(*number as f64),
        Value::Float(number) => Ok(*number),
        other => Err(wrong(other)),
    };
    let (first, second) = (float(first)?, float(second)?);
    match operation {
        "add" => Ok(Value::Float(first + second)),
        "subtract" => Ok(Value::Float(first - second)),
        "multiply" => Ok(Value::Float(first * second)),
        "divide" if second == 0.0 => Err("division by zero".to_owned()),
        "divide" => Ok(Value::Float(first / second)),
        _ => Err("modulo is for whole numbers".to_owned()),
    }
}

/// The numbers from `from` to the one before `to`.
pub(crate) fn range(from: i64, to: i64) -> Result<Value, String> {
    if to.saturating_sub(from) > LOOP_MAX {
        return Err(format!("a loop over more than {LOOP_MAX} numbers"));
    }
    Ok(Value::list_of("[]int", (from..to).map(Value::Number).collect()))
}
