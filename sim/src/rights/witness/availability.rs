//! When the cluster could not commit, and who led: what a lease may be late by.

use std::collections::BTreeSet;

use ringfence_consensus::simulation::Vote;
use ringfence_types::{Index, LogId};

/// So long without anything new committed, in nanoseconds, and nobody could commit: clients write all the time.
const OUTAGE: u64 = 250_000_000;

/// Outages and changes of leader, in true time.
#[derive(Default)]
pub(super) struct Availability {
    committed: Option<(Index, u64)>,
    /// Begin and end of each.
    outages: Vec<(u64, u64)>,
    leaderships: BTreeSet<Vote>,
    /// When each leadership but the first was seen first.
    changes: Vec<u64>,
}

impl Availability {
    /// Takes note of what is known to be committed anywhere, and of who leads.
    pub(super) fn look(&mut self, now: u64, committed: Option<LogId>, leads: Option<Vote>) {
        if let Some(LogId { index, .. }) = committed
            && self.committed.is_none_or(|(known, _)| known < index)
            && let Some((_, since)) = self.committed.replace((index, now))
            && now - since > OUTAGE
        {
            self.outages.push((since, now));
        }
        if let Some(vote) = leads.filter(|vote| vote.committed)
            && self.leaderships.insert(vote)
            && self.leaderships.len() > 1
        {
            self.changes.push(now);
        }
    }

    /// Time between two moments in which nothing could be committed, in nanoseconds.
    pub(super) fn outage(&self, from: u64, until: u64) -> u64 {
        let going_on =
            self.committed.map(|(_, since)| (since, until)).filter(|(since, _)| *since + OUTAGE < until);
        let within = |(begin, end): &(u64, u64)| (*end.min(&until)).saturating_sub(*begin.max(&from));
        self.outages.iter().chain(&going_on).map(within).sum()
    }

    /// How often another node came to lead between two moments.
    pub(super) fn changes(&self, from: u64, until: u64) -> u64 {
        self.changes.iter().filter(|at| (from..=until).contains(*at)).count() as u64
    }
}
