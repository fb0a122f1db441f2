//! Circuit breakers: a service that fails gets no requests for a while, then more and more of them.

use std::ops::Range;
use std::time::Duration;

use herder_decide::ingress::{Condition, Figures};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Time over which requests are counted, in slots of a second.
const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(1);
/// Number of bounds for answer times, which are powers of 2^(1/4) milliseconds. An answer time is at most 19 % too long, up to two minutes.
const LATENCIES: usize = 68;
/// Status codes by number. Others are counted as the last one.
const CODES: usize = 600;

/// A circuit breaker of one middleware on this node.
#[derive(Debug)]
pub(crate) struct Breaker {
    condition: Condition,
    check_period: Duration,
    fallback: Duration,
    recovery: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is: Circuit,
    window: Window,
    next_check: Instant,
    /// Requests of a recovery: those that were let through, and all.
    passed: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circuit {
    /// All requests pass.
    Closed,
    /// No request passes.
    Open { until: Instant },
    /// A growing share of requests passes.
    Recovering { since: Instant },
}

impl Breaker {
    pub(crate) fn new(
        condition: Condition,
        check_period: Duration,
        fallback: Duration,
        recovery: Duration,
        now: Instant,
    ) -> Breaker {
        let state = State { is: Circuit::Closed, window: Window::new(now), next_check: now, passed: (0, 0) };
        Breaker { condition, check_period, fallback, recovery, state: Mutex::new(state) }
    }

    /// Returns whether a request may pass.
    pub(crate) fn passes(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        if let Circuit::Open { until } = state.is
            && now >= until
        {
            (state.is, state.passed) = (Circuit::Recovering { since: now }, (0, 0));
        }
        match state.is {
            Circuit::Closed => true,
            Circuit::Open { .. } => false,
            Circuit::Recovering { since } => {
                let share = now.duration_since(since).as_secs_f64() / self.recovery.as_secs_f64();
                if share >= 1.0 {
                    state.is = Circuit::Closed;
                    return true;
                }
                state.passed.1 += 1;
                let may = f64::from(state.passed.0) < share * f64::from(state.passed.1);
                state.passed.0 += u32::from(may);
                may
            }
        }
    }

    /// Counts an answer to a request that passed, and opens the circuit if the condition holds.
    pub(crate) fn answered(&self, status: u16, time: Duration, now: Instant) {
        let mut state = self.state.lock();
        state.window.count(status, time, now);
        if matches!(state.is, Circuit::Open { .. }) || now < state.next_check {
            return;
        }
        state.next_check = now + self.check_period;
        if self.condition.holds(&state.window) {
            state.is = Circuit::Open { until: now + self.fallback };
            state.window = Window::new(now);
        }
    }
}

/// Requests of the last seconds.
#[derive(Debug)]
struct Window {
    slots: Vec<Slot>,
    at: usize,
    began: Instant,
}

#[derive(Clone, Debug)]
struct Slot {
    codes: Vec<(u16, u64)>,
    latencies: [u32; LATENCIES],
}

impl Default for Slot {
    fn default() -> Slot {
        Slot { codes: Vec::new(), latencies: [0; LATENCIES] }
    }
}

impl Window {
    fn new(now: Instant) -> Window {
        Window { slots: vec![Slot::default(); SLOTS], at: 0, began: now }
    }

