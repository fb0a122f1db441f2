//! The faults of TLS with an engine, apart from each other.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// The reason for which there is no TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The other side answers without TLS.
    Plain,
    /// Its certificate is not of a CA that is trusted.
    UnknownCa,
    /// Its certificate is too old; Unix seconds of its end, if they are known.
    Expired(Option<u64>),
    /// Its certificate is not valid yet; Unix seconds of its beginning, if they are known.
    NotYetValid(Option<u64>),
    /// Its certificate is for these names only.
    Name(Vec<String>),
    /// It does not take the client's certificate.
    ClientRefused,
    Other,
}

impl TlsFault {
    pub(crate) fn of(error: &Error) -> TlsFault {
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => TlsFault::Plain,
            Error::InvalidCertificate(fault) => TlsFault::of_certificate(fault),
            Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::DecryptError,
            ) => TlsFault::ClientRefused,
            _ => TlsFault::Other,
        }
    }

    fn of_certificate(fault: &CertificateError) -> TlsFault {
        match fault {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFault::UnknownCa,
            CertificateError::Expired => TlsFault::Expired(None),
            CertificateError::ExpiredContext { not_after, .. } => TlsFault::Expired(Some(not_after.as_secs())),
            CertificateError::NotValidYet => TlsFault::NotYetValid(None),
            CertificateError::NotValidYetContext { not_before, .. } => {
                TlsFault::NotYetValid(Some(not_before.as_secs()))
            }
            CertificateError::NotValidForName => TlsFault::Name(Vec::new()),
            // They are written as `DnsName("h")` and `IpAddress(10.0.0.1)`.
            CertificateError::NotValidForNameContext { presented, .. } => {
                let bare = |name: &String| {
                    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
                    inner.unwrap_or(name).trim_matches('"').to_owned()
                };
                TlsFault::Name(presented.iter().map(bare).collect())
            }
            _ => TlsFault::Other,
        }
    }
}
