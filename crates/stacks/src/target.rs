//! Targets that are stored by name: remote swarms and single engines, their credentials sealed.
//!
//! Credentials are sealed with AES-256-GCM under a key that is derived (HKDF-SHA256) from one of the swarm's for this record
//! alone. They are opened by the node that dials, and never shown.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use herder_model::swarm::{Change, Kind, Resource, ResourceError, View};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use serde::{Deserialize, Serialize};

use crate::begin::{check_level, put};
use crate::record::{Found, kinds, stacks};

/// The name of the target that is this cluster.
pub const OWN: &str = "own";
/// Bytes of one PEM text at most.
const PEM_BYTES_MAX: usize = 64 << 10;
/// Targets at most.
const TARGETS_MAX: usize = 256;

/// The kind of a stored target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A swarm of Docker's engines, reached at a manager.
    #[default]
    Swarm,
    /// One engine without a swarm.
    Engine,
    /// A word of a later release.
    #[serde(other)]
    Other,
}

/// Certificates of a client, as PEM.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    pub ca: String,
    pub cert: String,
    pub key: String,
}

impl fmt::Debug for Tls {
    /// Credentials stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    pub fn is_empty(&self) -> bool {
        self.ca.trim().is_empty() && self.cert.trim().is_empty() && self.key.trim().is_empty()
    }

    /// The first fault: a missing part, or a text that is too long.
    fn fault(&self) -> Option<String> {
        let parts = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        let missing: Vec<&str> = parts.iter().filter(|it| it.1.trim().is_empty()).map(|it| it.0).collect();
        let long = parts.iter().find(|it| it.1.len() > PEM_BYTES_MAX);
        match (missing.len(), long) {
            (0 | 3, None) => None,
            (_, Some((name, _))) => Some(format!("tls.{name} has more than {PEM_BYTES_MAX} bytes")),
            _ => Some(format!("tls: {} missing; give ca, cert and key, or none of them", missing.join(" and "))),
        }
    }
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    pub target: String,
    pub kind: TargetKind,
    /// `host:port`.
    pub address: String,
    pub labels: BTreeMap<String, String>,
    /// Name of the caller that wrote it last.
    pub by: String,
    /// SHA-256 of the client's certificate, for people.
    pub fingerprint: String,
    /// [`Tls`] as JSON, sealed; empty where there is none.
    pub sealed: String,
}

/// The key that all credentials are sealed under.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Key {
    key: String,
}

/// Chance that a write takes.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it may become a key")]
pub struct Chance {
    pub key: [u8; 32],
    pub nonce: [u8; NONCE_LEN],
}

/// The reason for which a target is not written or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0}")]
    Wrong(String),
    #[error("there is no target {0}")]
    Missing(String),
    #[error("there is a target {0} already")]
    Taken(String),
    #[error("target {target} has stacks: {}; remove them first", .stacks.join(", "))]
    InUse { target: String, stacks: Vec<String> },
    #[error("the credentials of target {0} cannot be opened; set them again")]
    Unreadable(String),
    /// Some manager's release does not know targets.
    #[error("{0}")]
    Level(String),
    #[error(transparent)]
    Record(#[from] ResourceError),
}

/// A wanted target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WantedTarget {
    pub name: String,
    pub kind: TargetKind,
    pub address: String,
    pub labels: BTreeMap<String, String>,
    /// Missing: a changed target keeps what it has.
    pub tls: Option<Tls>,
}

/// All targets, by name.
pub fn targets(view: &View) -> Vec<Found<Target>> {
    let Some(kinds) = kinds() else { return Vec::new() };
    let mut all: Vec<Found<Target>> = view.resources_of(kinds.target).filter_map(|it| Found::of(it)).collect();
    all.sort_by(|a, b| a.record.target.cmp(&b.record.target));
    all
}

/// The target of a name.
pub fn target(view: &View, name: &str) -> Result<Found<Target>, TargetError> {
    let found = targets(view).into_iter().find(|it| it.record.target == name);
    found.ok_or_else(|| TargetError::Missing(name.to_owned()))
}

