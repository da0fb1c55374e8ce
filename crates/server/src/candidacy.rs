//! One call that stands for a lock or an election: it puts its session's key into the queue, waits until the key stands
//! first, and looks once more, linearizably, before it says so.
//!
//! Every such call writes its key, also where the session stands already: so each call's write is known by its mod revision. It writes
//! only over what was there when it came, or what it has read while its client was still waiting: the write of a call that its client
//! has given up, which may be late by a change of leader, must not come over that of the call that took its place.
//! A call that ends without its lock, because its client has gone or its deadline has passed, takes its key out of the queue,
//! but only by a transaction that finds the key as this very call wrote it, and an older key before it. So the key stays
//! where a retry of the same session relies on it, and where it has come to hold the lock meanwhile: who holds a lock keeps
//! it until it says otherwise or its lease ends. When the server stops, its calls' keys are left to their leases, since
//! their clients will ask another member.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use ringfence_consensus::rt::{self, Instant};
use ringfence_store::View;
use ringfence_types::limits::REQUEST_TIMEOUT;
use ringfence_types::{Command, Freshness, LeaseId, Reply, Revision};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::holders::Holders;
use crate::limits::{LOCK_LEASE_TTL_SECONDS, SESSION_LOOK_INTERVAL};
use crate::queue::{self, Candidate, Entered, Standing};
use crate::served::{At, Served};
use crate::status::{LockTrouble, Trouble};
use crate::{deadline, gate, lease};

/// Transactions that try to take a key out of its queue; each fails only if the key before it has gone meanwhile.
const REMOVALS_MAX: usize = 4;

/// What a call stands for.
#[derive(Debug)]
pub(crate) struct Bid {
    /// The lock's or the election's name.
    pub(crate) name: Bytes,
    /// The session's lease; 0 to have one granted.
    pub(crate) lease: LeaseId,
    /// What the key shall say.
    pub(crate) value: Bytes,
}

/// A lock that is held.
#[derive(Debug)]
pub(crate) struct Won {
    pub(crate) key: Bytes,
    /// The fencing token.
    pub(crate) token: Revision,
    pub(crate) lease: LeaseId,
    /// When the key was seen to hold the lock.
    pub(crate) at: At,
}

/// A key in a queue, put there by one call. Dropped before it has won, it takes the key out again.
struct Candidacy {
    served: Served,
    holders: Holders,
    candidate: Candidate,
    lease: LeaseId,
    /// The revision of this call's own write of the key.
    written: Revision,
    /// Taken along by the removal.
    permit: Option<OwnedSemaphorePermit>,
    is_over: bool,
}

/// Stands for a lock until it is held.
pub(crate) async fn stand(
    served: &Served,
    holders: &Holders,
    metadata: &MetadataMap,
    bid: Bid,
) -> Result<Won, Trouble> {
    gate::unextended(metadata, &served.node)?;
    let permit = holders.admit()?;
    // It goes with this call, and that with its client.
    let client = Arc::new(());
    let waits = Arc::downgrade(&client);
    let entering =
        Candidacy::enter(served.clone(), holders.clone(), bid, permit, deadline::of(metadata), waits);
    // A task of its own: if the client goes meanwhile, the key may be put all the same, and must be taken out again.
    let mut candidacy = holders.spawn(entering).await.unwrap_or_else(|error| resume(error))?;
    match candidacy.win(deadline::named(metadata)).await {
        Err(trouble) if !matches!(trouble, Trouble::Lock(_)) => {
            // Whatever it is, the key is in the queue, and the answer must not say that nothing was done.
            let status = served.status(&trouble);
            tracing::debug!("a call that stands for a lock ends: {}", status.message());
            Err(LockTrouble::Unsettled.into())
        }
        ended => ended,
    }
}

/// The metadata that tells of a lock what the answers' extension fields tell: the token in decimal, and the lease in
/// hexadecimal digits as in the lock's key.
pub(crate) fn tell(metadata: &mut MetadataMap, won: &Won) {
    metadata.insert("ringfence-token", AsciiMetadataValue::from(won.token.0));
    let lease = format!("{:x}", won.lease.0);
    metadata.insert("ringfence-lease", lease.parse().expect("digits are lawful metadata"));
}

