//! Reads answers whole, and what an error's answer says.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::{Body, BoxError, LinkError};

/// Reason why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum NotWhole {
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    #[error("it broke off: {0}")]
    Broken(BoxError),
}

impl NotWhole {
    /// The same, as an error of the connection to the engine at `url`.
    pub fn on(self, url: &str) -> LinkError {
        let source = match self {
            NotWhole::TooLarge(limit) => format!("the answer is larger than {limit} bytes").into(),
            NotWhole::Broken(source) => source,
        };
        LinkError::Broken { url: url.to_owned(), source }
    }
}

/// Reads a body whole, up to `limit` bytes.
pub async fn gather(mut body: Body, limit: usize) -> Result<Bytes, NotWhole> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(NotWhole::Broken)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(NotWhole::TooLarge(limit));
        }
        // Most bodies come in one piece, which needs no copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The `message` of an error in Docker's form, or the text itself.
pub fn error_message(answer: &[u8]) -> String {
    let value: Value = serde_json::from_slice(answer).unwrap_or_default();
    let message = value["message"].as_str().filter(|message| !message.is_empty());
    message.map_or_else(|| String::from_utf8_lossy(answer).trim().to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let check = async |text: &'static str, limit: usize| {
            gather(crate::full(text), limit).await.map_or_else(|error| error.to_string(), |it| format!("{it:?}"))
        };
        assert_eq!(check("abc", 3).await, r#"b"abc""#);
        assert_eq!(check("abcd", 3).await, "it is larger than 3 bytes");
        assert_eq!(check("", 0).await, r#"b"""#);
    }

    #[test]
    fn an_errors_message_is_dockers_or_the_text_itself() {
        let check = |answer: &str, expected: &str| assert_eq!(error_message(answer.as_bytes()), expected);
        check(r#"{"message":"no such image"}"#, "no such image");
        check(r#"{"message":""}"#, r#"{"message":""}"#);
        check("404 page not found\n", "404 page not found");
    }
}
