//! One of several managers: while another one leads, calls go on to it, each by itself.
//!
//! Nothing is kept between calls, so that the next one on the same connection follows a change of the primary at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::info;
use herder_docker::{EngineLink, Way};
use herder_pool::{Body, LinkError};
use http::header::{HeaderName, HeaderValue};
use http::{header, request};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

pub use herder_pool::discovery::Role;

use crate::{ApiError, Reply, forward};

/// A call that changes something waits this long for a primary. Longer than the default life of a dead primary's lock
/// (20 s), so that a failover is a pause and not an error.
const PRIMARY_WAIT_MAX: Duration = Duration::from_secs(30);

/// Maximum wait of a call that another manager passed on. This manager is about to lead, or the other one is wrong.
const RELAYED_WAIT_MAX: Duration = Duration::from_secs(5);

/// Calls and streams at a manager that no longer leads go on for this long. It may have lost the lead for a moment only.
const SUPERSEDED_GRACE: Duration = Duration::from_secs(3);

/// Names the manager that has sent a call on. Such a call is never sent on again, or two managers that each take the other
/// one for the primary would play ball with it.
const RELAYED_BY: HeaderName = HeaderName::from_static("x-herder-relayed-by");

/// State of a door of one of several managers.
#[derive(Debug)]
pub struct Replica {
    role: watch::Receiver<Role>,
    advertise: String,
    way: Way,
    /// The way to the primary that was asked last.
    link: Mutex<Option<(String, Arc<EngineLink>)>>,
}

impl Replica {
    /// Creates the state. `role` comes from the election in which this manager stands as `advertise`; `way` leads to
    /// engines and to the other managers.
    pub fn new(role: watch::Receiver<Role>, advertise: &str, way: Way) -> Replica {
        Replica { role, advertise: advertise.to_owned(), way, link: Mutex::default() }
    }

    /// Returns the role for `docker info`.
    pub(crate) fn shown(&self) -> info::Role {
        match &*self.role.borrow() {
            Role::Primary => info::Role::Primary,
            Role::Replica { primary } => info::Role::Replica { primary: primary.clone().unwrap_or_default() },
        }
    }

    /// The primary to which a call must go, or nothing if it is answered here. Waits, bounded, while no primary is known.
    /// Then what only reads is answered here: this manager sees the same engines.
    pub(crate) async fn elsewhere(&self, parts: &request::Parts, path: &str) -> Result<Option<String>, ApiError> {
        if is_about_this_manager(path) {
            return Ok(None);
        }
        let relayed = parts.headers.get(&RELAYED_BY);
        let limit = if relayed.is_some() { RELAYED_WAIT_MAX } else { PRIMARY_WAIT_MAX };
        let only_reads = parts.method.is_safe();
        let decided = |role: &Role| match role {
            Role::Primary => true,
            Role::Replica { primary: None } => only_reads,
            Role::Replica { primary: Some(_) } => relayed.is_none(),
        };
        let mut role = self.role.clone();
        let role = match timeout(limit, role.wait_for(decided)).await {
            Ok(Ok(role)) => role.clone(),
            Ok(Err(_)) => return Err(no_primary("this manager is shutting down")),
            Err(_) => {
                let from = relayed.and_then(|from| from.to_str().ok());
                let waited = format!("none was known for {} s", limit.as_secs());
                return Err(no_primary(&from.map_or(waited, |from| format!("{from} takes this manager for it"))));
            }
        };
        Ok(match role {
            Role::Primary => None,
            Role::Replica { primary } => primary,
        })
    }

    /// Sends a call to the primary as it came.
    pub(crate) async fn relay(
        &self,
        mut parts: request::Parts,
        body: Body,
        primary: String,
    ) -> Result<Reply, ApiError> {
        let advertise = HeaderValue::from_str(&self.advertise);
        parts.headers.insert(RELAYED_BY, advertise.unwrap_or(HeaderValue::from_static("another manager")));
        // What these say was checked here; the primary is reached under another name.
        parts.headers.remove(header::ORIGIN);
        if let Ok(host) = HeaderValue::from_str(&primary) {
            parts.headers.insert(header::HOST, host);
        }
        let uri = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        let link = self.link(&primary);
        // As many at once as clients have connections here; those are counted.
        let send = |request| async {
            let answer = link.send_at_once(request).await;
            answer.map_err(|error| unreachable(&primary, &cause(&error)))
        };
        let lost = superseded(self.role.clone(), primary.clone());
        forward::pass(parts, body, &uri, send, lost, || unreachable(&primary, "it no longer leads")).await
    }

