//! The gRPC health service: this member serves while it is ready, whatever service is asked about.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use crate::served::Served;

/// How often a watcher's answer is looked at again.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The services that can be asked about; the empty name is the server as a whole.
const SERVICES: [&str; 5] =
    ["", "etcdserverpb.KV", "etcdserverpb.Cluster", "etcdserverpb.Maintenance", "ringfence.v1.Integrity"];

/// The service.
pub(crate) struct Health {
    pub(crate) served: Served,
}

#[async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found(format!("there is no service {service}")));
        }
        Ok(Response::new(self.served.health()))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            return Ok(Response::new(Box::pin(stream::iter([Ok(unknown)]))));
        }
        let state = (self.served.clone(), None);
        let changes = stream::unfold(state, |(served, last)| async move {
            let mut now = served.health();
            while last == Some(now.status) {
                tokio::select! {
                    () = served.shutdown.cancelled() => return None,
                    () = tokio::time::sleep(WATCH_INTERVAL) => now = served.health(),
                }
            }
            Some((Ok(now), (served, Some(now.status))))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

impl Served {
    fn health(&self) -> HealthCheckResponse {
        let serves = !self.shutdown.is_cancelled() && self.node.ready().is_ok();
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        HealthCheckResponse { status: status.into() }
    }
}
