//! Members come and go while clients write, with one command each.

use etcd_client::{Client, MemberAddOptions};
use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;
use ringfence_tests::wait::{self, PATIENCE};

/// The exit code of a node that its cluster does not take, or no more.
const IDENTITY: i32 = 13;

#[test]
fn three_nodes_become_five_and_three_again_under_load() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    for name in ["node4", "node5"] {
        let at = cluster.add(name);
        cluster.nodes[at].start();
    }
    cluster.wait_voters(&[0, 1, 2, 3, 4]);
    puts.wait_for_more(50);

    // The leader goes, and then another one that is neither of the two that the load knows best.
    let leader = cluster.leader();
    let mut gone = vec![leader];
    gone.push((0..3).rev().find(|at| *at != leader).expect("there are three founders"));
    for at in &gone {
        let name = cluster.nodes[*at].name.clone();
        assert_eq!(cluster.run(["member", "remove", &name, "--output=plain", "--timeout=20s"]).line(), name);
        assert_eq!(cluster.nodes[*at].process().exit_code_within(PATIENCE), IDENTITY);
        assert!(cluster.nodes[*at].log().contains("was removed from the cluster"));
        puts.wait_for_more(50);
    }
    let rest: Vec<usize> = (0..5).filter(|at| !gone.contains(at)).collect();
    cluster.wait_voters(&rest);
    // Started once more, it knows.
    let (code, said) = cluster.nodes[gone[0]].start_and_fail();
    assert_eq!(code, IDENTITY, "{said}");
    let report = puts.stop();
    gone.sort_unstable();
    gone.iter().rev().for_each(|at| drop(cluster.nodes.remove(*at)));
    cluster.assert_nothing_lost(&report.acknowledged);
}

#[test]
fn a_dead_member_is_replaced_and_an_emptied_one_comes_back() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    puts.wait_for_more(20);
    cluster.nodes[2].kill();
    let new = cluster.add("node4");
    let peer = cluster.nodes[new].peer.clone();
    let begun = cluster.run(["member", "replace", "node3", "--with", &peer, "--no-wait", "--output=json"]);
    assert!(begun.stderr.contains("ringfence serve --join"), "{}", begun.stderr);
    assert_eq!(begun.json()["voter"], false);
    cluster.wait_voters(&[0, 1, 2]);
    cluster.nodes[new].start();
    // The same command goes on where the first was, and once more after it is done.
    for _ in 0..2 {
        let replaced =
            cluster.run(["member", "replace", "node3", "--with", &peer, "--wait=60s", "--output=json"]);
        assert_eq!(replaced.json()["voter"], true);
    }
    cluster.wait_voters(&[0, 1, new]);

    // A disk that was emptied, under its old name and at its old address.
    cluster.nodes[1].kill();
    std::fs::remove_dir_all(&cluster.nodes[1].data_dir).expect("its owner is gone");
    cluster.nodes[1].initial_cluster = String::new();
    cluster.nodes[1].flags = vec![format!("--join={}", cluster.nodes[0].peer)];
    let (code, said) = cluster.nodes[1].start_and_fail();
    assert_eq!(code, IDENTITY);
    assert!(said.contains("member rejoin"), "{said}");
    cluster.run(["member", "rejoin", "node1"]).failed(4, &["does not need to rejoin"]);
    // As soon as its leader has missed it.
    wait::until("the leader to miss it", PATIENCE, || {
        let begun = cluster.run(["member", "rejoin", "node2", "--no-wait", "--output=json"]);
        if begun.code != Some(0) {
            return Err(begun.stderr);
        }
        assert_eq!(begun.json()["voter"], false);
        Ok(())
    });
    cluster.nodes[1].start();
    let back = cluster.run(["member", "rejoin", "node2", "--wait=60s", "--output=json"]).json();
    assert_eq!((&back["voter"], &back["name"]), (&true.into(), &"node2".into()), "{back}");
    cluster.wait_voters(&[0, 1, new]);
    puts.wait_for_more(50);
    let report = puts.stop();
    drop(cluster.nodes.remove(2));
    cluster.assert_nothing_lost(&report.acknowledged);
}

/// etcd's own way, with a client that knows nothing of Ringfence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_as_in_etcd() {
    let mut cluster = tokio::task::spawn_blocking(|| Cluster::start(3)).await.expect("it starts");
    let at = cluster.add("node4");
    let url = format!("http://{}", cluster.nodes[at].peer);
    let mut client = Client::connect([&cluster.nodes[0].client], None).await.expect("it is ready");
    let refused = |result: Result<(), etcd_client::Error>, words: &str| {
        let told = result.expect_err(words).to_string();
        assert!(told.contains(words), "{told}");
    };
    let as_learner = Some(MemberAddOptions::new().with_is_learner());
    let added = client.member_add([&url], as_learner.clone()).await.expect("the address is free");
    let id = added.member().expect("it is told").id();
    assert!(added.member().is_some_and(etcd_client::Member::is_learner));
    assert_eq!(added.member_list().len(), 4);
    refused(client.member_add([&url], None).await.map(drop), "etcdserver: Peer URLs already exists");
    refused(
        client.member_add(["nowhere"], None).await.map(drop),
        "etcdserver: given member URLs are invalid",
    );
    let words = "etcdserver: can only promote a learner member which is in sync with leader";
    refused(client.member_promote(id).await.map(drop), words);

    let cluster = tokio::task::spawn_blocking(move || {
        cluster.nodes[at].start();
        cluster.nodes[at].wait_ready();
        // It was announced as a learner and stays one, and serves what it is asked.
        let _ = cluster.run_at(at, ["put", "through", "the learner"]).succeeded();
        assert_eq!(cluster.run_at(at, ["get", "through", "--output=plain"]).line(), "the learner");
        cluster.wait_voters(&[0, 1, 2]);
        tokio::runtime::Handle::current().block_on(watch_at_learner(&cluster, at));
        let _ = cluster.run(["member", "promote", "node4", "--timeout=20s"]).succeeded();
        cluster.wait_voters(&[0, 1, 2, 3]);
        cluster
    });
    let cluster = cluster.await.expect("the cluster works");
    refused(client.member_promote(id).await.map(drop), "etcdserver: can only promote a learner member");
    refused(client.member_remove(77).await.map(drop), "etcdserver: member not found");
    client.member_remove(id).await.expect("three healthy voters stay");
    let list = client.member_list().await.expect("a leader is there");
    assert_eq!(list.members().len(), 3);
    refused(client.member_remove(id).await.map(drop), "etcdserver: member not found");
    tokio::task::spawn_blocking(move || drop(cluster)).await.expect("it ends");
}

/// A learner tells its watches what the others have written.
async fn watch_at_learner(cluster: &Cluster, learner: usize) {
    let client = |at: usize| Client::connect([&cluster.nodes[at].client], None);
    let mut learner = client(learner).await.expect("it is ready");
    let (_watcher, mut stream) = learner.watch("learned", None).await.expect("it begins");
    let mut voter = client(0).await.expect("it is ready");
    voter.put("learned", "by the learner", None).await.expect("a leader is there");
    let told = stream.message().await.expect("it goes on").expect("it goes on");
    assert_eq!(told.events()[0].kv().expect("it is about a key").value(), b"by the learner");
}
