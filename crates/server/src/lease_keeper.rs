//! The lease keeper: while this member leads, it ends the leases that are due and carries the lease clock on.
//!
//! It only proposes. Whether a lease ends is judged in `apply`, by the replicated deadline, so that a keep-alive that was
//! applied meanwhile wins, and two keepers that both believe to lead do no harm.
//!
//! It knows no gRPC, so that the simulator runs it too.

use std::time::Duration;

use futures_util::future;
use ringfence_consensus::{Node, rt};
use ringfence_types::limits::{LEASE_KEYS_MAX, LEASES_ENDED_AT_ONCE_MAX, REQUEST_TIMEOUT};
use ringfence_types::{Command, Grant, LeaseCommand, LeaseTime, Reply};

/// Time between two looks for leases that are due.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The clock in the log may fall so far behind the leader's before an entry of its own carries it on, in milliseconds. With
/// the looks and the time that an entry takes, a change of leader loses at most a second of it.
const CLOCK_LAG_MAX_MS: u64 = 800;
/// How long the entry may take that carries the clock; the next look makes another.
const TICK_TIMEOUT: Duration = Duration::from_secs(1);
/// Most keys that one entry deletes, unless a single lease has more.
const KEYS_ENDED_AT_ONCE_MAX: u64 = LEASE_KEYS_MAX as u64;

/// Keeps leases until `shutdown` is over. `count_ended` is told how many leases an entry has ended.
pub(crate) async fn run(node: Node, count_ended: impl Fn(usize), shutdown: impl Future<Output = ()>) {
    let keeping = async {
        loop {
            rt::sleep(LOOK_INTERVAL).await;
            loop {
                let ended = end_due(&node).await;
                count_ended(ended);
                if ended == 0 {
                    break;
                }
            }
            carry_clock(&node).await;
        }
    };
    future::select(std::pin::pin!(shutdown), std::pin::pin!(keeping)).await;
}

/// Ends leases that are due, not all of them at once. How many it ended.
async fn end_due(node: &Node) -> usize {
    let Some(clock) = node.lease_clock() else { return 0 };
    let due = node.due_leases(clock, LEASES_ENDED_AT_ONCE_MAX);
    let view = node.view();
    let keys = |grant: &Grant| match view.lease(grant.lease) {
        Ok(lease) => lease.map_or(0, |lease| u64::from(lease.keys)),
        // Counted as the most that it can be; `apply` meets the same failure and deals with it.
        Err(_unreadable) => KEYS_ENDED_AT_ONCE_MAX,
    };
    let grants = up_to_keys(due, keys);
    if grants.is_empty() {
        return 0;
    }
    drop(view);
    let expire = Command::Lease { command: LeaseCommand::Expire { grants }, clock: LeaseTime(0) };
    match node.propose(&expire, rt::now() + REQUEST_TIMEOUT).await {
        Ok(Ok(applied)) => match applied.reply {
            Reply::LeasesExpired(ended) => ended.len(),
            reply => panic!("the reply to an end of leases is of its kind, and this one is {reply:?}"),
        },
        Ok(Err(rejection)) => {
            tracing::debug!("leases that are due do not end yet: {rejection}");
            0
        }
        Err(error) => {
            tracing::debug!("leases that are due do not end yet: {error}");
            0
        }
    }
}

/// The first of `due` whose keys together are not too many for one entry, but at least one.
fn up_to_keys(due: Vec<Grant>, keys: impl Fn(&Grant) -> u64) -> Vec<Grant> {
    let mut sum = 0;
    let mut kept = due;
    let fits = |grant: &Grant| {
        sum += keys(grant);
        sum <= KEYS_ENDED_AT_ONCE_MAX
    };
    let count = kept.iter().map(fits).take_while(|fits| *fits).count();
    kept.truncate(count.max(1));
    kept
}

/// Carries the clock on where nothing else does: what the log does not hold is lost with the leader.
async fn carry_clock(node: &Node) {
    let Some(clock) = node.lease_clock() else { return };
    let lag = clock.0.saturating_sub(node.view().lease_clock().0);
    if lag < CLOCK_LAG_MAX_MS || node.lease_count() == 0 {
        return;
    }
    if let Err(error) = node.carry_lease_clock(rt::now() + TICK_TIMEOUT).await {
        tracing::debug!("the lease clock is not carried on: {error}");
    }
}

#[cfg(test)]
mod tests {
    use ringfence_types::{Index, LeaseId};

    use super::*;

    #[test]
    fn an_entry_ends_as_many_leases_as_their_keys_allow() {
        let grants = |count: i64| -> Vec<Grant> {
            (1..=count).map(|lease| Grant { lease: LeaseId(lease), index: Index(9) }).collect()
        };
        let half = KEYS_ENDED_AT_ONCE_MAX / 2;
        assert_eq!(up_to_keys(grants(200), |_| 0), grants(200));
        assert_eq!(up_to_keys(grants(200), |_| half), grants(2));
        assert_eq!(up_to_keys(grants(200), |_| half + 1), grants(1));
        assert_eq!(up_to_keys(grants(2), |_| u64::from(u32::MAX)), grants(1), "one lease ends as a whole");
        assert_eq!(up_to_keys(Vec::new(), |_| 0), Vec::new());
    }
}