    fn link(&self, primary: &str) -> Arc<EngineLink> {
        let mut known = self.link.lock();
        match &*known {
            Some((addr, link)) if addr == primary => link.clone(),
            _ => {
                let link = Arc::new(EngineLink::new(primary, self.way.clone()));
                *known = Some((primary.to_owned(), link.clone()));
                link
            }
        }
    }
}

/// Every manager answers for itself whether it lives and what it is.
fn is_about_this_manager(path: &str) -> bool {
    matches!(path, "/_ping" | "/info") || path.starts_with("/debug")
}

/// Ends when `primary` has not led for [`SUPERSEDED_GRACE`].
fn superseded(mut role: watch::Receiver<Role>, primary: String) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let leads = move |role: &Role| matches!(role, Role::Replica { primary: Some(addr) } if *addr == primary);
    Box::pin(async move {
        loop {
            if role.wait_for(|role| !leads(role)).await.is_err() {
                // Nobody says any more who leads: this manager shuts down, and ends its streams by itself.
                std::future::pending::<()>().await;
            }
            if timeout(SUPERSEDED_GRACE, role.wait_for(|role| leads(role))).await.is_err() {
                return;
            }
        }
    })
}

/// The innermost reason; the outer ones speak of Docker engines.
fn cause(error: &LinkError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn no_primary(reason: &str) -> ApiError {
    ApiError::internal(format!("No elected primary cluster manager: {reason}"))
}

fn unreachable(primary: &str, reason: &str) -> ApiError {
    ApiError::internal(format!("Unable to reach primary cluster manager ({reason}): {primary}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica_of(primary: Option<&str>) -> Role {
        Role::Replica { primary: primary.map(str::to_owned) }
    }

    /// Checks the destination of a call in a role, and its delay in seconds.
    async fn check(role: Role, call: &str, relayed: bool, expected: &str) {
        let (_sender, role) = watch::channel(role);
        let replica = Replica::new(role, "me:4000", Way::Plain);
        let (method, path) = call.split_once(' ').expect("a method and a path");
        let mut request = http::Request::builder().method(method).uri(path);
        if relayed {
            request = request.header(RELAYED_BY, "you:4000");
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let began = tokio::time::Instant::now();
        let answer = match replica.elsewhere(&parts, path).await {
            Ok(None) => "here".to_owned(),
            Ok(Some(primary)) => format!("to {primary}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(format!("{answer}, {} s", began.elapsed().as_secs()), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_primary_answers_itself_and_a_replica_only_for_itself() {
        check(Role::Primary, "POST /containers/create", false, "here, 0 s").await;
        check(Role::Primary, "GET /containers/json", true, "here, 0 s").await;
        check(replica_of(Some("you:4000")), "GET /containers/json", false, "to you:4000, 0 s").await;
        check(replica_of(Some("you:4000")), "GET /info", false, "here, 0 s").await;
        check(replica_of(Some("you:4000")), "GET /_ping", false, "here, 0 s").await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_primary_reads_are_answered_here_and_changes_wait_bounded() {
        check(replica_of(None), "GET /containers/json", false, "here, 0 s").await;
        let error = "No elected primary cluster manager: none was known for 30 s, 30 s";
        check(replica_of(None), "POST /containers/create", false, error).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_sent_on_only_once() {
        let error = "No elected primary cluster manager: you:4000 takes this manager for it, 5 s";
        check(replica_of(Some("you:4000")), "POST /containers/create", true, error).await;
        check(replica_of(None), "POST /containers/create", true, error).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_for_the_election() {
        let (sender, role) = watch::channel(replica_of(None));
        let replica = Replica::new(role, "me:4000", Way::Plain);
        let (parts, ()) = http::Request::post("/containers/create").body(()).expect("a request").into_parts();
        let call = tokio::spawn(async move { replica.elsewhere(&parts, "/containers/create").await });
        tokio::time::sleep(Duration::from_secs(20)).await;
        sender.send_replace(replica_of(Some("you:4000")));
        assert_eq!(call.await.expect("no panic").expect("a primary").as_deref(), Some("you:4000"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_outlives_a_moment_without_lead_but_not_another_primary() {
        let (sender, role) = watch::channel(replica_of(Some("you:4000")));
        let mut lost = superseded(role, "you:4000".to_owned());
        let mut ends_within = async |time| timeout(Duration::from_secs(time), &mut lost).await.is_ok();
        assert!(!ends_within(100).await);
        sender.send_replace(replica_of(None));
        assert!(!ends_within(2).await);
        sender.send_replace(replica_of(Some("you:4000")));
        assert!(!ends_within(100).await);
        sender.send_replace(replica_of(Some("third:4000")));
        assert!(ends_within(4).await);
    }
}
