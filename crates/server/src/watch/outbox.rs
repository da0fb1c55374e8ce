//! What waits for one stream. The hub puts it in, the stream takes it out at its client's pace; between the two there is a
//! bound, and what would pass it stays in the history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use ringfence_types::Revision;
use tokio::sync::Notify;

use super::counts::WatchCounts;
use super::limits::{OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX, OUTBOXES_BYTES_MAX};
use super::wire::{MESSAGE_OVERHEAD_BYTES, Pieces, bytes_of};

/// A watch's number, unique on its member for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatchKey(pub(super) u64);

/// What a stream is to tell, or to know.
#[derive(Debug, Clone)]
pub(super) enum Delivery {
    /// Events of a watch, which is up to `revision` with them.
    Events { watch: WatchKey, pieces: Pieces, revision: Revision },
    /// A watch, or each of them for none, is up to this revision.
    Progress { watch: Option<WatchKey>, revision: Revision },
    /// There was no room for the events of a watch: from this revision on it has to read the history.
    Behind { watch: WatchKey, from: Revision },
}

/// The queue of one stream.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Wakes the stream.
    filled: Notify,
    /// The bytes in all queues of the member.
    all_bytes: Arc<AtomicUsize>,
    counts: Arc<WatchCounts>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Delivery>,
    /// Bytes and number of the events' messages in the queue.
    bytes: usize,
    messages: usize,
    /// Watches that read the history.
    behind: usize,
    /// Set while somebody wants to know that all watches are up to this revision.
    progress_wanted: Option<Revision>,
}

impl Outbox {
    pub(super) fn new(all_bytes: Arc<AtomicUsize>, counts: Arc<WatchCounts>) -> Outbox {
        Outbox { state: Mutex::default(), filled: Notify::new(), all_bytes, counts }
    }

    /// Puts events of a watch into the queue, if there is room; into an empty one always, however many they are. Otherwise the
    /// watch is behind from `from` on.
    pub(super) fn push_events(
        &self,
        watch: WatchKey,
        pieces: Pieces,
        from: Revision,
        revision: Revision,
    ) -> bool {
        let bytes = bytes_of(&pieces) + MESSAGE_OVERHEAD_BYTES;
        let mut state = self.state.lock();
        let is_full = state.messages >= OUTBOX_MESSAGES_MAX
            || state.bytes + bytes > OUTBOX_BYTES_MAX
            || self.all_bytes.load(Relaxed) + bytes > OUTBOXES_BYTES_MAX;
        let is_taken = state.messages == 0 || !is_full;
        if is_taken {
            state.bytes += bytes;
            state.messages += 1;
            self.all_bytes.fetch_add(bytes, Relaxed);
            state.queue.push_back(Delivery::Events { watch, pieces, revision });
        } else {
            self.send_back(&mut state, watch, from);
        }
        drop(state);
        self.filled.notify_one();
        is_taken
    }

    /// Sends a watch to the history from `from` on.
    pub(super) fn push_behind(&self, watch: WatchKey, from: Revision) {
        self.send_back(&mut self.state.lock(), watch, from);
        self.filled.notify_one();
    }

    fn send_back(&self, state: &mut State, watch: WatchKey, from: Revision) {
        state.behind += 1;
        self.counts.behind.fetch_add(1, Relaxed);
        self.counts.fell_behind.fetch_add(1, Relaxed);
        state.queue.push_back(Delivery::Behind { watch, from });
    }

    /// Tells how far a watch is, behind all that is in the queue.
    pub(super) fn push_progress(&self, watch: WatchKey, revision: Revision) {
        self.state.lock().queue.push_back(Delivery::Progress { watch: Some(watch), revision });
        self.filled.notify_one();
    }

    /// Somebody wants to know when all watches are up to `revision`.
    pub(super) fn want_progress(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.progress_wanted = state.progress_wanted.max(Some(revision));
    }

    /// Tells those who want to know that the queue has everything up to `revision`, if no watch is behind. Returns whether
    /// nobody wants to know any more.
    pub(super) fn answer_progress(&self, revision: Revision) -> bool {
        let mut state = self.state.lock();
        let Some(wanted) = state.progress_wanted else { return true };
        if state.behind > 0 || wanted > revision {
            return false;
        }
        state.progress_wanted = None;
        state.queue.push_back(Delivery::Progress { watch: None, revision });
        drop(state);
        self.filled.notify_one();
        true
    }

