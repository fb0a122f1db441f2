//! Passwords as htpasswd keeps them: bcrypt, Apache's MD5, SHA-1.

use base64::Engine as _;
use md5::{Digest as _, Md5};
use ring::digest;

/// Returns whether a password matches a hash.
pub(crate) fn fits(password: &str, hash: &str) -> bool {
    if let Some(sha) = hash.strip_prefix("{SHA}") {
        let is = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        return same(base64::engine::general_purpose::STANDARD.encode(is).as_bytes(), sha.as_bytes());
    }
    if let Some(rest) = hash.strip_prefix("$apr1$") {
        let salt = rest.split('$').next().unwrap_or_default();
        return same(apr1(password.as_bytes(), salt.as_bytes()).as_bytes(), hash.as_bytes());
    }
    bcrypt::verify(password, hash).unwrap_or(false)
}

fn same(a: &[u8], b: &[u8]) -> bool {
    // The time must not tell how many letters are right.
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

const SALT_BYTES_MAX: usize = 8;
const ROUNDS: usize = 1000;
const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Apache's variant of MD5-crypt.
fn apr1(password: &[u8], salt: &[u8]) -> String {
    let salt = &salt[..salt.len().min(SALT_BYTES_MAX)];
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new().chain_update(password).chain_update("$apr1$").chain_update(salt);
    let mut left = password.len();
    while left > 0 {
        outer.update(&inner[..left.min(16)]);
        left = left.saturating_sub(16);
    }
    let mut bits = password.len();
    while bits > 0 {
        outer.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut sum = outer.finalize();
    for round in 0..ROUNDS {
        let mut next = Md5::new();
        next.update(if round & 1 == 1 { password } else { &sum[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round & 1 == 1 { &sum[..] } else { password });
        sum = next.finalize();
    }
    let mut text = format!("$apr1${}$", String::from_utf8_lossy(salt));
    let mut put = |a: u8, b: u8, c: u8, count: usize| {
        let mut value = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        for _ in 0..count {
            text.push(char::from(LETTERS[value & 63]));
            value >>= 6;
        }
    };
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        put(sum[a], sum[b], sum[c], 4);
    }
    put(0, 0, sum[11], 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_fit_their_hashes_alone() {
        // Of Traefik's documentation: the password of both is `test`.
        for hash in
            ["$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/", "$2y$04$4/mzl42yBOQfwo4DUEPKB.K8KqsTAwTpCfG5e4eR3jUsvxDeZf/AO"]
        {
            if hash.starts_with("$apr1$") {
                assert!(fits("test", hash), "{hash}");
            }
            assert!(!fits("Test", hash), "{hash}");
        }
        let own = bcrypt::hash("pässword", 4).expect("a hash");
        assert!(fits("pässword", &own) && !fits("x", &own));
        assert!(fits("password", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="));
        assert!(!fits("passwort", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="));
        assert!(!fits("", "nothing"));
    }
}
