//! Programs of this host that listen on ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Sockets of this network namespace, by protocol.
const FILES: [(&str, &str); 4] =
    [("tcp", "/proc/net/tcp"), ("tcp", "/proc/net/tcp6"), ("udp", "/proc/net/udp"), ("udp", "/proc/net/udp6")];

/// State of a TCP socket that listens, and of a UDP socket without a peer (Linux, `net/tcp_states.h`).
const LISTENS: &str = "0A";
const UNCONNECTED: &str = "07";

/// Name of a program whose process is not found.
const UNKNOWN: &str = "a program";

/// Finds those of the ports that a program of this host listens on. Ports are `8080/tcp` or `53/udp`; each comes with
/// the program's name and process id. UDP sockets of this process are left out: it holds published ports with them.
pub fn listeners(ports: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut sockets: BTreeMap<u64, String> = BTreeMap::new();
    for (protocol, path) in FILES {
        // There is no second file of a protocol on hosts without IPv6.
        let text = fs::read_to_string(path).unwrap_or_default();
        sockets.extend(bound(&text, protocol).filter(|(_, port)| ports.contains(port)));
    }
    if sockets.is_empty() {
        return BTreeMap::new();
    }
    let (mut found, mut owners) = (BTreeMap::new(), owners(&sockets));
    for (inode, port) in sockets {
        match owners.remove(&inode) {
            Some((pid, _)) if pid == std::process::id() && port.ends_with("/udp") => {}
            Some((pid, name)) => _ = found.insert(port, format!("{name} (process {pid})")),
            None => _ = found.entry(port).or_insert_with(|| UNKNOWN.to_owned()),
        }
    }
    found
}

/// Sockets that wait for clients: their inodes and ports.
fn bound<'t>(text: &'t str, protocol: &'t str) -> impl Iterator<Item = (u64, String)> + 't {
    let wanted = if protocol == "tcp" { LISTENS } else { UNCONNECTED };
    text.lines().skip(1).filter_map(move |line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = words[..] else { return None };
        let (_, port) = local.rsplit_once(':').filter(|_| state == wanted)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((inode.parse().ok()?, format!("{port}/{protocol}")))
    })
}

/// Process id and name of the owner of each socket. Processes that end meanwhile are passed over.
fn owners(sockets: &BTreeMap<u64, String>) -> BTreeMap<u64, (u32, String)> {
    let mut owners = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|it| it.parse::<u32>().ok()) else { continue };
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(file.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|it| sockets.contains_key(it)) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                owners.insert(inode, (pid, name.trim().to_owned()));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_wait_for_clients_are_told_by_their_state() {
        let text = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:0050 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
   2: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0 0
broken
";
        let all = |protocol| bound(text, protocol).map(|(inode, port)| format!("{inode} {port}")).collect::<Vec<_>>();
        assert_eq!((all("tcp"), all("udp")), (vec!["4711 8080/tcp".into()], vec!["4713 53/udp".into()]));
    }

    #[test]
    fn a_listener_is_told_with_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = format!("{}/tcp", listener.local_addr().unwrap().port());
        let asked = [taken.clone(), format!("{}/udp", held.local_addr().unwrap().port())].into();
        let found = listeners(&asked);
        assert!(found[&taken].ends_with(&format!("(process {})", std::process::id())), "{found:?}");
        assert_eq!(found.len(), 1, "a published port of UDP is held by this process");
        drop(listener);
        assert_eq!(listeners(&asked), BTreeMap::new());
    }
}
