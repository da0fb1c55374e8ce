//! Overload: what is beyond the bounds is refused at once and says when to try again, and leases go first.

use futures_util::{Stream, stream};
use ringfence_proto::codec::ScanningCodec;
use ringfence_proto::etcdserverpb::lease_client::LeaseClient;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_server::Limits;
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Server, Setup, assert_refused, detail, put, until};

const TOO_MANY: &str = "etcdserver: too many requests";

/// A put that is under way until this is dropped: its request never ends.
struct Pending {
    _more: mpsc::Sender<etcd::PutRequest>,
    answer: tokio::task::JoinHandle<Result<etcd::PutResponse, Status>>,
}

async fn pending(channel: &Channel, first: etcd::PutRequest) -> Pending {
    let (more, requests) = mpsc::channel(1);
    more.send(first).await.expect("it has room for one");
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let answer = tokio::spawn(async move {
        grpc.ready().await.expect("the server is there");
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ScanningCodec::<etcd::PutRequest, etcd::PutResponse>::default();
        grpc.client_streaming(Request::new(stream_of(requests)), path, codec)
            .await
            .map(tonic::Response::into_inner)
    });
    Pending { _more: more, answer }
}

fn stream_of<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

async fn start(limits: Limits) -> Server {
    let setup = Setup { limits, ..Setup::default() };
    let [server] = <[_; 1]>::try_from(Server::start_with(1, setup).await).ok().unwrap();
    server
}

async fn until_under_way(server: &Server, metric: &str, least: f64) {
    until("calls to be under way", async || match server.gauge(metric).await {
        now if now >= least => Ok(()),
        now => Err(format!("{metric} is {now}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_bound_are_refused_and_leases_go_on() {
    let server = start(Limits { calls: 3, ..Limits::default() }).await;
    let mut leases = LeaseClient::new(server.channel.clone());
    leases.lease_grant(etcd::LeaseGrantRequest { ttl: 60, id: 9 }).await.expect("there is room");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pending(&server.channel, put("pending", "v")).await);
    }
    until_under_way(&server, "ringfence_calls_under_way", 3.0).await;
    let refused = server.kv().put(put("k", "v")).await;
    let told = detail(refused.as_ref().unwrap_err());
    assert_eq!((told.reason.as_str(), told.retry_after_ms > 0), ("overloaded", true), "{told:?}");
    assert!(refused.as_ref().unwrap_err().metadata().contains_key("grpc-retry-pushback-ms"));
    assert_refused(refused, Code::ResourceExhausted, TOO_MANY);

    let (alive, requests) = mpsc::channel(4);
    alive.send(etcd::LeaseKeepAliveRequest { id: 9 }).await.unwrap();
    let mut answers = leases.lease_keep_alive(stream_of(requests)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl, 60);
    server.maintenance().status(etcd::StatusRequest {}).await.expect("how it stands can always be asked");
    leases.lease_revoke(etcd::LeaseRevokeRequest { id: 9 }).await.expect("leases end");
    let refused = r#"ringfence_refusals_total{by="gate",reason="overloaded"} 1"#;
    assert!(server.get("/metrics").await.1.contains(refused));

    // The requests end, and so do the calls.
    for Pending { _more, answer } in held {
        drop(_more);
        answer.await.unwrap().expect("it was admitted");
    }
    server.put("k", "v").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_cannot_take_what_is_there_for_all() {
    let server = start(Limits { connection_calls: 1, ..Limits::default() }).await;
    let held = pending(&server.channel, put("pending", "v")).await;
    until_under_way(&server, "ringfence_calls_under_way", 1.0).await;
    assert_refused(server.kv().put(put("k", "v")).await, Code::ResourceExhausted, TOO_MANY);
    let other = Channel::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut elsewhere = etcd::kv_client::KvClient::new(other);
    elsewhere.put(put("k", "v")).await.expect("another connection has its own bound");
    // A connection that goes away takes its calls along.
    held.answer.abort();
    until("the call to be over", async || match server.gauge("ringfence_calls_under_way").await {
        0.0 => Ok(()),
        now => Err(now.to_string()),
    })
    .await;
    server.put("k", "v").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_beyond_the_bound_are_refused() {
    let server = start(Limits { bytes: 1 << 20, ..Limits::default() }).await;
    let large = || put("large", &"x".repeat(600 << 10));
    let held = pending(&server.channel, large()).await;
    until_under_way(&server, "ringfence_request_bytes_under_way", 600_000.0).await;
    let refused = server.kv().put(large()).await;
    assert_eq!(detail(refused.as_ref().unwrap_err()).reason, "overloaded");
    assert_refused(refused, Code::ResourceExhausted, TOO_MANY);
    server.put("small", "v").await;
    drop(held._more);
    held.answer.await.unwrap().expect("it was admitted");
    server.kv().put(large()).await.expect("there is room again");
    assert_eq!(server.gauge("ringfence_request_bytes_under_way").await, 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_counted_until_they_end() {
    let server = start(Limits { streams: 2, ..Limits::default() }).await;
    let observe = || async {
        use ringfence_proto::v3electionpb as election;
        let mut elections = election::election_client::ElectionClient::new(server.channel.clone());
        let standing = election::CampaignRequest { name: "e".into(), lease: 0, value: "v".into() };
        let lease = LeaseClient::new(server.channel.clone())
            .lease_grant(etcd::LeaseGrantRequest { ttl: 60, id: 0 })
            .await
            .unwrap()
            .into_inner()
            .id;
        elections.campaign(election::CampaignRequest { lease, ..standing }).await?;
        elections.observe(election::LeaderRequest { name: "e".into(), freshness: None }).await
    };
    let first = observe().await.expect("there is room");
    // The campaign stood, too, until its answer had gone.
    until("one stream to be left", async || match server.gauge("ringfence_streams_under_way").await {
        1.0 => Ok(()),
        now => Err(now.to_string()),
    })
    .await;
    let mut elections =
        ringfence_proto::v3electionpb::election_client::ElectionClient::new(server.channel.clone());
    let leader = || ringfence_proto::v3electionpb::LeaderRequest { name: "e".into(), freshness: None };
    let second = elections.observe(leader()).await.expect("there is room");
    assert_refused(elections.observe(leader()).await, Code::ResourceExhausted, TOO_MANY);
    server.put("k", "v").await;
    drop((first, second));
    until("the streams to be over", async || match server.gauge("ringfence_streams_under_way").await {
        0.0 => Ok(()),
        now => Err(now.to_string()),
    })
    .await;
    elections.observe(leader()).await.expect("there is room again");
    server.stop().await;
}
