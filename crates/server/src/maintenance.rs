//! The Maintenance service: how this member stands, and the operator's tools.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use ringfence_consensus::Role;
use ringfence_proto::etcdserverpb::maintenance_server;
use ringfence_proto::etcdserverpb::{self as etcd, alarm_request, downgrade_request};
use ringfence_types::{NodeId, Revision};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, async_trait};

use crate::served::Served;
use crate::snapshot;
use crate::status::Trouble;
use crate::{ETCD_VERSION, alarm, deadline};

/// What this member has to complain about, for people.
fn problems(status: &ringfence_consensus::Status) -> Vec<String> {
    let quarantine = status.quarantine.iter().map(ToString::to_string);
    let read_only = status.read_only.iter().map(ToString::to_string);
    let refusals = status.members.iter().filter_map(|member| {
        let reason = member.refusal.as_ref()?;
        Some(format!("no connection with {}: {reason}", member.name))
    });
    let alarms =
        status.alarms.iter().map(|alarm| format!("memberID:{} alarm:{}", alarm.member, alarm::name(*alarm)));
    let space = &status.space;
    let disk = space
        .is_disk_low
        .then(|| format!("the disk of this member runs low: {} bytes are left", space.disk_free_bytes));
    let quota = space.is_quota_near.then(|| {
        format!("the state needs {} bytes, and the quota is {}", space.used_bytes, space.quota_bytes)
    });
    quarantine.chain(read_only).chain(refusals).chain(alarms).chain(disk).chain(quota).collect()
}

/// The service.
pub(crate) struct Maintenance {
    pub(crate) served: Served,
    pub(crate) snapshots: Arc<Semaphore>,
    /// One at a time: the next would find nothing to do.
    pub(crate) rebuilds: Arc<Semaphore>,
}

#[async_trait]
impl maintenance_server::Maintenance for Maintenance {
    async fn alarm(
        &self,
        request: Request<etcd::AlarmRequest>,
    ) -> Result<Response<etcd::AlarmResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let alarms = match request.action() {
            alarm_request::AlarmAction::Get => Ok(alarm::listed(&self.served, &request)),
            alarm_request::AlarmAction::Activate => {
                alarm::change(&self.served, &metadata, &request, true).await
            }
            alarm_request::AlarmAction::Deactivate => {
                alarm::change(&self.served, &metadata, &request, false).await
            }
        };
        self.served.answer(
            alarms.map(|alarms| etcd::AlarmResponse { header: Some(self.served.header_now()), alarms }),
        )
    }

    async fn status(
        &self,
        _: Request<etcd::StatusRequest>,
    ) -> Result<Response<etcd::StatusResponse>, Status> {
        let status = self.served.node.status();
        Ok(Response::new(etcd::StatusResponse {
            header: Some(self.served.header(status.revision)),
            version: ETCD_VERSION.to_owned(),
            db_size: signed(status.state_file_bytes),
            leader: status.leader.unwrap_or_default().0,
            raft_index: status.committed.unwrap_or_default().0,
            raft_term: status.term.0,
            raft_applied_index: status.applied.map_or(0, |applied| applied.index.0),
            errors: problems(&status),
            db_size_in_use: signed(status.state_in_use_bytes),
            is_learner: status.role == Role::Learner,
            storage_version: format!("ringfence/{}", status.version),
            db_size_quota: signed(status.space.quota_bytes),
            downgrade_info: Some(etcd::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        _: Request<etcd::DefragmentRequest>,
    ) -> Result<Response<etcd::DefragmentResponse>, Status> {
        // Space is given back in the background without being asked; this does not wait until it is worth it.
        let rebuilt = match self.rebuilds.try_acquire() {
            Ok(_permit) => self.served.node.rebuild_state().await.map_err(Trouble::Rebuild),
            Err(_) => Err(Trouble::Busy("the state file is being rebuilt already")),
        };
        self.served
            .answer(rebuilt.map(|()| etcd::DefragmentResponse { header: Some(self.served.header_now()) }))
    }

    async fn hash(&self, _: Request<etcd::HashRequest>) -> Result<Response<etcd::HashResponse>, Status> {
        let view = self.served.node.believed_view().map_err(Trouble::from);
        self.served.answer(view.map(|view| {
            let header = Some(self.served.header(&view));
            etcd::HashResponse { header, hash: fold(view.hash().0) }
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<etcd::HashKvRequest>,
    ) -> Result<Response<etcd::HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        let hashed = self.served.read_long(move |view| {
            let now = view.revision();
            let at = if revision > 0 { Revision(revision) } else { now };
            Ok((now, view.hash_kv(at)?))
        });
        self.served.answer(hashed.await.map(|(now, hashed)| etcd::HashKvResponse {
            header: Some(self.served.header(now)),
            hash: hashed.hash,
            compact_revision: hashed.compacted.0,
            hash_revision: hashed.revision.0,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<etcd::SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        _: Request<etcd::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let opened = snapshot::open(&self.served, &self.snapshots).await;
        self.served.answer(opened.map(|stream| Box::pin(stream) as Self::SnapshotStream))
    }

    async fn move_leader(
        &self,
        request: Request<etcd::MoveLeaderRequest>,
    ) -> Result<Response<etcd::MoveLeaderResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let target = NodeId(request.target_id);
        let moved = self.served.node.transfer_leadership(Some(target), deadline::of(&metadata)).await;
        self.served.answer(
            moved
                .map(|_| etcd::MoveLeaderResponse { header: Some(self.served.header_now()) })
                .map_err(Trouble::from),
        )
    }

    async fn downgrade(
        &self,
        request: Request<etcd::DowngradeRequest>,
    ) -> Result<Response<etcd::DowngradeResponse>, Status> {
        let request = request.into_inner();
        self.served.answer(Err(match request.action() {
            downgrade_request::DowngradeAction::Validate | downgrade_request::DowngradeAction::Enable => {
                if is_version(&request.version) {
                    Trouble::DowngradeTarget
                } else {
                    Trouble::DowngradeFormat
                }
            }
            downgrade_request::DowngradeAction::Cancel => Trouble::NoDowngrade,
        }))
    }
}

/// Whether a text is a version as etcd reads those of a downgrade: two or three numbers.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(text.split('.').count(), 2 | 3) && text.split('.').all(is_number)
}

/// The state's hash in the 32 bits that the API has room for.
fn fold(hash: u128) -> u32 {
    let halves = (hash >> 64) as u64 ^ hash as u64;
    (halves >> 32) as u32 ^ halves as u32
}

/// A size as etcd writes it.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
