//! Clients of leases alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringfence_consensus::rt::{self, simulated as executor};
use ringfence_types::{
    Applied, Command, Conditional, Grant, LeaseId, Put, PutLease, PutValue, SessionStamp, Write,
};

use super::asks::{self, Trouble, ask};
use super::{Held, Rights, pause};
use crate::world::CLIENTS;

/// Writes of one session.
const SESSION_WRITES: u64 = 3;
/// How long a copy of a write or of a renewal may be on its way.
const COPY_AFTER_MAX: Duration = Duration::from_secs(5);

impl Rights {
    /// Keeps a lease alive for a while, asking three times in its life; then leaves it to its end.
    pub(super) async fn keep(self: Arc<Self>) {
        while !self.is_stopping() {
            let Some(mut held) = self.grant(self.next_lease(), 2 + executor::random_below(4)).await else {
                pause(Duration::from_millis(200)).await;
                continue;
            };
            for _ in 0..executor::random_below(20) {
                rt::sleep_until(held.renewed + held.ttl / 3).await;
                if self.is_stopping() || !self.keep_alive(&mut held).await {
                    break;
                }
            }
            pause(Duration::from_millis(500)).await;
        }
    }

    /// Renews a lease when it is about to end, or a little later.
    pub(super) async fn keep_late(self: Arc<Self>) {
        while !self.is_stopping() {
            let Some(mut held) = self.grant(self.next_lease(), 2).await else {
                pause(Duration::from_millis(200)).await;
                continue;
            };
            loop {
                let early = Duration::from_millis(executor::random_below(150));
                rt::sleep_until(held.renewed + held.ttl - early).await;
                let before = held.renewed;
                if self.is_stopping() || !self.keep_alive(&mut held).await || held.renewed == before {
                    break;
                }
            }
        }
    }

    /// Grants a lease of the same number again as soon as the one before has ended. What was said about earlier grants, writes of
    /// their sessions and renewals, comes late and twice.
    pub(super) async fn regrant(self: Arc<Self>, mut lease: LeaseId) {
        while !self.is_stopping() {
            let Some(held) = self.grant(lease, 2).await else {
                pause(Duration::from_millis(100)).await;
                continue;
            };
            for sequence in 1..=SESSION_WRITES {
                let command = session_write(held.grant, sequence);
                for _ in 0..2 {
                    drop(executor::spawn_on(
                        CLIENTS,
                        self.clone().write_late(held.grant, sequence, command.clone()),
                    ));
                }
            }
            drop(executor::spawn_on(CLIENTS, self.clone().renew_late(held)));
            if executor::random_below(3) == 0 {
                pause(Duration::from_millis(700)).await;
                if !self.revoke(lease, held.grant).await {
                    lease = self.next_lease();
                }
            } else {
                rt::sleep_until(held.renewed + held.ttl).await;
            }
        }
    }

    /// A copy of a write, which comes at some time.
    async fn write_late(self: Arc<Self>, session: Grant, sequence: u64, command: Command) {
        pause(COPY_AFTER_MAX / 2).await;
        let asking =
            ask(&self.world, self.draw_node(), |node| async move { asks::propose(&node, command).await });
        if let Ok(Applied { revision, .. }) = asking.await {
            self.witness.lock().once(session, sequence, revision);
        }
    }

    /// A renewal of one grant, which comes at some time.
    async fn renew_late(self: Arc<Self>, held: Held) {
        pause(COPY_AFTER_MAX / 2).await;
        let sent = executor::true_time();
        let (grant, witness) = (held.grant, self.witness.clone());
        let asking = ask(&self.world, self.draw_node(), move |node| async move {
            asks::renew(&node, grant, &witness).await
        });
        let answer: Result<_, Trouble> = asking.await;
        if let Ok(Some(lease)) = answer {
            self.witness.lock().acknowledge(&lease, sent);
        }
    }
}

/// A write of a session, which nothing else writes.
fn session_write(session: Grant, sequence: u64) -> Command {
    let text = format!("session/{}", session.lease.0);
    let value = Bytes::from(format!("{} {sequence}", session.index.0));
    let put = Put {
        key: Bytes::from(text),
        value: PutValue::Set(value),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: false,
    };
    let digest = u128::from(session.index.0) << 64 | u128::from(sequence);
    let stamp = SessionStamp { session, sequence, first_incomplete: 1, digest };
    Command::Conditional(Conditional { write: Write::Put(put), fences: Vec::new(), session: Some(stamp) })
}
