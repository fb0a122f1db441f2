//! Gossip without sockets and clocks: what comes in, what goes out, what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{Config, Foca, Identity, Notification, PeriodicParams, PostcardCodec, Runtime, State, Timer};
use herder_model::Liveness;
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

use self::compare::Range;
use self::living::{Change, Living};
use self::suspects::Suspects;
use super::facts::{SentFacts, Table, Version};
use super::seal::{OVERHEAD_BYTES, PoolKeys, Sealer};

mod compare;
mod living;
mod suspects;

/// Maximum size of a gossip packet in bytes. It fits into one Ethernet frame, with tunnel headers.
const PACKET_BYTES_MAX: usize = 1400;
/// Maximum payload of a packet: `PACKET_BYTES_MAX` minus encryption overhead, kind and length.
const CONTENT_BYTES_MAX: usize = PACKET_BYTES_MAX - OVERHEAD_BYTES - 4;

/// Timing of gossip. The defaults find a dead node within 3 s in a pool of five.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Each member probes another one this often.
    pub probe_period: Duration,
    /// Time after which other members are asked to probe. Far above the time that a packet takes on a local network,
    /// and that a busy host needs to answer.
    pub probe_wait: Duration,
    /// Time in which a suspect can show that it lives, in a pool of up to ten. It grows with the logarithm of the pool.
    pub suspicion: Duration,
    /// Interval at which facts are compared with a random member, and a dead member is asked again.
    pub exchange_period: Duration,
    /// Time for which a dead member is remembered and asked again.
    pub dead_time: Duration,
    /// Assumed number of members, for the logarithm, until the real one is known.
    pub expected_members: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            probe_period: Duration::from_millis(300),
            probe_wait: Duration::from_millis(100),
            suspicion: Duration::from_millis(1200),
            exchange_period: Duration::from_millis(500),
            dead_time: Duration::from_secs(24 * 3600),
            expected_members: 10,
        }
    }
}

impl Settings {
    fn config(&self, members: usize) -> Config {
        let members = u32::try_from(members).unwrap_or(u32::MAX).max(self.expected_members).max(1);
        let scale = f64::from(members).log10().max(1.0);
        let params = |frequency, count| Some(PeriodicParams { frequency, num_members: at_least_one(count) });
        let lan = Config::new_lan(NonZeroU32::new(members).unwrap_or(NonZeroU32::MIN));
        Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_wait,
            num_indirect_probes: at_least_one(3),
            max_transmissions: lan.max_transmissions.max(NonZeroU8::new(6).unwrap_or(NonZeroU8::MIN)),
            suspect_to_down_after: self.suspicion.mul_f64(scale),
            remove_down_after: Some(self.dead_time),
            max_packet_size: at_least_one(CONTENT_BYTES_MAX),
            // Who was cut off comes back by itself.
            notify_down_members: true,
            periodic_announce: params(Duration::from_secs(30), 1),
            periodic_announce_to_down_members: params(Duration::from_secs(1), 3),
            periodic_gossip: params(Duration::from_millis(200), 3),
        }
    }
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

/// A member of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// 25 characters, base 36; stays over restarts.
    pub id: String,
    /// Address for gossip (UDP) and node links (TCP).
    pub addr: SocketAddr,
    /// Start time of the member's program; the newer one wins.
    pub generation: u64,
}

/// A member as this node sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub member: Member,
    pub health: Liveness,
    pub facts: Arc<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Seen {
    /// Values of facts stay out of logs: nodes tell each other the join code's secret this way.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let facts: Vec<&String> = self.facts.keys().collect();
        f.debug_struct("Seen")
            .field("member", &self.member)
            .field("health", &self.health)
            .field("facts", &facts)
            .finish()
    }
}

/// All members by id, this node included.
pub type View = Arc<BTreeMap<String, Seen>>;

/// A member on the wire. An address has one member at a time: the newest start of a program there.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
pub(super) struct Who {
    id: String,
    addr: SocketAddr,
    generation: u64,
    /// Grows when a member that was thought dead shows that it is not.
    rebirths: u32,
}

impl PartialEq for Who {
    /// Compares the most varied field first, since foca searches a list of all members.
    #[inline]
    fn eq(&self, other: &Who) -> bool {
        let starts = |who: &Who| (who.addr, who.generation, who.rebirths);
        starts(self) == starts(other) && self.id == other.id
    }
}

impl Identity for Who {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Who> {
        Some(Who { rebirths: self.rebirths.wrapping_add(1), ..self.clone() })
    }
    // Called most of all, from another crate.
    #[inline]
    fn addr(&self) -> SocketAddr {
        self.addr
    }
    fn win_addr_conflict(&self, other: &Who) -> bool {
        (self.generation, self.rebirths, &self.id) > (other.generation, other.rebirths, &other.id)
    }
}

