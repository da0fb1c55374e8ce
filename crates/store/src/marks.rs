//! The running hash at agreed places of the log, for members to compare.
//!
//! Members apply in batches of their own and stand at different entries at any moment. So each remembers its hash right
//! after every entry whose index is a multiple of [`HASH_STEP`], wherever that entry lay in its batch.

use std::collections::VecDeque;

use ringfence_types::Index;

use crate::hash::{HASH_VERSION, StateHash};
use crate::state::State;

/// The hash is remembered at every index that is a multiple of this, unless [`crate::Options`] say otherwise.
pub const HASH_STEP: u64 = 1_024;
/// Most marks remembered; older ones are forgotten. Members that lie further apart than this have nothing to compare.
pub const HASH_MARKS_MAX: usize = 64;

/// The hash of the logical state right after one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashMark {
    /// The entry's index.
    pub index: Index,
    /// How the hash was made: hashes of different versions say nothing about each other.
    pub version: u8,
    /// The hash.
    pub hash: StateHash,
}

impl HashMark {
    /// The mark of a state, if it stands at an entry that has one.
    pub(crate) fn of(state: &State, step: u64) -> Option<HashMark> {
        let index = state.position.log_id?.index;
        let is_due = index.0.is_multiple_of(step);
        is_due.then(|| HashMark { index, version: HASH_VERSION, hash: state.hash() })
    }
}

/// The newest marks of one store, oldest first.
#[derive(Debug, Default)]
pub(crate) struct HashMarks(VecDeque<HashMark>);

impl HashMarks {
    pub fn push(&mut self, mark: HashMark) {
        if self.0.len() == HASH_MARKS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(mark);
    }

    /// Forgets all: they are those of another state.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Those after `index`.
    pub fn after(&self, index: Index) -> Vec<HashMark> {
        self.0.iter().filter(|mark| mark.index > index).copied().collect()
    }
}
