//! Whole clusters of nodes in one process: real consensus, log and store, on simulated disks and an in-memory network
//! whose links can be cut.

mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ringfence_consensus::{
    BarrierError, Config, Connection, Failure, Founder, Network, Node, ProposeError, QuarantineKind,
    Retention, Role, Timing, Transfer, rt,
};
use ringfence_disk::{Disk, SimDisk};
use ringfence_types::{Command, Freshness, KeyRange, NodeId, Put, PutLease, PutValue, RangeQuery};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

mod integrity;
mod leases;

/// Every node's mailbox for connections, and which links are cut.
#[derive(Debug, Default)]
struct Fabric {
    mailboxes: Mutex<BTreeMap<String, mpsc::Sender<Connection>>>,
    /// How often each node has started: what an earlier process had open is closed.
    lives: Mutex<BTreeMap<String, u64>>,
    /// Pairs between which nothing passes, in either direction.
    cut: Mutex<BTreeSet<(String, String)>>,
    /// How long bytes take, from the one to the other, where it is not at once.
    slow: Mutex<BTreeMap<(String, String), Duration>>,
    /// Bytes that have arrived, by whom they were sent to.
    arrived: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug)]
struct Port {
    fabric: Arc<Fabric>,
    address: String,
    mailbox: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
}

impl Fabric {
    fn port(self: &Arc<Self>, address: &str) -> Arc<Port> {
        let (sender, mailbox) = mpsc::channel(64);
        self.mailboxes.lock().insert(address.to_owned(), sender);
        *self.lives.lock().entry(address.to_owned()).or_default() += 1;
        Arc::new(Port { fabric: self.clone(), address: address.to_owned(), mailbox: mailbox.into() })
    }

    fn lives_of(&self, (a, b): &(String, String)) -> [u64; 2] {
        let lives = self.lives.lock();
        [a, b].map(|address| lives.get(address).copied().unwrap_or_default())
    }

    fn is_cut(&self, a: &str, b: &str) -> bool {
        let cut = self.cut.lock();
        cut.contains(&(a.to_owned(), b.to_owned())) || cut.contains(&(b.to_owned(), a.to_owned()))
    }

    fn isolate(&self, address: &str) {
        self.separate(&[address.to_owned()]);
    }

    /// Cuts these off from all others.
    fn separate(&self, some: &[String]) {
        let others: Vec<String> =
            self.mailboxes.lock().keys().filter(|other| !some.contains(other)).cloned().collect();
        let pairs = some.iter().flat_map(|one| others.iter().map(|other| (one.clone(), other.clone())));
        self.cut.lock().extend(pairs);
    }

    fn heal(&self) {
        self.cut.lock().clear();
    }
}

impl Network for Port {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            if self.fabric.is_cut(&self.address, address) {
                // A cut link is silence, not an error.
                std::future::pending::<()>().await;
            }
            let mailbox = self.fabric.mailboxes.lock().get(address).cloned();
            let mailbox = mailbox.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, middle_near) = tokio::io::duplex(1 << 20);
            let (middle_far, far) = tokio::io::duplex(1 << 20);
            let (near_reader, near_writer) = tokio::io::split(near);
            let (far_reader, far_writer) = tokio::io::split(far);
            let (from_near, to_near) = tokio::io::split(middle_near);
            let (from_far, to_far) = tokio::io::split(middle_far);
            let there = (self.address.clone(), address.to_owned());
            let back = (address.to_owned(), self.address.clone());
            rt::spawn(carry(self.fabric.clone(), there, from_near, to_far));
            rt::spawn(carry(self.fabric.clone(), back, from_far, to_near));
            let arriving = Connection {
                reader: Box::new(far_reader),
                writer: Box::new(far_writer),
                remote: self.address.clone(),
            };
            mailbox.send(arriving).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Connection {
                reader: Box::new(near_reader),
                writer: Box::new(near_writer),
                remote: address.to_owned(),
            })
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let mut mailbox = self.mailbox.lock().await;
            mailbox.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
        })
    }
}

