//! Consul: HTTP with JSON, sessions for what must run out, blocking queries for news.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::http::{HttpAnswer, answer};
use super::lock::renew_until_lost;
use super::{CONNECT_TIME_MAX, Entries, KvError, OPERATION_TIME_MAX, Store, Target, TlsFiles, Trouble, tls};

/// A blocking query is answered after this long without news. Bounds how long a dead connection goes unnoticed.
const NEWS_WAIT: Duration = Duration::from_secs(20);

/// Maximum time of a blocking query. Consul adds up to a sixteenth of the wait, so that not all clients come back
/// together.
const NEWS_TIME_MAX: Duration = Duration::from_secs(20 + 2 + 5);

/// Consul lets a session run out after its time at the earliest, and after twice of it at the latest. With half of what
/// was asked for, a key goes in time.
const SESSION_SHARE: u32 = 2;

/// Shortest session that a Consul with its own defaults takes.
const SESSION_TTL_MIN: Duration = Duration::from_secs(10);

/// The status of an answer for a key or session that is not there.
const NOT_FOUND: u16 = 404;

#[derive(Debug)]
pub(super) struct Consul {
    client: Client,
    bases: Vec<String>,
    /// The host that answered last.
    turn: AtomicUsize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    value: Option<String>,
    session: Option<String>,
}

impl Pair {
    fn text(&self) -> String {
        let bytes = self.value.as_ref().and_then(|value| base64::engine::general_purpose::STANDARD.decode(value).ok());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }
}

impl Consul {
    pub(super) fn new(hosts: &[String], tls: Option<&TlsFiles>) -> Result<Consul, KvError> {
        let (scheme, config) = match tls {
            Some(files) => ("https", files.config(Store::Consul)?),
            None => ("http", tls::none(Store::Consul)?),
        };
        let bases: Vec<String> = hosts.iter().map(|host| format!("{scheme}://{host}/v1")).collect();
        for (host, base) in hosts.iter().zip(&bases) {
            let wrong = |reason| KvError::Host { store: Store::Consul, host: host.clone(), reason };
            reqwest::Url::parse(base).map_err(|error| wrong(error.to_string()))?;
        }
        let mut headers = reqwest::header::HeaderMap::new();
        let token = std::env::var("CONSUL_HTTP_TOKEN").ok().filter(|token| !token.is_empty());
        if let Some(token) = token.and_then(|token| reqwest::header::HeaderValue::from_str(&token).ok()) {
            headers.insert("x-consul-token", token);
        }
        let client = Client::builder()
            .tls_backend_preconfigured(config)
            .default_headers(headers)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME_MAX)
            .build()
            .map_err(|error| KvError::Host {
                store: Store::Consul,
                host: hosts.join(","),
                reason: error.to_string(),
            })?;
        Ok(Consul { client, bases, turn: AtomicUsize::new(0) })
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<String>, Trouble> {
        Ok(self.pair(key).await?.map(|pair| pair.text()))
    }

    /// The key belongs to a session of its own. One that is there already, of an earlier run perhaps, is taken over, so
    /// that the key does not flap.
    pub(super) async fn put(&self, key: &str, value: &str, ttl: Duration) -> Result<(), Trouble> {
        let known = self.pair(key).await?.and_then(|pair| pair.session);
        let session = match known {
            Some(session) if self.renew(&session).await? => session,
            _ => self.create_session(key, ttl).await?.0,
        };
        if self.acquire(key, value, &session).await? {
            return Ok(());
        }
        Err(Trouble::Refused("another session holds it".to_owned()))
    }

    pub(super) async fn put_lasting(&self, key: &str, value: &str) -> Result<(), Trouble> {
        let put = |client: &Client, base: &str| client.put(format!("{base}/kv/{key}")).body(value.to_owned());
        self.ask(OPERATION_TIME_MAX, put).await.map(drop)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Trouble> {
        let session = self.pair(key).await?.and_then(|pair| pair.session);
        self.ask(OPERATION_TIME_MAX, |client, base| client.delete(format!("{base}/kv/{key}"))).await?;
        match session {
            Some(session) => self.destroy(&session).await,
            None => Ok(()),
        }
    }

    pub(super) async fn try_lock(
        self: &Arc<Self>,
        key: &str,
        value: &str,
        ttl: Duration,
    ) -> Result<Option<Held>, Trouble> {
        let began = Instant::now();
        let (session, ttl) = self.create_session(key, ttl).await?;
        if self.acquire(key, value, &session).await? {
            return Ok(Some(Held { consul: self.clone(), session, ttl, began }));
        }
        self.destroy(&session).await?;
        Ok(None)
    }

    async fn pair(&self, key: &str) -> Result<Option<Pair>, Trouble> {
        let answer = self.ask(OPERATION_TIME_MAX, |client, base| client.get(format!("{base}/kv/{key}"))).await?;
        Ok(pairs(&answer)?.pop())
    }

    async fn acquire(&self, key: &str, value: &str, session: &str) -> Result<bool, Trouble> {
        let put = |client: &Client, base: &str| {
            client.put(format!("{base}/kv/{key}")).query(&[("acquire", session)]).body(value.to_owned())
        };
        let answer = self.ask(OPERATION_TIME_MAX, put).await?;
        Ok(answer.bytes.trim_ascii() == b"true")
    }

    /// A new session, and the time that it really has.
    async fn create_session(&self, key: &str, ttl: Duration) -> Result<(String, Duration), Trouble> {
        match self.create_session_of(key, ttl / SESSION_SHARE).await {
            // Consul says what it allows only in words.
            Err(Trouble::Refused(reason)) if reason.contains("TTL") && ttl / SESSION_SHARE < SESSION_TTL_MIN => {
                self.create_session_of(key, SESSION_TTL_MIN).await
            }
            result => result,
        }
    }

    async fn create_session_of(&self, key: &str, ttl: Duration) -> Result<(String, Duration), Trouble> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        // Neither the health of Consul's agent nor a pause between two holders: a holder that renews is alive.
        let body = json!({
            "Name": format!("herder {key}"),
            "Behavior": "delete",
            "TTL": format!("{}ms", ttl.as_millis()),
            "LockDelay": "0s",
            "Checks": [],
            "NodeChecks": [],
        });
        let answer = self
            .ask(OPERATION_TIME_MAX, |client, base| client.put(format!("{base}/session/create")).json(&body))
            .await?;
        let created: Created = serde_json::from_slice(&answer.bytes).map_err(|error| not_consul(&error))?;
        Ok((created.id, ttl))
    }

