//! The way to a door, for all verbs that call one. It reads address and TLS from flags and environment, refusals in
//! plain words.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use herder_docker::{Body, EngineLink, LinkError, Way, empty, gather};
use herder_tls as tls;
use http::{Method, Request, Response};
use serde_json::Value;
use tokio::time::timeout;

/// Maximum time for a door to answer an upgrade or a frame.
pub(crate) const DOOR_WAIT_MAX: Duration = Duration::from_secs(10);

/// The largest backup comes within this time, also over a slow line.
const BYTES_WAIT_MAX: Duration = Duration::from_secs(300);

/// A whole answer may have this many bytes; a thousand nodes take less than one of them.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The door of a node that runs here.
const LOCAL: &str = "unix:///run/herder.sock";

/// A door, and how it is reached.
#[derive(Debug)]
pub(crate) struct Door {
    /// Host in the user's words.
    pub(crate) host: String,
    link: EngineLink,
}

impl Door {
    /// The door that flags name, or else the environment: `HERDER_HOST`, then `DOCKER_HOST`. TLS as Docker's client does it.
    pub(crate) fn of(asked: &herder_cli::Door) -> anyhow::Result<Door> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = asked.host.clone().filter(|host| !host.is_empty()).or_else(|| variable("DOCKER_HOST"));
        let host = host.unwrap_or_else(|| LOCAL.to_owned());
        let addr = match host.split_once("://") {
            Some(("tcp", addr)) => addr.trim_end_matches('/'),
            Some(("unix", _)) | None => &host,
            Some((other, _)) => bail!("a door is at unix:///PATH or tcp://HOST:PORT, not at {other}://…: {host}"),
        };
        let home = || Some(PathBuf::from(variable("HOME")?).join(".docker"));
        let folder = variable("DOCKER_CERT_PATH").or_else(|| variable("DOCKER_CONFIG")).map(PathBuf::from);
        let verify = variable("DOCKER_TLS_VERIFY").is_some();
        let files = asked.tls.client(verify, folder.or_else(home), |path| path.exists())?;
        let way = match files.filter(|_| !addr.starts_with("unix://")) {
            None => Way::Plain,
            Some(files) => {
                let pair = files.pair.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
                let config = tls::client_with(files.ca.as_deref(), pair);
                Way::Tls(Arc::new(config.with_context(|| format!("no TLS to the door at {host}"))?))
            }
        };
        Ok(Door { link: EngineLink::new(addr, way), host })
    }

    /// The engine, or what speaks as one, at this address.
    pub(crate) fn link(&self) -> &EngineLink {
        &self.link
    }

    /// Sends a request and gives the answer as soon as its head is there, whatever its status is.
    pub(crate) async fn send(&self, request: Request<Body>) -> anyhow::Result<Response<Body>> {
        self.send_within(request, DOOR_WAIT_MAX).await
    }

    /// The same, for what takes longer.
    pub(crate) async fn send_within(&self, request: Request<Body>, wait: Duration) -> anyhow::Result<Response<Body>> {
        let host = &self.host;
        let late = |_| anyhow!("the door at {host} does not answer within {} s", wait.as_secs());
        match timeout(wait, self.link.send(request)).await.map_err(late)? {
            Ok(response) => Ok(response),
            Err(LinkError::Tls { reason, .. }) => bail!("no TLS to the door at {host}: {reason}{}", advice(&reason)),
            Err(error) => Err(error).with_context(|| format!("no door at {host}; is `herder up` running there?")),
        }
    }

    /// Returns the door's answer to a request without a body.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let response = self.send(Request::builder().method(method).uri(path).body(empty())?).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        self.read(response).await
    }

    /// Returns the reason of the door's refusal, from its answer.
    pub(crate) async fn refusal(&self, response: Response<Body>) -> anyhow::Error {
        let status = response.status();
        match self.read(response).await {
            Ok(answer) => {
                let message = answer["message"].as_str().unwrap_or_default();
                anyhow!("{} answers {status}: {message}{}", self.host, advice(message))
            }
            Err(error) => error.context(format!("{} answers {status}", self.host)),
        }
    }

    /// An answer that is no JSON, whole. Its length was decided by who asked for it.
    pub(crate) async fn bytes(&self, response: Response<Body>) -> anyhow::Result<Bytes> {
        let whole = timeout(BYTES_WAIT_MAX, gather(response.into_body(), usize::MAX)).await;
        let whole = whole.with_context(|| format!("the door at {} does not finish its answer", self.host))?;
        whole.with_context(|| format!("the answer of {} broke off", self.host))
    }

    /// An answer in JSON.
    pub(crate) async fn read(&self, response: Response<Body>) -> anyhow::Result<Value> {
        let host = &self.host;
        let whole = timeout(DOOR_WAIT_MAX, gather(response.into_body(), ANSWER_BYTES_MAX)).await;
        let bytes = whole.with_context(|| format!("the door at {host} does not finish its answer"))??;
        serde_json::from_slice(&bytes).with_context(|| format!("{host} is no door of herder"))
    }
}

/// Returns a remedy for a refusal of TLS; the reasons are those of rustls and of the door.
fn advice(reason: &str) -> &'static str {
    let has = |part: &str| reason.contains(part);
    match () {
        () if has("HTTP request to an HTTPS server") => {
            "; --tlsverify with --tlscacert, --tlscert and --tlskey asks by TLS, as DOCKER_TLS_VERIFY and DOCKER_CERT_PATH do"
        }
        () if has("InvalidContentType") => "; this door does not use TLS, ask without --tls and DOCKER_TLS_VERIFY",
        () if has("CertificateRequired") => {
            "; the door wants a certificate: --tlscert and --tlskey name it, or DOCKER_CERT_PATH its folder"
        }
        () if has("UnknownIssuer") || has("BadSignature") => {
            "; the door's certificate is not of the CA that --tlscacert names"
        }
        () if has("not valid for name") || has("NotValidForName") => {
            "; the door's certificate is for other names, `herder certs --endpoint` takes all that are used"
        }
        () if has("alert: UnknownCA") || has("alert: BadCertificate") || has("alert: DecryptError") => {
            "; the door does not know the CA of the certificate that was shown"
        }
        () if has("alert: CertificateExpired") => {
            "; the certificate that was shown is too old, `herder certs` makes new ones"
        }
        () => "",
    }
}