/// Something that is due.
#[derive(Debug)]
pub struct Event(Due);

#[derive(Debug)]
enum Due {
    Foca(Timer<Who>),
    Exchange,
    Seeds,
}

/// Effects that the caller must carry out.
#[derive(Debug, Default)]
pub struct Effects {
    pub packets: Vec<(SocketAddr, Bytes)>,
    /// Hand the event back after this time.
    pub timers: Vec<(Duration, Event)>,
    /// The view is another one.
    pub changed: bool,
}

/// Content of a packet. A kind that a later version adds comes last: this one counts it as malformed and goes on.
#[derive(Serialize, Deserialize)]
enum Content {
    /// A message of the crate `foca`.
    Swim(#[serde(with = "bytes_of")] Vec<u8>),
    /// Ids from `from` up to but not with `to`, with the versions of their facts.
    Digest { from: String, to: Option<String>, members: Vec<(String, Version)> },
    /// Facts of members, and who they are.
    Facts(Vec<(SentFacts, Option<foca::Member<Who>>)>),
    /// Summary of all members; a receiver with a different one answers with ranges.
    Summary(#[serde(with = "bytes_of")] Vec<u8>),
    /// Ranges that differ: newer members are sent, older ones are requested.
    Ranges(Vec<Range>),
    /// Facts of these members.
    Want(Vec<u64>),
}

/// Bytes as bytes, not one by one.
mod bytes_of {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }
    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Vec::deserialize(deserializer)
    }
}

/// Packets that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub sealed_wrong: u64,
    /// Number of packets with an unknown version of the seal.
    pub other_version: u64,
    pub replayed: u64,
    pub malformed: u64,
}

/// One node's gossip.
pub struct Core<R: Rng> {
    foca: Foca<Who, PostcardCodec, R, Table>,
    table: Table,
    sealer: Sealer,
    settings: Settings,
    rng_seed: u64,
    seeds: Vec<SocketAddr>,
    /// Version of the own facts.
    told: SentFacts,
    left: bool,
    /// Members when the timing was set last.
    sized_for: usize,
    fingerprint: u64,
    /// First id of the next digest.
    next_digest: String,
    counters: Counters,
    /// Ids that were members, at some time.
    known: BTreeSet<String>,
    exchanges: u64,
    living: Living,
    /// Number of members that were better known elsewhere, since the last exchange.
    missed: usize,
    suspects: Suspects,
}

impl<R: Rng> std::fmt::Debug for Core<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("me", self.foca.identity())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Collects what foca wants done.
#[derive(Default)]
struct FocaActions {
    packets: Vec<(SocketAddr, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Who>)>,
    changed: bool,
    /// Newcomers, which do not know the facts of older members.
    arrived: Vec<String>,
    changes: Vec<Change>,
    /// This node will declare them dead, if they do not show that they live.
    accused: Vec<Who>,
}

impl Runtime<Who> for FocaActions {
    fn notify(&mut self, notification: Notification<'_, Who>) {
        if let Notification::MemberUp(who) | Notification::Rename(_, who) = &notification {
            self.arrived.push(who.id.clone());
        }
        self.changes.extend(Change::of(&notification));
        self.changed = true;
    }
    fn send_to(&mut self, to: Who, data: &[u8]) {
        self.packets.push((to.addr, data.to_vec()));
    }
    fn submit_after(&mut self, event: Timer<Who>, after: Duration) {
        if let Timer::ChangeSuspectToDown { member_id, .. } = &event {
            self.accused.push(member_id.clone());
        }
        self.timers.push((after, event));
    }
}

impl<R: Rng> Core<R> {
    /// `rng` gives the session of the seal, too: it must be new for each start.
    pub fn new(me: Member, key: [u8; 32], settings: Settings, mut rng: R) -> Core<R> {
        let mut session = [0; 16];
        rng.fill(&mut session);
        let table = Table::default();
        let who = Who { id: me.id.clone(), addr: me.addr, generation: me.generation, rebirths: 0 };
        let told = SentFacts { id: me.id, version: (me.generation, 1), facts: BTreeMap::new() };
        table.learn(told.clone());
        let mut living = Living::default();
        living.put(who.clone(), told.version);
        let rng_seed = rng.random();
        let config = settings.config(1);
        let foca = Foca::with_custom_broadcast(who, config, rng, PostcardCodec, table.clone());
        Core {
            foca,
            table,
            sealer: Sealer::new(&key, session),
            settings,
            rng_seed,
            seeds: Vec::new(),
            told,
            left: false,
            sized_for: 1,
            fingerprint: 0,
            next_digest: String::new(),
            counters: Counters::default(),
            known: BTreeSet::new(),
            exchanges: 0,
            living,
            missed: 0,
            suspects: Suspects::default(),
        }
    }

