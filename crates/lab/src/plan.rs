//! Names, addresses and labels of a lab. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Hosts of one lab: their bridges and address pools share one /16.
pub(crate) const HOSTS_MAX: u16 = 30;
/// Labs on one machine: each takes one /16.
pub(crate) const LABS_MAX: u16 = LABS_IN_10 + LABS_IN_172 + LABS_IN_198;
/// Those from 10.231.0.0 on.
const LABS_IN_10: u16 = 20;
/// Those from 172.16.0.0 on: where a private network of the machine takes all of 10.0.0.0/8.
const LABS_IN_172: u16 = 16;
/// Those from 198.18.0.0 on, which is set apart for tests (RFC 2544): where both private networks are taken.
const LABS_IN_198: u16 = 2;
/// The Docker API of each host, inside the lab's network.
pub(crate) const ENGINE_PORT: u16 = 2375;
/// herder's door on each host, inside the lab's network.
pub(crate) const HERDER_PORT: u16 = 2370;

/// A lab's name and number; everything else follows from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub name: String,
    /// 0 to [`LABS_MAX`] - 1; labs that exist at the same time have different ones.
    pub number: u16,
}

impl Plan {
    /// Returns the folder of the hosts' disks.
    pub(crate) fn disk(&self) -> String {
        format!("/var/lib/herder-lab/{}", self.name)
    }
    /// Returns the folder of sockets and pids.
    pub(crate) fn run(&self) -> String {
        format!("/run/herder-lab/{}", self.name)
    }
    pub(crate) fn state_file(&self) -> String {
        format!("{}/lab.json", self.disk())
    }
    /// The network namespace of the switch.
    pub(crate) fn switch(&self) -> String {
        format!("herder-{}-switch", self.name)
    }
    /// The network namespace of a host.
    pub(crate) fn namespace(&self, host: u16) -> String {
        format!("herder-{}-h{host}", self.name)
    }
    /// The cgroup under which a host's engine puts its containers.
    pub(crate) fn cgroup(&self, host: u16) -> String {
        format!("herder-{}-h{host}", self.name)
    }
    /// This machine's end of the cable to the switch; 15 characters at the most.
    pub(crate) fn uplink(&self) -> String {
        format!("hlab{}", self.number)
    }
    /// The switch's port for a host.
    pub(crate) fn port(&self, host: u16) -> String {
        format!("p{host}")
    }
    /// The first two numbers of every address: `10.231`.
    fn network(&self) -> String {
        match self.number {
            number if number < LABS_IN_10 => format!("10.{}", 231 + number),
            number if number < LABS_IN_10 + LABS_IN_172 => format!("172.{}", 16 + number - LABS_IN_10),
            number => format!("198.{}", 18 + number - LABS_IN_10 - LABS_IN_172),
        }
    }
    /// `10.231.0.0/16`.
    pub(crate) fn subnet(&self) -> String {
        format!("{}.0.0/16", self.network())
    }
    /// This machine's address in the lab.
    pub(crate) fn gateway(&self) -> String {
        format!("{}.0.1", self.network())
    }
    pub(crate) fn address(&self, host: u16) -> String {
        format!("{}.0.{}", self.network(), 10 + host)
    }
    /// Address and mask of a host's default bridge.
    pub(crate) fn bridge(&self, host: u16) -> String {
        format!("{}.{}.1/24", self.network(), 100 + host)
    }
    /// Returns the pool of subnets for new networks of a host's engine.
    pub(crate) fn pool(&self, host: u16) -> String {
        format!("base={}.{}.0/24,size=28", self.network(), 150 + host)
    }
}

