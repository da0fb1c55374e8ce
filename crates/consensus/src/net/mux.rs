//! The asking side of the control and forward channels: many questions under way on one connection, told apart by number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringfence_proto::peers::{
    Channel, ReplyFrame, Request, RequestFrame, Vote, append_reply, reply, request,
};
use ringfence_types::{NodeId, limits};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::handshake::{HandshakeError, Local, SUPERSEDED, Session, disowned};
use super::witness::Witness;
use super::{Connection, Network};
use crate::quarantine::Quarantine;
use crate::rt;

/// A question with the place for its answer.
struct Call {
    body: request::Body,
    answer: oneshot::Sender<Result<reply::Body, CallError>>,
}

/// Why a question has no answer.
#[derive(Debug, Clone, Error)]
pub(crate) enum CallError {
    /// It was never sent.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was sent, and the connection broke or stayed silent.
    #[error("sent, but not answered: {0}")]
    Broken(String),
}

/// A connection for questions to one member, opened when first needed and again after it broke.
#[derive(Debug)]
pub(crate) struct Mux {
    network: Arc<dyn Network>,
    local: Arc<Local>,
    channel: Channel,
    target: NodeId,
    address: String,
    /// Questions unanswered for this long mean that the connection is dead.
    silence: Duration,
    calls: Mutex<Option<mpsc::Sender<Call>>>,
}

