//! One order, step by step: begun, answered for, finalised, fetched.

use std::collections::BTreeSet;
use std::time::Duration;

use herder_decide::ingress::{Due, ordered};
use herder_model::swarm::{CertificateOrder, Resolver, ServedCertificate};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::book::Book;
use crate::{Failed, account, hook};

/// Every ingress node that lives takes over an answer within this time. Before, the authority is told nothing.
const SERVED_TIME_MAX: Duration = Duration::from_secs(15);
/// The authority asks, and decides, within this time.
const ASKED: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

/// Orders a certificate, or goes on with its order: the chain, and the key.
pub(crate) async fn order(
    book: &Book,
    due: &mut Due,
    resolver: &Resolver,
    served: &mut watch::Receiver<BTreeSet<String>>,
) -> Result<(String, String), Failed> {
    let account = account::account(book, resolver).await?;
    let mut order = resume(&account, due).await?;
    if order.is_none() {
        order = Some(begin(book, due, &account).await?);
    }
    let (Some(mut order), Some(mut kept)) = (order, due.record.order.clone()) else {
        return Err(Failed::away("the order is not kept"));
    };
    if order.state().status == OrderStatus::Pending {
        let hooks = answers(&mut order, resolver, &mut kept).await?;
        due.record = ordered(due, kept.clone());
        book.write(&due.name, &due.record).await?;
        let tokens: BTreeSet<String> = kept.tokens.keys().chain(kept.alpn.keys()).cloned().collect();
        let all = async { served.wait_for(|it| tokens.is_subset(it)).await.is_ok() };
        if !timeout(SERVED_TIME_MAX, all).await.unwrap_or_default() {
            return Err(Failed::away("not every ingress node has taken over the answer for the authority"));
        }
        let asked = ask(&mut order, resolver, &hooks).await;
        for (name, value) in &hooks {
            if let Err(error) = hook::call(&resolver.hook, "unset", name, value).await {
                tracing::warn!(%error, "a text stays in a zone");
            }
        }
        asked?;
    }
    if order.state().status == OrderStatus::Ready {
        order.finalize_csr(&request(&due.names, &kept.key)?).await?;
    }
    let chain = order.poll_certificate(&ASKED).await?;
    Ok((chain, kept.key))
}

/// The order that was under way, if the authority still knows it.
async fn resume(account: &Account, due: &Due) -> Result<Option<Order>, Failed> {
    let Some(kept) = &due.record.order else { return Ok(None) };
    match account.order(kept.url.clone()).await {
        Ok(mut order) => {
            let is_invalid = order.state().status == OrderStatus::Invalid;
            Ok(Some(order).filter(|_| !is_invalid))
        }
        Err(error) => {
            let error = Failed::from(error);
            if error.is_away { Err(error) } else { Ok(None) }
        }
    }
}

/// A new order. Its key is kept before the authority hears of it.
async fn begin(book: &Book, due: &mut Due, account: &Account) -> Result<Order, Failed> {
    let identifiers: Vec<Identifier> = due.names.iter().cloned().map(Identifier::Dns).collect();
    let order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let key = KeyPair::generate().map_err(|error| Failed::refused(error.to_string()))?;
    let kept =
        CertificateOrder { url: order.url().to_owned(), key: key.serialize_pem(), ..CertificateOrder::default() };
    due.record = ordered(due, kept);
    book.write(&due.name, &due.record).await?;
    Ok(order)
}

fn kind(resolver: &Resolver) -> ChallengeType {
    match resolver.challenge.as_str() {
        "tls-alpn-01" => ChallengeType::TlsAlpn01,
        "dns-01" => ChallengeType::Dns01,
        _ => ChallengeType::Http01,
    }
}

/// Works out what is to be answered. Returns the texts that zones shall have.
async fn answers(
    order: &mut Order,
    resolver: &Resolver,
    kept: &mut CertificateOrder,
) -> Result<Vec<(String, String)>, Failed> {
    let mut texts = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = authorization.identifier().to_string();
        let offered = authorization.challenge(kind(resolver));
        let Some(challenge) = offered else {
            return Err(Failed::refused(format!("the authority does not offer {} for {name}", resolver.challenge)));
        };
        let (token, answer) = (challenge.token.clone(), challenge.key_authorization());
        match resolver.challenge.as_str() {
            "tls-alpn-01" => drop(kept.alpn.insert(token, alpn(&name, answer.digest().as_ref())?)),
            "dns-01" => {
                let name = name.strip_prefix("*.").unwrap_or(&name);
                texts.push((format!("_acme-challenge.{name}"), answer.dns_value()));
            }
            _ => drop(kept.tokens.insert(token, answer.as_str().to_owned())),
        }
    }
    Ok(texts)
}

/// Lets the authority ask, and waits for its judgement.
async fn ask(order: &mut Order, resolver: &Resolver, hooks: &[(String, String)]) -> Result<(), Failed> {
    for (name, value) in hooks {
        hook::call(&resolver.hook, "set", name, value).await?;
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        if let Some(mut challenge) = authorization.challenge(kind(resolver))
            && challenge.status == ChallengeStatus::Pending
        {
            challenge.set_ready().await?;
        }
    }
    match order.poll_ready(&ASKED).await {
        Ok(OrderStatus::Invalid) => {
            Err(Failed::refused(why(order).await.unwrap_or_else(|| "the order is invalid".into())))
        }
        Ok(_) => Ok(()),
        Err(error) => {
            let failed = Failed::from(error);
            match why(order).await.filter(|_| !failed.is_away) {
                Some(text) => Err(Failed::refused(text)),
                None => Err(failed),
            }
        }
    }
}

/// Finds out from the authority which names it did not accept, and why.
async fn why(order: &mut Order) -> Option<String> {
    let mut texts = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        for challenge in &authorization.challenges {
            if let Some(error) = &challenge.error {
                let detail = error.detail.clone().or_else(|| error.r#type.clone()).unwrap_or_default();
                texts.push(format!("{name}: {detail}"));
            }
        }
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// The certificate that answers TLS-ALPN-01 (RFC 8737).
fn alpn(name: &str, digest: &[u8]) -> Result<ServedCertificate, Failed> {
    let failed = |error: rcgen::Error| Failed::refused(error.to_string());
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(failed)?;
    let chain = params.self_signed(&key).map_err(failed)?.pem();
    Ok(ServedCertificate {
        names: vec![name.to_owned()],
        chain,
        key: key.serialize_pem(),
        not_after: 0,
        challenge: true,
    })
}

/// The request to certify this key for these names.
fn request(names: &[String], key: &str) -> Result<Vec<u8>, Failed> {
    let failed = |error: rcgen::Error| Failed::refused(error.to_string());
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::from_pem(key).map_err(failed)?;
    Ok(params.serialize_request(&key).map_err(failed)?.der().to_vec())
}