    /// Replaces the keys that seal and open packets.
    pub fn set_keys(&mut self, keys: &PoolKeys) {
        self.sealer.set_keys(keys);
    }

    /// The first thing to do.
    pub fn begin(&mut self, seeds: Vec<SocketAddr>) -> Effects {
        let mut effects = self.add_seeds(seeds);
        effects.timers.push((self.settings.exchange_period, Event(Due::Exchange)));
        effects.timers.push((SEED_PERIOD, Event(Due::Seeds)));
        effects
    }

    /// A packet came from `from`. Whatever it is, it harms nobody.
    pub fn packet(&mut self, _now: Duration, from: SocketAddr, packet: &[u8]) -> Effects {
        use super::seal::Dropped;
        let plain = match self.sealer.open(packet) {
            Ok(plain) => plain,
            Err(Dropped::Replay) => {
                self.counters.replayed += 1;
                return Effects::default();
            }
            Err(Dropped::Version(version)) => {
                self.counters.other_version += 1;
                // Not each time: anybody can send a byte.
                let dropped = self.counters.other_version;
                if dropped.is_power_of_two() {
                    tracing::warn!(%from, version, dropped, "gossip of an unknown version is dropped");
                }
                return Effects::default();
            }
            Err(Dropped::Seal | Dropped::Form) => {
                self.counters.sealed_wrong += 1;
                if self.counters.sealed_wrong.is_power_of_two() {
                    tracing::warn!(%from, dropped = self.counters.sealed_wrong, "gossip that is not of this pool is dropped");
                }
                return Effects::default();
            }
        };
        match postcard::from_bytes(&plain) {
            Ok(Content::Swim(data)) => {
                let mut actions = FocaActions::default();
                if let Err(error) = self.foca.handle_data(&data, &mut actions) {
                    tracing::trace!(%from, %error, "malformed gossip is dropped");
                    self.counters.malformed += 1;
                }
                self.grant(actions)
            }
            Ok(Content::Digest { from: first, to, members }) => self.answer(from, &first, to.as_deref(), &members),
            Ok(Content::Facts(all)) => self.hear(from, all),
            Ok(Content::Summary(theirs)) => self.compare(from, &theirs),
            Ok(Content::Ranges(ranges)) => self.compare_ranges(from, &ranges),
            Ok(Content::Want(numbers)) => {
                let mut effects = Effects::default();
                self.tell_of(&mut effects, from, &numbers);
                effects
            }
            Err(_) => {
                self.counters.malformed += 1;
                Effects::default()
            }
        }
    }

    /// Something is due.
    pub fn event(&mut self, now: Duration, event: Event) -> Effects {
        match event.0 {
            Due::Foca(timer) => {
                let mut actions = FocaActions::default();
                if let Err(error) = self.foca.handle_timer(timer, &mut actions) {
                    // Of a probe that a program which was stopped could not finish: nobody is accused by it.
                    tracing::trace!(%error, "a timer came too late");
                }
                self.grant(actions)
            }
            Due::Exchange => self.exchange(now),
            Due::Seeds => {
                let mut effects = self.ask_seeds();
                effects.timers.push((SEED_PERIOD, Event(Due::Seeds)));
                effects
            }
        }
    }

    pub fn set_facts(&mut self, facts: BTreeMap<String, String>) -> Effects {
        self.told.version.1 += 1;
        self.told.facts = facts;
        self.tell_own_facts();
        Effects { changed: self.take_learned(), ..Effects::default() }
    }

    pub fn add_seeds(&mut self, seeds: Vec<SocketAddr>) -> Effects {
        let me = self.foca.identity().addr;
        self.seeds.extend(seeds.into_iter().filter(|seed| *seed != me));
        self.seeds.sort_unstable();
        self.seeds.dedup();
        self.ask_seeds()
    }

    /// Says goodbye. Nothing but [`Core::leave_again`] makes sense after that.
    pub fn leave(&mut self) -> Effects {
        self.left = true;
        let mut facts = self.told.facts.clone();
        facts.insert(LEFT.into(), String::new());
        let _ = self.set_facts(facts);
        let mut actions = FocaActions::default();
        // The facts go with it.
        let _ = self.foca.gossip(&mut actions);
        let _ = self.foca.leave_cluster(&mut actions);
        self.grant(actions)
    }

