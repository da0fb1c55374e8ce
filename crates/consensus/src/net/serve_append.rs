//! The answering side of the append channel.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use ringfence_proto::peers::{AppendReply, AppendRequest, append_reply};
use ringfence_types::limits;
use tokio::sync::mpsc;

use super::handshake::Session;
use super::pipeline;
use super::serve::Door;
use crate::raft::types::RaftVote;

/// Feeds openraft and sends its answers back in order. Ends after a refusal: what came behind it is unanswered, and the
/// other side opens a new connection.
pub(super) async fn serve(door: &Arc<Door>, session: Session) -> io::Result<()> {
    door.local.quarantine.check_acknowledge().map_err(io::Error::other)?;
    let Session { mut reader, mut writer, .. } = session;
    let (requests, input) = mpsc::channel(limits::APPENDS_IN_FLIGHT_MAX);
    let input =
        futures_util::stream::unfold(input, |mut input| async move { Some((input.recv().await?, input)) });
    // Fused: within a burst its end looks as a pause does, and it is asked once more.
    let mut answers = Box::pin(door.raft.stream_append(input).fuse());
    let votes: Mutex<VecDeque<RaftVote>> = Mutex::default();

    let receiving = async {
        while let Some(request) = reader.next::<AppendRequest>().await? {
            let request = pipeline::from_wire(&request)?;
            votes.lock().push_back(request.vote);
            if requests.send(request).await.is_err() {
                break;
            }
        }
        // The other side is done; answers to what it sent no longer matter to it.
        io::Result::Ok(())
    };
    let answering = async {
        while let Some(first) = answers.next().await {
            // Those that a sync has made ready together go out together.
            let mut answer = Some(first);
            while let Some(ready) = answer.take() {
                let vote = votes.lock().pop_front().expect("an answer follows its request");
                let reply = match ready {
                    Ok(result) => {
                        // Entries come from leaders that took writes, which takes a majority.
                        door.heard(&vote, &result, false);
                        pipeline::result_to_wire(&result)
                    }
                    Err(fatal) => AppendReply { reply: Some(append_reply::Reply::Error(fatal.to_string())) },
                };
                writer.push(&reply);
                answer = answers.next().now_or_never().flatten();
            }
            writer.flush().await?;
        }
        io::Result::Ok(())
    };
    tokio::select! {
        biased;
        result = answering => result,
        result = receiving => result,
    }
}
