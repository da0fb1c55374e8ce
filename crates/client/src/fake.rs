//! A server for tests: it answers puts, ranges, locks and sessions from a script, and counts what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use parking_lot::Mutex;
use prost::Message as _;
use ringfence_proto::ERROR_DETAIL_KEY;
use ringfence_proto::etcdserverpb::kv_server::{Kv, KvServer};
use ringfence_proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use ringfence_proto::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use ringfence_proto::etcdserverpb::watch_request::RequestUnion;
use ringfence_proto::etcdserverpb::watch_server::{Watch, WatchServer};
use ringfence_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DefragmentRequest,
    DefragmentResponse, DeleteRangeRequest, DeleteRangeResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    MoveLeaderRequest, MoveLeaderResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RangeStreamResponse, ResponseHeader, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use ringfence_proto::mvccpb::KeyValue;
use ringfence_proto::ringfence_v1::fencing_server::{Fencing, FencingServer};
use ringfence_proto::ringfence_v1::resolve_response::Kind as Resolution;
use ringfence_proto::ringfence_v1::{
    ChangeGuardRequest, ChangeGuardResponse, Checked, ErrorDetail, Freshness, InspectRequest,
    InspectResponse, ListGuardsRequest, ListGuardsResponse, ResolveRequest, ResolveResponse, SessionStamp,
};
use ringfence_proto::v3lockpb::lock_server::{Lock, LockServer};
use ringfence_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

/// What the fake does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Fail(Status),
    /// Never answers.
    Hang,
}

/// Attaches our detail to a status, as a server of ours does.
pub(crate) fn attach(status: &mut Status, detail: &ErrorDetail) {
    let value = MetadataValue::from_bytes(&detail.encode_to_vec());
    status.metadata_mut().insert_bin(ERROR_DETAIL_KEY, value);
}

/// A fake node with its script; once the script is at its end every answer is well.
#[derive(Debug, Clone)]
pub(crate) struct FakeNode {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    script: Mutex<VecDeque<Answer>>,
    puts: Mutex<Vec<PutRequest>>,
    ranges: Mutex<Vec<RangeRequest>>,
    locks: Mutex<Vec<LockRequest>>,
    resolves: Mutex<Vec<ResolveRequest>>,
    /// What questions about writes are answered with, one after the other.
    resolutions: Mutex<VecDeque<Result<Resolution, Status>>>,
    /// How many keep-alives were asked for; the lease is in force while there are fewer than this.
    keep_alives: AtomicU32,
    keep_alives_max: AtomicU32,
    revokes: AtomicU32,
    /// Its cluster, its member and the leader that it knows.
    place: Mutex<(u64, u64, u64)>,
    /// The revision of its state, and that of what was put last.
    revision: AtomicI64,
    put_revision: AtomicI64,
    /// The newest entry that its answers tell of.
    applied_index: AtomicU64,
    /// How fresh questions about a lease wanted their answers.
    lease_wishes: Mutex<Vec<Option<Freshness>>>,
    status_delay: Mutex<Duration>,
    /// Whether it knows sessions, as etcd does not.
    knows_sessions: AtomicBool,
    keys: Vec<KeyValue>,
    /// What streams of watches are answered with, one after the other; and what they began with.
    streams: Mutex<VecDeque<Vec<Result<WatchResponse, Status>>>>,
    watches: Mutex<Vec<WatchCreateRequest>>,
}

impl FakeNode {
    pub(crate) async fn start(script: impl IntoIterator<Item = Answer>) -> FakeNode {
        FakeNode::start_with_keys(script, 0).await
    }

