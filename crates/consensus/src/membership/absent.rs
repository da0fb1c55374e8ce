//! Which members do not answer their leader: said once as it begins, and once as it ends. openraft says it with each message that
//! did not arrive, dozens of times a second for a member that is down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringfence_types::{Member, NodeId};

use crate::rt::Instant;

/// Members that do not answer.
#[derive(Debug, Default)]
pub(super) struct Absent(BTreeMap<NodeId, Absence>);

#[derive(Debug)]
struct Absence {
    since: Instant,
    is_told: bool,
}

/// What is said of a member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It has not answered for so long.
    Gone(NodeId, Duration),
    /// It answers again, after so long.
    Back(NodeId, Duration),
}

impl Absent {
    /// Takes in who answers now, and returns what there is to say. `patience` is how long nothing is said: a leader that was just
    /// elected has heard from nobody yet.
    pub(super) fn look(
        &mut self,
        members: &BTreeSet<NodeId>,
        alive: &BTreeSet<NodeId>,
        now: Instant,
        patience: Duration,
    ) -> Vec<Told> {
        let mut told = Vec::new();
        self.0.retain(|id, absence| {
            let is_back = alive.contains(id);
            if is_back && absence.is_told {
                told.push(Told::Back(*id, now - absence.since));
            }
            !is_back && members.contains(id)
        });
        for id in members.difference(alive) {
            let absence = self.0.entry(*id).or_insert(Absence { since: now, is_told: false });
            let gone_for = now - absence.since;
            if gone_for >= patience && !absence.is_told {
                absence.is_told = true;
                told.push(Told::Gone(*id, gone_for));
            }
        }
        told
    }

    /// Forgets everybody: another member leads.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Told {
    /// Writes it into the log.
    pub(super) fn log(&self, members: &BTreeMap<NodeId, Member>) {
        let (Told::Gone(id, time) | Told::Back(id, time)) = self;
        let name = members.get(id).map_or("", |member| member.name.as_str());
        let seconds = time.as_secs_f64();
        match self {
            Told::Gone(..) => tracing::warn!("{name} (node {id}) has not answered for {seconds:.1} s"),
            Told::Back(..) => tracing::info!("{name} (node {id}) answers again, after {seconds:.1} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;

    #[test]
    fn who_is_gone_is_told_of_once_and_once_when_it_is_back() {
        let (began, patience) = (rt::now(), Duration::from_secs(1));
        let [all, some] = [&[1, 2, 3][..], &[1, 3]].map(|ids| ids.iter().copied().map(NodeId).collect());
        let mut absent = Absent::default();
        let mut look = |members: &BTreeSet<NodeId>, alive: &BTreeSet<NodeId>, tenths: u64| {
            absent.look(members, alive, began + Duration::from_millis(tenths * 100), patience)
        };
        assert_eq!(look(&all, &some, 0), []);
        assert_eq!(look(&all, &all, 5), [], "that was nothing");
        assert_eq!(look(&all, &some, 6), []);
        assert_eq!(look(&all, &some, 15), []);
        assert_eq!(look(&all, &some, 16), [Told::Gone(NodeId(2), patience)]);
        assert_eq!(look(&all, &some, 17), [], "it was told");
        assert_eq!(look(&all, &all, 36), [Told::Back(NodeId(2), Duration::from_secs(3))]);
        assert_eq!(look(&all, &all, 37), []);
        look(&all, &some, 40);
        assert_eq!(look(&all, &some, 50).len(), 1);
        assert_eq!(look(&some, &some, 51), [], "it was removed");
    }
}
