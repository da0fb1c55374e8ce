//! Which nodes a read is sent to: by who leads, and by how far away they are. Both are learned by asking each node for its
//! status now and then, while reads come that want to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use ringfence_proto::etcdserverpb::StatusRequest;
use ringfence_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::time::{Instant, timeout};

use crate::nodes::{Nodes, Target};

/// After this time what is known of the nodes is asked anew, beside the reads.
const SURVEY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a node may take to tell its status before it counts as one that does not answer.
const SURVEY_TIMEOUT: Duration = Duration::from_millis(500);
/// The weight of the newest measurement of a round trip among all of the past.
const ROUND_TRIP_WEIGHT: f64 = 0.3;

/// Which nodes answer reads. The leader is the one that said so within the last second or so: a read is as fresh as it asks for
/// all the same, whoever answers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The node that answered last; after a write, mostly the leader.
    #[default]
    LastAnswered,
    /// The leader alone.
    Leader,
    /// The leader; others where it does not answer.
    LeaderPreferred,
    /// The nodes that do not lead alone, in turn.
    Follower,
    /// The nodes that do not lead, in turn; the leader where none answers.
    FollowerPreferred,
    /// The node with the shortest round trip; the next one where it does not answer.
    Nearest,
}

/// What was learned of one node.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    leads: bool,
    round_trip: Duration,
}

/// What is known of the nodes, by their index.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    seen: Mutex<Vec<Option<Seen>>>,
    /// When the newest survey began; none before the first.
    begun: Mutex<Option<Instant>>,
    is_under_way: AtomicBool,
    /// Whose turn it is among nodes that are as good as each other.
    turn: AtomicUsize,
}

impl Survey {
    /// Where to send a read, best first. Asks the nodes where they have not been asked lately; only for the first answers does
    /// the read wait.
    pub(crate) async fn order(survey: &Arc<Survey>, nodes: &Arc<Nodes>, from: ReadFrom) -> Vec<usize> {
        let begun = *survey.begun.lock();
        if begun.is_none_or(|begun| begun.elapsed() >= SURVEY_INTERVAL) {
            // On its own, so that it is finished even if this read is given up.
            let (taken, asked) = (Arc::clone(survey), Arc::clone(nodes));
            let taking = tokio::spawn(async move { taken.take(&asked).await });
            if begun.is_none() {
                // Without it the read only goes to a node that may be the wrong one.
                let _ = taking.await;
            }
        }
        let turn = survey.turn.fetch_add(1, Ordering::Relaxed);
        let mut seen = survey.seen.lock().clone();
        seen.resize(nodes.endpoints().len(), None);
        order(from, &seen, turn)
    }

    /// A node did not answer a read: it is not to be counted on until it tells its status again.
    pub(crate) fn lose(&self, index: usize) {
        self.set(index, |_| None);
    }

    /// Asks all nodes at once for their status, unless somebody does so already.
    async fn take(&self, nodes: &Nodes) {
        if self.is_under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        *self.begun.lock() = Some(Instant::now());
        join_all(nodes.all().into_iter().map(|target| self.look(target))).await;
        self.is_under_way.store(false, Ordering::Release);
    }

    async fn look(&self, target: Target) {
        let sent = Instant::now();
        let mut client = MaintenanceClient::new(target.channel);
        let answer = timeout(SURVEY_TIMEOUT, client.status(StatusRequest {})).await;
        let sample = sent.elapsed();
        let Ok(Ok(status)) = answer else { return self.lose(target.index) };
        let status = status.into_inner();
        let leads =
            status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader);
        self.set(target.index, |known| {
            let round_trip = known.map_or(sample, |known: Seen| {
                known.round_trip.mul_f64(1.0 - ROUND_TRIP_WEIGHT) + sample.mul_f64(ROUND_TRIP_WEIGHT)
            });
            Some(Seen { leads, round_trip })
        });
    }

    fn set(&self, index: usize, change: impl FnOnce(Option<Seen>) -> Option<Seen>) {
        let mut seen = self.seen.lock();
        if seen.len() <= index {
            seen.resize(index + 1, None);
        }
        seen[index] = change(seen[index]);
    }
}

/// The nodes in the order in which they are asked. Those that did not tell their status come last, where others than the
/// preferred ones may answer at all.
fn order(from: ReadFrom, seen: &[Option<Seen>], turn: usize) -> Vec<usize> {
    let in_turn = || (0..seen.len()).map(|step| (turn + step) % seen.len());
    let those = |wanted: fn(&Option<Seen>) -> bool| in_turn().filter(move |at| wanted(&seen[*at]));
    let leaders = || those(|seen| seen.is_some_and(|seen| seen.leads));
    let followers = || those(|seen| seen.is_some_and(|seen| !seen.leads));
    let unseen = || those(Option::is_none);
    match from {
        ReadFrom::LastAnswered => (0..seen.len()).collect(),
        ReadFrom::Leader => leaders().collect(),
        ReadFrom::LeaderPreferred => leaders().chain(followers()).chain(unseen()).collect(),
        ReadFrom::Follower => followers().collect(),
        ReadFrom::FollowerPreferred => followers().chain(leaders()).chain(unseen()).collect(),
        ReadFrom::Nearest => {
            let mut nearest: Vec<usize> = those(Option::is_some).collect();
            nearest.sort_by_key(|at| seen[*at].map(|seen| seen.round_trip));
            nearest.extend(unseen());
            nearest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_preference_has_its_order() {
        let seen = |leads, millis| Some(Seen { leads, round_trip: Duration::from_millis(millis) });
        let nodes = [seen(false, 9), None, seen(true, 5), seen(false, 2)];
        for (from, turn, expected) in [
            (ReadFrom::LastAnswered, 2, vec![0, 1, 2, 3]),
            (ReadFrom::Leader, 0, vec![2]),
            (ReadFrom::LeaderPreferred, 0, vec![2, 0, 3, 1]),
            (ReadFrom::LeaderPreferred, 1, vec![2, 3, 0, 1]),
            (ReadFrom::Follower, 0, vec![0, 3]),
            (ReadFrom::Follower, 1, vec![3, 0]),
            (ReadFrom::FollowerPreferred, 4, vec![0, 3, 2, 1]),
            (ReadFrom::Nearest, 3, vec![3, 2, 0, 1]),
        ] {
            assert_eq!(order(from, &nodes, turn), expected, "{from:?} in turn {turn}");
        }
        assert_eq!(order(ReadFrom::Leader, &[None, seen(false, 1)], 0), [0; 0], "nobody leads");
        assert_eq!(order(ReadFrom::Nearest, &[], 7), [0; 0]);
    }
}
