//! The layers of every request before its handler: identify → limit → authorise → audit.

use std::sync::Arc;

use herder_pool::Body;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::audit::{Audit, Entry, Outcome};
use crate::router::{Action, Callers};
use crate::{ApiError, Principal, Reply};

/// Joins what several programs log of one request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A client's own id may be this long; a longer one is replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Decides who may do what. Does not wait: what it goes by is in memory.
pub trait Authorise: Send + Sync + std::fmt::Debug + 'static {
    /// Refuses with a sentence for the client, which names what is missing.
    fn check(&self, caller: &Principal, action: Action, path: &str) -> Result<(), String>;
}

/// Allows everything: as with Docker, a client that reaches the door has root on all nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everybody;

impl Authorise for Everybody {
    fn check(&self, _: &Principal, _: Action, _: &str) -> Result<(), String> {
        Ok(())
    }
}

/// Checks the caller against the route and against the rights. A refusal is 403.
pub(crate) fn authorise(
    rights: &dyn Authorise,
    caller: &Principal,
    action: Action,
    callers: Callers,
    path: &str,
) -> Result<(), ApiError> {
    let denied = |reason: String| Err(ApiError::new(StatusCode::FORBIDDEN, reason));
    if callers == Callers::Known && !caller.is_known() {
        return denied(format!(
            "{} is only for callers that the connection proves: use the unix socket of the node (unix:///run/herder.sock), or TLS \
             with a client certificate (--tlsverify)",
            action.0
        ));
    }
    rights.check(caller, action, path).or_else(denied)
}

/// Log record of a request. It is written at the answer, or when the request is dropped without one.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) caller: Arc<Principal>,
    request_id: HeaderValue,
    method: Method,
    /// Path as the client sent it; after parsing, decoded and without version.
    pub(crate) path: String,
    pub(crate) action: Option<Action>,
    pub(crate) denied: bool,
    began: Instant,
    audit: Option<Arc<dyn Audit>>,
    done: bool,
}

impl Record {
    /// Identifies the caller and gives the request an id, if it has none that can be logged.
    pub(crate) fn begin(request: &mut Request<Body>, audit: Option<Arc<dyn Audit>>) -> Record {
        let caller = request.extensions_mut().remove::<Arc<Principal>>();
        let given = request.headers().get(&REQUEST_ID).filter(|it| is_request_id(it)).cloned();
        let request_id = given.unwrap_or_else(new_request_id);
        // Engines and other managers get it, too.
        request.headers_mut().insert(REQUEST_ID, request_id.clone());
        Record {
            caller: caller.unwrap_or_else(|| Arc::new(Principal::local())),
            request_id,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            action: None,
            denied: false,
            began: Instant::now(),
            audit,
            done: false,
        }
    }

    /// Writes the logs; the reply is sent afterwards.
    pub(crate) async fn finish(mut self, reply: &mut Reply) {
        reply.headers_mut().insert(REQUEST_ID, self.request_id.clone());
        self.done = true;
        let status = reply.status();
        let failed = status.is_client_error() || status.is_server_error();
        let outcome = match (self.denied, failed) {
            (true, _) => Outcome::Denied,
            (false, true) => Outcome::Failed,
            (false, false) => Outcome::Done,
        };
        self.log(Some(status), outcome);
        if let Some((audit, entry)) = self.entry(Some(status), outcome) {
            audit.write(entry).await;
        }
    }

    /// One line: reads that succeed are for those that look for them, at the level debug.
    fn log(&self, status: Option<StatusCode>, outcome: Outcome) {
        let request_id = self.request_id.to_str().unwrap_or_default();
        let (from, who) = (&self.caller.peer, self.caller.name());
        let action = self.action.map_or("", |it| it.0);
        let status = status.map(|it| it.as_u16());
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (method, path) = (&self.method, &self.path);
        if Action::is_write(&self.method) || !matches!(outcome, Outcome::Done | Outcome::Abandoned) {
            tracing::info!(
                target: "herder_access", %method, path, status, ms, %from, who, action, request_id, ?outcome, "request"
            );
        } else {
            tracing::debug!(
                target: "herder_access", %method, path, status, ms, %from, who, action, request_id, ?outcome, "request"
            );
        }
    }

