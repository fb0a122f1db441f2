//! Checks of what holds for any first bytes of a connection that a trusted proxy opens.

use std::net::SocketAddr;

use crate::tcp::{ProxyHeader, parse_proxy_header, proxy_header};

/// Reads bytes as a PROXY header. Whatever follows a header, or comes late, changes nothing in what it says; what is written is read as
/// the same.
pub fn fuzz_proxy(bytes: &[u8]) {
    let ProxyHeader::Whole(addresses, length) = parse_proxy_header(bytes) else { return };
    assert!(length <= bytes.len(), "{length} of {} bytes", bytes.len());
    assert_eq!(parse_proxy_header(&bytes[..length]), ProxyHeader::Whole(addresses, length), "without what follows");
    for part in 0..length {
        assert_eq!(parse_proxy_header(&bytes[..part]), ProxyHeader::Part, "{part} of {length} bytes");
    }
    let Some((from, to)) = addresses else { return };
    for version in [1, 2] {
        let again = proxy_header(version, from, to);
        let whole = ProxyHeader::Whole(Some((plain(from), plain(to))), again.len());
        assert_eq!(parse_proxy_header(&again), whole, "version {version} of {from} and {to}");
    }
}

/// An address has no scope and no flow in a header.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn headers_with_mistakes_are_read_or_refused() {
        let mut random = rand::rngs::SmallRng::seed_from_u64(7);
        let good = [
            b"PROXY TCP4 1.2.3.4 5.6.7.8 10 20\r\n".to_vec(),
            b"PROXY TCP6 ::1 ::2 10 20\r\nGET /".to_vec(),
            b"PROXY UNKNOWN what ever\r\n".to_vec(),
            proxy_header(2, "1.2.3.4:5".parse().expect("an address"), "6.7.8.9:1".parse().expect("an address")),
            proxy_header(2, "[::1]:5".parse().expect("an address"), "[::2]:1".parse().expect("an address")),
        ];
        for one in &good {
            fuzz_proxy(one);
            for _ in 0..2000 {
                let mut bytes = one.clone();
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..3) {
                    0 => bytes[at] = random.random(),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, random.random()),
                }
                fuzz_proxy(&bytes);
            }
        }
    }
}
