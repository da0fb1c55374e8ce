//! The settings of a node: one structure for flags, environment and configuration file, so that names and meaning are the
//! same in all three. What is not given stays `None`; [`super::plan`] has the defaults.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};
use serde::Deserialize;
use toml::de::DeTable;

use crate::exit::{Exit, Failure};
use crate::units::{ByteSize, HumanDuration};

/// The settings of a node, as far as they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The node's name, unique in its cluster [default: node1, with --bootstrap].
    #[arg(long, env = "RINGFENCE_NAME")]
    pub(crate) name: Option<String>,
    /// Where the node keeps everything [default: ringfence-data/NAME].
    #[arg(long, env = "RINGFENCE_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where to listen for clients [default: 127.0.0.1:2379].
    #[arg(long, env = "RINGFENCE_LISTEN_CLIENT", value_name = "HOST:PORT")]
    pub(crate) listen_client: Option<String>,
    /// Where to listen for the other nodes [default: 127.0.0.1:2380].
    #[arg(long, env = "RINGFENCE_LISTEN_PEER", value_name = "HOST:PORT")]
    pub(crate) listen_peer: Option<String>,
    /// URLs at which clients reach this node, separated by commas [default: where it listens].
    #[arg(long, env = "RINGFENCE_ADVERTISE_CLIENT", value_name = "URLS")]
    pub(crate) advertise_client: Option<String>,
    /// Where the other nodes reach this one [default: as in --initial-cluster, else where it listens].
    #[arg(long, env = "RINGFENCE_ADVERTISE_PEER", value_name = "HOST:PORT")]
    pub(crate) advertise_peer: Option<String>,
    /// The members that found the cluster, the same on each of them: name=host:port,... Looked at on a fresh data directory
    /// alone.
    #[arg(long, env = "RINGFENCE_INITIAL_CLUSTER", value_name = "MEMBERS")]
    pub(crate) initial_cluster: Option<String>,
    /// Found a cluster of this one node.
    #[arg(long, env = "RINGFENCE_BOOTSTRAP", conflicts_with = "initial_cluster", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) bootstrap: Option<bool>,
    /// Join the cluster of the members that others reach at these peer addresses, separated by commas; one that answers is
    /// enough. Looked at on a fresh data directory alone.
    #[arg(long, env = "RINGFENCE_JOIN", conflicts_with_all = ["initial_cluster", "bootstrap"], value_name = "HOST:PORT,...")]
    pub(crate) join: Option<String>,
    /// What the node becomes when it joins: a voter as soon as it has caught up, or a learner for good [default: voter].
    #[arg(long = "as", env = "RINGFENCE_AS", value_enum, value_name = "PART")]
    #[serde(rename = "as")]
    pub(crate) part: Option<Part>,
    /// A file with a secret that all members share; each peer connection proves on both sides that it knows it.
    #[arg(long, env = "RINGFENCE_PEER_SECRET_FILE", value_name = "FILE")]
    pub(crate) peer_secret_file: Option<PathBuf>,
    /// Listen beyond loopback without a peer secret: whoever reaches the ports can read and change everything.
    #[arg(long, env = "RINGFENCE_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) insecure: Option<bool>,
    /// Preset of the two times below [default: local].
    #[arg(long, env = "RINGFENCE_TIMING", value_enum)]
    pub(crate) timing: Option<TimingPreset>,
    /// Time between two heartbeats of a leader [default: 80ms].
    #[arg(long, env = "RINGFENCE_HEARTBEAT_INTERVAL", value_name = "DURATION")]
    pub(crate) heartbeat_interval: Option<HumanDuration>,
    /// How long a leader may act as the only one after a majority answered it; within the same time again after that another node
    /// campaigns [default: 400ms].
    #[arg(long, env = "RINGFENCE_LEADER_LEASE", value_name = "DURATION")]
    pub(crate) leader_lease: Option<HumanDuration>,
    /// Longest time between two checkpoints while writes come in [default: 30s].
    #[arg(long, env = "RINGFENCE_CHECKPOINT_INTERVAL", value_name = "DURATION")]
    pub(crate) checkpoint_interval: Option<HumanDuration>,
    /// Most log kept for members that are away [default: 256MiB].
    #[arg(long, env = "RINGFENCE_LOG_RETENTION_BYTES", value_name = "SIZE")]
    pub(crate) log_retention_bytes: Option<ByteSize>,
    /// Longest time for which log is kept for members that are away [default: 10m].
    #[arg(long, env = "RINGFENCE_LOG_RETENTION_TIME", value_name = "DURATION")]
    pub(crate) log_retention_time: Option<HumanDuration>,
    /// Size of one file of the log [default: 64MiB].
    #[arg(long, env = "RINGFENCE_LOG_SEGMENT_SIZE", value_name = "SIZE")]
    pub(crate) log_segment_size: Option<ByteSize>,
    /// Page cache of the state file [default: 128MiB].
    #[arg(long, env = "RINGFENCE_STORE_CACHE_SIZE", value_name = "SIZE")]
    pub(crate) store_cache_size: Option<ByteSize>,
    /// The state file is rebuilt, while the node serves, when more than half of it is free and at least this much [default:
    /// 64MiB].
    #[arg(long, env = "RINGFENCE_REBUILD_FREE_SIZE", value_name = "SIZE")]
    pub(crate) rebuild_free_size: Option<ByteSize>,
    /// Most bytes of snapshots that this node sends to members in a second [default: 64MiB].
    #[arg(long, env = "RINGFENCE_SNAPSHOT_RATE", value_name = "SIZE")]
    pub(crate) snapshot_rate: Option<ByteSize>,
    /// A leader whose disk takes longer than this for one sync hands its leadership over [default: 2s].
    #[arg(long, env = "RINGFENCE_DISK_STALL_LIMIT", value_name = "DURATION")]
    pub(crate) disk_stall_limit: Option<HumanDuration>,
    /// Time between two scrubs of the whole state [default: 24h].
    #[arg(long, env = "RINGFENCE_SCRUB_INTERVAL", value_name = "DURATION")]
    pub(crate) scrub_interval: Option<HumanDuration>,
    /// Most bytes a second that a scrub reads [default: 32MiB].
    #[arg(long, env = "RINGFENCE_SCRUB_RATE", value_name = "SIZE")]
    pub(crate) scrub_rate: Option<ByteSize>,
    /// Most bytes that the state may need, history included; 0 for any number. When the leader reaches it, puts are refused until
    /// there is room again; the same on all members [default: 8GiB].
    #[arg(long, env = "RINGFENCE_QUOTA_BYTES", value_name = "SIZE")]
    pub(crate) quota_bytes: Option<ByteSize>,
    /// A node with less than this free on its disk says so, and refuses puts while it leads; 0 for never [default: 256MiB].
    #[arg(long, env = "RINGFENCE_DISK_LOW_SIZE", value_name = "SIZE")]
    pub(crate) disk_low_size: Option<ByteSize>,
    /// A node with less than this free on its disk stops, after it has handed leadership over; 0 for never [default: 64MiB].
    #[arg(long, env = "RINGFENCE_DISK_RESERVE_SIZE", value_name = "SIZE")]
    pub(crate) disk_reserve_size: Option<ByteSize>,
    /// For how long history is kept before it is compacted; 0s for as long as the next setting allows [default: 24h].
    #[arg(long, env = "RINGFENCE_COMPACT_KEEP_AGE", value_name = "DURATION")]
    pub(crate) compact_keep_age: Option<HumanDuration>,
    /// How many revisions of history are kept before older ones are compacted; 0 for any number [default: 5000000].
    #[arg(long, env = "RINGFENCE_COMPACT_KEEP_REVISIONS", value_name = "N")]
    pub(crate) compact_keep_revisions: Option<u64>,
    /// Most bytes of keys and values in the answer to a Range; a larger one is refused, and RangeStream is for it [default: 64MiB].
    #[arg(long, env = "RINGFENCE_ANSWER_BYTES_MAX", value_name = "SIZE")]
    pub(crate) answer_bytes_max: Option<ByteSize>,
    /// Most calls under way, streams and waits for locks apart; beyond it they are refused [default: 16384].
    #[arg(long, env = "RINGFENCE_CALLS_MAX", value_name = "N")]
    pub(crate) calls_max: Option<usize>,
    /// The same on one connection [default: 4096].
    #[arg(long, env = "RINGFENCE_CONNECTION_CALLS_MAX", value_name = "N")]
    pub(crate) connection_calls_max: Option<usize>,
    /// Most streams and waits for locks under way; beyond it they are refused [default: 65536].
    #[arg(long, env = "RINGFENCE_STREAMS_MAX", value_name = "N")]
    pub(crate) streams_max: Option<usize>,
    /// The same on one connection [default: 4096].
    #[arg(long, env = "RINGFENCE_CONNECTION_STREAMS_MAX", value_name = "N")]
    pub(crate) connection_streams_max: Option<usize>,
    /// Most bytes of requests under way; beyond it they are refused [default: 256MiB].
    #[arg(long, env = "RINGFENCE_REQUEST_BYTES_MAX", value_name = "SIZE")]
    pub(crate) request_bytes_max: Option<ByteSize>,
    /// The same on one connection [default: 64MiB].
    #[arg(long, env = "RINGFENCE_CONNECTION_REQUEST_BYTES_MAX", value_name = "SIZE")]
    pub(crate) connection_request_bytes_max: Option<ByteSize>,
    /// Threads of the runtime [default: one a core, at most 4].
    #[arg(long, env = "RINGFENCE_RUNTIME_THREADS", value_name = "N")]
    pub(crate) runtime_threads: Option<usize>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,ringfence_consensus=debug [default:
    /// info,openraft=error].
    #[arg(long, env = "RINGFENCE_LOG", value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
    /// The form of the log, which goes to standard error [default: text].
    #[arg(long, env = "RINGFENCE_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
}

