//! The swarm's own authority: certificates for names that no public one vouches for.

use std::time::{Duration, SystemTime};

use herder_decide::ingress::Due;
use herder_tls::certs::{Authority, Pair, Usage};
use serde_json::{Value, json};

use crate::Failed;
use crate::book::Book;

/// Name of the record with its certificate and key.
const NAME: &str = "own";
const LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Clients that follow the rules of public authorities take none that is valid for longer than this.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// Signs a certificate: its chain and its key.
pub(crate) async fn sign(book: &Book, due: &Due) -> Result<(String, String), Failed> {
    let failed = |error: herder_tls::certs::CertError| Failed::refused(error.to_string());
    let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(book.clock.now().0);
    let text = |value: &Value, member: &str| value[member].as_str().unwrap_or_default().to_owned();
    let authority = match book.authority(NAME) {
        Some(kept) => Authority::from_pair(Pair { cert: text(&kept, "cert"), key: text(&kept, "key") }),
        None => Authority::new("herder ingress", now, LIFETIME),
    };
    let authority = authority.map_err(failed)?;
    let Pair { cert, key } = &authority.pair;
    book.keep_authority(NAME, &json!({"cert": cert, "key": key})).await?;
    let first = due.names.first().cloned().unwrap_or_default();
    let made = authority.sign(&first, &due.names, Usage::Engine, now, CERTIFICATE_LIFETIME).map_err(failed)?;
    Ok((made.cert + cert, made.key))
}
