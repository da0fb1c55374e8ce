//! Leases: time-limited rights that keys hang on, and the clock that they end by.

use std::fmt;

use crate::key::LeaseId;
use crate::position::Index;

/// A reading of the lease clock, in milliseconds. The clock is a part of the replicated state: it starts at 0, never goes back,
/// and stands still while the cluster has no leader (DESIGN, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseTime(pub u64);

/// One grant of a lease. A lease's number may be granted again after its end; a grant is never repeated, so it is what
/// renewals, ends and sessions name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// The lease's number.
    pub lease: LeaseId,
    /// The entry of the log that granted it.
    pub index: Index,
}

/// A lease that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which grant of it.
    pub grant: Grant,
    /// How long it lasts from a renewal on, in seconds.
    pub ttl_seconds: u64,
    /// It may end once the lease clock reads this.
    pub deadline: LeaseTime,
    /// The number of keys that hang on it.
    pub keys: u32,
}

impl LeaseTime {
    /// The reading `milliseconds` later.
    #[must_use]
    pub fn plus(self, milliseconds: u64) -> LeaseTime {
        LeaseTime(self.0.saturating_add(milliseconds))
    }
}

impl Lease {
    /// The deadline of a lease that is granted or renewed at `now`.
    #[must_use]
    pub fn deadline_from(now: LeaseTime, ttl_seconds: u64) -> LeaseTime {
        now.plus(ttl_seconds.saturating_mul(1_000))
    }

    /// Whole seconds that are left at `now`, rounded up.
    #[must_use]
    pub fn seconds_left(&self, now: LeaseTime) -> u64 {
        self.deadline.0.saturating_sub(now.0).div_ceil(1_000)
    }
}

impl fmt::Display for LeaseTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000, self.0 % 1_000)
    }
}
