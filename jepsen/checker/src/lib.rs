//! What clients saw, and whether a correct database could have shown it to them.
//!
//! Reading order: [`history`] (the form of what was seen), [`verdict`] (what is said about it), then one checker a file.

pub mod history;
pub mod verdict;

pub use history::{Event, Function, History, Kind};
pub use verdict::{Bar, Counterexample, Finding, Verdict};
