//! The time of a run.

use super::sys;

/// Time since the run began, on `CLOCK_MONOTONIC_RAW` of the harness, which no fault touches and nobody adjusts.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    begun: u64,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { begun: sys::clock(libc::CLOCK_MONOTONIC_RAW) }
    }

    /// Nanoseconds since the run began.
    #[must_use]
    pub fn now(&self) -> u64 {
        sys::clock(libc::CLOCK_MONOTONIC_RAW).saturating_sub(self.begun)
    }
}
