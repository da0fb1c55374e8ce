//! The node as the services see it: what all of them need to answer or to refuse.

use std::sync::Arc;
use std::time::Duration;

use ringfence_consensus::{Node, rt};
use ringfence_proto::freshness::{self, FRESHNESS_KEY, POSITION_KEY};
use ringfence_proto::request::ParseError;
use ringfence_proto::{etcdserverpb, response, ringfence_v1 as v1};
use ringfence_store::{ReadError, View};
use ringfence_types::{Applied, CausalToken, Index, Reply, Revision};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Response, Status};

use crate::admission::Admission;
use crate::compactor::Compactions;
use crate::hottest::Hottest;
use crate::lease_counts::LeaseCounts;
use crate::limits::{LONG_READS_MAX, Limits};
use crate::refusals::Refusals;
use crate::renewals::Renewals;
use crate::status::Trouble;
use crate::watch::WatchCounts;
use crate::{deadline, gate};

/// How long a stream that wants a leader goes on without one: longer than an election in the normal course.
const LEADERLESS_MAX: Duration = Duration::from_millis(1_500);
/// How often somebody looks whether there is one.
const LEADER_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A cheap handle on the node and on what bounds the calls.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) node: Node,
    /// Cancelled when the server is to stop: streams without an end of their own end then.
    pub(crate) shutdown: CancellationToken,
    pub(crate) renewals: Renewals,
    pub(crate) lease_counts: Arc<LeaseCounts>,
    pub(crate) watch_counts: Arc<WatchCounts>,
    /// What was refused so far, by reason.
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) compactions: Arc<Compactions>,
    /// What clients ask for most.
    pub(crate) hottest: Arc<Hottest>,
    pub(crate) limits: Limits,
    /// What clients have under way.
    pub(crate) admission: Admission,
    long_reads: Arc<Semaphore>,
    /// Whether there has been no leader for too long.
    leaderless: watch::Receiver<bool>,
}

/// Where in the cluster's history an answer was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// The store's revision.
    pub(crate) revision: Revision,
    /// The newest entry that the answer tells of; 0 where it is about the revision alone.
    pub(crate) index: Index,
}

impl From<&View> for At {
    fn from(view: &View) -> At {
        At { revision: view.revision(), index: view.applied().map_or(Index(0), |applied| applied.index) }
    }
}

impl From<Revision> for At {
    fn from(revision: Revision) -> At {
        At { revision, index: Index(0) }
    }
}

impl From<&Applied> for At {
    fn from(applied: &Applied) -> At {
        At { revision: applied.revision, index: applied.index }
    }
}

impl Served {
    pub(crate) fn new(node: Node, shutdown: CancellationToken, renewals: Renewals, limits: Limits) -> Served {
        let (tell, leaderless) = watch::channel(false);
        rt::spawn(look_for_leader(node.clone(), shutdown.clone(), tell));
        Served {
            node,
            shutdown,
            renewals,
            lease_counts: Arc::default(),
            watch_counts: Arc::default(),
            refusals: Arc::default(),
            compactions: Arc::default(),
            hottest: Arc::default(),
            limits,
            admission: Admission::new(limits),
            long_reads: Arc::new(Semaphore::new(LONG_READS_MAX)),
            leaderless,
        }
    }

    /// The header of an answer given there.
    pub(crate) fn header(&self, at: impl Into<At>) -> etcdserverpb::ResponseHeader {
        response::header(self.token(at), self.node.node_id(), self.node.term())
    }

    /// A state as fresh as a call about leases, guards or locks wants it, by its field or its metadata; linearizable where neither says
    /// anything.
    pub(crate) async fn fresh_view(
        &self,
        metadata: &MetadataMap,
        field: Option<v1::Freshness>,
    ) -> Result<View, Trouble> {
        gate::leader(metadata, &self.node)?;
        let wishes = metadata.get_all(FRESHNESS_KEY).iter().map(MetadataValue::as_bytes);
        let wanted = freshness::wanted(false, field, wishes).map_err(ParseError::from)?;
        Ok(self.node.read_barrier(wanted, deadline::of(metadata)).await?)
    }

