//! The simulator: whole clusters of the real consensus, log and store on simulated time, network and disks, from a seed.
//!
//! Nothing of the product is replaced but what it stands on: the runtime behind `consensus::rt`, the `Network` and the
//! `Disk`. The wire's frames, handshakes and channels are the real ones. The same seed gives the same run, step for step.
//!
//! Reading order: [`run`] (one run from beginning to end), [`schedule`] and [`nemesis`] (what goes wrong), [`scenarios`] (what goes wrong where one
//! counter-measure is missing), [`clients`] (who
//! looks on from outside), [`rights`] (leases, locks and fences, from outside and from inside), [`invariants`] (what must hold inside), [`world`] (machines and network), [`sweep`] and
//! [`shrink`] (many runs, and the shortest that fails).

pub mod clients;
pub mod invariants;
pub mod logging;
pub mod nemesis;
pub mod rights;
pub mod run;
pub mod scenarios;
pub mod schedule;
mod server;
pub mod shrink;
pub mod sweep;
pub mod world;
