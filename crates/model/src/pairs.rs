//! A compact map from text to text. A map of the standard library takes half a kilobyte for two labels, and a large
//! pool has tens of thousands of such maps.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Keys and values that do not change any more. Each key once, in order.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Pairs(Box<[(Box<str>, Box<str>)]>);

impl Pairs {
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        Some(&*self.0[at].1)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(_, value)| value)
    }

    /// Copies the pairs into a map that can grow.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl From<Pairs> for BTreeMap<String, String> {
    fn from(pairs: Pairs) -> BTreeMap<String, String> {
        pairs.to_map()
    }
}

impl From<BTreeMap<String, String>> for Pairs {
    fn from(map: BTreeMap<String, String>) -> Pairs {
        Pairs(map.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl FromIterator<(String, String)> for Pairs {
    /// Collects pairs; of several values for one key the last one counts.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Pairs {
        pairs.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<const N: usize> From<[(String, String); N]> for Pairs {
    fn from(pairs: [(String, String); N]) -> Pairs {
        pairs.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_any_order_and_the_last_value_counts() {
        let pairs = |list: &[(&str, &str)]| -> Pairs {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let some = pairs(&[("zone", "a"), ("disk", "ssd"), ("zone", "b")]);
        assert_eq!(some, pairs(&[("disk", "ssd"), ("zone", "b")]));
        assert_eq!((some.get("zone"), some.get("disk"), some.get("z")), (Some("b"), Some("ssd"), None));
        assert_eq!(some.values().collect::<Vec<_>>(), ["ssd", "b"]);
        assert_eq!(Pairs::from(some.to_map()), some);
        assert_eq!(format!("{some:?}"), r#"{"disk": "ssd", "zone": "b"}"#);
    }
}
