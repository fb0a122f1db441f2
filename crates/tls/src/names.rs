//! Reads the names in a certificate: its subject, and the host names and addresses that it is for.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// The names in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `CN` of the subject; empty if it has none.
    pub common_name: String,
    /// Each `O` of the subject, in their order.
    pub organizations: Vec<String>,
    /// Host names and addresses of the subject alternative name, in their order; a name may begin with `*.`.
    pub hosts: Vec<String>,
    /// The serial number, in hexadecimal digits.
    pub serial: String,
}

/// Reads the names of a certificate in DER. Nothing, if it is no certificate.
pub fn names(der: &[u8]) -> Option<Names> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().find_map(|it| it.as_str().ok()).unwrap_or_default().to_owned();
    let organizations = subject.iter_organization().filter_map(|it| it.as_str().ok()).map(str::to_owned).collect();
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let hosts = alternatives.iter().flat_map(|it| &it.value.general_names).filter_map(host).collect();
    Some(Names { common_name, organizations, hosts, serial: format!("{:x}", certificate.tbs_certificate.serial) })
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::certs::{Authority, Usage};

    #[test]
    fn names_are_read_from_what_was_signed() {
        let day = Duration::from_secs(86400);
        let authority = Authority::new("CA", SystemTime::now(), day).expect("a CA");
        let check = |common_name: &str, hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|it| (*it).to_owned()).collect();
            let pair = authority.sign(common_name, &hosts, Usage::Endpoint, SystemTime::now(), day).expect("signed");
            let der = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM");
            let read = names(&der).expect("a certificate");
            assert_eq!((read.common_name.as_str(), &read.hosts), (common_name, &hosts));
            assert!(!read.serial.is_empty());
        };
        check("admin", &[]);
        check("door", &["10.0.0.1", "fe80::1", "door.example", "*.door.example"]);
        assert_eq!(names(b"nonsense"), None);
    }
}
