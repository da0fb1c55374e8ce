//! What a node remembers of the others, and whom it takes for an impostor by it (DESIGN, section 6, nodes as impostors).
//!
//! A node id belongs to one data directory, and at each moment to one process on it. What an earlier process acknowledged, a
//! later one must have found on its disk: that of another directory, of an old copy, or of a copy that is in use twice, is an
//! impostor, and a majority that counted it would count what nobody keeps.
//!
//! Starts are remembered durably, in the file `peers`; what was acknowledged, by this process alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringfence_disk::Disk;
use ringfence_proto::peers::{Hello, Refusal};
use ringfence_types::{NodeId, limits};

use super::witness::{Acknowledged, Witness};
use crate::api::{Failure, Timing};
use crate::rt::{self, watch};
use crate::small_file;

const FILE: &str = "peers";
const FORMAT: u64 = 1;

/// One start of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    boot_number: u64,
    process_id: u64,
}

/// The highest start seen of each node.
type Starts = BTreeMap<NodeId, Process>;

/// What this node knows of each other node, from the membership and from handshakes.
#[derive(Debug)]
pub(crate) struct PeerBook {
    peers: Arc<Mutex<Peers>>,
    kept: Arc<Kept>,
    /// How many nodes have been met; to wait for the next.
    met: watch::Sender<usize>,
    /// What was logged of refusals, newest last: each is told once, not with each try.
    told: Mutex<VecDeque<String>>,
}

/// How long connections with a member outlive its removal.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Peers {
    by_id: BTreeMap<NodeId, Peer>,
    /// Those that were members once, and are none for good; since when this node knows.
    removed: BTreeMap<NodeId, rt::Instant>,
    /// Counts handshakes, to tell the older stranger from the newer.
    handshakes: u64,
}

#[derive(Debug, Default)]
struct Peer {
    /// From the membership; none for a stranger.
    disk_id: Option<u64>,
    /// The highest start seen.
    process: Option<Process>,
    /// What that process, and those before it, acknowledged to this one.
    witness: Arc<Witness>,
    leader_lease: Option<Duration>,
    /// Whether each has accepted the other since this process started.
    is_met: bool,
    /// Why there is no connection, if one of the two refuses the other.
    refusal: Option<String>,
    /// When it was last admitted, in handshakes.
    admitted_at: u64,
}

/// The starts that are on disk.
#[derive(Debug)]
struct Kept {
    disk: Arc<dyn Disk>,
    starts: Mutex<Starts>,
}

impl PeerBook {
    /// Takes over what an earlier process kept.
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<PeerBook, Failure> {
        let text = small_file::read(disk.as_ref(), FILE);
        let text = text.map_err(|error| Failure::Disk(format!("the file {FILE}: {error}")))?;
        let starts = text.as_deref().map_or_else(|| Ok(Starts::new()), parse).map_err(|what| {
            Failure::Identity(format!(
                "the file {FILE} is damaged ({what}): it says which starts of the other members this node has seen. Bring \
                 the node back with `ringfence member rejoin`"
            ))
        })?;
        let by_id = starts.iter().map(|(id, process)| {
            let peer = Peer { process: Some(*process), ..Peer::default() };
            (*id, peer)
        });
        let peers = Peers { by_id: by_id.collect(), ..Peers::default() };
        Ok(PeerBook {
            peers: Arc::new(Mutex::new(peers)),
            kept: Arc::new(Kept { disk, starts: Mutex::new(starts) }),
            met: watch::Sender::new(0),
            told: Mutex::default(),
        })
    }

    /// Takes over the membership's disk ids.
    pub(crate) fn set_members(&self, members: impl IntoIterator<Item = (NodeId, u64)>) {
        let mut peers = self.peers.lock();
        for peer in peers.by_id.values_mut() {
            peer.disk_id = None;
        }
        for (id, disk_id) in members {
            peers.by_id.entry(id).or_default().disk_id = Some(disk_id);
        }
        peers.forget_strangers();
    }

    /// Takes over from the replicated state who was removed. New connections with those are refused from now on; those that
    /// they have end a little later, so that calls under way are answered, and one that has not heard of its removal
    /// learns of it as it connects anew.
    pub(crate) fn set_removed(&self, removed: &BTreeSet<NodeId>) {
        let mut peers = self.peers.lock();
        peers.removed.retain(|id, _| removed.contains(id));
        for id in removed {
            let since = *peers.removed.entry(*id).or_insert_with(rt::now);
            if rt::since(since) >= FAREWELL
                && let Some(peer) = peers.by_id.get(id)
            {
                peer.witness.end();
            }
        }
    }

