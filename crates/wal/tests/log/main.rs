//! The log seen from outside: what it does, what it survives, and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod behaviour;
mod corruption;
mod crash;
mod model;
