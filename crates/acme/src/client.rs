//! The HTTPS client that speaks to authorities.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::Failed;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Time limit of one answer. Most authorities answer within seconds; finalizing an order takes longer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Chains and directories have some kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Speaks to one authority.
pub(crate) struct Client(reqwest::Client);

impl Client {
    /// Trusts this root (PEM) alone; without one, those that the host trusts.
    pub(crate) fn new(root: &str) -> Result<Client, Failed> {
        let mut roots = RootCertStore::empty();
        if root.is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        } else {
            for der in CertificateDer::pem_slice_iter(root.as_bytes()) {
                let der = der.map_err(|error| Failed::refused(format!("the root cannot be read: {error}")))?;
                roots.add(der).map_err(|error| Failed::refused(format!("the root cannot be used: {error}")))?;
            }
        }
        if roots.is_empty() {
            let text = "no root is known by which to trust the authority: install ca-certificates, or give root=FILE";
            return Err(Failed::refused(text));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| Failed::refused(error.to_string()))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(ANSWER_TIME_MAX)
            .build();
        client.map(Client).map_err(|error| Failed::refused(error.to_string()))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let request = client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
            let mut answer = request.send().await.map_err(other)?;
            let mut response = Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                *headers = std::mem::take(answer.headers_mut());
            }
            let mut bytes = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(other)? {
                if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                    return Err(Error::Str("an answer of a size that an authority has"));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(BytesResponse::from(response.body(Full::new(Bytes::from(bytes)))?))
        })
    }
}

fn other(error: reqwest::Error) -> Error {
    Error::Other(Box::new(error))
}
