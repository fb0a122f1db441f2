//! Sealed packets: AES-256-GCM under a key of the pool. Whoever has not the key can neither read nor make one.
//!
//! Each start of a program derives a key of its own (HMAC-SHA256 of a random session id under the pool's key), and counts its
//! packets: no nonce is used twice, and a packet that comes again within a session is known. One of a session that is not
//! remembered any more says nothing new: what gossip tells is versioned, and older versions lose.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use indexmap::IndexMap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

const VERSION: u8 = 1;
const SESSION_BYTES: usize = 16;
/// Version, session, counter.
const HEAD_BYTES: usize = 1 + SESSION_BYTES + 8;
/// Bytes that sealing adds to a packet.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + 16;

/// Sessions remembered: some for each of a thousand nodes.
const SESSIONS_MAX: usize = 4096;
/// Packets that may overtake each other.
const WINDOW: u64 = 128;

type Session = [u8; SESSION_BYTES];

/// Reason why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Too short.
    Form,
    /// The first byte names a version that this one does not know. Whether it is of this pool cannot be said.
    Version(u8),
    /// The packet is not of this pool, or was changed on the way.
    Seal,
    /// The packet arrived before.
    Replay,
}

/// The keys of a pool: the first seals, and the others still open packets during a change of keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PoolKeys {
    pub seals: [u8; 32],
    pub opens_also: Vec<[u8; 32]>,
}

impl PoolKeys {
    fn all(&self) -> impl Iterator<Item = &[u8; 32]> {
        std::iter::once(&self.seals).chain(&self.opens_also)
    }
}

impl fmt::Debug for PoolKeys {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolKeys").field("opens_also", &self.opens_also.len()).finish_non_exhaustive()
    }
}

/// Seals and opens packets.
pub struct Sealer {
    /// Keys by which packets are opened; this node's are sealed by the first.
    pool: Vec<hmac::Key>,
    session: Session,
    key: LessSafeKey,
    sent: u64,
    known: IndexMap<Session, Known>,
    order: VecDeque<Session>,
}

impl fmt::Debug for Sealer {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("sent", &self.sent).finish_non_exhaustive()
    }
}

struct Known {
    key: LessSafeKey,
    highest: u64,
    /// Bit n: the packet `highest - n` has come.
    seen: u128,
}

impl Sealer {
    /// `session` must be random and new for each start.
    pub fn new(pool: &[u8; 32], session: [u8; 16]) -> Sealer {
        let pool = hmac::Key::new(hmac::HMAC_SHA256, pool);
        let key = derive(&pool, &session);
        Sealer { pool: vec![pool], session, key, sent: 0, known: IndexMap::new(), order: VecDeque::new() }
    }

    /// Replaces the keys: the first one seals, any of them opens packets. The state of sessions is reset: those of keys
    /// that are not among them end.
    pub fn set_keys(&mut self, keys: &PoolKeys) {
        self.pool = keys.all().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)).collect();
        let Some(first) = self.pool.first() else { return };
        // Peers know the session by the key that it had; with another one it is another session, of which no packet was sent.
        let next = hmac::sign(first, &[&self.session[..], &self.sent.to_be_bytes()].concat());
        self.session.copy_from_slice(&next.as_ref()[..SESSION_BYTES]);
        self.key = derive(first, &self.session);
        self.sent = 0;
        self.known.clear();
        self.order.clear();
    }

    pub fn seal(&mut self, plain: &[u8]) -> Bytes {
        self.sent += 1;
        let mut packet = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        packet.push(VERSION);
        packet.extend_from_slice(&self.session);
        packet.extend_from_slice(&self.sent.to_be_bytes());
        let mut body = plain.to_vec();
        match self.key.seal_in_place_append_tag(nonce(self.sent), Aad::from(&packet[..]), &mut body) {
            Ok(()) => packet.extend_from_slice(&body),
            // Only for packets of some gigabytes.
            Err(_) => packet.clear(),
        }
        packet.into()
    }

    pub fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, Dropped> {
        // Before the length: another version's packets may be shorter.
        if let Some(version) = packet.first().filter(|version| **version != VERSION) {
            return Err(Dropped::Version(*version));
        }
        let (head, body) = packet.split_at_checked(HEAD_BYTES).ok_or(Dropped::Form)?;
        let session: Session = head[1..=SESSION_BYTES].try_into().map_err(|_| Dropped::Form)?;
        let count = u64::from_be_bytes(head[1 + SESSION_BYTES..].try_into().map_err(|_| Dropped::Form)?);
        if count == 0 {
            return Err(Dropped::Form);
        }
        let aad = Aad::from(head);
        // A session is remembered only after a packet of it was right: strangers fill nothing.
        let Some(known) = self.known.get_mut(&session) else {
            for key in self.pool.iter().map(|it| derive(it, &session)) {
                let mut plain = body.to_vec();
                let Ok(length) = key.open_in_place(nonce(count), aad, &mut plain).map(|it| it.len()) else { continue };
                plain.truncate(length);
                self.remember(session, Known { key, highest: count, seen: 1 });
                return Ok(plain);
            }
            return Err(Dropped::Seal);
        };
        let mut plain = body.to_vec();
        if known.has(count) {
            return Err(Dropped::Replay);
        }
        let length = known.key.open_in_place(nonce(count), aad, &mut plain).map_err(|_| Dropped::Seal)?.len();
        plain.truncate(length);
        known.note(count);
        Ok(plain)
    }

    fn remember(&mut self, session: Session, known: Known) {
        if self.order.len() >= SESSIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.swap_remove(&oldest);
        }
        self.order.push_back(session);
        self.known.insert(session, known);
    }
}

