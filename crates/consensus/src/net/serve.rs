//! The answering side: accepts connections, shakes hands, and serves each channel.

use std::sync::Arc;

use openraft::raft::{TransferLeaderRequest, VoteRequest};
use ringfence_proto::peers::{self as wire, Channel, ReplyFrame, RequestFrame, reply, request::Body};
use ringfence_types::limits;
use tokio::sync::{Semaphore, mpsc};

use super::handshake::{HandshakeError, Local, Session, disowned};
use super::{Connection, Network, join, pipeline, serve_append, serve_forward, serve_snapshot};
use crate::acks;
use crate::authority::Authority;
use crate::divergence;
use crate::membership::request::{self, Judge};
use crate::propose::Proposer;
use crate::raft::codec;
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::Shelf;
use crate::raft::types::{Raft, RaftVote, TypeConfig};
use crate::read::Reads;
use crate::rt;

/// Questions of one control channel that are answered at once.
const CONTROL_AT_ONCE: usize = 64;

/// All that the answering side needs.
pub(crate) struct Door {
    pub(crate) local: Arc<Local>,
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) proposer: Proposer,
    pub(crate) reads: Reads,
    pub(crate) judge: Judge,
}

/// Accepts peers for ever.
pub(crate) async fn serve_peers(network: Arc<dyn Network>, door: Arc<Door>) {
    let room = Arc::new(Semaphore::new(limits::PEER_CONNECTIONS_MAX));
    loop {
        let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
        match network.accept().await {
            Ok(connection) => {
                let door = door.clone();
                rt::spawn(async move {
                    serve_connection(&door, connection).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!("accepting peers: {error}");
                rt::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(door: &Arc<Door>, connection: Connection) {
    let remote = connection.remote.clone();
    // The port is another one with each try.
    let remote_host = remote.rsplit_once(':').map_or(&*remote, |(host, _)| host).to_owned();
    let session = match door.local.answer(connection).await {
        Ok(session) => session,
        Err(error @ (HandshakeError::Io(_) | HandshakeError::RefusedByPeer(_))) => {
            return tracing::debug!("peer connection from {remote}: {error}");
        }
        Err(error) => {
            return door.local.peers.tell_once(&format!("peer connection from {remote_host}: {error}"));
        }
    };
    let (channel, name) = (session.hello.channel(), session.hello.name.clone());
    let witness = session.witness.clone();
    let serving = async {
        match channel {
            Channel::Control => serve_control(door, session).await,
            Channel::Append => serve_append::serve(door, session).await,
            Channel::Snapshot => serve_snapshot::serve(door, session).await,
            Channel::Forward => serve_forward::serve(door, session).await,
            Channel::Join => join::serve(door, session).await,
            Channel::Unspecified => Err(std::io::Error::other("the peer names no channel")),
        }
    };
    let served = tokio::select! {
        biased;
        reason = disowned(&witness, &door.local.quarantine) => Err(std::io::Error::other(reason)),
        served = serving => served,
    };
    if let Err(error) = served {
        tracing::debug!("{channel:?} channel of node {name} at {remote}: {error}");
    }
}

async fn serve_control(door: &Arc<Door>, session: Session) -> std::io::Result<()> {
    let Session { mut reader, mut writer, .. } = session;
    let (answers, mut answered) = mpsc::channel::<wire::Reply>(CONTROL_AT_ONCE);
    let room = Arc::new(Semaphore::new(CONTROL_AT_ONCE));
    let mut replies = Vec::new();
    loop {
        tokio::select! {
            biased;
            count = answered.recv_many(&mut replies, CONTROL_AT_ONCE) => {
                assert!(count > 0, "this loop holds a sender");
                writer.send(&ReplyFrame { replies: std::mem::take(&mut replies) }).await?;
            }
            frame = reader.next::<RequestFrame>() => {
                let Some(frame) = frame? else { return Ok(()) };
                for request in frame.requests {
                    // More at once than any lawful peer asks: make it wait, by not reading on.
                    let Ok(permit) = room.clone().try_acquire_owned() else {
                        return Err(std::io::Error::other("too many questions at once"));
                    };
                    let (door, answers) = (door.clone(), answers.clone());
                    rt::spawn(async move {
                        let body = answer(&door, request.body).await;
                        drop(answers.send(wire::Reply { id: request.id, body: Some(body) }).await);
                        drop(permit);
                    });
                }
            }
        }
    }
}

async fn answer(door: &Door, body: Option<Body>) -> reply::Body {
    let answered = match body {
        Some(Body::Heartbeat(request)) => heartbeat(door, &request).await,
        Some(Body::Vote(request)) => vote(door, &request, false).await,
        Some(Body::PreVote(request)) => vote(door, &request, true).await,
        Some(Body::Transfer(request)) => transfer(door, &request).await,
        Some(Body::ReadIndex(request)) => Ok(read_index(door, &request).await),
        Some(Body::Hashes(request)) => Ok(reply::Body::Hashes(divergence::told(door, &request))),
        Some(Body::Quarantine(request)) => {
            let refusal = divergence::enter_quarantine(door, &request).err().unwrap_or_default();
            Ok(reply::Body::Quarantine(wire::QuarantineReply { refusal }))
        }
        Some(Body::Acks(request)) => acks::answer(&door.authority, &door.raft, &door.log, &request).await,
        Some(Body::ChangeMember(command)) => Ok(request::answer(&door.judge, &command).await),
        Some(Body::Command(_)) => Err("a write on the control channel".to_owned()),
        None => Err("an empty question".to_owned()),
    };
    answered.unwrap_or_else(reply::Body::Refused)
}

async fn heartbeat(door: &Door, request: &wire::AppendRequest) -> Result<reply::Body, String> {
    door.local.quarantine.check_acknowledge()?;
    let rpc = pipeline::from_wire(request).map_err(|error| error.to_string())?;
    let (vote, prev) = (rpc.vote, rpc.prev_log_id);
    let last = rpc.entries.last().map(|entry| entry.log_id).or(prev);
    let response = door.raft.append_entries(rpc).await.map_err(|error| error.to_string())?;
    let result = match (&response, prev) {
        // openraft finds no conflict before an empty log; it would have nothing to name.
        (openraft::raft::AppendEntriesResponse::Conflict, None) => {
            return Err("conflict before the log".to_owned());
        }
        _ => response.into_stream_result(prev, last),
    };
    door.heard(&vote, &result, request.no_majority);
    Ok(reply::Body::Heartbeat(pipeline::result_to_wire(&result)))
}

impl Door {
    /// Remembers that the leader of `vote` was heard from, unless it has been deposed.
    pub(super) fn heard(
        &self,
        vote: &RaftVote,
        result: &openraft::raft::StreamAppendResult<TypeConfig>,
        no_majority: bool,
    ) {
        if !matches!(result, Err(openraft::raft::StreamAppendError::HigherVote(_))) {
            let leader = ringfence_types::NodeId(vote.leader_id.node_id);
            self.authority.heard_from_leader(leader, no_majority);
        }
    }
}

async fn vote(door: &Door, request: &wire::VoteRequest, is_pre_vote: bool) -> Result<reply::Body, String> {
    door.local.quarantine.check_vote()?;
    let rpc = VoteRequest::<TypeConfig> {
        vote: codec::required_vote(request.vote.as_ref()).map_err(|error| error.to_string())?,
        last_log_id: request.last_log_id.as_ref().map(codec::log_id_from_wire),
        leadership_transfer: request.leadership_transfer,
    };
    let answered = if is_pre_vote { door.raft.pre_vote(rpc).await } else { door.raft.vote(rpc).await };
    let response = answered.map_err(|error| error.to_string())?;
    Ok(reply::Body::Vote(wire::VoteReply {
        vote: Some(codec::vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(codec::log_id_to_wire),
    }))
}

async fn transfer(door: &Door, request: &wire::TransferRequest) -> Result<reply::Body, String> {
    door.local.quarantine.check_vote()?;
    door.shelf.quarantine.check()?;
    let rpc = TransferLeaderRequest::<TypeConfig>::new(
        codec::required_vote(request.from_leader.as_ref()).map_err(|error| error.to_string())?,
        request.to_node,
        request.last_log_id.as_ref().map(codec::log_id_from_wire),
    );
    let answered = door.raft.handle_transfer_leader(rpc).await.map_err(|error| error.to_string())?;
    let refusal = answered.err().map(|error| error.to_string()).unwrap_or_default();
    Ok(reply::Body::Transfer(wire::TransferReply { refusal }))
}

async fn read_index(door: &Door, request: &wire::ReadIndexRequest) -> reply::Body {
    let answered = door.reads.ask_here(request.quorum_round).await;
    reply::Body::ReadIndex(match answered {
        Ok(index) => wire::ReadIndexReply { index: index.0, error: String::new() },
        Err(error) => wire::ReadIndexReply { index: 0, error: error.to_string() },
    })
}
