//! The shim that servers under test are started with (`LD_PRELOAD`): it stands between them and the C library, and lets the
//! harness rule their clocks and their disk's manners while they run, through a [control block](block).
//!
//! Reading order: [`block`] (what is ruled, and what is counted), `attach` (the block in this process), `real` (the C library's own
//! functions), `time` (clocks and waits), `disk` (syncs and writes).
//!
//! It is made for programs in Rust that are linked to glibc on x86-64 dynamically: their standard library goes through the
//! functions that are replaced here, and no others, to read a clock, to wait, to sync and to write at a position. Nothing here
//! allocates or panics, since it may be called from anywhere.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!("the shim knows the C library of Linux on x86-64 alone");

mod attach;
pub mod block;
mod disk;
mod real;
mod time;