impl Candidacy {
    /// Puts the key into the queue, or writes it anew where the session stands already.
    async fn enter(
        served: Served,
        holders: Holders,
        bid: Bid,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
        client: Weak<()>,
    ) -> Result<Candidacy, Trouble> {
        let lease = if bid.lease == LeaseId(0) {
            let (_, granted) = lease::grant(&served, LeaseId(0), LOCK_LEASE_TTL_SECONDS, deadline).await?;
            granted.grant.lease
        } else {
            bid.lease
        };
        let key = queue::key_of(&bid.name, lease);
        // Nothing of a call that comes later is in it, however long this one's write takes.
        let mut seen = queue::modified(&served.node.believed_view()?, &key)?;
        loop {
            let entry = queue::entry(&key, seen, bid.value.clone(), lease);
            let applied = served.node.propose(&Command::Txn(entry), deadline).await??;
            let written = applied.revision;
            let entered = match applied.reply {
                Reply::Txn(reply) => queue::entered(reply, written),
                reply => {
                    panic!("the reply to a transaction is of the command's kind, and this one is {reply:?}")
                }
            };
            match entered {
                Entered::At(created) => {
                    let candidate = Candidate { name: bid.name, key, created };
                    let permit = Some(permit);
                    return Ok(Candidacy {
                        served,
                        holders,
                        candidate,
                        lease,
                        written,
                        permit,
                        is_over: false,
                    });
                }
                // This member lagged behind, or another call of the session came between.
                Entered::Changed(modified) if client.strong_count() > 0 => seen = modified,
                Entered::Changed(_) => return Err(LockTrouble::Unsettled.into()),
            }
        }
    }

    /// Waits until the key holds the lock.
    async fn win(&mut self, deadline: Option<Instant>) -> Result<Won, Trouble> {
        let mut place = self.holders.wait(self.candidate.name.clone(), self.candidate.created);
        // A state that has this call's write is one of this call's time: what it shows was true while the client waited.
        let mut won = self.look(Freshness::Revision(self.written), deadline).await?;
        let at = loop {
            if let Some(at) = won {
                break at;
            }
            tokio::select! {
                () = place.called() => {}
                () = rt::sleep(SESSION_LOOK_INTERVAL) => {}
                () = passed(deadline) => return Err(LockTrouble::Deadline.into()),
                () = self.served.shutdown.cancelled() => return Err(LockTrouble::Stopping.into()),
            }
            if self.look(Freshness::Any, deadline).await?.is_some() {
                // This member may lag behind: the session may have ended, and the lock be another's.
                won = self.look(Freshness::Linearizable, deadline).await?;
            }
        };
        self.is_over = true;
        let Candidate { key, created, .. } = self.candidate.clone();
        Ok(Won { key, token: created, lease: self.lease, at })
    }

    /// Whether the lock is held, and when it is.
    async fn look(&mut self, freshness: Freshness, deadline: Option<Instant>) -> Result<Option<At>, Trouble> {
        let patience = rt::now() + REQUEST_TIMEOUT;
        let deadline = deadline.map_or(patience, |deadline| deadline.min(patience));
        drop(self.served.node.read_barrier(freshness, deadline).await?);
        let candidate = self.candidate.clone();
        let read = move |view: &View| Ok((At::from(view), queue::standing(view, &candidate)?));
        let (at, standing) = self.served.read_long(read).await?;
        match standing {
            Standing::Holds => Ok(Some(at)),
            Standing::Waits => Ok(None),
            Standing::Gone => {
                self.is_over = true;
                Err(LockTrouble::SessionExpired.into())
            }
            Standing::Never => Err(LockTrouble::NotACandidate.into()),
        }
    }
}

impl Drop for Candidacy {
    fn drop(&mut self) {
        if self.is_over || self.served.shutdown.is_cancelled() {
            return;
        }
        let (served, holders) = (self.served.clone(), self.holders.clone());
        let (candidate, written, permit) = (self.candidate.clone(), self.written, self.permit.take());
        self.holders.spawn(async move {
            let _permit = permit;
            if let Some(_turn) = holders.removal().await
                && let Err(trouble) = remove(&served, &candidate, written).await
            {
                let key = candidate.key.escape_ascii();
                tracing::debug!("the key {key} of a call that has ended is left to its lease: {trouble:?}");
            }
        });
    }
}

