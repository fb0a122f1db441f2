//! Join codes: what a new node must know of a pool, in one line that can be copied.
//!
//! The form is that of Docker's join tokens (`SWMTKN-1-…`, SwarmKit): the digest of the CA's certificate, by which the
//! newcomer knows the pool, and a secret, by which the pool knows the newcomer.

use std::fmt;
use std::str::FromStr;

use ring::digest;
use subtle::ConstantTimeEq as _;

const PREFIX: &str = "SWMTKN-1-";
/// Digits of the root's fingerprint (256 bits in base 36).
const DIGEST_DIGITS: usize = 50;
/// Digits of the secret (128 bits in base 36).
const SECRET_DIGITS: usize = 25;

/// SHA-256 of a certificate in DER.
pub(crate) type Fingerprint = [u8; 32];

/// Secret by which a pool recognises a newcomer.
pub type Secret = [u8; 16];

/// A join code.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCode {
    pub(crate) ca: Fingerprint,
    pub(crate) secret: Secret,
}

/// Reason why a text is not a join code. Does not quote the text, which holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinCodeError {
    #[error("a join code begins with {PREFIX}; `herder token` on a node of the pool prints it")]
    Prefix,
    #[error(
        "the join code is cut or damaged: after {PREFIX} come {DIGEST_DIGITS} and {SECRET_DIGITS} digits, joined by a hyphen"
    )]
    Form,
}

impl JoinCode {
    /// True if both are of one pool: its code may have been changed between them.
    pub fn of_same_pool(&self, other: &JoinCode) -> bool {
        self.ca == other.ca
    }

    /// Another code of the same pool.
    pub fn with_secret(&self, secret: Secret) -> JoinCode {
        JoinCode { ca: self.ca, secret }
    }

    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// True if both hold the same secret; takes the same time whatever they hold.
    pub fn has_secret_of(&self, other: &JoinCode) -> bool {
        same_secret(&self.secret, &other.secret)
    }

    /// Hexadecimal digest of the CA's certificate, as swarm mode writes it in messages.
    pub fn ca_digest(&self) -> String {
        self.ca.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", encode(&self.ca, DIGEST_DIGITS), encode(&self.secret, SECRET_DIGITS))
    }
}

impl fmt::Debug for JoinCode {
    /// The secret stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-…", encode(&self.ca, DIGEST_DIGITS))
    }
}

impl FromStr for JoinCode {
    type Err = JoinCodeError;

    fn from_str(text: &str) -> Result<JoinCode, JoinCodeError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(JoinCodeError::Prefix)?;
        let (ca, secret) = rest.split_once('-').ok_or(JoinCodeError::Form)?;
        let ca = (ca.len() == DIGEST_DIGITS).then(|| decode(ca)).flatten();
        let secret = (secret.len() == SECRET_DIGITS).then(|| decode(secret)).flatten();
        Ok(JoinCode { ca: ca.ok_or(JoinCodeError::Form)?, secret: secret.ok_or(JoinCodeError::Form)? })
    }
}

/// The fingerprint of a certificate in DER.
pub(crate) fn fingerprint(der: &[u8]) -> Fingerprint {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    out
}

/// Compares two secrets in constant time.
pub fn same_secret(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// A big-endian number in base 36, padded with zeros.
pub(crate) fn encode(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut text = vec![b'0'; digits];
    for place in text.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            (*byte, rest) = ((value / 36) as u8, value % 36);
        }
        *place = b"0123456789abcdefghijklmnopqrstuvwxyz"[rest as usize];
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The number back; nothing if it is larger than `N` bytes or a digit is none.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0u8; N];
    for digit in text.chars() {
        let mut carry = digit.to_digit(36).filter(|_| !digit.is_ascii_uppercase())?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            (*byte, carry) = ((value & 0xff) as u8, value >> 8);
        }
        if carry > 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), JoinCodeError>) {
        assert_eq!(text.parse::<JoinCode>().map(drop), expected, "{text}");
    }

    #[test]
    fn only_whole_codes_are_codes() {
        let code = JoinCode { ca: [255; 32], secret: [1; 16] }.to_string();
        check(&code, Ok(()));
        check(&format!("{code}\n"), Ok(()));
        check(&code[..code.len() - 1], Err(JoinCodeError::Form));
        check(&code[..60], Err(JoinCodeError::Form));
        check(&code.replace('-', "_"), Err(JoinCodeError::Prefix));
        check(&code.to_uppercase(), Err(JoinCodeError::Form));
        check(&format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25)), Err(JoinCodeError::Form));
        check("", Err(JoinCodeError::Prefix));
    }

    #[test]
    fn the_secret_is_not_in_the_debug_form() {
        let code = JoinCode { ca: [0; 32], secret: [7; 16] };
        let secret = code.to_string().rsplit('-').next().unwrap_or_default().to_owned();
        assert!(!format!("{code:?}").contains(&secret));
    }

    proptest! {
        #[test]
        fn a_code_is_read_as_it_was_written(ca: [u8; 32], secret: [u8; 16]) {
            let code = JoinCode { ca, secret };
            prop_assert_eq!(code.to_string().parse::<JoinCode>(), Ok(code));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = text.parse::<JoinCode>();
        }
    }
}
