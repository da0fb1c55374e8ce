//! What the black-box tests are made of: real processes of the built program on real ports and real disks.
//!
//! Reading order: [`binary`] (where the program is), [`process`] (a child that ends with its test), [`marks`] (all that
//! descends from a command), [`ports`] (addresses that no other test has), [`node`] and [`cluster`] (nodes started as an
//! operator would start them), [`cli`] (the program run as a command), [`http`] (one plain request), [`load`] (a client that
//! remembers what was acknowledged), [`power`] (file systems whose power can be cut), [`syncs`] (disks that take their time),
//! [`wait`] (waiting for a fact, with a deadline).

pub mod binary;
pub mod cli;
pub mod cluster;
pub mod http;
pub mod load;
pub mod marks;
pub mod node;
pub mod ports;
pub mod power;
pub mod process;
pub mod records;
#[path = "../jepsen/shim/src/block.rs"]
pub mod shim_block;
pub mod skip;
pub mod syncs;
pub mod wait;
