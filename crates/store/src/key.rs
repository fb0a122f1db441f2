//! Keys that lock a store: what `docker swarm unlock` asks for.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::StoreError;

const PREFIX: &str = "SWMKEY-1-";

/// A key-encryption key. Its text is `SWMKEY-1-` and 32 bytes in base64 without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    pub fn new(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// A new one, from the system's randomness.
    pub fn random() -> Key {
        Key(rand::random())
    }

    /// Returns the key as people see it. Not `Display`, so that it gets into no log by accident.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Key {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Key, StoreError> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| STANDARD_NO_PAD.decode(text).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Key).ok_or(StoreError::KeyForm)
    }
}

impl fmt::Debug for Key {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_text() {
        let check = |text: &str, good: bool| match text.parse::<Key>() {
            Ok(key) => assert!(good && key.text() == text, "{text}"),
            Err(error) => assert!(!good && error.to_string() == "invalid key string", "{text}"),
        };
        check(&Key::random().text(), true);
        check("SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", true);
        check("SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", false);
        check("SWMKEY-1-AAAA", false);
        check("SWMKEY-2-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", false);
        check("", false);
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Key::new([7; 32])), "Key(…)");
    }
}
