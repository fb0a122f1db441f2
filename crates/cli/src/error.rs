//! Errors of a command line. The sentences are those of classic Swarm where it had one; each has a code with a page in
//! `docs/errors`.

/// A command line that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("discovery required to {0}. See 'herder {1} --help'.")]
    Discovery(&'static str, &'static str),
    #[error("{0} should be a positive number")]
    Positive(&'static str),
    #[error("{0} interval should be a positive number")]
    Interval(&'static str),
    #[error("max refresh interval cannot be less than min refresh interval")]
    IntervalOrder,
    #[error("invalid failure retry count")]
    FailureRetry,
    #[error("--engine-refresh-retry is deprecated. Use --engine-failure-retry")]
    RefreshRetry,
    #[error("--heartbeat should be at least one second")]
    Heartbeat,
    #[error("--ttl must be strictly superior to the heartbeat value")]
    Ttl,
    #[error("--delay should not be a negative number")]
    Delay,
    #[error("-ttl and -ttl-refresh must be specified together or not at all")]
    TtlPair,
    #[error("-ttl must be greater than -ttl-refresh")]
    TtlRefresh,
    #[error("missing mandatory --advertise flag")]
    AdvertiseMissing,
    #[error("--advertise should be of the form ip:port or hostname:port")]
    Advertise,
    #[error("--advertise address must be provided when using --leader-election")]
    AdvertiseForElection,
    #[error("Leader election is only supported with consul, etcd and zookeeper discovery.")]
    ElectionStore,
    #[error("--tlscert and --tlskey must be provided when using --tls")]
    TlsFiles,
    #[error("--tlscacert must be provided when using --tlsverify")]
    TlsCa,
    #[error("--tlscert, --tlskey and --tlscacert require the use of either --tls or --tlsverify")]
    TlsOff,
    #[error("--tls and --tlsverify are for TCP: give --listen tcp://IP:PORT or --bus-listen; unix sockets stay plain")]
    TlsForNothing,
    #[error("unsupported cluster \"{0}\"")]
    Driver(String),
    #[error("swarm.overcommit should be larger than -1, {:.6} is invalid", .0.0)]
    Overcommit(Ratio),
    #[error("swarm.createretry can not be negative, {0} is invalid")]
    CreateRetry(i64),
    #[error("--cluster-opt `{0}` is not known; there are swarm.overcommit=RATIO and swarm.createretry=COUNT")]
    ClusterOption(String),
    #[error("`{0}` is no address of a node: expected HOST, HOST:PORT or IP")]
    NodeAddress(String),
    #[error("--label `{0}` must be KEY=VALUE, and the key must not be `node`")]
    Label(String),
    #[error("--discovery-opt must contain key=value strings")]
    DiscoveryOption,
    #[error(
        "the `create` command made a token of Docker Hub's hosted discovery; that service is gone. Use nodes://, file://, consul://, etcd:// or zk:// instead"
    )]
    Create,
}

/// A number that compares bit by bit, so that errors can be compared in tests.
#[derive(Clone, Copy, Debug)]
pub struct Ratio(pub f64);
impl PartialEq for Ratio {
    fn eq(&self, other: &Ratio) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Ratio {}

impl UsageError {
    /// The code under which `herder explain` tells more. Never reused.
    pub fn code(&self) -> &'static str {
        match self {
            UsageError::Discovery(..) => "HD0001",
            UsageError::Positive(_)
            | UsageError::Interval(_)
            | UsageError::IntervalOrder
            | UsageError::Heartbeat
            | UsageError::Ttl
            | UsageError::TtlPair
            | UsageError::TtlRefresh
            | UsageError::Delay => "HD0002",
            UsageError::FailureRetry | UsageError::RefreshRetry => "HD0003",
            UsageError::AdvertiseMissing | UsageError::Advertise | UsageError::AdvertiseForElection => "HD0004",
            UsageError::ElectionStore => "HD0005",
            UsageError::TlsFiles | UsageError::TlsCa | UsageError::TlsOff | UsageError::TlsForNothing => "HD0006",
            UsageError::Driver(_) => "HD0007",
            UsageError::Overcommit(_)
            | UsageError::CreateRetry(_)
            | UsageError::ClusterOption(_)
            | UsageError::DiscoveryOption => "HD0008",
            UsageError::Create => "HD0009",
            UsageError::NodeAddress(_) | UsageError::Label(_) => "HD0010",
        }
    }
}

/// Code → its page.
pub const PAGES: &[(&str, &str)] = &[
    ("HD0001", include_str!("../../../docs/errors/HD0001.md")),
    ("HD0002", include_str!("../../../docs/errors/HD0002.md")),
    ("HD0003", include_str!("../../../docs/errors/HD0003.md")),
    ("HD0004", include_str!("../../../docs/errors/HD0004.md")),
    ("HD0005", include_str!("../../../docs/errors/HD0005.md")),
    ("HD0006", include_str!("../../../docs/errors/HD0006.md")),
    ("HD0007", include_str!("../../../docs/errors/HD0007.md")),
    ("HD0008", include_str!("../../../docs/errors/HD0008.md")),
    ("HD0009", include_str!("../../../docs/errors/HD0009.md")),
    ("HD0010", include_str!("../../../docs/errors/HD0010.md")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_page_that_begins_with_it() {
        let mut codes: Vec<&str> = PAGES.iter().map(|(code, _)| *code).collect();
        codes.dedup();
        assert_eq!(codes.len(), PAGES.len());
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}: ")), "{code}");
        }
        for error in [UsageError::Create, UsageError::Heartbeat, UsageError::TlsCa, UsageError::Driver(String::new())] {
            assert!(codes.contains(&error.code()), "{error}");
        }
    }
}