    /// A fake that holds so many keys, named `k000000` and on; RangeStream is not implemented, as in etcd before 3.7.
    pub(crate) async fn start_with_keys(script: impl IntoIterator<Item = Answer>, keys: usize) -> FakeNode {
        let keys = (0..keys).map(|number| key_value(&format!("k{number:06}"))).collect();
        let state =
            Arc::new(State { script: Mutex::new(script.into_iter().collect()), keys, ..State::default() });
        state.revision.store(42, Ordering::Relaxed);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let service = KvServer::from_arc(Arc::new(Service(Arc::clone(&state))));
        let other = || Service(Arc::clone(&state));
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .add_service(WatchServer::new(other()))
            .add_service(LockServer::new(other()))
            .add_service(LeaseServer::new(other()))
            .add_service(FencingServer::new(other()))
            .add_service(MaintenanceServer::new(other()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        FakeNode { address, state }
    }

    /// A fake that knows sessions, and answers questions about their writes with these.
    pub(crate) async fn start_with_sessions(
        script: impl IntoIterator<Item = Answer>,
        resolutions: impl IntoIterator<Item = Result<Resolution, Status>>,
    ) -> FakeNode {
        let node = FakeNode::start(script).await;
        node.state.knows_sessions.store(true, Ordering::Relaxed);
        node.state.keep_alives_max.store(u32::MAX, Ordering::Relaxed);
        *node.state.resolutions.lock() = resolutions.into_iter().collect();
        node
    }

    pub(crate) fn become_member(&self, cluster: u64, member: u64, leader: u64) {
        *self.state.place.lock() = (cluster, member, leader);
    }

    pub(crate) fn set_revision(&self, revision: i64) {
        self.state.revision.store(revision, Ordering::Relaxed);
    }

    pub(crate) fn set_put_revision(&self, revision: i64) {
        self.state.put_revision.store(revision, Ordering::Relaxed);
    }

    pub(crate) fn set_applied_index(&self, index: u64) {
        self.state.applied_index.store(index, Ordering::Relaxed);
    }

    pub(crate) fn lease_wishes(&self) -> Vec<Option<Freshness>> {
        self.state.lease_wishes.lock().clone()
    }

    pub(crate) fn delay_status(&self, delay: Duration) {
        *self.state.status_delay.lock() = delay;
    }

    /// Answers the next streams of watches so; one without an error at its end stays open.
    pub(crate) fn play_streams(&self, streams: impl IntoIterator<Item = Vec<Result<WatchResponse, Status>>>) {
        self.state.streams.lock().extend(streams);
    }

    /// What streams of watches began with.
    pub(crate) fn watches(&self) -> Vec<WatchCreateRequest> {
        self.state.watches.lock().clone()
    }

    /// Goes on with these answers.
    pub(crate) fn play(&self, script: impl IntoIterator<Item = Answer>) {
        self.state.script.lock().extend(script);
    }

    /// Ends the lease that every session is granted.
    pub(crate) fn end_lease(&self) {
        self.state.keep_alives_max.store(0, Ordering::Relaxed);
    }

    pub(crate) fn keep_alives(&self) -> u32 {
        self.state.keep_alives.load(Ordering::Relaxed)
    }

    pub(crate) fn revokes(&self) -> u32 {
        self.state.revokes.load(Ordering::Relaxed)
    }

    pub(crate) fn resolves(&self) -> Vec<ResolveRequest> {
        self.state.resolves.lock().clone()
    }

    /// The places in sessions of the puts that came in.
    pub(crate) fn stamps(&self) -> Vec<SessionStamp> {
        self.state.puts.lock().iter().filter_map(|put| put.session).collect()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn puts(&self) -> usize {
        self.state.puts.lock().len()
    }

    pub(crate) fn locks(&self) -> usize {
        self.state.locks.lock().len()
    }

    pub(crate) fn ranges(&self) -> Vec<RangeRequest> {
        self.state.ranges.lock().clone()
    }
}

fn key_value(key: &str) -> KeyValue {
    KeyValue { key: Bytes::copy_from_slice(key.as_bytes()), ..KeyValue::default() }
}

#[derive(Debug)]
struct Service(Arc<State>);

impl Service {
    fn header(&self, revision: i64) -> ResponseHeader {
        let (cluster_id, member_id, _) = *self.0.place.lock();
        let applied_index = self.0.applied_index.load(Ordering::Relaxed);
        ResponseHeader { cluster_id, member_id, revision, applied_index, ..ResponseHeader::default() }
    }

    async fn play(&self) -> Result<(), Status> {
        let answer = self.0.script.lock().pop_front();
        match answer {
            None => Ok(()),
            Some(Answer::Fail(status)) => Err(status),
            Some(Answer::Hang) => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        self.0.ranges.lock().push(request.clone());
        self.play().await?;
        let wanted = |kv: &&KeyValue| kv.key >= request.key && kv.key < request.range_end;
        let count = self.0.keys.iter().filter(wanted).count();
        let limit = usize::try_from(request.limit).expect("limits are not negative");
        let kvs: Vec<_> = match request.count_only {
            true => Vec::new(),
            false => self.0.keys.iter().filter(wanted).take(limit).cloned().collect(),
        };
        let more = !request.count_only && kvs.len() < count;
        let count = i64::try_from(count).expect("a fake holds few keys");
        let header = Some(self.header(self.0.revision.load(Ordering::Relaxed)));
        Ok(Response::new(RangeResponse { header, kvs, more, count, age_ms: None }))
    }

    type RangeStreamStream = tokio_stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("unknown method RangeStream"))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        let session = request.session.is_some() && self.0.knows_sessions.load(Ordering::Relaxed);
        self.0.puts.lock().push(request);
        self.play().await?;
        let checked = session.then(|| Checked { session, ..Checked::default() });
        let header = Some(self.header(self.0.put_revision.load(Ordering::Relaxed)));
        Ok(Response::new(PutResponse { header, checked, ..PutResponse::default() }))
    }

    async fn delete_range(
        &self,
        _request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("the fake deletes nothing"))
    }

    async fn txn(&self, _request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.play().await?;
        Ok(Response::new(TxnResponse::default()))
    }

    async fn compact(
        &self,
        _request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("the fake compacts nothing"))
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.request_union);
        let Some(RequestUnion::CreateRequest(first)) = first else {
            return Err(Status::invalid_argument("a watch is created first"));
        };
        self.0.watches.lock().push(first);
        let answers = self.0.streams.lock().pop_front();
        let answers = answers.ok_or_else(|| Status::unavailable("the script has no more streams"))?;
        let stays_open = answers.last().is_none_or(Result::is_ok);
        let rest = stream::pending().take(usize::from(stays_open));
        Ok(Response::new(stream::iter(answers).chain(rest).boxed()))
    }
}

