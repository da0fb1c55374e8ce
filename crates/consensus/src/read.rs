//! The way of a linearizable read: a question for a read index, one for all reads that wait.
//!
//! A read may join only a question that is *sent after it arrived*: one task sends a question, gathers the reads that come
//! in meanwhile, and sends the next when the first is answered.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use ringfence_canary::Canary;
use ringfence_proto::peers::{ReadIndexRequest, reply, request};
use ringfence_types::{Index, NodeId, limits};
use tokio::sync::{mpsc, oneshot};

use crate::api::{BarrierError, ReadOnly, Role};
use crate::authority::Authority;
use crate::net::{CallError, Links, Local};
use crate::raft::types::Raft;
use crate::rt;

/// The part of a leader lease during which a leader answers reads by it. Clocks may differ in rate by 2 %, and
/// 0.65 × 1.02 < 0.98 leaves room for much more.
const SAFE_SHARE: f64 = 0.65;
/// Most reads that one question serves.
const BATCH_MAX: usize = 4096;

type Answer = Result<Index, BarrierError>;

pub(crate) struct Question {
    quorum_round: bool,
    /// Asked by another member: answered here or not at all, so that questions never go in circles.
    only_here: bool,
    answer: oneshot::Sender<Answer>,
}

/// The way to ask for a read index.
#[derive(Debug, Clone)]
pub(crate) struct Reads(mpsc::Sender<Question>);

impl Reads {
    /// The handle, and what [`serve`] takes.
    pub(crate) fn new() -> (Reads, mpsc::Receiver<Question>) {
        let (questions, waiting) = mpsc::channel(limits::READS_WAITING_MAX);
        (Reads(questions), waiting)
    }

    /// The index that sees every write acknowledged before this call, from wherever the leader is.
    pub(crate) async fn ask(&self, quorum_round: bool) -> Answer {
        self.put(quorum_round, false).await
    }

    /// The same, from this node alone.
    pub(crate) async fn ask_here(&self, quorum_round: bool) -> Answer {
        self.put(quorum_round, true).await
    }

    async fn put(&self, quorum_round: bool, only_here: bool) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Question { quorum_round, only_here, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                BarrierError::Overloaded(format!("{} reads wait", limits::READS_WAITING_MAX))
            }
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> BarrierError {
    BarrierError::NotReady("the node is stopping".to_owned())
}

/// What questions are answered from.
pub(crate) struct Oracle {
    pub(crate) raft: Raft,
    pub(crate) authority: Arc<Authority>,
    pub(crate) links: Arc<Links>,
    pub(crate) local: Arc<Local>,
}

/// Answers questions for ever, one batch after the other.
pub(crate) async fn serve(oracle: Oracle, mut waiting: mpsc::Receiver<Question>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let leader = {
            let standing = oracle.authority.standing();
            let leader = standing.leader;
            leader.map(|id| (id, standing.members.get(&id).map(|member| member.address.clone())))
        };
        let quorum_round = batch.iter().any(|question| question.quorum_round);
        match leader {
            Some((id, _)) if id == oracle.authority.node() => {
                let answer = oracle.ask_raft(quorum_round).await;
                reply(batch.drain(..), &answer);
            }
            Some((id, Some(address))) => {
                let here = batch.extract_if(.., |question| question.only_here);
                reply(here, &Err(oracle.no_leader()));
                if !batch.is_empty() {
                    let answer = oracle.ask_leader(id, &address, quorum_round).await;
                    reply(batch.drain(..), &answer);
                }
            }
            _ => reply(batch.drain(..), &Err(oracle.no_leader())),
        }
    }
}

fn reply(questions: impl Iterator<Item = Question>, answer: &Answer) {
    for question in questions {
        drop(question.answer.send(answer.clone()));
    }
}

/// How old the newest message that a majority answered may be for a read to be served by the leader lease.
pub(crate) fn safe_age(authority: &Authority, local: &Local) -> Duration {
    if Canary::LeaseWithoutMargin.sings() {
        // The whole of its own lease, by its own clock, whatever the voters' leases and clocks are.
        return local.leader_lease;
    }
    let standing = authority.standing();
    let own = authority.node();
    let others = standing.members.iter().filter(|(id, member)| member.is_voter && **id != own);
    let smallest = local.peers.leader_lease_min(others.map(|(id, _)| *id)).min(local.leader_lease);
    smallest.mul_f64(SAFE_SHARE)
}

impl Oracle {
    fn no_leader(&self) -> BarrierError {
        let read_only = self.authority.read_only();
        match (self.authority.standing().role, read_only) {
            (Role::Leader, Some(read_only)) => BarrierError::NoQuorum(read_only),
            (_, read_only) => BarrierError::NoLeader { read_only },
        }
    }

    async fn ask_raft(&self, quorum_round: bool) -> Answer {
        let age = if quorum_round { Duration::ZERO } else { safe_age(&self.authority, &self.local) };
        let option = LinearizerOption::new(Some(age), true).with_wait_timeout(self.local.leader_lease * 2);
        match self.raft.get_read_linearizer(option).await {
            Ok(linearizer) => Ok(Index(linearizer.read_log_id().index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(BarrierError::NoLeader { read_only: self.authority.read_only() })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(BarrierError::NoQuorum(self.authority.read_only().unwrap_or_else(|| ReadOnly {
                    since: Duration::ZERO,
                    reason: "no majority of the voters has answered in time".to_owned(),
                })))
            }
            Err(RaftError::Fatal(fatal)) => {
                Err(BarrierError::NotReady(format!("consensus has stopped: {fatal}")))
            }
        }
    }

    async fn ask_leader(&self, leader: NodeId, address: &str, quorum_round: bool) -> Answer {
        let link = self.links.control(leader, address);
        let asking = link.call(request::Body::ReadIndex(ReadIndexRequest { quorum_round }));
        let refused = |reason: String| BarrierError::NotReady(format!("the leader: {reason}"));
        match rt::timeout(self.local.leader_lease * 3, asking).await {
            Some(Ok(reply::Body::ReadIndex(answer))) if answer.error.is_empty() => Ok(Index(answer.index)),
            Some(Ok(reply::Body::ReadIndex(answer))) => Err(refused(answer.error)),
            Some(Ok(reply::Body::Refused(reason))) => Err(refused(reason)),
            Some(Ok(_)) => Err(refused("the answer does not fit the question".to_owned())),
            Some(Err(error @ (CallError::NotSent(_) | CallError::Broken(_)))) => {
                Err(refused(error.to_string()))
            }
            None => Err(refused("no answer in time".to_owned())),
        }
    }
}
