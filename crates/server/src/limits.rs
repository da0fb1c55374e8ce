//! The bounds of what clients can make the server hold.

use std::time::Duration;

use ringfence_types::limits::GRPC_MESSAGE_BYTES_MAX;

/// Most client connections at once; further ones wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Most calls at once on one connection.
pub(crate) const CALLS_PER_CONNECTION_MAX: u32 = 4_096;
/// Most reads of more than a few keys at once; further ones wait.
pub(crate) const LONG_READS_MAX: usize = 32;
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
