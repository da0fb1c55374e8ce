//! The way of a write: to Raft on the leader, over the forward channel on everybody else.
//!
//! An attempt that surely was not applied is made again while the deadline allows it; one that perhaps was is the caller's
//! to know about, and ends the proposal.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::errors::{ClientWriteError, ForwardReason};
use ringfence_proto::command::{wants_lease_clock, with_lease_clock};
use ringfence_proto::peers::{reply, request};
use ringfence_types::{NodeId, Outcome, limits};
use tokio::sync::{mpsc, oneshot};

use crate::api::{ProposeError, ReadOnly};
use crate::authority::{Authority, Permit, Standing};
use crate::net::CallError;
use crate::net::Links;
use crate::quota::Quota;
use crate::raft::state_machine::Shelf;
use crate::raft::types::{Raft, Sealed, TypeConfig};
use crate::rt;

/// Pause before an attempt that was refused by a leader is made again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Batches that Raft may have unanswered: one is being synced and replicated while the next follows it.
const BATCHES_UNDER_WAY: usize = 2;

/// A write in the hands of the proposer.
pub(crate) type Proposed = oneshot::Receiver<Result<Outcome, ProposeError>>;

/// A write on its way to Raft.
#[derive(Debug)]
pub(crate) struct Waiting {
    command: Bytes,
    answer: oneshot::Sender<Result<Outcome, ProposeError>>,
    started: rt::Instant,
    _permit: Permit,
}

/// The way to Raft on this node: a queue that the proposer empties.
#[derive(Clone)]
pub(crate) struct Proposer {
    authority: Arc<Authority>,
    shelf: Arc<Shelf>,
    quota: Arc<Quota>,
    queue: mpsc::Sender<Waiting>,
}

impl Proposer {
    /// The handle, and what [`serve`] takes.
    pub(crate) fn new(
        authority: Arc<Authority>,
        shelf: Arc<Shelf>,
        quota: Arc<Quota>,
    ) -> (Proposer, mpsc::Receiver<Waiting>) {
        let waiting_max = limits::PROPOSALS_WAITING_MAX + limits::LEASE_PROPOSALS_RESERVED;
        let (queue, waiting) = mpsc::channel(waiting_max);
        (Proposer { authority, shelf, quota, queue }, waiting)
    }

    /// Puts a command into the queue to Raft on this node. Whether this node leads is told by the answer.
    pub(crate) fn start(&self, command: Bytes) -> Result<Proposed, ProposeError> {
        // It could not tell what comes of it. Another member will lead soon.
        self.shelf.quarantine.check().map_err(ProposeError::NotReady)?;
        let command = self.stamped(command)?;
        let permit = self.authority.admit(&command)?;
        self.quota.admit(&command)?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { command, answer, started: rt::now(), _permit: permit };
        self.queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                ProposeError::Overloaded(format!("{} writes wait", limits::PROPOSALS_WAITING_MAX))
            }
            mpsc::error::TrySendError::Closed(_) => ProposeError::NotReady("the node is stopping".to_owned()),
        })?;
        Ok(answered)
    }

    /// The command with the lease clock on it, if it wants one. Only the leader that proposes it has a reading that counts, so
    /// that this stands here, where forwarded commands come in too.
    fn stamped(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        if !wants_lease_clock(&command) {
            return Ok(command);
        }
        match self.authority.lease_clock() {
            Some(reading) => Ok(with_lease_clock(&command, reading)),
            None => Err(ProposeError::NotReady("this node does not lead, or not for long enough".to_owned())),
        }
    }
}

/// What comes of a command that was started.
pub(crate) async fn finish(proposed: Proposed) -> Result<Outcome, ProposeError> {
    proposed.await.unwrap_or_else(|_| Err(ProposeError::Stopped("consensus has stopped".to_owned())))
}

