//! Addresses of the form `host:port`.

/// Returns the host of a `host:port`; all of the text if it has no port.
pub fn host_of(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        let hosts = ["h1:2375", "[fd00::1]:2375", "h1", ""].map(host_of);
        assert_eq!(hosts, ["h1", "[fd00::1]", "h1", ""]);
    }
}
