//! State of the ingress as ingress nodes receive it: routes, middlewares, services with what stands behind them, certificates.
//!
//! The leader computes it from the store (`decide::ingress`) and sends it to the nodes that listen, whole first, then as
//! [`IngressChanges`]. Rules stay text: a node reads them with the same parser that the leader checked them with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use imbl::OrdMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::netstate::Patch;
use super::{Word, is_default};

/// Kind of the resource with the [`IngressSettings`]; there is one.
pub const INGRESS_KIND: &str = "ingress";
/// Id and name of that resource.
pub const INGRESS_ID: &str = "ingress";

/// The settings that `herder ingress enable` stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressSettings {
    /// Constraints of the nodes that listen, in the form of placement constraints. None: all nodes.
    #[serde(skip_serializing_if = "is_default")]
    pub on: Vec<String>,
    pub entrypoints: BTreeMap<String, Entrypoint>,
    /// Services without `traefik.enable` are routed, too.
    #[serde(skip_serializing_if = "is_default")]
    pub exposed_by_default: bool,
    /// Peers whose forwarding headers are believed.
    #[serde(skip_serializing_if = "is_default")]
    pub trusted_proxies: Vec<IpNet>,
    /// `off`, `common`, `combined`, `json`; empty is `off`.
    #[serde(skip_serializing_if = "is_default")]
    pub access_log: String,
    /// Address where figures are read, in the form of an entrypoint's; empty: nowhere.
    #[serde(skip_serializing_if = "is_default")]
    pub metrics: String,
    /// Sources of certificates, by the name that rules give.
    #[serde(skip_serializing_if = "is_default")]
    pub resolvers: BTreeMap<String, Resolver>,
}

/// A port that ingress nodes listen on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entrypoint {
    /// `:80`, `10.0.0.1:80`, `:53/udp`.
    pub address: String,
    /// Peers that begin their connections with a PROXY header.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_protocol: Vec<IpNet>,
}

/// A certificate authority that speaks ACME.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// URL of the directory; [`OWN_AUTHORITY`](super::OWN_AUTHORITY): the swarm signs itself.
    pub directory: String,
    #[serde(skip_serializing_if = "is_default")]
    pub email: String,
    /// `http-01`, `tls-alpn-01`, `dns-01`.
    pub challenge: String,
    /// Root of the CA's own HTTPS certificate (PEM), if it is no public one.
    #[serde(skip_serializing_if = "is_default")]
    pub root: String,
    /// Program of DNS-01, called as `HOOK set|unset NAME VALUE`.
    #[serde(skip_serializing_if = "is_default")]
    pub hook: String,
    /// Id of an account that the CA knows already (external account binding).
    #[serde(skip_serializing_if = "is_default")]
    pub eab_id: String,
    /// Name of the swarm's secret with that account's key (base64url).
    #[serde(skip_serializing_if = "is_default")]
    pub eab_secret: String,
    /// Name of the resolver that is asked when this one does not issue a certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub fallback: String,
}

/// Everything that an ingress node needs to know. A copy shares what it has with the original.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressState {
    pub settings: IngressSettings,
    #[serde(skip_serializing_if = "is_default")]
    pub routes: OrdMap<String, Route>,
    /// A member `kind`, and its settings. A node refuses requests of routes whose middlewares it does not know.
    #[serde(skip_serializing_if = "is_default")]
    pub middlewares: OrdMap<String, Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub services: OrdMap<String, Upstream>,
    #[serde(skip_serializing_if = "is_default")]
    pub certificates: OrdMap<String, ServedCertificate>,
    /// Answers to challenges of a CA: token of HTTP-01 → key authorisation.
    #[serde(skip_serializing_if = "is_default")]
    pub challenges: OrdMap<String, String>,
}

/// The kind of traffic of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carried {
    #[default]
    Http,
    Tcp,
    Udp,
}