/// Takes what waits and hands it to Raft, for ever: all of it as one batch, at most [`BATCHES_UNDER_WAY`] at once.
///
/// What comes while a batch is being synced and replicated forms the next one, so batches grow with the load, and with
/// them shrinks what a write costs in messages, syncs and wake-ups. A lone write goes at once.
pub(crate) async fn serve(raft: Raft, authority: Arc<Authority>, mut queue: mpsc::Receiver<Waiting>) {
    let mut under_way = FuturesUnordered::new();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            count = queue.recv_many(&mut batch, limits::PROPOSE_BATCH_MAX), if under_way.len() < BATCHES_UNDER_WAY => {
                if count == 0 {
                    return;
                }
                under_way.push(propose_batch(&raft, &authority, std::mem::take(&mut batch)));
            }
        }
    }
}

async fn propose_batch(raft: &Raft, authority: &Arc<Authority>, batch: Vec<Waiting>) {
    let abandoned_before = authority.standing().abandoned;
    let commands: Vec<Sealed> = batch.iter().map(|waiting| Sealed::new(waiting.command.clone())).collect();
    let mut unanswered = batch.into_iter();
    let mut answers = match raft.client_write_many(commands).await {
        Ok(answers) => answers,
        Err(fatal) => {
            let error = ProposeError::NotReady(format!("consensus has stopped: {fatal}"));
            return unanswered.for_each(|waiting| waiting.end(authority, Err(error.clone())));
        }
    };
    let mut standing = authority.subscribe();
    let abandoned = standing.wait_for(|standing| standing.abandoned > abandoned_before);
    let mut abandoned = std::pin::pin!(abandoned);
    let error = loop {
        tokio::select! {
            biased;
            answer = answers.next() => {
                let Some(answer) = answer else { break ProposeError::Stopped("consensus has stopped".to_owned()) };
                let Some(waiting) = unanswered.next() else { return };
                let outcome = match answer {
                    Ok(Ok(response)) => response.response.0.ok_or(ProposeError::LeadershipLost),
                    Ok(Err(error)) => Err(refusal(authority, error)),
                    Err(fatal) => Err(ProposeError::Stopped(fatal.to_string())),
                };
                waiting.end(authority, outcome);
            }
            _ = &mut abandoned => break ProposeError::LeadershipLost,
        }
    };
    unanswered.for_each(|waiting| waiting.end(authority, Err(error.clone())));
}

impl Waiting {
    fn end(self, authority: &Authority, outcome: Result<Outcome, ProposeError>) {
        authority.count(outcome.is_ok());
        authority.propose_time.record(rt::since(self.started));
        drop(self.answer.send(outcome));
    }
}

/// Proposes a command wherever the leader is.
pub(crate) async fn propose(
    proposer: &Proposer,
    authority: &Arc<Authority>,
    links: &Links,
    command: Bytes,
    deadline: rt::Instant,
) -> Result<Outcome, ProposeError> {
    if command.len() > limits::ENTRY_BYTES_MAX {
        return Err(ProposeError::TooLarge { size: command.len(), max: limits::ENTRY_BYTES_MAX });
    }
    loop {
        let (leader, abandoned) = {
            let standing = authority.standing();
            (address_of_leader(&standing, authority.node()), standing.abandoned)
        };
        let attempt = match leader {
            Some(Leader::Here) => match proposer.start(command.clone()) {
                Ok(proposed) => rt::timeout_at(deadline, finish(proposed))
                    .await
                    .unwrap_or(Err(ProposeError::DeadlineAfter)),
                Err(error) => Err(error),
            },
            Some(Leader::There(leader, address)) => {
                let forwarding = forward(authority, links, leader, &address, command.clone(), abandoned);
                rt::timeout_at(deadline, forwarding).await.unwrap_or(Err(ProposeError::DeadlineAfter))
            }
            None => match authority.read_only() {
                Some(read_only) => return Err(no_authority(authority, read_only)),
                None => Err(ProposeError::NoLeader { read_only: None }),
            },
        };
        if !matches!(attempt, Err(ProposeError::NoLeader { .. } | ProposeError::NotReady(_))) {
            return attempt;
        }
        wait_for_change(authority).await;
        if rt::now() >= deadline {
            return attempt;
        }
    }
}