/// The lowest number whose addresses no lab in `taken` has and no interface routes. `routes` is what `ip -4 route show table all`
/// prints; a default route takes nothing.
pub(crate) fn free_number(taken: &[u16], routes: &str) -> Result<u16, String> {
    let routed: Vec<(u32, u32)> = routes.lines().filter_map(destination).collect();
    let is_free = |number: &u16| {
        let plan = Plan { name: String::new(), number: *number };
        let network = range(&plan.subnet());
        network.is_some_and(|(first, last)| routed.iter().all(|(from, to)| *to < first || last < *from))
    };
    let mut left = (0..LABS_MAX).filter(|number| !taken.contains(number)).peekable();
    if left.peek().is_none() {
        return Err(format!("there are {LABS_MAX} labs already; take one down"));
    }
    left.find(is_free).ok_or_else(|| {
        "every address range that a lab could have is routed by an interface of this machine (`ip route`); free a /16 in \
         10.231.0.0 to 10.250.0.0, 172.16.0.0/12 or 198.18.0.0/15"
            .to_owned()
    })
}

/// First and last address to which a line of `ip route` leads: `local 10.0.0.1 dev …`, `10.0.0.0/8 via …`.
fn destination(line: &str) -> Option<(u32, u32)> {
    let kinds = ["unicast", "local", "broadcast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "nat"];
    let word = line.split_whitespace().find(|word| !kinds.contains(word))?;
    range(word).filter(|(first, last)| (*first, *last) != (0, u32::MAX))
}

/// First and last address of `10.0.0.0/8`, or of one address.
fn range(text: &str) -> Option<(u32, u32)> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    let (address, length) = (address.parse::<Ipv4Addr>().ok()?, length.parse::<u32>().ok()?);
    let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
    (length <= 32).then(|| (u32::from(address) & !hosts, u32::from(address) | hosts))
}

/// A lab's name becomes part of names of namespaces and folders.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.is_empty() && name.len() <= 20 && name.chars().all(plain) && !name.starts_with('-') {
        Ok(())
    } else {
        Err(format!("the name `{name}` of a lab must be 1 to 20 lower-case letters, digits or dashes"))
    }
}

/// True if a namespace is one of this lab's. Another lab's name may begin with this one's.
pub(crate) fn is_of(lab: &str, namespace: &str) -> bool {
    let part =
        namespace.strip_prefix("herder-").and_then(|it| it.strip_prefix(lab)).and_then(|it| it.strip_prefix('-'));
    part.is_some_and(|it| it == "switch" || it.strip_prefix('h').is_some_and(|it| it.parse::<u16>().is_ok()))
}

/// `h2`, or `2`, of a lab of `count` hosts.
pub(crate) fn host_number(text: &str, count: u16) -> Result<u16, String> {
    let number = text.strip_prefix('h').unwrap_or(text).parse::<u16>().ok();
    number
        .filter(|number| (1..=count).contains(number))
        .ok_or_else(|| format!("there is no host `{text}`; this lab has h1 to h{count}"))
}

/// Reads `h1:zone=a,disk=ssd`, or `zone=a` for every host.
pub(crate) fn labels(texts: &[String], count: u16) -> Result<BTreeMap<u16, Vec<String>>, String> {
    let mut labels: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for text in texts {
        let (hosts, pairs) = match text.split_once(':') {
            Some((host, pairs)) if !host.contains('=') => {
                let number = host_number(host, count)?;
                (number..=number, pairs)
            }
            _ => (1..=count, text.as_str()),
        };
        for pair in pairs.split(',') {
            if !pair.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty()) {
                return Err(format!("the label `{pair}` in `{text}` must be KEY=VALUE"));
            }
            for host in hosts.clone() {
                labels.entry(host).or_default().push(pair.to_owned());
            }
        }
    }
    Ok(labels)
}

/// `5%` → 50 of 1000 packets.
pub(crate) fn per_mille(text: &str) -> Result<u32, String> {
    let percent: Option<f64> = text.trim_end_matches('%').parse().ok();
    match percent {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok((percent * 10.0).round() as u32),
        _ => Err(format!("the loss `{text}` must be a share from 0% to 100%")),
    }
}

