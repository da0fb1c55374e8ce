//! Leases: none ends before its time has passed since its last acknowledged renewal was sent, nor much later than since the last
//! one that was applied, and none is renewed by what was said about another grant (DESIGN, section 6).

use std::collections::BTreeMap;

use ringfence_types::{Grant, Lease, LeaseTime};

use super::availability::Availability;
use super::{Holds, broken};

const RULE: &str = "lease-ends";
/// How far clocks may be apart from true time, by millionths.
const CLOCK_PPM: u64 = 20_000;
/// What a lease may be late by where nothing goes wrong, in nanoseconds.
const LATE_MAX: u64 = 1_000_000_000;

/// What is known of one grant. Times are true ones, in nanoseconds.
#[derive(Debug, Default)]
struct Known {
    ttl: u64,
    /// When the newest renewal, or the grant, that was acknowledged was sent.
    acknowledged: Option<u64>,
    /// Renewals of it that anybody asked for.
    asked: u64,
    /// Times that its deadline was seen to move.
    moved: u64,
    deadline: LeaseTime,
    /// When the newest state that shows this deadline was seen first.
    begun: u64,
    ended: Option<u64>,
    /// Whether somebody may have ended it by hand.
    is_revoked: bool,
}

#[derive(Default)]
pub(super) struct LeaseEnds {
    known: BTreeMap<Grant, Known>,
    in_force: BTreeMap<Grant, LeaseTime>,
    /// Added to what a lease may be late by for each change of leader, in nanoseconds.
    pub(super) late_per_change: u64,
    /// Leases that ended by time alone.
    pub(super) ends: u64,
}

impl LeaseEnds {
    /// A renewal of this grant is going to be proposed.
    pub(super) fn ask(&mut self, grant: Grant) {
        self.known.entry(grant).or_default().asked += 1;
    }

    /// Somebody ends it by hand from now on, perhaps.
    pub(super) fn revoke(&mut self, grant: Grant) {
        self.known.entry(grant).or_default().is_revoked = true;
    }

    /// The grant, or a renewal of it, which was sent at `sent`, is acknowledged.
    pub(super) fn acknowledge(&mut self, lease: &Lease, sent: u64) -> Holds {
        let known = self.known.entry(lease.grant).or_default();
        known.ttl = lease.ttl_seconds * 1_000_000_000;
        known.acknowledged = known.acknowledged.max(Some(sent));
        self.check_early(lease.grant)
    }

    /// Whether the newest state has this grant.
    pub(super) fn is_in_force(&self, grant: Grant) -> bool {
        self.in_force.contains_key(&grant)
    }

    /// Until when its holder may count on it, in true time.
    pub(super) fn safe_until(&self, grant: Grant) -> u64 {
        let known = self.known.get(&grant);
        known.and_then(|known| Some(known.acknowledged? + less(known.ttl))).unwrap_or(0)
    }

    /// Whether the leases have to be read in a state with this reading of the clock.
    pub(super) fn may_have_changed(&self, before: LeaseTime, reading: LeaseTime) -> bool {
        reading != before || self.in_force.values().any(|deadline| *deadline <= reading)
    }

    /// The leases of a newer state than before.
    pub(super) fn apply(&mut self, leases: &[Lease], now: u64, availability: &Availability) -> Holds {
        let before = std::mem::take(&mut self.in_force);
        for lease in leases {
            self.in_force.insert(lease.grant, lease.deadline);
            self.see(lease, before.get(&lease.grant).copied(), now)?;
        }
        for grant in
            before.keys().filter(|grant| !self.in_force.contains_key(grant)).copied().collect::<Vec<_>>()
        {
            let known = self.known.entry(grant).or_default();
            known.ended = Some(now);
            self.ends += u64::from(!known.is_revoked);
            self.check_late(grant, now, availability)?;
            self.check_early(grant)?;
        }
        self.check_overdue(now, availability)
    }

    fn see(&mut self, lease: &Lease, before: Option<LeaseTime>, now: u64) -> Holds {
        let known = self.known.entry(lease.grant).or_default();
        if known.deadline == lease.deadline {
            return Ok(());
        }
        known.ttl = lease.ttl_seconds * 1_000_000_000;
        (known.deadline, known.begun) = (lease.deadline, now);
        known.moved += u64::from(before.is_some());
        if known.moved > known.asked {
            let facts =
                format!("{:?} was renewed {} times and asked for {}", lease.grant, known.moved, known.asked);
            return broken(RULE, facts);
        }
        Ok(())
    }

    fn check_early(&self, grant: Grant) -> Holds {
        let known = &self.known[&grant];
        let (Some(ended), Some(acknowledged), false) = (known.ended, known.acknowledged, known.is_revoked)
        else {
            return Ok(());
        };
        if ended < acknowledged + less(known.ttl) {
            let after = ended.saturating_sub(acknowledged) as f64 / 1e9;
            let facts = format!(
                "{grant:?} ended {after:.3} s after its last acknowledged renewal was sent, at {:.3} s; it lasts {} s",
                ended as f64 / 1e9,
                known.ttl / 1_000_000_000
            );
            return broken(RULE, facts);
        }
        Ok(())
    }

    /// Leases that are still there and should not be.
    pub(super) fn check_overdue(&self, now: u64, availability: &Availability) -> Holds {
        self.in_force.keys().try_for_each(|grant| self.check_late(*grant, now, availability))
    }

    fn check_late(&self, grant: Grant, now: u64, availability: &Availability) -> Holds {
        let known = &self.known[&grant];
        let ttl = known.ttl + known.ttl / 1_000_000 * (CLOCK_PPM + CLOCK_PPM / 10);
        if known.is_revoked || now <= known.begun + ttl + LATE_MAX {
            return Ok(());
        }
        let (outage, changes) =
            (availability.outage(known.begun, now), availability.changes(known.begun, now));
        if now > known.begun + ttl + LATE_MAX + outage + changes * self.late_per_change {
            let facts = format!(
                "{grant:?}, which lasts {} s, is there {:.3} s after its last renewal, at {:.3} s, with {:.3} s in which nothing was \
                 committed and {changes} changes of leader between",
                known.ttl / 1_000_000_000,
                (now - known.begun) as f64 / 1e9,
                now as f64 / 1e9,
                outage as f64 / 1e9,
            );
            return broken(RULE, facts);
        }
        Ok(())
    }
}

/// A time as a clock that is fast by the most that it may measures it.
fn less(time: u64) -> u64 {
    time - time / 1_000_000 * CLOCK_PPM
}
