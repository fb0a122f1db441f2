//! The swarm itself: its settings, tokens and keys.

use herder_model::swarm::{
    CaConfig, Change, ClusterRecord, ClusterSpec, ExternalCa, InitRequest, JoinRequest, JoinTokens, Kind, NodeRecord,
    RootRotation, View,
};

use super::check_version;
use crate::swarm::{Code, Denial, Refusal};

/// The only name that a swarm has.
const NAME: &str = "default";

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;
/// 90 days.
const CERT_EXPIRY: i64 = 2160 * HOUR;
const CERT_EXPIRY_MIN: i64 = HOUR;
const HEARTBEAT_PERIOD: i64 = 5 * SECOND;
const SNAPSHOT_INTERVAL: u64 = 10_000;
const SLOW_FOLLOWERS: u64 = 500;
const ELECTION_TICK: i64 = 10;
const HEARTBEAT_TICK: i64 = 1;
/// Ended tasks that are kept for each slot.
const HISTORY: i64 = 5;
/// Prefix lengths of subnets that are cut out of address pools. The longest one comes first, then the default.
const PREFIX_MAX: u32 = 29;
const SUBNET_SIZE: u32 = 24;

/// Random texts, made anew for each call; those that are not wanted are not used.
#[derive(Clone, Default)]
pub struct Fresh {
    /// The secret parts of join tokens: 25 digits of base 36.
    pub worker: String,
    pub manager: String,
    /// `SWMKEY-1-…`
    pub unlock_key: String,
    /// Another root; only where [`wants_root`] says so.
    pub root: Option<RootRotation>,
}

impl std::fmt::Debug for Fresh {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fresh").finish_non_exhaustive()
    }
}

/// Request of `docker swarm update` and its relatives.
#[derive(Clone, Debug, Default)]
pub struct ClusterUpdate {
    pub version: u64,
    pub spec: ClusterSpec,
    pub rotate_worker_token: bool,
    pub rotate_manager_token: bool,
    pub rotate_unlock_key: bool,
}

/// The settings of a new swarm.
pub fn cluster_spec(request: &InitRequest) -> Result<ClusterSpec, Denial> {
    let mut spec = complete(request.spec.clone());
    spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
    check(&spec)?;
    Ok(spec)
}

/// Refuses a request to make a swarm that cannot be met.
pub fn check_init(request: &InitRequest) -> Result<(), Denial> {
    if !matches!(request.spec.name.as_str(), "" | NAME) {
        return Err(Denial::plain(400, format!("swarm spec must be named {NAME:?}")));
    }
    availability(&request.availability)?;
    addr("ListenAddr", &request.listen_addr)?;
    pools(request)?;
    let port = request.data_path_port;
    if port != 0 && !(1024..=49151).contains(&port) {
        let text = format!("Datapath port number is not in valid range (1024-49151) : {port}");
        return Err(Denial::plain(400, text));
    }
    check(&complete(request.spec.clone()))
}

/// Takes the external CAs out of a request to begin a swarm. A swarm begins with the root of its node, and what is
/// returned is declared right after that. The root is then that of the first CA that names one.
pub fn take_external(request: &mut InitRequest) -> Option<CaConfig> {
    let ca = &mut request.spec.ca_config;
    let external_cas: Vec<ExternalCa> =
        std::mem::take(&mut ca.external_cas).into_iter().filter(|it| it != &ExternalCa::default()).collect();
    let named = external_cas.iter().find(|it| !it.ca_cert.trim().is_empty());
    let signing_ca_cert = named.map(|it| it.ca_cert.clone()).unwrap_or_default();
    (!external_cas.is_empty()).then(|| CaConfig { signing_ca_cert, external_cas, ..ca.clone() })
}