    /// The smallest leader lease that the given voters told; one that told nothing counts as the smallest allowed.
    pub(crate) fn leader_lease_min(&self, voters: impl IntoIterator<Item = NodeId>) -> Duration {
        let peers = self.peers.lock();
        let told = voters.into_iter().map(|id| peers.by_id.get(&id).and_then(|peer| peer.leader_lease));
        told.map(|lease| lease.unwrap_or(Timing::LEADER_LEASE_MIN)).min().unwrap_or(Duration::MAX)
    }

    /// The nodes that this process has accepted, and that have accepted it.
    pub(crate) fn met(&self) -> Vec<NodeId> {
        let peers = self.peers.lock();
        peers.by_id.iter().filter(|(_, peer)| peer.is_met).map(|(id, _)| *id).collect()
    }

    /// Changes when another node has been met.
    pub(crate) fn subscribe_met(&self) -> watch::Receiver<usize> {
        self.met.subscribe()
    }

    /// Why there is no connection to a node, if one of the two refuses the other.
    pub(crate) fn refusal(&self, id: NodeId) -> Option<String> {
        self.peers.lock().by_id.get(&id)?.refusal.clone()
    }

    /// The same of all members.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.peers.lock().by_id.values().filter_map(|peer| peer.refusal.clone()).collect()
    }

    /// Remembers that a handshake with a node ended well, or in a refusal. Strangers' are only told.
    pub(super) fn note_end(&self, id: NodeId, refusal: Option<&str>) {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.by_id.get_mut(&id) {
            peer.refusal = refusal.filter(|_| peer.disk_id.is_some()).map(str::to_owned);
            if refusal.is_none() && !peer.is_met {
                peer.is_met = true;
                let count = peers.by_id.values().filter(|peer| peer.is_met).count();
                self.met.send_replace(count);
            }
        }
        drop(peers);
        if let Some(reason) = refusal {
            self.tell_once(&format!("no connection with node {id}: {reason}"));
        }
    }

    /// Logs a refusal, unless it was logged lately.
    pub(super) fn tell_once(&self, refusal: &str) {
        let mut told = self.told.lock();
        if told.iter().any(|known| known == refusal) {
            return;
        }
        if told.len() == limits::STRANGERS_MAX {
            told.pop_front();
        }
        told.push_back(refusal.to_owned());
        tracing::warn!("{refusal}");
    }

    /// Why a node that says this of itself is an impostor, or a member no more, if it is.
    pub(super) fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        self.peers.lock().judge(hello)
    }

    /// Remembers a node that is none, durably where this is a start that was not seen before, and takes from an earlier
    /// process of it all that it still has to say. Returns where its acknowledgements are noted.
    pub(super) async fn admit(&self, hello: &Hello) -> Result<Arc<Witness>, AdmitError> {
        let (id, process) = (NodeId(hello.node_id), Process::of(hello));
        let witness = self.peers.lock().admit(hello).map_err(AdmitError::Refused)?;
        if self.kept.starts.lock().get(&id) != Some(&process) {
            let (kept, peers) = (self.kept.clone(), self.peers.clone());
            let keeping = rt::blocking(move || kept.keep(id, process, &peers));
            keeping.await.and_then(|kept| kept).map_err(AdmitError::Disk)?;
        }
        Ok(witness)
    }
}

/// Why a node is not admitted.
#[derive(Debug)]
pub(super) enum AdmitError {
    /// It is refused.
    Refused(Refusal),
    /// Its start could not be remembered.
    Disk(io::Error),
}

impl Process {
    fn of(hello: &Hello) -> Process {
        Process { boot_number: hello.boot_number, process_id: hello.process_id }
    }
}

impl Peers {
    fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        let (id, name) = (NodeId(hello.node_id), &hello.name);
        if self.removed.contains_key(&id) {
            let reason = format!("node {id} ({name}) was removed from the cluster");
            return Err(Refusal { reason, removed: true, ..Refusal::default() });
        }
        let Some(what) = self.by_id.get(&id).and_then(|peer| peer.contradiction(hello)) else {
            return Ok(());
        };
        Err(Refusal { reason: format!("node {id} ({name}) {what}"), impostor: true, ..Refusal::default() })
    }

    fn admit(&mut self, hello: &Hello) -> Result<Arc<Witness>, Refusal> {
        self.judge(hello)?;
        self.handshakes += 1;
        let peer = self.by_id.entry(NodeId(hello.node_id)).or_default();
        let process = Process::of(hello);
        if peer.process != Some(process) {
            peer.witness = peer.witness.succeed(&Acknowledged::said_by(hello));
            peer.process = Some(process);
        }
        peer.leader_lease = Some(Duration::from_millis(hello.leader_lease_ms));
        peer.admitted_at = self.handshakes;
        let witness = peer.witness.clone();
        self.forget_strangers();
        Ok(witness)
    }

    /// Of those that are no members only the newest are remembered: whoever is not known can have as many ids as it likes.
    fn forget_strangers(&mut self) {
        let strangers = self.by_id.iter().filter(|(_, peer)| peer.disk_id.is_none());
        let mut by_age: Vec<(u64, NodeId)> = strangers.map(|(id, peer)| (peer.admitted_at, *id)).collect();
        if by_age.len() > limits::STRANGERS_MAX {
            by_age.sort_unstable();
            for (_, id) in &by_age[..by_age.len() - limits::STRANGERS_MAX] {
                self.by_id.remove(id);
            }
        }
    }

    fn starts(&self) -> Starts {
        self.by_id.iter().filter_map(|(id, peer)| Some((*id, peer.process?))).collect()
    }
}

