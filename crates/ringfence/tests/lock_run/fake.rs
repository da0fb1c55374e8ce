//! A cluster that is not there: the few calls that `lock run` makes, answered by one lock and one lease in memory, with
//! faults at will.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use ringfence_proto::etcdserverpb::kv_server::{Kv, KvServer};
use ringfence_proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use ringfence_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse,
    TxnRequest, TxnResponse,
};
use ringfence_proto::mvccpb::KeyValue;
use ringfence_proto::v3lockpb::lock_server::{Lock, LockServer};
use ringfence_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::processes::{Mark, now};

pub const TOKEN: i64 = 4_711;
const LEASE: i64 = 0xabc;

/// What has happened, and what shall.
#[derive(Debug, Default)]
pub struct State {
    /// No call is answered any more: the network is cut.
    pub silent: bool,
    /// The lock is another's for ever.
    pub taken: bool,
    /// The lock's key was deleted by a third party.
    pub key_deleted: bool,
    /// The lease has ended.
    pub lease_ended: bool,
    /// The TTL that was asked for.
    pub ttl: Duration,
    /// When the newest renewal came in, the grant being the first; by `CLOCK_BOOTTIME`.
    pub renewed_at: Duration,
    /// How many keep-alives came in.
    pub keep_alives: u32,
    /// The token that the lock was given back with, and how many processes of the command lived at that time.
    pub unlocked: Option<(i64, usize)>,
    /// The lease was given back.
    pub revoked: bool,
}

/// The fake, until it is dropped.
pub struct Fake {
    state: Arc<Mutex<State>>,
    pub address: SocketAddr,
    _runtime: Runtime,
}

#[derive(Clone)]
struct Services {
    state: Arc<Mutex<State>>,
    mark: Mark,
}

impl Fake {
    pub fn start(mark: &Mark) -> Fake {
        let state = Arc::new(Mutex::new(State::default()));
        let services = Services { state: Arc::clone(&state), mark: mark.clone() };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be started");
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        runtime.spawn(
            Server::builder()
                .add_service(KvServer::new(services.clone()))
                .add_service(LeaseServer::new(services.clone()))
                .add_service(LockServer::new(services))
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        Fake { state, address, _runtime: runtime }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }

    /// The first moment at which the lock can be another's by time.
    pub fn lease_end(&self) -> Duration {
        let state = self.state();
        state.renewed_at + state.ttl
    }
}

impl Services {
    /// Waits for ever if the network is cut.
    async fn arrive(&self) {
        if self.state().silent {
            std::future::pending::<()>().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }
}

#[tonic::async_trait]
impl Lease for Services {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let ttl = request.into_inner().ttl;
        let mut state = self.state();
        state.ttl = Duration::from_secs(ttl.unsigned_abs());
        state.renewed_at = now();
        Ok(Response::new(LeaseGrantResponse { id: LEASE, ttl, ..LeaseGrantResponse::default() }))
    }

    async fn lease_revoke(
        &self,
        _: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.arrive().await;
        self.state().revoked = true;
        Ok(Response::new(LeaseRevokeResponse::default()))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send + 'static>>;

    async fn lease_keep_alive(
        &self,
        requests: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let services = self.clone();
        let answers =
            stream::unfold((services, requests.into_inner()), |(services, mut requests)| async move {
                let request = requests.message().await.ok()??;
                services.arrive().await;
                let ttl = services.state().keep_alive();
                let answer =
                    LeaseKeepAliveResponse { id: request.id, ttl, ..LeaseKeepAliveResponse::default() };
                Some((Ok(answer), (services, requests)))
            });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

impl State {
    /// Renews the lease. Returns its TTL in seconds.
    fn keep_alive(&mut self) -> i64 {
        self.keep_alives += 1;
        if self.lease_ended {
            return 0;
        }
        self.renewed_at = now();
        i64::try_from(self.ttl.as_secs()).expect("tests take short leases")
    }
}

#[tonic::async_trait]
impl Lock for Services {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        self.arrive().await;
        let LockRequest { name, lease } = request.into_inner();
        if self.state().taken {
            std::future::pending::<()>().await;
        }
        let key = [name.as_ref(), format!("/{lease:x}").as_bytes()].concat().into();
        Ok(Response::new(LockResponse { key, token: TOKEN, lease, ..LockResponse::default() }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        self.arrive().await;
        let living = self.mark.command_processes().len();
        self.state().unlocked = Some((request.into_inner().token, living));
        Ok(Response::new(UnlockResponse::default()))
    }
}

#[tonic::async_trait]
impl Kv for Services {
    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send + 'static>>;

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.arrive().await;
        let key = request.into_inner().key;
        let held = KeyValue { key, create_revision: TOKEN, ..KeyValue::default() };
        let kvs = if self.state().key_deleted { Vec::new() } else { vec![held] };
        Ok(Response::new(RangeResponse { kvs, ..RangeResponse::default() }))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}
