//! A label that tells whether the content of a secret changed, without telling the content.
//!
//! Nobody can read a secret back, so its content is compared by a digest in a label. Labels are readable, so the digest
//! is a slow one with a salt (PBKDF2-HMAC-SHA256): guessing a weak password costs as much as against a password file.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::pbkdf2;

/// The label of a secret or config with the digest of its content.
pub(crate) const DIGEST_LABEL: &str = "herder.digest";

/// Rounds of the digest: some 50 ms of one core, once for each secret of a deployment.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
const ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;

/// The digest of `data` with a salt of its own.
pub(crate) fn seal(data: &[u8], salt: [u8; 16]) -> String {
    let mut digest = [0; 32];
    pbkdf2::derive(ALGORITHM, ROUNDS, &salt, data, &mut digest);
    format!("pbkdf2-sha256:{ROUNDS}:{}:{}", BASE64.encode(salt), BASE64.encode(digest))
}

/// True if `label` is the digest of `data`.
pub(crate) fn is_seal_of(label: &str, data: &[u8]) -> bool {
    let mut parts = label.split(':');
    let (Some("pbkdf2-sha256"), Some(rounds), Some(salt), Some(digest)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let (Ok(rounds), Ok(salt), Ok(digest)) = (rounds.parse::<NonZeroU32>(), BASE64.decode(salt), BASE64.decode(digest))
    else {
        return false;
    };
    // A label that somebody else wrote must not cost minutes.
    rounds <= ROUNDS && pbkdf2::verify(ALGORITHM, rounds, &salt, data, &digest).is_ok()
}

/// The label and its value that stand for the content of a config. They are compared where a target does
/// not show the content.
pub fn config_digest(data: &[u8]) -> (&'static str, String) {
    let digest = ring::digest::digest(&ring::digest::SHA256, data);
    let digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    (DIGEST_LABEL, format!("sha256:{digits}"))
}

/// Eight hexadecimal digits of a digest, for the name of another version of an object.
pub(crate) fn short(data: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, data);
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{is_seal_of, seal};

    #[test]
    fn a_seal_fits_its_content_only() {
        let label = seal(b"content", [7; 16]);
        assert!(is_seal_of(&label, b"content"));
        assert!(!is_seal_of(&label, b"other"));
        assert!(!is_seal_of("pbkdf2-sha256:4000000000:AA:AA", b"content"));
        assert!(!is_seal_of("", b""));
    }
}
