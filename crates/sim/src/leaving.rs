//! Endpoints that left: once the leader says that no node balances to one any more, no node does.
//!
//! The leader waits for nodes whose sessions are open, so only those are judged. One session proves it afterwards: a node whose message
//! was answered later, in a session that was open before, had one when the leader said so.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use herder_model::swarm::NetNews;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::kernel::Kernel;
use crate::trace::Trace;

/// Age of a session from which the leader surely knew of it. News may be under way for as long as another session lasts.
const SESSION_AGE_MIN: Duration = Duration::from_secs(10);

/// States of networks, by id.
pub(crate) type States = herder_decide::net::States;

/// An endpoint's place on a network: (node that hears of it, network, endpoint).
type Place = (String, String, String);

pub(crate) struct Leaving {
    trace: Trace,
    kernels: BTreeMap<String, Kernel>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Endpoints that stopped serving, with the version of it.
    left: BTreeMap<Place, (u64, Ipv4Addr)>,
    sessions: BTreeMap<String, Session>,
    count: u64,
    suspicions: Vec<Suspicion>,
}

#[derive(Clone)]
struct Session {
    number: u64,
    manager: String,
    began: Instant,
}

/// A node balanced to an endpoint when the leader said that none does. It is a fault if the leader had the node's session.
struct Suspicion {
    node: String,
    session: u64,
    at: Instant,
    what: String,
}

impl Leaving {
    pub(crate) fn new(trace: Trace, kernels: BTreeMap<String, Kernel>) -> Leaving {
        Leaving { trace, kernels, inner: Mutex::default() }
    }

    /// A node begins a session with a manager.
    pub(crate) fn begins(&self, node: &str, manager: &str) {
        let mut inner = self.inner.lock();
        inner.count += 1;
        let session = Session { number: inner.count, manager: manager.to_owned(), began: Instant::now() };
        inner.sessions.insert(node.to_owned(), session);
    }

    pub(crate) fn ends(&self, node: &str) {
        let mut inner = self.inner.lock();
        inner.sessions.remove(node);
        inner.suspicions.retain(|it| it.node != node);
    }

    /// The leader has answered what the node said at this time.
    pub(crate) fn heard(&self, node: &str, said_at: Instant) {
        let mut inner = self.inner.lock();
        let Some(session) = inner.sessions.get(node).map(|it| it.number) else { return };
        let is_proved = |it: &Suspicion| it.node == node && it.session == session && it.at < said_at;
        for it in inner.suspicions.iter().filter(|it| is_proved(it)) {
            self.trace.fail(&it.what);
        }
        inner.suspicions.retain(|it| !is_proved(it));
    }

    /// A node takes over news, which lead it from one version of its networks to the next.
    pub(crate) fn hears(&self, node: &str, news: &NetNews, before: &States, after: &States) {
        let mut inner = self.inner.lock();
        let Some(session) = inner.sessions.get(node).cloned() else { return };
        for update in &news.updates {
            let network = &update.network_id;
            let place = |endpoint: &String| (node.to_owned(), network.clone(), endpoint.clone());
            let Some(now) = after.get(network) else { continue };
            let serves = |endpoint: &str| now.endpoints.get(endpoint).is_some_and(|it| it.serving);
            let served = before.get(network).into_iter().flat_map(|it| &it.endpoints).filter(|(_, it)| it.serving);
            for (endpoint, it) in served.filter(|(id, _)| !serves(id)) {
                inner.left.entry(place(endpoint)).or_insert((update.results_in, it.v4));
            }
            let is_settled = |(by, of, _): &Place, (since, _): &mut (u64, Ipv4Addr)| {
                by == node && of == network && *since <= update.settled
            };
            let settled: Vec<_> = inner.left.extract_if(.., is_settled).collect();
            for ((.., endpoint), (_, address)) in settled.into_iter().filter(|((.., id), _)| !serves(id)) {
                let counts = |id: &str| now.nodes.get(id).is_some_and(|it| it.up);
                let others = inner.sessions.iter().filter(|(id, it)| {
                    counts(id) && it.manager == session.manager && it.began.elapsed() > SESSION_AGE_MIN
                });
                let suspicion = |(other, it): (&String, &Session)| {
                    let kernel = self.kernels.get(other)?;
                    let how = match kernel.names(network, &endpoint, address)? {
                        true => "gives out the address of",
                        false if kernel.balanced().contains(&address) => "balances to",
                        false => return None,
                    };
                    let what = format!("{other} {how} {endpoint}, which has left {network}, as {node} has heard");
                    Some(Suspicion { node: other.clone(), session: it.number, at: Instant::now(), what })
                };
                let found: Vec<Suspicion> = others.filter_map(suspicion).collect();
                inner.suspicions.extend(found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
