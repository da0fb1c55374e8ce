//! How old this node's state may be by its own clock, and how that is kept young while somebody reads by it (DESIGN, section 5).
//!
//! A state is as fresh as the moment at which the question was *sent* whose answer it has applied. Heartbeats say nothing: they
//! travel apart from the data, and may be late, or those of a leader that was deposed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use ringfence_store::View;
use ringfence_types::{CausalToken, Freshness, Index, Rejection, Revision};

use crate::api::BarrierError;
use crate::node::Node;
use crate::read::safe_age;
use crate::rt::{self, watch};

/// The shortest time between two questions that are asked to keep the state young.
const ASK_PAUSE_MIN: Duration = Duration::from_millis(20);

/// When the state was fresh for the last time, and how young readers want it.
#[derive(Debug)]
pub(crate) struct FreshAsOf {
    /// Nanoseconds on the runtime's clock; 0 while no question has been answered.
    as_of: AtomicU64,
    wanted: watch::Sender<Option<Wanted>>,
}

/// The strictest limit that was read by lately.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    max_age: Duration,
    read_at: rt::Instant,
}

impl Wanted {
    /// Whether reads with this limit still seem to come.
    fn is_current(&self) -> bool {
        rt::since(self.read_at) <= self.max_age * 2
    }
}

impl FreshAsOf {
    pub(crate) fn new() -> FreshAsOf {
        FreshAsOf { as_of: AtomicU64::new(0), wanted: watch::Sender::new(None) }
    }

    /// The answer to a question sent at `sent` is applied here.
    pub(crate) fn note(&self, sent: rt::Instant) {
        self.as_of.fetch_max(sent.nanoseconds(), Ordering::AcqRel);
    }

    fn age(&self) -> Option<Duration> {
        match self.as_of.load(Ordering::Acquire) {
            0 => None,
            as_of => Some(rt::since(rt::Instant::from_nanoseconds(as_of))),
        }
    }

    /// A read comes that takes a state of at most this age.
    fn want(&self, max_age: Duration) {
        let known = *self.wanted.borrow();
        let is_news = known.is_none_or(|known| {
            // The same limit again is told only now and then, so that reads do not queue for the notice.
            let is_due = max_age == known.max_age && rt::since(known.read_at) > max_age / 4;
            max_age < known.max_age || is_due || !known.is_current()
        });
        if is_news {
            self.wanted.send_replace(Some(Wanted { max_age, read_at: rt::now() }));
        }
    }

    /// The limit to keep, once there is one.
    async fn wanted(&self) -> Option<Duration> {
        let mut wanted = self.wanted.subscribe();
        let current = |wanted: &Option<Wanted>| wanted.is_some_and(|wanted| wanted.is_current());
        let wanted = wanted.wait_for(current).await.ok()?;
        wanted.map(|wanted| wanted.max_age)
    }
}

impl Node {
    /// Waits until the state holds a revision.
    pub(crate) async fn wait_revision(
        &self,
        revision: Revision,
        deadline: rt::Instant,
    ) -> Result<View, BarrierError> {
        let waiting = self.wait_view(|view| view.revision() >= revision);
        rt::timeout_at(deadline, waiting).await.unwrap_or_else(|| {
            Err(BarrierError::Rejected(Rejection::FutureRevision { current: self.view().revision() }))
        })
    }

    /// Waits until the state has seen what the owner of a token has.
    pub(crate) async fn wait_token(
        &self,
        token: CausalToken,
        deadline: rt::Instant,
    ) -> Result<View, BarrierError> {
        match self.cluster_id() {
            0 => return Err(BarrierError::NotReady("the cluster has not been founded yet".to_owned())),
            own if own != token.cluster_id => return Err(BarrierError::OtherCluster { token, own }),
            _ => {}
        }
        let has_seen = |view: &View| {
            let is_applied = view.applied().is_some_and(|applied| applied.index >= token.index);
            view.revision() >= token.revision && (is_applied || token.index == Index(0))
        };
        let waiting = self.wait_view(has_seen);
        rt::timeout_at(deadline, waiting).await.unwrap_or(Err(BarrierError::Behind(token)))
    }

    /// Waits until the state is as it is wanted.
    async fn wait_view(&self, is_wanted: impl Fn(&View) -> bool) -> Result<View, BarrierError> {
        let mut applied = self.0.shelf.applied();
        loop {
            let view = self.believed_view()?;
            if is_wanted(&view) {
                return Ok(view);
            }
            applied.changed().await.map_err(|_| BarrierError::NotReady("the node is stopping".to_owned()))?;
        }
    }

    /// How old the local state is at most; none where this node has never asked. 0 on a leader that may answer reads by its
    /// leader lease and has applied the first entry of its leadership: whatever is acknowledged, it has applied.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        if self.is_leader_for_reads() { Some(Duration::ZERO) } else { self.0.fresh.age() }
    }

    /// Whether the local state is at most `max_age` old. Readers with such a limit keep it young from now on, for a while.
    pub(crate) fn is_within(&self, max_age: Duration) -> bool {
        self.0.fresh.want(max_age);
        self.age().is_some_and(|age| age <= max_age)
    }

    fn is_leader_for_reads(&self) -> bool {
        let (authority, local) = (&self.0.authority, &self.0.links.local);
        let standing = authority.standing();
        if standing.leader != Some(self.node_id()) {
            return false;
        }
        // Until its first entry is applied, a leader does not know what of its log was acknowledged before. The lease clock runs
        // from that entry on.
        if authority.lease_clock().is_none() {
            return false;
        }
        let voters = standing.members.values().filter(|member| member.is_voter).count();
        drop(standing);
        let acked =
            self.0.raft.metrics().borrow_watched().last_quorum_acked.as_ref().map(|acked| rt::since(**acked));
        voters <= 1 || acked.is_some_and(|age| age <= safe_age(authority, local))
    }
}

/// Asks, for ever, as often as readers with a limit on age need it; rests while there are none.
pub(crate) async fn keep_young(node: Node) {
    while let Some(max_age) = node.0.fresh.wanted().await {
        // Whatever comes of it: readers ask for themselves where it fails.
        let _ = node.read_barrier(Freshness::Linearizable, rt::now() + max_age).await;
        rt::sleep((max_age / 2).max(ASK_PAUSE_MIN)).await;
    }
}
