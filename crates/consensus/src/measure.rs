//! Histograms of durations: a row of counters with bounds of powers of two, cheap enough for every write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::Histogram;

/// Buckets reach from 2^4 µs (16 µs) to 2^23 µs (8.4 s); the last one takes what is longer.
const FIRST_POWER: u32 = 4;
const BUCKETS: usize = 20;

/// Takes samples from any thread.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    buckets: [AtomicU64; BUCKETS + 1],
    sum_nanoseconds: AtomicU64,
}

impl Recorder {
    /// Takes one sample.
    pub(crate) fn record(&self, time: Duration) {
        let microseconds = time.as_micros().max(1) as u64;
        let power = u64::BITS - (microseconds - 1).leading_zeros();
        let bucket = (power.saturating_sub(FIRST_POWER) as usize).min(BUCKETS);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The counts so far, cumulative.
    pub(crate) fn snapshot(&self) -> Histogram {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS);
        for (power, bucket) in (FIRST_POWER..).zip(&self.buckets[..BUCKETS]) {
            count += bucket.load(Ordering::Relaxed);
            buckets.push(((1_u64 << power) as f64 / 1e6, count));
        }
        count += self.buckets[BUCKETS].load(Ordering::Relaxed);
        Histogram { buckets, count, sum_seconds: self.sum_nanoseconds.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_fall_at_or_below_their_bound() {
        let recorder = Recorder::default();
        for microseconds in [0, 16, 17, 32, 1_000_000, 60_000_000] {
            recorder.record(Duration::from_micros(microseconds));
        }
        let histogram = recorder.snapshot();
        assert_eq!(histogram.buckets[0], (16e-6, 2));
        assert_eq!(histogram.buckets[1], (32e-6, 4));
        assert_eq!(histogram.buckets[BUCKETS - 1].1, 5);
        assert_eq!(histogram.count, 6);
        assert!((histogram.sum_seconds - 61.000_065).abs() < 1e-9);
    }
}
