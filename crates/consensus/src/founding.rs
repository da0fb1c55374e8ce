//! How a cluster begins: the first founder meets all the others, draws the cluster's number, and writes the first
//! membership with the disk of each. The others learn the number from whoever knows it, in the handshake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringfence_types::NodeId;

use crate::api::{Failure, Founder};
use crate::identity::{Identity, founders_with_ids};
use crate::net::{Links, Patience};
use crate::raft::types::{PeerNode, Raft};
use crate::rt;

const PATIENCE_FIRST: Duration = Duration::from_millis(20);
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// Founds the cluster if that is this node's part and has not been done. Takes until all founders have been met.
pub(crate) async fn found(
    raft: &Raft,
    identity: &Arc<Identity>,
    links: &Links,
    founders: &[Founder],
) -> Result<(), Failure> {
    let founders = founders_with_ids(founders);
    let stopped = |error: &dyn std::fmt::Display| Failure::Consensus(error.to_string());
    let is_first = founders.first().is_some_and(|(id, _)| *id == identity.node_id());
    if !is_first || raft.is_initialized().await.map_err(|error| stopped(&error))? {
        return Ok(());
    }
    let mut members = BTreeMap::new();
    for (id, founder) in founders {
        let disk_id = if id == identity.node_id() {
            identity.disk_id()
        } else {
            tokio::select! {
                biased;
                // The cluster exists, and this is not the first founder's directory any more.
                () = links.local.quarantine.wait_imposed() => return Ok(()),
                disk_id = meet(links, id, &founder) => disk_id,
            }
        };
        members.insert(id.0, PeerNode { name: founder.name, address: founder.peer_address, disk_id });
    }
    if identity.cluster_id() == 0 {
        let drawn = rt::random_u64().max(1);
        identity.set_cluster_id(drawn).map_err(|error| Failure::Disk(format!("identity file: {error}")))?;
        tracing::info!("founding cluster {drawn:016x} with {} members", members.len());
    }
    match raft.initialize(members).await {
        Ok(()) => Ok(()),
        // Begun by an earlier start of this node: the log has it.
        Err(openraft::errors::RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => {
            Ok(())
        }
        Err(error) => Err(stopped(&error)),
    }
}

/// Meets one founder, however long it takes to come up.
async fn meet(links: &Links, id: NodeId, founder: &Founder) -> u64 {
    let mut patience = Patience::new(PATIENCE_FIRST, PATIENCE_MAX);
    let mut tries = 0_u32;
    loop {
        match links.meet(id, &founder.peer_address).await {
            Ok(seen) => return seen.disk_id,
            Err(error) if tries.is_multiple_of(20) && tries > 0 => {
                tracing::warn!("waiting for founder {} at {}: {error}", founder.name, founder.peer_address);
            }
            Err(error) => tracing::debug!("founder {} at {}: {error}", founder.name, founder.peer_address),
        }
        tries += 1;
        patience.wait().await;
    }
}