/// Checks the address pools, and the size of the subnets that they are cut into.
fn pools(request: &InitRequest) -> Result<(), Denial> {
    let invalid = |text: String| Err(Denial::plain(400, text));
    let size = if request.subnet_size == 0 { SUBNET_SIZE } else { request.subnet_size };
    if size > PREFIX_MAX {
        return invalid(format!("subnet size is out of range: {size}"));
    }
    for pool in request.default_addr_pool.iter().flatten() {
        match pool.parse::<ipnet::Ipv4Net>() {
            Err(_) => return invalid(format!("invalid base pool {pool}: invalid CIDR address: {pool}")),
            Ok(net) if size < u32::from(net.prefix_len()) => {
                return invalid(format!("invalid CIDR: {pool:?}. Subnet size is too small for pool: {size}"));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Refuses a request to join that cannot be met.
pub fn check_join(request: &JoinRequest) -> Result<(), Denial> {
    availability(&request.availability)?;
    addr("ListenAddr", &request.listen_addr)?;
    if request.remote_addrs.as_ref().is_none_or(|it| it.iter().all(String::is_empty)) {
        return Err(Denial::plain(400, "at least 1 RemoteAddr is required to join"));
    }
    if !is_token(&request.join_token) {
        return Err(Denial::plain(400, "invalid join token"));
    }
    Ok(())
}

fn availability(text: &str) -> Result<(), Denial> {
    if matches!(text.to_ascii_lowercase().as_str(), "" | "active" | "pause" | "drain") {
        return Ok(());
    }
    Err(Denial::plain(400, format!("invalid Availability: {text:?}; expected active, pause or drain")))
}

/// `host`, `host:port`, `:port`, `interface:port`, or nothing.
fn addr(what: &str, text: &str) -> Result<(), Denial> {
    let port = text.strip_prefix('[').map_or(text, |rest| rest.rsplit_once(']').map_or(rest, |(_, port)| port));
    let fits = match port.rsplit_once(':') {
        Some((_, port)) => port.parse::<u16>().is_ok(),
        None => !text.chars().any(char::is_whitespace),
    };
    if fits { Ok(()) } else { Err(Denial::plain(400, format!("invalid {what} {text:?}"))) }
}

/// `SWMTKN-1-<50 digits>-<25 digits>`.
fn is_token(text: &str) -> bool {
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|it| it.is_ascii_digit() || it.is_ascii_lowercase())
    };
    let rest = text.strip_prefix("SWMTKN-1-").and_then(|rest| rest.split_once('-'));
    rest.is_some_and(|(digest, secret)| digits(digest, 50) && digits(secret, 25))
}

/// Writes out what a client may leave open.
fn complete(mut spec: ClusterSpec) -> ClusterSpec {
    fn or<T: Default + PartialEq>(value: &mut T, default: T) {
        if *value == T::default() {
            *value = default;
        }
    }
    or(&mut spec.name, NAME.into());
    spec.labels.get_or_insert_default();
    spec.orchestration.task_history_retention_limit.get_or_insert(HISTORY);
    or(&mut spec.raft.snapshot_interval, SNAPSHOT_INTERVAL);
    spec.raft.keep_old_snapshots.get_or_insert(0);
    or(&mut spec.raft.log_entries_for_slow_followers, SLOW_FOLLOWERS);
    or(&mut spec.raft.election_tick, ELECTION_TICK);
    or(&mut spec.raft.heartbeat_tick, HEARTBEAT_TICK);
    or(&mut spec.dispatcher.heartbeat_period, HEARTBEAT_PERIOD);
    or(&mut spec.ca_config.node_cert_expiry, CERT_EXPIRY);
    spec.ca_config.external_cas.retain(|it| it != &ExternalCa::default());
    spec
}

const NO_EXTERNAL: &str =
    "there must be at least one valid, reachable external CA corresponding to the desired CA certificate";
const NOT_CERTIFIED: &str = "the managers of this swarm do not certify its nodes yet: update herder on all managers";
pub(super) const EXTERNAL_ONLY: &str = "the key of the root is with the external CA alone: give it with --ca-cert and --ca-key before another \
                             root is made, or the external CA is left out";
const ROTATING: &str = "the root is being changed already: wait until all nodes have the new one, or remove those that do not \
                        come back (`docker node rm`)";

fn check(spec: &ClusterSpec) -> Result<(), Denial> {
    let refused = |text: &str| Err(Refusal::new(Code::InvalidArgument, text).into());
    let ca = &spec.ca_config;
    if ca.node_cert_expiry < CERT_EXPIRY_MIN {
        return refused("minimum certificate expiry time is: 1h0m0s");
    }
    if spec.dispatcher.heartbeat_period < 0 {
        return refused("heartbeat time period cannot be a negative duration");
    }
    if spec.name != NAME {
        return refused("modification of cluster name is not allowed");
    }
    if !ca.signing_ca_key.is_empty() && ca.signing_ca_cert.is_empty() {
        return refused("if a signing CA key is provided, the signing CA cert must also be provided");
    }
    if ca.signing_ca_cert.matches("-----BEGIN CERTIFICATE-----").count() > 1 {
        return refused("the desired CA certificate cannot contain multiple certificates");
    }
    for external in &ca.external_cas {
        if external.protocol != "cfssl" {
            return refused(&format!("external CA {}: the protocol must be cfssl", external.url));
        }
        if !external.url.starts_with("https://") {
            return refused(&format!("external CA {}: the URL must begin with https://", external.url));
        }
    }
    if !ca.signing_ca_cert.is_empty() && ca.signing_ca_key.is_empty() && external_of(ca, &ca.signing_ca_cert).is_none()
    {
        return refused(NO_EXTERNAL);
    }
    Ok(())
}

/// Returns the first external CA that signs for this root.
fn external_of<'c>(ca: &'c CaConfig, root: &str) -> Option<&'c ExternalCa> {
    externals_of(ca, root).next()
}

