//! etcd, version 3 of its API: leases for what must run out, watches for news.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};

use super::lock::renew_until_lost;
use super::{CONNECT_TIME_MAX, Entries, KvError, Store, Target, TlsFiles, Trouble, in_time};

use herder_tls::TlsError;

use api::kv_client::KvClient;
use api::lease_client::LeaseClient;
use api::watch_client::WatchClient;

/// Generated from `proto/etcd.proto`.
#[expect(unreachable_pub, reason = "generated code")]
mod api {
    tonic::include_proto!("etcdserverpb");
}

/// A quiet connection is probed this often. etcd closes those that probe more than every 5 s.
const PROBE_PERIOD: Duration = Duration::from_secs(10);

/// A probe must be answered in this time.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Etcd {
    channels: Vec<Channel>,
    /// The host that answered last.
    turn: AtomicUsize,
}

impl Etcd {
    pub(super) fn new(hosts: &[String], tls: Option<&TlsFiles>) -> Result<Etcd, KvError> {
        let tls = tls.map(client_tls).transpose()?;
        let channels: Result<Vec<Channel>, KvError> = hosts
            .iter()
            .map(|host| {
                let wrong = |reason: String| KvError::Host { store: Store::Etcd, host: host.clone(), reason };
                let scheme = if tls.is_some() { "https" } else { "http" };
                let endpoint = Endpoint::from_shared(format!("{scheme}://{host}"))
                    .map_err(|error| wrong(error.to_string()))?
                    .connect_timeout(CONNECT_TIME_MAX)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(PROBE_PERIOD)
                    .keep_alive_timeout(PROBE_TIME_MAX);
                let endpoint = match &tls {
                    Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| wrong(error.to_string()))?,
                    None => endpoint,
                };
                Ok(endpoint.connect_lazy())
            })
            .collect();
        Ok(Etcd { channels: channels?, turn: AtomicUsize::new(0) })
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<String>, Trouble> {
        Ok(self.key_value(key).await?.map(|kv| text(&kv.value)))
    }

    /// Renews the key's lease, or gives it a new one. The old one, if any, runs out with nothing on it.
    pub(super) async fn put(&self, key: &str, value: &str, ttl: Duration) -> Result<(), Trouble> {
        if let Some(there) = self.key_value(key).await?
            && there.lease != 0
            && there.value == value.as_bytes()
            && self.renew(there.lease).await? == Some(seconds(ttl))
        {
            return Ok(());
        }
        let (lease, _) = self.grant(ttl).await?;
        self.put_with(key, value, lease).await
    }

    pub(super) async fn put_lasting(&self, key: &str, value: &str) -> Result<(), Trouble> {
        self.put_with(key, value, 0).await
    }

    async fn put_with(&self, key: &str, value: &str, lease: i64) -> Result<(), Trouble> {
        let request = api::PutRequest { key: key.into(), value: value.into(), lease };
        self.ask(|channel| {
            let request = request.clone();
            async move { KvClient::new(channel).put(request).await }
        })
        .await?;
        Ok(())
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Trouble> {
        let request = api::DeleteRangeRequest { key: key.into() };
        self.ask(|channel| {
            let request = request.clone();
            async move { KvClient::new(channel).delete_range(request).await }
        })
        .await?;
        Ok(())
    }

    pub(super) async fn try_lock(
        self: &Arc<Self>,
        key: &str,
        value: &str,
        ttl: Duration,
    ) -> Result<Option<Held>, Trouble> {
        let began = Instant::now();
        let (lease, ttl) = self.grant(ttl).await?;
        let held = Held { etcd: self.clone(), lease, ttl, began };
        let absent = api::Compare {
            result: api::compare::Result::Equal as i32,
            target: api::compare::Target::Create as i32,
            key: key.into(),
            target_union: Some(api::compare::TargetUnion::CreateRevision(0)),
        };
        let put = api::PutRequest { key: key.into(), value: value.into(), lease };
        let put = api::RequestOp { request: Some(api::request_op::Request::RequestPut(put)) };
        let request = api::TxnRequest { compare: vec![absent], success: vec![put] };
        let answer = self
            .ask(|channel| {
                let request = request.clone();
                async move { KvClient::new(channel).txn(request).await }
            })
            .await?;
        if answer.succeeded {
            return Ok(Some(held));
        }
        held.release().await?;
        Ok(None)
    }

    async fn key_value(&self, key: &str) -> Result<Option<api::KeyValue>, Trouble> {
        Ok(self.range(key, Vec::new()).await?.kvs.pop())
    }

    async fn range(&self, key: &str, range_end: Vec<u8>) -> Result<api::RangeResponse, Trouble> {
        let request = api::RangeRequest { key: key.into(), range_end };
        self.ask(|channel| {
            let request = request.clone();
            async move { KvClient::new(channel).range(request).await }
        })
        .await
    }

    /// A new lease, and the time that it really has.
    async fn grant(&self, ttl: Duration) -> Result<(i64, Duration), Trouble> {
        let request = api::LeaseGrantRequest { ttl: seconds(ttl), id: 0 };
        let answer = self.ask(|channel| async move { LeaseClient::new(channel).lease_grant(request).await }).await?;
        if !answer.error.is_empty() {
            return Err(Trouble::Refused(answer.error));
        }
        Ok((answer.id, Duration::from_secs(answer.ttl.try_into().unwrap_or(0))))
    }

    /// The lease's time in seconds, or nothing if it has run out.
    async fn renew(&self, lease: i64) -> Result<Option<i64>, Trouble> {
        let request = api::LeaseKeepAliveRequest { id: lease };
        let answer = self
            .ask(|channel| async move {
                let mut answers =
                    LeaseClient::new(channel).lease_keep_alive(stream::once(std::future::ready(request))).await?;
                let answer = answers.get_mut().message().await?;
                answer.map(tonic::Response::new).ok_or_else(|| Status::unavailable("the stream of renewals ended"))
            })
            .await?;
        Ok((answer.ttl > 0).then_some(answer.ttl))
    }

    /// Asks one host after the other, from the one that answered last, until one answers.
    async fn ask<T, F>(&self, request: impl Fn(Channel) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let first = self.turn.load(Ordering::Relaxed);
        let mut trouble = Trouble::Away("no host is given".to_owned());
        for turn in (0..self.channels.len()).map(|step| (first + step) % self.channels.len()) {
            match request(self.channels[turn].clone()).await.map_err(|status| from_status(&status)) {
                Err(Trouble::Away(reason)) => trouble = Trouble::Away(reason),
                result => {
                    self.turn.store(turn, Ordering::Relaxed);
                    return result.map(tonic::Response::into_inner);
                }
            }
        }
        Err(trouble)
    }
}

fn client_tls(files: &TlsFiles) -> Result<ClientTlsConfig, KvError> {
    // For a clear error about each file; tonic only says that something is wrong.
    files.config(Store::Etcd)?;
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| {
            let source = TlsError::File { what: "PEM", path: path.clone(), reason: error.to_string() };
            KvError::Tls { store: Store::Etcd, source }
        })
    };
    let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&files.ca)?)).identity(identity))
}