/// What a node becomes that joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// It votes once it has caught up.
    Voter,
    /// It gets everything, serves reads, forwards writes, and never votes.
    Learner,
}

/// A preset of the times that elections depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TimingPreset {
    /// Nodes in one place.
    Local,
    /// Nodes far apart, or disks that stall for a second.
    WideArea,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Reads a configuration file.
    pub(crate) fn read(path: &Path) -> Result<Settings, Failure> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::new(
                Exit::Config,
                format!("cannot read the configuration file {}: {error}", path.display()),
            )
        })?;
        Settings::parse(&text).map_err(|error| {
            Failure::new(Exit::Config, format!("{}: {error}", path.display())).next(format!(
                "correct the file; `ringfence config check {}` looks at it alone",
                path.display()
            ))
        })
    }

    /// Reads the text of a configuration file; an error names its line.
    pub(crate) fn parse(text: &str) -> Result<Settings, String> {
        let located = |error: &toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            format!("line {line}: {}", error.message().trim())
        };
        let table = DeTable::parse(text).map_err(|error| located(&error))?;
        let known = Settings::names();
        let mut unknown =
            table.get_ref().keys().filter(|key| !known.iter().any(|name| name == key.get_ref()));
        if let Some(key) = unknown.next() {
            let line = line_of(text, key.span().start);
            return Err(format!(
                "line {line}: unknown setting {:?}{}",
                key.get_ref(),
                suggestion(key.get_ref(), &known)
            ));
        }
        let settings: Settings = toml::from_str(text).map_err(|error| located(&error))?;
        let ways =
            [settings.bootstrap == Some(true), settings.initial_cluster.is_some(), settings.join.is_some()];
        if ways.into_iter().filter(|is_given| *is_given).count() > 1 {
            return Err("bootstrap, initial-cluster and join exclude each other".to_owned());
        }
        Ok(settings)
    }

    /// The name of every setting, as in the configuration file.
    fn names() -> Vec<String> {
        let command = Settings::augment_args(Command::new("serve"));
        command.get_arguments().filter_map(|argument| argument.get_long()).map(str::to_owned).collect()
    }

    /// These settings, and those of `file` where nothing else was given. Which cluster is founded or joined is one decision: a
    /// flag for it silences the file's.
    pub(crate) fn or(self, file: Settings) -> Settings {
        let is_given = self.bootstrap.is_some() || self.initial_cluster.is_some() || self.join.is_some();
        let (file_bootstrap, file_cluster, file_join) =
            if is_given { (None, None, None) } else { (file.bootstrap, file.initial_cluster, file.join) };
        Settings {
            name: self.name.or(file.name),
            data_dir: self.data_dir.or(file.data_dir),
            listen_client: self.listen_client.or(file.listen_client),
            listen_peer: self.listen_peer.or(file.listen_peer),
            advertise_client: self.advertise_client.or(file.advertise_client),
            advertise_peer: self.advertise_peer.or(file.advertise_peer),
            initial_cluster: self.initial_cluster.or(file_cluster),
            bootstrap: self.bootstrap.or(file_bootstrap),
            join: self.join.or(file_join),
            part: self.part.or(file.part),
            peer_secret_file: self.peer_secret_file.or(file.peer_secret_file),
            insecure: self.insecure.or(file.insecure),
            timing: self.timing.or(file.timing),
            heartbeat_interval: self.heartbeat_interval.or(file.heartbeat_interval),
            leader_lease: self.leader_lease.or(file.leader_lease),
            checkpoint_interval: self.checkpoint_interval.or(file.checkpoint_interval),
            log_retention_bytes: self.log_retention_bytes.or(file.log_retention_bytes),
            log_retention_time: self.log_retention_time.or(file.log_retention_time),
            log_segment_size: self.log_segment_size.or(file.log_segment_size),
            store_cache_size: self.store_cache_size.or(file.store_cache_size),
            rebuild_free_size: self.rebuild_free_size.or(file.rebuild_free_size),
            snapshot_rate: self.snapshot_rate.or(file.snapshot_rate),
            disk_stall_limit: self.disk_stall_limit.or(file.disk_stall_limit),
            scrub_interval: self.scrub_interval.or(file.scrub_interval),
            scrub_rate: self.scrub_rate.or(file.scrub_rate),
            quota_bytes: self.quota_bytes.or(file.quota_bytes),
            disk_low_size: self.disk_low_size.or(file.disk_low_size),
            disk_reserve_size: self.disk_reserve_size.or(file.disk_reserve_size),
            compact_keep_age: self.compact_keep_age.or(file.compact_keep_age),
            compact_keep_revisions: self.compact_keep_revisions.or(file.compact_keep_revisions),
            answer_bytes_max: self.answer_bytes_max.or(file.answer_bytes_max),
            calls_max: self.calls_max.or(file.calls_max),
            connection_calls_max: self.connection_calls_max.or(file.connection_calls_max),
            streams_max: self.streams_max.or(file.streams_max),
            connection_streams_max: self.connection_streams_max.or(file.connection_streams_max),
            request_bytes_max: self.request_bytes_max.or(file.request_bytes_max),
            connection_request_bytes_max: self
                .connection_request_bytes_max
                .or(file.connection_request_bytes_max),
            runtime_threads: self.runtime_threads.or(file.runtime_threads),
            log_level: self.log_level.or(file.log_level),
            log_format: self.log_format.or(file.log_format),
        }
    }
}