#[tonic::async_trait]
impl Lease for Service {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let ttl = request.into_inner().ttl;
        let grant = if self.0.knows_sessions.load(Ordering::Relaxed) { 5 } else { 0 };
        let header = Some(self.header(self.0.revision.load(Ordering::Relaxed)));
        Ok(Response::new(LeaseGrantResponse { header, id: 77, ttl, grant, ..LeaseGrantResponse::default() }))
    }

    async fn lease_revoke(
        &self,
        _request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.0.revokes.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(LeaseRevokeResponse::default()))
    }

    type LeaseKeepAliveStream = tokio_stream::Once<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        _request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let before = self.0.keep_alives.fetch_add(1, Ordering::Relaxed);
        let ttl = i64::from(before < self.0.keep_alives_max.load(Ordering::Relaxed));
        let answer = LeaseKeepAliveResponse { id: 77, ttl, ..LeaseKeepAliveResponse::default() };
        Ok(Response::new(tokio_stream::once(Ok(answer))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        self.0.lease_wishes.lock().push(request.freshness);
        self.play().await?;
        let header = Some(self.header(self.0.revision.load(Ordering::Relaxed)));
        Ok(Response::new(LeaseTimeToLiveResponse { header, id: request.id, ..Default::default() }))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("the fake lists no leases"))
    }
}

#[tonic::async_trait]
impl Fencing for Service {
    async fn change_guard(
        &self,
        _request: Request<ChangeGuardRequest>,
    ) -> Result<Response<ChangeGuardResponse>, Status> {
        Err(Status::unimplemented("the fake has no guards"))
    }

    async fn list_guards(
        &self,
        _request: Request<ListGuardsRequest>,
    ) -> Result<Response<ListGuardsResponse>, Status> {
        Err(Status::unimplemented("the fake has no guards"))
    }

    async fn inspect(&self, _request: Request<InspectRequest>) -> Result<Response<InspectResponse>, Status> {
        Err(Status::unimplemented("the fake has no holders"))
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        self.0.resolves.lock().push(request.into_inner());
        let next = self.0.resolutions.lock().pop_front();
        match next {
            Some(resolution) => {
                Ok(Response::new(ResolveResponse { kind: Some(resolution?), position: None }))
            }
            None => Err(Status::unimplemented("the script has no more resolutions")),
        }
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let delay = *self.0.status_delay.lock();
        tokio::time::sleep(delay).await;
        let (_, _, leader) = *self.0.place.lock();
        let header = Some(self.header(self.0.revision.load(Ordering::Relaxed)));
        Ok(Response::new(StatusResponse { header, leader, ..StatusResponse::default() }))
    }

    async fn alarm(&self, _request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        Err(Status::unimplemented("the fake tells its status alone"))
    }

    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Err(Status::unimplemented("the fake tells its status alone"))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        Err(Status::unimplemented("the fake tells its status alone"))
    }

    async fn hash_kv(&self, _request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        Err(Status::unimplemented("the fake tells its status alone"))
    }

    async fn move_leader(
        &self,
        _request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        Err(Status::unimplemented("the fake tells its status alone"))
    }

    async fn downgrade(
        &self,
        _request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        Err(Status::unimplemented("the fake tells its status alone"))
    }

    type SnapshotStream = tokio_stream::Empty<Result<SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Status::unimplemented("the fake tells its status alone"))
    }
}

#[tonic::async_trait]
impl Lock for Service {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let request = request.into_inner();
        self.0.locks.lock().push(request.clone());
        self.play().await?;
        Ok(Response::new(LockResponse { token: 7, lease: request.lease, ..LockResponse::default() }))
    }

    async fn unlock(&self, _request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        self.play().await?;
        Ok(Response::new(UnlockResponse::default()))
    }
}
