//! Bounds on a search that may be exponential.

/// How far a checker may go before it answers [`Unknown`](crate::Verdict::Unknown).
///
/// Steps are counted, not timed, so that the same history gets the same answer on every machine. A caller that has a
/// clock may give a deadline as well.
#[derive(Clone, Copy)]
pub struct Budget<'c> {
    steps: u64,
    expired: &'c dyn Fn() -> bool,
}

impl<'c> Budget<'c> {
    /// At most `steps` configurations for each search. One search is about one key.
    pub fn steps(steps: u64) -> Budget<'c> {
        Budget { steps, expired: &|| false }
    }

    /// The same, and only until `expired` says so. It is asked once in about a thousand steps.
    pub fn until(self, expired: &'c dyn Fn() -> bool) -> Budget<'c> {
        Budget { expired, ..self }
    }

    /// Begins to count for one search.
    pub(crate) fn meter(self) -> Meter<'c> {
        Meter { left: self.steps, expired: self.expired }
    }
}

impl Default for Budget<'_> {
    /// Five million configurations for each search: some seconds, and some hundred megabytes at most.
    fn default() -> Self {
        Budget::steps(5_000_000)
    }
}

/// What is left for one search.
pub(crate) struct Meter<'c> {
    left: u64,
    expired: &'c dyn Fn() -> bool,
}

impl Meter<'_> {
    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Takes one step; false: there is none left.
    pub fn spend(&mut self) -> bool {
        if self.left == 0 || (self.left.is_multiple_of(1024) && (self.expired)()) {
            self.left = 0;
            return false;
        }
        self.left -= 1;
        true
    }
}
