//! Comparison of two nodes' knowledge, which finds what one of them lacks.
//!
//! Gossip reaches almost everybody; whom it misses, or who has just begun, learns the rest here. Now and then each node asks
//! another one. In a small pool a digest of all facts does. In a large one that would take many packets, or long: there a
//! summary of all members is sent, of a fixed length. Whoever knows something else answers with the parts that are not the
//! same, and then both send each other what is newer.

use std::hash::{Hash as _, Hasher as _};

use super::living::{Known, Living};
use super::*;

/// Members of one digest: 20 of 25 characters, with versions, take about 800 bytes.
const DIGEST_MAX: usize = 20;
/// Packets that answer one packet.
const ANSWERS_MAX: usize = 8;
/// Number of exchanges after which unused facts are dropped.
const TIDY_PERIOD: u64 = 120;
/// Members, and ranges, of one packet: each takes up to 35 bytes.
const ROOM: usize = 36;
/// Maximum number of members in one answer; more do not fit.
const TOLD_MAX: usize = ROOM * ANSWERS_MAX;
/// Number of missed members from which a node asks again soon.
const MISSED_MAX: usize = 20;
/// Interval of these early comparisons. With [`TOLD_MAX`], a newcomer in a pool of 1,000 compares with all of them
/// within a second.
const CATCH_UP_PERIOD: Duration = Duration::from_millis(200);

/// Members that live, by the numbers of their ids: all from `from` to `to`.
#[derive(Serialize, Deserialize)]
pub(super) struct Range {
    from: u64,
    to: u64,
    members: Vec<(u64, Known)>,
}

impl<R: Rng> Core<R> {
    /// Compares with somebody what is known.
    pub(super) fn exchange(&mut self, now: Duration) -> Effects {
        let mut effects = self.end_suspicions(now);
        let behind = std::mem::take(&mut self.missed) >= MISSED_MAX;
        let period = if behind { CATCH_UP_PERIOD } else { self.settings.exchange_period };
        effects.timers.push((period, Event(Due::Exchange)));
        let fingerprint = self.take_fingerprint();
        effects.changed |= std::mem::replace(&mut self.fingerprint, fingerprint) != fingerprint;
        self.exchanges += 1;
        if self.exchanges.is_multiple_of(TIDY_PERIOD) {
            let me = self.foca.identity().id.as_str();
            let known = self.foca.iter_membership_state().map(|it| it.id().id.as_str()).chain([me]);
            self.known = known.map(str::to_owned).collect();
            self.table.keep(&self.known);
            self.living = Living::default();
            for who in self.foca.iter_members().map(foca::Member::id).chain([self.foca.identity()]) {
                self.living.put(who.clone(), self.table.version(&who.id));
            }
        }
        let others = self.foca.num_members();
        if others > 0 && !self.left {
            let chosen = self.roll(others);
            let partner = self.foca.iter_members().nth(chosen).map(|it| it.id().addr);
            // Earlier versions know digests only.
            let content = if others >= DIGEST_MAX && (behind || self.exchanges.is_multiple_of(2)) {
                Content::Summary(self.living.summary())
            } else {
                let from = std::mem::take(&mut self.next_digest);
                let (members, to) = self.table.digest(&from, DIGEST_MAX, &self.known);
                self.next_digest = to.clone().unwrap_or_default();
                Content::Digest { from, to, members }
            };
            if let Some(partner) = partner {
                self.send(&mut effects, partner, &content);
            }
        }
        effects
    }

    /// Returns a number below `count`. Any spread will do: which one is no secret.
    fn roll(&mut self, count: usize) -> usize {
        self.rng_seed = self.rng_seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(self.rng_seed >> 33).unwrap_or(0) % count.max(1)
    }

    /// Takes the changes since the last look: new members, and those with another state.
    fn take_fingerprint(&self) -> u64 {
        let each = self.foca.iter_membership_state().map(|it| {
            let mut hasher = std::hash::DefaultHasher::new();
            (it.id().addr, it.id().generation, it.id().rebirths, it.state() as u8).hash(&mut hasher);
            hasher.finish()
        });
        each.fold(0, |sum, one| sum ^ one)
    }

