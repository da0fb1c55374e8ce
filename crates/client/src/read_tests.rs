//! Reads by preference and with a token, played against fake nodes.

use std::time::Duration;

use ringfence_proto::etcdserverpb::RangeRequest;
use ringfence_proto::freshness::token_message;
use ringfence_proto::ringfence_v1::freshness::Kind;
use ringfence_proto::ringfence_v1::{ErrorDetail, error_detail::AttemptApplied};
use tonic::Status;

use crate::fake::{Answer, FakeNode, attach};
use crate::{CausalToken, Client, Error, Options, ReadFrom, Reads};

const CLUSTER: u64 = 0xc1;

fn token(cluster_id: u64, revision: i64, index: u64) -> CausalToken {
    CausalToken::new(cluster_id, revision, index).expect("the revision is above 0")
}

/// The wish for what somebody of the fakes' cluster has seen.
fn seen(revision: i64, index: u64) -> Option<Kind> {
    Some(Kind::Token(token_message(token(CLUSTER, revision, index))))
}

/// Three nodes of one cluster, of which the second leads.
async fn three() -> [FakeNode; 3] {
    let mut nodes = Vec::new();
    for member in 1..=3 {
        let node = FakeNode::start([]).await;
        node.become_member(CLUSTER, member, 2);
        nodes.push(node);
    }
    nodes.try_into().expect("three are three")
}

fn client(nodes: &[FakeNode], reads: Reads) -> Client {
    let options = Options { reads, ..Options::default() };
    Client::connect(nodes.iter().map(FakeNode::url), options).expect("the fakes' endpoints are lawful")
}

fn from(from: ReadFrom) -> Reads {
    Reads { from, ..Reads::default() }
}

fn counts(nodes: &[FakeNode]) -> Vec<usize> {
    nodes.iter().map(|node| node.ranges().len()).collect()
}

fn wishes(node: &FakeNode) -> Vec<Option<Kind>> {
    node.ranges().into_iter().map(|range| range.freshness.and_then(|freshness| freshness.kind)).collect()
}

#[tokio::test]
async fn reads_go_where_they_are_wanted() {
    for (preference, expected) in [
        (ReadFrom::LastAnswered, [4, 0, 0]),
        (ReadFrom::Leader, [0, 4, 0]),
        (ReadFrom::LeaderPreferred, [0, 4, 0]),
        (ReadFrom::Follower, [2, 0, 2]),
        (ReadFrom::FollowerPreferred, [2, 0, 2]),
    ] {
        let nodes = three().await;
        let client = client(&nodes, from(preference));
        for _ in 0..4 {
            client.get("k").await.expect("it is answered");
        }
        assert_eq!(counts(&nodes), expected, "{preference:?}");
    }
}

#[tokio::test]
async fn the_nearest_node_is_the_one_with_the_shortest_round_trip() {
    let nodes = three().await;
    for (node, delay) in nodes.iter().zip([150, 100, 0]) {
        node.delay_status(Duration::from_millis(delay));
    }
    let client = client(&nodes, from(ReadFrom::Nearest));
    for _ in 0..3 {
        client.get("k").await.expect("it is answered");
    }
    assert_eq!(counts(&nodes), [0, 0, 3]);
}

#[tokio::test]
async fn a_preferred_node_that_does_not_answer_is_passed_over_and_remembered() {
    let nodes = three().await;
    nodes[1].play(vec![Answer::Hang; 9]);
    let client = client(&nodes, from(ReadFrom::LeaderPreferred));
    client.get("k").await.expect("a follower answers");
    client.get("k").await.expect("a follower answers");
    assert_eq!(nodes[1].ranges().len(), 1, "the second read does not wait for it again");
    client.put_value("k", "v").await.expect("writes go their own way");
    assert_eq!(nodes[0].puts(), 1);
}

#[tokio::test]
async fn a_read_from_the_leader_alone_fails_while_nobody_leads() {
    let nodes = three().await;
    for (member, node) in (1..).zip(&nodes) {
        node.become_member(CLUSTER, member, 0);
    }
    let client = client(&nodes, from(ReadFrom::Leader)).with_timeout(Duration::from_millis(200));
    let error = client.get("k").await.expect_err("nobody leads");
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(counts(&nodes), [0, 0, 0]);
}

#[tokio::test]
async fn a_causal_read_asks_for_what_was_seen() {
    let nodes = three().await;
    let client = client(&nodes, Reads { causal: true, ..Reads::default() });
    client.get("k").await.expect("it is answered");
    assert_eq!(client.causal_token(), Some(token(CLUSTER, 42, 0)));
    client.get("k").await.expect("it is answered");
    // What was written counts as seen, also by a clone.
    nodes[0].set_put_revision(50);
    client.clone().put_value("k", "v").await.expect("it is put");
    nodes[0].set_revision(50);
    client.get("k").await.expect("it is answered");
    assert_eq!(wishes(&nodes[0]), [Some(Kind::Any(true)), seen(42, 0), seen(50, 0)]);
    // A request that says itself what it wants gets that.
    let plain = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    client.range(plain).await.expect("it is answered");
    assert_eq!(wishes(&nodes[0])[3], None);
}

