//! Waits between rounds of attempts: they double, and each is drawn at random so that clients do not come in step.

use std::time::Duration;

/// The waits of one call.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { next: min.min(max), max }
    }

    /// The next wait: between half and the whole of a bound that doubles each time.
    pub(crate) fn draw(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.max);
        bound.mul_f64(0.5 + 0.5 * random_fraction())
    }
}

/// A number from 0 up to, and without, 1.
fn random_fraction() -> f64 {
    // A system without randomness gets waits without jitter: they are still waits.
    let bits = getrandom::u32().unwrap_or(u32::MAX);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_are_jittered() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(30));
        for bound in [10, 20, 30, 30] {
            let wait = backoff.draw();
            let bound = Duration::from_millis(bound);
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} is not within {bound:?}");
        }
        let waits: std::collections::BTreeSet<_> = (0..16).map(|_| backoff.draw()).collect();
        assert!(waits.len() > 1, "sixteen waits in a row were equal");
    }
}
