//! Hosts and their clocks.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use super::executor;

/// A simulated machine: its tasks die together and share a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub u32);

impl Host {
    /// Whoever runs the simulation. Its clock is true time.
    pub const WORLD: Host = Host(0);
}

/// A moment on the clock of one host, in nanoseconds since that host booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimInstant(u64);

impl SimInstant {
    /// Nanoseconds since the host booted.
    #[must_use]
    pub fn nanoseconds(self) -> u64 {
        self.0
    }

    /// The moment that many nanoseconds after the host booted.
    #[must_use]
    pub fn from_nanoseconds(nanoseconds: u64) -> SimInstant {
        SimInstant(nanoseconds)
    }
}

impl openraft_rt::Instant for SimInstant {
    fn now() -> Self {
        executor::local_time()
    }
}

impl Add<Duration> for SimInstant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        SimInstant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for SimInstant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for SimInstant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        SimInstant(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl SubAssign<Duration> for SimInstant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for SimInstant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

const MILLION: i128 = 1_000_000;

/// How a host's clock goes against true time: straight on, at a rate, from a moment on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    true_base: u64,
    local_base: u64,
    /// Deviation of the rate, in millionths.
    ppm: i64,
}

impl Clock {
    /// A host that booted an hour before the simulation began: differences never fall below zero.
    pub(super) const TRUE: Clock = Clock { true_base: 0, local_base: 3_600_000_000_000, ppm: 0 };

    /// What the clock shows at a true time.
    pub(super) fn local(&self, true_time: u64) -> SimInstant {
        let passed = true_time - self.true_base;
        if self.ppm == 0 {
            return SimInstant(self.local_base + passed);
        }
        let local = i128::from(passed) * (MILLION + i128::from(self.ppm)) / MILLION;
        SimInstant(self.local_base + u64::try_from(local).expect("a clock goes forward"))
    }

    /// The first true time at which the clock shows `local` or more.
    pub(super) fn when(&self, local: SimInstant) -> u64 {
        let missing = local.0.saturating_sub(self.local_base);
        if self.ppm == 0 {
            return self.true_base.saturating_add(missing);
        }
        let rate = MILLION + i128::from(self.ppm);
        let passed = (i128::from(missing) * MILLION + rate - 1) / rate;
        self.true_base.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// From `true_time` on the clock goes at another rate, without a jump.
    pub(super) fn set_rate(&mut self, true_time: u64, ppm: i64) {
        assert!(ppm.abs() < 1_000_000, "a clock goes forward");
        *self = Clock { true_base: true_time, local_base: self.local(true_time).0, ppm };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_rate_bends_the_clock_without_a_jump() {
        let mut clock = Clock::TRUE;
        let before = clock.local(5_000_000);
        clock.set_rate(5_000_000, -200_000);
        assert_eq!(clock.local(5_000_000), before);
        assert_eq!(clock.local(6_000_000) - before, Duration::from_nanos(800_000));
        clock.set_rate(6_000_000, 200_000);
        assert_eq!(clock.local(7_000_000) - before, Duration::from_nanos(2_000_000));
    }

    #[test]
    fn a_deadline_is_met_at_its_first_moment() {
        let mut clock = Clock::TRUE;
        for ppm in [0, 1, -1, 19_999, -200_000, 200_000] {
            clock.set_rate(1_000, ppm);
            for ahead in [1, 999, 1_000_003] {
                let deadline = clock.local(1_000) + Duration::from_nanos(ahead);
                let when = clock.when(deadline);
                assert!(clock.local(when) >= deadline && clock.local(when - 1) < deadline, "{ppm} {ahead}");
            }
        }
    }
}