enum Leader {
    Here,
    There(NodeId, String),
}

fn address_of_leader(standing: &Standing, own: NodeId) -> Option<Leader> {
    let leader = standing.leader?;
    if leader == own {
        return Some(Leader::Here);
    }
    standing.members.get(&leader).map(|member| Leader::There(leader, member.address.clone()))
}

fn no_authority(authority: &Authority, read_only: ReadOnly) -> ProposeError {
    match authority.standing().role {
        crate::api::Role::Leader => ProposeError::NoLease(read_only),
        _ => ProposeError::NoLeader { read_only: Some(read_only) },
    }
}

async fn wait_for_change(authority: &Authority) {
    let mut standing = authority.subscribe();
    standing.mark_unchanged();
    let _ = rt::timeout(RETRY_PAUSE, standing.changed()).await;
}

fn refusal(authority: &Authority, error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => match forward.reason {
            ForwardReason::NotLeader => ProposeError::NoLeader { read_only: None },
            ForwardReason::LeadershipTransfer => {
                ProposeError::NotReady("leadership is being handed over".to_owned())
            }
            ForwardReason::LeaseExpired => match authority.read_only() {
                Some(read_only) => ProposeError::NoLease(read_only),
                // Between the lease's end and the next look at it, or right after an election.
                None => ProposeError::NotReady("the leader waits for answers of a majority".to_owned()),
            },
        },
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::LeadershipLost,
        other => ProposeError::Stopped(format!("a write was answered as a change of members: {other}")),
    }
}

/// Sends a write to the leader and waits, as long as that leader may know what became of it.
async fn forward(
    authority: &Arc<Authority>,
    links: &Links,
    leader: NodeId,
    address: &str,
    command: Bytes,
    abandoned_before: u64,
) -> Result<Outcome, ProposeError> {
    let _permit = authority.admit(&command)?;
    let link = links.forward(leader, address);
    let started = rt::now();
    let ended = tokio::select! {
        biased;
        answered = link.call(request::Body::Command(command)) => match answered {
            Ok(reply::Body::Outcome(outcome)) => ringfence_proto::outcome::decode(&outcome)
                .map_err(|error| ProposeError::Stopped(format!("the leader's answer is malformed: {error}"))),
            Ok(reply::Body::Refused(reason)) => Err(ProposeError::NotReady(reason)),
            Ok(reply::Body::NoSpace(reason)) => Err(ProposeError::NoSpace(reason)),
            Ok(reply::Body::Overloaded(reason)) => Err(ProposeError::Overloaded(reason)),
            Ok(_) => Err(ProposeError::LeadershipLost),
            Err(CallError::NotSent(reason)) => Err(ProposeError::NotReady(format!("the leader: {reason}"))),
            Err(CallError::Broken(_)) => Err(ProposeError::ForwardBroken),
        },
        () = given_up(authority, leader, abandoned_before) => Err(ProposeError::LeadershipLost),
    };
    authority.count(ended.is_ok());
    authority.propose_time.record(rt::since(started));
    ended
}

/// Waits until nothing is to be expected any more of a leader that was sent a write.
///
/// One that has a successor still answers, unless it was cut off: it hears from the successor which of its last entries count.
/// This node may well have heard of the successor first.
async fn given_up(authority: &Authority, leader: NodeId, abandoned_before: u64) {
    let mut standing = authority.subscribe();
    let succeeded = standing.wait_for(|standing| {
        standing.abandoned > abandoned_before || standing.leader.is_some_and(|now| now != leader)
    });
    drop(succeeded.await);
    let abandoned = standing.wait_for(|standing| standing.abandoned > abandoned_before);
    drop(rt::timeout(authority.timing().leader_lease, abandoned).await);
}
