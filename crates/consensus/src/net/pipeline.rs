//! The asking side of the append channel: a stream of requests under way at once, answered in order.
//!
//! openraft credits an answer to the newest request that it could answer, and takes the time at which *that* one was sent
//! for the age of the leader lease. A late answer to request 1 would thus vouch for request 2, which may never have
//! arrived (reference: openraft, sections 3.4 c and 4.4). So:
//!
//! - requests are taken from openraft only by the task that takes our answers, so that both queues always agree;
//! - an answer is withheld while the next unanswered request could be credited by it; that one's own answer follows and
//!   says as much.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use ringfence_canary::Canary;
use ringfence_proto::peers::{self as wire, append_reply};
use ringfence_types::limits;

use super::handshake::{SUPERSEDED, Session};
use crate::quarantine::Quarantine;
use crate::raft::codec;
use crate::raft::types::{RaftLogId, TypeConfig};
use crate::rt;

pub(super) type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// What one request could be credited for: its last log id.
type Credit = Option<RaftLogId>;

/// One run of openraft's replication over a session.
pub(super) struct Pipeline<'a, S> {
    input: Option<S>,
    /// Holds the session between runs; empty while a run is under way or after it failed.
    home: &'a mut Option<Session>,
    session: Option<Session>,
    under_way: VecDeque<Credit>,
    /// The vote of the leadership whose run this is.
    vote: Option<wire::Vote>,
    heard: rt::Instant,
    silence: Duration,
    quarantine: Arc<Quarantine>,
}

impl<'a, S> Pipeline<'a, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin + Send + 'static,
{
    pub(super) fn new(
        session: Session,
        home: &'a mut Option<Session>,
        input: S,
        silence: Duration,
        quarantine: Arc<Quarantine>,
    ) -> Self {
        Pipeline {
            input: Some(input),
            home,
            session: Some(session),
            under_way: VecDeque::new(),
            vote: None,
            heard: rt::now(),
            silence,
            quarantine,
        }
    }

