//! The store as its callers see it, on simulated disks: one binary, since each costs a link of everything.

mod claims;
mod concurrency;
mod crash;
mod damage;
mod integrity;
mod model;
mod rebuild;
mod rights;
mod semantics;
mod snapshots;
mod support;