/// Takes a key out of its queue, if it stands as one call wrote it and an older one stands before it.
async fn remove(served: &Served, candidate: &Candidate, written: Revision) -> Result<(), Trouble> {
    let deadline = rt::now() + REQUEST_TIMEOUT;
    for _ in 0..REMOVALS_MAX {
        drop(served.node.read_barrier(Freshness::Revision(written), deadline).await?);
        let looked_for = candidate.clone();
        let read = served.read_long(move |view| {
            let own = queue::get(view, &looked_for.key)?;
            Ok((own.map(|own| own.mod_revision), queue::older(view, &looked_for)?))
        });
        let (own, Some(older)) = read.await? else { return Ok(()) };
        if own != Some(written) {
            return Ok(());
        }
        let removal = queue::removal(candidate, written, &older);
        match served.node.propose(&Command::Txn(removal), deadline).await??.reply {
            Reply::Txn(reply) if reply.succeeded => return Ok(()),
            Reply::Txn(_) => {}
            reply => panic!("the reply to a transaction is of the command's kind, and this one is {reply:?}"),
        }
    }
    Ok(())
}

/// Waits until a deadline, or for ever where there is none.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => rt::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A task's panic goes on where its result was awaited; nobody cancels these tasks.
fn resume(error: JoinError) -> ! {
    std::panic::resume_unwind(error.into_panic())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringfence_disk::SimDisk;
    use ringfence_proto::command;
    use ringfence_store::{Entry, Options, Payload, Store};
    use ringfence_types::{Index, LeaseCommand, LeaseTime, LogId, NodeId, Term};

    use super::*;

    /// Applies one command; its answer and the revision after it.
    fn apply(store: &Store, command: &Command) -> (Reply, Revision) {
        let index = Index(store.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1));
        let log_id = LogId { term: Term(1), node: NodeId(1), index };
        let entry = Entry { log_id, payload: Payload::Command(command::encode(command)) };
        let applied = store.apply(&[entry]).unwrap().remove(0).unwrap();
        (applied.reply, applied.revision)
    }

    fn enter(store: &Store, key: &Bytes, seen: Revision) -> Entered {
        let entry = queue::entry(key, seen, Bytes::new(), LeaseId(7));
        match apply(store, &Command::Txn(entry)) {
            (Reply::Txn(reply), written) => queue::entered(reply, written),
            other => panic!("{other:?} is no transaction's"),
        }
    }

    fn take_out(store: &Store, candidate: &Candidate, written: Revision) -> bool {
        let older = queue::older(&store.view(), candidate).unwrap().expect("another one holds the lock");
        match apply(store, &Command::Txn(queue::removal(candidate, written, &older))) {
            (Reply::Txn(reply), _) => reply.succeeded,
            other => panic!("{other:?} is no transaction's"),
        }
    }

    #[test]
    fn a_write_that_is_late_comes_not_over_that_of_the_call_that_took_its_place() {
        let store = Store::open(Arc::new(SimDisk::new(1)), Options::default()).unwrap();
        for lease in [6, 7] {
            let grant = LeaseCommand::Grant { lease: LeaseId(lease), ttl_seconds: 60 };
            apply(&store, &Command::Lease { command: grant, clock: LeaseTime(0) });
        }
        let name = Bytes::from_static(b"jobs");
        let holder = queue::entry(&queue::key_of(&name, LeaseId(6)), Revision(0), Bytes::new(), LeaseId(6));
        apply(&store, &Command::Txn(holder));

        // The first call came, and its write is on its way; the second one comes and writes.
        let key = queue::key_of(&name, LeaseId(7));
        let seen = queue::modified(&store.view(), &key).unwrap();
        let Entered::At(created) = enter(&store, &key, seen) else { panic!("nobody came between") };
        let candidate = Candidate { name, key: key.clone(), created };
        let standing = || queue::standing(&store.view(), &candidate).unwrap();
        assert_eq!(standing(), Standing::Waits);
        assert_eq!(enter(&store, &key, seen), Entered::Changed(created), "the first one's write arrives");
        assert_eq!(queue::modified(&store.view(), &key).unwrap(), created, "and changes nothing");

        // A third one, which has seen the second's write, takes its place in turn; then that one's end takes nothing out.
        assert_eq!(enter(&store, &key, created), Entered::At(created), "a session keeps its place");
        let written = queue::modified(&store.view(), &key).unwrap();
        assert!(written > created && !take_out(&store, &candidate, created));
        assert_eq!(standing(), Standing::Waits);
        assert!(take_out(&store, &candidate, written), "its own end does");
        assert_eq!(standing(), Standing::Gone);
        assert_eq!(enter(&store, &key, written), Entered::Changed(Revision(0)), "nothing is there any more");
    }
}
