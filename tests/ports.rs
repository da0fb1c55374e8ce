//! Ports that no other test has, in this process or another.
//!
//! A node that is killed and started again must find its ports free. The system hands out ports of its ephemeral range to
//! every outgoing connection, so what it gives for port 0 may be taken in between; hence ports below that range, in blocks,
//! each held by a lock on a file.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;

use crate::process;

/// Ports in a block: room for nine nodes as `ringfence dev` lays them out.
const BLOCK: u16 = 100;
/// Where the first block begins.
const FIRST: u16 = 11_000;
/// Where the system's ephemeral range begins if it does not tell.
const EPHEMERAL: u16 = 32_768;

/// A block of free ports on loopback, held until this is dropped.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    _lock: File,
}

impl Ports {
    /// Takes a block of which every port is free.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn take() -> Ports {
        let directory = std::env::temp_dir().join("ringfence-test-ports");
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let mut first = FIRST;
        while first + BLOCK <= ephemeral() {
            let lock = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(directory.join(first.to_string()))
                .expect("the temporary directory is writable");
            // SAFETY: the descriptor is that of `lock`, which is open.
            let held = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
            if held && (first..first + BLOCK).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                process::forks_done();
                return Ports { first, _lock: lock };
            }
            first += BLOCK;
        }
        panic!("no block of {BLOCK} ports is free below {}", ephemeral());
    }

    /// The first port of the block, which is what `ringfence dev --base-port` takes.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The address of the port so far behind the first.
    #[must_use]
    pub fn address(&self, offset: u16) -> String {
        assert!(offset < BLOCK, "port {offset} lies outside the block");
        format!("127.0.0.1:{}", self.first + offset)
    }
}

fn ephemeral() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(EPHEMERAL)
}
