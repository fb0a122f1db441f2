//! The loop of the leader: one certificate after the other, whenever one is due.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use herder_decide::endpoints::ServiceEndpoints;
use herder_decide::ingress::{self, Due, LeaderTable, Touched};
use herder_model::swarm::{CERTIFICATE_KIND, Clock, INGRESS_KIND, OWN_AUTHORITY, Object, Resolver, Written};
use herder_store::{Seen, Store};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::book::Book;
use crate::{Failed, order, own};

/// Longest pause between two looks, in seconds: clocks may be set.
const LOOK_MAX: i64 = 3600;
/// Pause after a write that failed.
const REST: Duration = Duration::from_secs(1);
/// Attempts at an order whose nonces are refused. Each of them makes four attempts at a request.
const NONCE_TRIES: u32 = 4;

/// Inputs of the loop.
#[derive(Clone, Debug)]
pub struct Settings {
    pub store: Arc<Store>,
    /// The tokens that every ingress node answers for.
    pub served: watch::Receiver<BTreeSet<String>>,
    /// The plain containers of the pool that have routing labels.
    pub plain: watch::Receiver<Arc<Vec<ServiceEndpoints>>>,
    pub clock: Clock,
    /// Makes ids of 25 characters.
    pub new_id: fn() -> String,
}

/// Asks for certificates whenever this manager leads. Never returns.
pub async fn run(settings: Settings) {
    let mut leadership = settings.store.leadership();
    loop {
        let Ok(term) = leadership.wait_for(|it| it.me).await.map(|it| it.term) else {
            return std::future::pending().await;
        };
        let Settings { store, clock, new_id, .. } = settings.clone();
        let book = Book { store, term, clock, new_id };
        tokio::select! {
            () = lead(&book, settings.served.clone(), settings.plain.clone()) => {}
            // The next leader continues an order that is cut off here.
            _ = leadership.changed() => {}
        }
    }
}

async fn lead(
    book: &Book,
    mut served: watch::Receiver<BTreeSet<String>>,
    mut plain: watch::Receiver<Arc<Vec<ServiceEndpoints>>>,
) {
    let (_, mut watch) = book.store.watch();
    let (mut table, mut touched) = (LeaderTable::default(), Touched::default());
    loop {
        let view = book.store.view();
        let containers = plain.borrow_and_update().clone();
        let state = table.update(&view, &containers, &std::mem::take(&mut touched));
        let due = state.as_ref().map_or(Err(None), |state| ingress::due(&view, state, book.now()));
        let next = match due {
            Ok(due) => {
                let resolvers = state.map(|it| it.settings.resolvers).unwrap_or_default();
                // The others are due still when this one is written.
                let first = due.into_iter().find_map(|it| {
                    let authorities = ingress::authorities(&resolvers, &it.resolver);
                    Some((ingress::asked(&authorities, &it)?, authorities.len(), it))
                });
                let Some((resolver, authorities, mut due)) = first else {
                    sleep(REST).await;
                    continue;
                };
                let outcome = match resolver.directory.as_str() {
                    OWN_AUTHORITY => own::sign(book, &due).await.map(|it| (it, "own")),
                    _ => order_again(book, &mut due, resolver, &mut served).await.map(|it| (it, "acme")),
                };
                if let Err(error) = settle(book, &due, outcome, (resolver, authorities)).await {
                    tracing::warn!(certificate = due.name, %error, "the outcome of an order was not written");
                    sleep(REST).await;
                }
                continue;
            }
            Err(next) => next,
        };
        let pause = next.map_or(LOOK_MAX, |it| (it - book.now()).clamp(0, LOOK_MAX));
        let pause = Duration::from_secs(u64::try_from(pause).unwrap_or_default());
        tokio::select! {
            () = sleep(pause) => {}
            () = async { while !matters(&watch.next().await, &mut touched) {} } => {}
            Ok(()) = plain.changed() => {}
        }
    }
}

/// Orders a certificate, and goes on with the order where the authority refuses nonces.
///
/// The client itself tries a request with a new nonce three times; an authority may refuse more of them.
async fn order_again(
    book: &Book,
    due: &mut Due,
    resolver: &Resolver,
    served: &mut watch::Receiver<BTreeSet<String>>,
) -> Result<(String, String), Failed> {
    let mut tries = 1;
    loop {
        match order::order(book, due, resolver, served).await {
            Err(failed) if failed.wants_nonce && tries < NONCE_TRIES => {
                tracing::debug!(certificate = due.name, %failed, "the order goes on");
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Writes the outcome of an order.
async fn settle(
    book: &Book,
    due: &Due,
    outcome: Result<((String, String), &str), Failed>,
    (asked, authorities): (&Resolver, usize),
) -> Result<(), Failed> {
    let issued = outcome.and_then(|((chain, key), source)| {
        let facts = herder_tls::certs::facts(&chain, &key).map_err(Failed::refused)?;
        Ok(ingress::issued(due, source, chain, key, (facts.not_before, facts.not_after)))
    });
    let record = match issued {
        Ok(record) => {
            tracing::info!(certificate = due.name, resolver = due.resolver, "a certificate was issued");
            record
        }
        Err(failed) => {
            tracing::warn!(certificate = due.name, resolver = due.resolver, error = %failed, "a certificate was not issued");
            let text = match authorities {
                1 => failed.text,
                _ => format!("{}: {}", asked.directory, failed.text),
            };
            ingress::failed(due, &text, failed.is_away, authorities, book.now())
        }
    };
    book.write(&due.name, &record).await
}

/// Notes what was written. True for news that may change which certificates are wanted.
fn matters(seen: &Seen, touched: &mut Touched) -> bool {
    touched.everything |= seen.resync;
    for object in seen.written.iter().flat_map(|it| it.before.iter().chain(&it.after)) {
        touched.see(object);
    }
    seen.resync || seen.written.iter().any(is_of_certificates)
}

fn is_of_certificates(written: &Written) -> bool {
    let mut objects = written.before.iter().chain(&written.after);
    objects.any(|it| match it {
        Object::Resource(it) => [INGRESS_KIND, CERTIFICATE_KIND].contains(&it.kind.as_str()),
        Object::Service(_) => true,
        _ => false,
    })
}
