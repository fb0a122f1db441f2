//! Certificates that routes need, the times of their orders, and the answers of ingress nodes to authorities.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::{
    CertificateOrder, CertificateRecord, IngressState, OWN_AUTHORITY, Resolver, Resource, Route, ServedCertificate,
    View, certificate_kind,
};
use imbl::OrdMap;

use super::rule::{Rule, Scope, host_fits};
use super::table::Problem;

/// The first pause after a refusal, in seconds, doubled with each further one. Public authorities allow five failed validations of a
/// name in an hour; so there are four.
const REFUSED_PAUSE: i64 = 300;
/// The same after an authority that did not answer.
const AWAY_PAUSE: i64 = 60;
/// The pause before another authority is asked.
const FALLBACK_PAUSE: i64 = 30;
const PAUSE_MAX: i64 = 24 * 3600;
/// Names in one certificate: the limit of public authorities.
const NAMES_MAX: usize = 100;
/// Ids of answers to TLS-ALPN-01 begin so.
const ALPN_PREFIX: &str = "acme/";

/// A certificate to be asked for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Name of its resource.
    pub name: String,
    pub names: Vec<String>,
    pub resolver: String,
    pub record: CertificateRecord,
}

/// Returns the certificates that routes ask resolvers for: names of each, and its resolver. Names that a larger one has, too, need none of
/// their own.
pub fn wanted(state: &IngressState) -> Vec<(Vec<String>, String)> {
    let mut wanted: BTreeSet<(String, BTreeSet<String>)> = BTreeSet::new();
    for route in state.routes.values() {
        let Some(tls) = route.tls.as_ref().filter(|it| !it.passthrough) else { continue };
        let Some(resolver) = state.settings.resolvers.get(&tls.resolver) else { continue };
        let names = names(route, &tls.domains, resolver);
        if !names.is_empty() && names.len() <= NAMES_MAX {
            wanted.insert((tls.resolver.clone(), names));
        }
    }
    let is_part = |resolver: &String, names: &BTreeSet<String>| {
        wanted.iter().any(|(of, it)| of == resolver && it != names && names.iter().all(|name| covers(it, name)))
    };
    let needed = wanted.iter().filter(|(resolver, names)| !is_part(resolver, names));
    needed.map(|(resolver, names)| (names.iter().cloned().collect(), resolver.clone())).collect()
}

/// Names that a certificate of this route has. Only DNS-01 and own authorities give those of whole domains.
fn names(route: &Route, domains: &[String], resolver: &Resolver) -> BTreeSet<String> {
    let scope = if route.carries == herder_model::swarm::Carried::Http { Scope::Http } else { Scope::Tcp };
    let of_rule = || Rule::parse(&route.rule, scope, route.old_syntax).map(|it| it.hosts()).unwrap_or_default();
    let names = if domains.is_empty() { of_rule() } else { domains.iter().map(|it| it.to_ascii_lowercase()).collect() };
    let gives_domains = resolver.challenge == "dns-01" || resolver.directory == OWN_AUTHORITY;
    names.into_iter().filter(|it| is_name(it) && (gives_domains || !it.starts_with("*."))).collect()
}

/// A DNS name of at least two labels, or of one for own authorities and tests. Addresses are none.
fn is_name(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let is_label =
        |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_');
    rest.len() <= 253 && rest.split('.').all(is_label) && rest.parse::<std::net::IpAddr>().is_err()
}

fn covers(names: &BTreeSet<String>, name: &str) -> bool {
    names.contains(name)
        || !name.starts_with("*.") && names.iter().any(|it| it.starts_with("*.") && host_fits(it, name))
}

fn records(view: &View) -> impl Iterator<Item = (&Resource, CertificateRecord)> {
    let kind = certificate_kind();
    let all = kind.into_iter().flat_map(|it| view.resources_of(it));
    all.filter_map(|it| Some((it.as_ref(), it.read::<CertificateRecord>().ok()?)))
}

