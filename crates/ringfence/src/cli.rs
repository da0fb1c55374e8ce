//! The command line: every command, and the flags that those which talk to a cluster share.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringfence_client::{Client, Options};

use crate::commands::{
    bench, compact, completions, config, del, dev, diff, export, fence, get, guard, history, import, leader,
    lease, lock, member, put, recover, scrub, serve, snapshot, status, top, txn, watch,
};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::units::HumanDuration;

/// Ringfence, the consensus database that fences every write.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, after_help = Exit::TABLE, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The flags that all commands which talk to a cluster share.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shared {
    /// Where clients reach the nodes: host:port, several separated by commas. One is enough to begin with.
    #[arg(
        long,
        global = true,
        env = "RINGFENCE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    pub(crate) endpoints: Vec<String>,
    /// The form of what is printed.
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Longest that one request may take, all attempts together.
    #[arg(long, global = true, default_value = "5s")]
    pub(crate) timeout: HumanDuration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one node.
    Serve(Box<serve::Serve>),
    /// Run a whole cluster on this machine, for development.
    Dev(dev::Dev),
    /// Store a value under a key.
    Put(put::Put),
    /// Read a key or a range of keys.
    Get(get::Get),
    /// Delete a key or a range of keys.
    Del(del::Del),
    /// Compare, then do one of two lists of operations, all at once.
    Txn(txn::Txn),
    /// Show what happens to keys, as it happens.
    Watch(watch::Watch),
    /// Show the versions of a key.
    History(history::History),
    /// Show which keys differ between two revisions.
    Diff(diff::Diff),
    /// Forget the history below a revision.
    Compact(compact::Compact),
    /// Key ranges that take no write without a fence.
    #[command(subcommand)]
    Guard(guard::Guard),
    /// Who holds a lock or a key, and with which token.
    #[command(subcommand)]
    Fence(fence::Fence),
    /// Store many keys, read as JSON lines.
    Import(import::Import),
    /// Write all keys, or those with a prefix, as JSON lines.
    Export(export::Export),
    /// Take locks, and do things only while they are held.
    #[command(subcommand)]
    Lock(lock::Lock),
    /// Lead an election until interrupted, or show who leads.
    Elect(lock::elect::Elect),
    /// Show who leads, and how every node is.
    Status(status::Status),
    /// Show the cluster live.
    Top(top::Top),
    /// Show the members of the cluster.
    #[command(subcommand)]
    Member(member::Member),
    /// Move the leadership.
    #[command(subcommand)]
    Leader(leader::Leader),
    /// Grant leases, keep them alive, and end them.
    #[command(subcommand)]
    Lease(lease::Lease),
    /// Save, check and restore the whole state.
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Make a new cluster of one out of a member that is left when a majority is lost for good.
    Recover(recover::Recover),
    /// Have every node compare its whole state with what was applied.
    Scrub(scrub::Scrub),
    /// Measure a cluster: Ringfence, or anything else that speaks the etcd v3 API.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print the completions of a shell.
    Completions(completions::Completions),
    /// Work with configuration files of `serve`.
    #[command(subcommand)]
    Config(config::Config),
    /// Not for people: the watchdog of `lock run`.
    #[command(hide = true)]
    RunWatchdog(lock::run::ContainerFlags),
    /// Not for people: the first process of a container of `lock run`.
    #[command(hide = true)]
    RunInit(lock::run::ContainerFlags),
}

