//! What clients ask of nodes, and what a node's server does then: as in the product, but for the batches that share an entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_consensus::rt::{self, simulated as executor};
use ringfence_consensus::{BarrierError, Node};
use ringfence_store::ReadError;
use ringfence_types::{
    Applied, Command, Freshness, Grant, Lease, LeaseCommand, LeaseId, LeaseTime, Rejection, Reply, Revision,
    Txn,
};

use super::witness::Witness;
use crate::server::queue::{self, Candidate, Entered, Standing};
use crate::server::stale;
use crate::world::{CLIENTS, World};

/// What a client gives a call.
const PATIENCE: Duration = Duration::from_secs(4);
/// What the client's node gives it: an answer can still reach the client.
const DEADLINE: Duration = Duration::from_secs(3);
/// Pause between two looks at a queue that is waited in.
const LOOK: Duration = Duration::from_millis(50);
/// How long a call stands for a lock before its client asks anew.
const STANDING: Duration = Duration::from_secs(2);
/// Transactions that try to take a key out of its queue.
const REMOVALS_MAX: usize = 4;

/// Why there is no answer of the kind that was asked for.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// Every member refuses it.
    Rejected(Rejection),
    /// It surely was not done.
    Refused,
    /// Nobody can tell.
    Unknown,
}

impl From<BarrierError> for Trouble {
    fn from(_: BarrierError) -> Trouble {
        Trouble::Refused
    }
}

impl From<ReadError> for Trouble {
    fn from(_: ReadError) -> Trouble {
        Trouble::Refused
    }
}

/// Has a node serve something, and brings its answer back.
pub(super) async fn ask<T, F>(
    world: &Arc<World>,
    number: usize,
    serve: impl FnOnce(Node) -> F + Send + 'static,
) -> Result<T, Trouble>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Trouble>> + Send + 'static,
{
    let asking = async {
        let machine = world.machine(number);
        world.fabric.pass(CLIENTS, machine.host).await;
        let node = machine.node().ok_or(Trouble::Refused)?;
        let answer = executor::spawn_on(machine.host, serve(node)).await;
        world.fabric.pass(machine.host, CLIENTS).await;
        answer.unwrap_or(Err(Trouble::Unknown))
    };
    rt::timeout(PATIENCE, asking).await.unwrap_or(Err(Trouble::Unknown))
}

/// Proposes a command; one with a fence that can never hold again ends here, unless this is a member that has not heard of
/// that yet, as half of them are taken to be.
pub(super) async fn propose(node: &Node, command: Command) -> Result<Applied, Trouble> {
    if executor::random_below(2) == 0
        && let Ok(view) = node.believed_view()
        && let Some(rejection) = stale::refusal(&command, &view)?
    {
        return Err(Trouble::Rejected(rejection));
    }
    match node.propose(&command, rt::now() + DEADLINE).await {
        Ok(outcome) => outcome.map_err(Trouble::Rejected),
        Err(error) if error.is_definite() => Err(Trouble::Refused),
        Err(_) => Err(Trouble::Unknown),
    }
}

/// Something about leases; the leader puts its clock on it.
pub(super) async fn change_leases(node: &Node, command: LeaseCommand) -> Result<Reply, Trouble> {
    Ok(propose(node, Command::Lease { command, clock: LeaseTime(0) }).await?.reply)
}

/// Renews one grant of a lease; none where it has ended.
pub(super) async fn renew(
    node: &Node,
    grant: Grant,
    witness: &Mutex<Witness>,
) -> Result<Option<Lease>, Trouble> {
    witness.lock().ask_renewal(grant);
    match change_leases(node, LeaseCommand::Renew { grants: vec![grant] }).await? {
        Reply::LeasesRenewed(leases) => Ok(leases.first().copied()),
        reply => panic!("the reply to a renewal is {reply:?}"),
    }
}

/// A keep-alive, which names a lease: the grant that this node knows of, and where it has ended, the one in force.
pub(super) async fn keep_alive(
    node: Node,
    lease: LeaseId,
    witness: Arc<Mutex<Witness>>,
) -> Result<Option<Lease>, Trouble> {
    if let Some(known) = node.believed_view()?.lease(lease)?
        && let Some(renewed) = renew(&node, known.grant, &witness).await?
    {
        return Ok(Some(renewed));
    }
    let view = node.read_barrier(Freshness::Linearizable, rt::now() + DEADLINE).await?;
    match view.lease(lease)? {
        Some(known) => renew(&node, known.grant, &witness).await,
        None => Ok(None),
    }
}

