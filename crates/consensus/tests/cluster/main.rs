//! Whole clusters of nodes in one process: real consensus, log and store, on simulated disks and an in-memory network
//! whose links can be cut.

mod fabric;
mod handover;
mod integrity;
mod leases;
mod members;
mod minority;
mod snapshots;
mod starts;
mod support;