    /// Answers a summary with the parts that are not the same here.
    pub(super) fn compare(&mut self, to: SocketAddr, theirs: &[u8]) -> Effects {
        let mut differing = self.living.differing(theirs);
        // Others first each time: what some parts lack must not keep others from being looked at.
        let first = self.roll(differing.len());
        differing.rotate_left(first);
        let (mut packets, mut ranges, mut room) = (Vec::new(), Vec::new(), ROOM);
        for part in differing {
            let mut members =
                self.living.within(part.clone()).map(|(number, lives)| (number, lives.known())).peekable();
            let mut next = Some(*part.start());
            while let Some(from) = next.filter(|_| packets.len() < ANSWERS_MAX) {
                let some: Vec<(u64, Known)> = members.by_ref().take(room).collect();
                room = room.saturating_sub(some.len() + 1);
                next = members.peek().map(|(number, _)| *number);
                ranges.push(Range { from, to: next.map_or(*part.end(), |next| next - 1), members: some });
                if room == 0 {
                    packets.push(Content::Ranges(std::mem::take(&mut ranges)));
                    room = ROOM;
                }
            }
        }
        if !ranges.is_empty() {
            packets.push(Content::Ranges(ranges));
        }
        let mut effects = Effects::default();
        packets.iter().for_each(|content| self.send(&mut effects, to, content));
        effects
    }

    /// Sends what is newer here, and requests what is newer there.
    pub(super) fn compare_ranges(&mut self, to: SocketAddr, theirs: &[Range]) -> Effects {
        let (mut effects, mut told, mut wanted) = (Effects::default(), Vec::new(), Vec::new());
        for Range { from, to, members } in theirs {
            let older = |it: &&(u64, Known)| self.living.get(it.0).is_none_or(|here| newer(&it.1, &here.known()));
            wanted.extend(members.iter().filter(older).map(|(number, _)| *number));
            let there: BTreeMap<u64, Known> = members.iter().copied().collect();
            let news = self
                .living
                .within(*from..=*to)
                .filter(|(number, here)| there.get(number).is_none_or(|it| newer(&here.known(), it)));
            told.extend(news.map(|(number, _)| number));
        }
        self.tell_of(&mut effects, to, &told);
        if !wanted.is_empty() {
            self.missed += wanted.len();
            self.send(&mut effects, to, &Content::Want(wanted));
        }
        effects
    }

    /// Sends these members with their facts.
    pub(super) fn tell_of(&mut self, effects: &mut Effects, to: SocketAddr, numbers: &[u64]) {
        let all = numbers.iter().take(TOLD_MAX).filter_map(|number| self.living.get(*number));
        let all: Vec<_> =
            all.map(|it| (self.table.told(&it.who.id), Some(foca::Member::alive(it.who.clone())))).collect();
        self.tell(effects, to, all);
    }

    /// Answers a digest with what is newer here.
    pub(super) fn answer(
        &mut self,
        to: SocketAddr,
        from: &str,
        end: Option<&str>,
        digest: &[(String, Version)],
    ) -> Effects {
        let mut effects = Effects::default();
        let newer = self.table.newer(from, end, digest);
        let wanted: BTreeSet<String> = newer.iter().map(|told| told.id.clone()).collect();
        let members = self.foca.iter_members().filter(|member| wanted.contains(&member.id().id));
        let mut members: BTreeMap<String, foca::Member<Who>> =
            members.map(|member| (member.id().id.clone(), member.clone())).collect();
        let told = newer.into_iter().map(|told| (members.remove(&told.id), told)).map(|(member, told)| (told, member));
        self.tell(&mut effects, to, told);
        effects
    }

    /// Sends facts, in as many packets as they need, but not in more than a few.
    fn tell(
        &mut self,
        effects: &mut Effects,
        to: SocketAddr,
        all: impl IntoIterator<Item = (SentFacts, Option<foca::Member<Who>>)>,
    ) {
        let most = effects.packets.len() + ANSWERS_MAX;
        let mut batch = Vec::new();
        let mut length = 0;
        for told in all {
            let size = postcard::to_stdvec(&told).map_or(0, |data| data.len());
            if length + size + 8 > CONTENT_BYTES_MAX {
                self.send(effects, to, &Content::Facts(std::mem::take(&mut batch)));
                length = 0;
                if effects.packets.len() == most {
                    return;
                }
            }
            length += size;
            batch.push(told);
        }
        if !batch.is_empty() {
            self.send(effects, to, &Content::Facts(batch));
        }
    }
}