/// `512m`, `2g`, `1048576` → bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, factor) = match lower.trim_end_matches('b').strip_suffix(['k', 'm', 'g']) {
        Some(digits) => (
            digits,
            1_u64
                << if lower.contains('g') {
                    30
                } else if lower.contains('m') {
                    20
                } else {
                    10
                },
        ),
        None => (lower.as_str(), 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| format!("the size `{text}` must be a number with k, m or g"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_and_hosts_never_share_an_address() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..LABS_MAX {
            let plan = Plan { name: "x".into(), number };
            assert!(plan.uplink().len() <= 15);
            for host in 1..=HOSTS_MAX {
                for address in [plan.address(host), plan.bridge(host), plan.pool(host)] {
                    assert!(seen.insert(address.clone()), "{address}");
                }
            }
        }
    }

    #[test]
    fn a_lab_takes_no_addresses_that_lead_elsewhere() {
        let check = |taken: &[u16], routes: &str, expected: &str| {
            let subnet = |number| Plan { name: String::new(), number }.subnet();
            let got = free_number(taken, routes).map_or_else(|error| error, subnet);
            assert!(got.starts_with(expected), "{routes}: {got}");
        };
        check(&[], "", "10.231.0.0/16");
        check(&[0], "default via 10.231.0.1 dev eth0", "10.232.0.0/16");
        check(&[], "10.231.0.0/24 dev hlab0 proto kernel scope link src 10.231.0.1", "10.232.0.0/16");
        check(&[], "local 10.231.7.1 dev lo table local\nbroadcast 10.232.255.255 dev x table local", "10.233.0.0/16");
        check(&[], "unreachable 10.230.0.0/15", "10.232.0.0/16");
        check(&[], "10.0.0.0/8 dev tun0\n172.16.0.0/14 via 1.2.3.4 dev eth0", "172.20.0.0/16");
        check(&[], "10.0.0.0/8 dev tun0\n172.16.0.0/12 dev tun0", "198.18.0.0/16");
        check(&[], "0.0.0.0/1 dev tun0\n128.0.0.0/1 dev tun0", "every address range");
        check(&(0..LABS_MAX).collect::<Vec<_>>(), "", "there are 38 labs already");
    }

    #[test]
    fn a_lab_has_its_own_namespaces_only() {
        let labs = ["a", "a-h1", "a-switch"].map(|name| Plan { name: name.into(), number: 0 });
        for plan in &labs {
            for namespace in [plan.switch(), plan.namespace(12)] {
                let of: Vec<&str> = labs.iter().map(|it| &*it.name).filter(|it| is_of(it, &namespace)).collect();
                assert_eq!(of, [&*plan.name], "{namespace}");
            }
        }
        assert!(!is_of("a", "herder-a-x") && !is_of("a", "a-h1"));
    }

    #[test]
    fn labels_are_of_one_host_or_of_all() {
        let read = |texts: &[&str]| match labels(&texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(), 2) {
            Ok(labels) => {
                labels.iter().map(|(host, it)| format!("h{host}:{}", it.join(","))).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error,
        };
        assert_eq!(read(&["h1:zone=a,disk=ssd", "all=1"]), "h1:zone=a,disk=ssd,all=1 h2:all=1");
        assert_eq!(read(&["image=a:b"]), "h1:image=a:b h2:image=a:b");
        assert_eq!(read(&["h3:zone=a"]), "there is no host `h3`; this lab has h1 to h2");
        assert_eq!(read(&["h1:zone"]), "the label `zone` in `h1:zone` must be KEY=VALUE");
    }

    #[test]
    fn amounts() {
        assert_eq!((bytes("2g"), bytes("512m"), bytes("7")), (Ok(2 << 30), Ok(512 << 20), Ok(7)));
        assert!(bytes("lots").is_err());
        assert_eq!((per_mille("5%"), per_mille("0.5")), (Ok(50), Ok(5)));
        assert!(per_mille("101%").is_err());
        assert!(check_name("Lab").is_err() && check_name("").is_err() && check_name("a-1").is_ok());
    }
}
