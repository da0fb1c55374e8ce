//! Counters of what this member did about leases.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the process started.
#[derive(Debug, Default)]
pub(crate) struct LeaseCounts {
    granted: AtomicU64,
    renewed: AtomicU64,
    revoked: AtomicU64,
    expired: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseTotals {
    /// Leases granted by calls to this member.
    pub(crate) granted: u64,
    /// Keep-alives that this member answered for leases in force.
    pub(crate) renewed: u64,
    /// Leases revoked by calls to this member.
    pub(crate) revoked: u64,
    /// Leases that this member, as the leader, had end in time.
    pub(crate) expired: u64,
}

impl LeaseCounts {
    pub(crate) fn count_granted(&self) {
        self.granted.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_renewed(&self) {
        self.renewed.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_revoked(&self) {
        self.revoked.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_expired(&self, leases: usize) {
        self.expired.fetch_add(leases as u64, Relaxed);
    }

    pub(crate) fn totals(&self) -> LeaseTotals {
        LeaseTotals {
            granted: self.granted.load(Relaxed),
            renewed: self.renewed.load(Relaxed),
            revoked: self.revoked.load(Relaxed),
            expired: self.expired.load(Relaxed),
        }
    }
}
