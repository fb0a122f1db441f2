//! Facts of a node in its certificate: id, swarm, role, and time of issue.

use herder_model::swarm::Role;
use herder_tls::certs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identity::node_of;

/// OU of managers' certificates, as in swarm mode.
const MANAGER: &str = "swarm-manager";
/// OU of workers' certificates, as in swarm mode.
const WORKER: &str = "swarm-worker";

/// The first byte of a serial number that holds when the certificate was issued. Serial numbers are positive: the first bit
/// is 0.
const SERIAL_MARK: u8 = 0x68;
/// The mark, milliseconds since 1970, random bytes. Serial numbers have at most 20 bytes (RFC 5280).
const SERIAL_BYTES: usize = 1 + 8 + 8;

/// The subject of a verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Id of the node.
    pub node: String,
    /// Id of the swarm. Empty in certificates that nodes of a pool without managers make.
    pub cluster: String,
    /// `None` in certificates that nodes of a pool without managers make, and in those of earlier releases.
    pub role: Option<Role>,
    /// Milliseconds since 1970; 0 if the certificate does not say it. Certificates of an external CA say when they begin to
    /// be valid, which may be some minutes before they were issued.
    pub issued_ms: u64,
}

impl Subject {
    /// Reads the subject of a certificate (PEM) that is not verified yet.
    pub fn of_pem(cert: &str) -> Option<Subject> {
        Subject::of(&CertificateDer::from_pem_slice(cert.as_bytes()).ok()?)
    }

    /// `None` if it is no certificate of a node.
    pub(crate) fn of(cert: &CertificateDer<'_>) -> Option<Subject> {
        let node = node_of(cert)?;
        let (_, parsed) = X509Certificate::from_der(cert).ok()?;
        let unit = parsed.subject().iter_organizational_unit().find_map(|it| it.as_str().ok());
        let role = unit.and_then(role);
        let cluster = parsed.subject().iter_organization().find_map(|it| it.as_str().ok()).unwrap_or_default();
        let begins = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or_default();
        // Certificates without a role are of earlier releases, or of a pool without managers.
        let issued_ms = issued_ms(parsed.raw_serial()).or(role.map(|_| begins * 1000)).unwrap_or_default();
        Some(Subject { node, cluster: cluster.to_owned(), role, issued_ms })
    }
}

/// Returns the role that an organizational unit stands for.
pub(crate) fn role(unit: &str) -> Option<Role> {
    match unit {
        MANAGER => Some(Role::Manager),
        WORKER => Some(Role::Worker),
        _ => None,
    }
}

/// The subject that managers certify.
pub(crate) fn certified(node: &str, cluster: &str, role: Role) -> certs::Subject {
    let unit = if role == Role::Manager { MANAGER } else { WORKER };
    certs::Subject { common_name: node.to_owned(), organization: cluster.to_owned(), unit: unit.to_owned() }
}

/// A serial number that says when the certificate was issued.
pub(crate) fn serial(issued_ms: u64) -> Vec<u8> {
    [&[SERIAL_MARK][..], &issued_ms.to_be_bytes(), &rand::random::<[u8; 8]>()].concat()
}

/// Returns the begin of the certificate's validity, in seconds since 1970.
pub(crate) fn not_before(cert: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(cert).ok()?;
    u64::try_from(parsed.validity().not_before.timestamp()).ok()
}

/// Returns the end of the certificate, in seconds since 1970.
pub(crate) fn not_after(cert: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(cert).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

/// Reads the time of issue from a serial number that this program made.
fn issued_ms(serial: &[u8]) -> Option<u64> {
    match serial.split_first() {
        Some((&SERIAL_MARK, rest)) if serial.len() == SERIAL_BYTES => {
            rest.first_chunk().map(|it| u64::from_be_bytes(*it))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::identity::server_name;
    use herder_tls::certs::{Authority, request};

    #[test]
    fn a_certificate_says_who_the_node_is_and_what_it_was_asked_for_does_not_count() {
        let now = SystemTime::now();
        let year = Duration::from_secs(365 * 24 * 3600);
        let root = Authority::new("pool", now, year).unwrap();
        let wish = certified("other", "other", Role::Manager);
        let asked = request(&wish, &[server_name("other")]).unwrap();
        let subject = certified("n1", "c1", Role::Worker);
        let cert = root.certify(&asked.request, &subject, &[server_name("n1")], &serial(7), now, year).unwrap();
        let read = Subject::of(&CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
        let expected = Subject { node: "n1".into(), cluster: "c1".into(), role: Some(Role::Worker), issued_ms: 7 };
        assert_eq!(read, expected);
    }

    #[test]
    fn a_certificate_with_another_serial_number_was_issued_when_it_begins() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let lifetime = Duration::from_secs(3600);
        let root = Authority::new("elsewhere", begin, lifetime).unwrap();
        let subject = certified("n1", "c1", Role::Manager);
        let asked = request(&subject, &[]).unwrap();
        let cert = root.certify(&asked.request, &subject, &[server_name("n1")], &[7; 20], begin, lifetime).unwrap();
        // Certificates of this authority begin a day before they are issued.
        assert_eq!(Subject::of_pem(&cert).unwrap().issued_ms, 1_799_913_600_000);
        assert_eq!(Subject::of_pem("none"), None);
    }

    #[test]
    fn certificates_of_a_pool_without_managers_have_no_role() {
        let identity = crate::identity::Identity::first("n1", SystemTime::now()).unwrap();
        let expected = Subject { node: identity.id.clone(), cluster: String::new(), role: None, issued_ms: 0 };
        assert_eq!(identity.subject(), Some(expected));
    }

    #[test]
    fn a_request_that_was_changed_is_not_certified() {
        let now = SystemTime::now();
        let root = Authority::new("pool", now, Duration::from_secs(3600)).unwrap();
        let asked = request(&certified("n1", "c1", Role::Worker), &[]).unwrap().request;
        let other = request(&certified("n2", "c1", Role::Worker), &[]).unwrap().request;
        let line = |text: &str, at: usize| text.lines().nth(at).unwrap().to_owned();
        let changed = asked.replacen(&line(&asked, 2), &line(&other, 2), 1);
        let subject = certified("n1", "c1", Role::Worker);
        let lifetime = Duration::from_secs(3600);
        assert!(root.certify(&changed, &subject, &[], &serial(7), now, lifetime).is_err());
        assert!(root.certify("", &subject, &[], &serial(7), now, lifetime).is_err());
    }
}