/// The number, from 1, of the line that holds a byte of `text`.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// The known name that was probably meant.
fn suggestion(unknown: &str, known: &[String]) -> String {
    // Whoever writes underscores means the same setting.
    let meant = unknown.replace('_', "-").to_lowercase();
    let closest = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(&meant, a).total_cmp(&strsim::jaro_winkler(&meant, b)));
    match closest {
        Some(name) if strsim::jaro_winkler(&meant, name) > 0.8 => format!("; did you mean {name:?}?"),
        _ => "; `ringfence serve --help` lists all settings".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_has_the_flags_names() {
        let text = "# a node\nname = \"a\"\nheartbeat-interval = \"80ms\"\nlog-retention-bytes = 1048576\n\
                    store-cache-size = \"64MiB\"\ninsecure = true\ntiming = \"wide-area\"\n";
        let settings = Settings::parse(text).expect("it is lawful");
        assert_eq!(settings.name.as_deref(), Some("a"));
        assert_eq!(settings.heartbeat_interval, Some(HumanDuration(Duration::from_millis(80))));
        assert_eq!(settings.log_retention_bytes, Some(ByteSize(1 << 20)));
        assert_eq!(settings.store_cache_size, Some(ByteSize(64 << 20)));
        assert_eq!(settings.insecure, Some(true));
        assert_eq!(settings.timing, Some(TimingPreset::WideArea));
    }

    #[test]
    fn every_flag_is_a_key_of_the_file() {
        for name in Settings::names() {
            // Whatever the type: a wrong one is another error than an unknown name.
            let error = Settings::parse(&format!("{name} = []\n")).expect_err(&name);
            assert!(!error.contains("unknown"), "{name}: {error}");
        }
    }

    #[test]
    fn errors_name_the_line_and_what_was_probably_meant() {
        for (text, reason) in [
            (
                "name = \"a\"\nheartbeat-intervall = \"80ms\"\n",
                "line 2: unknown setting \"heartbeat-intervall\"; did you \
              mean \"heartbeat-interval\"?",
            ),
            (
                "\nlisten_client = \"a:1\"\n",
                "line 2: unknown setting \"listen_client\"; did you mean \"listen-client\"?",
            ),
            ("zzz = 1\n", "line 1: unknown setting \"zzz\"; `ringfence serve --help`"),
            ("name = \"a\"\n\nleader-lease = \"soon\"\n", "line 3: \"soon\" is not a duration"),
            ("name = 5\n", "line 1: invalid type"),
            ("name = \"a\nb\"\n", "line 2: "),
            ("name = \"a\"\nname = \"b\"\n", "line 2: duplicate key"),
            ("bootstrap = true\ninitial-cluster = \"a=b:1\"\n", "exclude each other"),
        ] {
            let error = Settings::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn flags_go_before_the_file() {
        let flags = Settings { name: Some("flag".to_owned()), bootstrap: Some(true), ..Settings::default() };
        let file = Settings {
            name: Some("file".to_owned()),
            initial_cluster: Some("a=b:1".to_owned()),
            insecure: Some(true),
            ..Settings::default()
        };
        let settings = flags.or(file);
        assert_eq!(settings.name.as_deref(), Some("flag"));
        assert_eq!(settings.insecure, Some(true));
        assert_eq!(settings.initial_cluster, None, "--bootstrap silences the file's initial-cluster");
    }
}
