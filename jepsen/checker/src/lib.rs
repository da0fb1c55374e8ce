//! What clients saw, and whether a correct database could have shown it to them.
//!
//! Reading order: [`history`] (the form of what was seen), [`operation`], [`verdict`] (what is said about it), [`judge()`]
//! (which questions a history is asked), then one checker a file.
//!
//! Nothing here reads a clock, draws a number or starts a thread: the same history always gets the same answer.

pub mod bank;
pub mod budget;
pub mod counter;
pub mod freshness;
pub mod history;
mod judge;
pub mod leases;
pub mod linearizable;
pub mod list_append;
pub mod locks;
pub mod operation;
pub mod revisions;
pub mod set;
pub mod stale;
pub mod verdict;
pub mod watch;
mod words;

pub use budget::Budget;
pub use freshness::Freshness;
pub use history::{Event, Function, History, Kind};
pub use judge::judge;
pub use operation::{Malformed, Operation, operations};
pub use verdict::{Bar, Counterexample, Finding, Verdict};