impl Known {
    fn has(&self, count: u64) -> bool {
        match self.highest.checked_sub(count) {
            None => false,
            Some(age) if age >= WINDOW => true,
            Some(age) => self.seen >> age & 1 == 1,
        }
    }

    fn note(&mut self, count: u64) {
        match count.checked_sub(self.highest) {
            Some(ahead) => {
                self.seen = if ahead >= WINDOW { 1 } else { self.seen << ahead | 1 };
                self.highest = count;
            }
            None => self.seen |= 1 << (self.highest - count),
        }
    }
}

fn derive(pool: &hmac::Key, session: &Session) -> LessSafeKey {
    let tag = hmac::sign(pool, session);
    let key = UnboundKey::new(&AES_256_GCM, tag.as_ref());
    LessSafeKey::new(key.expect("SHA-256 gives the 32 bytes that AES-256 wants"))
}

fn nonce(count: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&count.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Sealer, Sealer) {
        (Sealer::new(&[1; 32], [2; 16]), Sealer::new(&[1; 32], [3; 16]))
    }

    #[test]
    fn a_packet_opens_once_and_only_unchanged() {
        let (mut a, mut b) = pair();
        let packet = a.seal(b"hello");
        assert_eq!(b.open(&packet), Ok(b"hello".to_vec()));
        assert_eq!(b.open(&packet), Err(Dropped::Replay));
        for at in 0..packet.len() {
            let mut changed = a.seal(b"hello").to_vec();
            changed[at] ^= 1;
            let expected = if at == 0 { Dropped::Version(VERSION ^ 1) } else { Dropped::Seal };
            assert_eq!(b.open(&changed), Err(expected), "byte {at}");
        }
        let packet = a.seal(b"hello");
        for length in 0..packet.len() {
            assert!(b.open(&packet[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(b.open(&packet), Ok(b"hello".to_vec()));
        let mut stranger = Sealer::new(&[9; 32], [4; 16]);
        assert_eq!(b.open(&stranger.seal(b"hello")), Err(Dropped::Seal));
    }

    #[test]
    fn a_key_is_changed_while_packets_flow_and_the_old_one_ends() {
        let (mut a, mut b) = pair();
        let (old, new) = ([1; 32], [2; 32]);
        let keys = |seals, opens_also: &[[u8; 32]]| PoolKeys { seals, opens_also: opens_also.to_vec() };
        let mut left_behind = Sealer::new(&old, [9; 16]);
        assert!(b.open(&a.seal(b"before")).is_ok());
        for sealer in [&mut a, &mut b] {
            sealer.set_keys(&keys(old, &[new]));
        }
        assert!(b.open(&a.seal(b"both know both")).is_ok());
        a.set_keys(&keys(new, &[old]));
        assert!(b.open(&a.seal(b"new")).is_ok() && a.open(&b.seal(b"old")).is_ok());
        assert_eq!(left_behind.open(&a.seal(b"new")), Err(Dropped::Seal));
        let late = left_behind.seal(b"old");
        assert!(a.open(&late).is_ok());
        for sealer in [&mut a, &mut b] {
            sealer.set_keys(&keys(new, &[]));
        }
        assert!(b.open(&a.seal(b"done")).is_ok() && a.open(&b.seal(b"done")).is_ok());
        for packet in [late, left_behind.seal(b"again")] {
            assert_eq!(a.open(&packet), Err(Dropped::Seal));
        }
    }

    #[test]
    fn packets_may_overtake_each_other_but_not_come_twice() {
        let (mut a, mut b) = pair();
        let mut packets: Vec<Bytes> = (0..200u8).map(|number| a.seal(&[number])).collect();
        packets.swap(3, 90);
        let opened = packets.iter().filter(|packet| b.open(packet).is_ok()).count();
        assert_eq!(opened, 200);
        assert!(packets.iter().all(|packet| b.open(packet) == Err(Dropped::Replay)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_dropped_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let (_, mut b) = pair();
            prop_assert!(b.open(&bytes).is_err());
        }
    }
}