impl Peer {
    /// What cannot be true of the node that was known by this id, if anything.
    fn contradiction(&self, hello: &Hello) -> Option<String> {
        if let Some(disk_id) = self.disk_id.filter(|disk_id| *disk_id != hello.disk_id) {
            return Some(format!(
                "has disk {:016x}, but the member of that id has disk {disk_id:016x}: its data directory was emptied or \
                 replaced",
                hello.disk_id
            ));
        }
        let known = self.process?;
        let (boot, known_boot) = (hello.boot_number, known.boot_number);
        if boot < known_boot {
            return Some(format!(
                "shows start {boot} of its data directory, but start {known_boot} was seen already: the directory is an \
                 old copy, or a copy of it is in use"
            ));
        }
        if boot == known_boot && hello.process_id != known.process_id {
            return Some(format!(
                "shows start {boot} of its data directory, but another process was seen with that start: the directory is \
                 an old copy, or a copy of it is in use"
            ));
        }
        if boot == known_boot {
            return None;
        }
        let lacking = self.witness.acknowledged().lacking_in(&Acknowledged::said_by(hello))?;
        Some(format!("{lacking}: its data directory is an old copy, or its disk has lost what it had kept"))
    }
}

impl Kept {
    /// Makes durable that this process was seen, together with all else that is known by now.
    fn keep(&self, id: NodeId, process: Process, peers: &Mutex<Peers>) -> io::Result<()> {
        let mut kept = self.starts.lock();
        if kept.get(&id) == Some(&process) {
            return Ok(());
        }
        // Asked for while no other write is under way, so that none brings back less than the one before it.
        let starts = peers.lock().starts();
        small_file::replace(self.disk.as_ref(), FILE, &render(&starts))?;
        *kept = starts;
        Ok(())
    }
}

fn render(starts: &Starts) -> String {
    let lines = starts
        .iter()
        .map(|(id, process)| format!("{:x}={} {:016x}\n", id.0, process.boot_number, process.process_id));
    small_file::seal(&format!("format={FORMAT}\n{}", lines.collect::<String>()))
}

fn parse(text: &str) -> Result<Starts, &'static str> {
    let lines = small_file::unseal(text)?;
    let mut lines = lines.lines();
    if lines.next() != Some(&format!("format={FORMAT}")) {
        return Err("it has another format");
    }
    lines.map(|line| start_of(line).ok_or("a line that is no start")).collect()
}

