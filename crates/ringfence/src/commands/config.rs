//! `ringfence config`: work with configuration files of `serve`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::commands::serve::plan::Plan;
use crate::commands::serve::settings::Settings;
use crate::exit::Failure;
use crate::output::print_table;

/// Work with configuration files of `serve`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check a configuration file without starting anything, and show what a node would do with it. Flags and environment
    /// are left out of it. Exits with 10 where `serve` would.
    Check {
        /// The file.
        file: PathBuf,
    },
}

impl Config {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Config::Check { file } = self;
        let plan = Plan::new(Settings::read(&file)?)?;
        let consensus = &plan.consensus;
        let founders: Vec<String> = consensus
            .founders
            .iter()
            .map(|founder| format!("{}={}", founder.name, founder.peer_address))
            .collect();
        let row = |name: &str, value: String| [name.to_owned(), value];
        let rows = [
            row("name", consensus.name.clone()),
            row("data-dir", plan.data_dir.display().to_string()),
            row("listen-client", plan.listen_client.to_string()),
            row("listen-peer", plan.listen_peer.to_string()),
            row("advertise-client", consensus.client_urls.join(",")),
            row("advertise-peer", consensus.advertise_peer.clone()),
            row("initial-cluster", founders.join(",")),
            row("peer secret", if consensus.peer_secret.is_some() { "yes" } else { "no" }.to_owned()),
            row("heartbeat-interval", format!("{:?}", consensus.timing.heartbeat)),
            row("leader-lease", format!("{:?}", consensus.timing.leader_lease)),
            row("checkpoint-interval", format!("{:?}", consensus.checkpoint_interval)),
            row("log-retention-bytes", consensus.retention.bytes.to_string()),
            row("log-retention-time", format!("{:?}", consensus.retention.time)),
            row("log-segment-size", consensus.wal_segment_bytes.to_string()),
            row("store-cache-size", consensus.store_cache_bytes.to_string()),
            row("rebuild-free-size", consensus.rebuild_free_bytes_min.to_string()),
            row("snapshot-rate", consensus.snapshot_bytes_per_second.to_string()),
            row("disk-stall-limit", format!("{:?}", consensus.disk_stall_limit)),
            row("quota-bytes", consensus.space.quota_bytes.to_string()),
            row("disk-low-size", consensus.space.disk_low_bytes.to_string()),
            row("disk-reserve-size", consensus.space.disk_reserve_bytes.to_string()),
            row("compact-keep-age", format!("{:?}", plan.history.keep_age)),
            row("compact-keep-revisions", plan.history.keep_revisions.to_string()),
            row("answer-bytes-max", plan.limits.answer_bytes.to_string()),
            row("calls-max", plan.limits.calls.to_string()),
            row("connection-calls-max", plan.limits.connection_calls.to_string()),
            row("streams-max", plan.limits.streams.to_string()),
            row("connection-streams-max", plan.limits.connection_streams.to_string()),
            row("request-bytes-max", plan.limits.bytes.to_string()),
            row("connection-request-bytes-max", plan.limits.connection_bytes.to_string()),
            row("runtime-threads", plan.runtime_threads.to_string()),
        ];
        print_table(["SETTING", "VALUE"], &rows)
    }
}
