//! Writes and reads through any member, and what a minority still says.

use std::time::Duration;

use ringfence_consensus::{BarrierError, ProposeError, Role, rt};
use ringfence_types::Freshness;

use crate::support::{Cluster, address, deadline, get, put, value_in};

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
