//! What the floors above see of consensus: how a node is configured, what it can be asked, what it answers, and what
//! it tells about itself.

use std::fmt;
use std::time::Duration;

use ringfence_store::ScrubProgress;
use ringfence_types::{Alarm, CausalToken, Index, LeaseTime, LogId, NodeId, Rejection, Revision, Term};
use thiserror::Error;

mod quarantine;

pub use crate::quota::{SpaceLimits, SpaceStatus};
pub use quarantine::{Quarantine, QuarantineKind};

/// How one node is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name, unique in its cluster.
    pub name: String,
    /// `host:port` at which peers reach this node.
    pub advertise_peer: String,
    /// URLs at which clients reach this node; told to every member once the node has started.
    pub client_urls: Vec<String>,
    /// The members that found the cluster, this one included; looked at on a fresh data directory alone.
    pub founders: Vec<Founder>,
    /// How this node comes into a cluster that exists; looked at on a fresh data directory alone.
    pub join: Option<Join>,
    /// A secret that all members share; with it each peer connection proves on both sides that it knows the secret.
    pub peer_secret: Option<Secret>,
    /// The clock's settings.
    pub timing: Timing,
    /// Longest time between two checkpoints while writes come in.
    pub checkpoint_interval: Duration,
    /// How much log is kept for members that are away.
    pub retention: Retention,
    /// Size of one segment of the log, in bytes.
    pub wal_segment_bytes: u64,
    /// redb's page cache, in bytes.
    pub store_cache_bytes: usize,
    /// The state file is rebuilt when more than half of it is free, and at least so many bytes.
    pub rebuild_free_bytes_min: u64,
    /// Most bytes of snapshots that are sent to other members in a second, above 0.
    pub snapshot_bytes_per_second: u64,
    /// A leader whose disk takes longer than this for one sync hands its leadership over.
    pub disk_stall_limit: Duration,
    /// How divergence and decay of the state are looked for.
    pub integrity: Integrity,
    /// How much room the node may take.
    pub space: SpaceLimits,
    /// The build's version, told to clients and peers.
    pub version: String,
}

/// One of the members that found a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// The member's name.
    pub name: String,
    /// `host:port` at which its peers reach it.
    pub peer_address: String,
}

/// How a node on a fresh data directory comes into a cluster that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// `host:port` at which peers reach members of the cluster; one that answers is enough.
    pub addresses: Vec<String>,
    /// It goes on learning and never votes, unless it was added as a voter before.
    pub as_learner: bool,
}

/// A shared secret. Never shown: its debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The clock's settings. All voters should run with the same ones; they may be changed by a rolling restart, since the
/// safe age of a leader lease is computed from the smallest that the voters tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// How long a follower grants nobody else its vote after it heard from its leader, and a leader may act as the only
    /// one after a majority answered it.
    pub leader_lease: Duration,
}

impl Timing {
    /// Settings for nodes in one place: tolerates stalls of a sync below 300 ms.
    pub const LOCAL: Timing =
        Timing { heartbeat: Duration::from_millis(80), leader_lease: Duration::from_millis(400) };

    /// Settings for nodes far apart, or for disks that stall for a second.
    pub const WIDE_AREA: Timing =
        Timing { heartbeat: Duration::from_millis(300), leader_lease: Duration::from_millis(2_000) };

    /// The shortest time after which a follower campaigns once its grant has ended; when it does is drawn at random.
    #[must_use]
    pub fn election_timeout_min(&self) -> Duration {
        self.leader_lease / 4
    }

    /// The longest one. openraft has one setting for it and for the leader lease.
    #[must_use]
    pub fn election_timeout_max(&self) -> Duration {
        self.leader_lease
    }

    /// The shortest leader lease that a node accepts, and what is assumed of a voter that has not told its own.
    pub const LEADER_LEASE_MIN: Duration = Duration::from_millis(200);
}

impl Default for Timing {
    fn default() -> Self {
        Timing::LOCAL
    }
}

/// How much log is kept beyond the last checkpoint for members that are away. Beyond it they will need a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Most bytes kept.
    pub bytes: u64,
    /// Longest time kept.
    pub time: Duration,
}

impl Config {
    /// The usual rate of snapshots.
    pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 64 << 20;
    /// The usual time after which a leader's disk counts as stalled.
    pub const DISK_STALL_LIMIT: Duration = Duration::from_secs(2);

