//! The clients' side of real nodes in this process, over real sockets: one binary, since each costs a link of everything.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

mod fencing;
mod harness;
mod leases;
mod locks;
mod one_node;
mod three_nodes;
