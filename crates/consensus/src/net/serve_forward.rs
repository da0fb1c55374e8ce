//! The answering side of the forward channel: writes that another member received, proposed in the order in which they
//! came, answered in the order in which they end.

use std::io;
use std::sync::Arc;

use prost::Message;
use ringfence_proto::peers::{Reply, ReplyFrame, RequestFrame, reply, request};
use ringfence_types::limits;
use tokio::sync::mpsc;

use super::handshake::Session;
use super::serve::Door;
use crate::api::ProposeError;
use crate::propose::{self, Proposed};

/// Once a frame has so many bytes of answers it is sent: with one more, of the largest kind, it is still a frame.
const REPLY_BYTES_SOFT: usize = 1 << 20;

/// A write under way, with the number that its answer carries.
struct UnderWay {
    id: u64,
    proposed: Result<Proposed, ProposeError>,
}

pub(super) async fn serve(door: &Arc<Door>, session: Session) -> io::Result<()> {
    let Session { mut reader, mut writer, .. } = session;
    let (started, mut waiting) = mpsc::channel::<UnderWay>(limits::FORWARDS_IN_FLIGHT_MAX);
    let proposing = async {
        while let Some(frame) = reader.next::<RequestFrame>().await? {
            for request in frame.requests {
                let proposed = match request.body {
                    Some(request::Body::Command(command)) => door.proposer.start(command),
                    _ => Err(ProposeError::NotReady("the forward channel carries writes alone".to_owned())),
                };
                if started.send(UnderWay { id: request.id, proposed }).await.is_err() {
                    return Ok(());
                }
            }
        }
        io::Result::Ok(())
    };
    let answering = async {
        while let Some(first) = waiting.recv().await {
            let mut replies = vec![finish(first).await];
            let mut bytes = replies[0].encoded_len();
            // Writes end in the order of the log: those behind the first have often ended with it.
            while replies.len() < limits::PROPOSE_BATCH_MAX && bytes < REPLY_BYTES_SOFT {
                let Ok(next) = waiting.try_recv() else { break };
                let reply = finish(next).await;
                bytes += reply.encoded_len();
                replies.push(reply);
            }
            writer.send(&ReplyFrame { replies }).await?;
        }
        io::Result::Ok(())
    };
    tokio::select! {
        biased;
        result = answering => result,
        result = proposing => result,
    }
}

async fn finish(write: UnderWay) -> Reply {
    let ended = match write.proposed {
        Ok(proposed) => propose::finish(proposed).await,
        Err(error) => Err(error),
    };
    let body = match ended {
        Ok(outcome) => reply::Body::Outcome(ringfence_proto::outcome::encode(&outcome)),
        Err(ProposeError::NoSpace(reason)) => reply::Body::NoSpace(reason),
        Err(ProposeError::Overloaded(reason)) => reply::Body::Overloaded(reason),
        Err(error) if error.is_definite() => reply::Body::Refused(error.to_string()),
        Err(error) => reply::Body::Unknown(error.to_string()),
    };
    Reply { id: write.id, body: Some(body) }
}
