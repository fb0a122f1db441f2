//! Cuts the event stream of an engine into JSON objects.

use bytes::{Buf as _, BytesMut};
use serde_json::Value;

/// An event larger than this is no event; the stream is given up and read anew.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Cuts a stream of JSON objects (with or without newlines between) into objects. Sans-I/O.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole object. An error means that the stream is malformed from here on.
    #[expect(clippy::should_implement_trait, reason = "it is no iterator: there may be more later")]
    pub fn next(&mut self) -> Result<Option<Value>, String> {
        let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                let read = values.byte_offset();
                self.buffer.advance(read);
                Ok(Some(value))
            }
            Some(Err(error)) if !error.is_eof() => Err(format!("the event stream is no JSON: {error}")),
            _ if self.buffer.len() > EVENT_BYTES_MAX => Err(format!("an event is larger than {EVENT_BYTES_MAX} bytes")),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_out_whole_however_the_bytes_are_cut() {
        let text = br#"{"a":1}{"b":"}{"}
 {"c":[1,2]}"#;
        for size in 1..text.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for chunk in text.chunks(size) {
                decoder.push(chunk);
                while let Some(value) = decoder.next().unwrap() {
                    seen.push(value.to_string());
                }
            }
            assert_eq!(seen, [r#"{"a":1}"#, r#"{"b":"}{"}"#, r#"{"c":[1,2]}"#], "chunks of {size}");
        }
    }

    #[test]
    fn nonsense_ends_the_stream() {
        let mut decoder = Decoder::default();
        decoder.push(b"<html>");
        assert!(decoder.next().unwrap_err().contains("no JSON"));
    }
}
