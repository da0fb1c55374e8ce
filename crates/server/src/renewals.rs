//! Keep-alives: all that come to this member within a moment share one entry of the log.
//!
//! A keep-alive names a lease, and a renewal one grant of it: a lease's number may be granted again, and a renewal that is
//! late must not prolong the next one's life. Whether a lease is gone is said by apply, or by a linearizable read, and never by
//! this member's own state, which may not have heard of it yet.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringfence_canary::Canary;
use ringfence_consensus::{Node, ProposeError, rt};
use ringfence_types::limits::{LEASES_RENEWED_AT_ONCE_MAX, RENEWALS_WAITING_MAX, REQUEST_TIMEOUT};
use ringfence_types::{Command, Freshness, Grant, Lease, LeaseCommand, LeaseId, LeaseTime, Reply};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::served::At;
use crate::status::Trouble;

/// Time between two entries of renewals, unless they are full: a member writes at most ten a second while there are few
/// leases.
const INTERVAL: Duration = Duration::from_millis(100);
/// Most entries of renewals that are under way at once.
const ENTRIES_UNDER_WAY_MAX: usize = 4;

/// What came of a renewal: the lease as it is then, and when that was; or nothing where that grant of it has ended.
type Renewed = Result<Option<(Lease, At)>, ProposeError>;

/// A grant that is to be renewed.
pub(crate) struct Waiting {
    grant: Grant,
    answer: oneshot::Sender<Renewed>,
}

/// The way to renew leases.
#[derive(Debug, Clone)]
pub(crate) struct Renewals(mpsc::Sender<Waiting>);

impl Renewals {
    /// The handle, and what [`collect`] takes.
    pub(crate) fn new() -> (Renewals, mpsc::Receiver<Waiting>) {
        let (renewals, waiting) = mpsc::channel(RENEWALS_WAITING_MAX);
        (Renewals(renewals), waiting)
    }

    /// Lets a lease begin anew; none where it has ended. Where many wait already, this waits too.
    pub(crate) async fn keep_alive(
        &self,
        node: &Node,
        lease: LeaseId,
    ) -> Result<Option<(Lease, At)>, Trouble> {
        let deadline = rt::now() + REQUEST_TIMEOUT;
        if let Some(known) = node.lease_hint(lease) {
            if Canary::KeepAliveEarly.sings() {
                let renewals = self.clone();
                rt::spawn(async move { drop(renewals.renew(known.grant).await) });
                return Ok(Some((known, At::from(&node.view()))));
            }
            if let Some(renewed) = self.renew(known.grant).await? {
                return Ok(Some(renewed));
            }
        }
        // It is not known here yet, or it has ended; and then its number may have been granted again.
        let view = node.read_barrier(Freshness::Linearizable, deadline).await?;
        match view.lease(lease)? {
            Some(known) => Ok(self.renew(known.grant).await?),
            None => Ok(None),
        }
    }

    async fn renew(&self, grant: Grant) -> Renewed {
        let (answer, answered) = oneshot::channel();
        let stopping = || ProposeError::NotReady("the server is stopping".to_owned());
        self.0.send(Waiting { grant, answer }).await.map_err(|_| stopping())?;
        // It may have been proposed by then.
        let stopped = || ProposeError::Stopped("the server is stopping".to_owned());
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Collects renewals and proposes them, until the server stops.
pub(crate) async fn collect(node: Node, mut waiting: mpsc::Receiver<Waiting>, shutdown: CancellationToken) {
    let mut under_way = FuturesUnordered::new();
    let mut batch = Vec::new();
    let mut next_at = rt::now();
    loop {
        let is_full = batch.len() >= LEASES_RENEWED_AT_ONCE_MAX;
        let room = LEASES_RENEWED_AT_ONCE_MAX - batch.len();
        let may_go = !batch.is_empty() && under_way.len() < ENTRIES_UNDER_WAY_MAX;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            count = waiting.recv_many(&mut batch, room), if !is_full => {
                if count == 0 {
                    return;
                }
            }
            () = rt::sleep_until(if is_full { rt::now() } else { next_at }), if may_go => {
                under_way.push(renew(&node, std::mem::take(&mut batch)));
                next_at = rt::now() + INTERVAL;
            }
        }
    }
}

/// Proposes one batch and tells each of those who wait what came of theirs.
async fn renew(node: &Node, batch: Vec<Waiting>) {
    let mut grants: Vec<Grant> = batch.iter().map(|waiting| waiting.grant).collect();
    grants.sort_unstable();
    grants.dedup();
    let renew = Command::Lease { command: LeaseCommand::Renew { grants }, clock: LeaseTime(0) };
    let renewed = match node.propose(&renew, rt::now() + REQUEST_TIMEOUT).await {
        Ok(Ok(applied)) => match &applied.reply {
            Reply::LeasesRenewed(leases) => {
                let at = At::from(&applied);
                Ok(leases.iter().map(|lease| (lease.grant, (*lease, at))).collect::<BTreeMap<_, _>>())
            }
            reply => panic!("the reply to a renewal is of its kind, and this one is {reply:?}"),
        },
        // Whatever the reason, no lease of the batch has begun anew.
        Ok(Err(rejection)) => Err(ProposeError::NotReady(rejection.to_string())),
        Err(error) => Err(error),
    };
    for Waiting { grant, answer } in batch {
        // Whoever does not wait any more has lost nothing by it.
        drop(answer.send(renewed.as_ref().map(|leases| leases.get(&grant).copied()).map_err(Clone::clone)));
    }
}
