//! `ringfence bench`: a load generator that speaks the plain etcd v3 API, so that it measures etcd in the same way.
//!
//! It has no knowledge of leaders: a client sends one request after the other on its connection. What surely changed nothing
//! it sends again on the next connection, as any careful client does; after any other error it goes on with the next request
//! there. [`load`] runs the clients, [`work`] makes their requests, [`report`] adds up
//! what they saw.

mod leases;
mod load;
mod preload;
mod report;
mod watch;
mod work;

use clap::{Args, Subcommand};

use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::units::HumanDuration;

/// Measure a cluster: Ringfence, or anything else that speaks the etcd v3 API.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Put random ones of the keys.
    Put(Load),
    /// Get random ones of the keys. Preload them first.
    Get(Load),
    /// Transactions: compare a key's version, then put it.
    Txn(Load),
    /// Gets and puts side by side.
    Mixed(Load),
    /// Store all keys once, in order, as fast as it goes.
    Preload(Preload),
    /// Keep many leases alive, and let others end.
    Leases(Leases),
    /// Put while many watch, and see how long the events take.
    Watch(Watch),
}

/// The load.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Connections, spread over the endpoints in turn.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Clients, spread over the connections; each has one request under way.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    #[command(flatten)]
    keys: Keys,
    /// Time that is measured.
    #[arg(long, default_value = "10", value_parser = parse_seconds)]
    seconds: HumanDuration,
    /// Time before it that is not.
    #[arg(long, default_value = "2", value_parser = parse_seconds)]
    warm_up: HumanDuration,
    /// Gets may be answered from what a node has.
    #[arg(long)]
    serializable: bool,
    /// Keys that one get reads, from a random one on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    range_keys: u64,
    /// Requests a second, all clients together; latencies then count from when a request was due. Without it, each client
    /// sends its next request when the last one is answered.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Of `mixed`: how many of a hundred requests are gets.
    #[arg(long, default_value_t = 75, value_parser = clap::value_parser!(u8).range(0..=100))]
    read_percent: u8,
    /// Of `mixed`: compare before each put, as `txn` does.
    #[arg(long)]
    with_txn: bool,
    /// Random seed of the keys chosen.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object; the same as `--output json`.
    #[arg(long)]
    json: bool,
}

/// The keys that are worked on.
#[derive(Debug, Clone, Args)]
pub(crate) struct Keys {
    /// Bytes of a value.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_500_000))]
    value_size: u32,
    /// Number of keys.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    key_count: u64,
    /// What the keys begin with; a number of twelve digits follows.
    #[arg(long, default_value = "bench/")]
    key_prefix: String,
}

/// The load that stores all keys.
#[derive(Debug, Args)]
pub(crate) struct Preload {
    #[command(flatten)]
    keys: Keys,
    /// Keys in one transaction.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=128))]
    batch: u16,
    /// Transactions under way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// Print one JSON object; the same as `--output json`.
    #[arg(long)]
    json: bool,
}

/// The load of leases.
#[derive(Debug, Args)]
pub(crate) struct Leases {
    /// Leases that are kept alive.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Their time to live, in seconds.
    #[arg(long = "ttl", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(i64).range(2..))]
    ttl_seconds: i64,
    /// How often each of them is kept alive.
    #[arg(long, default_value = "3s")]
    interval: HumanDuration,
    /// Leases a second that are granted for two seconds and let go.
    #[arg(long, default_value_t = 1_000)]
    ends: u32,
    /// Streams, each on a connection of its own, over the endpoints in turn.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1024))]
    streams: u16,
    /// How long they are kept alive.
    #[arg(long, default_value = "20", value_parser = parse_seconds)]
    seconds: HumanDuration,
    /// Print one JSON object; the same as `--output json`.
    #[arg(long)]
    json: bool,
}

/// The load of watchers.
#[derive(Debug, Clone, Args)]
pub(crate) struct Watch {
    /// Watchers, all of one prefix that holds every key.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    watchers: u32,
    /// Each watcher has a key of its own instead; as many keys are put.
    #[arg(long)]
    distinct: bool,
    /// Watchers on one stream.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    per_stream: u16,
    /// More watchers of all keys, each on a connection of its own, that read nothing.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    sleepers: u16,
    /// Connections for streams and puts, spread over the endpoints in turn.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Clients that put.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Puts a second, all clients together; delays then count from when a put was due. Without it, each client sends its next
    /// put when the last one is answered.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Bytes of a value; at least eight, which tell when it was put.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=1_500_000))]
    value_size: u32,
    /// What the keys begin with; a number of twelve digits follows.
    #[arg(long, default_value = "bench/")]
    key_prefix: String,
    /// Time that is measured.
    #[arg(long, default_value = "10", value_parser = parse_seconds)]
    seconds: HumanDuration,
    /// Time before it that is not.
    #[arg(long, default_value = "2", value_parser = parse_seconds)]
    warm_up: HumanDuration,
    /// Random seed of the keys chosen.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object; the same as `--output json`.
    #[arg(long)]
    json: bool,
}

/// Which requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    Put,
    Get,
    Txn,
    Mixed,
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::Txn => "txn",
            Workload::Mixed => "mixed",
        }
    }
}

impl Bench {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let (workload, load) = match self {
            Bench::Put(load) => (Workload::Put, load),
            Bench::Get(load) => (Workload::Get, load),
            Bench::Txn(load) => (Workload::Txn, load),
            Bench::Mixed(load) => (Workload::Mixed, load),
            Bench::Preload(preload) => return preload.run(shared).await,
            Bench::Leases(leases) => return leases.run(shared).await,
            Bench::Watch(watch) => return watch.run(shared).await,
        };
        let report = load::run(workload, &load, shared).await?;
        report.show(load.json, shared.output)?;
        if report.operations() == 0 {
            return Err(Failure::new(Exit::Unavailable, "no request succeeded")
                .next("check --endpoints with `ringfence status`"));
        }
        Ok(())
    }
}

impl Keys {
    /// The key with a number below the number of keys.
    fn key(&self, number: u64) -> String {
        format!("{}{number:012}", self.key_prefix)
    }
}

/// Seconds as a plain number, or a duration with its unit.
fn parse_seconds(text: &str) -> Result<HumanDuration, String> {
    text.parse().or_else(|error| format!("{text}s").parse().map_err(|_| error))
}
