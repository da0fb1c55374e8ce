//! The bounds of what watches can make the server hold.

use std::time::Duration;

/// Most streams of watches at once on one member.
pub(super) const STREAMS_MAX: usize = 65_536;
/// Most watches on one stream.
pub(super) const WATCHES_PER_STREAM_MAX: usize = 100_000;
/// Most watches on one member.
pub(super) const WATCHES_MAX: usize = 1_000_000;
/// Most bytes of the keys that bound the watches of one member.
pub(super) const WATCHED_BYTES_MAX: usize = 256 << 20;
/// Most bytes of events that wait for one stream; one message may always wait.
pub(super) const OUTBOX_BYTES_MAX: usize = 1 << 20;
/// Most messages of events that wait for one stream.
pub(super) const OUTBOX_MESSAGES_MAX: usize = 8_192;
/// Most bytes of events that wait for all streams of one member.
pub(super) const OUTBOXES_BYTES_MAX: usize = 256 << 20;
/// Soft bounds on what is read of the history at a time: one revision is always read whole.
pub(super) const CHUNK_EVENTS_MAX: usize = 1_000;
/// The same in bytes of keys and values.
pub(super) const CHUNK_BYTES_MAX: usize = 256 << 10;
/// The same in changes that are looked at for one watch.
pub(super) const CHUNK_LOOKED_MAX: usize = 10_000;
/// What an event replaced is looked up where the hub runs for this many events at most; beyond, on a thread that may block.
pub(super) const SHORT_LOOKUPS_MAX: usize = 64;
/// Answers of this size are split where the client asks for fragments, as in etcd.
pub(super) const FRAGMENT_BYTES_MAX: usize = ringfence_types::limits::REQUEST_BYTES_MAX;
/// Pause before a state that cannot be read, or is not believed, is looked at again.
pub(super) const UNREADABLE_PAUSE: Duration = Duration::from_millis(100);