/// True if there is something newer in one than in the other; there may be in both.
fn newer(one: &Known, other: &Known) -> bool {
    one.0 > other.0 || one.1 > other.1
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn addr(number: usize) -> SocketAddr {
        let [_, _, high, low] = u32::try_from(number).expect("a small number").to_be_bytes();
        SocketAddr::from(([10, 0, high, low], 7946))
    }

    fn who(number: usize) -> Who {
        Who { id: format!("{number:04}{}", "x".repeat(21)), addr: addr(number), generation: 1, rebirths: 0 }
    }

    fn core(number: usize) -> Core<StdRng> {
        let me = member(&who(number));
        Core::new(me, [1; 32], Settings::default(), StdRng::seed_from_u64(number as u64))
    }

    /// Carries packets from one to the other and back until there are none.
    fn talk(nodes: [&mut Core<StdRng>; 2], mut packets: Vec<(SocketAddr, Bytes)>) -> usize {
        let mut count = 0;
        while let Some((to, bytes)) = packets.pop() {
            let at = |node: usize| nodes[node].foca.identity().addr;
            let (here, there) = if to == at(0) { (0, at(1)) } else { (1, at(0)) };
            if to == at(here) {
                count += 1;
                packets.extend(nodes[here].packet(Duration::ZERO, there, &bytes).packets);
            }
        }
        count
    }

    fn know(node: &mut Core<StdRng>, members: impl Iterator<Item = usize>, state: State) {
        for number in members {
            let told = SentFacts {
                id: who(number).id,
                version: (1, 2),
                facts: BTreeMap::from([("n".into(), "x".repeat(90))]),
            };
            node.hear(addr(0), vec![(told, Some(foca::Member::new(who(number), 0, state)))]);
        }
    }

    fn ask(one: &mut Core<StdRng>, other: &mut Core<StdRng>) -> usize {
        let effects = other.compare(one.foca.identity().addr, &one.living.summary());
        talk([one, other], effects.packets)
    }

    #[test]
    fn two_nodes_of_a_thousand_that_know_half_each_know_all_after_few_questions() {
        let (mut one, mut other) = (core(1), core(2));
        know(&mut one, 2..500, State::Alive);
        know(&mut other, (1..2).chain(500..1000), State::Alive);
        for round in 1.. {
            let packets = ask(&mut one, &mut other);
            assert!(packets <= 100, "{packets} packets at once");
            if one.living.differing(&other.living.summary()).is_empty() {
                assert!(round <= 9, "{round} rounds");
                break;
            }
        }
        assert_eq!((one.live(), other.live()), (999, 999));
        assert_eq!(one.table.version(&who(999).id), (1, 2));
        assert_eq!(ask(&mut one, &mut other), 0, "nothing is left to tell");
    }

    #[test]
    fn a_suspect_shows_its_accuser_that_it_lives() {
        let (mut one, mut other) = (core(1), core(2));
        for state in [State::Alive, State::Suspect] {
            know(&mut one, 2..3, state);
        }
        let state = |one: &Core<StdRng>| one.view()[&who(2).id].health;
        assert_eq!(state(&one), Liveness::Suspect);
        assert!(one.end_suspicions(Duration::ZERO).packets.is_empty(), "another one has accused it");
        one.suspects.accuse(vec![who(2)]);
        let packets = one.end_suspicions(Duration::ZERO).packets;
        talk([&mut one, &mut other], packets);
        assert_eq!(state(&one), Liveness::Alive);
    }

    #[test]
    fn who_is_said_to_be_alive_is_asked_by_those_who_hold_it_dead() {
        let (mut one, mut other) = (core(1), core(2));
        for state in [State::Alive, State::Down] {
            know(&mut one, 2..3, state);
        }
        let told = SentFacts { id: who(2).id, version: (1, 1), facts: BTreeMap::new() };
        let effects = one.hear(addr(3), vec![(told, Some(foca::Member::alive(who(2))))]);
        assert_eq!(one.view()[&who(2).id].health, Liveness::Dead, "nobody else can say so");
        talk([&mut one, &mut other], effects.packets);
        let seen = &one.view()[&who(2).id];
        assert_eq!(seen.health, Liveness::Alive);
    }
}