    /// A node of this name that knows of no other.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn sample(name: &str) -> Config {
        Config {
            name: name.to_owned(),
            advertise_peer: format!("{name}:1"),
            client_urls: Vec::new(),
            founders: Vec::new(),
            join: None,
            peer_secret: None,
            timing: Timing::default(),
            checkpoint_interval: Duration::from_secs(30),
            retention: Retention::default(),
            wal_segment_bytes: 64 << 20,
            store_cache_bytes: 4 << 20,
            rebuild_free_bytes_min: 64 << 20,
            snapshot_bytes_per_second: Config::SNAPSHOT_BYTES_PER_SECOND,
            disk_stall_limit: Config::DISK_STALL_LIMIT,
            integrity: Integrity::default(),
            space: SpaceLimits::default(),
            version: "0".to_owned(),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention { bytes: 256 << 20, time: Duration::from_secs(600) }
    }
}

/// How divergence and decay of the state are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integrity {
    /// Time between two comparisons of the members' hashes by the leader.
    pub compare_interval: Duration,
    /// Hashes are remembered, and compared, at entries whose index is a multiple of this. Members with another one compare
    /// what they have in common.
    pub hash_step: u64,
    /// Time between two scrubs of the whole state.
    pub scrub_interval: Duration,
    /// Most bytes a second that a scrub reads.
    pub scrub_bytes_per_second: u64,
}

impl Default for Integrity {
    fn default() -> Self {
        Integrity {
            compare_interval: Duration::from_secs(5),
            hash_step: ringfence_store::HASH_STEP,
            scrub_interval: Duration::from_secs(24 * 3600),
            scrub_bytes_per_second: 32 << 20,
        }
    }
}

/// What came of a scrub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrubVerdict {
    /// The whole state is what was applied.
    Sound {
        /// The revision that was looked at.
        revision: Revision,
        /// What was read.
        progress: ScrubProgress,
    },
    /// Something is not what was applied; the node has left its service.
    Damaged {
        /// What was found.
        reason: String,
        /// What was read until then.
        progress: ScrubProgress,
    },
    /// Compaction passed it again and again: there is no verdict.
    Overtaken,
}

/// Why a node does not start, or has stopped. Each is an exit code of its own.
#[derive(Debug, Clone, Error)]
pub enum Failure {
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// The data directory belongs to another node or cluster, or a peer proved that this one does.
    #[error("{0}")]
    Identity(String),
    /// The peer address cannot be listened on.
    #[error("cannot listen for peers on {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// The system's reason.
        reason: String,
    },
    /// The log is damaged where it must not be.
    #[error("{0}")]
    LogCorrupt(String),
    /// The state file is damaged.
    #[error("{0}")]
    StateCorrupt(String),
    /// The disk refused a write, a read or a sync; a failed sync is never tried again.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// openraft stopped, or an invariant of the protocol does not hold: a bug, and the node must not go on.
    #[error("consensus stopped: {0}")]
    Consensus(String),
}

/// Why a write was not answered with an outcome. Whether it may have happened is the point of each variant.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum ProposeError {
    /// No leader is known. Not applied.
    #[error("no leader is known")]
    NoLeader {
        /// Since when this node is read-only, if it is.
        read_only: Option<ReadOnly>,
    },
    /// This node leads, but its leader lease has run out: it cannot reach a majority. Not applied.
    #[error("the leader lease has run out: {0}")]
    NoLease(ReadOnly),
    /// The node is starting, stopping, or handing its leadership over. Not applied.
    #[error("{0}")]
    NotReady(String),
    /// Too many writes wait already. Not applied.
    #[error("too many writes wait: {0}")]
    Overloaded(String),
    /// The leader has no room for what the write would store. Not applied.
    #[error("there is no room: {0}")]
    NoSpace(String),
    /// The command is larger than an entry may be. Not applied.
    #[error("the request is too large: {size} bytes, at most {max}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// The deadline passed before the write was handed to Raft. Not applied.
    #[error("the deadline passed before the write was proposed")]
    DeadlineBefore,
    /// The deadline passed after the write was handed to Raft. Unknown.
    #[error("the deadline passed while the write was under way")]
    DeadlineAfter,
    /// The leadership changed while the write was under way. Unknown.
    #[error("the leadership was lost while the write was under way")]
    LeadershipLost,
    /// The connection to the leader broke while the write was under way. Unknown.
    #[error("the connection to the leader broke while the write was under way")]
    ForwardBroken,
    /// The node failed while the write was under way. Unknown.
    #[error("the node stopped while the write was under way: {0}")]
    Stopped(String),
}

