//! Who a node is: what was drawn when its data directory was made, and which start of it this process is.
//!
//! The file `identity` holds lines of `key=value`. It is replaced at every start and when the node learns its cluster's
//! number.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use ringfence_disk::Disk;
use ringfence_types::NodeId;
use sha2::{Digest, Sha256};

use crate::api::{Config, Failure, Founder};
use crate::rt;
use crate::small_file::{self, hex};

const FILE: &str = "identity";
const FORMAT: u64 = 1;
/// The number of a node that has asked to join and has no answer yet.
const UNJOINED: NodeId = NodeId(0);
const LOST_IDENTITY: &str = "the data directory holds a log or a state, but its identity file is gone: put the file back \
                             as it was (not an older copy of it), or bring the node back with `ringfence member rejoin`";

/// One start of one data directory.
#[derive(Debug)]
pub(crate) struct Identity {
    disk: Arc<dyn Disk>,
    fixed: Fixed,
    process_id: u64,
    /// 0 until the node knows it.
    cluster_id: Mutex<u64>,
}

/// What never changes within a process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fixed {
    name: String,
    node_id: NodeId,
    disk_id: u64,
    founding_digest: Vec<u8>,
    /// The logical hash of the restored state that the node was founded on; 0 for none.
    restored: u128,
    boot_number: u64,
}

/// What a data directory without an identity holds besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing, or a state that was restored from a snapshot, with its hash.
    Fresh {
        /// The restored state's logical hash, 0 for none.
        restored: u128,
    },
    /// A log or a state of a node that has run.
    Used,
}

/// Who a stopped node was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) name: String,
    /// 0 if it never knew it.
    pub(crate) cluster_id: u64,
}

/// Reads the identity that a data directory has, and changes nothing; none where there is no identity.
pub(crate) fn past(disk: &dyn Disk) -> Result<Option<Past>, Failure> {
    let disk_failed = |error: io::Error| Failure::Disk(format!("identity file: {error}"));
    let Some(text) = small_file::read(disk, FILE).map_err(disk_failed)? else { return Ok(None) };
    let (fixed, cluster_id) = parse(&text).map_err(Failure::Identity)?;
    Ok(Some(Past { name: fixed.name, cluster_id }))
}

impl Identity {
    /// Reads the identity of a data directory, or makes one from the founders' list, and counts this start.
    pub(crate) fn open(disk: Arc<dyn Disk>, config: &Config, found: Found) -> Result<Identity, Failure> {
        let disk_failed = |error: io::Error| Failure::Disk(format!("identity file: {error}"));
        let text = small_file::read(disk.as_ref(), FILE).map_err(disk_failed)?;
        let (mut fixed, cluster_id) = if let Some(text) = text {
            let (fixed, cluster_id) = parse(&text).map_err(Failure::Identity)?;
            check_config(&fixed, config)?;
            if fixed.node_id == UNJOINED {
                return Err(Failure::Identity(format!(
                    "node {} has asked to join a cluster and got no answer yet: start it with --join",
                    fixed.name
                )));
            }
            (fixed, cluster_id)
        } else {
            let Found::Fresh { restored } = found else {
                return Err(Failure::Identity(LOST_IDENTITY.to_owned()));
            };
            (founder(config, restored)?, 0)
        };
        fixed.boot_number += 1;
        let identity =
            Identity { disk, fixed, process_id: rt::random_u64(), cluster_id: Mutex::new(cluster_id) };
        identity.save(cluster_id).map_err(disk_failed)?;
        Ok(identity)
    }