    /// The header of an answer about the state as this member has it.
    pub(crate) fn header_now(&self) -> etcdserverpb::ResponseHeader {
        self.header(&self.node.view())
    }

    /// The causal token of an answer given there.
    pub(crate) fn token(&self, at: impl Into<At>) -> CausalToken {
        let At { revision, index } = at.into();
        CausalToken { cluster_id: self.node.cluster_id(), revision, index }
    }

    /// Turns what a service came to into what gRPC sends.
    pub(crate) fn answer<T>(&self, result: Result<T, Trouble>) -> Result<Response<T>, Status> {
        result.map(Response::new).map_err(|trouble| self.status(&trouble))
    }

    /// As [`Served::answer`], where what was done has no revision of its own: the metadata tell the position too, for clients that
    /// read no fields of ours.
    pub(crate) fn answer_at<T>(&self, result: Result<(At, T), Trouble>) -> Result<Response<T>, Status> {
        let (at, answer) = result.map_err(|trouble| self.status(&trouble))?;
        let mut response = Response::new(answer);
        let position = MetadataValue::try_from(self.token(at).to_string());
        response.metadata_mut().insert(POSITION_KEY, position.expect("a token is plain text"));
        Ok(response)
    }

    /// The status that tells a client of `trouble`, and who leads where that helps.
    pub(crate) fn status(&self, trouble: &Trouble) -> Status {
        if let Trouble::Read(ReadError::Store(error)) = trouble {
            // Whatever this member said from here on would be a guess.
            self.node.report_unreadable(error);
        }
        self.refusals.count(trouble);
        trouble.status(if trouble.is_elsewhere() { self.leader_client_urls() } else { Vec::new() })
    }

    /// Does a read that may take long on a thread that may block, so that it delays no other call.
    ///
    /// The read gets a view of its own, taken when its turn has come: it is no older than any taken before, and no view
    /// is held, with all that it keeps from being freed, by a call that waits for its turn.
    pub(crate) async fn read_long<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let Ok(_permit) = self.long_reads.acquire().await else {
            return Err(Trouble::Busy("the server is stopping"));
        };
        let view = self.node.believed_view()?;
        match tokio::task::spawn_blocking(move || read(&view)).await {
            Ok(result) => Ok(result?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Waits until a stream without an end of its own has to end: with nothing to say when the server stops, and with etcd's error
    /// when the client wants a leader and there has been none for a while.
    pub(crate) async fn stream_end(self, wants_leader: bool) -> Option<Status> {
        let mut leaderless = self.leaderless.clone();
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            _ = leaderless.wait_for(|is_leaderless| *is_leaderless), if wants_leader => {
                Some(self.status(&Trouble::LeaderRequired))
            }
        }
    }

    fn leader_client_urls(&self) -> Vec<String> {
        let Some(leader) = self.node.leader() else { return Vec::new() };
        let members = self.node.view().members();
        members.get(&leader).map(|member| member.client_urls.clone()).unwrap_or_default()
    }
}

/// Looks for a leader on behalf of all streams that want one.
async fn look_for_leader(node: Node, shutdown: CancellationToken, tell: watch::Sender<bool>) {
    let mut last_led = rt::now();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = rt::sleep(LEADER_LOOK_INTERVAL) => {}
        }
        if node.leader().is_some() {
            last_led = rt::now();
        }
        let is_leaderless = rt::since(last_led) >= LEADERLESS_MAX;
        tell.send_if_modified(|told| std::mem::replace(told, is_leaderless) != is_leaderless);
    }
}

/// A command's answer is of the command's kind, on this member and on any that forwarded it.
pub(crate) fn unexpected<T>(command: &str, reply: &Reply) -> T {
    panic!("the reply to {command} is of the command's kind, and this one is {reply:?}")
}
