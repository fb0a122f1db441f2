//! The causes for which a remote engine cannot be used, in words and as codes. Pure.

use herder_deploy::{Cause, Fault};
use herder_docker::{LinkError, NotWhole, TlsFault};
use herder_tls::TlsError;
use serde_json::Value;

pub(super) fn unusable(cause: Cause, reason: impl Into<String>) -> Fault {
    Fault::Unusable { cause, reason: reason.into() }
}

/// The fault of certificates that cannot be used.
pub(crate) fn of_pem(error: &TlsError) -> Fault {
    let cause = if matches!(error, TlsError::OtherKey) { Cause::KeyMismatch } else { Cause::BadPem };
    unusable(cause, error.to_string())
}

/// The fault of a connection to `addr`, and the way out where there is one.
pub(super) fn of_link(addr: &str, error: &LinkError) -> Fault {
    match error {
        LinkError::Tls { reason, fault, .. } => of_tls(addr, reason, fault),
        LinkError::Connect { source, .. } => {
            let cause = innermost(&**source);
            Fault::Unreachable(format!("{addr}: no connection: {cause}"))
        }
        LinkError::Timeout { .. } => unusable(Cause::Timeout, error.to_string()),
        LinkError::Broken { source, .. } => {
            let mut causes = causes(&**source);
            let is_no_http = causes.any(|it| it.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse));
            let cause = innermost(&**source);
            match is_no_http {
                true => unusable(
                    Cause::BadAnswer,
                    format!("{addr}: its answer is no HTTP ({cause}); if it wants TLS, give its certificates"),
                ),
                false => Fault::Unreachable(format!("{addr}: the connection broke: {cause}")),
            }
        }
        LinkError::Busy { .. } => Fault::Unreachable(error.to_string()),
    }
}

/// An error that caused another.
type Source<'e> = &'e (dyn std::error::Error + 'static);

fn causes(error: Source<'_>) -> impl Iterator<Item = Source<'_>> {
    std::iter::successors(Some(error), |it| it.source())
}

fn innermost(error: Source<'_>) -> Source<'_> {
    causes(error).last().unwrap_or(error)
}

fn of_tls(addr: &str, reason: &str, fault: &TlsFault) -> Fault {
    let (cause, text) = match fault {
        TlsFault::Plain => (
            Cause::PlainServer,
            "it answers without TLS; give no certificates and use its port for that (2375), or turn TLS on there"
                .into(),
        ),
        TlsFault::UnknownCa => {
            (Cause::UnknownCa, format!("its certificate is not of the CA that was given ({reason})"))
        }
        TlsFault::Expired(end) => (
            Cause::Expired,
            format!("its certificate is too old{}; make a new one, or set the clocks", dated(" since ", *end)),
        ),
        TlsFault::NotYetValid(start) => (
            Cause::Expired,
            format!("its certificate is valid only{}; set the clocks, or make a new one", dated(" from ", *start)),
        ),
        TlsFault::Name(names) => {
            let names = if names.is_empty() { "other names".into() } else { names.join(", ") };
            (Cause::Name, format!("its certificate is for {names}; use such a name, or make one for this address"))
        }
        TlsFault::ClientRefused => {
            (Cause::ClientRefused, format!("it does not take the client's certificate ({reason})"))
        }
        TlsFault::Other => return Fault::Unreachable(format!("{addr}: no TLS: {reason}")),
    };
    unusable(cause, format!("{addr}: {text}"))
}

/// A time as people read it, behind a word.
fn dated(word: &str, seconds: Option<u64>) -> String {
    let time = seconds.and_then(|it| jiff::Timestamp::from_second(i64::try_from(it).ok()?).ok());
    time.map_or_else(String::new, |it| format!("{word}{it}"))
}

/// The fault of an answer that cannot be read whole.
pub(super) fn of_body(addr: &str, error: &NotWhole) -> Fault {
    match error {
        NotWhole::TooLarge(_) => unusable(Cause::BadAnswer, format!("{addr}: its answer cannot be used: {error}")),
        NotWhole::Broken(_) => Fault::Unreachable(format!("{addr}: its answer cannot be used: {error}")),
    }
}

/// The fault of an answer that is no JSON. Engines with TLS say so in clear words.
pub(super) fn of_text(addr: &str, bytes: &[u8], error: &serde_json::Error) -> Fault {
    if bytes.starts_with(b"Client sent an HTTP request to an HTTPS server") {
        return unusable(Cause::NeedsTls, format!("{addr}: it wants TLS; give ca, cert and key"));
    }
    unusable(Cause::BadAnswer, format!("{addr}: its answer is no JSON: {error}"))
}

/// The fault of an engine that cannot manage a swarm, by its answer to `/info`.
pub(crate) fn of_info(addr: &str, info: &Value) -> Option<Fault> {
    let swarm = &info["Swarm"];
    let state = swarm["LocalNodeState"].as_str().unwrap_or("inactive");
    let (cause, text) = match (state, swarm["ControlAvailable"].as_bool()) {
        ("active", Some(true)) => return None,
        ("active", _) => {
            let managers = swarm["RemoteManagers"].as_array().into_iter().flatten();
            let managers: Vec<&str> = managers.filter_map(|it| it["Addr"].as_str()).collect();
            (Cause::NotAManager, format!("it is a worker; managers are {}", managers.join(", ")))
        }
        ("locked", _) => (Cause::SwarmLocked, "its swarm is locked; `docker swarm unlock` opens it".to_owned()),
        (state, _) => (
            Cause::SwarmInactive,
            format!("it is in no swarm ({state}); use the kind engine, or `docker swarm init` there"),
        ),
    };
    Some(unusable(cause, if addr.is_empty() { text } else { format!("{addr}: {text}") }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_engine_that_cannot_manage_says_why() {
        let check = |swarm: Value, expected: &str| {
            let said = match of_info("h:1", &json!({"Swarm": swarm})) {
                Some(Fault::Unusable { cause, reason }) => format!("{} {reason}", cause.code()),
                _ => "none".into(),
            };
            assert_eq!(said, expected);
        };
        check(json!({"LocalNodeState": "active", "ControlAvailable": true}), "none");
        check(
            json!({"LocalNodeState": "active", "ControlAvailable": false, "RemoteManagers": [{"Addr": "10.0.0.1:2377"}]}),
            "not_a_manager h:1: it is a worker; managers are 10.0.0.1:2377",
        );
        check(
            json!({"LocalNodeState": "locked"}),
            "swarm_locked h:1: its swarm is locked; `docker swarm unlock` opens it",
        );
        check(
            json!({"LocalNodeState": "inactive"}),
            "swarm_inactive h:1: it is in no swarm (inactive); use the kind engine, or `docker swarm init` there",
        );
        check(
            Value::Null,
            "swarm_inactive h:1: it is in no swarm (inactive); use the kind engine, or `docker swarm init` there",
        );
    }
}