/// One route: which requests or connections go to which service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    pub carries: Carried,
    /// Names of entrypoints; none: all that carry this.
    #[serde(skip_serializing_if = "is_default")]
    pub entrypoints: BTreeSet<String>,
    /// Empty for UDP.
    pub rule: String,
    /// The rule is in the language of Traefik v2.
    #[serde(skip_serializing_if = "is_default")]
    pub old_syntax: bool,
    /// The larger one is tried first; of equals the one whose name comes first.
    pub priority: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub middlewares: Vec<String>,
    /// Key in [`IngressState::services`].
    pub service: String,
    /// TLS of the route; `None` for plain connections only.
    #[serde(skip_serializing_if = "is_default")]
    pub tls: Option<RouteTls>,
}

/// The TLS settings of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteTls {
    /// The bytes go to the service as they are.
    #[serde(skip_serializing_if = "is_default")]
    pub passthrough: bool,
    /// Source of the certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub resolver: String,
    /// Names that the certificate shall have, if they are not those of the rule.
    #[serde(skip_serializing_if = "is_default")]
    pub domains: Vec<String>,
}

/// A service that requests are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upstream {
    /// Ids of the services of the swarm that stand behind it.
    pub of: BTreeSet<String>,
    pub port: u16,
    /// `http`, `https`, `h2c`.
    pub scheme: String,
    /// The service gets the host that the client named, and not its own address.
    pub pass_host: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub sticky: Option<Sticky>,
    #[serde(skip_serializing_if = "is_default")]
    pub health: Option<HealthCheck>,
    /// `wrr`, `p2c`, `hrw`, `leasttime`; empty is `wrr`.
    #[serde(skip_serializing_if = "is_default")]
    pub strategy: String,
    /// Version of the PROXY header that connections begin with; 0: none.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_protocol: u8,
    /// Time limit for requests to a draining task, in milliseconds.
    pub drain_ms: u64,
    /// Keyed by id of the task.
    pub backends: BTreeMap<String, Backend>,
}

/// A cookie that brings a client to the same task again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sticky {
    /// Empty: `herder_` and a hash of the service's name.
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub secure: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub http_only: bool,
    /// `none`, `lax`, `strict`; empty: not said.
    #[serde(skip_serializing_if = "is_default")]
    pub same_site: String,
    /// Seconds; 0: until the browser is closed.
    #[serde(skip_serializing_if = "is_default")]
    pub max_age: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    #[serde(skip_serializing_if = "is_default")]
    pub domain: String,
}

/// A health check of tasks by ingress nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    pub path: String,
    /// 0: that of the service.
    #[serde(skip_serializing_if = "is_default")]
    pub port: u16,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub method: String,
    /// 0: any from 200 to 399.
    #[serde(skip_serializing_if = "is_default")]
    pub status: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
    #[serde(skip_serializing_if = "is_default")]
    pub headers: BTreeMap<String, String>,
}

/// One task of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backend {
    pub node: String,
    /// `host:port` of the node link of its node.
    #[serde(skip_serializing_if = "is_default")]
    pub link: String,
    #[serde(skip_serializing_if = "is_default")]
    pub container: String,
    /// Its addresses on overlay networks, by network id.
    #[serde(skip_serializing_if = "is_default")]
    pub addresses: BTreeMap<String, IpAddr>,
    /// Port of its node that leads to it.
    #[serde(skip_serializing_if = "is_default")]
    pub published: Option<SocketAddr>,
    pub weight: u32,
    pub state: BackendState,
}

/// The state of a task behind the ingress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    Serving,
    /// Takes none but those that it has.
    Draining,
    #[default]
    Down,
}

/// A certificate with its key, as ingress nodes have it in memory.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServedCertificate {
    pub names: Vec<String>,
    /// PEM, the leaf first.
    pub chain: String,
    /// PEM.
    pub key: String,
    /// End of its validity in seconds since 1970; 0: not known.
    #[serde(skip_serializing_if = "is_default")]
    pub not_after: i64,
    /// True if this certificate only answers TLS-ALPN-01 for its names.
    #[serde(skip_serializing_if = "is_default")]
    pub challenge: bool,
}

