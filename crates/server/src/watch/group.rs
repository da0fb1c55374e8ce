//! Watches by what they want: those that want the same are a group and share one encoding of its events. A key leads to the
//! groups that it concerns by one lookup, and by one search among the ranges.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use ringfence_types::{Event, EventKind, KeyRange, RangeEnd, Revision};

use super::outbox::{Outbox, WatchKey};
use super::ranges::Ranges;

/// What a watch wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Interest {
    /// The keys.
    pub(super) range: KeyRange,
    /// Whether puts are wanted.
    pub(super) puts: bool,
    /// Whether deletions are wanted.
    pub(super) deletes: bool,
    /// Whether an event shall tell what stood there before.
    pub(super) prev_kv: bool,
}

impl Interest {
    /// Whether an event of a key of the range is wanted.
    fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        }
    }

    /// Bytes of the keys that bound it.
    pub(super) fn bytes(&self) -> usize {
        let end = match &self.range.end {
            RangeEnd::Before(end) => end.len(),
            RangeEnd::Single | RangeEnd::Unbounded => 0,
        };
        self.range.start.len() + end
    }
}

/// A watch that is told events as they happen.
#[derive(Debug)]
pub(super) struct Member {
    /// Where its events go.
    pub(super) outbox: Arc<Outbox>,
    /// The first revision that it wants.
    pub(super) from: Revision,
}

/// Watches that want the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) interest: Arc<Interest>,
    pub(super) members: BTreeMap<WatchKey, Member>,
    /// While a batch is looked through: the places of the group's events in it.
    pub(super) events: Vec<usize>,
}

/// The place of a group among all.
type GroupIndex = usize;

