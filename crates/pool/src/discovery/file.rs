//! The list of engines in a file.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use super::DiscoveryError;
use super::address::{self, ADDRESSES_MAX, AddressError};
use herder_parts::blocking;

/// A list of [`ADDRESSES_MAX`] addresses with comments fits many times.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Fingerprint of a file's state, taken without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

/// Returns the fingerprint; `None` if the file does not exist or cannot be read.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = blocking(|| std::fs::metadata(path)).ok()?;
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    Some(Stamp { modified: metadata.modified().ok(), len: metadata.len(), inode })
}

/// Reads the whole list.
pub(super) fn read(path: &Path) -> Result<BTreeSet<String>, DiscoveryError> {
    let failed = |reason: String| DiscoveryError::File { path: path.to_owned(), reason };
    let len = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if len > FILE_BYTES_MAX {
        return Err(failed(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = blocking(|| std::fs::read_to_string(path)).map_err(|error| failed(error.to_string()))?;
    parse(&text).map_err(|(line, source)| DiscoveryError::Line { path: path.to_owned(), line, source })
}

/// One address or range a line; `#` begins a comment; empty lines are fine. An error comes with the number of its line.
fn parse(text: &str) -> Result<BTreeSet<String>, (usize, AddressError)> {
    let mut all = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        all.append(&mut address::parse_all([line].into_iter()).map_err(|error| (number, error))?);
        if all.len() > ADDRESSES_MAX {
            return Err((number, AddressError::TooMany(line.to_owned())));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match parse(text) {
            Ok(all) => all.into_iter().collect::<Vec<_>>().join(" "),
            Err((line, error)) => format!("line {line}: {error}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_have_addresses_ranges_and_comments() {
        check("a:1\nb:2\n", "a:1 b:2");
        check("# all of them\n\n  10.0.0.[1:2]:2375  # rack 1\r\n#c:3\n", "10.0.0.1:2375 10.0.0.2:2375");
        check("", "");
    }

    #[test]
    fn a_bad_line_is_named() {
        let hint = "please check you are using the correct discovery (missing token:// ?)";
        check("a:1\nb\n", &format!("line 2: address b: missing port in address, {hint}"));
        check("a[1:9000]:1\nb[1:9000]:1", "line 2: b[1:9000]:1 makes the list longer than 10000 addresses");
    }
}
