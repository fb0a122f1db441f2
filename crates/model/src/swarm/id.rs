//! Ids as keys of tables.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};

/// An id has 25 characters. Longer texts are somewhere else.
const SHORT_MAX: usize = 30;

/// An id that lies in its table itself. A write copies the nodes of a table that lead to it, with all keys in them: as texts
/// each would be asked of the memory anew, and each comparison would go and fetch one.
#[derive(Clone)]
pub struct Id(Text);

#[derive(Clone)]
enum Text {
    Short(u8, [u8; SHORT_MAX]),
    Long(Arc<str>),
}

impl Id {
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // It was a text.
            Text::Short(..) => std::str::from_utf8(self.bytes()).unwrap_or_default(),
            Text::Long(text) => text,
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Short(length, bytes) => &bytes[..usize::from(*length)],
            Text::Long(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Id {
        let mut bytes = [0; SHORT_MAX];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(short), Ok(length)) => {
                short.copy_from_slice(text.as_bytes());
                Id(Text::Short(length, bytes))
            }
            _ => Id(Text::Long(text.into())),
        }
    }
}

impl From<&String> for Id {
    fn from(text: &String) -> Id {
        Id::from(text.as_str())
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Texts are in the order of their bytes.
impl Ord for Id {
    fn cmp(&self, other: &Id) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Id) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Id) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Id {}

macro_rules! is_found_by {
    ($($text:ty),*) => {$(
        impl Equivalent<Id> for $text {
            fn equivalent(&self, id: &Id) -> bool {
                self.as_bytes() == id.bytes()
            }
        }

        impl Comparable<Id> for $text {
            fn compare(&self, id: &Id) -> Ordering {
                self.as_bytes().cmp(id.bytes())
            }
        }

        impl PartialEq<$text> for Id {
            fn eq(&self, other: &$text) -> bool {
                self.bytes() == other.as_bytes()
            }
        }
    )*};
}

is_found_by!(str, String);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_its_text(one in "\\PC{0,40}", other in "[a-c]{0,40}") {
            let ids = [&one, &other].map(Id::from);
            prop_assert_eq!((ids[0].as_str(), ids[1].as_str()), (&*one, &*other));
            prop_assert_eq!(ids[0].cmp(&ids[1]), one.cmp(&other));
            prop_assert_eq!(one.compare(&ids[1]), one.cmp(&other));
            prop_assert_eq!(one.equivalent(&ids[1]), one == other);
        }
    }
}
