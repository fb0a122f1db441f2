//! Sources of engine addresses: a list, a file, or a store in which engines register.

mod address;
mod election;
mod file;
mod join;
mod options;
mod patience;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use herder_kv::{Kv, KvError, Lock, Store};
use tokio_util::sync::CancellationToken;

pub use address::{ADDRESSES_MAX, AddressError, expand};
pub use election::{Election, Role};
pub use join::{join, list};
pub use options::Options;

/// Below the prefix: who leads the managers. As in classic Swarm.
const LEADER_KEY: &str = "docker/swarm/leader";

/// Reason why discovery cannot be used, or an operation failed. Texts that scripts look for are classic Swarm's.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    #[error("discovery service not supported: {scheme:?}; use nodes://, file://, consul://, etcd:// or zk://")]
    Unsupported { scheme: String },
    #[error(
        "discovery service not supported: the hosted service behind token:// was shut down by Docker; use nodes:// or \
         file:// for a fixed list, or consul://, etcd:// or zk:// with `herder join` on the engines' side"
    )]
    Token,
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("no address is given; write nodes://host:port,host:port")]
    NoNodes,
    #[error("file:// needs the path of a file: file:///etc/herder/cluster")]
    NoPath,
    #[error("{scheme}:// needs at least one host of the store: {scheme}://host:port,host:port/prefix")]
    NoHosts { scheme: &'static str },
    #[error("unknown discovery option {name:?}; known are kv.path, kv.cacertfile, kv.certfile and kv.keyfile")]
    Option { name: String },
    #[error("kv.cacertfile, kv.certfile and kv.keyfile are only of use together; {missing} is missing")]
    HalfTls { missing: &'static str },
    #[error("cannot read the discovery file {path:?}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("in line {line} of the discovery file {path:?}: {source}")]
    Line { path: PathBuf, line: usize, source: AddressError },
    /// The list is fixed; engines cannot register in it.
    #[error("not implemented in this discovery service: engines are listed by hand in nodes:// and file://")]
    NotRegistrable,
    #[error("Leader election is only supported with consul, etcd and zookeeper discovery.")]
    NoElection,
    #[error("Timed out{}", .reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    TimedOut { reason: Option<String> },
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// A source of addresses.
#[derive(Clone, Debug)]
pub struct Discovery {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Nodes(BTreeSet<String>),
    File(PathBuf),
    Kv { kv: Kv, prefix: String, dir: String },
}

impl Discovery {
    /// Understands `[nodes://]host:port,…`, `file:///path`, and `consul://`, `etcd://`, `zk://` with
    /// `host:port[,host:port…][/prefix]`. Nothing is read or connected yet, but files for TLS are read. Must be called
    /// inside a tokio runtime.
    pub fn parse(url: &str, options: &Options) -> Result<Discovery, DiscoveryError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("nodes", url));
        let source = match scheme {
            "nodes" => Source::Nodes(nodes(rest)?),
            "file" if rest.is_empty() => return Err(DiscoveryError::NoPath),
            "file" => Source::File(PathBuf::from(rest)),
            "consul" => store(Store::Consul, "consul", rest, options)?,
            "etcd" => store(Store::Etcd, "etcd", rest, options)?,
            "zk" => store(Store::Zookeeper, "zk", rest, options)?,
            "token" => return Err(DiscoveryError::Token),
            _ => return Err(DiscoveryError::Unsupported { scheme: scheme.to_owned() }),
        };
        Ok(Discovery { source })
    }

    /// True if managers can elect a primary here.
    pub fn can_elect(&self) -> bool {
        matches!(self.source, Source::Kv { .. })
    }

    /// Follows the members until `stop`. The receiver has nothing until the first full set is there; then always a full
    /// set. A source that cannot be read leaves the last set in place.
    pub fn watch(
        &self,
        heartbeat: Duration,
        stop: CancellationToken,
    ) -> tokio::sync::watch::Receiver<Option<BTreeSet<String>>> {
        watch::start(self.source.clone(), heartbeat, stop)
    }

    /// Says that the engine at `addr` is a member for the next `ttl`.
    pub async fn register(&self, addr: &str, ttl: Duration) -> Result<(), DiscoveryError> {
        let (kv, dir) = self.registrable()?;
        Ok(kv.put(&format!("{dir}/{addr}"), addr, ttl).await?)
    }

    /// Takes the engine at `addr` off the list.
    pub async fn deregister(&self, addr: &str) -> Result<(), DiscoveryError> {
        let (kv, dir) = self.registrable()?;
        Ok(kv.delete(&format!("{dir}/{addr}")).await?)
    }

    /// Waits for the lock at `key` below the prefix, and holds it.
    pub async fn lock(&self, key: &str, value: &str, ttl: Duration) -> Result<Lock, DiscoveryError> {
        let Source::Kv { kv, prefix, .. } = &self.source else { return Err(DiscoveryError::NoElection) };
        Ok(kv.lock(&below(prefix, key), value, ttl).await?)
    }

    fn registrable(&self) -> Result<(&Kv, &str), DiscoveryError> {
        match &self.source {
            Source::Kv { kv, dir, .. } => Ok((kv, dir)),
            Source::Nodes(_) | Source::File(_) => Err(DiscoveryError::NotRegistrable),
        }
    }
}

