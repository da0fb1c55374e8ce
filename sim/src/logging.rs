//! Logs of simulated nodes, with the simulation's time and host in front of each line.

use std::fmt;

use ringfence_consensus::rt::simulated as executor;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let time = executor::true_time();
        let host = executor::host().0;
        write!(writer, "{:>4}.{:09} n{host}", time / 1_000_000_000, time % 1_000_000_000)
    }
}

/// Prints what is logged from now on, as `RUST_LOG` says; without it, from `info` on.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_timer(SimulatedTime).with_ansi(false).init();
}
