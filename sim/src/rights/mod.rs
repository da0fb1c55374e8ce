//! Clients of leases, locks and fences, each of which plays a part again and again: some keep their leases alive, some at the last
//! moment, some leave them; some hold a lock and write under it, and go on writing when they should not.
//!
//! What they were told and what the nodes' states show is held against the rules in [`witness`].

mod asks;
mod leases;
mod locks;
pub mod witness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_consensus::rt::{self, simulated as executor};
use ringfence_types::{
    Command, Grant, GuardChange, KeyRange, Lease, LeaseCommand, LeaseId, Rejection, Reply, Scope,
};

use crate::world::{CLIENTS, World};
use asks::{Trouble, ask};
use witness::Witness;

/// How many clients play each part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cast {
    /// They keep leases alive in good time for a while, and leave them then.
    pub keepers: u64,
    /// They renew leases in the last moments.
    pub late_keepers: u64,
    /// They grant leases of one number again and again, with writes and renewals of earlier grants still on their way.
    pub regranters: u64,
    /// They stand for locks, and write under them.
    pub holders: u64,
}

impl Cast {
    /// Some of each.
    pub const ALL: Cast = Cast { keepers: 2, late_keepers: 1, regranters: 1, holders: 4 };
}

/// The locks that are stood for.
const LOCKS: [&str; 2] = ["jobs", "queue"];

/// Their names.
pub(crate) fn lock_names() -> impl Iterator<Item = Bytes> {
    LOCKS.into_iter().map(|name| Bytes::from_static(name.as_bytes()))
}

/// The key that is written under a lock. A guard with the lock's scope is on it.
pub(crate) fn data_key(name: &Bytes) -> Bytes {
    Bytes::from([b"data/", name.as_ref()].concat())
}

/// What all these clients share.
pub struct Rights {
    world: Arc<World>,
    witness: Arc<Mutex<Witness>>,
    stopping: AtomicBool,
    leases: AtomicI64,
}

/// A lease that a client has.
#[derive(Debug, Clone, Copy)]
struct Held {
    grant: Grant,
    ttl: Duration,
    /// When the newest renewal that was acknowledged was sent, on the clients' clock.
    renewed: rt::Instant,
}

impl Rights {
    /// Clients that do nothing yet.
    #[must_use]
    pub fn new(world: Arc<World>, witness: Arc<Mutex<Witness>>) -> Arc<Rights> {
        Arc::new(Rights { world, witness, stopping: AtomicBool::new(false), leases: AtomicI64::new(0) })
    }

    /// Starts a cast.
    pub fn start(self: &Arc<Self>, cast: Cast) -> Vec<rt::JoinHandle<()>> {
        let mut working = Vec::new();
        working.extend((0..cast.keepers).map(|_| executor::spawn_on(CLIENTS, self.clone().keep())));
        working.extend((0..cast.late_keepers).map(|_| executor::spawn_on(CLIENTS, self.clone().keep_late())));
        let regranters = 1..=cast.regranters as i64;
        working.extend(
            regranters.map(|number| executor::spawn_on(CLIENTS, self.clone().regrant(LeaseId(number)))),
        );
        let locks: Vec<Bytes> = lock_names().collect();
        for number in 0..cast.holders as usize {
            let name = locks[number % locks.len()].clone();
            working.push(executor::spawn_on(CLIENTS, self.clone().hold_often(name)));
        }
        working
    }

    /// Lets each client end what it does, and begin nothing else.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Any node.
    fn draw_node(&self) -> usize {
        1 + executor::random_below(self.world.machines.len() as u64) as usize
    }

    /// A number for a lease that no other has.
    fn next_lease(&self) -> LeaseId {
        LeaseId(1_000 + self.leases.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts a guard on the key of each lock.
    pub async fn guard(&self) {
        for name in lock_names() {
            let change = GuardChange {
                range: KeyRange::single(data_key(&name)),
                scope: Some(Scope::Lock(name)),
                fences: Vec::new(),
                overrides: false,
            };
            loop {
                let command = Command::ChangeGuard(change.clone());
                let asking =
                    ask(
                        &self.world,
                        self.draw_node(),
                        |node| async move { asks::propose(&node, command).await },
                    );
                match asking.await {
                    // One that is there already needs a fence to be set again.
                    Ok(_) | Err(Trouble::Rejected(Rejection::GuardedRange { .. })) => break,
                    Err(_) => pause(Duration::from_millis(100)).await,
                }
            }
        }
    }

    /// Grants a lease. None where nobody answered, or it is in force already.
    async fn grant(&self, lease: LeaseId, ttl_seconds: u64) -> Option<Held> {
        let (sent, renewed) = (executor::true_time(), rt::now());
        let granted = ask(&self.world, self.draw_node(), move |node| async move {
            match asks::change_leases(&node, LeaseCommand::Grant { lease, ttl_seconds }).await? {
                Reply::LeaseGranted(lease) => Ok(lease),
                reply => panic!("the reply to a grant is {reply:?}"),
            }
        });
        let lease: Lease = granted.await.ok()?;
        self.witness.lock().acknowledge(&lease, sent);
        executor::note([6, lease.grant.index.0, 1], format_args!("granted {:?}", lease.grant));
        Some(Held { grant: lease.grant, ttl: Duration::from_secs(ttl_seconds), renewed })
    }

    /// Keeps a lease alive. False where it has ended, or its number is another's.
    async fn keep_alive(&self, held: &mut Held) -> bool {
        let (sent, renewed) = (executor::true_time(), rt::now());
        let (lease, witness) = (held.grant.lease, self.witness.clone());
        let asking = ask(&self.world, self.draw_node(), move |node| asks::keep_alive(node, lease, witness));
        match asking.await {
            Ok(Some(lease)) => {
                executor::note([6, lease.grant.index.0, 2], format_args!("renewed {:?}", lease.grant));
                self.witness.lock().acknowledge(&lease, sent);
                held.renewed = renewed;
                lease.grant == held.grant
            }
            Ok(None) => {
                self.told_ended(held);
                false
            }
            // Whether it was renewed is unknown: it is asked again.
            Err(_) => true,
        }
    }

    /// A node said, by a linearizable read, that a lease has ended.
    fn told_ended(&self, held: &Held) {
        let mut witness = self.witness.lock();
        if witness.is_in_force(held.grant) {
            witness.report("lease-ends", format!("{:?} is said to have ended, and is in force", held.grant));
        }
    }

    /// Ends a lease by hand. False where it may still be ended, whoever has its number by then: a revocation names no grant.
    async fn revoke(&self, lease: LeaseId, grant: Grant) -> bool {
        self.witness.lock().revoke(grant);
        let asking = ask(&self.world, self.draw_node(), move |node| async move {
            asks::change_leases(&node, LeaseCommand::Revoke { lease }).await
        });
        !matches!(asking.await, Err(Trouble::Unknown))
    }
}

/// Sleeps for a drawn time of this mean.
async fn pause(mean: Duration) {
    rt::sleep(Duration::from_nanos(executor::random_below(2 * mean.as_nanos() as u64 + 1))).await;
}
