//! Warnings to members that do not answer, so that they can show that they live.

use super::*;

/// The members that this node suspects.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// The suspects, with the time since which each is one.
    since: BTreeMap<SocketAddr, (Who, Duration)>,
    /// This node will declare them dead.
    accused: BTreeSet<SocketAddr>,
}

impl Suspects {
    pub(super) fn accuse(&mut self, accused: Vec<Who>) {
        self.accused.extend(accused.into_iter().map(|who| who.addr));
    }
}

impl<R: Rng> Core<R> {
    /// Ends suspicions that would last for ever, and tells those whom this node is about to declare dead.
    ///
    /// foca drops its timers when this node itself is born again, and a suspect that nobody tells of the suspicion cannot show
    /// that it lives. Informed that it is dead, it does. And a suspect that has shown that it lives does not tell its accuser: in a
    /// large pool that may hear of it too late, and what it then declares is believed by everybody.
    pub(super) fn end_suspicions(&mut self, now: Duration) -> Effects {
        let time = self.settings.config(self.sized_for).suspect_to_down_after;
        let suspects = self.foca.iter_membership_state().filter(|it| it.state() == State::Suspect);
        let (mut since, mut dead, mut warned) = (BTreeMap::new(), Vec::new(), Vec::new());
        for member in suspects {
            let (who, addr) = (member.id(), member.id().addr);
            let before = self.suspects.since.remove(&addr).filter(|(other, _)| other == who);
            let (who, first) = before.unwrap_or_else(|| (who.clone(), now));
            if now.saturating_sub(first) > time * 2 {
                dead.push(foca::Member::down(who.clone()));
            } else if self.suspects.accused.contains(&addr) || now.saturating_sub(first) > time {
                warned.push(member.clone());
            }
            since.insert(addr, (who, first));
        }
        self.suspects.accused.retain(|addr| since.contains_key(addr));
        self.suspects.since = since;
        let mut actions = FocaActions::default();
        let _ = self.foca.apply_many(dead.into_iter(), true, &mut actions);
        let mut effects = self.grant(actions);
        warned.into_iter().for_each(|member| self.warn(&mut effects, member));
        effects
    }

    /// Tells a member that it is suspected.
    fn warn(&mut self, effects: &mut Effects, member: foca::Member<Who>) {
        let to = member.id().addr;
        self.send(effects, to, &Content::Facts(vec![(self.told.clone(), Some(member))]));
    }

    /// Takes in facts of members, and who they are.
    pub(super) fn hear(&mut self, from: SocketAddr, all: Vec<(SentFacts, Option<foca::Member<Who>>)>) -> Effects {
        let (facts, members): (Vec<SentFacts>, Vec<_>) = all.into_iter().unzip();
        for told in facts {
            self.table.learn(told);
        }
        let me = self.foca.identity().clone();
        let (mine, others): (Vec<_>, Vec<_>) = members.into_iter().flatten().partition(|it| it.id().addr == me.addr);
        // Most that is told is facts only. To look for each in a long list would take long.
        let new = |it: &foca::Member<Who>| {
            let seen = self.living.get(living::number(&it.id().id)).is_some_and(|here| here.who == *it.id());
            !seen || it.state() != State::Alive || it.incarnation() > 0
        };
        let others: Vec<foca::Member<Who>> = others.into_iter().filter(new).collect();
        let live = |who: &Who| others.iter().any(|it| it.id() == who && it.state() != State::Down);
        let down = self.foca.iter_membership_state().filter(|it| it.state() == State::Down && !others.is_empty());
        let contradicted: Vec<foca::Member<Who>> = down.filter(|it| live(it.id())).cloned().collect();
        let doubts: Vec<foca::Member<Who>> = mine.into_iter().filter(|it| it.state() != State::Alive).collect();
        let doubted = !doubts.is_empty() && !self.left;
        let doubts = doubts.into_iter().filter(|it| *it.id() == me && doubted);
        let mut actions = FocaActions::default();
        // In a large pool, what was found by comparing is found by everybody that way: telling it as well would only be in the
        // way of what is new.
        let tell = self.known.len() <= CHATTY_MAX;
        let _ = self.foca.apply_many(doubts.chain(others), tell, &mut actions);
        if doubted {
            // Any word of this node tells that it lives.
            let _ = self.foca.announce(unknown(from), &mut actions);
        }
        let mut effects = self.grant(actions);
        contradicted.into_iter().for_each(|member| self.warn(&mut effects, member));
        effects
    }
}
