//! openraft's type parameters.

use std::fmt;

use bytes::Bytes;
use openraft::raft::responder::Responder;
use ringfence_types::{Index, LogId, NodeId, Outcome, Term};

use crate::rt;

/// Ringfence's choice of openraft's types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Sealed;
    type R = Answer;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = RaftPayload;
    type Entry = openraft::Entry<LeaderId, RaftPayload>;
    type AsyncRuntime = rt::Runtime;
    type Responder<T>
        = Waiter<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type Raft = openraft::Raft<TypeConfig, super::state_machine::StateMachine>;
pub(crate) type RaftEntry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type RaftLogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type RaftVote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type RaftMembership = openraft::Membership<u64, PeerNode>;
pub(crate) type RaftStoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type RaftPayload = openraft::EntryPayload<Sealed, u64, PeerNode>;
pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;

/// A command, encoded once, by the member that received it from a client.
#[derive(Clone)]
pub(crate) struct Sealed {
    /// The command's own bytes.
    pub(crate) command: Bytes,
    /// The whole entry that carries it, once it has a place in the log: log and peers take these bytes as they are.
    pub(crate) entry: Option<Bytes>,
}

impl Sealed {
    pub(crate) fn new(command: Bytes) -> Sealed {
        Sealed { command, entry: None }
    }
}

/// Where a command came from makes no difference to what it is.
impl PartialEq for Sealed {
    fn eq(&self, other: &Sealed) -> bool {
        self.command == other.command
    }
}

impl Eq for Sealed {}

/// What `apply` returns for an entry: its outcome, or none on a node that carries nothing out, since its state is not to be
/// believed. The entry is committed all the same.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Option<Outcome>);

/// A member's record in the membership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PeerNode {
    /// The name that its operator gave it.
    pub(crate) name: String,
    /// `host:port` at which its peers reach it.
    pub(crate) address: String,
    /// Drawn when its data directory was made.
    pub(crate) disk_id: u64,
}

/// Carries an answer to whoever waits for it. Nobody may wait any more: then the answer is for nobody.
pub(crate) struct Waiter<T>(pub(crate) tokio::sync::oneshot::Sender<T>);

impl<T: Send + 'static> Responder<TypeConfig, T> for Waiter<T> {
    fn on_complete(self, answer: T) {
        drop(self.0.send(answer));
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.command.len())
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A position in our words.
pub(crate) fn log_id_from_raft(log_id: &RaftLogId) -> LogId {
    let leader = log_id.committed_leader_id();
    LogId { term: Term(leader.term), node: NodeId(leader.node_id), index: Index(log_id.index()) }
}

/// A position in openraft's words.
pub(crate) fn log_id_to_raft(log_id: LogId) -> RaftLogId {
    RaftLogId::new(LeaderId { term: log_id.term.0, node_id: log_id.node.0 }, log_id.index.0)
}
