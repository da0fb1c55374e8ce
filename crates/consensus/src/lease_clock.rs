//! The lease clock of a leader: what leases end by (DESIGN, section 6, "Lease time belongs to the log").
//!
//! A leader adds to the last applied reading only time during which it held its leader lease without a gap. While it held it
//! nobody else led, so no two leaders ever count the same moment, and a lease never ends early. Time in a gap is nobody's:
//! no keep-alive could be answered in it.

use std::time::Duration;

use ringfence_canary::Canary;
use ringfence_types::{LeaseTime, Term};

use crate::rt;

/// The clock, which runs while this node leads.
///
/// ```text
///   start(5 s, acked 0)     hold(acked 300 ms)                     hold(acked 900 ms)
///   |------- counted: 700 ms, to 300 ms + a leader lease of 400 ms -------|  gap  |---- counted ...
/// ```
///
/// Invariants:
/// - a reading never falls while the same leadership goes on;
/// - of any stretch of time at most its length is counted, and nothing that no leader lease covers.
#[derive(Debug)]
pub(crate) struct LeaseClock {
    leader_lease: Duration,
    running: Option<Running>,
}

/// One leadership's time.
#[derive(Debug)]
struct Running {
    term: Term,
    /// The reading that this leadership found applied when it began to count.
    base: LeaseTime,
    /// What it has counted since.
    counted: Duration,
    /// The moment up to which it has counted.
    counted_to: rt::Instant,
    /// The end of the leader lease, as far as it is known.
    held_until: rt::Instant,
}

impl LeaseClock {
    /// A clock that stands, for a node with this leader lease.
    pub(crate) fn new(leader_lease: Duration) -> LeaseClock {
        LeaseClock { leader_lease, running: None }
    }

    /// Whether it runs for the leadership of this term.
    pub(crate) fn runs_in(&self, term: Term) -> bool {
        self.running.as_ref().is_some_and(|running| running.term == term)
    }

    /// Begins at `base`, the last applied reading, for a leadership whose majority has answered a message sent at `acked`.
    ///
    /// Whoever led before cannot commit a reading that it took after that: the majority had left it. So time counts from
    /// there on.
    pub(crate) fn start(&mut self, term: Term, base: LeaseTime, acked: rt::Instant) {
        let held_until = acked + self.leader_lease;
        let counted_to =
            if Canary::TimeCountedTwice.sings() { acked - Duration::from_secs(3) } else { acked };
        self.running = Some(Running { term, base, counted: Duration::ZERO, counted_to, held_until });
    }

    /// Ends with the leadership.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// Takes note at `now` that a majority has answered a message sent at `acked`: from then on the leader lease holds.
    pub(crate) fn hold(&mut self, now: rt::Instant, acked: rt::Instant) {
        let leader_lease = self.leader_lease;
        let Some(running) = &mut self.running else { return };
        running.count_to(now);
        if acked > running.held_until {
            // The lease ran out before it was won again.
            running.count_to(running.held_until);
            running.counted_to = acked;
        }
        running.held_until = running.held_until.max(acked + leader_lease);
        running.count_to(now);
    }

    /// The reading at `now`; none without a leadership that has begun to count, or without its leader lease.
    pub(crate) fn read(&mut self, now: rt::Instant) -> Option<LeaseTime> {
        let running = self.running.as_mut()?;
        if now > running.held_until {
            return None;
        }
        running.count_to(now);
        let counted = u64::try_from(running.counted.as_millis()).unwrap_or(u64::MAX);
        Some(running.base.plus(counted))
    }
}

impl Running {
    /// Counts up to `now`, as far as the leader lease goes.
    fn count_to(&mut self, now: rt::Instant) {
        let to = now.min(self.held_until);
        if to > self.counted_to {
            self.counted += to - self.counted_to;
            self.counted_to = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(400);
    const TERM: Term = Term(3);

    fn at(milliseconds: u64) -> rt::Instant {
        rt::Instant::from_nanoseconds((1_000_000 + milliseconds) * 1_000_000)
    }

    /// A clock that began at 5 s, with an answer to a message of moment 0.
    fn started() -> LeaseClock {
        let mut clock = LeaseClock::new(LEASE);
        clock.start(TERM, LeaseTime(5_000), at(0));
        clock
    }

    #[test]
    fn time_under_an_unbroken_leader_lease_is_counted_whole() {
        let mut clock = started();
        assert_eq!(clock.read(at(0)), Some(LeaseTime(5_000)));
        for beat in (80..=8_000).step_by(80) {
            // Each answer is known 30 ms after its message was sent, and looked at now and then alone.
            if beat % 240 == 0 {
                clock.hold(at(beat + 30), at(beat));
            }
            let held = beat / 240 * 240 + 400;
            let expected = (beat + 50 <= held).then_some(LeaseTime(5_000 + beat + 50));
            assert_eq!(clock.read(at(beat + 50)), expected, "at {beat}");
        }
    }

    #[test]
    fn an_answer_within_the_lease_is_no_gap_even_if_it_was_seen_late() {
        let mut clock = started();
        // Looked at once in 700 ms: the message of 390 ms was sent while the lease of the first one held.
        clock.hold(at(700), at(390));
        assert_eq!(clock.read(at(700)), Some(LeaseTime(5_700)));
        clock.hold(at(1_100), at(790));
        assert_eq!(clock.read(at(1_100)), Some(LeaseTime(6_100)));
    }

    #[test]
    fn a_gap_is_nobodys_time() {
        let mut clock = started();
        assert_eq!(clock.read(at(401)), None, "the lease has run out");
        clock.hold(at(950), at(900));
        assert_eq!(
            clock.read(at(950)),
            Some(LeaseTime(5_450)),
            "400 ms of the first lease, 50 of the second"
        );
        // A node that was stopped for ten seconds.
        clock.hold(at(11_000), at(10_999));
        assert_eq!(clock.read(at(11_000)), Some(LeaseTime(5_801)));
    }

    #[test]
    fn what_comes_twice_or_late_counts_once() {
        let mut clock = started();
        clock.hold(at(300), at(250));
        let reading = clock.read(at(320));
        for (now, acked) in [(310, 250), (300, 100), (0, 0), (320, 250)] {
            clock.hold(at(now), at(acked));
            assert_eq!(clock.read(at(now)), reading, "the clock never falls");
        }
        assert_eq!(
            clock.read(at(650)),
            Some(LeaseTime(5_650)),
            "an older answer takes nothing from a newer one"
        );
        assert_eq!(clock.read(at(651)), None);
    }

    #[test]
    fn parts_of_a_millisecond_are_not_lost() {
        let mut clock = LeaseClock::new(LEASE);
        let nanoseconds = |count: u64| rt::Instant::from_nanoseconds(7_000_000_000 + count);
        clock.start(TERM, LeaseTime(0), nanoseconds(0));
        for step in 1..=1_000 {
            assert!(clock.read(nanoseconds(step * 300_000)).is_some());
        }
        assert_eq!(clock.read(nanoseconds(300_000_000)), Some(LeaseTime(300)));
    }

    #[test]
    fn it_stands_between_leaderships_and_begins_anew_from_what_is_applied() {
        let mut clock = started();
        assert!(clock.runs_in(TERM) && !clock.runs_in(Term(4)));
        clock.stop();
        clock.hold(at(100), at(90));
        assert_eq!(clock.read(at(100)), None);
        assert!(!clock.runs_in(TERM));
        clock.start(Term(5), LeaseTime(9_000), at(2_000));
        assert_eq!(clock.read(at(2_010)), Some(LeaseTime(9_010)));
    }
}
