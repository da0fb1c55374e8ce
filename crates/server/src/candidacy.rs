//! One call that stands for a lock or an election: it puts its session's key into the queue, waits until the key stands
//! first, and looks once more, linearizably, before it says so.
//!
//! Every such call writes its key, also where the session stands already: so each call's write is known by its mod revision.
//! A call that ends without its lock, because its client has gone or its deadline has passed, takes its key out of the queue,
//! but only by a transaction that finds the key as this very call wrote it, and an older key before it. So the key stays
//! where a retry of the same session relies on it, and where it has come to hold the lock meanwhile: who holds a lock keeps
//! it until it says otherwise or its lease ends. When the server stops, its calls' keys are left to their leases, since
//! their clients will ask another member.

use bytes::Bytes;
use ringfence_consensus::rt::{self, Instant};
use ringfence_store::View;
use ringfence_types::limits::REQUEST_TIMEOUT;
use ringfence_types::{Command, Freshness, LeaseId, Put, PutLease, PutValue, Reply, Revision};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::holders::Holders;
use crate::limits::{LOCK_LEASE_TTL_SECONDS, SESSION_LOOK_INTERVAL};
use crate::queue::{self, Candidate, Standing};
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
    let entering = Candidacy::enter(served.clone(), holders.clone(), bid, permit, deadline::of(metadata));
    // A task of its own: if the client goes meanwhile, the key is put all the same, and must be taken out again.
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
    ) -> Result<Candidacy, Trouble> {
        let lease = if bid.lease == LeaseId(0) {
            let (_, granted) = lease::grant(&served, LeaseId(0), LOCK_LEASE_TTL_SECONDS, deadline).await?;
            granted.grant.lease
        } else {
            bid.lease
        };
        let key = queue::key_of(&bid.name, lease);
        let put = Command::Put(Put {
            key: key.clone(),
            value: PutValue::Set(bid.value),
            lease: PutLease::Set(lease),
            // It tells since when the session stands.
            prev_kv: true,
        });
        let applied = served.node.propose(&put, deadline).await??;
        let written = applied.revision;
        let created = match applied.reply {
            Reply::Put(reply) => reply.prev_kv.map_or(written, |before| before.create_revision),
            reply => panic!("the reply to a put is of the command's kind, and this one is {reply:?}"),
        };
        let candidate = Candidate { name: bid.name, key, created };
        Ok(Candidacy { served, holders, candidate, lease, written, permit: Some(permit), is_over: false })
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
