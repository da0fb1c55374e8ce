//! The History service: the past of a key.

use ringfence_proto::ringfence_v1::{self as v1, history_server};
use ringfence_proto::{request, response};
use ringfence_types::Freshness;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use crate::limits::{STREAM_CHUNK_BYTES_MAX, STREAM_CHUNK_KEYS_MAX};
use crate::served::Served;
use crate::status::Trouble;
use crate::{deadline, gate};

/// The service.
pub(crate) struct History {
    pub(crate) served: Served,
}

#[async_trait]
impl history_server::History for History {
    async fn versions(
        &self,
        request: Request<v1::VersionsRequest>,
    ) -> Result<Response<v1::VersionsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.look_back(&metadata, request).await)
    }
}

impl History {
    async fn look_back(
        &self,
        metadata: &MetadataMap,
        request: v1::VersionsRequest,
    ) -> Result<v1::VersionsResponse, Trouble> {
        gate::leader(metadata, &self.served.node)?;
        let versions_max = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => STREAM_CHUNK_KEYS_MAX,
            Ok(limit) => limit.min(STREAM_CHUNK_KEYS_MAX),
        };
        let (key, revision) = request::versions(request)?;
        drop(self.served.node.read_barrier(Freshness::Linearizable, deadline::of(metadata)).await?);
        self.served
            .read_long(move |view| {
                let found = view.key_versions(&key, revision, versions_max, STREAM_CHUNK_BYTES_MAX)?;
                Ok(v1::VersionsResponse {
                    versions: found.versions.into_iter().map(response::version).collect(),
                    more: found.more,
                    revision: view.revision().0,
                    compacted: view.compacted().0,
                })
            })
            .await
    }
}
