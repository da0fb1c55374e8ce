//! What a node tells about itself.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use ringfence_types::{Index, Term};

use crate::api::{CompactionStatus, IntegrityStatus, MemberStatus, Quarantine, QuarantineKind, Role, Status};
use crate::node::Node;
use crate::rt;

impl Node {
    /// Whether this node is kept out of a part of its work, and why.
    #[must_use]
    pub fn quarantine(&self) -> Option<Quarantine> {
        if let Some(imposed) = self.0.links.local.quarantine.imposed() {
            return Some(imposed.told());
        }
        let known = self.0.shelf.quarantine.now()?;
        Some(Quarantine { kind: QuarantineKind::State, reason: known.reason })
    }

    fn integrity(&self) -> IntegrityStatus {
        let parts = &self.0;
        let (scrubs, scrubbed_ago) = parts.scrubs.count();
        IntegrityStatus {
            hashes_compared: parts.findings.compared(),
            states_rebuilt: parts.findings.rebuilt(),
            scrubs,
            scrubbed_ago,
        }
    }

    /// The whole picture of this moment; not meant for every request.
    #[must_use]
    pub fn status(&self) -> Status {
        let parts = &self.0;
        let metrics = parts.raft.metrics().borrow_watched().clone();
        let standing = parts.authority.standing().clone();
        let view = parts.shelf.store.view();
        // openraft's figures come a moment after what they are about: they must not fall behind what is plainly applied.
        let applied = view.applied().map(|applied| applied.index);
        let last_log = metrics.last_log_index.map(Index).max(applied);
        let committed =
            metrics.local_committed.as_ref().map(|committed| Index(committed.index())).max(applied);
        let log = parts.log.log().stats();
        let store = parts.shelf.store.stats().unwrap_or_default();
        let lease = parts.config.timing.leader_lease;
        let leads = standing.role == Role::Leader && standing.leader == Some(self.node_id());
        let lease_left = leads.then(|| {
            let acked = metrics.last_quorum_acked.as_ref().map(|acked| rt::since(**acked));
            acked.map_or(lease, |age| lease.saturating_sub(age))
        });
        let members = standing.members.iter().map(|(id, member)| {
            let matched = metrics.replication.as_ref().and_then(|peers| peers.get(&id.0).copied().flatten());
            let beat = metrics.heartbeat.as_ref().and_then(|beats| beats.get(&id.0).copied().flatten());
            let is_self = *id == self.node_id();
            let matched = match is_self {
                true => last_log,
                false => matched.map(|matched| Index(matched.index())),
            };
            let purged = metrics.purged.as_ref().map(|purged| purged.index());
            MemberStatus {
                id: *id,
                name: member.name.clone(),
                peer_address: member.address.clone(),
                is_voter: member.is_voter,
                matched,
                answered_ago: if is_self { Some(Duration::ZERO) } else { beat.map(|beat| rt::since(*beat)) },
                behind_retention: leads
                    && purged.is_some_and(|purged| matched.map_or(0, |m| m.0 + 1) <= purged),
                snapshot: parts.links.transfers.progress(*id),
                refusal: parts.links.local.peers.refusal(*id),
            }
        });
        Status {
            cluster_id: self.cluster_id(),
            node: self.node_id(),
            name: parts.identity.name().to_owned(),
            version: parts.config.version.clone(),
            role: standing.role,
            leader: standing.leader,
            term: Term(metrics.current_term),
            last_log,
            committed,
            applied: view.applied(),
            revision: view.revision(),
            checkpointed: parts.shelf.store.checkpointed().log_id,
            purged: metrics.purged.as_ref().map(|purged| Index(purged.index())),
            read_only: parts.authority.read_only(),
            alarms: view.alarms(),
            quarantine: self.quarantine(),
            lease_clock: self.lease_clock().unwrap_or_default().max(view.lease_clock()),
            leases: self.lease_count(),
            leader_lease_left: lease_left.filter(|left| !left.is_zero()),
            members: members.collect(),
            leader_changes: standing.leader_changes,
            proposals: parts.authority.counts(),
            state_file_bytes: store.file_bytes,
            state_in_use_bytes: store.in_use_bytes,
            state_rebuilds: store.rebuilds,
            state_bytes_given_back: store.bytes_given_back,
            head_bytes: store.head_bytes,
            space: parts.quota.status(),
            compaction: CompactionStatus {
                revision: view.compacted(),
                is_swept: parts.shelf.store.is_swept(view.compacted()),
                versions_removed: store.versions_compacted,
            },
            log_bytes: log.bytes,
            integrity: self.integrity(),
            log_sync: parts.log.sync_time().snapshot(),
            checkpoint: parts.checkpoint_time.snapshot(),
            propose: parts.authority.propose_time.snapshot(),
        }
    }
}
