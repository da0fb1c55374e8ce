//! The Cluster service: who the members are, and who shall be.

use ringfence_proto::etcdserverpb::cluster_server;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_proto::response;
use ringfence_types::{Freshness, Member, MemberChange, NodeId, Wanted};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use crate::served::Served;
use crate::status::Trouble;
use crate::{deadline, gate};

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
        request: Request<etcd::MemberAddRequest>,
    ) -> Result<Response<etcd::MemberAddResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let wanted = if request.is_learner { Wanted::Learner } else { Wanted::Voter };
        let replaces = Some(NodeId(request.replaces)).filter(|id| id.0 != 0);
        let change = MemberChange::Add { peer_urls: request.peer_ur_ls, wanted, replaces };
        let changed = self.change(&metadata, change).await;
        self.served.answer(changed.map(|(member, header)| etcd::MemberAddResponse {
            member: Some(response::member(&member, true)),
            members: self.members(),
            header: Some(header),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<etcd::MemberRemoveRequest>,
    ) -> Result<Response<etcd::MemberRemoveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let changed = self.change(&metadata, MemberChange::Remove { id: NodeId(request.id) }).await;
        self.served.answer(
            changed.map(|(_, header)| etcd::MemberRemoveResponse {
                members: self.members(),
                header: Some(header),
            }),
        )
    }

    async fn member_update(
        &self,
        request: Request<etcd::MemberUpdateRequest>,
    ) -> Result<Response<etcd::MemberUpdateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let change = MemberChange::Update { id: NodeId(request.id), peer_urls: request.peer_ur_ls };
        let changed = self.change(&metadata, change).await;
        self.served.answer(
            changed.map(|(_, header)| etcd::MemberUpdateResponse {
                members: self.members(),
                header: Some(header),
            }),
        )
    }

    async fn member_promote(
        &self,
        request: Request<etcd::MemberPromoteRequest>,
    ) -> Result<Response<etcd::MemberPromoteResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let changed = self.change(&metadata, MemberChange::Promote { id: NodeId(request.id) }).await;
        self.served.answer(
            changed.map(|(_, header)| etcd::MemberPromoteResponse {
                members: self.members(),
                header: Some(header),
            }),
        )
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
        if request.linearizable {
            node.read_barrier(Freshness::Linearizable, deadline::of(metadata)).await?;
        }
        Ok(etcd::MemberListResponse { members: self.members(), header: Some(self.served.header_now()) })
    }

    async fn change(
        &self,
        metadata: &MetadataMap,
        change: MemberChange,
    ) -> Result<(Member, etcd::ResponseHeader), Trouble> {
        gate::unextended(metadata, &self.served.node)?;
        let member = self.served.node.change_member(&change, deadline::of(metadata)).await?;
        Ok((member, self.served.header_now()))
    }

    /// The members as this node knows them: those that are wanted, and founders that have not written themselves down yet. Who
    /// votes stands in Raft's own membership.
    fn members(&self) -> Vec<etcd::Member> {
        let configured = self.served.node.status().members;
        let roster = self.served.node.view().members();
        let votes = |id: NodeId| configured.iter().any(|member| member.id == id && member.is_voter);
        let written = roster.values().filter(|member| member.is_wanted());
        let mut members: Vec<etcd::Member> =
            written.map(|member| response::member(member, !votes(member.id))).collect();
        let unwritten = configured.iter().filter(|member| !roster.contains_key(&member.id));
        members.extend(unwritten.map(|member| etcd::Member {
            id: member.id.0,
            name: member.name.clone(),
            peer_ur_ls: vec![format!("http://{}", member.peer_address)],
            client_ur_ls: Vec::new(),
            is_learner: !member.is_voter,
            replaces: 0,
        }));
        members.sort_by_key(|member| member.id);
        members
    }
}
