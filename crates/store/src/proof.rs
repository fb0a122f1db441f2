//! Proof of a manager to one that does not know it yet: nodes without the role use the same channel.
//!
//! All managers have a key in their state that nobody else gets. Who has just been made one is unknown to those that are behind,
//! and they must listen to it all the same: it may be the one that a majority needs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hmac;

use crate::raft::Member;

const PLACE: &str = "herder manager ";

/// Returns the proof that `member` shows. It is useless to others, since the sender is authenticated.
pub(crate) fn of(key: &str, member: &Member) -> String {
    STANDARD_NO_PAD.encode(hmac::sign(&hmac_key(key), text(member).as_bytes()))
}

pub(crate) fn holds(key: &str, member: &Member, proof: &str) -> bool {
    let proof = STANDARD_NO_PAD.decode(proof).unwrap_or_default();
    hmac::verify(&hmac_key(key), text(member).as_bytes(), &proof).is_ok()
}

fn text(member: &Member) -> String {
    format!("{PLACE}{member}")
}

fn hmac_key(key: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_one_member_and_one_key() {
        let (one, two) = (Member::new("one"), Member::new("two"));
        let check = |key: &str, member: &Member, proof: &str, expected: bool| {
            assert_eq!(holds(key, member, proof), expected, "{key} {member} {proof}");
        };
        let proof = of("key", &one);
        check("key", &one, &proof, true);
        check("key", &two, &proof, false);
        check("another", &one, &proof, false);
        check("key", &one, &proof[1..], false);
        check("key", &one, "", false);
    }
}
