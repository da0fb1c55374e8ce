//! The log: append-only, checksummed, in preallocated and recycled segments. It keeps opaque entries and two opaque
//! registers and knows nothing of Raft. It owns no thread and reads no clock.
//!
//! Reading order: [`Log`], then `layout` (everything on disk), `history` (what durable records amount to), `flush`,
//! `recovery`, `segment` and `spares`.
//!
//! # Torn or corrupt
//!
//! One batch is one write and one sync, and a batch is written only after the sync of the one before has returned. So
//! at any moment at most one batch, the last, may be on disk in part; each one before it has been durable. If the
//! place where batch *n* should be holds no valid batch, then
//!
//! - *n* was torn by a crash (or never written), and is cut off whole, if no valid batch with a higher number exists
//!   in the segment behind that place or in a later one;
//! - else *n* had been synced, and the disk has lost it: the log is corrupt, opening fails and nothing is patched.
//!
//! Damage that hits the very last batch after it was synced cannot be told from a torn one by the log alone; nodes
//! tell it by comparing their last log ids.
//!
//! # Why the remains of a torn batch are never mistaken
//!
//! A valid batch has right checksums over header and payload, the incarnation of its segment, a header checksum that
//! is salted, and it names its predecessor's number and checksum. So what could be mistaken is
//!
//! - *a batch of an earlier use of the file*: it has another incarnation;
//! - *the payload of an entry that looks like a batch*: it would need the salt;
//! - *the header of the torn batch, completed by the payload of the next batch that is written to the same place and
//!   torn in its turn*: opening zeroes the block of the torn header, durably, before it returns. In one incarnation
//!   headers are written at growing places, each after the one before was durable, so the block where the log ends is
//!   the only one with a header that is in doubt (or the first block of a later segment, which is zeroed too);
//! - *the torn batch itself, found valid at a later opening*: it had been invalid at the first one and no block of it
//!   has been written since, but for the zeros. If it should become valid while the zeros are being written, then before
//!   the opening has returned and anybody has been told anything.
//!
//! A batch that is found valid though its sync never returned counts as written: before opening returns it is written
//! once more at its place and synced, because after a sync that failed the operating system takes unwritten pages for
//! written ones, and a plain sync would do nothing.
//!
//! # Segments
//!
//! A segment gets its numbered name only after its header is durable, is used in the order of the numbers, and loses its
//! name before it is recycled under a higher one. Its first batch restates the range of entries before it, the purge
//! mark and the vote. Older segments are needed only for entries that are still in the log: a gap in the numbers is
//! corruption exactly if entries are missing after it.

mod cache;
mod error;
mod flush;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod history;
mod layout;
mod log;
mod options;
mod recovery;
mod segment;
mod spares;
mod state;

pub use error::WalError;
pub use log::{Entry, Log, Stats, Ticket};
pub use options::Options;
