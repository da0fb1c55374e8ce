//! States that differ or rot: found, kept from leading and serving, rebuilt from the others, and nothing else called so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringfence_consensus::{BarrierError, Failure, Integrity, Node, QuarantineKind, ScrubVerdict, rt};
use ringfence_disk::{Disk, Open, SimDisk};
use ringfence_store::{Entry, Options, Payload, STATE_FILE, Store};
use ringfence_types::{
    Alarm, AlarmKind, Command, Freshness, Index, LogId, NodeId, Rejection, Reply, Revision,
};

use crate::support::{Cluster, address, config, deadline, put};

/// Short enough for a test to see many comparisons.
const INTEGRITY: Integrity = Integrity {
    compare_interval: Duration::from_millis(40),
    hash_step: 4,
    scrub_interval: Duration::from_secs(3_600),
    scrub_bytes_per_second: 1 << 30,
};

async fn start(count: usize) -> Cluster {
    let cluster = Cluster::start_with(count, |config| config.integrity = INTEGRITY).await;
    cluster.leader(&(0..count).collect::<Vec<_>>()).await;
    cluster.settle().await;
    cluster
}

impl Cluster {
    /// Stops a node, has something done to its disk, and starts it again.
    async fn restart(&mut self, index: usize, meanwhile: impl FnOnce(&SimDisk)) {
        self.nodes[index].shutdown().await;
        // A disk of its own: what the stopped node still holds open is another one's.
        let disk = self.disks[index].fork(rt::random_u64());
        meanwhile(&disk);
        self.disks[index] = Arc::new(disk);
        self.start_comparing(index).await;
    }

    async fn start_comparing(&mut self, index: usize) {
        let mut config = config(index, self.nodes.len());
        config.integrity = INTEGRITY;
        let disk: Arc<dyn Disk> = self.disks[index].clone();
        let port = self.fabric.port(&address(index));
        self.nodes[index] = Node::start(config, disk, port).await.expect("the node starts");
    }

    async fn write(&self, through: usize, count: usize) {
        for number in 0..count {
            let command =
                put(&format!("key-{}", number % 50), &format!("a value that is easy to find {number}"));
            self.nodes[through].propose(&command, deadline(10)).await.expect("a majority").expect("a put");
        }
    }

    /// Waits until a condition holds of the cluster.
    async fn until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            rt::sleep(Duration::from_millis(10)).await;
        }
        let seen: Vec<_> =
            self.nodes.iter().map(|node| (node.quarantine(), node.view().applied(), node.leader())).collect();
        panic!("not in 20 s: {what}; {seen:?}");
    }

    fn rebuilt(&self) -> u64 {
        self.nodes.iter().map(|node| node.status().integrity.states_rebuilt).sum()
    }

    /// Waits until one more state was rebuilt, and all nodes have the same, and serve it.
    async fn until_whole(&self, rebuilt: u64) {
        self.until("the state is rebuilt", |cluster| {
            cluster.rebuilt() >= rebuilt && cluster.nodes.iter().all(|node| node.quarantine().is_none())
        })
        .await;
        self.leader(&(0..self.nodes.len()).collect::<Vec<_>>()).await;
        let leader = self.nodes[0].leader().expect("there is one").0 as usize - 1;
        self.write(leader, 9).await;
        for node in &self.nodes {
            node.read_barrier(Freshness::Linearizable, deadline(5)).await.expect("it serves");
        }
        let hashes: BTreeSet<_> = self.nodes.iter().map(|node| node.view().hash()).collect();
        assert_eq!(hashes.len(), 1, "{hashes:?}");
    }
}

/// Puts another row than the log's into the state of a stopped node, as a bug in `apply` would: the node believes it has
/// applied the next entry.
fn diverge(disk: &SimDisk, value: &str) {
    let state: Arc<dyn Disk> = Arc::new(disk.inner("state").expect("the node ran"));
    let store = Store::open(state, Options::default()).expect("whole");
    let last = store.applied().log_id.expect("something is applied");
    let log_id = LogId { index: Index(last.index.0 + 1), ..last };
    let command = ringfence_proto::command::encode(&put("key-1", value));
    store.apply(&[Entry { log_id, payload: Payload::Command(command) }]).expect("the disk works").pop();
    store.checkpoint().expect("the disk works");
}