    /// Repeats the goodbye to as many members as possible.
    pub fn leave_again(&mut self) -> Effects {
        let content = Content::Facts(vec![(self.told.clone(), None)]);
        let others: Vec<SocketAddr> = self.foca.iter_members().take(FAREWELLS_MAX).map(|it| it.id().addr).collect();
        let mut effects = Effects::default();
        others.into_iter().for_each(|to| self.send(&mut effects, to, &content));
        effects
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Everybody that is known, this node included.
    pub fn view(&self) -> View {
        let mut view: BTreeMap<String, Seen> = BTreeMap::new();
        let me = self.foca.identity();
        let health = if self.left { Liveness::Left } else { Liveness::Alive };
        let others = self.foca.iter_membership_state().map(|it| (it.id(), it.state()));
        for (who, state) in others {
            let facts = self.table.of(&who.id);
            let health = match state {
                State::Alive => Liveness::Alive,
                State::Suspect => Liveness::Suspect,
                State::Down if facts.contains_key(LEFT) => Liveness::Left,
                State::Down => Liveness::Dead,
            };
            let seen = Seen { member: member(who), health, facts };
            // A host that moved is known at two addresses: the one where it lives counts, or else the last.
            let order = |seen: &Seen| (seen.health < Liveness::Dead, seen.member.generation);
            if view.get(&who.id).is_none_or(|other| order(other) < order(&seen)) {
                view.insert(who.id.clone(), seen);
            }
        }
        view.insert(me.id.clone(), Seen { member: member(me), health, facts: self.table.of(&me.id) });
        Arc::new(view)
    }

    /// Returns the number of live members in this node's view, itself included.
    pub fn live(&self) -> usize {
        self.foca.num_members() + 1
    }

    /// Returns the addresses of live members, this node included. It is the most frequent query of a view.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.foca.iter_members().map(foca::Member::id).chain([self.foca.identity()]).map(|who| who.addr)
    }

    fn grant(&mut self, actions: FocaActions) -> Effects {
        let FocaActions { packets, timers, changed, arrived, changes, accused } = actions;
        self.suspects.accuse(accused);
        if !arrived.is_empty() && !self.left && self.known.len() <= CHATTY_MAX {
            self.tell_own_facts();
        }
        self.known.extend(arrived);
        let members = self.foca.num_members() + 1;
        if members > self.sized_for * 2 || members * 2 < self.sized_for {
            self.sized_for = members;
            let _ = self.foca.set_config(self.settings.config(members));
        }
        for change in changes {
            self.living.apply(change, |id| self.table.version(id));
        }
        let mut effects = Effects { changed: self.take_learned() || changed, ..Effects::default() };
        for (to, data) in packets {
            self.send(&mut effects, to, &Content::Swim(data));
        }
        effects.timers.extend(timers.into_iter().map(|(after, timer)| (after, Event(Due::Foca(timer)))));
        effects
    }

    /// True if anything was learned since the last time.
    fn take_learned(&mut self) -> bool {
        let learned = self.table.take_learned();
        for (id, version) in &learned {
            self.living.learned(id, *version);
        }
        !learned.is_empty()
    }

    fn send(&mut self, effects: &mut Effects, to: SocketAddr, content: &Content) {
        if let Ok(plain) = postcard::to_stdvec(content) {
            effects.packets.push((to, self.sealer.seal(&plain)));
        }
    }

    fn tell_own_facts(&mut self) {
        if let Ok(data) = postcard::to_stdvec(&self.told) {
            // Too large is refused by `check` before.
            let _ = self.foca.add_broadcast(&data);
        }
    }

    /// Asks seeds to be let in: all of them while no member is known, later one now and then. The latter heals a pool
    /// that forgot a member.
    fn ask_seeds(&mut self) -> Effects {
        let lives = |seed: &SocketAddr| self.foca.iter_members().any(|it| it.id().addr == *seed);
        let missing = self.seeds.iter().filter(|seed| !lives(seed)).copied();
        let asked: Vec<SocketAddr> = missing.take(if self.live() == 1 { usize::MAX } else { 1 }).collect();
        let mut actions = FocaActions::default();
        for addr in asked {
            let _ = self.foca.announce(unknown(addr), &mut actions);
        }
        self.grant(actions)
    }
}

/// Largest pool in which a newcomer gets the facts of all members at once. In a larger one they are compared soon.
const CHATTY_MAX: usize = 50;
/// Seeds that are not known are asked this often.
const SEED_PERIOD: Duration = Duration::from_secs(1);
/// Number of members that receive the goodbye directly; they pass it on.
const FAREWELLS_MAX: usize = 16;
/// The fact that makes the difference between left and dead.
const LEFT: &str = "left";

fn member(who: &Who) -> Member {
    Member { id: who.id.clone(), addr: who.addr, generation: who.generation }
}

/// Returns a placeholder for the unknown member at this address.
fn unknown(addr: SocketAddr) -> Who {
    Who { id: String::new(), addr, generation: 0, rebirths: 0 }
}