/// How a call that stood for a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stood {
    /// The lock is held, with this token.
    Holds(Revision),
    /// It is not held yet.
    NotYet,
    /// The session's key is gone.
    Gone,
    /// The key can never hold the lock.
    Never,
}

/// Stands for a lock, as one call of the Lock service: writes the session's key, waits until it holds, and takes it out again
/// where the client is gone meanwhile. Of the session's calls those from `waited_from` on are still waited for.
pub(super) async fn stand(
    node: Node,
    name: Bytes,
    lease: LeaseId,
    call: u64,
    waited_from: Arc<AtomicU64>,
) -> Result<Stood, Trouble> {
    let key = queue::key_of(&name, lease);
    let is_waited_for = || waited_from.load(Ordering::Relaxed) <= call;
    let mut seen = queue::modified(&node.believed_view()?, &key)?;
    let (created, written) = loop {
        let entry = queue::entry(&key, seen, Bytes::new(), lease);
        let Applied { revision: written, reply, .. } = propose(&node, Command::Txn(entry)).await?;
        let Reply::Txn(reply) = reply else { panic!("the reply to a transaction is {reply:?}") };
        match queue::entered(reply, written) {
            Entered::At(created) => break (created, written),
            Entered::Changed(modified) if is_waited_for() => seen = modified,
            Entered::Changed(_) => return Err(Trouble::Unknown),
        }
    };
    let candidate = Candidate { name, key, created };
    let stood = wait(&node, &candidate, written, is_waited_for).await;
    if matches!(stood, Err(_) | Ok(Stood::NotYet)) {
        // A task of its own, which the end of the call does not wait for.
        drop(rt::spawn(async move { drop(remove(&node, &candidate, written).await) }));
    }
    stood
}

async fn wait(
    node: &Node,
    candidate: &Candidate,
    written: Revision,
    is_waited_for: impl Fn() -> bool,
) -> Result<Stood, Trouble> {
    let begun = rt::now();
    let mut stood = look(node, candidate, Freshness::Revision(written)).await?;
    while stood == Stood::NotYet {
        if rt::since(begun) > STANDING || !is_waited_for() {
            return Ok(Stood::NotYet);
        }
        rt::sleep(LOOK).await;
        stood = look(node, candidate, Freshness::Any).await?;
        if matches!(stood, Stood::Holds(_)) {
            stood = look(node, candidate, Freshness::Linearizable).await?;
        }
    }
    Ok(stood)
}

async fn look(node: &Node, candidate: &Candidate, freshness: Freshness) -> Result<Stood, Trouble> {
    let view = node.read_barrier(freshness, rt::now() + DEADLINE).await?;
    Ok(match queue::standing(&view, candidate)? {
        Standing::Holds => Stood::Holds(candidate.created),
        Standing::Waits => Stood::NotYet,
        Standing::Gone => Stood::Gone,
        Standing::Never => Stood::Never,
    })
}

/// Takes a key out of its queue, if it stands as one call wrote it and an older one stands before it.
async fn remove(node: &Node, candidate: &Candidate, written: Revision) -> Result<(), Trouble> {
    for _ in 0..REMOVALS_MAX {
        drop(node.read_barrier(Freshness::Revision(written), rt::now() + DEADLINE).await?);
        let view = node.believed_view()?;
        let Some(older) = queue::older(&view, candidate)? else { return Ok(()) };
        if queue::get(&view, &candidate.key)?.map(|own| own.mod_revision) != Some(written) {
            return Ok(());
        }
        drop(view);
        match propose(node, Command::Txn(queue::removal(candidate, written, &older))).await?.reply {
            Reply::Txn(reply) if reply.succeeded => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

/// A transaction: whether its compares held, and the revision.
pub(super) async fn transact(node: Node, txn: Txn) -> Result<(bool, Revision), Trouble> {
    let Applied { revision, reply, .. } = propose(&node, Command::Txn(txn)).await?;
    match reply {
        Reply::Txn(reply) => Ok((reply.succeeded, revision)),
        reply => panic!("the reply to a transaction is {reply:?}"),
    }
}
