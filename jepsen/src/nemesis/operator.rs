//! The operator's calls to one node: asked from a place that no fault cuts off.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_proto::etcdserverpb::cluster_client::ClusterClient;
use ringfence_proto::etcdserverpb::kv_client::KvClient;
use ringfence_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use ringfence_proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, HashKvRequest, HashRequest, Member, MemberAddRequest,
    MemberListRequest, MemberRemoveRequest, MoveLeaderRequest, RangeRequest, SnapshotRequest, StatusRequest,
};
use tonic::transport::{Channel, Endpoint};

use crate::checks::hashes::Holding;
use crate::world::World;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A node, as an operator talks to it.
pub(super) struct Operator<'a> {
    world: &'a World,
    node: usize,
}

impl<'a> Operator<'a> {
    pub(super) fn of(world: &'a World, node: usize) -> Operator<'a> {
        Operator { world, node }
    }

    /// Does something over a connection to the node, for so long at most.
    fn call<T: Send>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(Channel) -> Result<T, tonic::Status> + Send,
    ) -> Result<T> {
        let node = self.node;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.world.client_address(node)))?
            .connect_timeout(CONNECT_TIMEOUT);
        let calling = || -> Result<T> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let calling = async { Ok(work(endpoint.connect().await?).await?) };
                tokio::time::timeout(limit, calling)
                    .await
                    .with_context(|| format!("n{node} took over {limit:?}"))?
            })
        };
        self.world.control_place().run(calling)?
    }

    /// Hands leadership to the member of this number.
    pub(super) fn move_leader(&self, target_id: u64) -> Result<()> {
        self.call(Duration::from_secs(5), async |channel| {
            MaintenanceClient::new(channel).move_leader(MoveLeaderRequest { target_id }).await.map(drop)
        })
    }

    /// The members, as a majority knows them.
    pub(super) fn members(&self) -> Result<Vec<Member>> {
        let answer = self.call(Duration::from_secs(3), async |channel| {
            ClusterClient::new(channel).member_list(MemberListRequest { linearizable: true }).await
        })?;
        Ok(answer.into_inner().members)
    }

    /// Removes a member. One that is gone already is what was wanted.
    pub(super) fn remove_member(&self, id: u64) -> Result<()> {
        self.call(Duration::from_secs(10), async |channel| {
            match ClusterClient::new(channel).member_remove(MemberRemoveRequest { id }).await {
                Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
                answered => answered.map(drop),
            }
        })
    }

    /// Announces a member at the address of another one, whose place it takes.
    pub(super) fn replace_member(&self, old: &Member) -> Result<()> {
        let request =
            MemberAddRequest { peer_ur_ls: old.peer_ur_ls.clone(), is_learner: false, replaces: old.id };
        self.call(Duration::from_secs(5), async |channel| {
            ClusterClient::new(channel).member_add(request).await.map(drop)
        })
    }

    /// The store's revision.
    pub(super) fn revision(&self) -> Result<i64> {
        let status = self.call(Duration::from_secs(3), async |channel| {
            MaintenanceClient::new(channel).status(StatusRequest {}).await
        })?;
        Ok(status.into_inner().header.unwrap_or_default().revision)
    }

    /// Forgets history below a revision.
    pub(super) fn compact(&self, revision: i64) -> Result<()> {
        self.call(Duration::from_secs(5), async |channel| {
            KvClient::new(channel).compact(CompactionRequest { revision, physical: false }).await.map(drop)
        })
    }

    /// Whether reads at this revision are refused as compacted.
    pub(super) fn is_compacted(&self, revision: i64) -> Result<bool> {
        self.call(Duration::from_secs(5), async |channel| {
            let request = RangeRequest {
                key: b"k".to_vec().into(),
                revision,
                serializable: true,
                ..RangeRequest::default()
            };
            match KvClient::new(channel).range(request).await {
                Ok(_) => Ok(false),
                Err(status) if status.code() == tonic::Code::OutOfRange => Ok(true),
                Err(status) => Err(status),
            }
        })
    }

    /// Takes a whole snapshot, and says how many bytes it had.
    pub(super) fn snapshot(&self) -> Result<u64, anyhow::Error> {
        self.call(Duration::from_secs(60), async |channel| {
            let mut stream = MaintenanceClient::new(channel).snapshot(SnapshotRequest {}).await?.into_inner();
            let mut bytes = 0;
            while let Some(chunk) = stream.message().await? {
                bytes += chunk.blob.len() as u64;
            }
            Ok(bytes)
        })
    }

    /// Asks the node to give space back.
    pub(super) fn defragment(&self) -> Result<()> {
        self.call(Duration::from_secs(30), async |channel| {
            MaintenanceClient::new(channel).defragment(DefragmentRequest {}).await.map(drop)
        })
    }

    /// What the node holds, by both hashes; none: it applied something meanwhile, so that they do not belong together.
    pub(super) fn holding(&self) -> Result<Option<Holding>> {
        let node = self.node;
        self.call(Duration::from_secs(30), async |channel| {
            let mut client = MaintenanceClient::new(channel);
            let before = client.status(StatusRequest {}).await?.into_inner();
            let state = client.hash(HashRequest {}).await?.into_inner();
            let keys = client.hash_kv(HashKvRequest { revision: 0 }).await?.into_inner();
            let after = client.status(StatusRequest {}).await?.into_inner();
            if before.raft_applied_index != after.raft_applied_index {
                return Ok(None);
            }
            Ok(Some(Holding {
                node,
                applied: after.raft_applied_index,
                revision: keys.hash_revision,
                state_hash: state.hash,
                key_hash: keys.hash,
                compacted: keys.compact_revision,
            }))
        })
    }
}