    /// The identity of a node that is still to ask for its number, made on the first try and the same on each further one.
    /// None where there is nothing to ask for: the data directory belongs to a member.
    pub(crate) fn unjoined(disk: Arc<dyn Disk>, config: &Config) -> Result<Option<Identity>, Failure> {
        let disk_failed = |error: io::Error| Failure::Disk(format!("identity file: {error}"));
        let text = small_file::read(disk.as_ref(), FILE).map_err(disk_failed)?;
        let fixed = if let Some(text) = text {
            let (fixed, _) = parse(&text).map_err(Failure::Identity)?;
            check_config(&fixed, config)?;
            if fixed.node_id != UNJOINED {
                return Ok(None);
            }
            fixed
        } else {
            for folder in ["log", "state"] {
                if !disk
                    .subdirectory(folder)
                    .and_then(|folder| folder.list())
                    .map_err(disk_failed)?
                    .is_empty()
                {
                    return Err(Failure::Identity(LOST_IDENTITY.to_owned()));
                }
            }
            Fixed {
                name: config.name.clone(),
                node_id: UNJOINED,
                disk_id: rt::random_u64().max(1),
                founding_digest: Vec::new(),
                restored: 0,
                boot_number: 0,
            }
        };
        let identity = Identity { disk, fixed, process_id: rt::random_u64(), cluster_id: Mutex::new(0) };
        identity.save(0).map_err(disk_failed)?;
        Ok(Some(identity))
    }

    pub(crate) fn name(&self) -> &str {
        &self.fixed.name
    }

    pub(crate) fn node_id(&self) -> NodeId {
        self.fixed.node_id
    }

    pub(crate) fn disk_id(&self) -> u64 {
        self.fixed.disk_id
    }

    pub(crate) fn boot_number(&self) -> u64 {
        self.fixed.boot_number
    }

    pub(crate) fn process_id(&self) -> u64 {
        self.process_id
    }

    pub(crate) fn founding_digest(&self) -> &[u8] {
        &self.fixed.founding_digest
    }

    pub(crate) fn cluster_id(&self) -> u64 {
        *self.cluster_id.lock()
    }

    /// Takes `cluster_id` for this node's cluster, durably.
    pub(crate) fn set_cluster_id(&self, cluster_id: u64) -> io::Result<()> {
        let mut current = self.cluster_id.lock();
        assert!(*current == 0 || *current == cluster_id, "a node never changes its cluster");
        if *current != cluster_id {
            self.save(cluster_id)?;
            *current = cluster_id;
        }
        Ok(())
    }

    /// Whether a node that names this cluster belongs to this node's: the numbers agree, or one of the two is still
    /// being founded with the same list of founders.
    pub(crate) fn check_cluster(&self, theirs: u64, their_digest: &[u8], name: &str) -> Result<(), String> {
        let ours = self.cluster_id();
        if ours == theirs && ours != 0 {
            return Ok(());
        }
        if ours != 0 && theirs != 0 {
            return Err(format!(
                "node {name} belongs to cluster {theirs:016x}, this node ({}) to cluster {ours:016x}",
                self.name()
            ));
        }
        if their_digest != self.founding_digest() {
            return Err(format!(
                "the cluster is being founded, and node {name} was started with another --initial-cluster than node {}, \
                 or on another restored snapshot (restore the same one on every member, or none)",
                self.name()
            ));
        }
        Ok(())
    }

    /// As [`Identity::check_cluster`], and adopts the other's number where this node has none yet.
    pub(crate) fn admit_cluster(&self, theirs: u64, their_digest: &[u8], name: &str) -> Result<(), String> {
        self.check_cluster(theirs, their_digest, name)?;
        if theirs != 0 && self.cluster_id() == 0 {
            self.set_cluster_id(theirs).map_err(|error| format!("identity file: {error}"))?;
            tracing::info!(cluster = format!("{theirs:016x}"), "joined the cluster that {name} founded");
        }
        Ok(())
    }

    fn save(&self, cluster_id: u64) -> io::Result<()> {
        small_file::replace(self.disk.as_ref(), FILE, &render(&self.fixed, cluster_id))
    }
}

/// Writes down what an unjoined node was answered. From then on the directory is that member's.
pub(crate) fn save_joined(
    unjoined: &Identity,
    node_id: NodeId,
    cluster_id: u64,
    founding_digest: Vec<u8>,
) -> io::Result<()> {
    let fixed = Fixed { node_id, founding_digest, ..unjoined.fixed.clone() };
    Identity { disk: unjoined.disk.clone(), fixed, process_id: 0, cluster_id: Mutex::new(cluster_id) }
        .save(cluster_id)
}

