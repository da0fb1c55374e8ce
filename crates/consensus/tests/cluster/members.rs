//! Members come and go while the cluster serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringfence_consensus::{Config, Join, MemberError, Node, rt};
use ringfence_disk::SimDisk;
use ringfence_types::{Freshness, Member, MemberChange, NodeId, Rejection, Wanted};

use crate::support::{Cluster, address, config, deadline, get, put, value_in};

impl Cluster {
    /// Starts one more node, on a fresh disk, which asks the first one to belong.
    async fn join(&mut self, adapt: impl FnOnce(&mut Config)) -> usize {
        let index = self.nodes.len();
        let mut config = Config { founders: Vec::new(), ..config(index, 0) };
        config.join = Some(Join { addresses: vec![address(0), address(1)], as_learner: false });
        adapt(&mut config);
        let disk = Arc::new(SimDisk::new(index as u64 + 1));
        let port = self.fabric.port(&config.advertise_peer);
        self.disks.push(disk.clone());
        self.nodes.push(Node::start(config, disk, port).await.expect("the cluster takes it"));
        index
    }

    fn id(&self, index: usize) -> NodeId {
        self.nodes[index].node_id()
    }

    /// The index of whoever leads by the word of `witness`.
    async fn leader_by(&self, witness: usize) -> usize {
        for _ in 0..1_000 {
            let leader = self.nodes[witness].leader();
            if let Some(index) = self.nodes.iter().position(|node| Some(node.node_id()) == leader) {
                return index;
            }
            rt::sleep(Duration::from_millis(10)).await;
        }
        panic!("no leader by the word of node {witness} in 10 s");
    }

    /// Waits until exactly these vote, by the word of `witness`.
    async fn voters(&self, witness: usize, expected: &[usize]) {
        let expected: BTreeSet<NodeId> = expected.iter().map(|index| self.id(*index)).collect();
        for attempt in 0.. {
            let members = self.nodes[witness].status().members;
            let voters: BTreeSet<NodeId> =
                members.iter().filter(|member| member.is_voter).map(|member| member.id).collect();
            if voters == expected {
                return;
            }
            assert!(attempt < 1_500, "after 15 s: {members:?}");
            rt::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn change(&self, through: usize, change: MemberChange) -> Result<Member, MemberError> {
        self.nodes[through].change_member(&change, deadline(10)).await
    }
}

/// Writes through `node` without a pause until told to stop; returns what was acknowledged and the longest gap.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: rt::JoinHandle<Duration>,
}

impl Writer {
    fn start(node: &Node) -> Writer {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count, node) = (stop.clone(), written.clone(), node.clone());
        let task = rt::spawn(async move {
            let (mut last, mut longest) = (rt::now(), Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                let key = format!("written-{number}");
                if node.propose(&put(&key, "1"), deadline(5)).await.is_ok_and(|outcome| outcome.is_ok()) {
                    longest = longest.max(rt::since(last));
                    last = rt::now();
                    count.store(number + 1, Ordering::Relaxed);
                }
            }
            longest
        });
        Writer { stop, written, task }
    }

    /// Stops, and has every acknowledged write read back through `node`.
    async fn end(self, node: &Node) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.task.await.expect("the writer does not panic");
        let written = self.written.load(Ordering::Relaxed);
        let view = node.read_barrier(Freshness::Linearizable, deadline(5)).await.expect("a leader is there");
        for number in 0..written {
            assert_eq!(value_in(&view, &format!("written-{number}")).as_deref(), Some("1"), "of {written}");
        }
        assert!(written > 0, "something was written");
        longest
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_five_and_three_again_while_clients_write() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let writer = Writer::start(&cluster.nodes[1]);
    let (fourth, fifth) = (cluster.join(|_| ()).await, cluster.join(|_| ()).await);
    cluster.voters(1, &[0, 1, 2, fourth, fifth]).await;
    assert!(
        cluster.id(fourth).0 >= 256 && cluster.id(fifth) > cluster.id(fourth),
        "ids are never a founder's"
    );