impl fmt::Debug for ServedCertificate {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Changes of an [`IngressState`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressChanges {
    #[serde(skip_serializing_if = "is_default")]
    pub settings: Option<IngressSettings>,
    #[serde(skip_serializing_if = "is_default")]
    pub routes: Patch<Route>,
    #[serde(skip_serializing_if = "is_default")]
    pub middlewares: Patch<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub services: Patch<Upstream>,
    #[serde(skip_serializing_if = "is_default")]
    pub certificates: Patch<ServedCertificate>,
    #[serde(skip_serializing_if = "is_default")]
    pub challenges: Patch<String>,
}

/// News of the ingress for a node that listens, or listened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressNews {
    /// The changes are to be applied to nothing: it is the whole state.
    #[serde(skip_serializing_if = "is_default")]
    pub whole: bool,
    /// The version that the changes apply to.
    #[serde(skip_serializing_if = "is_default")]
    pub applies_to: u64,
    pub results_in: u64,
    /// False: the node listens no more.
    pub listens: bool,
    pub changes: IngressChanges,
}

/// The tasks of a node that ingress nodes send requests to, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressServed {
    /// Keyed by id. A task that is to end waits until it is not here any more.
    #[serde(skip_serializing_if = "is_default")]
    pub tasks: BTreeMap<String, ServedTask>,
    /// Ids of the ingress nodes: they may open connections to these tasks.
    #[serde(skip_serializing_if = "is_default")]
    pub from: BTreeSet<String>,
}

/// A task that ingress nodes send requests to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServedTask {
    /// Time limit for its requests when it is to end, in milliseconds.
    pub drain_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub ports: BTreeSet<u16>,
}

/// The versions that an ingress node has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressApplied {
    /// The version that all new requests are routed by.
    pub version: u64,
    /// Draining tasks that it still has requests or connections to.
    #[serde(skip_serializing_if = "is_default")]
    pub busy: BTreeSet<String>,
    /// Entrypoints that it cannot listen on, and why.
    #[serde(skip_serializing_if = "is_default")]
    pub failed: BTreeMap<String, String>,
}

impl IngressChanges {
    /// Returns the changes that turn `before` into `after`. What they share is not looked at.
    pub fn between(before: &IngressState, after: &IngressState) -> IngressChanges {
        IngressChanges {
            settings: (before.settings != after.settings).then(|| after.settings.clone()),
            routes: Patch::between(&before.routes, &after.routes),
            middlewares: Patch::between(&before.middlewares, &after.middlewares),
            services: Patch::between(&before.services, &after.services),
            certificates: Patch::between(&before.certificates, &after.certificates),
            challenges: Patch::between(&before.challenges, &after.challenges),
        }
    }

    /// True if nothing is changed.
    pub fn is_empty(&self) -> bool {
        is_default(self)
    }
}

impl IngressState {
    /// Carries out the changes.
    pub fn apply(&mut self, changes: &IngressChanges) {
        if let Some(settings) = &changes.settings {
            self.settings.clone_from(settings);
        }
        changes.routes.apply(&mut self.routes);
        changes.middlewares.apply(&mut self.middlewares);
        changes.services.apply(&mut self.services);
        changes.certificates.apply(&mut self.certificates);
        changes.challenges.apply(&mut self.challenges);
    }
}

/// The kind of the resource with the settings of the ingress.
pub fn ingress_kind() -> Option<Word> {
    Word::new(INGRESS_KIND).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_turn_one_state_into_another() {
        let state = |text: Value| serde_json::from_value::<IngressState>(text).expect("a state");
        let before = state(json!({"routes": {"a": {"rule": "Host(`a`)"}, "b": {"rule": "Host(`b`)"}},
            "services": {"web": {"port": 80}}, "middlewares": {"m": {"kind": "stripprefix"}}}));
        let after = state(json!({"routes": {"a": {"rule": "Host(`x`)"}, "c": {"rule": "Host(`c`)"}},
            "services": {"web": {"port": 80}}, "challenges": {"t": "k"}}));
        let changes = IngressChanges::between(&before, &after);
        assert_eq!(changes.routes.put.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert!(changes.services.put.is_empty());
        let text = serde_json::to_string(&changes).expect("JSON");
        let mut now = before.clone();
        now.apply(&serde_json::from_str(&text).expect("changes"));
        assert_eq!(now, after);
        assert!(IngressChanges::between(&now, &after).is_empty());
    }
}