impl ProposeError {
    /// Whether the write is surely not applied.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            ProposeError::NoLeader { .. }
            | ProposeError::NoLease(_)
            | ProposeError::NotReady(_)
            | ProposeError::Overloaded(_)
            | ProposeError::NoSpace(_)
            | ProposeError::TooLarge { .. }
            | ProposeError::DeadlineBefore => true,
            ProposeError::DeadlineAfter
            | ProposeError::LeadershipLost
            | ProposeError::ForwardBroken
            | ProposeError::Stopped(_) => false,
        }
    }
}

/// Why a read was not answered. A read changes nothing, so each may be tried again.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum BarrierError {
    /// No leader is known.
    #[error("no leader is known")]
    NoLeader {
        /// Since when this node is read-only, if it is.
        read_only: Option<ReadOnly>,
    },
    /// No majority answered.
    #[error("no majority of the voters answers: {0}")]
    NoQuorum(ReadOnly),
    /// The node is starting or stopping.
    #[error("{0}")]
    NotReady(String),
    /// The node is in state quarantine: what it has is not to be believed.
    #[error("{0}")]
    StateQuarantine(String),
    /// Too many reads wait already.
    #[error("too many reads wait: {0}")]
    Overloaded(String),
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The causal token is of another cluster: its position means nothing here.
    #[error("the causal token {token} is of another cluster than this one, which is {own:016x}")]
    OtherCluster {
        /// The token.
        token: CausalToken,
        /// This cluster's id.
        own: u64,
    },
    /// This node had not seen what the owner of the token has when the deadline passed.
    #[error("this member has not caught up with the causal token {0} yet")]
    Behind(CausalToken),
    /// The revision asked for does not exist yet, and did not come to exist before the deadline.
    #[error("{0}")]
    Rejected(Rejection),
}

/// That a node refuses writes, since when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOnly {
    /// How long ago it began.
    pub since: Duration,
    /// The reason, in plain words.
    pub reason: String,
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read-only since {:.1} s: {}", self.since.as_secs_f64(), self.reason)
    }
}

/// Why leadership was not handed over. It may still change hands after `Timeout`.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum TransferError {
    /// This node does not lead.
    #[error("this node is not the leader")]
    NotLeader,
    /// The target is no voter, or is this node itself.
    #[error("node {0} is no other voter of this cluster")]
    BadTarget(NodeId),
    /// The target lags or is silent.
    #[error("node {target} cannot take over: {reason}")]
    NotReady {
        /// The target.
        target: NodeId,
        /// What it lacks.
        reason: String,
    },
    /// No new leader was seen in time.
    #[error("node {0} did not take over in time")]
    Timeout(NodeId),
}

/// Why a change of members was not made, or is not in force yet.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum MemberError {
    /// An address is none. Not applied.
    #[error("{0}")]
    Invalid(String),
    /// It would leave too few healthy voters. Not applied.
    #[error("{0}")]
    NotEnoughHealthy(String),
    /// The member is not close enough to the leader to vote. Not applied.
    #[error("member {id} cannot vote yet: {reason}")]
    NotInSync {
        /// The member.
        id: NodeId,
        /// What it lacks.
        reason: String,
    },
    /// The member votes already. Not applied.
    #[error("member {0} is no learner: it votes already")]
    NotLearner(NodeId),
    /// Every member refuses it in the same way. Not applied.
    #[error("{0}")]
    Rejected(Rejection),
    /// It did not get into the log, or nobody knows whether it did.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// It is written down and will be carried out; the deadline passed before that.
    #[error("the change of member {0} is written down and under way, but not in force yet")]
    Unfinished(NodeId),
}

/// A node's part in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows.
    Follower,
    /// It campaigns.
    Candidate,
    /// It follows without a vote.
    Learner,
}

impl Role {
    /// The role in one word, as it is shown to people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
        }
    }
}

