//! The door on the clients' port: finds the room that a request is for, and counts. Plain HTTP and gRPC come in through
//! the same one.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Incoming;
use ringfence_proto::codec::REFUSAL_PREFIX;
use ringfence_proto::etcdserverpb::auth_server::AuthServer;
use ringfence_proto::etcdserverpb::cluster_server::ClusterServer;
use ringfence_proto::etcdserverpb::kv_server::KvServer;
use ringfence_proto::etcdserverpb::lease_server::LeaseServer;
use ringfence_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use ringfence_proto::ringfence_v1::fencing_server::FencingServer;
use ringfence_proto::ringfence_v1::history_server::HistoryServer;
use ringfence_proto::ringfence_v1::integrity_server::IntegrityServer;
use ringfence_proto::ringfence_v1::load_server::LoadServer;
use ringfence_proto::v3electionpb::election_server::ElectionServer;
use ringfence_proto::v3lockpb::lock_server::LockServer;
use ringfence_proto::{ERROR_DETAIL_KEY, FILE_DESCRIPTORS};
use ringfence_types::limits::{GRPC_MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;

use crate::admission::{self, Admission, Arriving, Held, Kind, LargeAnswer, Metered, Permit};
use crate::auth::Auth;
use crate::calls::{Calls, Method};
use crate::cluster::Cluster;
use crate::election::Election;
use crate::fencing::Fencing;
use crate::gateway::Gateway;
use crate::health::Health;
use crate::history::History;
use crate::holders::Holders;
use crate::hottest::Load;
use crate::integrity::Integrity;
use crate::kv::Kv;
use crate::lease::Lease;
use crate::limits::SNAPSHOTS_MAX;
use crate::lock::Lock;
use crate::maintenance::Maintenance;
use crate::plain;
use crate::served::Served;
use crate::status::Trouble;
use crate::watch::Watch;

/// The header in which gRPC puts the code of a call that ends without a message.
const GRPC_STATUS: &str = "grpc-status";
/// The path below which the calls lie that are frequent enough to skip the table of paths.
const KV: &str = "/etcdserverpb.KV/";

/// A handle on all rooms; one for each connection.
#[derive(Clone)]
pub(crate) struct Door {
    served: Served,
    /// What this connection may have under way.
    admission: Admission,
    calls: Arc<Calls>,
    kv: KvServer<Kv>,
    routes: Routes,
    gateway: Arc<Gateway>,
}

impl Door {
    pub(crate) fn new(served: Served, watch_progress_interval: Duration) -> Door {
        let kv =
            KvServer::new(Kv { served: served.clone() }).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let snapshots = Arc::new(Semaphore::new(SNAPSHOTS_MAX));
        let rebuilds = Arc::new(Semaphore::new(1));
        let holders = Holders::start(&served);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let routes = Routes::new(ClusterServer::new(Cluster { served: served.clone() }))
            .add_service(AuthServer::new(Auth { served: served.clone() }))
            .add_service(Watch::start(served.clone(), watch_progress_interval))
            .add_service(LeaseServer::new(Lease { served: served.clone() }))
            .add_service(MaintenanceServer::new(Maintenance { served: served.clone(), snapshots, rebuilds }))
            .add_service(
                LockServer::new(Lock { served: served.clone(), holders: holders.clone() })
                    .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX),
            )
            .add_service(
                ElectionServer::new(Election { served: served.clone(), holders })
                    .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX),
            )
            .add_service(IntegrityServer::new(Integrity { served: served.clone() }))
            .add_service(FencingServer::new(Fencing { served: served.clone() }))
            .add_service(HistoryServer::new(History { served: served.clone() }))
            .add_service(LoadServer::new(Load { served: served.clone() }))
            .add_service(HealthServer::new(Health { served: served.clone() }))
            .add_service(reflection().build_v1().expect("the build's own descriptors are well-formed"))
            .add_service(reflection().build_v1alpha().expect("the build's own descriptors are well-formed"))
            .prepare();
        let admission = served.admission.clone();
        Door {
            served,
            admission,
            calls: Arc::new(Calls::default()),
            kv,
            routes,
            gateway: Arc::new(Gateway::new()),
        }
    }

    /// The door as a new connection finds it.
    pub(crate) fn on_connection(&self) -> Door {
        Door { admission: self.admission.on_connection(), ..self.clone() }
    }

    /// Most calls on one connection at once.
    pub(crate) fn calls_max(&self) -> u32 {
        admission::connection_calls_max(&self.served.limits)
    }

    /// What the services answer from.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    /// Answers one request.
    pub(crate) fn call(
        &self,
        request: http::Request<Incoming>,
    ) -> impl Future<Output = Result<http::Response<Body>, Infallible>> + Send + use<> {
        let method = Method::of(request.uri().path());
        let room = if is_grpc(&request) { self.admitted(request) } else { self.plain(request) };
        self.counted(method, room)
    }

    /// Answers a call of gRPC that the gateway makes for one of its clients.
    pub(crate) fn call_inside(&self, request: http::Request<Body>) -> Room {
        let method = Method::of(request.uri().path());
        Box::pin(self.counted(method, self.admitted(request)))
    }

    /// Counts a call, and gives a refusal that no service made its detail.
    fn counted(
        &self,
        method: Option<Method>,
        room: Room,
    ) -> impl Future<Output = Result<http::Response<Body>, Infallible>> + Send + use<> {
        let (calls, served) = (Arc::clone(&self.calls), self.served.clone());
        async move {
            if let Some(method) = method {
                calls.started(method);
            }
            let mut response = room.await?;
            let code = response
                .headers()
                .get(GRPC_STATUS)
                .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
            if code != Code::Ok && !response.headers().contains_key(ERROR_DETAIL_KEY) {
                explain(code, &mut response, &served);
            }
            if let Some(method) = method {
                calls.handled(method, code);
            }
            Ok(response)
        }
    }

    /// A call, if there is room for it among those under way.
    fn admitted<B: Arriving>(&self, request: http::Request<B>) -> Room {
        let kind = Kind::of(request.uri().path());
        let permit = match self.admission.admit(kind) {
            Ok(permit) => permit,
            Err(trouble) => {
                let refusal = self.served.status(&trouble).into_http();
                return Box::pin(async move { Ok(refusal) });
            }
        };
        let room = self.room(request, &permit);
        Box::pin(async move {
            let response = room.await?;
            if let Some(large) = response.extensions().get::<LargeAnswer>().cloned() {
                return Ok(response.map(|body| Body::new(Held::new(body, large))));
            }
            // Of any other call that does not stand the answer is whole by now, and small.
            Ok(if kind.stands() { response.map(|body| Body::new(Held::new(body, permit))) } else { response })
        })
    }

    fn room<B: Arriving>(&self, request: http::Request<B>, permit: &Arc<Permit>) -> Room {
        let request = request.map(|body| Metered::new(body, self.served.clone(), Arc::clone(permit)));
        if request.uri().path().starts_with(KV) {
            return self.kv.clone().call(request);
        }
        let mut routes = self.routes.clone();
        Box::pin(async move { routes.call(request.map(Body::new)).await })
    }

    /// Plain HTTP: the gateway's, or for people and probes.
    fn plain(&self, request: http::Request<Incoming>) -> Room {
        if Gateway::serves(request.uri().path()) {
            let (gateway, door) = (Arc::clone(&self.gateway), self.clone());
            return Box::pin(async move { Ok(gateway.answer(door, request).await) });
        }
        let (served, calls) = (self.served.clone(), Arc::clone(&self.calls));
        Box::pin(async move { Ok(plain::answer(&served, &calls, request.method(), request.uri()).await) })
    }
}

