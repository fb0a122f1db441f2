//! Enumerations that are words in JSON, with the words of later releases.

use std::fmt;
use std::sync::RwLock;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a word. Docker's longest has 19.
const WORD_BYTES_MAX: usize = 64;
/// Unknown words that one process remembers, for good. A release adds a handful; more come from somebody who makes them up.
const WORDS_MAX: usize = 256;

/// Interned enumeration values that this release does not know.
static WORDS: RwLock<Vec<&'static str>> = RwLock::new(Vec::new());

/// A word that this release does not know. It takes one byte: tasks have two states each, and there may be a million of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(u8);

/// Reason why a word cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    #[error("a word of more than {WORD_BYTES_MAX} bytes")]
    TooLong,
    #[error("more than {WORDS_MAX} unknown words")]
    TooMany,
}

impl Word {
    pub fn new(text: &str) -> Result<Word, WordError> {
        if text.len() > WORD_BYTES_MAX {
            return Err(WordError::TooLong);
        }
        let find = |words: &[&'static str]| words.iter().position(|word| *word == text);
        let known = find(&WORDS.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        let at = match known {
            Some(at) => at,
            None => {
                let mut words = WORDS.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                match find(&words) {
                    Some(at) => at,
                    None if words.len() == WORDS_MAX => return Err(WordError::TooMany),
                    None => {
                        words.push(Box::leak(text.into()));
                        words.len() - 1
                    }
                }
            }
        };
        u8::try_from(at).map(Word).map_err(|_| WordError::TooMany)
    }

    pub fn as_str(self) -> &'static str {
        let words = WORDS.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        words.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Orders words by their texts, so that the order in which a process read them does not show.
impl Ord for Word {
    fn cmp(&self, other: &Word) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Word {
    fn partial_cmp(&self, other: &Word) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Defines an enumeration of strings. The variant after the `;` holds unknown strings and sorts last.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)* ; $(#[$other_meta:meta])* $other:ident
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
            $(#[$other_meta])* $other($crate::swarm::Word),
        }

        impl $name {
            /// Those that this release knows.
            pub const KNOWN: &[$name] = &[$($name::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                    $name::$other(word) => word.as_str(),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::swarm::WordError;

            fn from_str(text: &str) -> Result<$name, $crate::swarm::WordError> {
                Ok(match text {
                    $($word => $name::$variant,)*
                    other => $name::$other($crate::swarm::Word::new(other)?),
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                $crate::swarm::word::parse(deserializer)
            }
        }
    };
}
pub(crate) use words;

/// Reads a text as what it stands for.
pub(crate) fn parse<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err = WordError>,
{
    struct Words<T>(std::marker::PhantomData<T>);

    impl<T: std::str::FromStr<Err = WordError>> Visitor<'_> for Words<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a word")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Words(std::marker::PhantomData))
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl std::str::FromStr for Word {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Word, WordError> {
        Word::new(text)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
        parse(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::{Role, TaskState};

    #[test]
    fn words_of_a_later_release_are_kept() {
        for word in ["worker", "manager", "learner"] {
            let text = format!("\"{word}\"");
            let role: Role = serde_json::from_str(&text).expect("a word");
            assert_eq!((serde_json::to_string(&role).expect("JSON"), role.to_string()), (text, word.to_owned()));
        }
        let later: TaskState = "migrating".parse().expect("a word");
        assert!(later > TaskState::Orphaned && later == "migrating".parse().expect("the same"));
        assert!(size_of::<TaskState>() <= 2);
        assert_eq!(Word::new(&"x".repeat(WORD_BYTES_MAX + 1)), Err(WordError::TooLong));
        assert!(serde_json::from_str::<Role>("5").is_err());
    }
}