    /// False if there is no such session any more.
    async fn renew(&self, session: &str) -> Result<bool, Trouble> {
        let renew = |client: &Client, base: &str| client.put(format!("{base}/session/renew/{session}"));
        Ok(self.ask(OPERATION_TIME_MAX, renew).await?.status != NOT_FOUND)
    }

    async fn destroy(&self, session: &str) -> Result<(), Trouble> {
        let destroy = |client: &Client, base: &str| client.put(format!("{base}/session/destroy/{session}"));
        self.ask(OPERATION_TIME_MAX, destroy).await.map(drop)
    }

    /// Asks one host after the other, from the one that answered last, until one answers. 404 is an answer.
    async fn ask(
        &self,
        limit: Duration,
        request: impl Fn(&Client, &str) -> RequestBuilder,
    ) -> Result<HttpAnswer, Trouble> {
        let first = self.turn.load(Ordering::Relaxed);
        let mut trouble = Trouble::Away("no host is given".to_owned());
        for turn in (0..self.bases.len()).map(|step| (first + step) % self.bases.len()) {
            match answer(request(&self.client, &self.bases[turn]).timeout(limit), is_refusal).await {
                Err(Trouble::Away(reason)) => trouble = Trouble::Away(reason),
                result => {
                    self.turn.store(turn, Ordering::Relaxed);
                    return result;
                }
            }
        }
        Err(trouble)
    }
}

/// True if the text is the refusal of a session's wrong TTL, to which old versions answer 500. Others, such as "No
/// cluster leader", mean that the store is away.
fn is_refusal(text: &str) -> bool {
    text.contains("TTL")
}

fn pairs(answer: &HttpAnswer) -> Result<Vec<Pair>, Trouble> {
    if answer.status == NOT_FOUND {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&answer.bytes).map_err(|error| not_consul(&error))
}

fn not_consul(error: &serde_json::Error) -> Trouble {
    Trouble::Refused(format!("the answer is not Consul's: {error}"))
}

/// Follows keys by blocking queries.
#[derive(Debug)]
pub(super) struct Source {
    consul: Arc<Consul>,
    target: Target,
    /// Index of the last answer; 0 asks for the present state.
    index: u64,
}

impl Source {
    pub(super) fn new(consul: Arc<Consul>, target: Target) -> Source {
        Source { consul, target, index: 0 }
    }

    pub(super) async fn next(&mut self) -> Result<Entries, Trouble> {
        let index = std::mem::take(&mut self.index);
        let path = self.target.start();
        let limit = if index == 0 { OPERATION_TIME_MAX } else { NEWS_TIME_MAX };
        let query = |client: &Client, base: &str| {
            let mut request = client.get(format!("{base}/kv/{path}"));
            if !matches!(self.target, Target::Key(_)) {
                request = request.query(&[("recurse", "true")]);
            }
            if index > 0 {
                let wait = format!("{}s", NEWS_WAIT.as_secs());
                request = request.query(&[("index", &index.to_string()), ("wait", &wait)]);
            }
            request
        };
        let answer = self.consul.ask(limit, query).await?;
        let pairs = pairs(&answer)?;
        // An index that went back is that of another history: asked anew. None at all would never wait for news.
        self.index = if answer.index < index { 0 } else { answer.index.max(1) };
        let named = pairs.iter().filter_map(|pair| Some((self.target.name(&pair.key)?.to_owned(), pair.text())));
        Ok(named.collect())
    }
}

/// A session that holds a key.
#[derive(Debug)]
pub(super) struct Held {
    consul: Arc<Consul>,
    session: String,
    ttl: Duration,
    began: Instant,
}

impl Held {
    pub(super) async fn keep(&mut self) -> String {
        renew_until_lost(self.ttl, self.began, || self.consul.renew(&self.session)).await
    }

    /// The key goes with its session.
    pub(super) async fn release(self) -> Result<(), Trouble> {
        self.consul.destroy(&self.session).await
    }
}