impl Shared {
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.0
    }

    /// A client of the cluster that the flags name.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.client_with(Options::default())
    }

    /// The same with other options; the timeout is always the flag's.
    pub(crate) fn client_with(&self, options: Options) -> Result<Client, Failure> {
        Ok(Client::connect(&self.endpoints, Options { timeout: self.timeout(), ..options })?)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_line_of_the_manual_is_understood() {
        for line in [
            "serve --name a --bootstrap --data-dir d --heartbeat-interval 80ms",
            "serve --config ringfence.toml",
            "dev --nodes 5 --base-port 4000 --json --data-dir d",
            "put k v --endpoints a:1,b:2 --timeout 500ms",
            "get k --output plain",
            "get a --prefix --limit 5 --keys-only -o json",
            "del a b",
            "txn moves.txt",
            "watch k --rev 5 --prev-kv -o json",
            "watch jobs/ --prefix --no-put --count 5 --exec true",
            "history k --limit 5 --rev 17 -o json",
            "diff --from 5 --to 17 --prefix p/ --keys-only -o json",
            "compact 17 --physical",
            "compact --keep 1000",
            "put k v --fence jobs=17 --fence key:leader=5",
            "del k --prefix --fence lock:jobs=17",
            "txn moves.txt --fence a=b=17",
            "guard set --prefix jobs/state/ --scope jobs",
            "guard set --range a b --scope key:leader --fence jobs=17",
            "guard set --key k --scope lock:jobs --override",
            "guard list -o json",
            "guard remove --prefix jobs/state/ --fence jobs=17",
            "fence inspect jobs --waiters 5",
            "import - --in-flight 128 --state s",
            "export --prefix pkg/",
            "lock run jobs --ttl 5s --grace 500ms --wait 1m -- sh -c true",
            "lock acquire jobs --ttl 5s --wait 1m --keep",
            "lock release jobs --lease 17 --token 42",
            "lock release jobs/11",
            "lock holder jobs",
            "lock waiters jobs -o json",
            "elect boss --value me --ttl 5s",
            "elect boss --observe",
            "status --output json",
            "top --interval 500ms",
            "top --once -o json",
            "member list",
            "leader transfer --to node2",
            "lease grant 10s --id 0x11",
            "lease revoke 17",
            "lease keep-alive 17 --once",
            "lease time-to-live -17 --keys",
            "lease list -o json",
            "snapshot save f",
            "snapshot status f",
            "snapshot restore f --data-dir d --name a",
            "recover --data-dir d --yes",
            "scrub --endpoints a:1 --output json",
            "bench put --connections 4 --clients 64 --value-size 256 --json",
            "bench get --serializable --key-count 1000 --seconds 5 --warm-up 1",
            "bench mixed --rate 5000",
            "bench preload --key-count 1000000",
            "completions bash",
            "config check f",
        ] {
            let arguments = std::iter::once("ringfence").chain(line.split_whitespace());
            if let Err(error) = Cli::try_parse_from(arguments) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_flags_are_usage_errors() {
        for (line, kind) in [
            ("get k --prefiks", ErrorKind::UnknownArgument),
            ("put", ErrorKind::MissingRequiredArgument),
            ("put k v --fence jobs", ErrorKind::ValueValidation),
            ("put k v --fence jobs=0", ErrorKind::ValueValidation),
            ("guard set --prefix p", ErrorKind::MissingRequiredArgument),
            ("guard set --scope s", ErrorKind::MissingRequiredArgument),
            ("guard set --prefix p --key k --scope s", ErrorKind::ArgumentConflict),
            ("get k --prefix --from-key", ErrorKind::ArgumentConflict),
            ("get k --timeout 5", ErrorKind::ValueValidation),
            ("serve --bootstrap --initial-cluster a=b:1", ErrorKind::ArgumentConflict),
            ("serve --heartbeat-interval fast", ErrorKind::ValueValidation),
            ("dev --nodes 0", ErrorKind::ValueValidation),
            ("lock acquire jobs --ttl 500ms", ErrorKind::ValueValidation),
            ("elect boss", ErrorKind::MissingRequiredArgument),
            ("elect boss --value v --observe", ErrorKind::ArgumentConflict),
            ("compact", ErrorKind::MissingRequiredArgument),
            ("compact 0", ErrorKind::ValueValidation),
            ("compact 5 --keep 5", ErrorKind::ArgumentConflict),
            ("diff --to 5", ErrorKind::MissingRequiredArgument),
            ("frobnicate", ErrorKind::InvalidSubcommand),
        ] {
            let arguments = std::iter::once("ringfence").chain(line.split_whitespace());
            let error = Cli::try_parse_from(arguments).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}");
            assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
        }
    }
}
