//! openraft's view of a peer: its calls, sent over the right channel each.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use ringfence_proto::peers::{self as wire, Channel, reply, request};
use ringfence_types::NodeId;

use super::handshake::Session;
use super::links::Links;
use super::mux::CallError;
use super::pipeline::{self, Pipeline};
use super::snapshot;
use crate::authority::Authority;
use crate::raft::codec;
use crate::raft::state_machine::{Shelf, SnapshotHandle};
use crate::raft::types::{PeerNode, RaftVote, TypeConfig};
use crate::rt;

/// How long openraft waits before it tries an unreachable peer again.
const BACKOFF: Duration = Duration::from_millis(50);

/// Makes openraft's clients. Nothing is connected here: openraft calls this from its core.
pub(crate) struct PeerNetworkFactory {
    pub(crate) links: Arc<Links>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) authority: Arc<Authority>,
}

/// One of openraft's clients for one peer.
pub(crate) struct PeerNetwork {
    links: Arc<Links>,
    shelf: Arc<Shelf>,
    authority: Arc<Authority>,
    target: NodeId,
    address: String,
    /// Whether appends go through the pipelined channel; heartbeats take the control channel.
    pipelined: bool,
    append: Option<Session>,
    /// When the append channel was last opened, or tried to.
    opened_at: Option<rt::Instant>,
}

impl RaftNetworkFactory<TypeConfig> for PeerNetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        self.client(target, node, true)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        self.client(target, node, false)
    }
}

impl PeerNetworkFactory {
    fn client(&self, target: u64, node: &PeerNode, pipelined: bool) -> PeerNetwork {
        PeerNetwork {
            links: self.links.clone(),
            shelf: self.shelf.clone(),
            authority: self.authority.clone(),
            target: NodeId(target),
            address: node.address.clone(),
            pipelined,
            append: None,
            opened_at: None,
        }
    }
}

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

impl PeerNetwork {
    /// Asks over the control channel, for as long as openraft gives.
    async fn ask(&self, body: request::Body, option: &RPCOption) -> RpcResult<reply::Body> {
        let link = self.links.control(self.target, &self.address);
        match rt::timeout(option.hard_ttl(), link.call(body)).await {
            Some(Ok(reply::Body::Refused(reason))) => Err(unreachable(&reason)),
            Some(Ok(body)) => Ok(body),
            Some(Err(CallError::NotSent(reason))) => Err(unreachable(&reason)),
            Some(Err(CallError::Broken(reason))) => Err(RPCError::Network(NetworkError::from_string(reason))),
            None => Err(RPCError::Network(NetworkError::from_string("no answer in time"))),
        }
    }

    async fn ask_vote(&self, body: request::Body, option: &RPCOption) -> RpcResult<VoteResponse<TypeConfig>> {
        let reply::Body::Vote(reply) = self.ask(body, option).await? else { return Err(wrong_answer()) };
        let vote = codec::required_vote(reply.vote.as_ref()).map_err(|_| wrong_answer())?;
        Ok(VoteResponse {
            vote,
            vote_granted: reply.granted,
            last_log_id: reply.last_log_id.as_ref().map(codec::log_id_from_wire),
        })
    }

    /// The session of the append channel, opened if there is none.
    async fn append_session(&mut self) -> RpcResult<Session> {
        if let Some(session) = self.append.take() {
            return Ok(session);
        }
        // openraft pauses in its stream of requests, which a run that fails at once never comes to: without a pause
        // here a leader would spin on a peer that refuses connections, or drops them.
        if let Some(opened_at) = self.opened_at {
            rt::sleep_until(opened_at + BACKOFF).await;
        }
        self.opened_at = Some(rt::now());
        let (network, local) = (self.links.network.as_ref(), &self.links.local);
        let opening = super::mux::open(network, local, Channel::Append, self.target, &self.address);
        opening.await.map_err(|error| unreachable(&error.to_string()))
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let sent_last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let mut heartbeat = pipeline::to_wire(&rpc);
        heartbeat.no_majority = self.authority.lacks_majority();
        let body = request::Body::Heartbeat(heartbeat);
        let reply::Body::Heartbeat(reply) = self.ask(body, &option).await? else {
            return Err(wrong_answer());
        };
        Ok(match pipeline::result_from_wire(reply)? {
            Ok(matched) if matched == sent_last => AppendEntriesResponse::Success,
            Ok(matched) => AppendEntriesResponse::PartialSuccess(matched),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, pipeline::Answer>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        if !self.pipelined {
            return openraft::network::stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let session = self.append_session().await?;
            let silence = self.links.local.leader_lease * 2;
            let quarantine = self.links.local.quarantine.clone();
            Ok(Pipeline::new(session, &mut self.append, input, silence, quarantine).answers().boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask_vote(request::Body::Vote(vote_request_to_wire(&rpc)), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask_vote(request::Body::PreVote(vote_request_to_wire(&rpc)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotHandle>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = snapshot::send(&self.links, &self.shelf, self.target, &self.address, vote, snapshot);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            result = sending => result,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        let body = request::Body::Transfer(wire::TransferRequest {
            from_leader: Some(codec::vote_to_wire(req.from_leader())),
            to_node: *req.to_node_id(),
            last_log_id: req.last_log_id().map(codec::log_id_to_wire),
        });
        let reply::Body::Transfer(reply) = self.ask(body, &option).await? else { return Err(wrong_answer()) };
        if reply.refusal.is_empty() {
            return Ok(Ok(()));
        }
        tracing::info!("node {} does not take over: {}", self.target, reply.refusal);
        let expected = *req.from_leader();
        Ok(Err(TransferLeaderError::VoteChanged { expected, actual: expected }))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> wire::VoteRequest {
    wire::VoteRequest {
        vote: Some(codec::vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(codec::log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

fn unreachable(reason: &str) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

fn wrong_answer() -> RPCError<TypeConfig> {
    unreachable("the answer does not fit the question")
}
