//! What a node is going to do: its settings, checked and completed with the defaults.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_client::endpoint_authority;
use ringfence_consensus::{Config, Founder, Integrity, Join, Retention, Secret, Timing};
use ringfence_server::{History, Limits};

use super::bounds;
use super::settings::{LogFormat, Part, Settings, TimingPreset};
use crate::exit::{Exit, Failure};
use crate::units::ByteSize;

/// What is logged by default: openraft tells of its every step what others need in the search for a fault alone, and warns dozens of
/// times a second while a member is down. The consensus crate says that once.
const LOG_LEVEL: &str = "info,openraft=error";
/// The shortest secret that peers may share.
const SECRET_BYTES_MIN: usize = 16;
/// The largest file that is read as a secret.
const SECRET_BYTES_MAX: u64 = 4 << 10;
/// Bounds of `log-segment-size`: a file must hold several entries of the largest size, and be worth recycling.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=1 << 30;
/// A scrub that reads less than this a second never ends.
const SCRUB_RATE_MIN: u64 = 64 << 10;
/// The smallest page cache that does any good.
const STORE_CACHE_BYTES_MIN: u64 = 4 << 20;
/// The slowest that snapshots may be sent: the log behind one is kept until it has arrived.
const SNAPSHOT_RATE_MIN: u64 = 64 << 10;
/// Below this a disk that is merely busy would count as stalled.
const DISK_STALL_LIMIT_MIN: Duration = Duration::from_millis(100);

/// A node's settings, complete and checked as far as they can be without its data directory.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen_client: SocketAddr,
    pub(crate) listen_peer: SocketAddr,
    pub(crate) runtime_threads: usize,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    pub(crate) history: History,
    pub(crate) limits: Limits,
    pub(crate) consensus: Config,
}

impl Plan {
    /// Checks settings and fills in the defaults.
    pub(crate) fn new(settings: Settings) -> Result<Plan, Failure> {
        let bootstrap = settings.bootstrap == Some(true);
        let name = match settings.name.clone() {
            Some(name) => checked_name(name)?,
            None if bootstrap => "node1".to_owned(),
            None if settings.join.is_some() => host_name()?,
            None => return Err(config("the node has no name").next("give it one with --name")),
        };
        let listen_client =
            resolve("--listen-client", settings.listen_client.as_deref().unwrap_or("127.0.0.1:2379"))?;
        let listen_peer =
            resolve("--listen-peer", settings.listen_peer.as_deref().unwrap_or("127.0.0.1:2380"))?;
        let peer_secret = settings.peer_secret_file.as_deref().map(read_secret).transpose()?;
        check_exposure(&settings, peer_secret.is_some(), listen_client, listen_peer)?;

        let mut founders =
            settings.initial_cluster.as_deref().map_or_else(|| Ok(Vec::new()), parse_cluster)?;
        let advertise_peer = advertised_peer(&settings, &name, &founders, listen_peer)?;
        if bootstrap {
            founders = vec![Founder { name: name.clone(), peer_address: advertise_peer.clone() }];
        }
        let default_retention = Retention::default();
        let consensus = Config {
            advertise_peer,
            client_urls: advertised_clients(&settings, listen_client)?,
            founders,
            join: join(&settings)?,
            peer_secret,
            timing: timing(&settings)?,
            checkpoint_interval: at_least(
                "checkpoint-interval",
                settings.checkpoint_interval.map_or(Duration::from_secs(30), |interval| interval.0),
                Duration::from_millis(100),
            )?,
            retention: Retention {
                bytes: settings.log_retention_bytes.map_or(default_retention.bytes, |size| size.0),
                time: settings.log_retention_time.map_or(default_retention.time, |time| time.0),
            },
            wal_segment_bytes: segment_bytes(&settings)?,
            store_cache_bytes: store_cache_bytes(&settings)?,
            rebuild_free_bytes_min: settings.rebuild_free_size.map_or(64 << 20, |size| size.0),
            snapshot_bytes_per_second: snapshot_rate(&settings)?,
            disk_stall_limit: at_least(
                "disk-stall-limit",
                settings.disk_stall_limit.map_or(Config::DISK_STALL_LIMIT, |limit| limit.0),
                DISK_STALL_LIMIT_MIN,
            )?,
            integrity: integrity(&settings)?,
            space: bounds::space(&settings)?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.clone(),
        };
        Ok(Plan {
            history: bounds::history(&settings)?,
            limits: bounds::limits(&settings)?,
            data_dir: settings.data_dir.unwrap_or_else(|| Path::new("ringfence-data").join(&name)),
            listen_client,
            listen_peer,
            runtime_threads: match settings.runtime_threads {
                Some(0) => return Err(config("runtime-threads must be at least 1")),
                Some(threads) => threads,
                None => crate::commands::default_threads(),
            },
            log_level: settings.log_level.unwrap_or_else(|| LOG_LEVEL.to_owned()),
            log_format: settings.log_format.unwrap_or(LogFormat::Text),
            consensus,
        })
    }
}

