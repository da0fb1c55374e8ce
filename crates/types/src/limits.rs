//! The bounds of everything that could grow: requests, batches and queues. Each queue in the system is named here.

use std::time::Duration;

/// Largest client request, in encoded bytes (etcd's default).
pub const REQUEST_BYTES_MAX: usize = 3 * 512 * 1024;
/// Largest message that a client connection accepts: a request with room for its envelope.
pub const GRPC_MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;
/// Most operations in each list of a transaction, nested ones counted apart, as in etcd.
pub const TXN_OPERATIONS_MAX: usize = 128;
/// Deepest nesting of transactions.
pub const TXN_DEPTH_MAX: usize = 16;

/// Most writes waiting for Raft on one node; beyond it they are refused as too many.
pub const PROPOSALS_WAITING_MAX: usize = 8_192;
/// Most bytes of writes waiting for Raft on one node.
pub const PROPOSAL_BYTES_WAITING_MAX: usize = 256 << 20;
/// As many more may wait of what lets rights last or end: leases' renewals and ends go on while other writes are too many.
pub const LEASE_PROPOSALS_RESERVED: usize = 1_024;
/// Most commands handed to Raft in one wake-up.
pub const PROPOSE_BATCH_MAX: usize = 512;
/// Most reads waiting for a read barrier on one node.
pub const READS_WAITING_MAX: usize = 65_536;

/// Most bytes of keys and values in the answer to one write: every member refuses the same ones, and a frame between peers holds
/// any answer.
pub const WRITE_ANSWER_BYTES_MAX: u64 = 8 << 20;
/// Bytes counted for each key in an answer beside those of the key and its value.
pub const ANSWER_KEY_OVERHEAD_BYTES: u64 = 32;
/// Most bytes of keys and values in a write that may use the space kept for locks and sessions when the quota is reached.
pub const RIGHTS_WRITE_BYTES_MAX: usize = 4 << 10;

/// Largest entry in the log: a request with room for its envelope.
pub const ENTRY_BYTES_MAX: usize = REQUEST_BYTES_MAX + 64 * 1024;
/// Soft bound on the bytes that one write of the log joins; a batch always holds at least one record.
pub const WAL_BATCH_BYTES_MAX: usize = 8 << 20;
/// Most bytes of entries in one message to a peer; at least one entry always goes.
pub const APPEND_BYTES_MAX: usize = 1 << 20;
/// Most messages to one peer that wait for an answer on the replication channel.
pub const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Most forwarded writes without an answer on one channel to the leader.
pub const FORWARDS_IN_FLIGHT_MAX: usize = 8_192;
/// Largest frame between peers.
pub const PEER_FRAME_BYTES_MAX: usize = 16 << 20;
/// Largest frame of a handshake, the only frame read from a peer before it has shown who it is.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 4 << 10;
/// Most peer connections at once; founding members need four each, so this is far above any lawful use.
pub const PEER_CONNECTIONS_MAX: usize = 256;
/// Nodes outside the membership of which a node remembers anything; beyond it the oldest are forgotten.
pub const STRANGERS_MAX: usize = 64;
/// Bytes of a snapshot in one chunk.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 << 10;

/// Most members of a cluster, learners and those that have not started yet included.
pub const MEMBERS_MAX: usize = 128;
/// Most addresses of one kind that a member may have, and the longest of them in bytes.
pub const MEMBER_URLS_MAX: usize = 8;
/// The longest name or address of a member, in bytes.
pub const MEMBER_TEXT_BYTES_MAX: usize = 1 << 10;

/// The shortest lease, in seconds; a shorter one asked for is made this long, and the answer says so.
pub const LEASE_TTL_SECONDS_MIN: u64 = 2;
/// The longest lease, in seconds, as in etcd.
pub const LEASE_TTL_SECONDS_MAX: u64 = 9_000_000_000;
/// Most keys that may hang on one lease: they end together, in one entry.
pub const LEASE_KEYS_MAX: u32 = 10_000;
/// Most leases that one entry renews.
pub const LEASES_RENEWED_AT_ONCE_MAX: usize = 4_096;
/// Most keep-alives waiting for an entry on one member; further ones wait with their callers.
pub const RENEWALS_WAITING_MAX: usize = 16_384;
/// Most leases that one entry ends.
pub const LEASES_ENDED_AT_ONCE_MAX: usize = 256;

/// Most fences that a write may carry.
pub const FENCES_MAX: usize = 16;
/// The longest name or key of a scope, and the longest key that bounds a guard, in bytes: refusals name them.
pub const SCOPE_BYTES_MAX: usize = 1 << 10;
/// The longest value of metadata in which an answer says what was checked; clients bound what they take of metadata.
pub const CHECKED_METADATA_BYTES_MAX: usize = 4 << 10;
/// Most guards of a cluster: each write is held against all of them.
pub const GUARDS_MAX: usize = 1_024;
/// Most answers that are kept of a session, and so most writes of it that may be under way.
pub const SESSION_ANSWERS_MAX: u64 = 256;
/// Most bytes of answers that are kept of a session.
pub const SESSION_BYTES_MAX: u64 = 1 << 20;
/// The largest answer that is kept whole.
pub const SESSION_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Longest that a client's request may wait for Raft when the client names no deadline of its own.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

const _: () = assert!(ENTRY_BYTES_MAX < WAL_BATCH_BYTES_MAX, "a batch must be able to hold any entry");
const _: () =
    assert!(ENTRY_BYTES_MAX + APPEND_BYTES_MAX < PEER_FRAME_BYTES_MAX, "a frame must hold any append");
const _: () = assert!(
    (WRITE_ANSWER_BYTES_MAX as usize) + 2 * REQUEST_BYTES_MAX < PEER_FRAME_BYTES_MAX,
    "a frame must hold any answer"
);
const _: () = assert!(PROPOSE_BATCH_MAX <= PROPOSALS_WAITING_MAX, "a batch is taken from the queue");