/// Returns the certificates that are to be asked for at this time, or else the time of the next one. Times are seconds
/// since 1970. Certificates whose order is under way come first.
pub fn due(view: &View, state: &IngressState, now: i64) -> Result<Vec<Due>, Option<i64>> {
    let known: Vec<(&Resource, CertificateRecord)> = records(view).collect();
    let imported: Vec<&CertificateRecord> =
        known.iter().map(|(_, it)| it).filter(|it| it.source == "import" && it.not_after > now).collect();
    let (mut due, mut next) = (Vec::new(), None);
    for (names, resolver) in wanted(state) {
        let has = |it: &CertificateRecord| names.iter().all(|name| covers(&it.names.iter().cloned().collect(), name));
        if imported.iter().any(|it| has(it)) {
            continue;
        }
        let name = names.join(",");
        let known = known.iter().find(|(it, _)| it.name == name);
        let record = known.map(|(_, it)| it.clone()).unwrap_or_default();
        let is_of = record.resolver == resolver && record.source != "import";
        let at = match () {
            () if !is_of => 0,
            () if record.chain.is_empty() || record.order.is_some() => record.next_try,
            () => record.renew_at.max(record.next_try),
        };
        if at <= now {
            due.push(Due { name, names, resolver, record });
        } else {
            next = Some(next.map_or(at, |it: i64| it.min(at)));
        }
    }
    due.sort_by_key(|it| it.record.order.is_none());
    if due.is_empty() { Err(next) } else { Ok(due) }
}

/// Returns the authorities of a resolver in the order in which they are asked. Its own is the first one.
pub fn authorities<'r>(resolvers: &'r BTreeMap<String, Resolver>, name: &str) -> Vec<&'r Resolver> {
    let mut all: Vec<(&String, &Resolver)> = Vec::new();
    let mut next = resolvers.get_key_value(name);
    while let Some(it) = next.filter(|(name, _)| !all.iter().any(|(it, _)| it == name)) {
        all.push(it);
        next = resolvers.get_key_value(&it.1.fallback);
    }
    all.into_iter().map(|(_, it)| it).collect()
}

/// Returns which of the authorities is asked now: after each failure the next one.
pub fn asked<'r>(authorities: &[&'r Resolver], due: &Due) -> Option<&'r Resolver> {
    let failures = usize::try_from(due.record.failures).unwrap_or_default();
    authorities.get(failures.checked_rem(authorities.len())?).copied()
}

/// The record of an order that begins.
pub fn ordered(due: &Due, order: CertificateOrder) -> CertificateRecord {
    let source = "acme".to_owned();
    let (names, resolver) = (due.record.names.clone(), due.resolver.clone());
    // Until there is another one, the certificate keeps its names.
    let names = if due.record.chain.is_empty() { due.names.clone() } else { names };
    CertificateRecord {
        names,
        resolver,
        source,
        state: "ordering".to_owned(),
        order: Some(order),
        ..due.record.clone()
    }
}

/// The record of a certificate that was issued. It is renewed after two thirds of its life, and not all at the same time.
pub fn issued(
    due: &Due,
    source: &str,
    chain: String,
    key: String,
    (not_before, not_after): (i64, i64),
) -> CertificateRecord {
    let life = (not_after - not_before).max(0);
    let spread: i64 = due.name.bytes().map(i64::from).sum::<i64>() % 32;
    CertificateRecord {
        names: due.names.clone(),
        chain,
        key,
        source: source.to_owned(),
        state: "valid".to_owned(),
        not_before,
        not_after,
        resolver: due.resolver.clone(),
        renew_at: not_before + life / 3 * 2 + life / 1000 * spread,
        failures: 0,
        last_error: String::new(),
        next_try: 0,
        order: None,
    }
}