/// Writes a target: a new one, or with `is_new` false the one that is there.
pub fn write_target(
    view: &View,
    wanted: &WantedTarget,
    is_new: bool,
    by: &str,
    ids: [String; 2],
    chance: Chance,
) -> Result<Vec<Change>, TargetError> {
    check_level(view).map_err(|refused| TargetError::Level(refused.to_string()))?;
    let wrong = |text: String| TargetError::Wrong(text);
    let name = wanted.name.as_str();
    let fits = !name.is_empty()
        && name.len() <= 63
        && name.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, '-' | '_' | '.'));
    if !fits || name == OWN {
        return Err(wrong(format!(
            "`{name}` cannot be the name of a target: use up to 63 lower-case letters, digits, -, _ and ."
        )));
    }
    if wanted.kind == TargetKind::Other {
        return Err(wrong("kind: use swarm or engine".into()));
    }
    let address = address(&wanted.address).map_err(wrong)?;
    if let Some(fault) = wanted.tls.as_ref().and_then(Tls::fault) {
        return Err(wrong(fault));
    }
    let kinds = kinds().ok_or_else(|| wrong("this node knows too many kinds of objects".into()))?;
    let there = target(view, name).ok();
    match (&there, is_new) {
        (Some(_), true) => return Err(TargetError::Taken(name.into())),
        (None, false) => return Err(TargetError::Missing(name.into())),
        (None, true) if targets(view).len() >= TARGETS_MAX => {
            return Err(wrong(format!("there are {TARGETS_MAX} targets; no more are kept")));
        }
        _ => {}
    }
    let [id, key_id] = ids;
    let (id, version, mut record) = match there {
        Some(it) => (it.id, it.version, it.record),
        None => (id, 0, Target { target: name.to_owned(), ..Target::default() }),
    };
    record.kind = wanted.kind;
    record.address = address;
    record.labels.clone_from(&wanted.labels);
    by.clone_into(&mut record.by);
    let mut changes = Vec::new();
    match &wanted.tls {
        None => {}
        Some(tls) if tls.is_empty() => (record.sealed, record.fingerprint) = (String::new(), String::new()),
        Some(tls) => {
            let key = match key(view) {
                Some(key) => key,
                None => {
                    let key = Key { key: BASE64.encode(chance.key) };
                    changes.push(Resource::new(kinds.key, &key_id, KEY_NAME, &key)?.into());
                    chance.key
                }
            };
            record.sealed = seal(&key, &id, chance.nonce, tls)?;
            record.fingerprint = fingerprint(&tls.cert);
        }
    }
    changes.push(put(view, kinds.target, &id, name, version, &record)?);
    Ok(changes)
}

/// Removes a target that has no stacks.
pub fn remove_target(view: &View, name: &str) -> Result<Vec<Change>, TargetError> {
    let found = target(view, name)?;
    let stacks: Vec<String> = stacks(view, name).into_iter().map(|it| it.record.stack).collect();
    if !stacks.is_empty() {
        return Err(TargetError::InUse { target: name.into(), stacks });
    }
    let kinds = kinds().ok_or_else(|| TargetError::Missing(name.into()))?;
    Ok(vec![Change::Remove(Kind::Resource(kinds.target), found.id)])
}

/// The credentials of a target; empty where it has none.
pub fn credentials(view: &View, found: &Found<Target>) -> Result<Tls, TargetError> {
    if found.record.sealed.is_empty() {
        return Ok(Tls::default());
    }
    let unreadable = || TargetError::Unreadable(found.record.target.clone());
    let key = key(view).ok_or_else(unreadable)?;
    open(&key, &found.id, &found.record.sealed).ok_or_else(unreadable)
}

const KEY_NAME: &str = "credentials";

fn key(view: &View) -> Option<[u8; 32]> {
    let record: Key = view.resources_of(kinds()?.key).find(|it| it.name == KEY_NAME)?.read().ok()?;
    BASE64.decode(record.key).ok()?.try_into().ok()
}

/// `tcp://host:port`, `http(s)://…` or `host:port` as `host:port`.
fn address(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let rest = match text.split_once("://") {
        Some(("tcp" | "http" | "https", rest)) => rest,
        Some((scheme, _)) => return Err(format!("address: {scheme}:// is refused; use tcp://HOST:PORT")),
        None => text,
    };
    let port = rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match port {
        Some((host, port)) if !host.is_empty() && port > 0 && !rest.contains(['/', ' ', '@']) => Ok(rest.to_owned()),
        _ => Err(format!("address: `{text}` is not tcp://HOST:PORT")),
    }
}

/// The key of one record.
fn derived(key: &[u8; 32], id: &str) -> Option<LessSafeKey> {
    let info = ["herder target credentials".as_bytes(), id.as_bytes()];
    let secret = Salt::new(HKDF_SHA256, &[]).extract(key);
    let unbound: UnboundKey = secret.expand(&info, &AES_256_GCM).ok()?.into();
    Some(LessSafeKey::new(unbound))
}

