//! The bounds of what clients can make the server hold.

use std::time::Duration;

use ringfence_types::limits::GRPC_MESSAGE_BYTES_MAX;

/// What of the bounds can be set. Calls and bytes are those of requests that have begun and are not answered yet; a call that stands
/// (a stream, a wait for a lock) is counted apart from those that are over soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of keys and values in the answer to one plain Range, or to one transaction that only reads.
    pub answer_bytes: u64,
    /// Most calls on one connection that are over soon.
    pub connection_calls: usize,
    /// The same on all connections.
    pub calls: usize,
    /// Most calls on one connection that stand.
    pub connection_streams: usize,
    /// The same on all connections.
    pub streams: usize,
    /// Most bytes of requests on one connection.
    pub connection_bytes: usize,
    /// The same on all connections.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            answer_bytes: 64 << 20,
            connection_calls: 4_096,
            calls: 16_384,
            connection_streams: 4_096,
            streams: 65_536,
            connection_bytes: 64 << 20,
            bytes: 256 << 20,
        }
    }
}

/// Beyond the bounds on calls as many more, in hundredths of them and at least so many, may keep leases alive or end them, or ask how
/// the member stands.
pub(crate) const RESERVED_PERCENT: usize = 10;
pub(crate) const RESERVED_CALLS_MIN: usize = 16;
/// Most client connections at once; further ones wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Most reads of more than a few keys at once; further ones wait.
pub(crate) const LONG_READS_MAX: usize = 16;
/// From this size on an answer is counted until its client has taken it.
pub(crate) const LARGE_ANSWER_BYTES: usize = 1 << 20;
/// Answers of the largest size that may wait to be taken by their clients: of large ones together no more bytes.
pub(crate) const LARGE_ANSWERS_MAX: usize = 4;
/// Most waiters in one answer about a scope.
pub(crate) const INSPECTED_WAITERS_MAX: usize = 1_000;
/// Most copies of the state that are made and sent at once.
pub(crate) const SNAPSHOTS_MAX: usize = 2;
/// A transaction that reads up to this many single keys runs where the call runs; a larger one on a thread that may
/// block.
pub(crate) const SHORT_TXN_KEYS_MAX: usize = 64;
/// Most keys in one message of a streamed range.
pub(crate) const STREAM_CHUNK_KEYS_MAX: usize = 10_000;
/// Soft bound on the bytes in one message of a streamed range; it always holds at least one key.
pub(crate) const STREAM_CHUNK_BYTES_MAX: usize = 512 << 10;
/// Most keep-alives of one call that wait for their answers; further ones wait in the connection.
pub(crate) const KEEP_ALIVES_PER_CALL_MAX: usize = 4_096;
/// Largest HTTP/2 frame that a client may send.
pub(crate) const FRAME_BYTES_MAX: u32 = 1 << 20;
/// What a client may send on one call before it must wait; any request fits.
pub(crate) const CALL_WINDOW_BYTES: u32 = 2 << 20;
/// What a client may send on one connection before it must wait.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// What is kept of answers on one call that the client does not read.
pub(crate) const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// After this long without a sign of life a client is asked for one.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a client may take to answer that.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may take to send the head of a plain HTTP request.
pub(crate) const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the body of a plain HTTP request, or the first message of one that goes on.
pub(crate) const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of JSON that are one request: the largest request in base64, and room for what stands around it.
pub(crate) const GATEWAY_BODY_BYTES_MAX: usize = GRPC_MESSAGE_BYTES_MAX / 3 * 4 + (512 << 10);
/// Most values in the JSON of one request: as many as the largest transaction could have, many times over.
pub(crate) const GATEWAY_PARTS_MAX: usize = 32_768;
/// Largest answer that is written as JSON.
pub(crate) const GATEWAY_ANSWER_BYTES_MAX: usize = 64 << 20;
/// An answer up to this size is written as JSON where the call runs; a larger one on a thread that may block.
pub(crate) const GATEWAY_SMALL_BYTES_MAX: usize = 128 << 10;
/// Most calls at once that wait for a lock, stand for an election or observe one, those included that have ended and whose
/// keys are being removed.
pub(crate) const LOCK_CALLS_MAX: usize = 16_384;
/// Most keys of calls that have ended that are removed at once.
pub(crate) const LOCK_REMOVALS_MAX: usize = 64;
/// Pause between two looks at who holds the locks that somebody waits for.
pub(crate) const HOLDER_LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How often a call that waits for a lock looks whether its session still lives.
pub(crate) const SESSION_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The lease of a lock call that names none, in seconds, as in etcd.
pub(crate) const LOCK_LEASE_TTL_SECONDS: i64 = 60;
/// How long a stopping server lets calls end by themselves.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(
    CALL_WINDOW_BYTES as usize >= GRPC_MESSAGE_BYTES_MAX,
    "the largest request needs no second window"
);