/// Carries bytes one way; while the link is cut they wait, as TCP's do.
async fn carry(
    fabric: Arc<Fabric>,
    link: (String, String),
    mut from: tokio::io::ReadHalf<tokio::io::DuplexStream>,
    mut to: tokio::io::WriteHalf<tokio::io::DuplexStream>,
) {
    let mut buffer = vec![0; 64 << 10];
    let lives = fabric.lives_of(&link);
    while fabric.lives_of(&link) == lives {
        let Some(read) = rt::timeout(Duration::from_millis(50), from.read(&mut buffer)).await else {
            continue;
        };
        let Ok(count) = read else { break };
        while fabric.is_cut(&link.0, &link.1) {
            rt::sleep(Duration::from_millis(5)).await;
        }
        let delay = fabric.slow.lock().get(&link).copied();
        if let Some(delay) = delay {
            rt::sleep(delay).await;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        *fabric.arrived.lock().entry(link.1.clone()).or_default() += count as u64;
    }
    drop(to.shutdown().await);
}

struct Cluster {
    fabric: Arc<Fabric>,
    disks: Vec<Arc<SimDisk>>,
    nodes: Vec<Node>,
}

fn address(index: usize) -> String {
    format!("n{}:1", index + 1)
}

fn config(index: usize, count: usize) -> Config {
    let founders =
        (0..count).map(|i| Founder { name: format!("n{}", i + 1), peer_address: address(i) }).collect();
    Config {
        name: format!("n{}", index + 1),
        advertise_peer: address(index),
        client_urls: vec![format!("http://n{}:2", index + 1)],
        founders,
        join: None,
        peer_secret: None,
        timing: Timing::LOCAL,
        checkpoint_interval: Duration::from_secs(3600),
        retention: Retention::default(),
        wal_segment_bytes: 4 << 20,
        store_cache_bytes: 4 << 20,
        rebuild_free_bytes_min: 64 << 20,
        snapshot_bytes_per_second: Config::SNAPSHOT_BYTES_PER_SECOND,
        disk_stall_limit: Config::DISK_STALL_LIMIT,
        integrity: Default::default(),
        space: Default::default(),
        version: "test".to_owned(),
    }
}

fn deadline(seconds: u64) -> rt::Instant {
    rt::now() + Duration::from_secs(seconds)
}

impl Cluster {
    async fn start(count: usize) -> Cluster {
        Cluster::start_with(count, |_| ()).await
    }

    async fn start_with(count: usize, adapt: impl Fn(&mut Config)) -> Cluster {
        let fabric = Arc::<Fabric>::default();
        let disks: Vec<Arc<SimDisk>> =
            (0..count).map(|index| Arc::new(SimDisk::new(index as u64 + 1))).collect();
        // Mailboxes first: a founder that is dialled before it listens costs a retry.
        let ports: Vec<Arc<Port>> = (0..count).map(|index| fabric.port(&address(index))).collect();
        let mut nodes = Vec::new();
        for (index, port) in ports.into_iter().enumerate() {
            let disk: Arc<dyn Disk> = disks[index].clone();
            let mut config = config(index, count);
            adapt(&mut config);
            nodes.push(Node::start(config, disk, port).await.expect("a fresh node starts"));
        }
        Cluster { fabric, disks, nodes }
    }

    /// Starts a stopped node again, on the disk that it has by now.
    async fn start_again(&mut self, index: usize) {
        let (disk, port) = (self.disks[index].clone(), self.fabric.port(&address(index)));
        let started = Node::start(config(index, self.nodes.len()), disk, port).await;
        self.nodes[index] = started.expect("a node starts again");
    }

    /// Waits until every member has told its addresses: from then on nodes write nothing by themselves.
    async fn settle(&self) {
        for _ in 0..1000 {
            let members = self.nodes.iter().map(|node| node.view().members());
            if members.into_iter().all(|members| members.len() == self.nodes.len()) {
                return;
            }
            rt::sleep(Duration::from_millis(10)).await;
        }
        panic!("not all members have published their addresses in 10 s");
    }

    /// The index of the node that all of `among` call their leader.
    async fn leader(&self, among: &[usize]) -> usize {
        for _ in 0..1000 {
            let named: BTreeSet<Option<NodeId>> =
                among.iter().map(|index| self.nodes[*index].leader()).collect();
            if let [Some(leader)] = named.iter().copied().collect::<Vec<_>>()[..] {
                return leader.0 as usize - 1;
            }
            rt::sleep(Duration::from_millis(10)).await;
        }
        panic!("no leader among {among:?} in 10 s");
    }
}

fn put(key: &str, value: &str) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: PutValue::Set(Bytes::copy_from_slice(value.as_bytes())),
        lease: PutLease::Set(ringfence_types::LeaseId(0)),
        prev_kv: false,
    })
}

