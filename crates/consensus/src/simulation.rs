//! What a simulator may see of a node's inside: read-only, and cheap enough to be asked after every step.

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use ringfence_store::{StateHash, View};
use ringfence_types::{LogId, NodeId, Revision, Term};
use ringfence_wal::Ticket;

use crate::node::Node;
use crate::raft::log_store::LogStore;
use crate::raft::types::{RaftVote, TypeConfig, log_id_from_raft};
use crate::rt::watch;

/// Looks into one node for as long as it runs. It holds no part of the node but the node itself.
pub struct Probe {
    node: Node,
    log: LogStore,
    server: watch::Receiver<openraft::metrics::RaftServerMetrics<TypeConfig>>,
}

/// A vote: for whom, in which term, and whether a majority gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// The term.
    pub term: Term,
    /// The candidate or leader.
    pub node: NodeId,
    /// Whether that node leads.
    pub committed: bool,
}

/// A node at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// The newest vote that the node asked its log to keep.
    pub vote: Option<Vote>,
    /// The vote by which this node leads, if it thinks so, as far as it is on disk: the mark that a majority granted it gets
    /// there a moment after the node has begun to lead.
    pub leads: Option<Vote>,
    /// The log's last entry, durable or not.
    pub last: Option<LogId>,
    /// The log's last entry known to be committed.
    pub committed: Option<LogId>,
    /// The last entry handed to the state machine.
    pub applied: Option<LogId>,
    /// How much was put into the log since it was opened.
    pub staged: Ticket,
    /// How much of that the node believes to be on disk.
    pub durable: Ticket,
}

/// An entry as far as it can be told apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMark {
    /// Its place, and the leadership that put it there.
    pub log_id: LogId,
    /// A checksum of its content.
    pub crc: u32,
}

/// The state at one applied index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateMark {
    /// The last entry in it.
    pub applied: LogId,
    /// The store's revision.
    pub revision: Revision,
    /// The hash over all of it.
    pub hash: StateHash,
}

impl Probe {
    /// A look into a running node.
    #[must_use]
    pub fn new(node: &Node) -> Probe {
        Probe { node: node.clone(), log: node.0.log.clone(), server: node.0.raft.server_metrics() }
    }

    /// The node now.
    #[must_use]
    pub fn observe(&self) -> Observation {
        let positions = self.node.0.gate.positions();
        let server = self.server.borrow_watched();
        let leads = server.state == ServerState::Leader;
        let log = self.log.log();
        Observation {
            vote: positions.vote.map(vote_from_raft),
            leads: leads.then(|| vote_from_raft(server.vote)),
            last: positions.last.as_ref().map(log_id_from_raft),
            committed: positions.committed.as_ref().map(log_id_from_raft),
            applied: positions.applied.as_ref().map(log_id_from_raft),
            staged: log.staged(),
            durable: log.durable(),
        }
    }

    /// The entries of the log from `from` up to, and without, `until`, as far as the log has them.
    ///
    /// # Errors
    /// As the disk's.
    pub fn entries(&self, from: u64, until: u64) -> std::io::Result<Vec<EntryMark>> {
        // The log answers nothing to a question that begins below it, and a part of the range at a time.
        let from = from.max(self.log.log().first_index().unwrap_or(u64::MAX));
        let mut marks: Vec<EntryMark> = Vec::new();
        loop {
            let next = marks.last().map_or(from, |mark| mark.log_id.index.0 + 1);
            let entries = self.log.log().read(next, until, usize::MAX).map_err(std::io::Error::other)?;
            if entries.is_empty() {
                return Ok(marks);
            }
            for entry in &entries {
                let log_id = log_id_from_raft(&crate::raft::codec::decode_entry(&entry.data)?.log_id);
                marks.push(EntryMark { log_id, crc: crc32c::crc32c(&entry.data) });
            }
        }
    }

    /// The state that readers see; none before the first entry, and none where it is not to be believed.
    #[must_use]
    pub fn state(&self) -> Option<StateMark> {
        let view: View = self.node.believed_view().ok()?;
        Some(StateMark { applied: view.applied()?, revision: view.revision(), hash: view.hash() })
    }
}

fn vote_from_raft(vote: RaftVote) -> Vote {
    let leader = vote.leader_id;
    Vote { term: Term(leader.term), node: NodeId(leader.node_id), committed: vote.committed }
}