    /// The answers, as openraft wants them.
    pub(super) fn answers(self) -> impl Stream<Item = Answer> + Send + 'a {
        futures_util::stream::unfold(Some(self), |run| async move {
            let mut run = run?;
            match run.step().await {
                Ok(Some(answer)) => {
                    let next = answer.is_ok().then_some(run);
                    Some((Ok(answer), next))
                }
                Ok(None) => {
                    // Nothing is under way: the next run may use the same connection.
                    *run.home = run.session.take();
                    None
                }
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Goes on until there is an answer to pass on, or none will come.
    async fn step(&mut self) -> Result<Option<StreamAppendResult<TypeConfig>>, RPCError<TypeConfig>> {
        loop {
            let Some(session) = &mut self.session else { return Ok(None) };
            let room = self.under_way.len() < limits::APPENDS_IN_FLIGHT_MAX;
            if self.input.is_none() && self.under_way.is_empty() {
                return Ok(None);
            }
            let idle = self.heard + self.silence;
            let request = async {
                match &mut self.input {
                    Some(input) if room => input.next().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                reply = session.reader.next::<wire::AppendReply>() => {
                    let reply = reply.map_err(network_error)?.ok_or_else(|| closed("the peer closed the connection"))?;
                    self.heard = rt::now();
                    if let Some(answer) = self.credit(reply)? {
                        return Ok(Some(answer));
                    }
                }
                request = request => match request {
                    Some(request) => self.send(request).await?,
                    None => self.input = None,
                },
                () = rt::sleep_until(idle), if !self.under_way.is_empty() => {
                    return Err(closed("the peer is silent"));
                }
            }
        }
    }

    /// Sends a request, and those that wait behind it, with one call of the stream.
    async fn send(&mut self, first: AppendEntriesRequest<TypeConfig>) -> Result<(), RPCError<TypeConfig>> {
        if self.quarantine.imposed().is_some() {
            return Err(closed("this node is in log quarantine"));
        }
        let session = self.session.as_mut().expect("a run that sends has its session");
        if self.under_way.is_empty() {
            self.heard = rt::now();
        }
        let mut bytes = 0;
        let mut request = Some(first);
        while let Some(next) = request.take() {
            self.under_way.push_back(next.entries.last().map(|entry| entry.log_id).or(next.prev_log_id));
            let message = to_wire(&next);
            self.vote = message.vote;
            bytes += message.entries.iter().map(bytes::Bytes::len).sum::<usize>();
            session.writer.push(&message);
            if self.under_way.len() < limits::APPENDS_IN_FLIGHT_MAX && bytes < limits::APPEND_BYTES_MAX {
                match self.input.as_mut().and_then(|input| input.next().now_or_never()) {
                    Some(Some(more)) => request = Some(more),
                    Some(None) => self.input = None,
                    None => {}
                }
            }
        }
        match rt::timeout(self.silence, session.writer.flush()).await {
            Some(result) => result.map_err(network_error),
            None => Err(closed("the peer takes no bytes")),
        }
    }

    /// What an answer says, or nothing if it must be withheld.
    fn credit(
        &mut self,
        reply: wire::AppendReply,
    ) -> Result<Option<StreamAppendResult<TypeConfig>>, RPCError<TypeConfig>> {
        if self.under_way.pop_front().is_none() {
            return Err(closed("an answer to no request"));
        }
        let answer = result_from_wire(reply)?;
        self.note(&answer)?;
        if let (Ok(matched), Some(next)) = (&answer, self.under_way.front())
            && next <= matched
            // The canary lets it count for a request that may never have arrived.
            && !Canary::LateAnswerCredited.sings()
        {
            return Ok(None);
        }
        Ok(Some(answer))
    }
}

impl<S> Pipeline<'_, S> {
    /// Notes what an answer acknowledges, before openraft acts on it.
    fn note(&self, answer: &StreamAppendResult<TypeConfig>) -> Result<(), RPCError<TypeConfig>> {
        if let (Ok(matched), Some(vote), Some(session)) = (answer, &self.vote, &self.session)
            && !session.witness.note(vote, matched.as_ref().map(codec::log_id_to_wire).as_ref())
        {
            return Err(closed(SUPERSEDED));
        }
        Ok(())
    }
}

/// A request in the peers' words.
pub(super) fn to_wire(request: &AppendEntriesRequest<TypeConfig>) -> wire::AppendRequest {
    wire::AppendRequest {
        vote: Some(codec::vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(codec::log_id_to_wire),
        leader_commit: request.leader_commit.as_ref().map(codec::log_id_to_wire),
        entries: request.entries.iter().map(codec::encode_entry).collect(),
        no_majority: false,
    }
}

/// A request in openraft's words.
pub(super) fn from_wire(request: &wire::AppendRequest) -> io::Result<AppendEntriesRequest<TypeConfig>> {
    Ok(AppendEntriesRequest {
        vote: codec::required_vote(request.vote.as_ref())?,
        prev_log_id: request.prev_log_id.as_ref().map(codec::log_id_from_wire),
        leader_commit: request.leader_commit.as_ref().map(codec::log_id_from_wire),
        // Each entry gets memory of its own: the log's cache and the head keep it for long, and as a part of the frame
        // it would keep the whole of the connection's buffer.
        entries: request
            .entries
            .iter()
            .map(|entry| codec::decode_entry(&bytes::Bytes::copy_from_slice(entry)))
            .collect::<io::Result<_>>()?,
    })
}

/// An answer in the peers' words.
pub(super) fn result_to_wire(result: &StreamAppendResult<TypeConfig>) -> wire::AppendReply {
    let reply = match result {
        Ok(matched) => {
            let log_id = matched.as_ref().map(codec::log_id_to_wire);
            append_reply::Reply::Matched(wire::Matched { log_id })
        }
        Err(StreamAppendError::Conflict(at)) => append_reply::Reply::Conflict(codec::log_id_to_wire(at)),
        Err(StreamAppendError::HigherVote(vote)) => {
            append_reply::Reply::HigherVote(codec::vote_to_wire(vote))
        }
    };
    wire::AppendReply { reply: Some(reply) }
}

/// An answer in openraft's words.
pub(super) fn result_from_wire(
    reply: wire::AppendReply,
) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
    match reply.reply {
        Some(append_reply::Reply::Matched(matched)) => {
            Ok(Ok(matched.log_id.as_ref().map(codec::log_id_from_wire)))
        }
        Some(append_reply::Reply::Conflict(at)) => {
            Ok(Err(StreamAppendError::Conflict(codec::log_id_from_wire(&at))))
        }
        Some(append_reply::Reply::HigherVote(vote)) => {
            Ok(Err(StreamAppendError::HigherVote(codec::vote_from_wire(&vote))))
        }
        Some(append_reply::Reply::Error(reason)) => Err(closed(&reason)),
        None => Err(closed("an empty answer")),
    }
}

fn network_error(error: io::Error) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&error))
}

fn closed(reason: &str) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(reason))
}