/// Returns the external CAs that sign for this root (PEM): those that name its certificate.
pub fn externals_of<'c>(ca: &'c CaConfig, root: &str) -> impl Iterator<Item = &'c ExternalCa> {
    ca.external_cas.iter().filter(move |it| it.ca_cert.trim() == root.trim())
}

/// True if these settings bring the key of the root that is there, which only an external CA has.
fn brings_key(record: &ClusterRecord, spec: &ClusterSpec) -> bool {
    let desired = spec.ca_config.signing_ca_cert.trim();
    let is_there = desired == record.cluster.tls_info.trust_root.trim();
    record.certifies() && record.ca_key.is_empty() && is_there && !spec.ca_config.signing_ca_key.is_empty()
}

/// True if a root must be made or checked for these settings. They ask for another root, or bring the key of
/// the present one.
pub fn wants_root(view: &View, spec: &ClusterSpec) -> bool {
    view.cluster.as_ref().is_some_and(|record| changes_root(record, spec) || brings_key(record, spec))
}

/// True if these settings ask for another root than the one that is there, as `docker swarm ca --rotate` does.
fn changes_root(record: &ClusterRecord, spec: &ClusterSpec) -> bool {
    let desired = spec.ca_config.signing_ca_cert.trim();
    let is_there = desired == record.cluster.tls_info.trust_root.trim();
    match desired.is_empty() {
        true => record.cluster.spec.ca_config.force_rotate != spec.ca_config.force_rotate,
        false => !is_there,
    }
}

/// Returns the change once all nodes have certificates of the new root. A node that is down is awaited, since it could
/// never come back without one; an operator can remove it.
pub fn settle_root(view: &View) -> Option<Change> {
    let record = view.cluster.as_ref()?;
    let rotation = record.root_rotation.as_ref()?;
    let has_it = |it: &NodeRecord| {
        let told = &it.description().tls_info;
        (&told.cert_issuer_subject, &told.cert_issuer_public_key)
            == (&rotation.tls_info.cert_issuer_subject, &rotation.tls_info.cert_issuer_public_key)
    };
    if !view.nodes.values().all(|it| has_it(it)) {
        return None;
    }
    let mut record = ClusterRecord::clone(record);
    let rotation = record.root_rotation.take()?;
    record.cluster.root_rotation_in_progress = false;
    if record.certifies() {
        record.ca_key = rotation.root.key;
    }
    record.cluster.tls_info = rotation.tls_info;
    record.cluster.join_tokens = Some(rotation.join_tokens);
    Some(record.into())
}