    /// Returns the audit entry: for writes that have a route, and for every denial.
    fn entry(&self, status: Option<StatusCode>, outcome: Outcome) -> Option<(&Arc<dyn Audit>, Entry)> {
        let audit = self.audit.as_ref()?;
        let counts = outcome == Outcome::Denied || (self.action.is_some() && Action::is_write(&self.method));
        counts.then(|| {
            let entry = Entry {
                time: jiff::Timestamp::now().to_string(),
                request_id: self.request_id.to_str().unwrap_or_default().to_owned(),
                who: self.caller.name(),
                from: self.caller.peer.to_string(),
                action: self.action.map_or("", |it| it.0).to_owned(),
                method: self.method.to_string(),
                path: self.path.clone(),
                status: status.map(|it| it.as_u16()),
                outcome,
            };
            (audit, entry)
        })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.log(None, Outcome::Abandoned);
        if let Some((audit, entry)) = self.entry(None, Outcome::Abandoned) {
            audit.write_now(entry);
        }
    }
}

/// Letters, digits and what ids are commonly made of; nothing that could be taken for a part of a log.
fn is_request_id(value: &HeaderValue) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len()) && value.as_bytes().iter().all(fits)
}

fn new_request_id() -> HeaderValue {
    let id: u128 = rand::random();
    HeaderValue::from_str(&format!("{id:032x}")).unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Peer;

    #[test]
    fn a_request_that_is_dropped_without_an_answer_is_noted_as_abandoned() {
        #[derive(Debug, Default)]
        struct Last(parking_lot::Mutex<Option<Entry>>);
        impl Audit for Last {
            fn write(&self, _: Entry) -> crate::audit::Written<'_> {
                Box::pin(std::future::pending())
            }
            fn write_now(&self, entry: Entry) {
                *self.0.lock() = Some(entry);
            }
        }
        let log = Arc::new(Last::default());
        let mut request = Request::post("/containers/x/start").body(herder_pool::empty()).expect("a request");
        let mut record = Record::begin(&mut request, Some(log.clone()));
        record.action = Some(Action("container.start"));
        drop(record);
        let entry = log.0.lock().take().expect("an entry");
        assert_eq!((entry.action.as_str(), entry.status, entry.outcome), ("container.start", None, Outcome::Abandoned));
    }

    #[test]
    fn an_id_of_the_client_is_kept_if_it_can_be_logged() {
        let kept = |text: &str| {
            let mut request = Request::new(herder_pool::empty());
            request.headers_mut().insert(REQUEST_ID, HeaderValue::from_str(text).expect("a header"));
            let mut record = Record::begin(&mut request, None);
            record.done = true;
            assert_eq!(record.request_id, request.headers()[&REQUEST_ID], "engines get the same");
            record.request_id == text
        };
        assert!(kept("7f3a-ü".trim_end_matches('ü')));
        assert!(kept(&"a".repeat(128)));
        for text in ["", "a b", "a\"b", "a=\u{e9}", &"a".repeat(129)] {
            assert!(!kept(text), "{text}");
        }
    }

    #[test]
    fn a_route_for_known_callers_and_the_rights_both_refuse() {
        #[derive(Debug)]
        struct Readers;
        impl Authorise for Readers {
            fn check(&self, _: &Principal, action: Action, path: &str) -> Result<(), String> {
                if action.0.ends_with(".list") { Ok(()) } else { Err(format!("{} needs a role for {path}", action.0)) }
            }
        }
        let stranger = Principal { peer: Peer::Tcp("10.0.0.1:1".parse().expect("an address")), certificate: None };
        let check = |rights: &dyn Authorise, caller: &Principal, action, callers, expected: &str| {
            let said = authorise(rights, caller, Action(action), callers, "/x").map_err(|error| error.to_string());
            let said = said.map_or_else(|error| error, |()| "ok".to_owned());
            assert!(said.starts_with(expected), "{said}");
        };
        let local = Principal::local();
        check(&Everybody, &stranger, "x.write", Callers::All, "ok");
        check(
            &Everybody,
            &stranger,
            "swarm.backup",
            Callers::Known,
            "swarm.backup is only for callers that the connection proves",
        );
        check(&Everybody, &local, "swarm.backup", Callers::Known, "ok");
        check(&Readers, &local, "x.list", Callers::All, "ok");
        check(&Readers, &local, "x.write", Callers::Known, "x.write needs a role for /x");
    }
}
