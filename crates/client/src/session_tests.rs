//! Sessions, played against fake nodes.

use std::time::Duration;

use ringfence_proto::ringfence_v1::ErrorDetail;
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_proto::ringfence_v1::resolve_response::Kind as Resolution;
use tonic::{Code, Status};

use crate::fake::{Answer, FakeNode, attach};
use crate::sequences::SPAN_MAX;
use crate::{Client, Error, Options, Session};

const TTL: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

async fn session<'a>(nodes: impl IntoIterator<Item = &'a FakeNode>) -> Session {
    let endpoints: Vec<String> = nodes.into_iter().map(FakeNode::url).collect();
    let client = Client::connect(endpoints, Options::default()).expect("the fakes' endpoints are lawful");
    client.session(TTL).await.expect("it is granted")
}

/// A refusal as our servers give it: this attempt was not applied.
fn refusal(reason: &str, applied: AttemptApplied) -> Status {
    let mut status = Status::failed_precondition(format!("ringfence: {reason}"));
    let detail =
        ErrorDetail { reason: reason.to_owned(), attempt_applied: applied.into(), ..ErrorDetail::default() };
    attach(&mut status, &detail);
    status
}

fn unknown() -> Answer {
    Answer::Fail(Status::unavailable(
        "etcdserver: request timed out, possibly due to previous leader failure",
    ))
}

fn hang(attempts: usize) -> Vec<Answer> {
    vec![Answer::Hang; attempts]
}

#[tokio::test]
async fn a_write_of_a_session_is_sent_again_as_it_was() {
    let first = FakeNode::start_with_sessions([unknown(), unknown()], []).await;
    let second = FakeNode::start_with_sessions([unknown()], []).await;
    let session = session([&first, &second]).await;
    session.put_value("k", "v").await.expect("the fourth attempt is answered");
    let stamps: Vec<_> = first.stamps().into_iter().chain(second.stamps()).collect();
    assert_eq!(stamps.len(), 4);
    assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "all are copies of one write: {stamps:?}");
    let id = stamps[0].session.expect("the session is named");
    assert_eq!((id.lease, id.grant, stamps[0].sequence, stamps[0].first_incomplete), (77, 5, 1, 1));
    session.put_value("k", "w").await.expect("it is answered");
    let next = first.stamps().into_iter().chain(second.stamps()).find(|stamp| stamp.sequence == 2);
    assert_eq!(next.expect("another write has another number").first_incomplete, 2, "the first is done");
}

#[tokio::test]
async fn a_write_that_hangs_on_one_node_is_sent_to_another() {
    let first = FakeNode::start_with_sessions(hang(1), []).await;
    let second = FakeNode::start_with_sessions([], []).await;
    session([&first, &second]).await.put_value("k", "v").await.expect("the second node answers");
    assert_eq!((first.puts(), second.puts()), (1, 1));
}

#[tokio::test]
async fn a_write_that_is_unknown_at_the_deadline_is_withdrawn_and_definite() {
    let node = FakeNode::start_with_sessions(hang(1), [Ok(Resolution::Closed(true))]).await;
    let session = session([&node]).await.with_timeout(SHORT);
    let error = session.put_value("k", "v").await.expect_err("nobody answers");
    assert!(matches!(error, Error::Unavailable { attempts: 1, .. }), "{error:?}");
    assert!(error.is_definite() && error.to_string().contains("withdrawn"), "{error}");
    let asked = node.resolves();
    assert_eq!((asked.len(), asked[0].sequence), (1, 1));
    assert_eq!(node.puts(), 1, "what is withdrawn is not sent again");
}

#[tokio::test]
async fn a_question_says_which_write_is_the_oldest_that_is_open() {
    let writes = 3;
    let refused = || Answer::Fail(refusal("stale_fence", AttemptApplied::No));
    let script = (1..writes).map(|_| refused()).chain([Answer::Hang]);
    let node = FakeNode::start_with_sessions(script, [Ok(Resolution::Closed(true))]).await;
    let session = session([&node]).await.with_timeout(SHORT);
    for _ in 1..=writes {
        session.put_value("k", "v").await.expect_err("none reaches the log");
    }
    let asked = node.resolves();
    assert_eq!((asked.len(), asked[0].sequence, asked[0].first_incomplete), (1, writes, writes));
}

#[tokio::test]
async fn a_write_that_was_applied_all_the_same_gets_its_answer() {
    let node = FakeNode::start_with_sessions(hang(1), [Ok(Resolution::Applied(9))]).await;
    let session = session([&node]).await.with_timeout(SHORT);
    session.put_value("k", "v").await.expect("the copy gets the answer that was kept");
    let stamps = node.stamps();
    assert_eq!((stamps.len(), stamps[0]), (2, stamps[1]));
}