/// The digest of what a cluster is founded on, its list of founders and the state restored before: the same on every
/// founder, whatever the order of the list.
fn founding_digest(founders: &[Founder], restored: u128) -> Vec<u8> {
    let mut lines: Vec<String> =
        founders.iter().map(|founder| format!("{}={}\n", founder.name, founder.peer_address)).collect();
    lines.sort();
    if restored != 0 {
        lines.push(format!("{restored:032x}\n"));
    }
    Sha256::digest(lines.concat().as_bytes()).to_vec()
}

/// The founders with their ids: 1…n in byte order of their names.
pub(crate) fn founders_with_ids(founders: &[Founder]) -> Vec<(NodeId, Founder)> {
    let mut sorted = founders.to_vec();
    sorted.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    (1..).map(NodeId).zip(sorted).collect()
}

fn founder(config: &Config, restored: u128) -> Result<Fixed, Failure> {
    let founders = founders_with_ids(&config.founders);
    let names: std::collections::BTreeSet<&str> = config.founders.iter().map(|f| f.name.as_str()).collect();
    if names.len() != founders.len() {
        return Err(Failure::Config("the initial cluster names a member twice".to_owned()));
    }
    let own = founders.iter().find(|(_, founder)| founder.name == config.name);
    let Some((node_id, own)) = own else {
        return Err(Failure::Config(format!(
            "the data directory is fresh, and the initial cluster does not name this node ({}): give it a place in \
             --initial-cluster, or found a cluster of one with --bootstrap",
            config.name
        )));
    };
    if own.peer_address != config.advertise_peer {
        return Err(Failure::Config(format!(
            "--initial-cluster has {} at {}, but --advertise-peer says {}",
            config.name, own.peer_address, config.advertise_peer
        )));
    }
    Ok(Fixed {
        name: config.name.clone(),
        node_id: *node_id,
        disk_id: rt::random_u64().max(1),
        founding_digest: founding_digest(&config.founders, restored),
        restored,
        boot_number: 0,
    })
}

