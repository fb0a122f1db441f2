//! The stores that services are written into.

use std::path::{Path, PathBuf};
use std::time::Duration;

use herder_kv::{Entries, HttpApi, Kv, KvError, Store, TlsFiles};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::sync::watch;

use crate::record;
use crate::service::{Service, is_of_host};

/// Characters that a part of a path keeps.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// Silence after which ZooKeeper removes a session's nodes.
const ZOOKEEPER_SESSION: Duration = Duration::from_secs(10);

/// The store that services go to, and their form there.
#[derive(Debug)]
pub struct Sink {
    pub(crate) kind: Kind,
    prefix: String,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// The agent of a Consul beside this engine.
    Agent(HttpApi),
    /// The catalogue of a Consul elsewhere, under a node of our name.
    Catalogue {
        api: HttpApi,
        node: String,
        address: String,
    },
    /// Consul's keys without a time of life.
    ConsulKeys(HttpApi),
    /// Keys of Consul with a session, and of etcd.
    Keys(Kv),
    EtcdV2(HttpApi),
    Skydns(Kv),
    Zookeeper(Kv),
    /// Entries for readers in this process; `None` before the first complete look.
    Memory(watch::Sender<Option<Entries>>),
}

/// Says why a URI names no store.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error(
        "`{0}` names no store; write one of consul:// consul-tls:// consul-unix:// consulkv:// consulkv-unix:// etcd:// etcd2:// skydns2:// zookeeper:// with a host, \
         such as consul://127.0.0.1:8500 or etcd://127.0.0.1:2379/services"
    )]
    Scheme(String),
    #[error("`{0}` names no domain; write skydns2://HOST:PORT/DOMAIN")]
    NoDomain(String),
    #[error("`{uri}` with a TTL: {reason}")]
    Ttl { uri: String, reason: &'static str },
    #[error("consul-tls needs the files CONSUL_CACERT, CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY in the environment")]
    NoFiles,
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// Settings of a store that its URI does not give.
#[derive(Clone, Debug, Default)]
pub struct SinkOptions {
    pub ttl: u64,
    /// CONSUL_HTTP_TOKEN.
    pub token: Option<String>,
    /// CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY.
    pub consul_files: Option<[PathBuf; 3]>,
    /// Register in Consul's catalogue: the node's name and address.
    pub catalogue: Option<(String, String)>,
}

impl Sink {
    /// Reads a URI of Registrator's. Nothing is connected yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Says what of the URI or of the options is wrong.
    pub fn parse(uri: &str, options: &SinkOptions) -> Result<Sink, SinkError> {
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| SinkError::Scheme(uri.to_owned()))?;
        let token = options.token.as_deref();
        if let "consul-unix" | "consulkv-unix" = scheme {
            let (socket, path) = rest.rsplit_once(':').unwrap_or((rest, ""));
            let api = HttpApi::unix(Store::Consul, Path::new(socket), token)?;
            let keys = scheme == "consulkv-unix" || !path.trim_matches('/').is_empty();
            if keys && options.ttl > 0 {
                return Err(SinkError::Ttl { uri: uri.to_owned(), reason: "keys over a unix socket have no session" });
            }
            let kind = if keys { Kind::ConsulKeys(api) } else { Kind::Agent(api) };
            return Ok(Sink { kind, prefix: path.trim_matches('/').to_owned() });
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let default_port = match scheme {
            "consul" | "consul-tls" | "consulkv" => 8500,
            "etcd" | "etcd2" | "skydns2" => 2379,
            "zookeeper" | "zk" => 2181,
            _ => return Err(SinkError::Scheme(uri.to_owned())),
        };
        let hosts: Vec<String> = hosts.split(',').map(|host| with_port(host, default_port)).collect();
        let rooted = |path: &str| if path.is_empty() { String::new() } else { format!("/{path}") };
        let kind = match scheme {
            "consul-tls" => {
                let [ca, certificate, key] = options.consul_files.clone().ok_or(SinkError::NoFiles)?;
                let files = TlsFiles { ca, certificate, key };
                Kind::Agent(HttpApi::new(Store::Consul, &hosts, Some(&files), token)?)
            }
            // With a path it meant keys, when there was no other name for that.
            "consul" if path.is_empty() => {
                let api = HttpApi::new(Store::Consul, &hosts, None, token)?;
                match options.catalogue.clone() {
                    Some((node, address)) => Kind::Catalogue { api, node, address },
                    None => Kind::Agent(api),
                }
            }
            "consul" | "consulkv" if options.ttl > 0 => Kind::Keys(Kv::new(Store::Consul, &hosts, None)?),
            "consul" | "consulkv" => Kind::ConsulKeys(HttpApi::new(Store::Consul, &hosts, None, token)?),
            "etcd" => Kind::Keys(Kv::new(Store::Etcd, &hosts, None)?),
            "etcd2" => Kind::EtcdV2(HttpApi::new(Store::Etcd, &hosts, None, None)?),
            "skydns2" if path.is_empty() => return Err(SinkError::NoDomain(uri.to_owned())),
            "skydns2" => Kind::Skydns(Kv::new(Store::Etcd, &hosts, None)?),
            _ => Kind::Zookeeper(Kv::new(Store::Zookeeper, &hosts, None)?),
        };
        let prefix = match kind {
            Kind::Keys(ref kv) if kv.store() == Store::Etcd => rooted(path),
            Kind::EtcdV2(_) => rooted(path),
            Kind::Skydns(_) => record::skydns_prefix(path),
            _ => path.to_owned(),
        };
        Ok(Sink { kind, prefix })
    }

    /// A store in the memory of this process, and its entries.
    pub fn memory(prefix: &str) -> (Sink, watch::Receiver<Option<Entries>>) {
        let (sender, receiver) = watch::channel(None);
        (Sink { kind: Kind::Memory(sender), prefix: prefix.to_owned() }, receiver)
    }

    /// The engine was looked at, and everything that is due was written.
    pub(crate) fn settled(&self) {
        if let Kind::Memory(entries) = &self.kind {
            entries.send_if_modified(|entries| {
                let first = entries.is_none();
                entries.get_or_insert_default();
                first
            });
        }
    }

    /// Interval at which entries must be written again, besides `-ttl-refresh`.
    pub fn refresh(&self) -> Option<Duration> {
        // A session that was lost took its nodes with it.
        matches!(self.kind, Kind::Zookeeper(_)).then_some(ZOOKEEPER_SESSION / 2)
    }

    /// Checks that the store answers.
    ///
    /// # Errors
    /// Says why it does not.
    pub async fn ping(&self) -> Result<(), KvError> {
        match &self.kind {
            Kind::Agent(api) | Kind::Catalogue { api, .. } | Kind::ConsulKeys(api) => {
                api.get("/v1/status/leader", &[]).await.map(drop)
            }
            Kind::EtcdV2(api) => api.get("/version", &[]).await.map(drop),
            Kind::Memory(_) => Ok(()),
            Kind::Keys(kv) | Kind::Skydns(kv) | Kind::Zookeeper(kv) => kv.get("herder/ping").await.map(drop),
        }
    }

    /// Writes a service, or writes it again.
    ///
    /// # Errors
    /// Says which store did not take it, and why.
    pub async fn register(&self, service: &Service) -> Result<(), KvError> {
        let (key, value) = record::key_value(&self.prefix, service);
        let ttl = Duration::from_secs(service.ttl);
        match &self.kind {
            Kind::Agent(api) => {
                let record = record::consul(service).to_string();
                api.put("/v1/agent/service/register", &[], record.into_bytes()).await.map(drop)
            }
            Kind::Catalogue { api, node, address } => {
                let record = record::consul_catalogue(service, node, address).to_string();
                api.put("/v1/catalog/register", &[], record.into_bytes()).await.map(drop)
            }
            Kind::ConsulKeys(api) => api.put(&keys_path("/v1/kv", &key), &[], value.into_bytes()).await.map(drop),
            Kind::EtcdV2(api) => {
                let mut form = format!("value={}", utf8_percent_encode(&value, NON_ALPHANUMERIC));
                if service.ttl > 0 {
                    form.push_str(&format!("&ttl={}", service.ttl));
                }
                api.put(&keys_path("/v2/keys", &key), &[], form.into_bytes()).await.map(drop)
            }
            Kind::Keys(kv) => put(kv, &key, &value, ttl).await,
            Kind::Memory(entries) => {
                entries.send_modify(|entries| {
                    entries.get_or_insert_default().insert(key, value);
                });
                Ok(())
            }
            Kind::Skydns(kv) => put(kv, &key, &record::skydns_value(service), ttl).await,
            Kind::Zookeeper(kv) => {
                let key = self.zookeeper_key(service);
                kv.put(&key, &record::zookeeper_value(service), ZOOKEEPER_SESSION).await
            }
        }
    }

    /// Removes a service. One that is not there is fine.
    ///
    /// # Errors
    /// Says which store did not take it, and why.
    pub async fn deregister(&self, service: &Service) -> Result<(), KvError> {
        let (key, _) = record::key_value(&self.prefix, service);
        match &self.kind {
            Kind::Agent(api) => {
                let path = keys_path("/v1/agent/service/deregister", &service.id);
                api.put(&path, &[], Vec::new()).await.map(drop)
            }
            Kind::Catalogue { api, node, .. } => {
                let record = serde_json::json!({ "Node": node, "ServiceID": service.id }).to_string();
                api.put("/v1/catalog/deregister", &[], record.into_bytes()).await.map(drop)
            }
            Kind::ConsulKeys(api) => api.delete(&keys_path("/v1/kv", &key), &[]).await.map(drop),
            Kind::EtcdV2(api) => api.delete(&keys_path("/v2/keys", &key), &[]).await.map(drop),
            Kind::Keys(kv) | Kind::Skydns(kv) => kv.delete(&key).await,
            Kind::Memory(entries) => {
                entries.send_modify(|entries| {
                    entries.get_or_insert_default().remove(&key);
                });
                Ok(())
            }
            Kind::Zookeeper(kv) => {
                kv.delete(&self.zookeeper_key(service)).await?;
                // The folder of the service goes with its last one; ZooKeeper refuses while there are others.
                if let Some((folder, _)) = self.zookeeper_key(service).rsplit_once('/') {
                    let _ = kv.delete(folder).await;
                }
                Ok(())
            }
        }
    }

    fn zookeeper_key(&self, service: &Service) -> String {
        let key = format!("{}/{}/{}", self.prefix, service.name, crate::service::address(service));
        key.trim_start_matches('/').to_owned()
    }

    /// Entries that have the form of these hosts'.
    ///
    /// # Errors
    /// Says which store did not answer, and why.
    pub async fn own(&self, hostnames: &[String]) -> Result<Vec<Service>, KvError> {
        let mut own = match &self.kind {
            Kind::Agent(api) => agent_services(&api.get("/v1/agent/services", &[]).await?.bytes),
            Kind::Catalogue { api, node, .. } => {
                let answer = api.get(&keys_path("/v1/catalog/node", node), &[]).await?;
                let node: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
                agent_services(node["Services"].to_string().as_bytes())
            }
            Kind::ConsulKeys(api) => {
                let answer = api.get(&keys_path("/v1/kv", &self.prefix), &[("keys", "")]).await?;
                let keys: Vec<String> = serde_json::from_slice(&answer.bytes).unwrap_or_default();
                let below = keys.iter().filter_map(|key| key.strip_prefix(&self.prefix)?.strip_prefix('/'));
                below.filter_map(of_key).collect()
            }
            Kind::Keys(kv) | Kind::Skydns(kv) => {
                kv.list_tree(&self.prefix).await?.keys().filter_map(|key| of_key(key)).collect()
            }
            // Nodes of ended sessions go by themselves; etcd's second version has a TTL for that.
            Kind::Zookeeper(_) | Kind::EtcdV2(_) | Kind::Memory(_) => Vec::new(),
        };
        own.retain(|service| hostnames.iter().any(|it| is_of_host(&service.id, it)));
        Ok(own)
    }

    /// Sends the health of a service to Consul, if it is fed from here.
    ///
    /// # Errors
    /// Says why Consul did not take it.
    pub async fn feed(&self, service: &Service, status: &str) -> Result<(), KvError> {
        let Kind::Agent(api) = &self.kind else { return Ok(()) };
        if !record::is_fed_by_health(service) {
            return Ok(());
        }
        let verb = match status {
            "healthy" => "pass",
            "starting" => "warn",
            _ => "fail",
        };
        let path = keys_path(&format!("/v1/agent/check/{verb}"), &format!("service:{}", service.id));
        api.put(&path, &[("note", status)], Vec::new()).await.map(drop)
    }
}

async fn put(kv: &Kv, key: &str, value: &str, ttl: Duration) -> Result<(), KvError> {
    if ttl.is_zero() { kv.put_lasting(key, value).await } else { kv.put(key, value, ttl).await }
}

fn with_port(host: &str, port: u16) -> String {
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}

fn keys_path(base: &str, key: &str) -> String {
    let parts = key.split('/').filter(|part| !part.is_empty());
    parts.fold(base.to_owned(), |path, part| format!("{path}/{}", utf8_percent_encode(part, PLAIN)))
}

/// `name/id` of a key below the prefix, as far as it is needed to remove it.
fn of_key(key: &str) -> Option<Service> {
    let (name, id) = key.split_once('/')?;
    Some(found(id, name, "", 0))
}

fn agent_services(bytes: &[u8]) -> Vec<Service> {
    let services: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let services = services.as_object().into_iter().flatten();
    let text = |service: &Value, key: &str| service[key].as_str().unwrap_or_default().to_owned();
    services
        .map(|(id, service)| {
            let port = service["Port"].as_u64().and_then(|port| u16::try_from(port).ok());
            found(id, &text(service, "Service"), &text(service, "Address"), port.unwrap_or(0))
        })
        .collect()
}

/// A service of which only the store tells.
fn found(id: &str, name: &str, ip: &str, port: u16) -> Service {
    Service {
        id: id.to_owned(),
        name: name.to_owned(),
        ip: ip.to_owned(),
        port,
        tags: Vec::new(),
        attrs: std::collections::BTreeMap::new(),
        ttl: 0,
        container: String::new(),
        exposed_port: String::new(),
        published_port: String::new(),
        health: false,
    }
}
