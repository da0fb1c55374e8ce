//! The vocabulary of Ringfence, spoken by every other crate: keys and revisions, positions in the log, commands and
//! their outcomes, events, and the limits that bound them.
//!
//! Nothing here does I/O, reads a clock or can be serialised: only `ringfence-proto` turns these types into bytes and
//! back. Reading order: [`position`] (where in the log), [`key`] (what is stored), [`query`] and [`token`] (what is asked, and how far somebody has seen),
//! [`lease`] and [`fence`] (what writes may hang on), [`command`] and [`claim`] (what is replicated, and what room it needs), [`member`] (who belongs to the cluster),
//! [`outcome`] and [`ack`] (what comes back, and when), [`limits`] (how much of it).

pub mod ack;
pub mod claim;
pub mod command;
pub mod fence;
pub mod key;
pub mod lease;
pub mod limits;
pub mod member;
pub mod outcome;
pub mod position;
pub mod query;
pub mod token;

pub use ack::{Ack, Acks};
pub use claim::Claim;
pub use command::{
    Alarm, AlarmKind, Command, Compare, CompareOperator, CompareTarget, Conditional, DeleteRange,
    GuardChange, LeaseCommand, Operation, Put, PutLease, PutValue, Txn, Write,
};
pub use fence::{Fence, Guard, Holder, Scope, SessionStamp};
pub use key::{KeyRange, KeyValue, LeaseId, RangeEnd, Revision};
pub use lease::{Grant, Lease, LeaseTime};
pub use member::{Member, MemberChange, Wanted};
pub use outcome::{
    Applied, DeleteRangeReply, Event, EventKind, Outcome, PutReply, RangeReply, Rejection, Reply, Resolution,
    TxnReply,
};
pub use position::{Index, LogId, NodeId, Term};
pub use query::{Freshness, RangeQuery, SortOrder, SortTarget};
pub use token::{CausalToken, MalformedToken};
