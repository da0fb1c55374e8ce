//! Ranges, with all that etcd's RangeRequest can ask.

use std::cmp::Ordering;

use bytes::Bytes;
use ringfence_types::{
    KeyRange, KeyValue, RangeEnd, RangeQuery, RangeReply, Rejection, Revision, SortOrder, SortTarget,
};

use crate::budget::Budget;
use crate::error::{ReadError, StoreError};
use crate::sources::{Changes, Found, Sources};
use crate::state::State;
use crate::warm::WARM_KEYS_MIN;

/// Reads the rows of one state, and the changes of the command that is being carried out on it, if any.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub sources: &'a Sources,
    pub state: &'a State,
    pub changes: Option<&'a Changes>,
}

/// A key that a range has selected; its value is fetched only if the answer needs it.
struct Selected {
    key: Bytes,
    found: Found,
}

impl Reader<'_> {
    /// Answers a range, within a budget.
    pub fn range(&self, query: &RangeQuery, budget: &Budget) -> Result<RangeReply, ReadError> {
        let at = self.resolve(query.revision)?;
        // A command that is carried out takes no time for what others may want.
        let warms = self.changes.is_none()
            && query.range.end != RangeEnd::Single
            && !(query.count_only || query.keys_only)
            && at.revision >= self.sources.base.state.revision;
        if warms {
            self.sources.warm_up(&query.range)?;
        }
        if query.count_only {
            let mut count = 0;
            at.walk(&query.range, |_| {
                count += 1;
                Ok(())
            })?;
            return Ok(RangeReply { kvs: Vec::new(), more: false, count });
        }
        let limit =
            if query.limit == 0 { usize::MAX } else { usize::try_from(query.limit).unwrap_or(usize::MAX) };
        // A limit may cut the walk short only if what comes first in it comes first in the answer. Counting goes on.
        let selected_max = if takes_first(query) { limit } else { usize::MAX };
        let mut count = 0;
        let mut cut = false;
        // What is selected may be far more than what is answered.
        let working = budget.anew();
        let mut within = Ok(());
        let mut selected = Vec::new();
        at.walk(&query.range, |place| {
            count += 1;
            if within.is_err() || selected.len() >= selected_max {
                cut = true;
                return Ok(());
            }
            let found = place.found();
            if passes_filters(query, &found) {
                let key = place.key();
                within = working.spend(&key, &Bytes::new());
                selected.push(Selected { key, found });
            }
            Ok(())
        })?;
        within?;
        if warms && count >= WARM_KEYS_MIN {
            self.sources.base.warm.asked(&query.range);
        }
        self.sort(query, &mut selected, budget)?;
        let more = cut || selected.len() > limit;
        selected.truncate(limit);
        let mut kvs = Vec::with_capacity(selected.len());
        for item in selected {
            let kv = self.key_value(item, query.keys_only)?;
            budget.spend(&kv.key, &kv.value)?;
            kvs.push(kv);
        }
        Ok(RangeReply { kvs, more, count })
    }

    /// Calls `visit` at every key of `range` that exists.
    pub fn walk(
        &self,
        range: &KeyRange,
        mut visit: impl FnMut(&dyn Place) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.at_newest().walk(range, &mut visit)
    }

    fn at_newest(&self) -> At<'_> {
        At { reader: self, revision: self.state.revision, changes: self.changes }
    }

    /// The state that a question is about. A command sees its own changes only in the newest state.
    fn resolve(&self, revision: Option<Revision>) -> Result<At<'_>, Rejection> {
        let named = revision.is_some_and(|revision| revision > Revision(0));
        let revision = self.state.readable(revision)?;
        Ok(At { reader: self, revision, changes: if named { None } else { self.changes } })
    }

    fn sort(&self, query: &RangeQuery, selected: &mut [Selected], budget: &Budget) -> Result<(), ReadError> {
        if query.sort_target == SortTarget::Value {
            // Values are compared, so all of them are fetched.
            let working = budget.anew();
            for item in selected.iter_mut() {
                let value = self.sources.value(&item.key, &item.found)?;
                working.spend(&item.key, &value)?;
                item.found.value = Some(value);
            }
        }
        let compare = |a: &Selected, b: &Selected| -> Ordering {
            match query.sort_target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.found.row.version.cmp(&b.found.row.version),
                SortTarget::Create => a.found.row.create_revision.cmp(&b.found.row.create_revision),
                SortTarget::Mod => a.found.row.stamp.revision.cmp(&b.found.row.stamp.revision),
                SortTarget::Value => a.found.value.cmp(&b.found.value),
            }
        };
        // Stable sorts: keys that are equal in the field stay in the order of their keys.
        match (query.sort_order, query.sort_target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
            (SortOrder::None | SortOrder::Ascend, _) => selected.sort_by(compare),
            (SortOrder::Descend, _) => selected.sort_by(|a, b| compare(b, a)),
        }
        Ok(())
    }

    fn key_value(&self, item: Selected, keys_only: bool) -> Result<KeyValue, StoreError> {
        let row = item.found.row;
        let value =
            if keys_only { Bytes::new() } else { self.sources.value_out_of(&item.key, item.found)? };
        Ok(row.key_value(item.key, value))
    }
}

/// A key at which a walk stands.
pub(crate) trait Place {
    /// The key.
    fn key(&self) -> Bytes;
    /// Its version.
    fn found(&self) -> Found;
}

/// One revision of a reader's state.
struct At<'a> {
    reader: &'a Reader<'a>,
    revision: Revision,
    changes: Option<&'a Changes>,
}

impl At<'_> {
    fn walk(
        &self,
        range: &KeyRange,
        mut visit: impl FnMut(&dyn Place) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sources = self.reader.sources;
        if range.end == RangeEnd::Single {
            // The most frequent question, answered by one search a source.
            let found = sources.newest(self.changes, &range.start, self.revision)?;
            if let Some(found) = found.filter(|found| !found.row.deleted) {
                visit(&Single { key: &range.start, found })?;
            }
            return Ok(());
        }
        if range.is_empty() {
            return Ok(());
        }
        let mut scan = sources.scan(self.changes, range, None, self.revision)?;
        while scan.step()? {
            visit(&scan)?;
        }
        Ok(())
    }
}

struct Single<'a> {
    key: &'a Bytes,
    found: Found,
}

impl Place for Single<'_> {
    fn key(&self) -> Bytes {
        self.key.clone()
    }

    fn found(&self) -> Found {
        self.found.clone()
    }
}

impl Place for crate::sources::Scan<'_> {
    fn key(&self) -> Bytes {
        crate::sources::Scan::key(self)
    }

    fn found(&self) -> Found {
        crate::sources::Scan::found(self)
    }
}

/// Whether the first keys of a walk are the first of the answer: no filter, and the order of the keys.
fn takes_first(query: &RangeQuery) -> bool {
    let unfiltered = [
        query.min_mod_revision,
        query.max_mod_revision,
        query.min_create_revision,
        query.max_create_revision,
    ]
    .iter()
    .all(|bound| bound.0 == 0);
    unfiltered && query.sort_target == SortTarget::Key && query.sort_order != SortOrder::Descend
}

fn passes_filters(query: &RangeQuery, found: &Found) -> bool {
    let within = |revision: Revision, min: Revision, max: Revision| {
        (min.0 == 0 || revision >= min) && (max.0 == 0 || revision <= max)
    };
    within(found.row.stamp.revision, query.min_mod_revision, query.max_mod_revision)
        && within(found.row.create_revision, query.min_create_revision, query.max_create_revision)
}