#[tokio::test]
async fn an_answer_that_was_not_kept_says_at_which_revision_it_was_applied() {
    let not_kept = || Answer::Fail(refusal("answer_not_kept", AttemptApplied::Yes));
    let script = [unknown(), not_kept(), not_kept()];
    let node = FakeNode::start_with_sessions(script, [Ok(Resolution::Applied(9))]).await;
    let error = session([&node]).await.put_value("k", "v").await.expect_err("its answer is lost");
    assert!(matches!(error, Error::AnswerNotKept { revision: 9 }), "{error:?}");
    assert!(!error.is_definite());
}

#[tokio::test]
async fn a_write_that_was_refused_before_its_answer_was_lost_is_refused() {
    let stale = Answer::Fail(refusal("stale_fence", AttemptApplied::No));
    let resolution = Ok(Resolution::Refused("stale_fence".to_owned()));
    let node = FakeNode::start_with_sessions([Answer::Hang, stale], [resolution]).await;
    let session = session([&node]).await.with_timeout(SHORT);
    let error = session.put_value("k", "v").await.expect_err("its fence is stale");
    assert!(matches!(&error, Error::Refused { reason, .. } if reason == "stale_fence"), "{error:?}");
}

#[tokio::test]
async fn a_write_about_which_nobody_can_be_asked_stays_indefinite() {
    let node = FakeNode::start_with_sessions(hang(1), []).await;
    let session = session([&node]).await.with_timeout(SHORT);
    let error = session.put_value("k", "v").await.expect_err("nobody answers");
    assert!(matches!(error, Error::Indefinite { .. }), "{error:?}");
}

#[tokio::test]
async fn an_ended_session_says_what_it_proves() {
    let ended = || refusal("session_ended", AttemptApplied::No);
    let node = FakeNode::start_with_sessions([Answer::Fail(ended())], []).await;
    let alone = session([&node]).await;
    let error = alone.put_value("k", "v").await.expect_err("the session has ended");
    assert!(matches!(error, Error::SessionLost { perhaps_applied: false }), "{error:?}");
    assert!(error.is_definite());
    alone.ended().await;
    alone.put_value("k", "v").await.expect_err("it is known to have ended");
    assert_eq!(node.puts(), 1, "nothing more is sent");

    let script = [unknown(), Answer::Fail(ended())];
    let node = FakeNode::start_with_sessions(script, [Err(ended())]).await;
    let error = session([&node]).await.put_value("k", "v").await.expect_err("the session has ended");
    assert!(matches!(error, Error::SessionLost { perhaps_applied: true }), "{error:?}");
    assert!(!error.is_definite());
}

#[tokio::test]
async fn writes_without_room_in_the_session_wait_for_the_oldest() {
    let node = FakeNode::start_with_sessions(hang(1), []).await;
    let session = session([&node]).await;
    let oldest = tokio::spawn({
        let session = session.clone();
        async move { session.put_value("oldest", "v").await }
    });
    while node.puts() < 1 {
        tokio::task::yield_now().await;
    }
    for _ in 1..SPAN_MAX {
        session.put_value("k", "v").await.expect("there is room");
    }
    let error = session.with_timeout(SHORT).put_value("k", "v").await.expect_err("there is no room");
    assert!(matches!(error, Error::Unavailable { attempts: 0, .. }), "{error:?}");
    assert!(!oldest.is_finished(), "it was never sent, and waited in vain");
    oldest.abort();
    assert!(oldest.await.is_err(), "it was given up");
    session.put_value("k", "v").await.expect("there is room again");
}

#[tokio::test]
async fn a_session_is_kept_alive_until_it_is_dropped_or_ends() {
    let node = FakeNode::start_with_sessions([], []).await;
    let endpoints = [node.url()];
    let client = Client::connect(endpoints, Options::default()).expect("it is lawful");
    let session = client.session(Duration::from_millis(150)).await.expect("it is granted");
    assert_eq!(session.ttl(), Duration::from_secs(1), "leases last whole seconds");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let wait_for = async |more: u32| {
        let wanted = node.keep_alives() + more;
        while node.keep_alives() < wanted {
            assert!(tokio::time::Instant::now() < deadline, "it is not kept alive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    wait_for(2).await;
    drop(session.clone());
    wait_for(1).await;
    node.end_lease();
    session.ended().await;
    let error = session.put_value("k", "v").await.expect_err("the session has ended");
    assert!(matches!(error, Error::SessionLost { .. }), "{error:?}");
    assert_eq!(node.puts(), 0);
}

#[tokio::test]
async fn a_session_that_is_closed_is_over_at_once() {
    let node = FakeNode::start_with_sessions([], []).await;
    let session = session([&node]).await;
    session.close().await.expect("the lease is revoked");
    session.ended().await;
    assert_eq!(node.revokes(), 1);
    session.put_value("k", "v").await.expect_err("it is over");
}

#[tokio::test]
async fn a_server_without_sessions_is_told_by_its_grant() {
    let node = FakeNode::start([]).await;
    let client = Client::connect([node.url()], Options::default()).expect("it is lawful");
    let error = client.session(TTL).await.expect_err("etcd knows no sessions");
    assert!(
        matches!(&error, Error::Refused { code: Code::Unimplemented, reason, .. } if reason == "no_sessions"),
        "{error:?}"
    );
}
