//! The Integrity service: scrubs on demand.

use std::pin::Pin;

use futures_util::{Stream, stream};
use ringfence_consensus::ScrubVerdict;
use ringfence_proto::ringfence_v1::integrity_server;
use ringfence_proto::ringfence_v1::{self as v1, scrub_verdict};
use ringfence_store::ScrubProgress;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, async_trait};

use crate::served::Served;
use crate::status::Trouble;

/// Answers that wait for a slow caller; those that find no room are left out, but for the last one.
const ANSWERS_WAITING_MAX: usize = 4;

/// The service.
pub(crate) struct Integrity {
    pub(crate) served: Served,
}

#[async_trait]
impl integrity_server::Integrity for Integrity {
    type ScrubStream = Pin<Box<dyn Stream<Item = Result<v1::ScrubResponse, Status>> + Send>>;

    async fn scrub(&self, _: Request<v1::ScrubRequest>) -> Result<Response<Self::ScrubStream>, Status> {
        if let Err(error) = self.served.node.believed_view() {
            return Err(self.served.status(&error.into()));
        }
        let (answers, told) = mpsc::channel(ANSWERS_WAITING_MAX);
        let served = self.served.clone();
        tokio::spawn(async move {
            let scrubbing = served.node.scrub(|progress| {
                let _full_or_gone = answers.try_send(Ok(answer(progress, None)));
            });
            let last = tokio::select! {
                () = answers.closed() => return,
                () = served.shutdown.cancelled() => return,
                ended = scrubbing => match ended {
                    Ok(verdict) => Ok(last_answer(verdict)),
                    Err(failure) => Err(served.status(&Trouble::Scrub(failure))),
                },
            };
            let _gone = answers.send(last).await;
        });
        let told = stream::unfold(told, |mut told| async move { Some((told.recv().await?, told)) });
        Ok(Response::new(Box::pin(told)))
    }
}

fn answer(progress: ScrubProgress, verdict: Option<scrub_verdict::Verdict>) -> v1::ScrubResponse {
    let ScrubProgress { versions, keys, bytes } = progress;
    v1::ScrubResponse {
        progress: Some(v1::ScrubProgress { versions, keys, bytes }),
        verdict: verdict.map(|verdict| v1::ScrubVerdict { verdict: Some(verdict) }),
    }
}

fn last_answer(verdict: ScrubVerdict) -> v1::ScrubResponse {
    match verdict {
        ScrubVerdict::Sound { revision, progress } => {
            answer(progress, Some(scrub_verdict::Verdict::Sound(revision.0)))
        }
        ScrubVerdict::Damaged { reason, progress } => {
            answer(progress, Some(scrub_verdict::Verdict::Damaged(reason)))
        }
        ScrubVerdict::Overtaken => {
            answer(ScrubProgress::default(), Some(scrub_verdict::Verdict::Overtaken(true)))
        }
    }
}
