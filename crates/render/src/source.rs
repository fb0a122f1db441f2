//! Sources of answers: Consul, etcd, ZooKeeper, the environment, the cluster itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use herder_kv::{Entries, HttpAnswer, HttpApi, Kv, KvError, Store};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::data::{Answer, Dep};

/// A blocking query is answered after this long without news.
const NEWS_WAIT: &str = "60s";

/// Consul adds up to a sixteenth, so that not all clients come back together; then it must answer.
const NEWS_TIME_MAX: Duration = Duration::from_secs(60 + 4 + 10);

/// Two answers of one source are so far apart at least.
const BETWEEN: Duration = Duration::from_millis(100);

/// Rests between attempts at a source that does not answer.
const REST_MIN: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(60);

/// Files are looked at this often.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// A source of answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Source {
    kind: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    Consul(HttpApi),
    /// Keys begin with a slash.
    Etcd(Kv),
    EtcdV2(HttpApi),
    Zookeeper(Kv),
    /// A fixed answer, or one that another task keeps current; none: not known yet.
    Memory(watch::Receiver<Option<Entries>>),
}

/// A message of a follower.
#[derive(Debug)]
pub(crate) enum News {
    Answer(Dep, Answer),
    Failed { dep: Dep, error: String, attempts: u32 },
}

