//! Consensus: openraft over Ringfence's log and state machine, the peers' transport, and the leader lease. The only crate
//! that names openraft; nothing of openraft is visible above it.
//!
//! The floors above have two verbs, [`Node::propose`] and [`Node::read_barrier`], and what an operator needs:
//! [`Node::status`], [`Node::change_member`], [`Node::transfer_leadership`], [`Node::write_snapshot`],
//! [`Node::rebuild_state`], [`Node::shutdown`], [`Node::failed`].
//!
//! Reading order: [`api`] (what is seen from above), `node` (how the parts are put together), `propose` and `read` (the way
//! of a write and of a read), `acks` (what more a caller may wait for), `authority` (who may write), `lease_clock` and `leases` (what leases end by), `raft` (openraft's adapters and the storage gate), `net` (the
//! peers), `identity`, `founding`, `new_history` and `quarantine` (who a node is, how a cluster begins, how out of a dead one,
//! and when a node must not be counted on), `membership` (how it changes), `maintenance`, `space`, `quota` and `watchdog`, `divergence` and
//! `scrubber` (whose state is to be believed), and [`rt`], the
//! runtime under all of it.

mod acks;
pub mod api;
mod authority;
mod campaigning;
mod divergence;
mod failures;
mod founding;
mod freshness;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod lease_clock;
mod leases;
mod maintenance;
mod measure;
mod membership;
mod net;
mod new_history;
mod node;
mod opening;
mod propose;
mod quarantine;
mod quota;
mod raft;
mod read;
mod recovery;
pub mod rt;
mod scrubber;
#[cfg(feature = "simulation")]
pub mod simulation;
mod small_file;
mod space;
mod status;
mod watchdog;

pub use api::{
    BarrierError, CompactionStatus, Config, Failure, Founder, Histogram, Integrity, IntegrityStatus, Join,
    MemberError, MemberStatus, ProposalCounts, ProposeError, Quarantine, QuarantineKind, ReadOnly, Retention,
    Role, ScrubVerdict, Secret, SpaceLimits, SpaceStatus, Status, Timing, Transfer, TransferError,
};
pub use net::{Connection, Network, TcpNetwork};
pub use new_history::{Survey, Survivor};
pub use node::{Node, SnapshotFile};
