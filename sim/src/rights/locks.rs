//! Clients that stand for a lock, write under it, and give it back; or are paused for longer than their lease lasts, and go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_consensus::rt::{self, simulated as executor};
use ringfence_types::{
    Command, CompareTarget, Conditional, Fence, LeaseId, Operation, Put, PutLease, PutValue, Rejection,
    Revision, Scope, Txn, Write,
};

use super::asks::{self, Stood, Trouble, ask};
use super::{Held, Rights, data_key, pause};
use crate::server::queue;
use crate::world::CLIENTS;

/// A session that stands for a lock or holds it.
struct Session {
    name: Bytes,
    held: Mutex<Held>,
    /// Nobody keeps the lease alive from now on.
    is_left: AtomicBool,
}

/// How a write came out for its holder.
enum Written {
    Applied,
    Fenced,
    Unknown,
}

impl Rights {
    /// Stands for a lock again and again.
    pub(super) async fn hold_often(self: Arc<Self>, name: Bytes) {
        while !self.is_stopping() {
            let Some(held) = self.grant(self.next_lease(), 2 + executor::random_below(3)).await else {
                pause(Duration::from_millis(200)).await;
                continue;
            };
            let session = Arc::new(Session {
                name: name.clone(),
                held: Mutex::new(held),
                is_left: AtomicBool::new(false),
            });
            let keeping = executor::spawn_on(CLIENTS, self.clone().keep_session(session.clone()));
            if let Some(token) = self.win(&session).await {
                self.work_under(&session, token).await;
            }
            session.is_left.store(true, Ordering::Relaxed);
            keeping.await.expect("nobody crashes the clients");
        }
    }

    async fn keep_session(self: Arc<Self>, session: Arc<Session>) {
        loop {
            let mut held = *session.held.lock();
            rt::sleep(held.ttl / 4).await;
            if session.is_left.load(Ordering::Relaxed) || !self.keep_alive(&mut held).await {
                return;
            }
            *session.held.lock() = held;
        }
    }

    /// Stands for the lock until it is held. Some calls break off, and are made again at once, at another node.
    async fn win(self: &Arc<Self>, session: &Session) -> Option<Revision> {
        let (grant, begun) = (session.held.lock().grant, rt::now());
        let waited_from = Arc::new(AtomicU64::new(0));
        for call in 0.. {
            if self.is_stopping() || rt::since(begun) > Duration::from_secs(15) {
                break;
            }
            let (name, known) = (session.name.clone(), waited_from.clone());
            let standing = ask(&self.world, self.draw_node(), move |node| {
                asks::stand(node, name, grant.lease, call, known)
            });
            let patience = match executor::random_below(2) {
                0 => Duration::from_millis(20 + executor::random_below(600)),
                _ => Duration::from_secs(4),
            };
            let stood = rt::timeout(patience, standing).await;
            waited_from.store(call + 1, Ordering::Relaxed);
            match stood {
                Some(Ok(Stood::Holds(token))) => return Some(token),
                Some(Ok(Stood::Gone)) => {
                    self.lost(session, "its key in the queue is gone");
                    return None;
                }
                Some(Ok(Stood::Never)) => {
                    self.witness.lock().report("one-holder", format!("{grant:?} can never hold its lock"));
                    return None;
                }
                Some(Err(Trouble::Rejected(_))) => return None,
                Some(Ok(Stood::NotYet) | Err(_)) | None => {}
            }
        }
        None
    }

    /// What a holder does: it writes some times, is paused sometimes, and gives the lock back unless it forgets to.
    async fn work_under(&self, session: &Arc<Session>, token: Revision) {
        let from = executor::true_time();
        let grant = session.held.lock().grant;
        let is_paused = executor::random_below(4) == 0;
        let mut fenced = false;
        for round in 0..1 + executor::random_below(5) {
            if is_paused && round == 1 {
                session.is_left.store(true, Ordering::Relaxed);
                let longer = Duration::from_millis(executor::random_below(2_500));
                let ttl = session.held.lock().ttl;
                rt::sleep(ttl.mul_f64(1.2) + longer).await;
            }
            fenced |= matches!(self.write_under(session, token).await, Written::Fenced);
            pause(Duration::from_millis(80)).await;
        }
        let until = executor::true_time();
        let gives_back = executor::random_below(5) > 0;
        if gives_back {
            session.is_left.store(true, Ordering::Relaxed);
            let key = queue::key_of(&session.name, grant.lease);
            let txn = Txn {
                compares: vec![queue::equal(key.clone(), CompareTarget::Create(token))],
                success: vec![queue::deletion(key)],
                failure: Vec::new(),
            };
            drop(ask(&self.world, self.draw_node(), |node| asks::transact(node, txn)).await);
        }
        // Where it was refused it had held the lock until some time before.
        if !fenced {
            self.witness.lock().hold(&session.name, grant, from, until, token);
        }
    }