impl Mux {
    pub(super) fn new(
        network: Arc<dyn Network>,
        local: Arc<Local>,
        channel: Channel,
        target: NodeId,
        address: String,
        silence: Duration,
    ) -> Mux {
        Mux { network, local, channel, target, address, silence, calls: Mutex::new(None) }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a question and waits for its answer, however long that takes: the caller bounds it.
    pub(crate) async fn call(&self, body: request::Body) -> Result<reply::Body, CallError> {
        let (answer, answered) = oneshot::channel();
        let calls = self.connected();
        calls
            .send(Call { body, answer })
            .await
            .map_err(|_| CallError::NotSent("the connection could not be opened".to_owned()))?;
        answered.await.unwrap_or_else(|_| Err(CallError::Broken("the connection ended".to_owned())))
    }

    /// The way to the task that holds the connection; a task that has ended is replaced.
    fn connected(&self) -> mpsc::Sender<Call> {
        let mut current = self.calls.lock();
        if let Some(calls) = current.as_ref().filter(|calls| !calls.is_closed()) {
            return calls.clone();
        }
        let (calls, waiting) = mpsc::channel(limits::FORWARDS_IN_FLIGHT_MAX);
        *current = Some(calls.clone());
        let (network, local) = (self.network.clone(), self.local.clone());
        let (channel, target, address, silence) =
            (self.channel, self.target, self.address.clone(), self.silence);
        rt::spawn(async move {
            match open(network.as_ref(), &local, channel, target, &address).await {
                Ok(session) => serve(session, waiting, silence, &local.quarantine).await,
                Err(error) => refuse(waiting, &error, target, &address),
            }
        });
        calls
    }
}

/// Opens a connection and shakes hands.
pub(super) async fn open(
    network: &dyn Network,
    local: &Local,
    channel: Channel,
    target: NodeId,
    address: &str,
) -> Result<Session, HandshakeError> {
    let connecting = rt::timeout(local.connect_timeout(), network.connect(address));
    let connection: Connection = connecting.await.ok_or(HandshakeError::Timeout)??;
    local.dial(connection, channel, target).await
}

fn refuse(mut waiting: mpsc::Receiver<Call>, error: &HandshakeError, target: NodeId, address: &str) {
    tracing::debug!("no connection to node {target} at {address}: {error}");
    waiting.close();
    while let Ok(call) = waiting.try_recv() {
        drop(call.answer.send(Err(CallError::NotSent(error.to_string()))));
    }
}

/// Questions under way, by number; the moment is that of the last sign of life while any is.
struct UnderWay {
    calls: BTreeMap<u64, Asked>,
    heard: rt::Instant,
}

/// A question that was sent.
struct Asked {
    /// The vote by which the other side would acknowledge something.
    vote: Option<Vote>,
    answer: oneshot::Sender<Result<reply::Body, CallError>>,
}

async fn serve(
    session: Session,
    mut waiting: mpsc::Receiver<Call>,
    silence: Duration,
    quarantine: &Quarantine,
) {
    let Session { mut reader, mut writer, witness, .. } = session;
    let mut disowned = std::pin::pin!(disowned(&witness, quarantine));
    let mut under_way = UnderWay { calls: BTreeMap::new(), heard: rt::now() };
    let mut next_id = 0;
    let mut calls = Vec::new();
    let reason = loop {
        let room = limits::FORWARDS_IN_FLIGHT_MAX.saturating_sub(under_way.calls.len());
        tokio::select! {
            biased;
            frame = reader.next::<ReplyFrame>() => match frame {
                Ok(Some(frame)) => if let Err(reason) = answer(&mut under_way, frame, &witness) {
                    break reason;
                },
                Ok(None) => break "the peer closed the connection".to_owned(),
                Err(error) => break error.to_string(),
            },
            count = waiting.recv_many(&mut calls, room), if room > 0 => {
                if count == 0 {
                    break "no longer needed".to_owned();
                }
                let frame = frame_of(&mut calls, &mut next_id, &mut under_way);
                match rt::timeout(silence, writer.send(&frame)).await {
                    Some(Ok(())) => {}
                    Some(Err(error)) => break error.to_string(),
                    None => break format!("the peer takes no bytes for {silence:?}"),
                }
            }
            () = rt::sleep_until(under_way.heard + silence), if !under_way.calls.is_empty() => {
                break format!("the peer is silent for {silence:?}");
            }
            reason = &mut disowned => break reason.to_owned(),
        }
    };
    waiting.close();
    while let Ok(call) = waiting.try_recv() {
        drop(call.answer.send(Err(CallError::NotSent(reason.clone()))));
    }
    for (_, asked) in under_way.calls {
        drop(asked.answer.send(Err(CallError::Broken(reason.clone()))));
    }
}

fn frame_of(calls: &mut Vec<Call>, next_id: &mut u64, under_way: &mut UnderWay) -> RequestFrame {
    if under_way.calls.is_empty() {
        under_way.heard = rt::now();
    }
    let requests = calls.drain(..).map(|call| {
        *next_id += 1;
        let vote = match &call.body {
            request::Body::Heartbeat(request) => request.vote,
            request::Body::Vote(request) => request.vote,
            _ => None,
        };
        under_way.calls.insert(*next_id, Asked { vote, answer: call.answer });
        Request { id: *next_id, body: Some(call.body) }
    });
    RequestFrame { requests: requests.collect() }
}

fn answer(under_way: &mut UnderWay, frame: ReplyFrame, witness: &Witness) -> Result<(), String> {
    under_way.heard = rt::now();
    for reply in frame.replies {
        // An answer to nobody: its caller gave up.
        let Some(asked) = under_way.calls.remove(&reply.id) else { continue };
        if !reply.body.as_ref().is_none_or(|body| note(witness, asked.vote.as_ref(), body)) {
            drop(asked.answer.send(Err(CallError::Broken(SUPERSEDED.to_owned()))));
            return Err(SUPERSEDED.to_owned());
        }
        let body = reply.body.ok_or_else(|| CallError::Broken("an empty answer".to_owned()));
        drop(asked.answer.send(body));
    }
    Ok(())
}

/// Notes what an answer acknowledges, before anybody acts on it. False where it must not count.
fn note(witness: &Witness, vote: Option<&Vote>, body: &reply::Body) -> bool {
    let Some(vote) = vote else { return true };
    match body {
        reply::Body::Heartbeat(reply) => match &reply.reply {
            Some(append_reply::Reply::Matched(matched)) => witness.note(vote, matched.log_id.as_ref()),
            _ => true,
        },
        reply::Body::Vote(reply) if reply.granted => witness.note(vote, None),
        _ => true,
    }
}
