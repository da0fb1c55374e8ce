//! The newest entries in memory: all that are not durable yet, and as many durable ones as the options allow.

use std::collections::VecDeque;

use crate::{Entry, Ticket};

/// What an entry costs beside its data.
const OVERHEAD_BYTES: usize = 64;

/// A row of entries without gaps that ends with the last entry of the log; empty if none of them is in memory.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: VecDeque<(Entry, Ticket)>,
    bytes: usize,
}

impl Cache {
    /// The oldest index in memory.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.index)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the entry that follows the last.
    pub(crate) fn push(&mut self, entry: Entry, ticket: Ticket) {
        self.bytes += cost(&entry);
        self.entries.push_back((entry, ticket));
    }

    /// The entries from `from`, which is in memory, up to `until`: as many as fit into `bytes_max`, at least one.
    pub(crate) fn read(&self, from: u64, until: u64, bytes_max: usize, found: &mut Vec<Entry>) {
        let Some(first) = self.first() else { return };
        let skipped = usize::try_from(from - first).unwrap_or(usize::MAX);
        let mut bytes = found.iter().map(|entry| entry.data.len()).sum::<usize>();
        for (entry, _) in self.entries.iter().skip(skipped).take_while(|(entry, _)| entry.index < until) {
            bytes += entry.data.len();
            if bytes > bytes_max && !found.is_empty() {
                return;
            }
            found.push(entry.clone());
        }
    }

    pub(crate) fn truncate_after(&mut self, after: Option<u64>) {
        while self.entries.back().is_some_and(|(entry, _)| after.is_none_or(|after| entry.index > after)) {
            let (entry, _) = self.entries.pop_back().expect("it was just seen");
            self.bytes -= cost(&entry);
        }
    }

    pub(crate) fn purge(&mut self, through: u64) {
        while self.first().is_some_and(|first| first <= through) {
            self.pop_front();
        }
    }

    /// Lets go of the oldest entries beyond `bytes_max`, but of none that is not durable.
    pub(crate) fn evict(&mut self, bytes_max: usize, durable: Ticket) {
        while self.bytes > bytes_max && self.entries.front().is_some_and(|(_, ticket)| *ticket <= durable) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((entry, _)) = self.entries.pop_front() {
            self.bytes -= cost(&entry);
        }
    }
}

fn cost(entry: &Entry) -> usize {
    entry.data.len() + OVERHEAD_BYTES
}