fn check_config(fixed: &Fixed, config: &Config) -> Result<(), Failure> {
    if fixed.name != config.name {
        return Err(Failure::Identity(format!(
            "the data directory belongs to node {}, but this node is started as {}",
            fixed.name, config.name
        )));
    }
    if !config.founders.is_empty()
        && founding_digest(&config.founders, fixed.restored) != fixed.founding_digest
    {
        return Err(Failure::Identity(format!(
            "the data directory of node {} was made with another --initial-cluster: it belongs to another cluster; \
             start it with the one it was made with, or with none",
            fixed.name
        )));
    }
    Ok(())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn render(fixed: &Fixed, cluster_id: u64) -> String {
    small_file::seal(&format!(
        "format={FORMAT}\nname={}\nnode_id={}\ndisk_id={:016x}\ncluster_id={cluster_id:016x}\n\
         founding_digest={}\nrestored={:032x}\nboot_number={}\n",
        fixed.name,
        fixed.node_id,
        fixed.disk_id,
        hex(&fixed.founding_digest),
        fixed.restored,
        fixed.boot_number
    ))
}

fn parse(text: &str) -> Result<(Fixed, u64), String> {
    let damaged = |what: &str| {
        format!(
            "the identity file is damaged ({what}); put it back as it was (not an older copy of it), or bring the node back \
             with `ringfence member rejoin`"
        )
    };
    let lines = small_file::unseal(text).map_err(damaged)?;
    let field = |key: &str| {
        lines
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .ok_or_else(|| damaged(&format!("no {key}")))
    };
    let number = |key: &str, radix: u32| {
        u64::from_str_radix(field(key)?, radix).map_err(|_| damaged(&format!("{key} is no number")))
    };
    let format = number("format", 10)?;
    if format != FORMAT {
        return Err(format!("the identity file has format {format}; this build reads format {FORMAT}"));
    }
    let fixed = Fixed {
        name: field("name")?.to_owned(),
        node_id: NodeId(number("node_id", 16)?),
        disk_id: number("disk_id", 16)?,
        founding_digest: unhex(field("founding_digest")?).ok_or_else(|| damaged("founding_digest"))?,
        restored: u128::from_str_radix(field("restored")?, 16).map_err(|_| damaged("restored"))?,
        boot_number: number("boot_number", 10)?,
    };
    Ok((fixed, number("cluster_id", 16)?))
}

/// Reads an identity file of these lines under a right checksum. What can be read is written as what is read again.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_lines(lines: &str) {
    if let Ok((fixed, cluster_id)) = parse(&small_file::seal(lines)) {
        assert_eq!(parse(&render(&fixed, cluster_id)), Ok((fixed, cluster_id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed() -> Fixed {
        Fixed {
            name: "b".into(),
            node_id: NodeId(2),
            disk_id: 0xabc,
            founding_digest: vec![1, 2, 255],
            restored: 1 << 100,
            boot_number: 7,
        }
    }

    #[test]
    fn the_file_comes_back_as_it_was() {
        assert_eq!(parse(&render(&fixed(), 0x1234)), Ok((fixed(), 0x1234)));
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let text = render(&fixed(), 0x1234);
        for at in 0..text.len() - 1 {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            let Ok(damaged) = String::from_utf8(damaged) else { continue };
            assert!(parse(&damaged).is_err(), "byte {at}");
        }
    }

    fn joining_config() -> Config {
        let join = Some(crate::api::Join { addresses: vec!["a:1".into()], as_learner: false });
        Config { join, ..Config::sample("d") }
    }

    #[test]
    fn a_node_asks_to_join_as_the_same_one_until_it_is_answered() {
        let config = joining_config();
        let disk: Arc<dyn Disk> = Arc::new(ringfence_disk::SimDisk::new(1));
        let unjoined = || Identity::unjoined(disk.clone(), &config).expect("the disk works");
        let first = unjoined().expect("nothing is there yet");
        let again = unjoined().expect("it has no answer yet");
        assert_eq!(first.disk_id(), again.disk_id());
        let early = Identity::open(disk.clone(), &config, Found::Fresh { restored: 0 });
        assert!(matches!(early, Err(Failure::Identity(_))), "{early:?}");

        save_joined(&again, NodeId(2_560), 0xc1, vec![7]).expect("the disk works");
        assert!(unjoined().is_none(), "it belongs to a cluster now");
        let opened = Identity::open(disk.clone(), &config, Found::Used).expect("it is a member's");
        assert_eq!((opened.node_id(), opened.cluster_id()), (NodeId(2_560), 0xc1));
        assert_eq!((opened.disk_id(), opened.boot_number()), (first.disk_id(), 1));
    }

    #[test]
    fn nobody_joins_on_a_directory_that_has_lost_its_identity() {
        let disk: Arc<dyn Disk> = Arc::new(ringfence_disk::SimDisk::new(1));
        let log = disk.subdirectory("log").expect("the disk works");
        log.open("something", ringfence_disk::Open::New).expect("the disk works");
        let refused = Identity::unjoined(disk, &joining_config());
        assert!(matches!(refused, Err(Failure::Identity(_))), "{refused:?}");
    }

    #[test]
    fn founders_are_numbered_in_byte_order_of_their_names() {
        let founder = |name: &str| Founder { name: name.into(), peer_address: format!("{name}:1") };
        let forth = [founder("b"), founder("a"), founder("B")];
        let back = [founder("B"), founder("b"), founder("a")];
        let names: Vec<(u64, String)> =
            founders_with_ids(&forth).into_iter().map(|(id, founder)| (id.0, founder.name)).collect();
        assert_eq!(names, [(1, "B".into()), (2, "a".into()), (3, "b".into())]);
        assert_eq!(founding_digest(&forth, 0), founding_digest(&back, 0));
        assert_ne!(founding_digest(&forth, 0), founding_digest(&forth, 1));
    }
}
