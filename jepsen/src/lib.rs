//! The harness: real server processes under real faults, and the histories of real clients checked.

pub mod calendar;
pub mod canary;
pub mod checks;
pub mod client;
pub mod directory;
pub mod load;
pub mod nemesis;
pub mod record;
pub mod report;
pub mod run;
pub mod soak;
pub mod workload;
pub mod world;