/// Says why a URI names no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("`{0}` names no source; write consul://, etcd://, etcd2://, zookeeper:// or herder:// with HOST:PORT")]
    Scheme(String),
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl Source {
    /// Reads `consul://HOST:PORT,…`, `etcd://…`, `etcd2://…` or `zookeeper://…`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Says what of it is wrong.
    pub fn parse(uri: &str, token: Option<&str>) -> Result<Source, SourceError> {
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| SourceError::Scheme(uri.to_owned()))?;
        let port = match scheme {
            "consul" | "http" => 8500,
            "etcd" | "etcd2" => 2379,
            "zookeeper" | "zk" => 2181,
            _ => return Err(SourceError::Scheme(uri.to_owned())),
        };
        let host = |host: &str| {
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
                host.to_owned()
            } else {
                format!("{host}:{port}")
            }
        };
        let hosts: Vec<String> = rest.trim_end_matches('/').split(',').map(host).collect();
        let kind = match scheme {
            "consul" | "http" => Kind::Consul(HttpApi::new(Store::Consul, &hosts, None, token)?),
            "etcd" => Kind::Etcd(Kv::new(Store::Etcd, &hosts, None)?),
            "etcd2" => Kind::EtcdV2(HttpApi::new(Store::Etcd, &hosts, None, None)?),
            _ => Kind::Zookeeper(Kv::new(Store::Zookeeper, &hosts, None)?),
        };
        Ok(Source { kind: Arc::new(kind) })
    }

    /// A source whose entries somebody else keeps true.
    pub fn memory(entries: watch::Receiver<Option<Entries>>) -> Source {
        Source { kind: Arc::new(Kind::Memory(entries)) }
    }

    /// The variables of this process as keys: `A_B` is `/a/b`.
    pub fn environment(env: &BTreeMap<String, String>) -> Source {
        let entries = env.iter().map(|(name, value)| (name.to_lowercase().replace('_', "/"), value.clone()));
        let (_, receiver) = watch::channel(Some(entries.collect()));
        Source::memory(receiver)
    }

    /// Sends each new answer for ever; ends when the receiver is dropped.
    pub(crate) async fn follow(self, dep: Dep, news: mpsc::Sender<News>) {
        if let Dep::File(path) = &dep {
            return follow_file(&dep, path, &news).await;
        }
        let mut attempts = 0;
        loop {
            let Err(error) = self.follow_once(&dep, &news, &mut attempts).await else { return };
            attempts += 1;
            let rest = REST_MIN.saturating_mul(1 << (attempts - 1).min(8)).min(REST_MAX);
            let failed = News::Failed { dep: dep.clone(), error, attempts };
            if news.send(failed).await.is_err() {
                return;
            }
            sleep(rest).await;
        }
    }

    /// Follows a query until the source fails, or the receiver is gone.
    async fn follow_once(&self, dep: &Dep, news: &mpsc::Sender<News>, attempts: &mut u32) -> Result<(), String> {
        match &*self.kind {
            Kind::Consul(api) => {
                let mut index = 0;
                loop {
                    let (answer, next) = consul(api, dep, index).await?;
                    // An index that went back is that of another history.
                    index = if next < index { 0 } else { next.max(1) };
                    *attempts = 0;
                    if news.send(News::Answer(dep.clone(), answer)).await.is_err() {
                        return Ok(());
                    }
                    sleep(BETWEEN).await;
                }
            }
            Kind::EtcdV2(api) => {
                let mut index = 0;
                loop {
                    let (answer, next) = etcd_v2(api, dep, index).await?;
                    index = next;
                    *attempts = 0;
                    if news.send(News::Answer(dep.clone(), answer)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Kind::Etcd(kv) => follow_kv(kv, "/", dep, news, attempts).await,
            Kind::Zookeeper(kv) => follow_kv(kv, "", dep, news, attempts).await,
            Kind::Memory(entries) => {
                let mut entries = entries.clone();
                loop {
                    let answer = entries.borrow_and_update().as_ref().map(|entries| of_entries(dep, entries));
                    if let Some(answer) = answer
                        && news.send(News::Answer(dep.clone(), answer)).await.is_err()
                    {
                        return Ok(());
                    }
                    if entries.changed().await.is_err() {
                        // Nobody changes it any more.
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }
}

async fn follow_kv(
    kv: &Kv,
    root: &str,
    dep: &Dep,
    news: &mpsc::Sender<News>,
    attempts: &mut u32,
) -> Result<(), String> {
    let mut watch = match dep {
        Dep::Key(key) => kv.watch_key(&format!("{root}{key}")),
        Dep::Tree(dir) => kv.watch_tree(&format!("{root}{dir}")),
        other => return Err(format!("{} has no catalogue for {other}; that is Consul's", kv.store())),
    };
    loop {
        let entries = watch.next().await.map_err(|error| error.to_string())?;
        *attempts = 0;
        if news.send(News::Answer(dep.clone(), Answer::Entries(Arc::new(entries)))).await.is_err() {
            return Ok(());
        }
    }
}

async fn follow_file(dep: &Dep, path: &str, news: &mpsc::Sender<News>) {
    let mut last = None;
    loop {
        let text = tokio::fs::read_to_string(path).await.ok();
        if last.as_ref() != Some(&text) {
            last = Some(text.clone());
            if news.send(News::Answer(dep.clone(), Answer::Text(text))).await.is_err() {
                return;
            }
        }
        sleep(LOOK_PERIOD).await;
    }
}

/// One answer of Consul, when it differs from that of `index`, and its own index.
async fn consul(api: &HttpApi, dep: &Dep, index: u64) -> Result<(Answer, u64), String> {
    let told = index.to_string();
    let mut query: Vec<(&str, &str)> = Vec::new();
    if index > 0 {
        query.extend([("index", told.as_str()), ("wait", NEWS_WAIT)]);
    }
    let path = match dep {
        Dep::Key(key) => format!("/v1/kv/{key}"),
        Dep::Tree(dir) => {
            query.push(("recurse", "true"));
            if dir.is_empty() { "/v1/kv/".to_owned() } else { format!("/v1/kv/{dir}/") }
        }
        Dep::Services => "/v1/catalog/services".to_owned(),
        Dep::Service { name, tag, datacentre, passing } => {
            let more = [("tag", tag), ("dc", datacentre)];
            query.extend(
                more.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key, value.as_str())),
            );
            if *passing {
                query.push(("passing", "1"));
            }
            format!("/v1/health/service/{name}")
        }
        Dep::Nodes => "/v1/catalog/nodes".to_owned(),
        Dep::Node(name) => format!("/v1/catalog/node/{name}"),
        Dep::File(_) => return Err("a file is no matter of Consul".to_owned()),
    };
    let answer = api.get_within(&path, &query, NEWS_TIME_MAX).await.map_err(|error| error.to_string())?;
    let not_consul = |error: serde_json::Error| format!("the answer is not Consul's: {error}");
    let json: Value = match answer.status {
        404 => Value::Null,
        _ => serde_json::from_slice(&answer.bytes).map_err(not_consul)?,
    };
    let found = match dep {
        Dep::Key(_) | Dep::Tree(_) => {
            let dir = if let Dep::Tree(dir) = dep { dir.as_str() } else { "" };
            let mut entries = Entries::new();
            for pair in json.as_array().into_iter().flatten() {
                let key = pair["Key"].as_str().unwrap_or_default();
                let bytes = pair["Value"].as_str().map(|coded| base64::engine::general_purpose::STANDARD.decode(coded));
                let value = String::from_utf8_lossy(&bytes.and_then(Result::ok).unwrap_or_default()).into_owned();
                let below = match dep {
                    Dep::Key(_) => Some(""),
                    _ if dir.is_empty() => Some(key),
                    _ => key.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')),
                };
                entries.extend(below.map(|below| (below.to_owned(), value)));
            }
            Answer::Entries(Arc::new(entries))
        }
        _ => Answer::Json(Arc::new(json)),
    };
    Ok((found, answer.index))
}

/// One answer of etcd's second API after the event `index`, and the index to wait from.
async fn etcd_v2(api: &HttpApi, dep: &Dep, index: u64) -> Result<(Answer, u64), String> {
    let key = match dep {
        Dep::Key(key) | Dep::Tree(key) => key,
        other => return Err(format!("etcd has no catalogue for {other}; that is Consul's")),
    };
    let path = format!("/v2/keys/{key}");
    let failed = |error: KvError| error.to_string();
    if index > 0 {
        let next = (index + 1).to_string();
        let query = [("wait", "true"), ("recursive", "true"), ("waitIndex", next.as_str())];
        match api.get_within(&path, &query, NEWS_TIME_MAX).await {
            Ok(_) => {}
            // Nothing happened in this time, or too much for etcd's memory: all is read again.
            Err(error)
                if error.to_string().contains("timed out") || error.to_string().contains("EcodeEventIndexCleared") => {}
            Err(error @ KvError::Refused { .. }) => {
                // 400: the events since are forgotten.
                tracing::debug!(%error, "repeating the blocking query");
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let HttpAnswer { status, index, bytes } = api.get(&path, &[("recursive", "true")]).await.map_err(failed)?;
    let mut entries = Entries::new();
    if status != 404 {
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|error| format!("the answer is not etcd's: {error}"))?;
        let root = format!("/{key}");
        let mut open = vec![&json["node"]];
        while let Some(node) = open.pop() {
            open.extend(node["nodes"].as_array().into_iter().flatten());
            let (Some(key), Some(value)) = (node["key"].as_str(), node["value"].as_str()) else { continue };
            let below = key.strip_prefix(root.trim_end_matches('/')).unwrap_or(key);
            let is_key = matches!(dep, Dep::Key(_));
            if is_key == below.is_empty() {
                entries.insert(below.trim_start_matches('/').to_owned(), value.to_owned());
            }
        }
    }
    Ok((Answer::Entries(Arc::new(entries)), index.max(1)))
}

/// Answers from entries of the form `services/NAME/ID` = `IP:PORT`.
fn of_entries(dep: &Dep, all: &Entries) -> Answer {
    let below = |dir: &str| -> Entries {
        if dir.is_empty() {
            return all.clone();
        }
        let prefix = format!("{dir}/");
        all.iter().filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))).collect()
    };
    let instances = || {
        let mut instances: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for (key, value) in below("services") {
            if let Some((name, id)) = key.split_once('/') {
                instances.entry(name.to_owned()).or_default().push((id.to_owned(), value));
            }
        }
        instances
    };
    match dep {
        Dep::Key(key) => {
            let value = all.get(key).map(|value| (String::new(), value.clone()));
            Answer::Entries(Arc::new(value.into_iter().collect()))
        }
        Dep::Tree(dir) => Answer::Entries(Arc::new(below(dir))),
        Dep::Services => {
            let names = instances().into_keys().map(|name| (name, json!([])));
            Answer::Json(Arc::new(Value::Object(names.collect())))
        }
        Dep::Service { name, .. } => {
            let found = instances().remove(name).unwrap_or_default();
            let entry = |(id, at): (String, String)| {
                let (ip, port) = at.rsplit_once(':').unwrap_or((&at, "0"));
                let host = id.split(':').next().unwrap_or_default();
                json!({
                    "Node": { "Node": host, "Address": ip },
                    "Service": { "ID": id, "Service": name, "Tags": [], "Address": ip, "Port": port.parse::<u16>().unwrap_or(0) },
                    "Checks": [],
                })
            };
            Answer::Json(Arc::new(found.into_iter().map(entry).collect()))
        }
        Dep::Nodes | Dep::Node(_) => Answer::Json(Arc::new(Value::Null)),
        Dep::File(_) => Answer::Text(None),
    }
}
