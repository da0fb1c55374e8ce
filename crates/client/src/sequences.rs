//! The numbers of a session's writes: which are open, and whether there is room for another one.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use ringfence_types::limits::SESSION_ANSWERS_MAX;
use tokio::sync::Notify;

/// How far the newest write of a session may be ahead of the oldest one that is open. The store keeps twice as many answers: a write, and
/// a question about it, tells which was the oldest when it got its number, and that may have been done long since.
pub(crate) const SPAN_MAX: u64 = SESSION_ANSWERS_MAX / 2;

/// The numbers of one session.
#[derive(Debug)]
pub(crate) struct Sequences {
    numbers: Mutex<Numbers>,
    /// Held by the one call that waits for room; the others queue for it, and so come in their order.
    door: tokio::sync::Mutex<()>,
    /// Told when the oldest open number is done.
    room: Notify,
}

#[derive(Debug)]
struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

/// The number of one write, open until this is dropped.
#[derive(Debug)]
pub(crate) struct Open<'a> {
    sequences: &'a Sequences,
    pub(crate) sequence: u64,
    /// The oldest number that was open when this one was given. It stays with the write: a copy that is sent again says nothing
    /// else than the first one did.
    pub(crate) first_incomplete: u64,
}

impl Sequences {
    pub(crate) fn new() -> Sequences {
        Sequences {
            numbers: Mutex::new(Numbers { next: 1, open: BTreeSet::new() }),
            door: tokio::sync::Mutex::new(()),
            room: Notify::new(),
        }
    }

    /// The next number, once there is room for it.
    pub(crate) async fn take(&self) -> Open<'_> {
        let _turn = self.door.lock().await;
        loop {
            if let Some(open) = self.take_now() {
                return open;
            }
            self.room.notified().await;
        }
    }

    fn take_now(&self) -> Option<Open<'_>> {
        let mut numbers = self.numbers.lock();
        let sequence = numbers.next;
        let first_incomplete = numbers.open.first().copied().unwrap_or(sequence);
        if sequence - first_incomplete >= SPAN_MAX {
            return None;
        }
        numbers.next += 1;
        numbers.open.insert(sequence);
        Some(Open { sequences: self, sequence, first_incomplete })
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut numbers = self.sequences.numbers.lock();
        let was_oldest = numbers.open.first() == Some(&self.sequence);
        numbers.open.remove(&self.sequence);
        if was_oldest {
            self.sequences.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn take(sequences: &Sequences) -> Open<'_> {
        sequences.take().now_or_never().expect("there is room")
    }

    #[test]
    fn each_number_is_given_once_and_names_the_oldest_open_one() {
        let sequences = Sequences::new();
        let [first, second, third] = [(); 3].map(|()| take(&sequences));
        assert_eq!([&first, &second, &third].map(|open| open.sequence), [1, 2, 3]);
        assert_eq!([&first, &second, &third].map(|open| open.first_incomplete), [1, 1, 1]);
        drop(second);
        assert_eq!(take(&sequences).first_incomplete, 1, "the first is still open");
        drop(first);
        assert_eq!((take(&sequences).sequence, take(&sequences).first_incomplete), (5, 3));
        drop(third);
        let next = take(&sequences);
        assert_eq!((next.sequence, next.first_incomplete), (7, 7), "nothing else is open");
    }

    #[test]
    fn a_write_waits_while_it_would_be_too_far_ahead_of_the_oldest() {
        let sequences = Sequences::new();
        let oldest = take(&sequences);
        let others: Vec<_> = (1..SPAN_MAX).map(|_| take(&sequences)).collect();
        let mut waiting = Box::pin(sequences.take());
        assert!(waiting.as_mut().now_or_never().is_none(), "the oldest is {SPAN_MAX} numbers behind");
        drop(others);
        assert!(waiting.as_mut().now_or_never().is_none(), "only the oldest makes room");
        drop(oldest);
        let open = waiting.now_or_never().expect("there is room");
        assert_eq!((open.sequence, open.first_incomplete), (SPAN_MAX + 1, SPAN_MAX + 1));
    }
}