/// All groups of a member.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Groups, and places that are free.
    all: Vec<Option<Group>>,
    free: Vec<GroupIndex>,
    by_interest: HashMap<Arc<Interest>, GroupIndex>,
    by_key: HashMap<Bytes, Vec<GroupIndex>>,
    by_range: Ranges<Vec<GroupIndex>>,
    /// Groups that want to know what stood there before.
    prev_kv: usize,
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.by_interest.is_empty()
    }

    /// Whether anybody wants to know what events have replaced.
    pub(super) fn want_previous(&self) -> bool {
        self.prev_kv > 0
    }

    /// Adds a watch to its group, which is made where there is none.
    pub(super) fn add(&mut self, key: WatchKey, interest: &Arc<Interest>, member: Member) {
        let at = match self.by_interest.get(interest) {
            Some(at) => *at,
            None => self.found(interest),
        };
        let group = self.all[at].as_mut().expect("known groups exist");
        group.members.insert(key, member);
    }

    /// Takes a watch out, if it is there. A group without watches ends.
    pub(super) fn remove(&mut self, key: WatchKey, interest: &Arc<Interest>) -> bool {
        let Some(&at) = self.by_interest.get(interest) else { return false };
        let group = self.all[at].as_mut().expect("known groups exist");
        let was_there = group.members.remove(&key).is_some();
        if group.members.is_empty() {
            self.dissolve(at);
        }
        was_there
    }

    /// Whether a watch is a member of its group.
    pub(super) fn contains(&self, key: WatchKey, interest: &Arc<Interest>) -> bool {
        let group = self.by_interest.get(interest).and_then(|at| self.all[*at].as_ref());
        group.is_some_and(|group| group.members.contains_key(&key))
    }

    fn found(&mut self, interest: &Arc<Interest>) -> GroupIndex {
        let group = Group { interest: Arc::clone(interest), members: BTreeMap::new(), events: Vec::new() };
        let at = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        self.all[at] = Some(group);
        self.by_interest.insert(Arc::clone(interest), at);
        match interest.range.end {
            RangeEnd::Single => self.by_key.entry(interest.range.start.clone()).or_default().push(at),
            RangeEnd::Before(_) | RangeEnd::Unbounded => {
                self.by_range.entry(&interest.range, Vec::new).push(at);
            }
        }
        self.prev_kv += usize::from(interest.prev_kv);
        at
    }

    fn dissolve(&mut self, at: GroupIndex) {
        let Some(Group { interest, .. }) = self.all[at].take() else { return };
        self.free.push(at);
        self.by_interest.remove(&interest);
        self.prev_kv -= usize::from(interest.prev_kv);
        let list = match interest.range.end {
            RangeEnd::Single => self.by_key.get_mut(&interest.range.start),
            RangeEnd::Before(_) | RangeEnd::Unbounded => self.by_range.get_mut(&interest.range),
        };
        let list = list.expect("a group is found by its range");
        list.retain(|other| *other != at);
        if list.is_empty() {
            match interest.range.end {
                RangeEnd::Single => drop(self.by_key.remove(&interest.range.start)),
                RangeEnd::Before(_) | RangeEnd::Unbounded => self.by_range.remove(&interest.range),
            }
        }
    }

    /// Calls `visit` with the groups that want an event.
    fn concerned(&self, event: &Event, mut visit: impl FnMut(GroupIndex, &Group)) {
        let key = &event.kv.key;
        let mut each = |list: &Vec<GroupIndex>| {
            for at in list {
                let group = self.all[*at].as_ref().expect("listed groups exist");
                if group.interest.wants(event.kind) {
                    visit(*at, group);
                }
            }
        };
        if let Some(list) = self.by_key.get(key) {
            each(list);
        }
        self.by_range.holding(key, &mut each);
    }

    /// Whether somebody wants to know what an event has replaced.
    pub(super) fn wants_previous(&self, event: &Event) -> bool {
        let mut wanted = false;
        self.concerned(event, |_, group| wanted |= group.interest.prev_kv);
        wanted
    }

    /// Takes out the groups that want some of `events`, each with the places of those that it wants; they have to be put back.
    pub(super) fn take_concerned(&mut self, events: &[Event]) -> Vec<(GroupIndex, Group)> {
        let mut found: Vec<(usize, GroupIndex)> = Vec::new();
        for (place, event) in events.iter().enumerate() {
            self.concerned(event, |at, _| found.push((place, at)));
        }
        let mut taken = Vec::new();
        for (place, at) in found {
            let group = self.all[at].as_mut().expect("concerned groups exist");
            if group.events.is_empty() {
                taken.push(at);
            }
            group.events.push(place);
        }
        let take = |at: GroupIndex| (at, self.all[at].take().expect("each is taken once"));
        taken.into_iter().map(take).collect()
    }

    /// All groups, to be put back.
    pub(super) fn take_all(&mut self) -> Vec<(GroupIndex, Group)> {
        let groups = self.all.iter_mut().enumerate();
        groups.filter_map(|(at, group)| Some((at, group.take()?))).collect()
    }

    /// Puts a group back.
    pub(super) fn put_back(&mut self, at: GroupIndex, group: Group) {
        let is_empty = group.members.is_empty();
        self.all[at] = Some(group);
        if is_empty {
            self.dissolve(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use ringfence_types::{KeyValue, LeaseId};

    use super::*;

    fn interest(range: KeyRange, deletes: bool, prev_kv: bool) -> Arc<Interest> {
        Arc::new(Interest { range, puts: true, deletes, prev_kv })
    }

    fn put(key: &'static str) -> Event {
        let kv = KeyValue {
            key: key.into(),
            create_revision: Revision(2),
            mod_revision: Revision(2),
            version: 1,
            value: Bytes::new(),
            lease: LeaseId(0),
        };
        Event { kind: EventKind::Put, kv }
    }

    #[test]
    fn events_reach_the_groups_that_want_them_and_groups_end_with_their_last_watch() {
        let outbox = Arc::new(Outbox::new(Arc::new(AtomicUsize::new(0)), Arc::default()));
        let mut groups = Groups::default();
        let interests = [
            interest(KeyRange::single("a".into()), true, false),
            interest(KeyRange::prefix("a".into()), true, false),
            interest(KeyRange::prefix("a".into()), false, true),
            interest(KeyRange::all(), true, false),
            interest(KeyRange::single("b".into()), true, false),
        ];
        for round in 0..2 {
            for (at, interest) in interests.iter().enumerate() {
                let member = Member { outbox: Arc::clone(&outbox), from: Revision(0) };
                groups.add(WatchKey(10 * round + at as u64), interest, member);
            }
        }
        let mut concerned = |events: &[Event]| -> Vec<(usize, Vec<usize>)> {
            let taken = groups.take_concerned(events);
            let mut told = Vec::new();
            for (index, mut group) in taken {
                let at = interests.iter().position(|interest| *interest == group.interest).unwrap();
                assert_eq!(group.members.len(), 2, "equal interests share a group");
                told.push((at, std::mem::take(&mut group.events)));
                groups.put_back(index, group);
            }
            told.sort();
            told
        };
        let deletion = Event::deletion("a".into(), Revision(3));
        assert_eq!(
            concerned(&[put("a"), put("ab"), deletion]),
            [(0, vec![0, 2]), (1, vec![0, 1, 2]), (2, vec![0, 1]), (3, vec![0, 1, 2])]
        );
        assert_eq!(concerned(&[put("c")]), [(3, vec![0])]);
        assert!(groups.wants_previous(&put("a")) && !groups.wants_previous(&put("b")));
        for round in 0..2 {
            for (at, interest) in interests.iter().enumerate() {
                assert!(groups.remove(WatchKey(10 * round + at as u64), interest));
            }
        }
        assert!(groups.is_empty() && !groups.want_previous() && groups.by_key.is_empty());
        assert!(groups.take_concerned(&[put("a")]).is_empty());
    }
}
