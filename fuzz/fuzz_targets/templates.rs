//! Templates of Go: whatever they hold, they come to an end within their limits.
#![no_main]

use herder_gotemplate::{Functions, Options, Signature, Template, Value};

struct NoFunctions;

impl Functions for NoFunctions {
    fn signature(&self, _: &str) -> Option<Signature> {
        None
    }

    fn call(&self, name: &str, _: &[Value]) -> Result<Value, String> {
        Err(format!("{name} is not there"))
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let options = Options { bytes_max: 1 << 16, ..Options::default() };
    let Ok(template) = Template::parse(text, &NoFunctions, options) else { return };
    let pairs = [("key".to_owned(), "value".to_owned()), ("b".to_owned(), String::new())];
    let fields = vec![("S", "text".into()), ("N", Value::Number(42)), ("L", Value::texts(["a", "b"])), ("M", Value::text_map(pairs))];
    let _ = template.execute(&Value::structure("Root", fields), &NoFunctions);
});