    fn count(&mut self, status: u16, time: Duration, now: Instant) {
        let mut passed = 0;
        while now.duration_since(self.began) >= SLOT && passed < SLOTS {
            self.began += SLOT;
            self.at = (self.at + 1) % SLOTS;
            self.slots[self.at] = Slot::default();
            passed += 1;
        }
        if passed == SLOTS {
            self.began = now;
        }
        let slot = &mut self.slots[self.at];
        let status = status.min(u16::try_from(CODES).unwrap_or(u16::MAX));
        match slot.codes.iter_mut().find(|(code, _)| *code == status) {
            Some((_, count)) => *count += 1,
            None => slot.codes.push((status, 1)),
        }
        slot.latencies[place(time)] += 1;
    }
}

/// The first place whose bound is not below a time.
fn place(time: Duration) -> usize {
    let ms = time.as_secs_f64() * 1000.0;
    (0..LATENCIES - 1).find(|at| bound(*at) >= ms).unwrap_or(LATENCIES - 1)
}

fn bound(place: usize) -> f64 {
    f64::from(u32::try_from(place).unwrap_or(u32::MAX)).mul_add(0.25, 0.0).exp2()
}

impl Figures for Window {
    fn answers(&self, codes: Range<u16>) -> u64 {
        let all = self.slots.iter().flat_map(|it| &it.codes);
        all.filter(|(code, _)| codes.contains(code)).map(|(_, count)| count).sum()
    }

    /// Counts the answers of the proxy itself.
    fn network_errors(&self) -> u64 {
        self.answers(502..503) + self.answers(504..505)
    }

    fn requests(&self) -> u64 {
        self.answers(0..u16::MAX)
    }

    fn latency_ms(&self, percent: f64) -> f64 {
        let mut total = [0_u32; LATENCIES];
        for slot in &self.slots {
            total.iter_mut().zip(slot.latencies).for_each(|(all, count)| *all += count);
        }
        let wanted = f64::from(total.iter().sum::<u32>()) * percent / 100.0;
        let mut had = 0;
        for (at, count) in total.into_iter().enumerate() {
            had += count;
            if had > 0 && f64::from(had) >= wanted {
                return bound(at);
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(text: &str, now: Instant) -> Breaker {
        let condition = Condition::parse(text).expect("a condition");
        Breaker::new(condition, Duration::from_millis(100), SECOND * 10, SECOND * 10, now)
    }

    #[test]
    fn a_circuit_opens_rests_and_recovers_bit_by_bit() {
        let start = Instant::now();
        let it = breaker("NetworkErrorRatio() > 0.5", start);
        it.answered(200, SECOND, start);
        assert!(it.passes(start));
        // The next check is not due yet.
        it.answered(502, SECOND, start);
        it.answered(504, SECOND, start);
        assert!(it.passes(start));
        it.answered(502, SECOND, start + SECOND);
        assert!(!it.passes(start + SECOND));
        assert!(!it.passes(start + SECOND * 10));
        let passed = |from: Instant, count: u32| (0..count).filter(|_| it.passes(from)).count();
        let recovery = start + SECOND * 11;
        assert_eq!(passed(recovery, 10), 0);
        assert!((40..=60).contains(&passed(recovery + SECOND * 5, 100)));
        // It fails again.
        it.answered(502, SECOND, recovery + SECOND * 5);
        assert_eq!(passed(recovery + SECOND * 5, 100), 0);
        let recovery = recovery + SECOND * 15;
        assert_eq!(passed(recovery, 1), 0);
        it.answered(200, SECOND, recovery + SECOND);
        assert_eq!(passed(recovery + SECOND * 10, 100), 100);
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let start = Instant::now();
        let it = breaker("ResponseCodeRatio(500, 600, 0, 600) > 0.5", start);
        it.answered(200, SECOND, start);
        it.answered(500, SECOND, start);
        it.answered(500, SECOND, start);
        it.answered(200, SECOND, start + SECOND * 60);
        it.answered(200, SECOND, start + SECOND * 61);
        assert!(it.passes(start + SECOND * 61));
        let it = breaker("LatencyAtQuantileMS(50) > 100", start);
        for _ in 0..10 {
            it.answered(200, Duration::from_millis(90), start);
        }
        it.answered(200, SECOND, start + SECOND);
        assert!(it.passes(start + SECOND));
        (0..20).for_each(|_| it.answered(200, SECOND, start + SECOND * 2));
        it.answered(200, SECOND, start + SECOND * 3);
        assert!(!it.passes(start + SECOND * 3));
    }
}
