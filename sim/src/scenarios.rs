//! Scenarios: what must go wrong for one counter-measure to matter. Each was found on openraft alone; with the
//! counter-measure switched off, by its canary, some seed of the scenario must show it, and with it no seed may.

use std::time::Duration;

use ringfence_canary::Canary;

use crate::rights::Cast;
use crate::run::Plan;
use crate::schedule::{Fault, Step};
use crate::world::{Pace, Shape, Stop};

/// A situation that is brought about again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// The leader loses its followers while they restart: who forgets the leases that it granted elects another leader
    /// while the old one still answers reads by its own.
    RestartInsideLease,
    /// A leader whose lease is longer than its followers' loses them: they elect another one before its lease ends.
    UnevenLeases,
    /// A follower whose disk is slow stops hearing its leader and campaigns: a vote that is saved before the entries
    /// ahead of it are durable vouches for them, the leader commits them, and a power cut takes them.
    PowerCutAfterElection,
    /// A leader restarts at once, again and again, with leadership being handed over in between.
    RestartedLeader,
    /// A leader is no longer heard, but hears answers that are late: one that counts for a request which was never
    /// delivered lets it think that it still leads, and answer reads, while another leader takes writes.
    LateAnswers,
    /// A follower has entries that its leader does not know it has, and the leader drops them: it sends a snapshot that ends
    /// below them. What the follower has behind the snapshot it forgets to apply, until somebody writes again.
    SnapshotBelowTail,
    /// Leadership is handed over again and again: each leader's lease clock goes on where the last one's stood.
    Handovers,
    /// A renewal is answered while the end of its lease is in flight: apply judges the end by what the renewal left.
    RenewalMeetsEnd,
    /// A lease's number is granted again while renewals and writes of the grant before are still on their way.
    RegrantedLease,
    /// A client shows a token to a follower that has not heard of it yet.
    LaggingFollower,
    /// A call that waits for a lock breaks off, while the client's next call comes to hold it.
    RetriedWaiter,
    /// A holder is paused for longer than its lease lasts, and writes when it goes on.
    PausedHolder,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 12] = [
        Scenario::RestartInsideLease,
        Scenario::UnevenLeases,
        Scenario::PowerCutAfterElection,
        Scenario::RestartedLeader,
        Scenario::LateAnswers,
        Scenario::SnapshotBelowTail,
        Scenario::Handovers,
        Scenario::RenewalMeetsEnd,
        Scenario::RegrantedLease,
        Scenario::LaggingFollower,
        Scenario::RetriedWaiter,
        Scenario::PausedHolder,
    ];

    /// The name on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scenario::RestartInsideLease => "restart-inside-lease",
            Scenario::UnevenLeases => "uneven-leases",
            Scenario::PowerCutAfterElection => "power-cut-after-election",
            Scenario::RestartedLeader => "restarted-leader",
            Scenario::LateAnswers => "late-answers",
            Scenario::SnapshotBelowTail => "snapshot-below-tail",
            Scenario::Handovers => "handovers",
            Scenario::RenewalMeetsEnd => "renewal-meets-end",
            Scenario::RegrantedLease => "regranted-lease",
            Scenario::LaggingFollower => "lagging-follower",
            Scenario::RetriedWaiter => "retried-waiter",
            Scenario::PausedHolder => "paused-holder",
        }
    }

    /// The scenario of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Scenario> {
        Scenario::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// The counter-measure without which the scenario shows a violation, by the canary that switches it off.
    #[must_use]
    pub fn canary(self) -> Canary {
        match self {
            Scenario::RestartInsideLease => Canary::NoQuarantine,
            Scenario::UnevenLeases => Canary::LeaseWithoutMargin,
            Scenario::PowerCutAfterElection => Canary::VoteBeforeFlush,
            Scenario::RestartedLeader => Canary::LeaderRestored,
            Scenario::LateAnswers => Canary::LateAnswerCredited,
            Scenario::SnapshotBelowTail => Canary::NoEntryAfterSnapshot,
            Scenario::Handovers => Canary::TimeCountedTwice,
            Scenario::RenewalMeetsEnd => Canary::EndUnjudged,
            Scenario::RegrantedLease => Canary::GrantIgnored,
            Scenario::LaggingFollower => Canary::LaggardRefuses,
            Scenario::RetriedWaiter => Canary::WaiterRemovedUnseen,
            Scenario::PausedHolder => Canary::FenceSkipped,
        }
    }

    /// A run of it: three nodes and quick clients. The last round ends with the run: some rules are judged at rest alone.
    #[must_use]
    pub fn plan(self, seed: u64, length: Duration) -> Plan {
        let (every, round) = self.round();
        let mut steps = Vec::new();
        let mut left = length;
        while left >= every + Duration::from_secs(1) {
            left -= every;
            steps.extend(round.iter().map(|step| Step { at: left + step.at, ..step.clone() }));
        }
        let cast = self.cast();
        let uneven_leases = cast == Cast::default()
            && !matches!(self, Scenario::RestartInsideLease | Scenario::RestartedLeader);
        Plan {
            seed,
            shape: Shape { nodes: 3, forgets_soon: false, uneven_leases },
            clients: if self == Scenario::SnapshotBelowTail || cast != Cast::default() { 2 } else { 16 },
            pause: Duration::from_millis(8),
            cast,
            steps,
            length,
            canaries: Vec::new(),
        }
    }

    /// Who acts, where a scenario is about leases or locks.
    fn cast(self) -> Cast {
        let nobody = Cast::default();
        match self {
            Scenario::Handovers => Cast { keepers: 4, late_keepers: 2, holders: 2, ..nobody },
            Scenario::RenewalMeetsEnd => Cast { late_keepers: 8, ..nobody },
            Scenario::RegrantedLease => Cast { regranters: 4, ..nobody },
            Scenario::PausedHolder => Cast { holders: 4, ..nobody },
            // Each alone: a follower that has not heard of its token knows of no holder at all.
            Scenario::LaggingFollower => Cast { holders: 2, ..nobody },
            Scenario::RetriedWaiter => Cast { holders: 8, ..nobody },
            _ => nobody,
        }
    }

    /// What happens once, and how often it does.
    fn round(self) -> (Duration, Vec<Step>) {
        let step = |at: u64, lasts: u64, fault: Fault| Step {
            at: Duration::from_millis(at),
            lasts: Duration::from_millis(lasts),
            fault,
        };
        match self {
            Scenario::RestartInsideLease => (
                Duration::from_secs(4),
                vec![step(0, 1_200, Fault::IsolateLeader), step(2, 5, Fault::StopFollowers(Stop::Kill))],
            ),
            Scenario::UnevenLeases => (
                Duration::from_secs(6),
                vec![step(0, 0, Fault::Transfer(Some(1))), step(1_500, 2_000, Fault::IsolateLeader)],
            ),
            // The first node leads, with so long a lease that it waits for late answers. The second gets entries that
            // the third does not, and that its disk takes too long to keep; it saves its vote when the third would give
            // it its own, and is gone before it has handed the entries on.
            Scenario::PowerCutAfterElection => (
                Duration::from_secs(6),
                vec![
                    step(0, 0, Fault::Transfer(Some(1))),
                    step(1_500, 1_100, Fault::SlowDisk(2, 2_500, 2_600)),
                    step(1_520, 1_100, Fault::Slow(2, 3, late(45))),
                    step(1_520, 2_500, Fault::Cut(vec![1], vec![3])),
                    step(1_600, 2_500, Fault::Cut(vec![1], vec![2])),
                    step(2_340, 300, Fault::Stop(2, Stop::PowerCut)),
                ],
            ),
            Scenario::RestartedLeader => (
                Duration::from_secs(3),
                vec![
                    step(0, 0, Fault::Transfer(None)),
                    step(40, 10, Fault::StopLeader(Stop::Kill)),
                    step(1_500, 10, Fault::StopLeader(Stop::Kill)),
                ],
            ),
            // The answer to the last request that arrived comes from the third node first: the leader commits, and tells
            // the second of it, which never hears that, but whose answer to the request before comes then.
            Scenario::LateAnswers => (
                Duration::from_secs(7),
                vec![
                    step(0, 0, Fault::Transfer(Some(1))),
                    step(1_500, 3_000, Fault::Late(3, 1, late(1_500))),
                    step(1_500, 3_000, Fault::Late(2, 1, late(1_600))),
                    step(1_505, 1_400, Fault::CutClients(1)),
                    step(1_512, 3_000, Fault::Cut(vec![1], vec![2, 3])),
                ],
            ),
            Scenario::Handovers => (
                Duration::from_secs(3),
                vec![step(0, 0, Fault::Transfer(None)), step(1_400, 0, Fault::Transfer(None))],
            ),
            // An entry takes about as long as a late keeper is early.
            Scenario::RenewalMeetsEnd => (
                Duration::from_secs(4),
                vec![
                    step(0, 4_000, Fault::Slow(1, 2, late(30))),
                    step(0, 4_000, Fault::Slow(1, 3, late(30))),
                ],
            ),
            Scenario::RegrantedLease => (
                Duration::from_secs(5),
                vec![
                    step(0, 3_000, Fault::Late(1, 2, late(300))),
                    step(1_000, 3_000, Fault::Late(1, 3, late(300))),
                ],
            ),
            Scenario::LaggingFollower => (
                Duration::from_secs(5),
                vec![step(0, 0, Fault::Transfer(Some(1))), step(500, 4_000, Fault::Late(1, 3, late(600)))],
            ),
            // What the third node proposes comes late.
            Scenario::RetriedWaiter => (
                Duration::from_secs(5),
                vec![step(0, 0, Fault::Transfer(Some(1))), step(500, 4_000, Fault::Late(3, 1, late(150)))],
            ),
            Scenario::PausedHolder => (Duration::from_secs(5), vec![step(0, 0, Fault::Transfer(None))]),
            // The second node is far and the third's disk so slow that its answers come when they are lost: of two writes under
            // way the third has both and hears of neither that it is committed; when the first one is, the leader has dropped
            // what it knows the third to have, and the connections break. They break again while the leader copies its state,
            // so that all but the snapshot waits before it is sent again. Nobody writes any more.
            Scenario::SnapshotBelowTail => (
                Duration::from_secs(9),
                vec![
                    step(0, 0, Fault::Transfer(Some(1))),
                    step(4_000, 2_500, Fault::Late(1, 2, late(90))),
                    step(4_000, 2_440, Fault::SlowDisk(3, 900, 1_000)),
                    step(6_350, 7_500, Fault::CutClients(1)),
                    step(6_350, 7_500, Fault::CutClients(2)),
                    step(6_350, 7_500, Fault::CutClients(3)),
                    step(6_355, 84, Fault::Cut(vec![1], vec![3])),
                    step(6_360, 0, Fault::Checkpoint(1)),
                    step(6_380, 0, Fault::Purge(1)),
                    step(6_438, 10, Fault::SlowDisk(1, 20, 25)),
                    step(6_440, 0, Fault::Reset(1, 3)),
                    step(6_441, 0, Fault::Reset(1, 3)),
                ],
            ),
        }
    }
}

/// A link on which everything takes so many milliseconds.
fn late(milliseconds: u64) -> Pace {
    Pace { min: milliseconds * 1_000, max: milliseconds * 1_000, ..Pace::LOCAL }
}