    /// A watch has begun to read the history.
    pub(super) fn count_behind(&self) {
        self.state.lock().behind += 1;
        self.counts.behind.fetch_add(1, Relaxed);
    }

    /// A watch does not read the history any more.
    pub(super) fn count_up_to_date(&self) {
        self.state.lock().behind -= 1;
        self.counts.behind.fetch_sub(1, Relaxed);
    }

    /// Waits for the next delivery. Nothing is lost where the wait is given up.
    pub(super) async fn next(&self) -> Delivery {
        loop {
            if let Some(delivery) = self.take() {
                return delivery;
            }
            self.filled.notified().await;
        }
    }

    /// The next delivery, if there is one.
    pub(super) fn take(&self) -> Option<Delivery> {
        let mut state = self.state.lock();
        let delivery = state.queue.pop_front()?;
        if let Delivery::Events { pieces, .. } = &delivery {
            let bytes = bytes_of(pieces) + MESSAGE_OVERHEAD_BYTES;
            state.bytes -= bytes;
            state.messages -= 1;
            self.all_bytes.fetch_sub(bytes, Relaxed);
        }
        if state.queue.is_empty() {
            // A queue that was long once does not keep its room for ever.
            state.queue.shrink_to(16);
        }
        Some(delivery)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.all_bytes.fetch_sub(self.state.get_mut().bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::wire::Piece;

    fn pieces(bytes: usize) -> Pieces {
        [Piece { revision: Revision(5), events: 1, bytes: vec![0; bytes].into() }].into()
    }

    #[tokio::test]
    async fn what_has_no_room_is_left_to_the_history_and_an_empty_queue_takes_anything() {
        let all_bytes = Arc::new(AtomicUsize::new(0));
        let outbox = Outbox::new(Arc::clone(&all_bytes), Arc::default());
        let push = |key, bytes| outbox.push_events(WatchKey(key), pieces(bytes), Revision(5), Revision(6));
        assert!(push(1, 2 * OUTBOX_BYTES_MAX), "nothing else could ever bring it there");
        assert!(!push(2, 1));
        outbox.want_progress(Revision(6));
        assert!(!outbox.answer_progress(Revision(6)), "a watch is behind");
        assert!(matches!(outbox.next().await, Delivery::Events { watch: WatchKey(1), .. }));
        assert!(matches!(outbox.next().await, Delivery::Behind { watch: WatchKey(2), from: Revision(5) }));
        assert_eq!(all_bytes.load(Relaxed), 0);
        outbox.count_up_to_date();
        assert!(push(2, 1) && !outbox.answer_progress(Revision(5)), "it is not that far");
        assert!(outbox.answer_progress(Revision(7)));
        assert!(matches!(outbox.next().await, Delivery::Events { watch: WatchKey(2), .. }));
        assert!(matches!(outbox.next().await, Delivery::Progress { watch: None, revision: Revision(7) }));
        assert!(push(3, 100) && all_bytes.load(Relaxed) > 100);
        assert_eq!((outbox.counts.behind.load(Relaxed), outbox.counts.fell_behind.load(Relaxed)), (0, 1));
        drop(outbox);
        assert_eq!(all_bytes.load(Relaxed), 0, "a stream that ends gives back what waited for it");
    }

    #[test]
    fn a_queue_is_bounded_in_messages_and_all_of_them_in_bytes() {
        let all_bytes = Arc::new(AtomicUsize::new(0));
        let outbox = Outbox::new(Arc::clone(&all_bytes), Arc::default());
        let push =
            |outbox: &Outbox, bytes| outbox.push_events(WatchKey(1), pieces(bytes), Revision(5), Revision(6));
        let taken = (0..2 * OUTBOX_MESSAGES_MAX).filter(|_| push(&outbox, 1)).count();
        assert_eq!(taken, OUTBOX_MESSAGES_MAX);
        all_bytes.fetch_add(OUTBOXES_BYTES_MAX, Relaxed);
        let other = Outbox::new(Arc::clone(&all_bytes), Arc::default());
        assert!(push(&other, 1) && !push(&other, 1), "each has one message at least");
    }
}
