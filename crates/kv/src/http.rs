//! Stores that speak HTTP, beyond keys: Consul's agent, catalogue and health, and the keys of etcd's second version.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Method};

use super::{CONNECT_TIME_MAX, KvError, OPERATION_TIME_MAX, Store, TlsFiles, Trouble, tls};

/// An answer with more than this is no catalogue.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Paths and queries of a store's HTTP API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpApi {
    client: Client,
    store: Store,
    hosts: Arc<str>,
    bases: Arc<[String]>,
    token: Option<Arc<str>>,
    /// The host that answered last.
    turn: Arc<AtomicUsize>,
}

/// The answer of a store; 404 is an answer, too.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    pub status: u16,
    /// Consul's or etcd's index of the state, for the next blocking query.
    pub index: u64,
    pub bytes: Bytes,
}

impl HttpApi {
    /// Takes the addresses; nothing is connected yet.
    ///
    /// # Errors
    /// Names the host or the TLS file that cannot be used.
    pub fn new(
        store: Store,
        hosts: &[String],
        tls: Option<&TlsFiles>,
        token: Option<&str>,
    ) -> Result<HttpApi, KvError> {
        HttpApi::build(store, hosts, tls, token, None)
    }

    /// The same over a unix socket.
    ///
    /// # Errors
    /// Says why there can be no client.
    pub fn unix(store: Store, socket: &Path, token: Option<&str>) -> Result<HttpApi, KvError> {
        HttpApi::build(store, &["localhost".to_owned()], None, token, Some(socket))
    }

    fn build(
        store: Store,
        hosts: &[String],
        tls: Option<&TlsFiles>,
        token: Option<&str>,
        socket: Option<&Path>,
    ) -> Result<HttpApi, KvError> {
        let (scheme, config) = match tls {
            Some(files) => ("https", files.config(store)?),
            None => ("http", tls::none(store)?),
        };
        let bases: Arc<[String]> = hosts.iter().map(|host| format!("{scheme}://{host}")).collect();
        for (host, base) in hosts.iter().zip(bases.iter()) {
            let wrong = |reason| KvError::Host { store, host: host.clone(), reason };
            reqwest::Url::parse(base).map_err(|error| wrong(error.to_string()))?;
        }
        let mut client = Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME_MAX);
        if let Some(socket) = socket {
            client = client.unix_socket(socket);
        }
        let wrong = |reason| KvError::Host { store, host: hosts.join(","), reason };
        let client = client.build().map_err(|error| wrong(error.to_string()))?;
        let told = socket.map_or_else(|| hosts.join(","), |socket| socket.display().to_string());
        let token = token.filter(|token| !token.is_empty()).map(Arc::from);
        Ok(HttpApi { client, store, hosts: told.into(), bases, token, turn: Arc::default() })
    }

    /// Reads `path`, which begins with a slash.
    ///
    /// # Errors
    /// Away or refused; 404 is an answer.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<HttpAnswer, KvError> {
        self.call(Method::GET, path, query, None, OPERATION_TIME_MAX).await
    }

    /// Reads `path` when it changed, at the latest after `limit`.
    ///
    /// # Errors
    /// Away or refused; 404 is an answer.
    pub async fn get_within(&self, path: &str, query: &[(&str, &str)], limit: Duration) -> Result<HttpAnswer, KvError> {
        self.call(Method::GET, path, query, None, limit).await
    }

    /// Writes `path`.
    ///
    /// # Errors
    /// Away or refused; 404 is an answer.
    pub async fn put(&self, path: &str, query: &[(&str, &str)], body: Vec<u8>) -> Result<HttpAnswer, KvError> {
        self.call(Method::PUT, path, query, Some(body), OPERATION_TIME_MAX).await
    }

    /// Removes `path`.
    ///
    /// # Errors
    /// Away or refused; 404 is an answer.
    pub async fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<HttpAnswer, KvError> {
        self.call(Method::DELETE, path, query, None, OPERATION_TIME_MAX).await
    }

    /// Asks one host after the other, from the one that answered last, until one answers.
    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<HttpAnswer, KvError> {
        let first = self.turn.load(Ordering::Relaxed);
        let mut last = Trouble::Away("no host is given".to_owned());
        for turn in (0..self.bases.len()).map(|step| (first + step) % self.bases.len()) {
            let mut request = self.client.request(method.clone(), format!("{}{path}", self.bases[turn]));
            request = request.query(query).timeout(limit);
            if let Some(token) = &self.token {
                request = request.header("x-consul-token", &**token);
            }
            if let Some(body) = &body {
                // etcd reads forms, Consul whatever comes.
                let kind =
                    if self.store == Store::Etcd { "application/x-www-form-urlencoded" } else { "application/json" };
                request = request.header("content-type", kind).body(body.clone());
            }
            match answer(request, |_| false).await {
                Err(Trouble::Away(reason)) => last = Trouble::Away(reason),
                result => {
                    self.turn.store(turn, Ordering::Relaxed);
                    return result.map_err(|trouble| self.error(path, trouble));
                }
            }
        }
        Err(self.error(path, last))
    }

    fn error(&self, path: &str, trouble: Trouble) -> KvError {
        let (store, hosts, key) = (self.store, self.hosts.to_string(), path.to_owned());
        match trouble {
            Trouble::Away(reason) => KvError::Away { store, hosts, key, reason },
            Trouble::Refused(reason) => KvError::Refused { store, hosts, key, reason },
        }
    }
}

/// Sends a request and reads its answer. A server error whose text `refuses` knows is a refusal; others say that the store is away.
pub(super) async fn answer(
    request: reqwest::RequestBuilder,
    refuses: impl Fn(&str) -> bool,
) -> Result<HttpAnswer, Trouble> {
    let mut response = request.send().await.map_err(|error| Trouble::away(&error.without_url()))?;
    let status = response.status();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    let index = header("x-consul-index").or_else(|| header("x-etcd-index")).unwrap_or(0);
    let mut bytes = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|error| Trouble::away(&error.without_url()))? {
        if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(Trouble::Refused(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    let text = || format!("{status}: {}", String::from_utf8_lossy(&bytes).trim());
    match status {
        status if status.is_server_error() && !refuses(&text()) => Err(Trouble::Away(text())),
        status if status.is_success() || status.as_u16() == 404 => {
            Ok(HttpAnswer { status: status.as_u16(), index, bytes: bytes.freeze() })
        }
        _ => Err(Trouble::Refused(text())),
    }
}
