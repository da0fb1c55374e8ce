//! Automatic compaction: while this member leads, it has the history compacted that is older, or longer, than it shall be kept.
//!
//! It only proposes, as any client may. Which revision was the newest at what time is remembered by whoever leads, in memory: a new
//! leader starts counting anew, which keeps history for longer and never for less. It goes in steps: the next one is proposed when
//! this member's file has been freed of what the last one removes.
//!
//! It knows no gRPC.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future;
use ringfence_consensus::rt::{self, Instant};
use ringfence_consensus::{Node, ProposeError};
use ringfence_types::limits::REQUEST_TIMEOUT;
use ringfence_types::{Command, Rejection, Revision};

/// Time between two looks, unless history is to be kept for less than some of them.
const LOOK_MAX: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_millis(50);
/// Most revisions that one step goes on.
const STEP_MAX: i64 = 100_000;
/// Moments that are remembered of the time for which history is kept: so much finer than that time are the steps.
const MARKS: u32 = 100;
/// So many revisions are kept while the state is close to its quota, if not fewer are kept anyway: rather a short history than no
/// room for writes.
const KEPT_WHEN_SHORT: u64 = 10_000;

/// How much history is kept. What is older than the one, or more than the other, is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// For how long; zero for no bound.
    pub keep_age: Duration,
    /// How many revisions; 0 for no bound.
    pub keep_revisions: u64,
}

impl History {
    /// Nothing is compacted but what clients ask for.
    pub const EVERYTHING: History = History { keep_age: Duration::ZERO, keep_revisions: 0 };

    fn keeps_everything(self) -> bool {
        self == History::EVERYTHING
    }
}

impl Default for History {
    /// A day, unless there is more than five million revisions of it.
    fn default() -> History {
        History { keep_age: Duration::from_secs(24 * 3_600), keep_revisions: 5_000_000 }
    }
}

/// What automatic compaction has done.
#[derive(Debug, Default)]
pub(crate) struct Compactions {
    steps: AtomicU64,
    revisions: AtomicU64,
}

impl Compactions {
    /// The counters in Prometheus' text format.
    pub(crate) fn write(&self, text: &mut String) {
        for (name, about, counter) in [
            (
                "ringfence_automatic_compactions_total",
                "Steps of automatic compaction that this member had done.",
                &self.steps,
            ),
            (
                "ringfence_automatic_compaction_revisions_total",
                "Revisions that automatic compaction by this member has passed.",
                &self.revisions,
            ),
        ] {
            let _ = writeln!(
                text,
                "# HELP {name} {about}\n# TYPE {name} counter\n{name} {}",
                counter.load(Relaxed)
            );
        }
    }
}

/// Compacts until `shutdown` is over.
pub(crate) async fn run(
    node: Node,
    history: History,
    counts: &Compactions,
    shutdown: impl Future<Output = ()>,
) {
    if history.keeps_everything() {
        return shutdown.await;
    }
    let look = match history.keep_age {
        Duration::ZERO => LOOK_MAX,
        age => (age / MARKS).clamp(LOOK_MIN, LOOK_MAX),
    };
    let compacting = async {
        let mut marks = Marks::default();
        loop {
            rt::sleep(look).await;
            if node.lease_clock().is_none() {
                // Whatever was seen in an earlier leadership: others may have led meanwhile, and time may have stood still.
                marks = Marks::default();
                continue;
            }
            step(&node, history, &mut marks, counts).await;
        }
    };
    future::select(std::pin::pin!(shutdown), std::pin::pin!(compacting)).await;
}

/// One look, and one step where there is something to compact.
async fn step(node: &Node, history: History, marks: &mut Marks, counts: &Compactions) {
    let view = node.view();
    let (revision, compacted) = (view.revision(), view.compacted());
    drop(view);
    let now = rt::now();
    marks.note(now, revision, history.keep_age);
    let status = node.status();
    let by_age = marks.last_before(now, history.keep_age);
    let kept = match status.space.is_quota_near {
        true => {
            KEPT_WHEN_SHORT.min(if history.keep_revisions == 0 { u64::MAX } else { history.keep_revisions })
        }
        false => history.keep_revisions,
    };
    let Some(goal) = goal(revision, compacted, by_age, kept) else { return };
    if !status.compaction.is_swept {
        return;
    }
    match node.propose(&Command::Compact { revision: goal }, now + REQUEST_TIMEOUT).await {
        Ok(Ok(_)) => {
            counts.steps.fetch_add(1, Relaxed);
            counts.revisions.fetch_add((goal.0 - compacted.0).unsigned_abs(), Relaxed);
            tracing::debug!("history up to revision {goal} is compacted");
        }
        // Somebody else was faster.
        Ok(Err(Rejection::Compacted { .. })) => {}
        Ok(Err(rejection)) => tracing::debug!("history is not compacted: {rejection}"),
        Err(ProposeError::NoLeader { .. } | ProposeError::NotReady(_)) => {}
        Err(error) => tracing::debug!("history is not compacted: {error}"),
    }
}