fn seal(key: &[u8; 32], id: &str, nonce: [u8; NONCE_LEN], tls: &Tls) -> Result<String, TargetError> {
    let failed = || TargetError::Wrong("the credentials cannot be sealed".into());
    let mut bytes = serde_json::to_vec(tls).map_err(|_| failed())?;
    let key = derived(key, id).ok_or_else(failed)?;
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad(id)), &mut bytes)
        .map_err(|_| failed())?;
    Ok(BASE64.encode([&nonce[..], &bytes].concat()))
}

fn open(key: &[u8; 32], id: &str, sealed: &str) -> Option<Tls> {
    let bytes = BASE64.decode(sealed).ok()?;
    let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>()?;
    let mut rest = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = derived(key, id)?.open_in_place(nonce, Aad::from(aad(id)), &mut rest).ok()?;
    serde_json::from_slice(plain).ok()
}

/// A sealed text of one record does not open in another one.
fn aad(id: &str) -> Vec<u8> {
    format!("{id}.tls").into_bytes()
}

/// SHA-256 of the first certificate of a PEM text, as `openssl x509 -fingerprint -sha256` prints it, without the colons.
fn fingerprint(pem: &str) -> String {
    let body: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN CERTIFICATE"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----"))
        .collect();
    let der = BASE64.decode(body.trim()).unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, &der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{Command, Time};

    use super::*;
    use crate::record::tests::view_of_this_release;

    const CHANCE: Chance = Chance { key: [7; 32], nonce: [9; NONCE_LEN] };

    fn wanted(name: &str, address: &str, tls: Option<[&str; 3]>) -> WantedTarget {
        let tls = tls.map(|[ca, cert, key]| Tls { ca: ca.into(), cert: cert.into(), key: key.into() });
        WantedTarget { name: name.into(), address: address.into(), tls, ..WantedTarget::default() }
    }

    fn write(view: &mut View, index: u64, wanted: &WantedTarget, is_new: bool) -> Result<(), TargetError> {
        let ids = [format!("t{index}"), format!("k{index}")];
        let changes = write_target(view, wanted, is_new, "me", ids, CHANCE)?;
        view.apply(index, &Command { at: Time(index), changes }).expect("it fits");
        Ok(())
    }

    #[test]
    fn credentials_are_stored_sealed_and_opened_for_their_own_target_only() {
        let mut view = view_of_this_release();
        let canary = "canary-of-a-key";
        write(&mut view, 1, &wanted("far", "tcp://10.0.0.1:2376", Some(["ca", "cert", canary])), true)
            .expect("written");
        write(&mut view, 2, &wanted("near", "10.0.0.2:2375", None), true).expect("written");
        let stored = format!("{:?}", view.resources);
        assert!(!stored.contains(canary) && !stored.contains(&BASE64.encode(canary)), "{stored}");
        let far = target(&view, "far").expect("there");
        assert!(!format!("{far:?}").contains(canary));
        assert_eq!(far.record.address, "10.0.0.1:2376");
        assert_eq!(credentials(&view, &far).expect("they open").key, canary);
        let near = target(&view, "near").expect("there");
        assert!(credentials(&view, &near).expect("none").is_empty());
        let mut swapped = near.clone();
        swapped.record.sealed.clone_from(&far.record.sealed);
        assert_eq!(
            credentials(&view, &swapped).expect_err("another record").to_string(),
            "the credentials of target near cannot be opened; set them again"
        );
        // A change without credentials keeps them.
        write(&mut view, 3, &wanted("far", "tcp://10.0.0.3:2376", None), false).expect("written");
        let far = target(&view, "far").expect("there");
        assert_eq!(credentials(&view, &far).expect("they open").key, canary);
        write(&mut view, 4, &wanted("far", "tcp://10.0.0.3:2376", Some(["", "", ""])), false).expect("written");
        assert!(credentials(&view, &target(&view, "far").expect("there")).expect("none").is_empty());
    }

    #[test]
    fn wrong_targets_are_refused() {
        let mut view = view_of_this_release();
        let mut check = |wanted: &WantedTarget, is_new: bool, expected: &str| {
            let refused = write(&mut view, 1, wanted, is_new).map_err(|error| error.to_string());
            assert_eq!(refused.expect_err("it is refused"), expected);
        };
        check(
            &wanted("own", "h:1", None),
            true,
            "`own` cannot be the name of a target: use up to 63 lower-case letters, digits, -, _ and .",
        );
        check(&wanted("a", "ssh://h", None), true, "address: ssh:// is refused; use tcp://HOST:PORT");
        check(&wanted("a", "tcp://h", None), true, "address: `tcp://h` is not tcp://HOST:PORT");
        check(&wanted("a", "h:1", None), false, "there is no target a");
        check(
            &wanted("a", "h:1", Some(["ca", "", ""])),
            true,
            "tls: cert and key missing; give ca, cert and key, or none of them",
        );
    }
}
