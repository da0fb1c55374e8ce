//! What bounds the sending of snapshots: one at a time, at a set rate, so that neither the disk nor the network of a leader
//! is taken from its writes. Also tells how far the one under way is.

use std::time::Duration;

use parking_lot::Mutex;
use ringfence_types::NodeId;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::Transfer;
use crate::rt;

/// The snapshots that a node sends.
#[derive(Debug)]
pub(crate) struct Transfers {
    bytes_per_second: u64,
    turn: Semaphore,
    /// Until when the bytes sent so far take, at the rate that is allowed.
    paid_until: Mutex<rt::Instant>,
    under_way: Mutex<Option<(NodeId, Transfer)>>,
}

/// The right to send one snapshot, for as long as this lives.
pub(super) struct Turn<'a> {
    transfers: &'a Transfers,
    _permit: SemaphorePermit<'a>,
}

impl Transfers {
    pub(crate) fn new(bytes_per_second: u64) -> Transfers {
        Transfers {
            bytes_per_second,
            turn: Semaphore::new(1),
            paid_until: Mutex::new(rt::now()),
            under_way: Mutex::default(),
        }
    }

    /// Waits until no other snapshot is sent.
    pub(super) async fn turn(&self, target: NodeId, total: u64) -> Turn<'_> {
        let permit = self.turn.acquire().await.expect("the semaphore is never closed");
        *self.under_way.lock() = Some((target, Transfer { sent: 0, total }));
        Turn { transfers: self, _permit: permit }
    }

    /// How far the snapshot for a member is, while it is sent.
    pub(crate) fn progress(&self, target: NodeId) -> Option<Transfer> {
        self.under_way.lock().filter(|(to, _)| *to == target).map(|(_, transfer)| transfer)
    }
}

impl Turn<'_> {
    /// Waits until so many bytes more may be sent.
    pub(super) async fn pay(&self, bytes: u64) {
        let begin = {
            let mut paid_until = self.transfers.paid_until.lock();
            // Time in which nothing was sent is not saved up.
            let begin = (*paid_until).max(rt::now());
            *paid_until =
                begin + Duration::from_secs_f64(bytes as f64 / self.transfers.bytes_per_second as f64);
            begin
        };
        rt::sleep_until(begin).await;
    }

    /// Tells that the member has this many bytes.
    pub(super) fn note(&self, sent: u64) {
        if let Some((_, transfer)) = self.transfers.under_way.lock().as_mut() {
            transfer.sent = sent;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.transfers.under_way.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn bytes_take_their_time_and_transfers_their_turn() {
        let transfers = Transfers::new(1_000);
        let turn = transfers.turn(NodeId(2), 300).await;
        let begun = rt::now();
        for sent in [100, 200, 300] {
            turn.pay(100).await;
            turn.note(sent);
        }
        let took = rt::since(begun);
        assert!(
            took >= Duration::from_millis(200),
            "the third hundred bytes wait for the first two: {took:?}"
        );
        assert_eq!(transfers.progress(NodeId(2)), Some(Transfer { sent: 300, total: 300 }));
        assert_eq!(transfers.progress(NodeId(3)), None);
        assert!(transfers.turn(NodeId(3), 1).now_or_never().is_none(), "one at a time");
        drop(turn);
        assert_eq!(transfers.progress(NodeId(2)), None);
        let _next = transfers.turn(NodeId(3), 1).await;
        assert!(transfers.progress(NodeId(3)).is_some());
    }
}