/// Changes settings, tokens and the unlock key, and begins to change the root.
pub fn update_cluster(view: &View, update: ClusterUpdate, fresh: Fresh) -> Result<Vec<Change>, Denial> {
    let Some(record) = &view.cluster else {
        return Err(Refusal::new(Code::NotFound, "cluster not found").into());
    };
    let mut record = ClusterRecord::clone(record);
    let mut spec = complete(update.spec);
    // As in swarm mode: without a certificate, the CA is one for the root that is there.
    for external in spec.ca_config.external_cas.iter_mut().filter(|it| it.ca_cert.trim().is_empty()) {
        external.ca_cert.clone_from(&record.cluster.tls_info.trust_root);
    }
    check(&spec)?;
    check_version(Kind::Cluster, &record.cluster.id, update.version, record.cluster.meta.version.index)?;
    let (changes_root, brings_key) = (changes_root(&record, &spec), brings_key(&record, &spec));
    let ca = &spec.ca_config;
    let needs_certifier = !ca.signing_ca_cert.is_empty() || !ca.external_cas.is_empty();
    if needs_certifier && !record.certifies() {
        return Err(Refusal::new(Code::FailedPrecondition, NOT_CERTIFIED).into());
    }
    // The key of the root after this change, and who else may sign for it. Without both nobody could certify a node.
    let present = match &record.root_rotation {
        Some(rotation) => (&rotation.root.cert, &rotation.root.key),
        None => (&record.cluster.tls_info.trust_root, &record.ca_key),
    };
    let has_key = !present.1.is_empty() || brings_key;
    let stays_external = external_of(ca, present.0).is_some();
    if record.certifies() && !has_key && (changes_root || !stays_external) {
        return Err(Refusal::new(Code::FailedPrecondition, EXTERNAL_ONLY).into());
    }
    // As in swarm mode, they are asked for once, and shown to nobody.
    spec.ca_config.signing_ca_cert.clear();
    spec.ca_config.signing_ca_key.clear();
    if brings_key {
        record.ca_key = fresh.root.map(|it| it.root.key).unwrap_or_default();
    } else if changes_root {
        if record.root_rotation.is_some() {
            return Err(Refusal::new(Code::FailedPrecondition, ROTATING).into());
        }
        if let Some(rotation) = fresh.root {
            // As in swarm mode: the root is still the old one, who signs is the new one.
            record.cluster.tls_info.cert_issuer_subject.clone_from(&rotation.tls_info.cert_issuer_subject);
            record.cluster.tls_info.cert_issuer_public_key.clone_from(&rotation.tls_info.cert_issuer_public_key);
            record.cluster.root_rotation_in_progress = true;
            record.root_rotation = Some(rotation);
        }
    }
    let locks = spec.encryption_config.auto_lock_managers;
    record.cluster.spec = spec;
    if !locks {
        record.unlock_key.clear();
    } else if record.unlock_key.is_empty() || update.rotate_unlock_key {
        record.unlock_key = fresh.unlock_key;
    }
    if let Some(JoinTokens { worker, manager, rest: _ }) = &mut record.cluster.join_tokens {
        for (wanted, token, secret) in
            [(update.rotate_worker_token, worker, fresh.worker), (update.rotate_manager_token, manager, fresh.manager)]
        {
            // The digest of the root stays.
            if let Some((digest, _)) = token.rsplit_once('-').filter(|_| wanted) {
                *token = format!("{digest}-{secret}");
            }
        }
    }
    Ok(vec![record.into()])
}
