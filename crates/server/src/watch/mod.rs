//! The Watch service: the changes of keys, as they happen or from any revision on that history still has.
//!
//! A stream is pulled by its client: nothing is read or encoded for a client that does not take it. Reading order: `wire` (what
//! goes out), `group` with `ranges` (who wants what), `outbox` (what waits for a stream, within a bound), `hub` (each event is
//! read once and handed to all who are up to date), `catch_up` (who is not reads the history), `stream` (one client's watches).

mod catch_up;
mod counts;
mod group;
mod hub;
mod limits;
mod outbox;
mod ranges;
mod stream;
mod wire;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::BoxStream;
use ringfence_proto::etcdserverpb as etcd;
use ringfence_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::gate;
use crate::served::Served;
use crate::status::Trouble;
pub(crate) use counts::{WatchCounts, WatchTotals};
use hub::Hub;
use stream::WatchStream;
use wire::{Reply, WatchCodec};

/// How often a watch that asked for it is told how far it is while nothing happens, as in etcd.
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// The path of the service's one method.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The service. It stands in the place of generated code, since its answers are encoded in a way of their own.
#[derive(Clone)]
pub(crate) struct Watch {
    served: Served,
    hub: Hub,
    progress_interval: Duration,
}

impl Watch {
    /// The service, with its hub.
    pub(crate) fn start(served: Served, progress_interval: Duration) -> Watch {
        let hub = Hub::start(&served);
        Watch { served, hub, progress_interval }
    }

    fn open(&self, request: Request<Streaming<etcd::WatchRequest>>) -> Result<Replies, Trouble> {
        let (metadata, _, requests) = request.into_parts();
        gate::leader(&metadata, &self.served.node)?;
        let ended = Box::pin(self.clone().ended(gate::wants_leader(&metadata)));
        let stream = WatchStream::open(&self.served, &self.hub, requests, ended, self.progress_interval)?;
        Ok(stream.replies())
    }

    /// Waits until a stream has to end, although its client has not ended it.
    async fn ended(self, wants_leader: bool) -> Option<Status> {
        tokio::select! {
            biased;
            status = self.served.clone().stream_end(wants_leader) => status,
            () = self.hub.ended() => Some(Status::unavailable("this member's watches have failed: watch on another")),
        }
    }
}

/// What a client is told.
type Replies = BoxStream<'static, Result<Reply, Status>>;
/// Something that will be there.
type Coming<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The service's one method.
struct Method(Watch);

impl StreamingService<etcd::WatchRequest> for Method {
    type Response = Reply;
    type ResponseStream = Replies;
    type Future = std::future::Ready<Result<Response<Replies>, Status>>;

    fn call(&mut self, request: Request<Streaming<etcd::WatchRequest>>) -> Self::Future {
        std::future::ready(self.0.served.answer(self.0.open(request)))
    }
}

impl NamedService for Watch {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl Service<http::Request<Body>> for Watch {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Coming<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let watch = self.clone();
        Box::pin(async move {
            if request.uri().path() != WATCH {
                let unknown = watch.served.status(&Trouble::Unsupported("the server has no such method"));
                return Ok(unknown.into_http());
            }
            let mut grpc = Grpc::new(WatchCodec).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(Method(watch), request).await)
        })
    }
}
