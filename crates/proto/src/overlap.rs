//! The rule that a transaction changes each key at most once, as etcd judges it: along every path that the compares
//! can select, no key is put twice, and none is both put and deleted by operations that the rule compares.
//!
//! What nested transactions delete counts against puts of later ones and of the transaction around them, but not
//! against puts of earlier ones: that asymmetry is etcd's. The two branches of one transaction exclude each other and
//! are not compared.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use ringfence_types::{KeyRange, Operation, RangeEnd, Txn};

use crate::request::ParseError;

/// Refuses a transaction that breaks the rule.
pub(crate) fn check(txn: &Txn) -> Result<(), ParseError> {
    branch(&txn.success)?;
    branch(&txn.failure)?;
    Ok(())
}

/// What one branch puts and deletes.
#[derive(Default)]
struct Changes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Deletes,
}

fn branch(operations: &[Operation]) -> Result<Changes<'_>, ParseError> {
    let mut changes = Changes::default();
    for operation in operations {
        if let Operation::DeleteRange(delete) = operation {
            changes.deletes.insert(&delete.range);
        }
    }
    for operation in operations {
        if let Operation::Txn(txn) = operation {
            nested(txn, &mut changes)?;
        }
    }
    for operation in operations {
        if let Operation::Put(put) = operation
            && (changes.deletes.contains(&put.key) || !changes.puts.insert(&put.key))
        {
            return Err(ParseError::DuplicateKey);
        }
    }
    Ok(changes)
}

/// Adds the changes of a nested transaction to those of the branch around it.
fn nested<'a>(txn: &'a Txn, changes: &mut Changes<'a>) -> Result<(), ParseError> {
    let success = branch(&txn.success)?;
    let failure = branch(&txn.failure)?;
    // Both branches are compared with what stood before either, since only one of them will be taken.
    let clash = |key: &&[u8]| changes.puts.contains(key) || changes.deletes.contains(key);
    if success.puts.iter().chain(&failure.puts).any(clash) {
        return Err(ParseError::DuplicateKey);
    }
    changes.puts.extend(success.puts);
    changes.puts.extend(failure.puts);
    changes.deletes.merge(success.deletes);
    changes.deletes.merge(failure.deletes);
    Ok(())
}

/// A set of keys made of ranges: asked in logarithmic time, however many ranges it was made of.
#[derive(Default)]
struct Deletes {
    keys: HashSet<Bytes>,
    /// Start and end of ranges that neither overlap nor touch; no end for one that holds everything from its start.
    ranges: BTreeMap<Bytes, Option<Bytes>>,
}

impl Deletes {
    fn insert(&mut self, range: &KeyRange) {
        match &range.end {
            RangeEnd::Single => {
                self.keys.insert(range.start.clone());
            }
            RangeEnd::Before(end) if *end > range.start => {
                self.insert_range(range.start.clone(), Some(end.clone()));
            }
            RangeEnd::Before(_) => {}
            RangeEnd::Unbounded => self.insert_range(range.start.clone(), None),
        }
    }

    fn insert_range(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        // Swallow, from the right, every range that starts within the new one or reaches up to its start.
        while let Some((other_start, other_end)) = self.last_starting_up_to(end.as_ref()) {
            if other_end.as_ref().is_some_and(|other_end| *other_end < start) {
                break;
            }
            self.ranges.remove(&other_start);
            start = start.min(other_start);
            end = match (end, other_end) {
                (Some(end), Some(other_end)) => Some(end.max(other_end)),
                _ => None,
            };
        }
        self.ranges.insert(start, end);
    }

    fn last_starting_up_to(&self, end: Option<&Bytes>) -> Option<(Bytes, Option<Bytes>)> {
        let last = match end {
            Some(end) => self.ranges.range(..=end.clone()).next_back(),
            None => self.ranges.iter().next_back(),
        };
        last.map(|(start, end)| (start.clone(), end.clone()))
    }

    fn contains(&self, key: &[u8]) -> bool {
        let within = |(_, end): (&Bytes, &Option<Bytes>)| end.as_ref().is_none_or(|end| key < end.as_ref());
        self.keys.contains(key)
            || self
                .ranges
                .range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)))
                .next_back()
                .is_some_and(within)
    }

    fn merge(&mut self, other: Deletes) {
        self.keys.extend(other.keys);
        for (start, end) in other.ranges {
            self.insert_range(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_holds_what_one_of_them_holds(
            ranges in prop::collection::vec((0u8..20, prop::option::of(0u8..24)), 0..12),
            split in 0usize..12,
        ) {
            let ranges: Vec<KeyRange> = ranges
                .into_iter()
                .map(|(start, end)| {
                    let end = match end {
                        None => RangeEnd::Single,
                        Some(end) if end >= 22 => RangeEnd::Unbounded,
                        Some(end) => RangeEnd::Before(Bytes::from(vec![end])),
                    };
                    KeyRange { start: Bytes::from(vec![start]), end }
                })
                .collect();
            let (mut left, mut right) = (Deletes::default(), Deletes::default());
            for (at, range) in ranges.iter().enumerate() {
                if at < split { left.insert(range) } else { right.insert(range) }
            }
            left.merge(right);
            for key in 0..30u8 {
                for key in [vec![key], vec![key, 0]] {
                    let expected = ranges.iter().any(|range| range.contains(&key));
                    prop_assert_eq!(left.contains(&key), expected, "key {:?} in {:?}", key, ranges);
                }
            }
        }
    }
}