#[tokio::test]
async fn a_token_is_handed_on_and_never_shrinks() {
    let nodes = three().await;
    nodes[0].set_revision(60);
    let client = client(&nodes[..1], Reads { causal: true, ..Reads::default() });
    let handed_on = token(CLUSTER, 60, 9);
    let other = client.with_causal_token(handed_on).expect("nothing is known yet");
    assert_eq!((client.causal_token(), other.causal_token()), (None, Some(handed_on)));
    other.get("k").await.expect("it is answered");
    // The first read of all only looks which cluster this is.
    assert_eq!(wishes(&nodes[0]), [None, seen(60, 9)]);
    // Nor by an older token.
    let older = other.with_causal_token(token(CLUSTER, 50, 8)).expect("it is of the same cluster");
    assert_eq!((other.causal_token(), older.causal_token()), (Some(handed_on), Some(handed_on)));
}

#[tokio::test]
async fn a_token_of_another_cluster_is_refused_by_name() {
    let nodes = three().await;
    let reads = Reads { causal: true, ..Reads::default() };
    let client = client(&nodes[..1], reads);
    let foreign_token = token(0xc2, 7, 3);
    let moved = client.with_causal_token(foreign_token).expect("nothing is known yet");
    let error = moved.get("k").await.expect_err("its token is foreign");
    assert!(
        matches!(error, Error::OtherCluster { cluster_id: CLUSTER, token: foreign } if foreign == foreign_token)
    );
    assert!(error.is_definite() && error.to_string().contains("00000000000000c2.7.3"), "{error}");
    assert_eq!(wishes(&nodes[0]), [None], "nobody waits for a revision that means nothing");
    client.get("k").await.expect("it has no token");
    let error = client.with_causal_token(foreign_token).expect_err("its cluster is known");
    assert!(
        matches!(error, Error::OtherCluster { cluster_id: CLUSTER, token: foreign } if foreign == foreign_token)
    );
    // Who does not read causally takes the answers as they are.
    let careless = moved.with_reads(Reads::default());
    careless.get("k").await.expect("it is answered");
    assert_eq!(careless.causal_token().map(|token| token.cluster_id), Some(CLUSTER));
}

#[tokio::test]
async fn an_answer_that_is_young_and_yet_behind_what_was_seen_is_asked_for_anew() {
    let nodes = three().await;
    let max_age = Some(Duration::from_secs(2));
    let client = client(&nodes[..1], Reads { causal: true, max_age, ..Reads::default() });
    client.get("k").await.expect("it is answered");
    nodes[0].set_put_revision(60);
    client.put_value("k", "v").await.expect("it is put");
    client.get("k").await.expect("it is answered");
    let young = Some(Kind::MaxAgeMs(2_000));
    assert_eq!(wishes(&nodes[0]), [young, young, Some(Kind::Linearizable(true))]);
}

#[tokio::test]
async fn the_pieces_of_a_scan_are_at_a_revision_that_every_node_can_reach() {
    let node = FakeNode::start_with_keys([], 1_500).await;
    node.become_member(CLUSTER, 1, 1);
    let nodes = [node];
    let max_age = Some(Duration::from_secs(2));
    for reads in [Reads { causal: true, ..Reads::default() }, Reads { max_age, ..Reads::default() }] {
        let request = RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
        let before = nodes[0].ranges().len();
        let mut scan = client(&nodes, reads).scan(request);
        while scan.next().await.expect("the fake answers").is_some() {}
        let pieces = &wishes(&nodes[0])[before + 1..];
        assert!(
            pieces.len() > 1 && pieces.iter().all(|wish| *wish == Some(Kind::Revision(42))),
            "{pieces:?}"
        );
    }
}

#[tokio::test]
async fn what_was_done_without_a_revision_counts_as_seen() {
    let nodes = three().await;
    let client = client(&nodes[..1], Reads { causal: true, ..Reads::default() });
    client.get("k").await.expect("it is answered");
    nodes[0].set_applied_index(17);
    client.lease_grant(10, 0).await.expect("it is granted");
    assert_eq!(client.causal_token(), Some(token(CLUSTER, 42, 17)));
    // A member that lags behind tells of an older entry.
    nodes[0].set_applied_index(12);
    client.lease_time_to_live(77, false).await.expect("it is answered");
    client.get("k").await.expect("it is answered");
    assert_eq!(nodes[0].lease_wishes()[0].and_then(|wish| wish.kind), seen(42, 17));
    assert_eq!(wishes(&nodes[0]), [Some(Kind::Any(true)), seen(42, 17)]);
    // Who does not read causally says nothing, and is answered with all that was acknowledged.
    let plain = client.with_reads(Reads { max_age: Some(Duration::from_secs(2)), ..Reads::default() });
    plain.lease_time_to_live(77, false).await.expect("it is answered");
    assert_eq!(nodes[0].lease_wishes()[1], None);
}

#[tokio::test]
async fn a_cluster_that_took_the_place_of_another_is_told_by_its_name() {
    let nodes = three().await;
    let client = client(&nodes[..1], Reads { causal: true, ..Reads::default() });
    client.get("k").await.expect("it is answered");
    nodes[0].become_member(0xc3, 1, 1);
    let mut refusal = Status::failed_precondition("ringfence: the causal token is of another cluster");
    let detail = ErrorDetail {
        reason: "other_cluster".to_owned(),
        attempt_applied: AttemptApplied::No.into(),
        ..ErrorDetail::default()
    };
    attach(&mut refusal, &detail);
    nodes[0].play([Answer::Fail(refusal)]);
    let error = client.get("k").await.expect_err("its token is foreign now");
    assert!(
        matches!(error, Error::OtherCluster { cluster_id: 0xc3, token } if token.cluster_id == CLUSTER),
        "{error:?}"
    );
}
