//! Changes of the join code: each makes a new secret, and the newest is in force in the whole pool.

use std::fmt;
use std::time::SystemTime;

use crate::join_code::{self, Secret};

/// The longest form of [`Rotation::fact`]: 13 and 25 digits and a point.
pub const FACT_BYTES_MAX: usize = 39;
/// Digits of the creation time (64 bits in base 36).
const MADE_DIGITS: usize = 13;
/// Digits of the secret (128 bits in base 36).
const SECRET_DIGITS: usize = 25;

/// A secret of the pool's join code with its age. The greater one is in force: the newer, and of two that two nodes made in
/// the same millisecond the one with the greater secret, so that all nodes agree without asking.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rotation {
    /// Milliseconds since 1970; 0 for the secret that the pool began with.
    pub(crate) made: u64,
    pub(crate) secret: Secret,
}

impl fmt::Debug for Rotation {
    /// The secret stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotation").field("made", &self.made).finish_non_exhaustive()
    }
}

impl Rotation {
    /// A new secret. It counts more than this one also where a clock goes wrong.
    pub(crate) fn next(self, now: SystemTime) -> Rotation {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let made = u64::try_from(since).unwrap_or(u64::MAX).max(self.made.saturating_add(1));
        Rotation { made, secret: rand::random() }
    }

    /// True if the code was changed at all since the pool began.
    pub fn is_first(self) -> bool {
        self.made == 0
    }

    /// Encodes the rotation as nodes send it, sealed. Holds the secret: not for logs.
    pub fn fact(self) -> String {
        let made = join_code::encode(&self.made.to_be_bytes(), MADE_DIGITS);
        format!("{made}.{}", join_code::encode(&self.secret, SECRET_DIGITS))
    }

    /// Decodes a rotation of another node; `None` if this version does not understand it.
    pub fn of_fact(fact: &str) -> Option<Rotation> {
        let (made, secret) = fact.split_once('.')?;
        let sized = made.len() == MADE_DIGITS && secret.len() == SECRET_DIGITS;
        let made = u64::from_be_bytes(join_code::decode(made).filter(|_| sized)?);
        Some(Rotation { made, secret: join_code::decode(secret)? })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rotation() -> impl Strategy<Value = Rotation> {
        // Few values, so that ties are common.
        (prop_oneof![0..4u64, any::<u64>()], prop_oneof![0..3u8, any::<u8>()])
            .prop_map(|(made, byte)| Rotation { made, secret: [byte; 16] })
    }

    #[track_caller]
    fn check(fact: &str, expected: Option<u64>) {
        assert_eq!(Rotation::of_fact(fact).map(|rotation| rotation.made), expected, "{fact}");
    }

    #[test]
    fn only_whole_facts_are_understood() {
        let fact = Rotation { made: 1_700_000_000_000, secret: [7; 16] }.fact();
        check(&fact, Some(1_700_000_000_000));
        check(&fact[1..], None);
        check(&fact[..fact.len() - 1], None);
        check(&format!("{fact}.more"), None);
        check(&fact.replace('.', "-"), None);
        check(&fact.to_uppercase(), None);
        check(&format!("{}.{}", "z".repeat(13), "0".repeat(25)), None);
        check("", None);
    }

    #[test]
    fn a_change_counts_more_than_what_was_also_when_the_clock_goes_back() {
        let now = SystemTime::now();
        let first = Rotation { made: 0, secret: [255; 16] };
        let second = first.next(now);
        let third = second.next(now - Duration::from_secs(1000));
        assert!(first < second && second < third && first.is_first() && !second.is_first());
        assert!(second.secret != third.secret);
    }

    #[test]
    fn the_secret_is_not_in_the_debug_form() {
        let rotation = Rotation { made: 5, secret: [7; 16] };
        assert_eq!(format!("{rotation:?}"), "Rotation { made: 5, .. }");
    }

    proptest! {
        #[test]
        fn a_fact_is_read_as_it_was_told(rotation in rotation()) {
            prop_assert!(rotation.fact().len() <= FACT_BYTES_MAX);
            prop_assert_eq!(Rotation::of_fact(&rotation.fact()), Some(rotation));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*", digits in "[0-9a-z]{13}\\.[0-9a-z]{25}") {
            let _ = (Rotation::of_fact(&text), Rotation::of_fact(&digits));
        }
    }
}