/// What a node tells about itself at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// The cluster's number; 0 until the cluster has formed.
    pub cluster_id: u64,
    /// This node's number.
    pub node: NodeId,
    /// This node's name.
    pub name: String,
    /// The build's version.
    pub version: String,
    /// Its part in Raft.
    pub role: Role,
    /// The leader that it knows and has heard from within the leader lease.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: Term,
    /// The last entry in its log.
    pub last_log: Option<Index>,
    /// The last entry that it knows to be committed.
    pub committed: Option<Index>,
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The store's revision.
    pub revision: Revision,
    /// The last entry that the state file holds.
    pub checkpointed: Option<LogId>,
    /// The last entry dropped from the log.
    pub purged: Option<Index>,
    /// Set while the node refuses writes.
    pub read_only: Option<ReadOnly>,
    /// What is wrong with the cluster, as far as this node has applied it.
    pub alarms: Vec<Alarm>,
    /// Set while the node is kept out of a part of its work.
    pub quarantine: Option<Quarantine>,
    /// What is left of the leader lease; on a leader alone, and only while it holds.
    pub leader_lease_left: Option<Duration>,
    /// The lease clock as far as this node knows it.
    pub lease_clock: LeaseTime,
    /// The number of leases in force.
    pub leases: usize,
    /// The members in the configuration in force.
    pub members: Vec<MemberStatus>,
    /// Leaders seen since the process started.
    pub leader_changes: u64,
    /// Counters of proposals.
    pub proposals: ProposalCounts,
    /// Bytes of the state file.
    pub state_file_bytes: u64,
    /// Bytes of it in use.
    pub state_in_use_bytes: u64,
    /// Rebuilds of the state file since the process started.
    pub state_rebuilds: u64,
    /// Bytes of disk that these rebuilds have given back.
    pub state_bytes_given_back: u64,
    /// Bytes of rows that wait in memory for a checkpoint.
    pub head_bytes: u64,
    /// How the node stands with its room.
    pub space: SpaceStatus,
    /// How far history is compacted.
    pub compaction: CompactionStatus,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// What is known of divergence and decay.
    pub integrity: IntegrityStatus,
    /// Time that syncs of the log took.
    pub log_sync: Histogram,
    /// Time that checkpoints took.
    pub checkpoint: Histogram,
    /// Time that writes of this node spent, from proposal to answer.
    pub propose: Histogram,
}

/// How far history is compacted on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionStatus {
    /// The oldest revision that can be read; 0 while nothing was compacted.
    pub revision: Revision,
    /// Whether the state file has been freed of all that compaction removes.
    pub is_swept: bool,
    /// Versions of keys that have been removed since the process started.
    pub versions_removed: u64,
}

/// What a node knows of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port` at which peers reach it.
    pub peer_address: String,
    /// Whether it votes.
    pub is_voter: bool,
    /// On a leader: the last entry known to be in its log.
    pub matched: Option<Index>,
    /// On a leader: how long ago the newest message that it answered was sent.
    pub answered_ago: Option<Duration>,
    /// Whether the log no longer holds what this member needs: it waits for a snapshot.
    pub behind_retention: bool,
    /// On a leader: how far the snapshot is that it sends to this member, while it does.
    pub snapshot: Option<Transfer>,
    /// Why there is no connection with it, where it refuses this node or this node refuses it.
    pub refusal: Option<String>,
}

/// How far a snapshot that is sent to a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that the member has.
    pub sent: u64,
    /// Bytes of the whole.
    pub total: u64,
}

/// What a node knows of divergence and decay, since its process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntegrityStatus {
    /// Hashes of other members that this node has compared as their leader.
    pub hashes_compared: u64,
    /// Other members' states that this node has rebuilt as their leader.
    pub states_rebuilt: u64,
    /// Scrubs of this node's state that have ended.
    pub scrubs: u64,
    /// How long ago the last one ended.
    pub scrubbed_ago: Option<Duration>,
}

/// Counters of the writes that this node proposed, since its process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProposalCounts {
    /// Waiting now.
    pub pending: u64,
    /// Answered with an outcome.
    pub answered: u64,
    /// Ended without an outcome.
    pub failed: u64,
}

/// A histogram of durations with buckets of powers of two, as Prometheus wants it: cumulative counts at upper bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds in seconds, with the number of samples at or below each.
    pub buckets: Vec<(f64, u64)>,
    /// Number of samples.
    pub count: u64,
    /// Sum of all samples in seconds.
    pub sum_seconds: f64,
}