/// How far the next step goes: none where it is not worth one.
fn goal(revision: Revision, compacted: Revision, by_age: Option<Revision>, kept: u64) -> Option<Revision> {
    let by_number = match kept {
        0 => None,
        kept => {
            let kept = i64::try_from(kept).unwrap_or(i64::MAX);
            // A step for each revision would be a write for each write.
            let goal = revision.0.saturating_sub(kept);
            (goal - compacted.0 > kept / 100).then_some(Revision(goal))
        }
    };
    let goal = by_age.max(by_number)?.0.min(compacted.0.saturating_add(STEP_MAX)).min(revision.0);
    (goal > compacted.0 && goal > 1).then_some(Revision(goal))
}

/// Which revision was the newest at moments of the past.
#[derive(Debug, Default)]
struct Marks(VecDeque<(Instant, Revision)>);

impl Marks {
    /// Notes the newest revision of a moment, unless the last note is fresh enough.
    fn note(&mut self, now: Instant, revision: Revision, keep_age: Duration) {
        if keep_age.is_zero() || self.0.back().is_some_and(|(at, _)| now - *at < keep_age / MARKS) {
            return;
        }
        self.0.push_back((now, revision));
        // Of those that are old enough the newest one counts.
        while self.0.get(1).is_some_and(|(at, _)| now - *at >= keep_age) {
            self.0.pop_front();
        }
    }

    /// The newest revision that is surely older than `age`.
    fn last_before(&self, now: Instant, age: Duration) -> Option<Revision> {
        if age.is_zero() {
            return None;
        }
        let older = self.0.iter().rev().find(|(at, _)| now - *at >= age);
        older.map(|(_, revision)| *revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(100);

    #[test]
    fn history_within_its_bounds_stays() {
        assert_eq!(goal(Revision(1_000), Revision(0), None, 1_000), None);
        assert_eq!(goal(Revision(1_000), Revision(0), None, 0), None);
        assert_eq!(
            goal(Revision(1), Revision(0), Some(Revision(1)), 0),
            None,
            "an empty store has no history"
        );
        assert_eq!(
            goal(Revision(1_000), Revision(300), Some(Revision(300)), 0),
            None,
            "it is compacted already"
        );
    }

    #[test]
    fn what_is_older_or_more_than_shall_be_kept_goes() {
        assert_eq!(goal(Revision(1_500), Revision(0), None, 1_000), Some(Revision(500)));
        assert_eq!(goal(Revision(1_500), Revision(495), None, 1_000), None, "a step must be worth it");
        assert_eq!(goal(Revision(1_500), Revision(10), Some(Revision(700)), 1_000), Some(Revision(700)));
        assert_eq!(goal(Revision(1_500), Revision(10), Some(Revision(20)), 1_000), Some(Revision(500)));
        assert_eq!(goal(Revision(1_500), Revision(10), Some(Revision(11)), 0), Some(Revision(11)));
    }

    #[test]
    fn a_long_history_goes_in_steps() {
        assert_eq!(goal(Revision(10_000_000), Revision(0), None, 1_000), Some(Revision(STEP_MAX)));
        assert_eq!(goal(Revision(10_000_000), Revision(50), None, 1_000), Some(Revision(STEP_MAX + 50)));
    }

    #[test]
    fn only_what_was_seen_long_ago_is_old() {
        let start = rt::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut marks = Marks::default();
        for second in 0..250 {
            marks.note(at(second), Revision(i64::try_from(second).unwrap() + 10), AGE);
        }
        assert_eq!(marks.last_before(at(249), AGE), Some(Revision(159)));
        assert!(marks.0.len() <= 102, "no more moments are remembered than are needed: {}", marks.0.len());
        let mut young = Marks::default();
        young.note(at(249), Revision(500), AGE);
        assert_eq!(young.last_before(at(300), AGE), None, "a new leader begins anew");
        assert_eq!(young.last_before(at(349), AGE), Some(Revision(500)));
    }
}
