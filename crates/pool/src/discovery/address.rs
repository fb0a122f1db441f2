//! Addresses of engines as text: `host:port`, and ranges of them. Pure.

use std::collections::BTreeSet;

/// Addresses that one list may have, ranges expanded. A range with a slip of the finger must not eat the memory.
pub const ADDRESSES_MAX: usize = 10_000;

/// Reason why a text is not an address. The first two are classic Swarm's own sentences.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "address {0}: missing port in address, please check you are using the correct discovery (missing token:// ?)"
    )]
    NoPort(String),
    #[error(
        "address {0}: too many colons in address, please check you are using the correct discovery (missing token:// ?)"
    )]
    Colons(String),
    #[error("address {addr}: {port:?} is no port from 1 to 65535")]
    Port { addr: String, port: String },
    #[error("address {0}: there is no host before the port")]
    NoHost(String),
    #[error("range [{from}:{to}] in {pattern} runs backwards")]
    Backwards { pattern: String, from: u64, to: u64 },
    #[error("{0} makes the list longer than {ADDRESSES_MAX} addresses")]
    TooMany(String),
}

/// All addresses of a list of patterns.
pub(super) fn parse_all<'p>(patterns: impl Iterator<Item = &'p str>) -> Result<BTreeSet<String>, AddressError> {
    let mut all = BTreeSet::new();
    for pattern in patterns {
        for addr in expand(pattern)? {
            check(&addr)?;
            all.insert(addr);
        }
        if all.len() > ADDRESSES_MAX {
            return Err(AddressError::TooMany(pattern.to_owned()));
        }
    }
    Ok(all)
}

/// `10.0.0.[1:3]:2375` → three addresses; decimal, both ends included, no zeros in front. What has no range stays as it is.
pub fn expand(pattern: &str) -> Result<Vec<String>, AddressError> {
    let Some((before, from, to, after)) = range(pattern) else { return Ok(vec![pattern.to_owned()]) };
    if from > to {
        return Err(AddressError::Backwards { pattern: pattern.to_owned(), from, to });
    }
    if to - from >= ADDRESSES_MAX as u64 {
        return Err(AddressError::TooMany(pattern.to_owned()));
    }
    Ok((from..=to).map(|number| format!("{before}{number}{after}")).collect())
}

/// The first `[number:number]`, with what stands around it. An IPv6 address has brackets too, but not such.
fn range(pattern: &str) -> Option<(&str, u64, u64, &str)> {
    pattern.match_indices('[').find_map(|(open, _)| {
        let (inside, after) = pattern[open + 1..].split_once(']')?;
        let (from, to) = inside.split_once(':')?;
        Some((&pattern[..open], number(from)?, number(to)?, after))
    })
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `host:port`, `[v6]:port`.
pub(super) fn check(addr: &str) -> Result<(), AddressError> {
    let Some((host, port)) = addr.rsplit_once(':') else { return Err(AddressError::NoPort(addr.to_owned())) };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if addr.ends_with(']') {
        return Err(AddressError::NoPort(addr.to_owned()));
    }
    if host.contains(':') && !bracketed {
        return Err(AddressError::Colons(addr.to_owned()));
    }
    if host.is_empty() || host == "[]" {
        return Err(AddressError::NoHost(addr.to_owned()));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(AddressError::Port { addr: addr.to_owned(), port: port.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_gives_every_number_once_and_in_order(
            before in "[a-z0-9.]{0,8}", from in 0..100_000_u64, count in 1..=500_u64, after in "[a-z0-9.:]{0,8}",
        ) {
            let to = from + count - 1;
            let all = expand(&format!("{before}[{from}:{to}]{after}")).expect("a range");
            let expected: Vec<String> = (from..=to).map(|number| format!("{before}{number}{after}")).collect();
            prop_assert_eq!(all, expected);
        }

        #[test]
        fn expansion_is_bounded_whatever_is_written(pattern in "[0-9a-z\\[\\]:.]{0,40}") {
            if let Ok(all) = expand(&pattern) {
                prop_assert!(!all.is_empty() && all.len() <= ADDRESSES_MAX);
            }
        }

        #[test]
        fn huge_ranges_are_refused_at_once(from in any::<u64>(), to in any::<u64>()) {
            let result = expand(&format!("h[{from}:{to}]:1"));
            prop_assert_eq!(result.is_ok(), from <= to && to - from < ADDRESSES_MAX as u64);
        }

        #[test]
        fn text_without_a_range_stays_as_it_is(text in "[a-z0-9.:]{0,20}") {
            prop_assert_eq!(expand(&text), Ok(vec![text]));
        }
    }

    #[test]
    fn many_ranges_together_are_bounded_too() {
        let patterns = ["a[1:9000]:1", "b[1:9000]:1"];
        assert_eq!(parse_all(patterns.into_iter()), Err(AddressError::TooMany("b[1:9000]:1".to_owned())));
    }
}
