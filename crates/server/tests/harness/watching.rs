//! Watches as a client over the network makes them.

use std::time::Duration;

use ringfence_proto::etcdserverpb::watch_client::WatchClient;
use ringfence_proto::etcdserverpb::watch_request::RequestUnion;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_proto::mvccpb::{Event, event::EventType};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Request, Status, Streaming};

use super::Server;

/// Longest wait for something that must come.
pub const SOON: Duration = Duration::from_secs(20);

/// A stream of watches.
pub struct Stream {
    pub requests: mpsc::UnboundedSender<etcd::WatchRequest>,
    pub responses: Streaming<etcd::WatchResponse>,
}

impl Stream {
    pub async fn open(server: &Server) -> Stream {
        Stream::open_with(server, false).await.expect("the stream is opened")
    }

    /// A stream that is to end where there is no leader, if that is wanted.
    pub async fn open_with(server: &Server, wants_leader: bool) -> Result<Stream, Status> {
        let (requests, waiting) = mpsc::unbounded_channel();
        let outgoing =
            futures_util::stream::unfold(waiting, |mut waiting: mpsc::UnboundedReceiver<_>| async {
                Some((waiting.recv().await?, waiting))
            });
        let mut service = WatchClient::new(server.channel.clone()).max_decoding_message_size(64 << 20);
        let mut outgoing = Request::new(outgoing);
        if wants_leader {
            outgoing.metadata_mut().insert("hasleader", "true".parse().unwrap());
        }
        let responses = service.watch(outgoing).await?.into_inner();
        Ok(Stream { requests, responses })
    }

    pub fn ask(&self, request: RequestUnion) {
        self.requests.send(etcd::WatchRequest { request_union: Some(request) }).unwrap();
    }

    pub fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(etcd::WatchCancelRequest { watch_id }));
    }

    pub fn ask_progress(&self) {
        self.ask(RequestUnion::ProgressRequest(etcd::WatchProgressRequest {}));
    }

    pub async fn create(&mut self, request: etcd::WatchCreateRequest) -> etcd::WatchResponse {
        self.ask(RequestUnion::CreateRequest(request));
        let created = self.next().await;
        assert!(created.created && created.events.is_empty(), "{created:?}");
        created
    }

    pub async fn next(&mut self) -> etcd::WatchResponse {
        self.try_next().await.expect("the stream goes on")
    }

    pub async fn try_next(&mut self) -> Result<etcd::WatchResponse, Status> {
        let next = timeout(SOON, self.responses.message()).await.expect("an answer in time");
        next.map(|response| response.expect("the stream does not end well by itself"))
    }

    /// The next events, so many of them.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            let revision = response.header.unwrap().revision;
            assert!(!response.events.is_empty(), "{response:?}");
            assert!(response.events.iter().all(|e| e.kv.as_ref().unwrap().mod_revision <= revision));
            events.extend(response.events);
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }
}

pub fn watch(key: &'static str, range_end: &'static str) -> etcd::WatchCreateRequest {
    etcd::WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

/// A request for a watch from a revision on.
pub fn from(start_revision: i64, key: &'static str, range_end: &'static str) -> etcd::WatchCreateRequest {
    etcd::WatchCreateRequest { start_revision, ..watch(key, range_end) }
}

/// Events in short: `+key@revision` and `-key@revision`.
pub fn told(events: &[Event]) -> Vec<String> {
    let tell = |event: &Event| {
        let kv = event.kv.as_ref().unwrap();
        let sign = if event.r#type() == EventType::Put { '+' } else { '-' };
        format!("{sign}{}@{}", String::from_utf8_lossy(&kv.key), kv.mod_revision)
    };
    events.iter().map(tell).collect()
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("in time: {what}"));
}
