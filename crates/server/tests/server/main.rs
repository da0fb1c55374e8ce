//! The clients' side of real nodes in this process, over real sockets: one binary, since each costs a link of everything.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

mod answers;
mod auth;
mod etcd_errors;
mod fencing;
mod gateway;
mod harness;
mod history;
mod leases;
mod locks;
mod one_node;
mod overload;
mod quota;
mod three_nodes;
mod watches;
mod watches_of_three;
mod watching;
