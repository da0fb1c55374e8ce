//! A server for tests: it answers puts, ranges and locks from a script, and counts what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use ringfence_proto::ERROR_DETAIL_KEY;
use ringfence_proto::etcdserverpb::kv_server::{Kv, KvServer};
use ringfence_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use ringfence_proto::mvccpb::KeyValue;
use ringfence_proto::ringfence_v1::ErrorDetail;
use ringfence_proto::v3lockpb::lock_server::{Lock, LockServer};
use ringfence_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

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
    keys: Vec<KeyValue>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let service = KvServer::from_arc(Arc::new(Service(Arc::clone(&state))));
        let locks = LockServer::new(Service(Arc::clone(&state)));
        let server = tonic::transport::Server::builder().add_service(service).add_service(locks);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        FakeNode { address, state }
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
        let header = Some(ResponseHeader { revision: 42, ..ResponseHeader::default() });
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
        self.0.puts.lock().push(request.into_inner());
        self.play().await?;
        Ok(Response::new(PutResponse::default()))
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
