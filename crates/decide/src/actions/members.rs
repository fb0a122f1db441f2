//! Changes by `register` and `unregister`: added members besides those of discovery, and members left out.

use std::collections::{BTreeMap, BTreeSet};

/// Changes to what discovery says. Held in memory only, as the original kept its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    added: BTreeSet<String>,
    /// Address → name, so that it can come back by its name.
    left_out: BTreeMap<String, String>,
}

impl Changes {
    /// The members, given those that discovery knows.
    pub fn apply(&self, discovered: &BTreeSet<String>) -> BTreeSet<String> {
        discovered.union(&self.added).filter(|addr| !self.left_out.contains_key(*addr)).cloned().collect()
    }

    /// Leaves the node with this address and name out.
    pub fn leave_out(&mut self, addr: &str, name: &str) {
        // What was added here is simply taken back.
        if !self.added.remove(addr) {
            self.left_out.insert(addr.to_owned(), name.to_owned());
        }
    }

    /// Lets a node that was left out come back. `hostname` is its name, its address, or the host of its address.
    pub fn take_back(&mut self, hostname: &str) -> bool {
        let same = |(addr, name): &(&String, &String)| is_meant(hostname, addr, name);
        let found = self.left_out.iter().find(same).map(|(addr, _)| addr.clone());
        found.is_some_and(|addr| self.left_out.remove(&addr).is_some())
    }

    /// Adds a member.
    pub fn add(&mut self, addr: String) {
        self.left_out.remove(&addr);
        self.added.insert(addr);
    }
}

/// True if `hostname` means the node with this address and name.
pub fn is_meant(hostname: &str, addr: &str, name: &str) -> bool {
    let host = herder_model::host_of(addr);
    hostname == name || hostname == addr || hostname == host
}

/// The address of an engine on `hostname`, which may bring a port. Nothing if it is no host.
pub fn address(hostname: &str, port: u16) -> Option<String> {
    let (host, port) = match hostname.rsplit_once(':') {
        Some((host, text)) => (host, text.parse().ok().filter(|port| *port > 0)?),
        None => (hostname, port),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (!host.is_empty() && host.len() <= 253 && host.bytes().all(fits)).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(changes: &Changes, expected: &str) {
        let discovered = ["a:1", "b:1"].map(str::to_owned).into();
        let members: Vec<String> = changes.apply(&discovered).into_iter().collect();
        assert_eq!(members.join(" "), expected);
    }

    #[test]
    fn members_come_go_and_come_back() {
        let mut changes = Changes::default();
        check(&changes, "a:1 b:1");
        changes.add("c:2".into());
        check(&changes, "a:1 b:1 c:2");
        changes.leave_out("c:2", "c");
        changes.leave_out("a:1", "alice");
        check(&changes, "b:1");
        assert!(!changes.take_back("c"), "it was only added here");
        assert!(changes.take_back("alice"));
        check(&changes, "a:1 b:1");
        changes.leave_out("b:1", "bob");
        assert!(changes.take_back("b"));
        changes.leave_out("b:1", "bob");
        changes.add("b:1".into());
        check(&changes, "a:1 b:1");
    }

    #[test]
    fn an_address_has_a_port_in_the_end() {
        for (hostname, expected) in [
            ("sthmaclt009.local", "sthmaclt009.local:2375"),
            ("10.0.0.1:5555", "10.0.0.1:5555"),
            ("h1:0", "-"),
            ("h1:x", "-"),
            ("", "-"),
            ("a/b", "-"),
            ("unix:///x", "-"),
        ] {
            assert_eq!(address(hostname, 2375).as_deref().unwrap_or("-"), expected, "{hostname}");
        }
    }
}
