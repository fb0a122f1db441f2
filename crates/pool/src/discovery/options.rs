//! Options of `--discovery-opt`.

use std::path::PathBuf;

use herder_kv::TlsFiles;

use super::DiscoveryError;

/// Path below the prefix in which engines are listed. As in classic Swarm.
const KV_PATH: &str = "docker/swarm/nodes";

/// Options of discovery; only stores have any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directory of the engines below the prefix.
    pub kv_path: String,
    pub tls: Option<TlsFiles>,
}

impl Default for Options {
    fn default() -> Options {
        Options { kv_path: KV_PATH.to_owned(), tls: None }
    }
}

impl Options {
    /// Parses the pairs of `--discovery-opt`; the last one of a name counts. An empty value counts as missing.
    pub fn parse(pairs: &[(String, String)]) -> Result<Options, DiscoveryError> {
        let mut options = Options::default();
        let [mut ca, mut certificate, mut key] = [None, None, None];
        for (name, value) in pairs {
            let path = (!value.is_empty()).then(|| PathBuf::from(value));
            match name.as_str() {
                "kv.path" if value.is_empty() => options.kv_path = KV_PATH.to_owned(),
                "kv.path" => options.kv_path.clone_from(value),
                "kv.cacertfile" => ca = path,
                "kv.certfile" => certificate = path,
                "kv.keyfile" => key = path,
                _ => return Err(DiscoveryError::Option { name: name.clone() }),
            }
        }
        options.tls = match (ca, certificate, key) {
            (None, None, None) => None,
            (Some(ca), Some(certificate), Some(key)) => Some(TlsFiles { ca, certificate, key }),
            (None, ..) => return Err(DiscoveryError::HalfTls { missing: "kv.cacertfile" }),
            (_, None, _) => return Err(DiscoveryError::HalfTls { missing: "kv.certfile" }),
            (.., None) => return Err(DiscoveryError::HalfTls { missing: "kv.keyfile" }),
        };
        Ok(options)
    }
}
