//! A node on a fresh disk asks a cluster to belong to it, before anything else of it starts.
//!
//! The number of its disk is written down before it asks, so that it asks as the same one however often its process dies in
//! between, and is one member for it.

use std::sync::Arc;
use std::time::Duration;

use ringfence_disk::Disk;
use ringfence_proto::peers::{JoinRequest, Welcome, join_reply};
use ringfence_types::{MemberChange, NodeId, Rejection, Wanted, limits};

use super::request::Judge;
use crate::api::{Config, Failure, Join, MemberError};
use crate::failures::Failures;
use crate::identity::{self, Identity};
use crate::net::{FoundDurable, Local, Network, PeerBook, join};
use crate::quarantine::Quarantine;
use crate::rt;

/// Pause between two rounds over the members that were named.
const PAUSE: Duration = Duration::from_millis(500);
/// A member that has taken the question gets this long to answer it.
const ANSWER_TIMEOUT: Duration = limits::REQUEST_TIMEOUT;
/// Rounds without an answer after which the operator is told, again and again.
const ROUNDS_QUIET: u32 = 4;

/// Asks to belong to a cluster, if that is wanted and this data directory does not belong to one yet. Returns with the
/// identity written down.
///
/// # Errors
/// When the cluster refuses for good, or the disk fails.
pub(crate) async fn join(
    config: &Config,
    disk: &Arc<dyn Disk>,
    network: &dyn Network,
) -> Result<(), Failure> {
    let Some(wish) = &config.join else { return Ok(()) };
    let opening = {
        let (config, disk) = (config.clone(), disk.clone());
        rt::blocking(move || Identity::unjoined(disk, &config)).await
    };
    let opened = opening.map_err(|error| Failure::Consensus(format!("opening the identity: {error}")))??;
    let Some(identity) = opened else { return Ok(()) };
    let local = Local {
        identity: Arc::new(identity),
        version: config.version.clone(),
        leader_lease: config.timing.leader_lease,
        secret: config.peer_secret.clone(),
        peers: PeerBook::open(disk.clone())?,
        quarantine: Arc::new(Quarantine::open(disk.clone(), Failures::new(), false, false)?),
        found: FoundDurable::default(),
    };
    let welcome = ask_until_answered(&local, network, wish, config).await?;
    let node = NodeId(welcome.node_id);
    let identity = local.identity.clone();
    let saving = move || {
        identity::save_joined(&identity, node, welcome.cluster_id, welcome.founding_digest.to_vec())
            .map_err(|error| Failure::Disk(format!("identity file: {error}")))
    };
    rt::blocking(saving).await.map_err(|error| Failure::Consensus(error.to_string()))??;
    tracing::info!("joined cluster {:016x} as node {node}", welcome.cluster_id);
    Ok(())
}

async fn ask_until_answered(
    local: &Local,
    network: &dyn Network,
    wish: &Join,
    config: &Config,
) -> Result<Welcome, Failure> {
    for round in 0_u32.. {
        for address in &wish.addresses {
            let asking = ask(local, network, address, wish.as_learner, config);
            let reason = match rt::timeout(ANSWER_TIMEOUT, asking).await {
                Some(Ok(join_reply::Reply::Welcome(welcome))) => return Ok(welcome),
                Some(Ok(join_reply::Reply::Refused(reason))) => {
                    return Err(Failure::Identity(format!(
                        "the member at {address} refuses this node: {reason}"
                    )));
                }
                Some(Ok(join_reply::Reply::NotNow(reason))) | Some(Err(reason)) => reason,
                None => format!("no answer in {ANSWER_TIMEOUT:?}"),
            };
            if round % ROUNDS_QUIET == ROUNDS_QUIET - 1 {
                tracing::warn!("waiting to join the cluster of the member at {address}: {reason}");
            } else {
                tracing::debug!("asking to join at {address}: {reason}");
            }
        }
        rt::sleep(PAUSE).await;
    }
    unreachable!("rounds are not counted to their end")
}

async fn ask(
    local: &Local,
    network: &dyn Network,
    address: &str,
    as_learner: bool,
    config: &Config,
) -> Result<join_reply::Reply, String> {
    let request = JoinRequest { peer_address: config.advertise_peer.clone(), as_learner };
    let asked = join::ask(network, local, address, &request).await;
    let reply = asked.map_err(|error| match error.is_foreign_protocol() {
        true => format!("{error}; is this the port for clients? --join wants the one for peers"),
        false => error.to_string(),
    })?;
    reply.reply.ok_or_else(|| "an empty answer".to_owned())
}

/// A member's answer to a node that asks to belong.
pub(crate) async fn answer(
    judge: &Judge,
    identity: &Identity,
    name: &str,
    disk_id: u64,
    request: JoinRequest,
) -> join_reply::Reply {
    if identity.cluster_id() == 0 {
        return join_reply::Reply::NotNow("the cluster has not been founded yet".to_owned());
    }
    if name.is_empty() || name.len() > limits::MEMBER_TEXT_BYTES_MAX {
        return join_reply::Reply::Refused("it has no name".to_owned());
    }
    let change = MemberChange::Join {
        name: name.to_owned(),
        peer_urls: vec![format!("http://{}", request.peer_address)],
        disk_id,
        wanted: if request.as_learner { Wanted::Learner } else { Wanted::Voter },
    };
    if let Err(error) = super::request::check_form(&change) {
        return join_reply::Reply::Refused(error.to_string());
    }
    let deadline = rt::now() + limits::REQUEST_TIMEOUT;
    // Nothing to judge: a new member counts for nothing until the leader has seen that it is healthy.
    match judge.write_down(&change, deadline).await {
        Ok(member) => join_reply::Reply::Welcome(Welcome {
            node_id: member.id.0,
            cluster_id: identity.cluster_id(),
            founding_digest: bytes::Bytes::copy_from_slice(identity.founding_digest()),
        }),
        Err(MemberError::Rejected(rejection @ Rejection::TooManyMembers(_))) => {
            join_reply::Reply::NotNow(rejection.to_string())
        }
        Err(MemberError::Rejected(rejection)) => join_reply::Reply::Refused(rejection.to_string()),
        Err(error) => join_reply::Reply::NotNow(error.to_string()),
    }
}