fn from_status(status: &Status) -> Trouble {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
            let cause = std::error::Error::source(status).map(Trouble::away);
            match cause {
                Some(Trouble::Away(cause)) => Trouble::Away(cause),
                _ => Trouble::Away(status.message().to_owned()),
            }
        }
        code => Trouble::Refused(format!("{code}: {}", status.message())),
    }
}

/// Leases count whole seconds.
fn seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first key after all that begin with `prefix`; nothing for a single key.
fn range_end(target: &Target) -> Vec<u8> {
    match target {
        Target::Key(_) => Vec::new(),
        // The slash at the end becomes the byte after it.
        Target::Dir(dir) | Target::Tree(dir) => [dir.as_bytes(), b"0"].concat(),
    }
}

/// Follows keys by a watch from the revision of a first read on.
#[derive(Debug)]
pub(super) struct Source {
    etcd: Arc<Etcd>,
    target: Target,
    entries: Entries,
    news: Option<Streaming<api::WatchResponse>>,
}

impl Source {
    pub(super) fn new(etcd: Arc<Etcd>, target: Target) -> Source {
        Source { etcd, target, entries: Entries::new(), news: None }
    }

    pub(super) async fn next(&mut self) -> Result<Entries, Trouble> {
        let Some(news) = &mut self.news else {
            let (entries, news) = in_time(self.begin()).await?;
            (self.entries, self.news) = (entries, Some(news));
            return Ok(self.entries.clone());
        };
        match news.message().await {
            Ok(Some(answer)) if !answer.canceled => {
                self.take(answer.events);
                Ok(self.entries.clone())
            }
            Ok(Some(answer)) => {
                self.news = None;
                Err(Trouble::Away(format!("the watch was ended: {}", answer.cancel_reason)))
            }
            Ok(None) => {
                self.news = None;
                Err(Trouble::Away("the watch ended".to_owned()))
            }
            Err(status) => {
                self.news = None;
                Err(from_status(&status))
            }
        }
    }

    async fn begin(&self) -> Result<(Entries, Streaming<api::WatchResponse>), Trouble> {
        let range_end = range_end(&self.target);
        let state = self.etcd.range(&self.target.start(), range_end.clone()).await?;
        let revision = state.header.map_or(0, |header| header.revision);
        let create =
            api::WatchCreateRequest { key: self.target.start().into(), range_end, start_revision: revision + 1 };
        let create = api::WatchRequest { request_union: Some(api::watch_request::RequestUnion::CreateRequest(create)) };
        // The end of our side would end the watch.
        let news = self
            .etcd
            .ask(|channel| {
                let requests = stream::once(std::future::ready(create.clone())).chain(stream::pending());
                async move { WatchClient::new(channel).watch(requests).await }
            })
            .await?;
        let named = state.kvs.iter().filter_map(|kv| Some((self.name(&kv.key)?, text(&kv.value))));
        Ok((named.collect(), news))
    }

    fn name(&self, key: &[u8]) -> Option<String> {
        self.target.name(std::str::from_utf8(key).ok()?).map(str::to_owned)
    }

    fn take(&mut self, events: Vec<api::Event>) {
        for event in events {
            let put = event.r#type() == api::event::Type::Put;
            let Some(kv) = event.kv else { continue };
            let Some(name) = self.name(&kv.key) else { continue };
            if put {
                self.entries.insert(name, text(&kv.value));
            } else {
                self.entries.remove(&name);
            }
        }
    }
}

/// A lease that holds a key.
#[derive(Debug)]
pub(super) struct Held {
    etcd: Arc<Etcd>,
    lease: i64,
    ttl: Duration,
    began: Instant,
}

impl Held {
    pub(super) async fn keep(&mut self) -> String {
        let renew = || async { Ok(self.etcd.renew(self.lease).await?.is_some()) };
        renew_until_lost(self.ttl, self.began, renew).await
    }

    /// Releases the lock by revoking its lease, which deletes the key.
    pub(super) async fn release(self) -> Result<(), Trouble> {
        let request = api::LeaseRevokeRequest { id: self.lease };
        self.etcd.ask(|channel| async move { LeaseClient::new(channel).lease_revoke(request).await }).await?;
        Ok(())
    }
}
