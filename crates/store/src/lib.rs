//! The state machine: commands go in, outcomes come out, and every reader sees one state at one applied index.
//!
//! The state is a *head* in memory over a *base* in one redb file. [`Store::apply`] puts new rows into the head and
//! syncs nothing: the log is the durability of a write. [`Store::checkpoint`], on a thread of its own, freezes the head,
//! merges it in key order into the base in one synced transaction and drops it; neither apply nor reads wait for it. The
//! reason is measured (`examples/apply_bench.rs`): a put straight into redb's tables costs many times what it costs in
//! memory, and the commits of such puts stop everybody.
//!
//! A [`View`] is the head, the frozen head and a snapshot of the base at one applied index. Rows are never changed in
//! place, so a view stays exact for as long as it is held; hold it briefly all the same, since what it sees cannot be
//! freed.
//!
//! Nothing here knows threads, time, Raft or gRPC, and nothing outside this crate knows redb.
//!
//! Reading order: `layout` (what lies in the file), `row` and `hash` (what a row is and how it is hashed), `state` (the
//! logical meta), `file`, `head` and `base` (the two halves), `warm` (what is read often),
//! `sources` (all of it, merged), `read` (ranges), `key_history`, `transaction` and
//! `apply` (commands), `records`, `leases`, `lease_table`, `candidates`, `fences` and `sessions` (what writes may hang on), `store`, `checkpoint`, `compaction`, `snapshot`, `space` and `rebuild`, `marks` and `scrub` (how
//! divergence and decay show).

mod apply;
mod backend;
mod base;
mod base_cursor;
mod budget;
mod candidates;
mod checkpoint;
mod compaction;
mod error;
mod events;
mod fences;
mod file;
mod hash;
mod head;
mod key_history;
mod layout;
mod lease_table;
mod leases;
mod marks;
mod meta;
mod options;
mod read;
mod rebuild;
mod record_layout;
mod records;
mod rights;
mod roster;
mod row;
mod scrub;
mod sessions;
mod snapshot;
pub mod snapshot_file;
mod sources;
mod space;
mod state;
mod store;
mod transaction;
mod versions;
mod view;
mod warm;

pub use apply::{Entry, Payload};
pub use error::{ReadError, StoreError};
pub use events::{EventChunk, EventQuery};
pub use file::{PAGES_CONTRADICT, PanicCause, cause_of_panic};
pub use hash::StateHash;
pub use key_history::KeyVersions;
pub use layout::STATE_FILE;
pub use marks::{HASH_MARKS_MAX, HASH_STEP, HashMark};
pub use options::{Options, Stats};
pub use rebuild::{Progress, Rebuilt};
pub use scrub::{Scrub, ScrubProgress, ScrubStep};
pub use snapshot::{ExaminedSnapshot, SnapshotMeta};
pub use state::Position;
pub use store::Store;
pub use view::{HashKv, ScanChunk, View};
