//! Holders as they see themselves: no two hold a lock at the same time, each until it gives it back or can no longer count on its
//! lease.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfence_types::Revision;

use super::{Holds, broken};

const RULE: &str = "one-holder";

/// The times for which somebody held each lock: begin, end, and token.
#[derive(Default)]
pub(super) struct Holders(BTreeMap<Bytes, Vec<(u64, u64, Revision)>>);

impl Holders {
    /// Somebody held a lock from one moment to another.
    pub(super) fn add(&mut self, name: &Bytes, from: u64, until: u64, token: Revision) {
        if from < until {
            self.0.entry(name.clone()).or_default().push((from, until, token));
        }
    }

    /// How often a lock was held.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether two held one at once.
    pub(super) fn judge(&mut self) -> Holds {
        for (name, held) in &mut self.0 {
            held.sort_unstable();
            let overlap = held.windows(2).find(|pair| pair[1].0 < pair[0].1);
            if let Some([one, other]) = overlap {
                return broken(RULE, format!("{name:?} is held by two: {}, {}", tell(*one), tell(*other)));
            }
        }
        Ok(())
    }
}

fn tell((from, until, token): (u64, u64, Revision)) -> String {
    format!("with {token} from {:.3} s to {:.3} s", from as f64 / 1e9, until as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::super::Broken;
    use super::*;

    #[test]
    fn two_holders_are_seen_whoever_told_first() {
        let name = Bytes::from_static(b"jobs");
        let mut holders = Holders::default();
        holders.add(&name, 50, 90, Revision(8));
        holders.add(&name, 10, 50, Revision(4));
        assert_eq!(holders.judge(), Ok(()));
        holders.add(&name, 89, 95, Revision(9));
        assert!(matches!(holders.judge(), Err(Broken { rule: RULE, .. })));
    }
}
