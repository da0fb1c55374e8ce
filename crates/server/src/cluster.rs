//! The Cluster service: who the members are.

use ringfence_proto::etcdserverpb::cluster_server;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_proto::response;
use ringfence_types::{Freshness, Member};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use crate::served::Served;
use crate::status::Trouble;
use crate::{deadline, gate};

/// Why a change of members is refused.
const NO_CHANGE: &str = "members cannot be added, changed or removed in this version";

/// The service.
pub(crate) struct Cluster {
    pub(crate) served: Served,
}

#[async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_list(
        &self,
        request: Request<etcd::MemberListRequest>,
    ) -> Result<Response<etcd::MemberListResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.list(&metadata, request).await)
    }

    async fn member_add(
        &self,
        _: Request<etcd::MemberAddRequest>,
    ) -> Result<Response<etcd::MemberAddResponse>, Status> {
        self.served.answer(Err(Trouble::Unsupported(NO_CHANGE)))
    }

    async fn member_remove(
        &self,
        _: Request<etcd::MemberRemoveRequest>,
    ) -> Result<Response<etcd::MemberRemoveResponse>, Status> {
        self.served.answer(Err(Trouble::Unsupported(NO_CHANGE)))
    }

    async fn member_update(
        &self,
        _: Request<etcd::MemberUpdateRequest>,
    ) -> Result<Response<etcd::MemberUpdateResponse>, Status> {
        self.served.answer(Err(Trouble::Unsupported(NO_CHANGE)))
    }

    async fn member_promote(
        &self,
        _: Request<etcd::MemberPromoteRequest>,
    ) -> Result<Response<etcd::MemberPromoteResponse>, Status> {
        self.served.answer(Err(Trouble::Unsupported(NO_CHANGE)))
    }
}

impl Cluster {
    async fn list(
        &self,
        metadata: &MetadataMap,
        request: etcd::MemberListRequest,
    ) -> Result<etcd::MemberListResponse, Trouble> {
        let node = &self.served.node;
        gate::leader(metadata, node)?;
        let view = if request.linearizable {
            node.read_barrier(Freshness::Linearizable, deadline::of(metadata)).await?
        } else {
            node.view()
        };
        let published = view.members();
        // Who belongs to the cluster stands in Raft's configuration; where clients reach a member, it has published
        // itself, when it started for the first time.
        let members = node.status().members.into_iter().map(|configured| {
            let published = published.iter().find(|member| member.id == configured.id).cloned();
            let member = published.unwrap_or_else(|| Member {
                id: configured.id,
                name: configured.name,
                peer_urls: vec![format!("http://{}", configured.peer_address)],
                client_urls: Vec::new(),
            });
            response::member(member, !configured.is_voter)
        });
        Ok(etcd::MemberListResponse {
            members: members.collect(),
            header: Some(self.served.header(view.revision())),
        })
    }
}
