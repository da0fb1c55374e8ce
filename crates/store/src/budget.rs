//! A bound on the memory of one answer.

use std::cell::Cell;

use bytes::Bytes;
use ringfence_types::Rejection;
use ringfence_types::limits::ANSWER_KEY_OVERHEAD_BYTES;

/// What is left of the bytes that one answer may have. What does not fit is refused as soon as that is known, and not when it has
/// all been read.
#[derive(Debug)]
pub(crate) struct Budget {
    max: u64,
    spent: Cell<u64>,
}

impl Budget {
    /// A budget of `max` bytes.
    pub fn new(max: u64) -> Budget {
        Budget { max, spent: Cell::new(0) }
    }

    /// Spends what a key takes in an answer, with its value where that is known.
    pub fn spend(&self, key: &Bytes, value: &Bytes) -> Result<(), Rejection> {
        let bytes = (key.len() + value.len()) as u64 + ANSWER_KEY_OVERHEAD_BYTES;
        let spent = self.spent.get().saturating_add(bytes);
        self.spent.set(spent);
        if spent > self.max { Err(Rejection::AnswerTooLarge { max: self.max }) } else { Ok(()) }
    }

    /// An untouched budget of the same size: for what is in memory only until the answer has been made.
    pub fn anew(&self) -> Budget {
        Budget::new(self.max)
    }
}