fn config(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Config, message)
}

/// Names stand in lists, tables and file names: letters, digits and a few signs.
fn checked_name(name: String) -> Result<String, Failure> {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(lawful) || name.starts_with('.') {
        return Err(config(format!("{name:?} is no name for a node"))
            .next("use 1 to 64 letters, digits, and - _ . between them"));
    }
    Ok(name)
}

fn resolve(flag: &str, address: &str) -> Result<SocketAddr, Failure> {
    let wrong = |reason: String| {
        config(format!("{flag} {address:?}: {reason}")).next("write host:port, such as 127.0.0.1:2379")
    };
    let mut addresses = address.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    addresses.next().ok_or_else(|| wrong("the name has no address".to_owned()))
}

/// A secret from its file; white space at the end does not count, since editors add it.
fn read_secret(path: &Path) -> Result<Secret, Failure> {
    let wrong = |reason: String| config(format!("the peer secret file {}: {reason}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > SECRET_BYTES_MAX {
        return Err(wrong(format!("{length} bytes are too many for a secret, at most {SECRET_BYTES_MAX}")));
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let secret = bytes.trim_ascii_end();
    if secret.len() < SECRET_BYTES_MIN {
        let short = wrong(format!("it holds {} bytes, which can be guessed", secret.len()));
        return Err(short.next(format!(
            "make one, and copy it to every member: head -c 32 /dev/urandom | base64 > {}",
            path.display()
        )));
    }
    Ok(Secret(secret.to_vec()))
}

/// Without a secret, only this machine may reach the node, unless the operator says otherwise.
fn check_exposure(
    settings: &Settings,
    has_secret: bool,
    listen_client: SocketAddr,
    listen_peer: SocketAddr,
) -> Result<(), Failure> {
    if has_secret || settings.insecure == Some(true) {
        return Ok(());
    }
    for (flag, address) in [("--listen-client", listen_client), ("--listen-peer", listen_peer)] {
        if !address.ip().is_loopback() {
            return Err(config(format!(
                "{flag} {address} can be reached from other machines, and there is no peer secret"
            ))
            .next(
                "give --peer-secret-file FILE on every member, or --insecure if the network itself is closed",
            ));
        }
    }
    Ok(())
}

/// The founding members, from name=host:port,...
fn parse_cluster(text: &str) -> Result<Vec<Founder>, Failure> {
    let wrong = |member: &str, reason: &str| {
        config(format!("--initial-cluster: {member:?}: {reason}"))
            .next("write name=host:port for each member, separated by commas, the same on all of them")
    };
    let mut founders: Vec<Founder> = Vec::new();
    for member in text.split(',').map(str::trim) {
        let (name, address) = member.split_once('=').ok_or_else(|| wrong(member, "there is no ="))?;
        let name = checked_name(name.to_owned())?;
        let address =
            endpoint_authority(address).map_err(|_| wrong(member, "the address is no host:port"))?;
        if founders.iter().any(|other| other.name == name || other.peer_address == address) {
            return Err(wrong(member, "a name or an address comes twice"));
        }
        founders.push(Founder { name, peer_address: address });
    }
    Ok(founders)
}

/// The name of this machine, for a node that joins without one of its own.
fn host_name() -> Result<String, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    checked_name(name.trim().to_owned()).map_err(|failure| failure.next("give the node a name with --name"))
}

fn join(settings: &Settings) -> Result<Option<Join>, Failure> {
    let as_learner = settings.part == Some(Part::Learner);
    let Some(text) = &settings.join else {
        return match settings.part {
            Some(_) => Err(config("--as says what a node becomes that joins, and there is no --join")),
            None => Ok(None),
        };
    };
    let address = |text: &str| {
        endpoint_authority(text.trim()).map_err(|error| {
            config(format!("--join {text:?}: {error}"))
                .next("write host:port of the peer address of a member, such as 10.0.0.1:2380")
        })
    };
    Ok(Some(Join { addresses: text.split(',').map(address).collect::<Result<_, _>>()?, as_learner }))
}

fn advertised_peer(
    settings: &Settings,
    name: &str,
    founders: &[Founder],
    listen: SocketAddr,
) -> Result<String, Failure> {
    if let Some(address) = &settings.advertise_peer {
        return endpoint_authority(address).map_err(|error| config(format!("--advertise-peer: {error}")));
    }
    if let Some(founder) = founders.iter().find(|founder| founder.name == name) {
        return Ok(founder.peer_address.clone());
    }
    reachable("--advertise-peer", listen)
}

fn advertised_clients(settings: &Settings, listen: SocketAddr) -> Result<Vec<String>, Failure> {
    let addresses = match &settings.advertise_client {
        Some(urls) => urls.split(',').map(str::to_owned).collect(),
        None => vec![reachable("--advertise-client", listen)?],
    };
    let to_url = |address: &String| {
        let authority =
            endpoint_authority(address).map_err(|error| config(format!("--advertise-client: {error}")))?;
        Ok(format!("http://{authority}"))
    };
    addresses.iter().map(to_url).collect()
}

/// The address that others are told where nothing else is said: the one listened on, if it is one at all.
fn reachable(flag: &str, listen: SocketAddr) -> Result<String, Failure> {
    if listen.ip().is_unspecified() {
        return Err(config(format!(
            "the node listens on all addresses ({listen}), so others must be told which to use"
        ))
        .next(format!("give {flag} HOST:PORT")));
    }
    Ok(listen.to_string())
}

fn timing(settings: &Settings) -> Result<Timing, Failure> {
    let preset = match settings.timing.unwrap_or(TimingPreset::Local) {
        TimingPreset::Local => Timing::LOCAL,
        TimingPreset::WideArea => Timing::WIDE_AREA,
    };
    let timing = Timing {
        heartbeat: settings.heartbeat_interval.map_or(preset.heartbeat, |interval| interval.0),
        leader_lease: settings.leader_lease.map_or(preset.leader_lease, |lease| lease.0),
    };
    at_least("leader-lease", timing.leader_lease, Timing::LEADER_LEASE_MIN)?;
    at_least("heartbeat-interval", timing.heartbeat, Duration::from_millis(10))?;
    if timing.heartbeat * 4 >= timing.leader_lease {
        return Err(config(format!(
            "heartbeat-interval {:?} is no less than a quarter of leader-lease {:?}: two lost heartbeats would end the lease, and nodes \
             would campaign in step",
            timing.heartbeat, timing.leader_lease
        ))
        .next("raise --leader-lease or lower --heartbeat-interval"));
    }
    Ok(timing)
}

fn at_least(name: &str, value: Duration, min: Duration) -> Result<Duration, Failure> {
    if value < min {
        return Err(config(format!("{name} {value:?} is too short: at least {min:?}")));
    }
    Ok(value)
}

fn segment_bytes(settings: &Settings) -> Result<u64, Failure> {
    let bytes = settings.log_segment_size.map_or(64 << 20, |size| size.0);
    if !SEGMENT_BYTES.contains(&bytes) {
        return Err(config(format!("log-segment-size {bytes} is not between 16MiB and 1GiB")));
    }
    Ok(bytes)
}

fn snapshot_rate(settings: &Settings) -> Result<u64, Failure> {
    let bytes = settings.snapshot_rate.map_or(Config::SNAPSHOT_BYTES_PER_SECOND, |size| size.0);
    if bytes < SNAPSHOT_RATE_MIN {
        return Err(config(format!("snapshot-rate {bytes} is too slow: at least 64KiB a second")));
    }
    Ok(bytes)
}

fn integrity(settings: &Settings) -> Result<Integrity, Failure> {
    let default = Integrity::default();
    let scrub_interval = settings.scrub_interval.map_or(default.scrub_interval, |interval| interval.0);
    let rate = settings.scrub_rate.map_or(default.scrub_bytes_per_second, |rate| rate.0);
    if rate < SCRUB_RATE_MIN {
        return Err(config(format!("scrub-rate must be at least {}", ByteSize(SCRUB_RATE_MIN))));
    }
    Ok(Integrity {
        scrub_interval: at_least("scrub-interval", scrub_interval, Duration::from_secs(1))?,
        scrub_bytes_per_second: rate,
        ..default
    })
}

fn store_cache_bytes(settings: &Settings) -> Result<usize, Failure> {
    let bytes = settings.store_cache_size.map_or(128 << 20, |size| size.0);
    if bytes < STORE_CACHE_BYTES_MIN {
        return Err(config(format!("store-cache-size {bytes} is too small: at least 4MiB")));
    }
    usize::try_from(bytes)
        .map_err(|_| config(format!("store-cache-size {bytes} is more than this machine can address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, Failure> {
        Plan::new(Settings::parse(text).expect("the test's settings can be read"))
    }

    #[test]
    fn a_node_alone_needs_one_setting() {
        let plan = plan("bootstrap = true").expect("the defaults are lawful");
        assert_eq!(plan.data_dir, Path::new("ringfence-data/node1"));
        assert_eq!(plan.consensus.founders.len(), 1);
        assert_eq!(plan.consensus.founders[0].peer_address, "127.0.0.1:2380");
        assert_eq!(plan.consensus.client_urls, ["http://127.0.0.1:2379"]);
        assert_eq!(plan.consensus.timing, Timing::LOCAL);
    }

    #[test]
    fn a_member_is_found_in_the_initial_cluster() {
        let plan = plan(
            "name = 'b'\nlisten-peer = '0.0.0.0:3'\ninsecure = true\nadvertise-client = 'b:9'\n\
                         initial-cluster = 'a=h1:1, b=h2:2'",
        )
        .expect("it is lawful");
        assert_eq!(plan.consensus.advertise_peer, "h2:2");
        assert_eq!(plan.consensus.client_urls, ["http://b:9"]);
        assert_eq!(plan.consensus.founders.len(), 2);
    }

    #[test]
    fn a_node_joins_with_one_flag() {
        let plan = plan("join = 'h1:1, h2:2'").expect("it is lawful");
        let join = plan.consensus.join.expect("it joins");
        assert_eq!((join.addresses, join.as_learner), (vec!["h1:1".to_owned(), "h2:2".to_owned()], false));
        assert!(plan.consensus.founders.is_empty());
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_a_way_out() {
        for (text, reason) in [
            ("", "no name"),
            ("name = '../a'", "no name for a node"),
            ("name = 'a'\nlisten-client = 'nowhere'", "--listen-client \"nowhere\""),
            ("name = 'a'\nlisten-client = '0.0.0.0:1'\nadvertise-client = 'a:1'", "there is no peer secret"),
            ("name = 'a'\nlisten-peer = '0.0.0.0:1'\ninsecure = true", "must be told which to use"),
            ("name = 'a'\ninitial-cluster = 'a'", "there is no ="),
            ("name = 'a'\ninitial-cluster = 'a=b:1,a=c:1'", "comes twice"),
            ("name = 'a'\ninitial-cluster = 'a=b'", "no host:port"),
            ("name = 'a'\njoin = 'nowhere'", "--join \"nowhere\""),
            ("name = 'a'\nas = 'learner'", "there is no --join"),
            ("name = 'a'\nleader-lease = '100ms'", "leader-lease 100ms is too short"),
            ("name = 'a'\nheartbeat-interval = '100ms'", "no less than a quarter"),
            ("name = 'a'\nlog-segment-size = '1MiB'", "not between"),
            ("name = 'a'\nruntime-threads = 0", "at least 1"),
            ("name = 'a'\npeer-secret-file = '/nonexistent/secret'", "peer secret file"),
        ] {
            let failure = plan(text).expect_err(text);
            assert_eq!(failure.exit(), Exit::Config, "{text}");
            assert!(failure.to_string().contains(reason), "{text}: {failure}");
        }
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("secret");
        std::fs::write(&path, "short\n").expect("the folder is writable");
        assert!(read_secret(&path).expect_err("five bytes can be guessed").to_string().contains("5 bytes"));
        std::fs::write(&path, "0123456789abcdef\n").expect("the folder is writable");
        assert_eq!(read_secret(&path).expect("it is long enough"), Secret(b"0123456789abcdef".to_vec()));
    }
}
