//! Watches at every member, and at those that have lost the others or their state.

use std::time::Duration;

use ringfence_store::StoreError;
use tonic::Code;

use crate::harness::watching::{Stream, from, told, until, watch};
use crate::harness::{Server, assert_refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_tells_the_same_events() {
    let servers = Server::start_cluster(3).await;
    let mut streams = Vec::new();
    for server in &servers {
        let mut stream = Stream::open_with(server, true).await.unwrap();
        stream.create(from(2, "k", "l")).await;
        streams.push(stream);
    }
    let mut expected = Vec::new();
    for round in 0..10 {
        for (at, server) in servers.iter().enumerate() {
            let key = format!("k{at}");
            let revision = server.put(&key, &round.to_string()).await.header.unwrap().revision;
            expected.push(format!("+{key}@{revision}"));
        }
    }
    for stream in &mut streams {
        assert_eq!(told(&stream.events(30).await), expected);
    }
    drop(streams);
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_majority_ends_the_streams_that_want_a_leader_and_tells_the_others_how_far_it_is()
{
    let mut servers = Server::start_cluster(3).await;
    let left = servers.swap_remove(0);
    let written = left.put("k", "v").await.header.unwrap().revision;
    let mut wanting = Stream::open_with(&left, true).await.unwrap();
    wanting.create(watch("k", "")).await;
    let mut patient = Stream::open(&left).await;
    patient.create(from(written, "k", "")).await;
    assert_eq!(told(&patient.events(1).await), [format!("+k@{written}")]);
    for server in servers {
        server.stop().await;
    }
    assert_refused(wanting.try_next().await, Code::Unavailable, "etcdserver: no leader");
    assert_refused(
        Stream::open_with(&left, true).await.map(|_| ()),
        Code::Unavailable,
        "etcdserver: no leader",
    );
    // Nothing can happen any more that it would hear of, and it claims to be no further than it is.
    patient.ask_progress();
    let progress = patient.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, written));
    let mut late = Stream::open(&left).await;
    late.create(from(written, "k", "")).await;
    assert_eq!(told(&late.events(1).await), [format!("+k@{written}")]);
    drop((patient, late));
    left.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_state_is_replaced_neither_loses_nor_repeats_events() {
    let servers = Server::start_cluster(3).await;
    let is_leader = |server: &&Server| server.node.leader() == Some(server.node.node_id());
    let leader = servers.iter().find(is_leader).expect("one leads");
    let follower = servers.iter().find(|server| !is_leader(server)).expect("two follow");
    let mut live = Stream::open(follower).await;
    live.create(watch("k", "l")).await;
    let mut expected = Vec::new();
    let mut write = async |at: usize| {
        let key = format!("k{}", at % 7);
        let revision = leader.put(&key, "v").await.header.unwrap().revision;
        expected.push(format!("+{key}@{revision}"));
    };
    for at in 0..50 {
        write(at).await;
    }
    assert_eq!(live.events(50).await.len(), 50);
    follower.node.report_unreadable(&StoreError::Corrupt("a test says so".to_owned()));
    assert!(follower.node.quarantine().is_some());
    for at in 50..100 {
        write(at).await;
    }
    // A watch that begins meanwhile waits, too.
    let mut late = Stream::open(follower).await;
    late.create(from(2, "k", "l")).await;
    until("the state is replaced", async || follower.node.quarantine().is_none()).await;
    for at in 100..120 {
        write(at).await;
    }
    assert_eq!(told(&live.events(70).await), expected[50..]);
    assert_eq!(told(&late.events(120).await), expected);
    drop((live, late));
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_a_change_of_leader() {
    let mut servers = Server::start_cluster(3).await;
    let at = servers.iter().position(|server| server.node.leader() == Some(server.node.node_id())).unwrap();
    let leader = servers.swap_remove(at);
    let mut stream = Stream::open_with(&servers[0], true).await.unwrap();
    stream.create(watch("k", "")).await;
    leader.put("k", "before").await;
    leader.stop().await;
    until("the others have a leader", async || servers.iter().all(|server| server.node.ready().is_ok()))
        .await;
    tokio::time::timeout(Duration::from_secs(10), servers[1].put("k", "after")).await.unwrap();
    assert_eq!(told(&stream.events(2).await), ["+k@2", "+k@3"]);
    drop(stream);
    for server in servers {
        server.stop().await;
    }
}
