//! Sealing of data on disk: AES-256-GCM, under keys derived from one secret.
//!
//! Each sealer (one for each start of a program) draws a random salt, derives a key of its own from the secret and the salt
//! (HMAC-SHA256), and counts what it seals: no nonce is used twice under a key, however long the secret lives.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
/// Version, salt, counter.
const HEAD_BYTES: usize = 1 + SALT_BYTES + 8;

/// Maximum number of cached keys. Each start of the store uses a new salt, and so a new key.
const SALTS_MAX: usize = 256;

type Salt = [u8; SALT_BYTES];

/// Reason why a value could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsealed {
    #[error("it is {0} bytes long, which is too short")]
    Short(usize),
    #[error("it has version {0}, which this version of herder does not know")]
    Version(u8),
    #[error("its seal is broken: it was changed, or another key made it")]
    Broken,
}

pub(crate) struct Sealer {
    secret: hmac::Key,
    salt: Salt,
    key: LessSafeKey,
    sealed: AtomicU64,
    known: Mutex<HashMap<Salt, Arc<LessSafeKey>>>,
}

impl fmt::Debug for Sealer {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    pub(crate) fn new(secret: &[u8; 32]) -> Sealer {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let salt = rand::random();
        let key = derive(&secret, &salt);
        Sealer { secret, salt, key, sealed: AtomicU64::new(0), known: Mutex::default() }
    }

    /// `place` says what this is; it opens only with the same.
    pub(crate) fn seal(&self, place: &str, plain: &[u8]) -> Vec<u8> {
        let count = self.sealed.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut sealed = Vec::with_capacity(HEAD_BYTES + plain.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.salt);
        sealed.extend_from_slice(&count);
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(nonce(count), Aad::from(place.as_bytes()), &mut body)
            .expect("AES-GCM seals up to 64 GiB");
        sealed.extend_from_slice(&body);
        sealed
    }

    pub(crate) fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealed> {
        let Some((head, body)) = sealed.split_at_checked(HEAD_BYTES) else {
            return Err(Unsealed::Short(sealed.len()));
        };
        if head[0] != VERSION {
            return Err(Unsealed::Version(head[0]));
        }
        let mut salt = Salt::default();
        salt.copy_from_slice(&head[1..1 + SALT_BYTES]);
        let mut count = [0; 8];
        count.copy_from_slice(&head[1 + SALT_BYTES..]);
        let mut body = body.to_vec();
        let key = self.key_of(&salt);
        let plain = key.open_in_place(nonce(count), Aad::from(place.as_bytes()), &mut body);
        let length = plain.map_err(|_| Unsealed::Broken)?.len();
        body.truncate(length);
        Ok(body)
    }

    fn key_of(&self, salt: &Salt) -> Arc<LessSafeKey> {
        let mut known = self.known.lock();
        if known.len() > SALTS_MAX {
            known.clear();
        }
        Arc::clone(known.entry(*salt).or_insert_with(|| Arc::new(derive(&self.secret, salt))))
    }
}

fn derive(secret: &hmac::Key, salt: &Salt) -> LessSafeKey {
    let key = hmac::sign(secret, salt);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("SHA-256 gives 32 bytes"))
}

fn nonce(count: [u8; 8]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&count);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_its_secret_and_place_only() {
        let (one, again, other) = (Sealer::new(&[1; 32]), Sealer::new(&[1; 32]), Sealer::new(&[2; 32]));
        let sealed = one.seal("log 1", b"canary");
        assert!(!sealed.windows(6).any(|bytes| bytes == b"canary"));
        assert_ne!(sealed, one.seal("log 1", b"canary"), "a nonce was used twice");
        let check = |sealer: &Sealer, place: &str, sealed: &[u8], expected: Result<&[u8], Unsealed>| {
            assert_eq!(sealer.open(place, sealed).as_deref(), expected.as_ref().copied(), "{place}");
        };
        check(&one, "log 1", &sealed, Ok(b"canary"));
        check(&again, "log 1", &sealed, Ok(b"canary"));
        check(&one, "log 2", &sealed, Err(Unsealed::Broken));
        check(&other, "log 1", &sealed, Err(Unsealed::Broken));
        check(&one, "log 1", &sealed[..HEAD_BYTES - 1], Err(Unsealed::Short(HEAD_BYTES - 1)));
        for index in 0..sealed.len() {
            let mut garbled = sealed.clone();
            garbled[index] ^= 1;
            assert!(one.open("log 1", &garbled).is_err(), "byte {index}");
        }
    }
}