    // The leader leaves, if it is not the one that clients write through, and another one.
    let leader = cluster.leader_by(1).await;
    let leaving = if leader == 1 { 0 } else { leader };
    cluster
        .change(1, MemberChange::Remove { id: cluster.id(leaving) })
        .await
        .expect("four healthy voters stay");
    let second = if leaving == 2 { 0 } else { 2 };
    cluster
        .change(fifth, MemberChange::Remove { id: cluster.id(second) })
        .await
        .expect("three healthy voters stay");
    let rest: Vec<usize> = (0..5).filter(|index| *index != leaving && *index != second).collect();
    cluster.voters(1, &rest).await;
    for gone in [leaving, second] {
        let failure = rt::timeout(Duration::from_secs(10), cluster.nodes[gone].failed()).await;
        let told = failure.expect("a removed node stops").to_string();
        assert!(told.contains("was removed from the cluster"), "{told}");
    }
    let longest = writer.end(&cluster.nodes[fifth]).await;
    assert!(longest < Duration::from_secs(3), "the longest gap was {longest:?}");
    for attempt in 0.. {
        let views: Vec<_> = rest.iter().map(|index| cluster.nodes[*index].view()).collect();
        if views.iter().all(|view| view.applied() == views[0].applied()) {
            assert!(views.iter().all(|view| view.hash() == views[0].hash()));
            break;
        }
        assert!(attempt < 500, "the members are not level after 5 s");
        rt::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_serves_everything_and_votes_when_it_is_told_to() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let learner = cluster.join(|config| config.join.as_mut().expect("it joins").as_learner = true).await;
    cluster.leader_by(learner).await;
    cluster.nodes[learner].propose(&put("k", "v"), deadline(5)).await.expect("forwarded").expect("a put");
    assert_eq!(get(&cluster.nodes[learner], "k").await, Ok(Some("v".to_owned())));
    cluster.voters(learner, &[0, 1, 2]).await;
    let id = cluster.id(learner);
    cluster.change(learner, MemberChange::Promote { id }).await.expect("it is close");
    cluster.voters(learner, &[0, 1, 2, learner]).await;
    assert_eq!(cluster.change(0, MemberChange::Promote { id }).await, Err(MemberError::NotLearner(id)));
    let unknown = cluster.change(0, MemberChange::Promote { id: NodeId(77) }).await;
    assert_eq!(unknown, Err(MemberError::Rejected(Rejection::MemberNotFound(NodeId(77)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_added_counts_once_it_has_started() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let peer_urls = vec![format!("http://{}", address(3))];
    let add = MemberChange::Add { peer_urls, wanted: Wanted::Voter, replaces: None };
    let added = cluster.change(0, add).await.expect("the address is free");
    rt::sleep(Duration::from_millis(1_500)).await;
    cluster.voters(0, &[0, 1, 2]).await;
    assert_eq!(cluster.nodes[0].status().members.len(), 3, "one that has not started is nobody");
    let not_yet = cluster.change(0, MemberChange::Promote { id: added.id }).await;
    assert!(matches!(not_yet, Err(MemberError::NotInSync { .. })), "{not_yet:?}");
    let joined = cluster.join(|_| ()).await;
    assert_eq!(cluster.id(joined), added.id, "it is the one that was added");
    cluster.voters(0, &[0, 1, 2, joined]).await;
    let nowhere =
        MemberChange::Add { peer_urls: vec!["nowhere".into()], wanted: Wanted::Voter, replaces: None };
    assert!(matches!(cluster.change(0, nowhere).await, Err(MemberError::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_takes_over_and_an_emptied_disk_is_let_in_by_it_alone() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let lost = (leader + 1) % 3;
    cluster.fabric.isolate(&address(lost));
    // A fresh disk under the name and at the address of the lost one.
    let as_lost = |config: &mut Config| {
        config.name = format!("n{}", lost + 1);
        config.join = Some(Join { addresses: vec![address(leader)], as_learner: false });
    };
    let mut impostor = Config { founders: Vec::new(), ..config(3, 0) };
    as_lost(&mut impostor);
    let disk = Arc::new(SimDisk::new(77));
    let refused = Node::start(impostor, disk, cluster.fabric.port(&address(3))).await.err();
    let told = refused.expect("its name is another's").to_string();
    assert!(told.contains("member rejoin"), "{told}");

    let peer_urls = vec![format!("http://{}", address(3))];
    let replaces = Some(cluster.id(lost));
    let add = MemberChange::Add { peer_urls, wanted: Wanted::Voter, replaces };
    cluster.change(leader, add).await.expect("the lost one is a member");
    let new = cluster.join(as_lost).await;
    let rest: Vec<usize> = (0..3).filter(|index| *index != lost).chain([new]).collect();
    cluster.voters(leader, &rest).await;
    for attempt in 0.. {
        let members = cluster.nodes[leader].status().members;
        if members.len() == 3 {
            break;
        }
        assert!(attempt < 1_000, "the replaced one is still there after 10 s: {members:?}");
        rt::sleep(Duration::from_millis(10)).await;
    }
    cluster.nodes[new].propose(&put("k", "v"), deadline(5)).await.expect("a leader").expect("a put");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_removal_may_leave_too_few_healthy_voters() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let (silent, healthy) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.fabric.isolate(&address(silent));
    rt::sleep(Duration::from_millis(800)).await;
    let refused = cluster.change(healthy, MemberChange::Remove { id: cluster.id(healthy) }).await;
    assert!(matches!(refused, Err(MemberError::NotEnoughHealthy(_))), "{refused:?}");
    // The silent one may go: two of two are left.
    cluster
        .change(healthy, MemberChange::Remove { id: cluster.id(silent) })
        .await
        .expect("two healthy voters stay");
    cluster.voters(leader, &[leader, healthy]).await;
    let gone = cluster.change(leader, MemberChange::Remove { id: cluster.id(silent) }).await;
    assert_eq!(gone, Err(MemberError::Rejected(Rejection::MemberRemoved(cluster.id(silent)))));
    // It was not there to hear of it, nobody sends it anything any more, and it is told when it comes back.
    for attempt in 0.. {
        if cluster.nodes[leader].status().members.len() == 2 {
            break;
        }
        assert!(attempt < 1_000, "it is not forgotten after 10 s");
        rt::sleep(Duration::from_millis(10)).await;
    }
    cluster.fabric.heal();
    let failure = rt::timeout(Duration::from_secs(10), cluster.nodes[silent].failed()).await;
    let told = failure.expect("a removed node stops").to_string();
    assert!(told.contains("was removed from the cluster"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hears_who_follows_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let fourth = cluster.join(|_| ()).await;
    cluster.voters(1, &[0, 1, 2, fourth]).await;
    let leaving = cluster.leader_by(fourth).await;
    let through = (leaving + 1) % 4;
    // Whoever follows knows of the removal long before its first message has arrived.
    for other in (0..4).filter(|other| *other != leaving) {
        cluster.fabric.slow.lock().insert((address(other), address(leaving)), Duration::from_millis(100));
    }
    let (node, own) = (cluster.nodes[leaving].clone(), cluster.id(leaving));
    let heard = rt::spawn(async move {
        let mut failed = std::pin::pin!(node.failed());
        loop {
            tokio::select! {
                biased;
                _ = &mut failed => return None,
                () = rt::sleep(Duration::from_millis(5)) => {}
            }
            let leader = node.leader().filter(|leader| *leader != own);
            if leader.is_some() {
                return leader;
            }
        }
    });
    cluster.change(through, MemberChange::Remove { id: own }).await.expect("three healthy voters stay");
    let heard = rt::timeout(Duration::from_secs(20), heard).await.expect("it hears, or it ends");
    assert!(heard.expect("it does not panic").is_some(), "it ended without having heard who leads");
    cluster.fabric.slow.lock().clear();
    let failure = rt::timeout(Duration::from_secs(10), cluster.nodes[leaving].failed()).await;
    let told = failure.expect("a removed node stops").to_string();
    assert!(told.contains("was removed from the cluster"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_finishes_what_the_last_one_began() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let mut voters = vec![0, 1, 2];
    // Cut off at another moment of the change each time.
    for pause in [0, 900, 1_000] {
        let new = cluster.join(|_| ()).await;
        voters.push(new);
        rt::sleep(Duration::from_millis(pause)).await;
        let old = cluster.leader_by(0).await;
        cluster.fabric.isolate(&address(old));
        let witness = if old == 0 { 1 } else { 0 };
        for attempt in 0.. {
            if cluster.nodes[witness].leader().is_some_and(|leader| leader != cluster.id(old)) {
                break;
            }
            assert!(attempt < 1_000, "no other leader in 10 s");
            rt::sleep(Duration::from_millis(10)).await;
        }
        cluster.voters(witness, &voters).await;
        cluster.fabric.heal();
        cluster.voters(old, &voters).await;
        cluster.leader_by(0).await;
    }
}