/// Whether a request claims to be gRPC; everything else is plain HTTP.
fn is_grpc(request: &http::Request<Incoming>) -> bool {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// An answer that is being made.
pub(crate) type Room = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// Gives a refusal that was made before any service saw the request the detail that every status carries.
fn explain(code: Code, response: &mut http::Response<Body>, served: &Served) {
    let Some(trouble) = unexplained(code, response.headers()) else { return };
    let replacement: http::Response<Body> = served.status(&trouble).into_http();
    *response = replacement;
    response
        .headers_mut()
        .entry(http::header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/grpc"));
}

/// What a status without our detail is about, where it is about the store at all.
fn unexplained(code: Code, headers: &http::HeaderMap) -> Option<Trouble> {
    let status = Status::from_header_map(headers)?;
    match code {
        // The codec refuses a message by the length that it announces, in words that no client of etcd knows.
        Code::OutOfRange if status.message().contains("message length too large") => {
            Some(Trouble::TooLarge { size: GRPC_MESSAGE_BYTES_MAX + 1, max: REQUEST_BYTES_MAX })
        }
        Code::InvalidArgument => overlooked(&status),
        Code::Unimplemented => Some(Trouble::Unsupported("the server has no such method")),
        // Health, reflection and the like have errors of their own, which promise nothing about the store.
        _ => None,
    }
}

/// What the codec has refused that would have been overlooked.
pub(crate) fn overlooked(status: &Status) -> Option<Trouble> {
    let why = status.message().strip_prefix(REFUSAL_PREFIX)?;
    (status.code() == Code::InvalidArgument).then(|| Trouble::Overlooked(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble_of(status: Status) -> Option<Trouble> {
        let code = status.code();
        let response: http::Response<Body> = status.into_http();
        unexplained(code, response.headers())
    }

    #[test]
    fn a_message_that_the_codec_refused_is_etcds_too_large() {
        let words =
            "Error, decoded message length too large: found 9000000 bytes, the limit is: 2097152 bytes";
        let trouble = trouble_of(Status::out_of_range(words));
        assert!(matches!(trouble, Some(Trouble::TooLarge { .. })), "{trouble:?}");
        assert!(trouble_of(Status::out_of_range("something else")).is_none());
    }

    #[test]
    fn an_unknown_method_is_refused_with_a_detail() {
        assert!(matches!(trouble_of(Status::unimplemented("")), Some(Trouble::Unsupported(_))));
    }

    #[test]
    fn an_extension_that_the_codec_found_keeps_its_words() {
        let words = "the request carries the extension field 1002, which this version does not know";
        match trouble_of(Status::invalid_argument(format!("{REFUSAL_PREFIX}{words}"))) {
            Some(Trouble::Overlooked(told)) => assert_eq!(told, words),
            other => panic!("{other:?} is about an extension"),
        }
        assert!(trouble_of(Status::invalid_argument("reflection's own")).is_none());
    }
}