    /// One write under the lock: with a fence, as a plain client that proves its token by a compare, or with neither.
    async fn write_under(&self, session: &Session, token: Revision) -> Written {
        let key = queue::key_of(&session.name, session.held.lock().grant.lease);
        let number = executor::random_below(u64::from(u32::MAX));
        let put = Put {
            key: data_key(&session.name),
            value: PutValue::Set(Bytes::from(format!("{token} {number}"))),
            lease: PutLease::Set(LeaseId(0)),
            prev_kv: false,
        };
        match executor::random_below(10) {
            0..5 => self.write_fenced(session, token, put).await,
            5..9 => {
                let compares = vec![queue::equal(key, CompareTarget::Create(token))];
                self.write_as_owner(
                    session,
                    token,
                    Txn { compares, success: vec![Operation::Put(put)], failure: Vec::new() },
                )
                .await
            }
            _ => self.write_plain(session, put).await,
        }
    }

    async fn write_fenced(&self, session: &Session, token: Revision, put: Put) -> Written {
        let fences = vec![Fence { scope: Scope::Lock(session.name.clone()), token }];
        let command = Command::Conditional(Conditional { write: Write::Put(put), fences, session: None });
        let asking =
            ask(&self.world, self.draw_node(), |node| async move { asks::propose(&node, command).await });
        match asking.await {
            Ok(applied) => self.applied(session, applied.revision, token),
            Err(Trouble::Rejected(Rejection::StaleFence { presented, in_force, .. })) => {
                if presented != token || in_force.is_some_and(|in_force| in_force <= token) {
                    let facts = format!(
                        "a write with {token} is refused: {presented} was presented, {in_force:?} in force"
                    );
                    self.witness.lock().report("tokens", facts);
                }
                self.refused(session, token)
            }
            Err(Trouble::Rejected(rejection)) => self.odd(&rejection),
            Err(_) => Written::Unknown,
        }
    }

    async fn write_as_owner(&self, session: &Session, token: Revision, txn: Txn) -> Written {
        match ask(&self.world, self.draw_node(), |node| asks::transact(node, txn)).await {
            Ok((true, revision)) => self.applied(session, revision, token),
            Ok((false, _)) => self.refused(session, token),
            // A compare that holds proves nothing where the key does not hold the lock.
            Err(Trouble::Rejected(Rejection::GuardedRange { .. })) => self.refused(session, token),
            Err(Trouble::Rejected(rejection)) => self.odd(&rejection),
            Err(_) => Written::Unknown,
        }
    }

    /// A write that shows no token at all, and must be refused.
    async fn write_plain(&self, session: &Session, put: Put) -> Written {
        let command = Command::Put(put);
        let asking =
            ask(&self.world, self.draw_node(), |node| async move { asks::propose(&node, command).await });
        if let Ok(applied) = asking.await {
            let facts =
                format!("{:?}: a write without a token is applied at {}", session.name, applied.revision);
            self.witness.lock().report("tokens", facts);
        }
        Written::Unknown
    }

    fn applied(&self, session: &Session, at: Revision, token: Revision) -> Written {
        self.witness.lock().write(&session.name, at, token);
        executor::note(
            [7, at.0.unsigned_abs(), 1],
            format_args!("{:?}: {token} writes at {at}", session.name),
        );
        Written::Applied
    }

    /// A token was said not to be in force. It was before, and would be for good once it is not.
    fn refused(&self, session: &Session, token: Revision) -> Written {
        executor::note(
            [7, token.0.unsigned_abs(), 2],
            format_args!("{:?}: {token} is refused", session.name),
        );
        if self.witness.lock().token_in_force(&session.name) == Some(token) {
            let facts = format!("{:?}: {token} is refused, and is in force", session.name);
            self.witness.lock().report("tokens", facts);
        }
        self.lost(session, &format!("its token {token} is not"));
        Written::Fenced
    }

    /// A session's key is gone, which only the end of its lease may do.
    fn lost(&self, session: &Session, how: &str) {
        let grant = session.held.lock().grant;
        let mut witness = self.witness.lock();
        if witness.is_in_force(grant) {
            witness.report("session-keys", format!("{:?}: {grant:?} is in force, and {how}", session.name));
        }
    }

    fn odd(&self, rejection: &Rejection) -> Written {
        self.witness.lock().report("tokens", format!("a write under a lock is refused with: {rejection}"));
        Written::Unknown
    }
}
