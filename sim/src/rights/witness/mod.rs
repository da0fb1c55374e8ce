//! What is known of leases and locks, from inside and from outside: what states show, and what clients were told. Both are held
//! against the rules here, one a file.

mod availability;
mod holders;
mod lease_clock;
mod lease_ends;
mod tokens;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use ringfence_consensus::Node;
use ringfence_consensus::rt::simulated::{self as executor, Host};
use ringfence_consensus::simulation::Vote;
use ringfence_store::View;
use ringfence_types::{Grant, Index, KeyRange, Lease, LeaseTime, LogId, RangeQuery, Revision};

use super::{data_key, lock_names};
use crate::invariants::Broken;
use availability::Availability;
use holders::Holders;
use lease_clock::LeaseClock;
use lease_ends::LeaseEnds;
use tokens::Tokens;

/// What a rule says of what it was told.
type Holds = Result<(), Broken>;

fn broken(rule: &'static str, facts: String) -> Holds {
    Err(Broken { rule, facts })
}

/// All that is known of leases and locks in one run.
#[derive(Default)]
pub struct Witness {
    newest: Option<Index>,
    clock: LeaseTime,
    revision: Revision,
    availability: Availability,
    lease_clock: LeaseClock,
    lease_ends: LeaseEnds,
    tokens: Tokens,
    holders: Holders,
    /// The revision at which each write of a session was applied.
    once: BTreeMap<(Grant, u64), Revision>,
    broken: Vec<Broken>,
}

/// What was seen, in figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Leases that ended by time.
    pub ends: u64,
    /// Times that a client held a lock.
    pub holds: usize,
    /// Tokens that were in force.
    pub tokens: usize,
    /// Fenced writes that were applied.
    pub writes: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { ends, holds, tokens, writes } = self;
        write!(f, "lease ends {ends}, holds {holds}, tokens {tokens}, fenced writes {writes}")
    }
}

impl Witness {
    /// A witness that lets a lease be late by so many nanoseconds more for each change of leader.
    #[must_use]
    pub fn new(late_per_change: u64) -> Witness {
        let mut witness = Witness::default();
        witness.lease_ends.late_per_change = late_per_change;
        witness
    }

    /// Looks at a node after a step of it. `committed` is the last entry known to be committed anywhere, and `leads` the vote by
    /// which this node leads.
    pub fn look(
        &mut self,
        number: usize,
        host: Host,
        node: &Node,
        committed: Option<LogId>,
        leads: Option<Vote>,
    ) {
        let now = executor::true_time();
        self.availability.look(now, committed, leads);
        let Ok(view) = node.believed_view() else { return };
        if let Some(leads) = leads {
            let reading = executor::enter(host, || node.lease_clock());
            let held = self.lease_clock.read(number, now, leads, reading, view.lease_clock());
            self.take(held);
        }
        let Some(LogId { index, .. }) = view.applied() else { return };
        if self.newest.is_none_or(|newest| newest < index) {
            self.newest = Some(index);
            let held = self.apply_leases(number, &view, now);
            self.take(held);
            let held = self.apply_tokens(&view);
            self.take(held);
        }
    }

    fn apply_leases(&mut self, number: usize, view: &View, now: u64) -> Holds {
        let reading = view.lease_clock();
        let before = std::mem::replace(&mut self.clock, reading);
        if self.lease_ends.may_have_changed(before, reading)
            && let Ok(leases) = view.leases()
        {
            self.lease_ends.apply(&leases, now, &self.availability)?;
        }
        self.lease_clock.apply(number, reading)
    }

    fn apply_tokens(&mut self, view: &View) -> Holds {
        let revision = view.revision();
        if std::mem::replace(&mut self.revision, revision) != revision {
            for name in lock_names() {
                let (Ok(holder), Ok(data)) =
                    (view.holder(&name), view.range(&RangeQuery::new(KeyRange::single(data_key(&name)))))
                else {
                    continue;
                };
                let write = data.kvs.first().and_then(|kv| Some((kv.mod_revision, token_of(&kv.value)?)));
                self.tokens.apply(&name, revision, holder.map(|holder| holder.token), write)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, held: Holds) {
        if let Err(broken) = held {
            self.report(broken.rule, broken.facts);
        }
    }

    /// A rule that a client found broken.
    pub fn report(&mut self, rule: &'static str, facts: String) {
        // One break of a rule leads to others: the first of each rule is enough.
        if self.broken.iter().all(|known| known.rule != rule) {
            self.broken.push(Broken { rule, facts });
        }
    }

    /// A renewal of this grant is going to be proposed.
    pub fn ask_renewal(&mut self, grant: Grant) {
        self.lease_ends.ask(grant);
    }

    /// A grant, or a renewal, which was sent at `sent`, is acknowledged.
    pub fn acknowledge(&mut self, lease: &Lease, sent: u64) {
        let held = self.lease_ends.acknowledge(lease, sent);
        self.take(held);
    }

    /// Somebody ends a grant by hand from now on, perhaps.
    pub fn revoke(&mut self, grant: Grant) {
        self.lease_ends.revoke(grant);
    }

    /// Whether the newest state has this grant.
    #[must_use]
    pub fn is_in_force(&self, grant: Grant) -> bool {
        self.lease_ends.is_in_force(grant)
    }

    /// The token in force in the newest state.
    #[must_use]
    pub fn token_in_force(&self, name: &Bytes) -> Option<Revision> {
        self.tokens.in_force(name)
    }

    /// Somebody held a lock by this grant from one moment until another, or until it could no longer count on its lease.
    pub fn hold(&mut self, name: &Bytes, grant: Grant, from: u64, until: u64, token: Revision) {
        let until = until.min(self.lease_ends.safe_until(grant));
        self.holders.add(name, from, until, token);
    }

    /// A write with this token was acknowledged at a revision.
    pub fn write(&mut self, name: &Bytes, at: Revision, token: Revision) {
        let held = self.tokens.write(name, at, token);
        self.take(held);
    }

    /// A write of a session, the first time or again, was acknowledged at a revision.
    pub fn once(&mut self, session: Grant, sequence: u64, at: Revision) {
        let first = *self.once.entry((session, sequence)).or_insert(at);
        if first != at {
            let facts = format!("write {sequence} of {session:?} was applied at {first} and again at {at}");
            self.report("sessions", facts);
        }
    }

    /// Judges what can be judged at the end alone, and tells what was seen.
    pub fn conclude(&mut self) -> Seen {
        let held = self.lease_ends.check_overdue(executor::true_time(), &self.availability);
        self.take(held);
        let held = self.holders.judge();
        self.take(held);
        Seen {
            ends: self.lease_ends.ends,
            holds: self.holders.count(),
            tokens: self.tokens.granted(),
            writes: self.tokens.writes(),
        }
    }

    /// The rules that did not hold, each once.
    #[must_use]
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }
}

/// The token that a write's value tells.
fn token_of(value: &Bytes) -> Option<Revision> {
    let text = std::str::from_utf8(value).ok()?;
    text.split(' ').next()?.parse().ok().map(Revision)
}
