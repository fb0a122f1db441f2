//! TLS flags, the same for all that serve and all that ask.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::error::UsageError;

/// TLS arguments in the typed form.
#[derive(Clone, Debug, Default, Args)]
pub struct TlsArgs {
    /// Use TLS; the other side is not verified
    #[arg(long)]
    pub tls: bool,
    /// Use TLS, and the other side must show a certificate of the CA
    #[arg(long)]
    pub tlsverify: bool,
    /// Certificates of the CA
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub tlscacert: Option<PathBuf>,
    /// Own certificate
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub tlscert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub tlskey: Option<PathBuf>,
}

/// TLS files of a server, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: Option<PathBuf>,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Both sides show certificates of the CA.
    pub verify: bool,
}

/// TLS files of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// Without one the other side is not verified.
    pub ca: Option<PathBuf>,
    /// Certificate and key; `None` for a client without them.
    pub pair: Option<(PathBuf, PathBuf)>,
}

/// Reads a path that may be empty, which counts as not given; clap's own parser refuses it.
fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl TlsArgs {
    /// The same, without files whose names are empty.
    fn given(&self) -> TlsArgs {
        let given = |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        TlsArgs {
            tlscacert: given(&self.tlscacert),
            tlscert: given(&self.tlscert),
            tlskey: given(&self.tlskey),
            ..*self
        }
    }

    /// Returns the files of a server, if it shall use TLS.
    pub(crate) fn files(&self) -> Result<Option<TlsFiles>, UsageError> {
        self.given().files_given()
    }

    fn files_given(self) -> Result<Option<TlsFiles>, UsageError> {
        match (self.is_on(false)?, self.tlscert, self.tlskey) {
            (false, _, _) => Ok(None),
            (true, _, _) if self.tlsverify && self.tlscacert.is_none() => Err(UsageError::TlsCa),
            (true, Some(cert), Some(key)) => {
                Ok(Some(TlsFiles { ca: self.tlscacert, cert, key, verify: self.tlsverify }))
            }
            (true, _, _) => Err(UsageError::TlsFiles),
        }
    }

    /// Returns the files of a client, if it shall use TLS, by the rules of Docker's own. `verify` stands for
    /// `DOCKER_TLS_VERIFY`; unnamed files are `ca.pem`, `cert.pem` and `key.pem` in `folder`, the last two only if
    /// `exists` finds both.
    pub fn client(
        &self,
        verify: bool,
        folder: Option<PathBuf>,
        exists: impl Fn(&PathBuf) -> bool,
    ) -> Result<Option<ClientFiles>, UsageError> {
        self.given().client_given(verify, folder, exists)
    }

    fn client_given(
        &self,
        verify: bool,
        folder: Option<PathBuf>,
        exists: impl Fn(&PathBuf) -> bool,
    ) -> Result<Option<ClientFiles>, UsageError> {
        if !self.is_on(verify)? {
            return Ok(None);
        }
        let usual = |name: &str| folder.as_ref().map(|folder| folder.join(name));
        let ca = match verify || self.tlsverify {
            false => None,
            true => Some(self.tlscacert.clone().or_else(|| usual("ca.pem")).ok_or(UsageError::TlsCa)?),
        };
        let pair = match (self.tlscert.clone(), self.tlskey.clone()) {
            (None, None) => usual("cert.pem").zip(usual("key.pem")).filter(|(cert, key)| exists(cert) && exists(key)),
            (cert, key) => {
                let (cert, key) = (cert.or_else(|| usual("cert.pem")), key.or_else(|| usual("key.pem")));
                Some(cert.zip(key).ok_or(UsageError::TlsFiles)?)
            }
        };
        Ok(Some(ClientFiles { ca, pair }))
    }

    fn is_on(&self, verify: bool) -> Result<bool, UsageError> {
        let given = self.tlscacert.is_some() || self.tlscert.is_some() || self.tlskey.is_some();
        match self.tls || self.tlsverify || verify {
            false if given => Err(UsageError::TlsOff),
            on => Ok(on),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_client_finds_its_files_where_dockers_own_does() {
        // Flags, DOCKER_TLS_VERIFY, folder, which files are there → CA and pair.
        let check = |flags: &str, verify: bool, folder: Option<&str>, there: &str, expected: &str| {
            let flag = |name: &str| flags.split(' ').find_map(|word| word.strip_prefix(name)).map(PathBuf::from);
            let args = TlsArgs {
                tls: flags.contains("tls"),
                tlsverify: flags.contains("verify"),
                tlscacert: flag("ca="),
                tlscert: flag("cert="),
                tlskey: flag("key="),
            };
            let exists = |path: &PathBuf| there.split(' ').any(|it| *path == Path::new(it));
            let text = match args.client(verify, folder.map(PathBuf::from), exists) {
                Ok(None) => "plain".to_owned(),
                Ok(Some(ClientFiles { ca, pair })) => {
                    let pair =
                        pair.map_or("nobody".to_owned(), |(cert, key)| format!("{} {}", cert.display(), key.display()));
                    format!("{} as {pair}", ca.map_or("any".to_owned(), |ca| ca.display().to_string()))
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(text, expected, "{flags} {verify} {folder:?} {there}");
        };
        check("", false, Some("f"), "f/cert.pem f/key.pem", "plain");
        check("", true, Some("f"), "f/cert.pem f/key.pem", "f/ca.pem as f/cert.pem f/key.pem");
        check("", true, Some("f"), "f/cert.pem", "f/ca.pem as nobody");
        check("tls", false, Some("f"), "f/cert.pem f/key.pem", "any as f/cert.pem f/key.pem");
        check("tls", false, None, "", "any as nobody");
        check("tls verify ca=c cert=a key=b", false, Some("f"), "", "c as a b");
        check("tls verify cert=a", false, Some("f"), "", "f/ca.pem as a f/key.pem");
        check("ca=c", true, None, "", "c as nobody");
        check("tls verify", false, None, "", "--tlscacert must be provided when using --tlsverify");
        check("tls cert=a", false, None, "", "--tlscert and --tlskey must be provided when using --tls");
        let off = "--tlscert, --tlskey and --tlscacert require the use of either --tls or --tlsverify";
        check("ca=c", false, None, "", off);
    }
}