fn nodes(list: &str) -> Result<BTreeSet<String>, DiscoveryError> {
    let nodes = address::parse_all(list.split(',').map(str::trim).filter(|part| !part.is_empty()))?;
    if nodes.is_empty() { Err(DiscoveryError::NoNodes) } else { Ok(nodes) }
}

fn store(store: Store, scheme: &'static str, rest: &str, options: &Options) -> Result<Source, DiscoveryError> {
    let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts: Vec<String> =
        hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect();
    if hosts.is_empty() {
        return Err(DiscoveryError::NoHosts { scheme });
    }
    let kv = Kv::new(store, &hosts, options.tls.as_ref())?;
    Ok(Source::Kv { kv, prefix: prefix.to_owned(), dir: below(prefix, &options.kv_path) })
}

/// `prefix/path` without empty parts, as stores disagree about them.
fn below(prefix: &str, path: &str) -> String {
    let parts = prefix.split('/').chain(path.split('/')).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A URL and what it is understood as, or the error.
    #[track_caller]
    fn check(url: &str, expected: &str) {
        check_with(url, &[], expected);
    }

    #[track_caller]
    fn check_with(url: &str, options: &[(&str, &str)], expected: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let pairs: Vec<(String, String)> =
            options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let parsed = Options::parse(&pairs).and_then(|options| Discovery::parse(url, &options));
        let text = match parsed.map(|discovery| discovery.source) {
            Ok(Source::Nodes(nodes)) => format!("nodes {}", nodes.into_iter().collect::<Vec<_>>().join(" ")),
            Ok(Source::File(path)) => format!("file {}", path.display()),
            Ok(Source::Kv { kv, prefix, dir }) => format!("{} {dir} {}", kv.store(), below(&prefix, LEADER_KEY)),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected, "for {url}");
    }

    #[test]
    fn lists_are_given_bare_or_with_a_scheme_and_may_have_ranges() {
        check("10.0.0.1:2375", "nodes 10.0.0.1:2375");
        check("nodes://b:2375,a:2375", "nodes a:2375 b:2375");
        check("a:1,, a:1 ,", "nodes a:1");
        check("nodes://10.0.0.[1:3]:2375,h:1", "nodes 10.0.0.1:2375 10.0.0.2:2375 10.0.0.3:2375 h:1");
        check("[::1]:2375", "nodes [::1]:2375");
    }

    #[test]
    fn a_bad_list_is_refused_as_classic_swarm_did() {
        let hint = "please check you are using the correct discovery (missing token:// ?)";
        check("127.0.0.1", &format!("address 127.0.0.1: missing port in address, {hint}"));
        check("a:1,b", &format!("address b: missing port in address, {hint}"));
        check("a:b:1", &format!("address a:b:1: too many colons in address, {hint}"));
        check("a:x", "address a:x: \"x\" is no port from 1 to 65535");
        check("a:0", "address a:0: \"0\" is no port from 1 to 65535");
        check(":2375", "address :2375: there is no host before the port");
        check("nodes://", "no address is given; write nodes://host:port,host:port");
        check("h[3:1]:1", "range [3:1] in h[3:1]:1 runs backwards");
        check("h[1:20000]:1", "h[1:20000]:1 makes the list longer than 10000 addresses");
    }

    #[test]
    fn files_are_named_by_path() {
        check("file:///etc/cluster", "file /etc/cluster");
        check("file://cluster", "file cluster");
        check("file://", "file:// needs the path of a file: file:///etc/herder/cluster");
    }

    #[test]
    fn stores_have_hosts_and_a_prefix() {
        check("consul://h:8500/swarm", "Consul swarm/docker/swarm/nodes swarm/docker/swarm/leader");
        check("etcd://a:1,b:2/x/y/", "etcd x/y/docker/swarm/nodes x/y/docker/swarm/leader");
        check("zk://a:1,b:2", "ZooKeeper docker/swarm/nodes docker/swarm/leader");
        check_with("etcd://a:1/x", &[("kv.path", "/my/nodes")], "etcd x/my/nodes x/docker/swarm/leader");
        check("etcd:///x", "etcd:// needs at least one host of the store: etcd://host:port,host:port/prefix");
    }

    #[test]
    fn what_is_not_supported_is_refused_with_what_is() {
        check(
            "ftp://x",
            "discovery service not supported: \"ftp\"; use nodes://, file://, consul://, etcd:// or zk://",
        );
        check(
            "token://0123",
            "discovery service not supported: the hosted service behind token:// was shut down by Docker; use nodes:// or \
             file:// for a fixed list, or consul://, etcd:// or zk:// with `herder join` on the engines' side",
        );
        check_with(
            "etcd://a:1",
            &[("kv.pth", "x")],
            "unknown discovery option \"kv.pth\"; known are kv.path, kv.cacertfile, kv.certfile and kv.keyfile",
        );
        check_with(
            "etcd://a:1",
            &[("kv.cacertfile", "x"), ("kv.keyfile", "x")],
            "kv.cacertfile, kv.certfile and kv.keyfile are only of use together; kv.certfile is missing",
        );
        let tls = [("kv.cacertfile", "/none"), ("kv.keyfile", "/none"), ("kv.certfile", "/none")];
        check_with(
            "zk://a:1",
            &tls,
            "ZooKeeper is not reached by TLS: leave the options kv.cacertfile, kv.certfile and kv.keyfile away",
        );
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_is_understood_or_refused(
            scheme in "(nodes|file|consul|etcd|zk|token|x)?", between in "(://|:|)", rest in "\\PC{0,40}",
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _inside = runtime.enter();
            match Discovery::parse(&format!("{scheme}{between}{rest}"), &Options::default()).map(|it| it.source) {
                Ok(Source::Nodes(nodes)) => {
                    proptest::prop_assert!(!nodes.is_empty() && nodes.len() <= ADDRESSES_MAX);
                    proptest::prop_assert!(nodes.iter().all(|addr| address::check(addr).is_ok()));
                }
                Ok(Source::Kv { dir, .. }) => proptest::prop_assert!(dir.ends_with("docker/swarm/nodes")),
                Ok(Source::File(_)) => {}
                Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[tokio::test]
    async fn only_stores_take_registrations_and_elect() {
        let discovery = Discovery::parse("a:1", &Options::default()).expect("a list");
        let error = discovery.register("b:1", Duration::from_secs(1)).await.expect_err("refused");
        assert!(error.to_string().starts_with("not implemented in this discovery service"), "{error}");
        let error = discovery.lock("x", "y", Duration::from_secs(1)).await.expect_err("refused");
        assert_eq!(error.to_string(), "Leader election is only supported with consul, etcd and zookeeper discovery.");
    }
}
