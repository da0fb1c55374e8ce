//! Counters of what this member did for watches.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of now, and since the process started.
#[derive(Debug, Default)]
pub(crate) struct WatchCounts {
    pub(super) streams: AtomicU64,
    pub(super) watches: AtomicU64,
    pub(super) behind: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) fell_behind: AtomicU64,
    pub(super) compacted: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WatchTotals {
    /// Streams now.
    pub(crate) streams: u64,
    /// Watches now.
    pub(crate) watches: u64,
    /// Watches that read the history now.
    pub(crate) behind: u64,
    /// Events sent to clients.
    pub(crate) events: u64,
    /// How often a watch that was up to date had to go back to the history, for want of room.
    pub(crate) fell_behind: u64,
    /// Watches that ended because the history they needed was compacted.
    pub(crate) compacted: u64,
}

impl WatchCounts {
    pub(crate) fn totals(&self) -> WatchTotals {
        WatchTotals {
            streams: self.streams.load(Relaxed),
            watches: self.watches.load(Relaxed),
            behind: self.behind.load(Relaxed),
            events: self.events.load(Relaxed),
            fell_behind: self.fell_behind.load(Relaxed),
            compacted: self.compacted.load(Relaxed),
        }
    }
}
