//! Keys that are in use for a while. A search for a linearization is exponential at worst in the length of one key's
//! history and in the number of its operations without an outcome, so keys are retired before either grows.

use rand::{Rng, RngExt as _};

/// How many ordinary operations an indefinite one counts as, when a key's use is measured.
const INDEFINITE_WEIGHT: u32 = 15;

/// The keys of a workload.
#[derive(Debug)]
pub struct Keys {
    prefix: &'static str,
    uses_max: u32,
    live: Vec<Live>,
    made: u64,
}

#[derive(Debug)]
struct Live {
    name: String,
    uses: u32,
}

impl Keys {
    /// `live` keys in use at a time, each for `uses_max` operations, named `prefix` and a number.
    #[must_use]
    pub fn new(prefix: &'static str, live: usize, uses_max: u32) -> Keys {
        let mut keys = Keys { prefix, uses_max, live: Vec::new(), made: 0 };
        keys.live = (0..live).map(|_| keys.make()).collect();
        keys
    }

    /// Draws a key for an operation.
    pub fn draw(&mut self, rng: &mut impl Rng) -> String {
        let at = rng.random_range(0..self.live.len());
        let name = self.live[at].name.clone();
        self.count(at, 1);
        name
    }

    /// Draws different keys for one operation, at most as many as are live.
    pub fn draw_distinct(&mut self, count: usize, rng: &mut impl Rng) -> Vec<String> {
        let places = rand::seq::index::sample(rng, self.live.len(), count.min(self.live.len())).into_vec();
        let names = places.iter().map(|&at| self.live[at].name.clone()).collect();
        for at in places {
            self.count(at, 1);
        }
        names
    }

    /// Hears that an operation on this key has no outcome.
    pub fn indefinite(&mut self, name: &str) {
        if let Some(at) = self.live.iter().position(|live| live.name == name) {
            self.count(at, INDEFINITE_WEIGHT);
        }
    }

    /// The newest keys, at most so many, retired ones included.
    #[must_use]
    pub fn newest(&self, count: u64) -> Vec<String> {
        (self.made.saturating_sub(count)..self.made).map(|number| self.name(number)).collect()
    }

    fn count(&mut self, at: usize, uses: u32) {
        self.live[at].uses += uses;
        if self.live[at].uses >= self.uses_max {
            self.live[at] = self.make();
        }
    }

    fn make(&mut self) -> Live {
        let name = self.name(self.made);
        self.made += 1;
        Live { name, uses: 0 }
    }

    fn name(&self, number: u64) -> String {
        format!("{}{number}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn keys_are_retired_after_their_uses() {
        let (mut keys, mut rng) = (Keys::new("r", 3, 10), StdRng::seed_from_u64(1));
        let mut uses: HashMap<String, u32> = HashMap::new();
        for _ in 0..300 {
            *uses.entry(keys.draw(&mut rng)).or_default() += 1;
        }
        assert!(uses.len() >= 30 && uses.values().all(|&count| count <= 10), "{uses:?}");
        let newest = keys.newest(5);
        assert_eq!(newest.len(), 5);
        assert!(keys.live.iter().all(|live| keys.newest(1_000).contains(&live.name)));
        assert!(keys.newest(1_000).len() >= uses.len(), "retired keys are kept in mind");
    }

    #[test]
    fn keys_with_open_operations_are_retired_early() {
        let mut keys = Keys::new("r", 1, 300);
        for _ in 0..20 {
            keys.indefinite("r0");
        }
        assert_eq!(keys.live[0].name, "r1");
        keys.indefinite("r0");
        assert_eq!(keys.live[0].uses, 0, "a retired key counts no more");
    }

    #[test]
    fn distinct_keys_are_distinct() {
        let (mut keys, mut rng) = (Keys::new("r", 4, 2), StdRng::seed_from_u64(1));
        for _ in 0..50 {
            let mut names = keys.draw_distinct(3, &mut rng);
            names.sort();
            names.dedup();
            assert_eq!(names.len(), 3);
        }
    }
}