fn value_in(view: &ringfence_store::View, key: &str) -> Option<String> {
    let query = RangeQuery::new(KeyRange::single(Bytes::copy_from_slice(key.as_bytes())));
    let reply = view.range(&query).expect("the state can be read");
    reply.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

async fn get(node: &Node, key: &str) -> Result<Option<String>, BarrierError> {
    Ok(value_in(&node.read_barrier(Freshness::Linearizable, deadline(5)).await?, key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_through_any_member_are_read_through_any_other() {
    let cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    for (writer, node) in cluster.nodes.iter().enumerate() {
        let key = format!("key-{writer}");
        node.propose(&put(&key, "value"), deadline(5))
            .await
            .expect("a leader is known")
            .expect("a plain put");
        for reader in &cluster.nodes {
            assert_eq!(get(reader, &key).await, Ok(Some("value".to_owned())), "written through {writer}");
        }
    }
    let hashes: Vec<_> = cluster.nodes.iter().map(|node| node.view().hash()).collect();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_turns_read_only_and_the_majority_goes_on() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader(&[0, 1, 2]).await;
    cluster.nodes[old].propose(&put("k", "before"), deadline(5)).await.expect("a leader").expect("a put");

    cluster.fabric.isolate(&address(old));
    let under_way = cluster.nodes[old].propose(&put("k", "lost?"), deadline(10)).await;
    assert!(
        under_way.is_err_and(|error| !error.is_definite()),
        "a write under way is unknown, and ends early"
    );
    let rest: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    let new = cluster.leader(&rest).await;
    assert_ne!(new, old);
    cluster.nodes[new].propose(&put("k", "after"), deadline(5)).await.expect("a new leader").expect("a put");

    // The old leader knows by its own clock that it may not write, nor answer a linearizable read; it says so at once.
    let started = rt::now();
    let refused = cluster.nodes[old].propose(&put("k", "never"), deadline(10)).await;
    assert!(matches!(refused, Err(ProposeError::NoLease(_))), "{refused:?}");
    assert!(rt::since(started) < Duration::from_millis(500), "a refusal does not wait");
    assert!(matches!(get(&cluster.nodes[old], "k").await, Err(BarrierError::NoQuorum(_))));
    assert_eq!(value_in(&cluster.nodes[old].view(), "k").as_deref(), Some("before"));
    let status = cluster.nodes[old].status();
    assert!(
        status.read_only.is_some() && status.leader.is_none() && status.leader_lease_left.is_none(),
        "{status:?}"
    );

    cluster.fabric.heal();
    cluster.leader(&[0, 1, 2]).await;
    for node in &cluster.nodes {
        assert_eq!(get(node, "k").await, Ok(Some("after".to_owned())));
    }
    assert_eq!(cluster.nodes[old].status().role, Role::Follower);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_cut_off_together_with_its_leader_turns_read_only_too() {
    let cluster = Cluster::start(5).await;
    let leader = cluster.leader(&[0, 1, 2, 3, 4]).await;
    let follower = (leader + 1) % 5;
    cluster.fabric.separate(&[address(leader), address(follower)]);

    for attempt in 0.. {
        match cluster.nodes[follower].status().read_only {
            Some(told) if told.reason.contains("no majority answers") => break,
            seen => assert!(attempt < 1_000, "after 10 s: {seen:?}"),
        }
        rt::sleep(Duration::from_millis(10)).await;
    }
    let refused = cluster.nodes[follower].propose(&put("k", "never"), deadline(5)).await;
    assert!(refused.as_ref().is_err_and(ProposeError::is_definite), "{refused:?}");

    cluster.fabric.heal();
    cluster.leader(&[0, 1, 2, 3, 4]).await;
    cluster.nodes[follower].propose(&put("k", "after"), deadline(5)).await.expect("a leader").expect("a put");
    assert_eq!(cluster.nodes[follower].status().read_only, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_as_old_as_the_question_whose_answer_it_has_applied() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let limit = Duration::from_secs(2);
    let within = |freshness| {
        let node = cluster.nodes[follower].clone();
        async move { node.read_barrier(freshness, rt::now() + Duration::from_millis(300)).await }
    };
    assert_eq!(
        cluster.nodes[leader].age(),
        Some(Duration::ZERO),
        "whatever is acknowledged, the leader has applied"
    );
    cluster.nodes[leader].propose(&put("k", "old"), deadline(5)).await.expect("proposed").expect("applied");
    let view = within(Freshness::MaxAge(limit)).await.expect("the leader is there to be asked");
    assert_eq!(value_in(&view, "k").as_deref(), Some("old"));
    assert!(cluster.nodes[follower].age().is_some_and(|age| age < limit));

    // Heartbeats and entries may still be on their way, but no answer is: the state grows old, and says so.
    let cut_at = rt::now();
    for member in [leader, other] {
        cluster.fabric.cut.lock().insert((address(follower), address(member)));
    }
    within(Freshness::MaxAge(limit)).await.expect("it is young enough without asking anybody");
    cluster.nodes[leader].propose(&put("k", "new"), deadline(5)).await.expect("proposed").expect("applied");
    let refused = within(Freshness::MaxAge(Duration::ZERO)).await;
    assert!(refused.is_err(), "nobody can be asked: {refused:?}");
    let mut served = 0;
    while let Ok(view) = within(Freshness::MaxAge(limit)).await {
        served += 1;
        assert!(
            rt::since(cut_at) < limit + Duration::from_secs(1),
            "served for longer than the state can be young"
        );
        assert_eq!(value_in(&view, "k").as_deref(), Some("old"));
        rt::sleep(Duration::from_millis(50)).await;
    }
    assert!(served > 0 && cluster.nodes[follower].age().is_some_and(|age| age > limit));

    cluster.fabric.heal();
    let deadline = deadline(10);
    loop {
        let view = cluster.nodes[follower].read_barrier(Freshness::MaxAge(limit), deadline).await;
        match view {
            Ok(view) => break assert_eq!(value_in(&view, "k").as_deref(), Some("new")),
            Err(error) => assert!(rt::now() < deadline, "it never came back: {error}"),
        }
        rt::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_only_to_a_voter_that_can_take_it() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader(&[0, 1, 2]).await;
    let node = &cluster.nodes[old];
    node.propose(&put("k", "v"), deadline(5)).await.expect("a leader").expect("a put");
    assert!(node.transfer_leadership(Some(NodeId(77)), deadline(5)).await.is_err());
    assert!(node.transfer_leadership(Some(node.node_id()), deadline(5)).await.is_err());
    let follower = &cluster.nodes[(old + 1) % 3];
    assert!(
        follower.transfer_leadership(None, deadline(5)).await.is_err(),
        "a follower has nothing to hand over"
    );

    let taken = node.transfer_leadership(Some(follower.node_id()), deadline(5)).await;
    assert_eq!(taken, Ok(follower.node_id()));
    node.propose(&put("k", "w"), deadline(5)).await.expect("forwarded to the new leader").expect("a put");
    assert_eq!(get(node, "k").await, Ok(Some("w".to_owned())));
}

/// Writers that go on until they are told to stop, or a write fails.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<rt::JoinHandle<Result<(), ProposeError>>>,
}

impl Writers {
    fn start<'a>(through: impl Iterator<Item = &'a Node>) -> Writers {
        let stop = Arc::<AtomicBool>::default();
        let write = |(writer, node): (usize, &Node)| {
            let (node, stop) = (node.clone(), stop.clone());
            rt::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let _outcome = node.propose(&put(&format!("key-{writer}"), "value"), deadline(5)).await?;
                }
                Ok(())
            })
        };
        let tasks = through.enumerate().map(write).collect();
        Writers { stop, tasks }
    }

    async fn stop(self) -> Vec<Result<(), ProposeError>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ended = Vec::new();
        for task in self.tasks {
            ended.push(task.await.expect("a writer does not panic"));
        }
        ended
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_a_successor_still_tells_what_became_of_its_writes() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let (next, through) = ((old + 1) % 3, (old + 2) % 3);
    // The member hears of the successor before the old leader's answers reach it.
    cluster.fabric.slow.lock().insert((address(old), address(through)), Duration::from_millis(100));
    let writers = Writers::start(std::iter::repeat_n(&cluster.nodes[through], 4));
    rt::sleep(Duration::from_millis(250)).await;
    let target = cluster.nodes[next].node_id();
    let taken = cluster.nodes[old].transfer_leadership(Some(target), deadline(5)).await;
    assert_eq!(taken, Ok(target));
    assert_eq!(writers.stop().await, [const { Ok(()) }; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_fails_while_leadership_is_handed_over() {
    let cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let writers = Writers::start(cluster.nodes.iter().cycle().take(12));
    for _ in 0..4 {
        // So long that what a leader last heard as a follower says nothing any more.
        rt::sleep(Timing::LOCAL.leader_lease * 4).await;
        let leader = cluster.leader(&[0, 1, 2]).await;
        cluster.nodes[leader].transfer_leadership(None, deadline(5)).await.expect("the others are fit");
    }
    assert_eq!(writers.stop().await, [const { Ok(()) }; 12], "planned, and failed all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_leave_the_log_to_the_retention() {
    let interval = Duration::from_millis(50);
    let cluster = Cluster::start_with(3, |config| config.checkpoint_interval = interval).await;
    let leader = &cluster.nodes[cluster.leader(&[0, 1, 2]).await];
    // More entries than openraft purges at a time, and a second round: it purges after a checkpoint that it was told of.
    for round in 0..2 {
        for number in 0..400 {
            let written = leader.propose(&put(&format!("key-{number}"), "value"), deadline(5)).await;
            written.expect("the majority is there").expect("a put");
        }
        let applied = leader.view().applied();
        for attempt in 0.. {
            if leader.status().checkpointed >= applied {
                break;
            }
            assert!(attempt < 1_000, "no checkpoint of round {round} in 10 s");
            rt::sleep(Duration::from_millis(10)).await;
        }
    }
    let last = leader.status().checkpointed;
    leader.propose(&put("end", "1"), deadline(5)).await.expect("a leader").expect("a put");
    while leader.status().checkpointed == last {
        rt::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(leader.status().purged, None, "the log is far below what the retention allows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_a_purge_is_brought_back_by_a_snapshot() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let away = (leader + 1) % 3;
    cluster.fabric.isolate(&address(away));
    for round in 0..3_000 {
        let key = format!("key-{}", round % 50);
        let written = cluster.nodes[leader].propose(&put(&key, &round.to_string()), deadline(5)).await;
        written.expect("the majority is there").expect("a put");
    }
    // Everything that the absent member needs is dropped from both logs.
    for index in [leader, (leader + 2) % 3] {
        cluster.nodes[index].checkpoint().await.expect("a disk without faults");
        cluster.nodes[index].purge_to_checkpoint().await;
        for attempt in 0.. {
            let status = cluster.nodes[index].status();
            let (purged, checkpointed) = (status.purged, status.checkpointed.map(|log_id| log_id.index));
            if purged == checkpointed {
                break;
            }
            assert!(attempt < 1_000, "dropped in 10 s: {purged:?} of {checkpointed:?}");
            rt::sleep(Duration::from_millis(10)).await;
        }
    }
    cluster.fabric.heal();
    let expected = cluster.nodes[leader].view();
    for _ in 0..1_500 {
        if cluster.nodes[away].view().applied() >= expected.applied() {
            break;
        }
        rt::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(cluster.nodes[away].view().hash(), expected.hash());
    // It is a full member again, the next write reaches it through the log.
    cluster.nodes[leader].propose(&put("end", "1"), deadline(5)).await.expect("a leader").expect("a put");
    assert_eq!(get(&cluster.nodes[away], "end").await, Ok(Some("1".to_owned())));
    cluster.nodes.clear();
}

/// Waits until the leader is past so many bytes of the snapshot that it sends to a member.
async fn wait_sent(leader: &Node, member: usize, bytes: u64) -> Transfer {
    for _ in 0..3_000 {
        if let Some(transfer) =
            leader.status().members[member].snapshot.filter(|transfer| transfer.sent >= bytes)
        {
            return transfer;
        }
        rt::sleep(Duration::from_millis(10)).await;
    }
    panic!("no snapshot is sent in 30 s: {:?}", leader.status().members);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_its_connection_broke_and_keeps_the_log_behind_it() {
    const CHUNK: u64 = ringfence_types::limits::SNAPSHOT_CHUNK_BYTES as u64;
    const RATE: u64 = 4 << 20;
    let cluster = Cluster::start_with(3, |config| config.snapshot_bytes_per_second = RATE).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let away = (leader + 1) % 3;
    cluster.fabric.isolate(&address(away));
    let value = "v".repeat(8 << 10);
    for number in 0..1_200 {
        let written =
            cluster.nodes[leader].propose(&put(&format!("key-{number}"), &value), deadline(5)).await;
        written.expect("the majority is there").expect("a put");
    }
    let forget = async || {
        for index in [leader, 3 - leader - away] {
            cluster.nodes[index].checkpoint().await.expect("a disk without faults");
            cluster.nodes[index].purge_to_checkpoint().await;
        }
    };
    forget().await;
    // While a member may still take entries from the log, they stay.
    for attempt in 0.. {
        let status = cluster.nodes[leader].status();
        if status.purged >= status.checkpointed.map(|log_id| log_id.index) {
            break;
        }
        assert!(attempt < 1_000, "the leader has not purged its log in 10 s: {status:?}");
        rt::sleep(Duration::from_millis(10)).await;
        cluster.nodes[leader].purge_to_checkpoint().await;
    }
    let arrived = |fabric: &Fabric| fabric.arrived.lock().get(&address(away)).copied().unwrap_or_default();
    let before = arrived(&cluster.fabric);
    cluster.fabric.heal();
    let begun = rt::now();
    let total = wait_sent(&cluster.nodes[leader], away, 4 * CHUNK).await.total;
    cluster.fabric.isolate(&address(away));
    // What is written now, and checkpointed, is behind the file that is sent: the member will need it.
    for number in 0..100 {
        let written = cluster.nodes[leader].propose(&put(&format!("late-{number}"), "v"), deadline(5)).await;
        written.expect("the majority is there").expect("a put");
    }
    forget().await;
    while cluster.nodes[leader].status().members[away].snapshot.is_some() {
        rt::sleep(Duration::from_millis(10)).await;
    }
    cluster.fabric.heal();
    wait_sent(&cluster.nodes[leader], away, 4 * CHUNK).await;
    for attempt in 0.. {
        if cluster.nodes[away].view().applied() >= cluster.nodes[leader].view().applied() {
            break;
        }
        assert!(attempt < 3_000, "the member has not caught up in 30 s");
        rt::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(cluster.nodes[away].view().hash(), cluster.nodes[leader].view().hash());
    assert!(total > 8 * CHUNK, "{total} bytes are too few for this test");
    let excess = (arrived(&cluster.fabric) - before).saturating_sub(total);
    assert!(excess < 2 * CHUNK, "{excess} bytes were sent again, of a snapshot of {total}");
    let least = Duration::from_secs_f64((total - CHUNK) as f64 / RATE as f64);
    assert!(rt::since(begun) >= least, "{total} bytes took {:?}", rt::since(begun));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_restarts_as_a_whole_meets_and_goes_on() {
    for count in [1, 3, 5] {
        let mut cluster = Cluster::start(count).await;
        let all: Vec<usize> = (0..count).collect();
        let leader = cluster.leader(&all).await;
        cluster.nodes[leader].propose(&put("k", "v"), deadline(5)).await.expect("a leader").expect("a put");
        for node in &cluster.nodes {
            node.shutdown().await;
        }
        let begun = rt::now();
        for index in 0..count {
            cluster.start_again(index).await;
        }
        cluster.leader(&all).await;
        let took = rt::since(begun);
        for node in &cluster.nodes {
            assert_eq!(get(node, "k").await, Ok(Some("v".to_owned())));
            assert_eq!(node.status().quarantine, None);
        }
        // A lease that may still run and an election come first in any case; to meet takes a few milliseconds of it.
        assert!(took < Duration::from_secs(5), "{count} nodes took {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_after_its_start_acknowledges_nothing() {
    let mut cluster = Cluster::start(5).await;
    let all = [0, 1, 2, 3, 4];
    let leader = cluster.leader(&all).await;
    cluster.settle().await;
    let others: Vec<usize> = all.into_iter().filter(|index| *index != leader).collect();
    // It restarts where only the leader reaches it, which together with it is no majority.
    let alone = others[0];
    cluster.nodes[alone].shutdown().await;
    for other in &others[1..] {
        cluster.fabric.cut.lock().insert((address(alone), address(*other)));
    }
    cluster.start_again(alone).await;
    let before = cluster.nodes[alone].view().applied();
    for number in 0..20 {
        let written = cluster.nodes[leader].propose(&put(&format!("k{number}"), "v"), deadline(5)).await;
        written.expect("the majority is there").expect("a put");
    }
    rt::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        cluster.nodes[alone].view().applied(),
        before,
        "it takes nothing before it has met a majority"
    );
    cluster.fabric.heal();
    cluster.leader(&all).await;
    assert_eq!(get(&cluster.nodes[alone], "k19").await, Ok(Some("v".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_was_emptied_is_not_counted_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let away = (leader + 1) % 3;
    cluster.nodes[leader].propose(&put("k", "v"), deadline(5)).await.expect("a leader").expect("a put");
    cluster.nodes[away].shutdown().await;
    cluster.disks[away] = Arc::new(SimDisk::new(77));
    for start in 1..=2 {
        cluster.start_again(away).await;
        for attempt in 0.. {
            let status = cluster.nodes[away].status();
            if let Some(quarantine) = status.quarantine
                && status.read_only.is_some()
            {
                assert_eq!(quarantine.kind, QuarantineKind::Log);
                assert!(quarantine.reason.contains("emptied"), "start {start}: {}", quarantine.reason);
                break;
            }
            assert!(attempt < 1_000, "not in quarantine after 10 s of start {start}");
            rt::sleep(Duration::from_millis(10)).await;
        }
        let refused = cluster.nodes[away].propose(&put("k", "never"), deadline(5)).await;
        assert!(refused.as_ref().is_err_and(ProposeError::is_definite), "{refused:?}");
        let seen = cluster.nodes[leader].status();
        assert!(seen.members[away].refusal.is_some(), "{:?}", seen.members);
        cluster.nodes[leader].propose(&put("k", "w"), deadline(5)).await.expect("a majority").expect("a put");
        cluster.nodes[away].shutdown().await;
    }
    // Nobody is elected with its vote.
    let third = 3 - leader - away;
    cluster.start_again(away).await;
    cluster.fabric.isolate(&address(third));
    for attempt in 0.. {
        if cluster.nodes[leader].status().read_only.is_some() {
            break;
        }
        assert!(attempt < 1_000, "it counts on whom it must not");
        rt::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_node_and_a_wrong_founders_list_are_refused() {
    let cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    let mut other = config(0, 3);
    other.founders[1].peer_address = "elsewhere:1".to_owned();
    let disk: Arc<dyn Disk> = cluster.disks[0].clone();
    let port = cluster.fabric.port("n9:1");
    let refused = Node::start(other, disk, port.clone()).await.err();
    assert!(matches!(refused, Some(Failure::Identity(_))), "{refused:?}");
    let mut stranger = config(0, 3);
    stranger.name = "stranger".to_owned();
    let refused = Node::start(stranger, Arc::new(SimDisk::new(99)), port).await.err();
    assert!(matches!(refused, Some(Failure::Config(_))), "{refused:?}");
}