/// Flips a bit in every value of the state file.
fn rot(disk: &SimDisk) {
    let state = disk.inner("state").expect("the node ran");
    let file = state.open(STATE_FILE, Open::Existing).expect("there");
    let mut bytes = vec![0; file.len().expect("a length") as usize];
    file.read_exact_at(&mut bytes, 0).expect("whole");
    let needle = b"easy to find";
    let places = bytes.windows(needle.len()).enumerate().filter(|(_, window)| window == needle);
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    assert!(!places.is_empty(), "values lie in the state file");
    places.iter().for_each(|place| state.corrupt(STATE_FILE, *place as u64, 0x08));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_state_differs_is_found_and_rebuilt() {
    let mut cluster = start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let follower = (leader + 1) % 3;
    cluster.write(leader, 30).await;
    cluster.restart(follower, |disk| diverge(disk, "what nobody wrote")).await;
    cluster.write(leader, 30).await;
    cluster.until_whole(1).await;
    assert_eq!(cluster.rebuilt(), 1, "one state differed, and was rebuilt once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_state_differs_hands_over_first() {
    let mut cluster = start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let wrong = (leader + 1) % 3;
    cluster.write(leader, 30).await;
    cluster.restart(wrong, |disk| diverge(disk, "what nobody wrote")).await;
    // One more entry of the leader's, so that the wrong one may take over: it lies where the invented row does.
    cluster.write(leader, 1).await;
    let target = NodeId(wrong as u64 + 1);
    for _ in 0..100 {
        match cluster.nodes[leader].transfer_leadership(Some(target), deadline(2)).await {
            Ok(_) => break,
            Err(_) => rt::sleep(Duration::from_millis(50)).await,
        }
    }
    for round in 0.. {
        // Writes that the wrong leader took when it was found out end as unknown: they are tried again.
        let _ = cluster.nodes[leader].propose(&put("key-1", &round.to_string()), deadline(2)).await;
        if cluster.rebuilt() > 0 || round > 2_000 {
            break;
        }
    }
    cluster.until_whole(1).await;
    assert_ne!(cluster.leader(&[0, 1, 2]).await, wrong, "whoever was found out has handed over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_that_a_scrub_finds_is_named_and_rebuilt() {
    let mut cluster = start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let follower = (leader + 1) % 3;
    cluster.write(leader, 60).await;
    for node in &cluster.nodes {
        let verdict = node.scrub(drop).await.expect("the disk works");
        assert!(matches!(verdict, ScrubVerdict::Sound { .. }), "{verdict:?}");
    }
    cluster.restart(follower, rot).await;
    let verdict = cluster.nodes[follower].scrub(drop).await.expect("the disk works");
    let ScrubVerdict::Damaged { reason, .. } = verdict else { panic!("{verdict:?}") };
    assert!(reason.contains("not what was written"), "{reason}");
    cluster.until_whole(1).await;
    let verdict = cluster.nodes[follower].scrub(drop).await.expect("the disk works");
    assert!(matches!(verdict, ScrubVerdict::Sound { .. }), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_state_quarantine_votes_and_serves_nothing_until_it_is_rebuilt() {
    let mut cluster = start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let (sick, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.write(leader, 60).await;
    cluster.restart(sick, rot).await;
    // Alone it can find out, and nobody can help it.
    cluster.fabric.isolate(&address(sick));
    cluster.nodes[sick].scrub(drop).await.expect("the disk works");
    let quarantine = cluster.nodes[sick].quarantine().expect("the scrub found something");
    assert_eq!(quarantine.kind, QuarantineKind::State);
    assert!(cluster.nodes[sick].ready().is_err_and(|why| why.contains("state quarantine")));
    for freshness in [Freshness::Any, Freshness::Linearizable, Freshness::Revision(Revision(1))] {
        let refused = cluster.nodes[sick].read_barrier(freshness, deadline(2)).await.map(drop);
        assert!(matches!(refused, Err(BarrierError::StateQuarantine(_))), "{refused:?}");
    }
    // A restart does not forget it.
    cluster.fabric.heal();
    cluster.nodes[sick].shutdown().await;
    cluster.disks[sick] = Arc::new(cluster.disks[sick].fork(9));
    cluster.fabric.isolate(&address(sick));
    cluster.start_comparing(sick).await;
    assert_eq!(cluster.nodes[sick].quarantine(), Some(quarantine));

    // With the third node gone, writes need the sick one's log.
    cluster.fabric.heal();
    cluster.fabric.isolate(&address(third));
    cluster.leader(&[leader, sick]).await;
    cluster.write(leader, 20).await;
    cluster.until("the sick node is rebuilt", |cluster| cluster.nodes[sick].quarantine().is_none()).await;
    cluster.fabric.heal();
    cluster.until_whole(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_file_that_cannot_be_read_is_rebuilt_from_the_others() {
    for purged in [false, true] {
        let mut cluster = start(3).await;
        let leader = cluster.leader(&[0, 1, 2]).await;
        let follower = (leader + 1) % 3;
        cluster.write(leader, 60).await;
        if purged {
            cluster.nodes[follower].checkpoint().await.expect("the disk works");
            cluster.nodes[follower].purge_to_checkpoint().await;
            cluster.write(leader, 10).await;
        }
        cluster
            .restart(follower, |disk| {
                let state = disk.inner("state").expect("the node ran");
                (0..200).for_each(|place| state.corrupt(STATE_FILE, place, 0xff));
            })
            .await;
        cluster.until_whole(1).await;
        let kept = cluster.disks[follower].inner("state").expect("the node ran").files();
        assert!(kept.iter().any(|(name, _)| name == "state.redb.damaged"), "{kept:?}");
        // Nothing of it is needed any more: not even a restart finds something to complain of.
        cluster.restart(follower, |_| ()).await;
        cluster.leader(&[0, 1, 2]).await;
        assert_eq!(cluster.nodes[follower].quarantine(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_majority_agrees_the_cluster_refuses_writes() {
    let mut cluster = start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.write(leader, 30).await;
    for (other, value) in others.iter().zip(["one invention", "another one"]) {
        cluster.restart(*other, |disk| diverge(disk, value)).await;
        cluster.leader(&[leader, *other]).await;
    }
    let alarm_of = |other: usize| Alarm { member: NodeId(other as u64 + 1), kind: AlarmKind::Corrupt };
    let mut alarms = others.map(alarm_of);
    alarms.sort();
    for round in 0..2_000 {
        match cluster.nodes[leader].propose(&put("k", &round.to_string()), deadline(10)).await {
            Ok(Err(Rejection::CorruptCluster)) => break,
            answer => assert!(matches!(answer, Ok(Ok(_))), "round {round}: {answer:?}"),
        }
    }
    let knows = |node: &Node| node.status().alarms == alarms;
    cluster.until("all know the alarms", |cluster| cluster.nodes.iter().all(knows)).await;
    assert!(cluster.nodes.iter().all(|node| node.quarantine().is_none()), "nobody can say who is right");
    for node in &cluster.nodes {
        node.read_barrier(Freshness::Linearizable, deadline(5)).await.expect("reads go on");
    }
    let clear = Command::ChangeAlarm { alarm: alarms[0], raised: false };
    let cleared = cluster.nodes[leader].propose(&clear, deadline(5)).await.expect("a majority");
    assert_eq!(cleared.expect("it is raised").reply, Reply::Alarms(alarms[1..].to_vec()));
    cluster.until("it comes back, since they still differ", |cluster| knows(&cluster.nodes[leader])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sole_node_with_a_rotten_state_has_failed() {
    let mut cluster = start(1).await;
    cluster.write(0, 60).await;
    cluster.restart(0, rot).await;
    let verdict = cluster.nodes[0].scrub(drop).await.expect("the disk works");
    assert!(matches!(verdict, ScrubVerdict::Damaged { .. }), "{verdict:?}");
    assert!(matches!(cluster.nodes[0].failed().await, Failure::StateCorrupt(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_states_are_never_complained_of() {
    let mut cluster = start(3).await;
    let mut compared = 0;
    for round in 0..12 {
        let leader = cluster.leader(&[0, 1, 2]).await;
        cluster.write(leader, 150).await;
        let node = &cluster.nodes[leader];
        match round % 4 {
            0 => {
                for node in &cluster.nodes {
                    node.checkpoint().await.expect("the disk works");
                }
            }
            1 => {
                let revision = Revision(node.view().revision().0 - 20);
                let compacted = node.propose(&Command::Compact { revision }, deadline(5)).await;
                compacted.expect("a majority").expect("the revision is there");
                drop(node.write_snapshot().await.expect("the disk works"));
            }
            2 => {
                for node in &cluster.nodes {
                    let verdict = node.scrub(drop).await.expect("the disk works");
                    assert!(matches!(verdict, ScrubVerdict::Sound { .. }), "{verdict:?}");
                }
            }
            _ => {
                compared += node.status().integrity.hashes_compared;
                cluster.restart(leader, |_| ()).await;
            }
        }
        assert!(cluster.nodes.iter().all(|node| node.quarantine().is_none()));
    }
    compared += cluster.nodes.iter().map(|node| node.status().integrity.hashes_compared).sum::<u64>();
    assert!(compared > 300, "{compared} hashes were compared");
    assert_eq!(cluster.rebuilt(), 0);
}