fn start_of(line: &str) -> Option<(NodeId, Process)> {
    let (id, start) = line.split_once('=')?;
    let (boot_number, process_id) = start.split_once(' ')?;
    let process = Process {
        boot_number: boot_number.parse().ok()?,
        process_id: u64::from_str_radix(process_id, 16).ok()?,
    };
    Some((NodeId(u64::from_str_radix(id, 16).ok()?), process))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ringfence_disk::SimDisk;
    use ringfence_proto::peers as wire;

    use super::*;

    fn book(disk: &Arc<SimDisk>) -> PeerBook {
        PeerBook::open(disk.clone()).expect("the disk is whole")
    }

    fn hello(boot_number: u64, process_id: u64) -> Hello {
        Hello { node_id: 2, disk_id: 7, boot_number, process_id, name: "b".to_owned(), ..Hello::default() }
    }

    /// Found durable by the process: a vote for node 1 in this term, and a log up to this entry of term 1.
    fn found(hello: Hello, term: u64, index: u64) -> Hello {
        let vote = Some(wire::Vote { term, node: 1, committed: true });
        Hello { vote, last_log_id: Some(wire::LogId { term: 1, node: 1, index }), ..hello }
    }

    async fn admit(book: &PeerBook, hello: &Hello) -> Result<Arc<Witness>, String> {
        book.admit(hello).await.map_err(|error| match error {
            AdmitError::Refused(refusal) => refusal.reason,
            AdmitError::Disk(error) => panic!("a disk without faults: {error}"),
        })
    }

    async fn refused(book: &PeerBook, hello: &Hello, why: &str) {
        let reason = admit(book, hello).await.expect_err("an impostor");
        assert!(reason.contains(why), "{reason}");
    }

    fn acknowledge(witness: &Witness, term: u64, index: u64) -> bool {
        let vote = wire::Vote { term, node: 1, committed: true };
        witness.note(&vote, Some(&wire::LogId { term: 1, node: 1, index }))
    }

    #[tokio::test]
    async fn a_start_is_remembered_across_starts_of_whoever_saw_it() {
        let disk = Arc::new(SimDisk::new(1));
        admit(&book(&disk), &hello(5, 50)).await.expect("nothing is known of it");
        disk.crash();
        let book = book(&disk);
        refused(&book, &hello(4, 40), "start 5 was seen").await;
        refused(&book, &hello(5, 51), "another process was seen").await;
        admit(&book, &hello(5, 50)).await.expect("it is the same process");
        admit(&book, &hello(6, 60)).await.expect("it has started again");
        refused(&book, &hello(5, 50), "start 6 was seen").await;
    }

    #[tokio::test]
    async fn another_disk_is_refused_once_the_membership_names_one() {
        let book = book(&Arc::new(SimDisk::new(1)));
        book.set_members([(NodeId(2), 8)]);
        refused(&book, &hello(1, 1), "emptied or replaced").await;
    }

    #[tokio::test]
    async fn what_an_earlier_process_acknowledged_a_later_one_must_have_found() {
        let book = book(&Arc::new(SimDisk::new(1)));
        let witness = admit(&book, &found(hello(1, 1), 3, 9)).await.expect("nothing is known of it");
        assert!(acknowledge(&witness, 4, 20));
        assert!(acknowledge(&witness, 4, 12), "an older answer changes nothing");
        // Whatever it found at its start, the same process is believed: it has come further since.
        admit(&book, &found(hello(1, 1), 3, 9)).await.expect("the same process");
        refused(&book, &found(hello(2, 2), 3, 30), "below the vote").await;
        refused(&book, &found(hello(2, 2), 4, 19), "acknowledged").await;
        admit(&book, &found(hello(2, 2), 5, 3)).await.expect("a later leader may have cut its log off");
        refused(&book, &found(hello(3, 3), 4, 20), "below the vote").await;
        admit(&book, &found(hello(3, 3), 5, 2)).await.expect("it has acknowledged nothing under that vote");
    }

    #[tokio::test]
    async fn an_earlier_process_has_nothing_more_to_say() {
        let book = book(&Arc::new(SimDisk::new(1)));
        let earlier = admit(&book, &hello(1, 1)).await.expect("nothing is known of it");
        assert!(earlier.superseded().now_or_never().is_none());
        let later = admit(&book, &hello(2, 2)).await.expect("it has started again");
        assert!(!acknowledge(&earlier, 4, 20), "its answers no longer count");
        earlier.superseded().await;
        assert!(acknowledge(&later, 4, 20));
    }

    #[tokio::test]
    async fn a_removed_member_is_told_so_and_is_no_impostor() {
        let book = book(&Arc::new(SimDisk::new(1)));
        admit(&book, &hello(1, 1)).await.expect("nothing is known of it");
        book.set_removed(&BTreeSet::from([NodeId(2)]));
        let refusal = book.judge(&hello(1, 1)).expect_err("it is a member no more");
        assert!(refusal.removed && !refusal.impostor, "{refusal:?}");
        book.judge(&Hello { node_id: 3, ..hello(1, 1) }).expect("another node");
    }

    #[tokio::test]
    async fn strangers_do_not_fill_the_book() {
        let book = book(&Arc::new(SimDisk::new(1)));
        admit(&book, &Hello { node_id: 1_000, ..hello(5, 50) }).await.expect("a member to be");
        book.set_members([(NodeId(1_000), 7)]);
        let count = limits::STRANGERS_MAX as u64 * 3;
        for node_id in 0..count {
            admit(&book, &Hello { node_id, ..hello(1, 1) }).await.expect("nothing is known of it");
        }
        let peers = book.peers.lock();
        assert_eq!(peers.by_id.len(), limits::STRANGERS_MAX + 1);
        assert!(peers.by_id.contains_key(&NodeId(count - 1)), "the newest is remembered");
        assert!(peers.by_id.contains_key(&NodeId(1_000)), "a member is");
    }

    #[test]
    fn the_file_comes_back_as_it_was() {
        let starts: Starts = [
            (NodeId(1), Process { boot_number: 3, process_id: 0xabc }),
            (NodeId(512), Process::of(&hello(9, u64::MAX))),
        ]
        .into();
        assert_eq!(parse(&render(&starts)), Ok(starts));
        assert!(parse(&small_file::seal("format=2\n")).is_err());
        assert!(parse("format=1\n").is_err(), "no checksum");
    }
}
