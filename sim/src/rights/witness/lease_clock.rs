//! The lease clock: it never goes back in what is applied, a leader goes on from what it has applied, and no reading goes faster
//! than time itself (DESIGN, section 6).
//!
//! Readings of different leaders are not compared: one that has been left by a majority may read its clock for a moment more, but
//! nothing that it stamps then is ever applied.

use std::collections::BTreeMap;

use ringfence_consensus::simulation::Vote;
use ringfence_types::LeaseTime;

use super::{Holds, broken};

const RULE: &str = "lease-clock";
/// How much faster than true time a clock may go, by millionths: what the product promises to bear.
const FAST_PPM: u64 = 20_000;
/// Readings are cut to milliseconds, and clocks to nanoseconds.
const ROUNDING_MS: i64 = 2;

/// What a node has read in the leadership that it is in.
struct Leading {
    vote: (u64, u64),
    /// When it was seen first, in nanoseconds.
    since: u64,
    /// The least by which a reading was ahead of time, both in milliseconds, since the run began.
    ahead_min: Option<i64>,
}

#[derive(Default)]
pub(super) struct LeaseClock {
    /// The newest state's reading.
    applied: LeaseTime,
    leading: BTreeMap<usize, Leading>,
}

impl LeaseClock {
    /// A leader's reading of a moment, if it has one, beside the reading of its own state, which cannot be newer.
    pub(super) fn read(
        &mut self,
        number: usize,
        now: u64,
        leads: Vote,
        reading: Option<LeaseTime>,
        own: LeaseTime,
    ) -> Holds {
        let vote = (leads.term.0, leads.node.0);
        let leading = self.leading.entry(number).or_insert(Leading { vote, since: now, ahead_min: None });
        if leading.vote != vote {
            *leading = Leading { vote, since: now, ahead_min: None };
        }
        let Some(reading) = reading else { return Ok(()) };
        if reading < own {
            return broken(RULE, format!("n{number} leads and reads {reading}, and has applied {own}"));
        }
        // The first reading goes on from what was applied.
        let ahead_min = leading.ahead_min.unwrap_or(ahead(own, leading.since));
        let ahead = ahead(reading, now);
        leading.ahead_min = Some(ahead_min.min(ahead));
        if ahead > ahead_min + ROUNDING_MS {
            let facts = format!(
                "n{number} reads {reading} at {:.3} s: {} ms more than time has brought in its leadership",
                now as f64 / 1e9,
                ahead - ahead_min
            );
            return broken(RULE, facts);
        }
        Ok(())
    }

    /// The reading of a newer state than before.
    pub(super) fn apply(&mut self, number: usize, reading: LeaseTime) -> Holds {
        let before = std::mem::replace(&mut self.applied, reading);
        if reading < before {
            return broken(RULE, format!("n{number} has applied {reading} after {before}"));
        }
        Ok(())
    }
}

/// By how much a reading is ahead of the fastest clock since the run began, in milliseconds.
fn ahead(reading: LeaseTime, now: u64) -> i64 {
    reading.0 as i64 - (now / 1_000 * (1_000_000 + FAST_PPM) / 1_000_000_000) as i64
}
