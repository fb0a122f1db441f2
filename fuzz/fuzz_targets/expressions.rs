//! Expressions of constraints and affinities, and whole create bodies with them.
#![no_main]

use herder_decide::expr::Expression;
use herder_decide::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(expression) = text.parse::<Expression>() {
        // What is shown is read back as the same.
        let again: Expression = expression.to_string().parse().expect("what an expression shows is an expression");
        assert_eq!(again, expression);
        let _ = expression.matcher().holds(["a", "zone-1", ""].into_iter());
    }
    if let Ok(body) = text.parse() {
        let _ = request::parse(None, body, "");
    }
});