/// The record after an order that failed. `is_away`: the authority said nothing. There are so many `authorities` to ask in turn.
pub fn failed(due: &Due, error: &str, is_away: bool, authorities: usize, now: i64) -> CertificateRecord {
    let failures = due.record.failures.saturating_add(1);
    let authorities = u32::try_from(authorities).unwrap_or(u32::MAX).max(1);
    let first = if is_away { AWAY_PAUSE } else { REFUSED_PAUSE };
    let pause = match (failures % authorities, failures / authorities) {
        (0, rounds) => first.saturating_mul(1 << rounds.saturating_sub(1).min(12)).min(PAUSE_MAX),
        _ => FALLBACK_PAUSE,
    };
    // An order at an authority that is away goes on when it is back. Another authority does not know it.
    let order = due.record.order.clone().filter(|_| is_away && authorities == 1);
    let names = if due.record.chain.is_empty() { due.names.clone() } else { due.record.names.clone() };
    CertificateRecord {
        names,
        source: "acme".to_owned(),
        state: "failed".to_owned(),
        resolver: due.resolver.clone(),
        failures,
        last_error: error.to_owned(),
        next_try: now + pause,
        order,
        ..due.record.clone()
    }
}

/// Returns the certificates that ingress nodes serve, and their answers to authorities.
pub(super) fn served(view: &View) -> (OrdMap<String, ServedCertificate>, OrdMap<String, String>) {
    let (mut certificates, mut challenges) = (OrdMap::new(), OrdMap::new());
    for (resource, record) in records(view) {
        if !record.chain.is_empty() {
            let CertificateRecord { names, chain, key, not_after, .. } = record.clone();
            let served = ServedCertificate { names, chain, key, not_after, challenge: false };
            certificates.insert(resource.id.clone(), served);
        }
        let order = record.order.unwrap_or_default();
        challenges.extend(order.tokens);
        certificates.extend(order.alpn.into_iter().map(|(token, it)| (format!("{ALPN_PREFIX}{token}"), it)));
    }
    (certificates, challenges)
}

/// Returns the tokens that a state has answers for.
pub fn challenges(state: &IngressState) -> BTreeSet<String> {
    let alpn = state.certificates.keys().filter_map(|it| it.strip_prefix(ALPN_PREFIX));
    state.challenges.keys().map(String::as_str).chain(alpn).map(str::to_owned).collect()
}

/// Returns what hinders certificates, as problems of the names that they are for.
pub(super) fn problems(view: &View) -> Vec<Problem> {
    let failed = records(view).filter(|(_, it)| it.state == "failed");
    let problem = |(resource, it): (&Resource, CertificateRecord)| Problem {
        service: String::new(),
        label: format!("certificate {}", resource.name),
        text: format!("was not issued by {}: {}", it.resolver, it.last_error),
    };
    failed.map(problem).collect()
}

/// Returns the fault of a resolver.
pub(super) fn fault(name: &str, resolver: &Resolver, all: &BTreeMap<String, Resolver>) -> Option<String> {
    let text = match () {
        () if !resolver.fallback.is_empty() && !all.contains_key(&resolver.fallback) => {
            format!("fallback={}: there is no such resolver", resolver.fallback)
        }
        () if resolver.directory == OWN_AUTHORITY => return None,
        () if !resolver.directory.starts_with("https://") => {
            format!(
                "directory {:?}: write an https:// URL, letsencrypt, letsencrypt-staging or own",
                resolver.directory
            )
        }
        () if !["http-01", "tls-alpn-01", "dns-01"].contains(&resolver.challenge.as_str()) => {
            format!("challenge {:?}: write http-01, tls-alpn-01 or dns-01", resolver.challenge)
        }
        () if resolver.challenge == "dns-01" && resolver.hook.is_empty() => {
            "the challenge dns-01 needs hook=PROGRAM, which is called with set|unset NAME VALUE".to_owned()
        }
        () if resolver.eab_id.is_empty() != resolver.eab_secret.is_empty() => {
            "eab-id and eab-secret are given together".to_owned()
        }
        () => return None,
    };
    Some(format!("resolver {name}: {text}"))
}

#[cfg(test)]
mod tests;
