//! Questions: ranges of keys, and how fresh their answers must be.

use std::time::Duration;

use crate::key::{KeyRange, Revision};
use crate::token::CausalToken;

/// In which order a range's keys are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// As they lie in the store: by key.
    #[default]
    None,
    /// From the smallest up.
    Ascend,
    /// From the largest down.
    Descend,
}

/// By what a range's keys are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The number of changes since creation.
    Version,
    /// The revision of creation.
    Create,
    /// The revision of the last change.
    Mod,
    /// The value.
    Value,
}

/// A question for a range of keys, with all that etcd's RangeRequest can ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeQuery {
    /// The keys asked for.
    pub range: KeyRange,
    /// Largest number of keys in the answer; 0 for no limit.
    pub limit: u64,
    /// The state asked about; `None` for the newest.
    pub revision: Option<Revision>,
    /// The order of the answer.
    pub sort_order: SortOrder,
    /// What the order is by.
    pub sort_target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return the number of keys alone.
    pub count_only: bool,
    /// Leave out keys last changed before this revision; 0 for no bound.
    pub min_mod_revision: Revision,
    /// Leave out keys last changed after this revision; 0 for no bound.
    pub max_mod_revision: Revision,
    /// Leave out keys created before this revision; 0 for no bound.
    pub min_create_revision: Revision,
    /// Leave out keys created after this revision; 0 for no bound.
    pub max_create_revision: Revision,
}

impl RangeQuery {
    /// The plain question for everything in `range`, newest state, by key.
    #[must_use]
    pub fn new(range: KeyRange) -> RangeQuery {
        RangeQuery {
            range,
            limit: 0,
            revision: None,
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod_revision: Revision(0),
            max_mod_revision: Revision(0),
            min_create_revision: Revision(0),
            max_create_revision: Revision(0),
        }
    }
}

/// How fresh the state must be that a read sees (DESIGN, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// Sees every write acknowledged before the read began: by the leader lease where it is young enough, else by a
    /// quorum round.
    #[default]
    Linearizable,
    /// The same, always by a quorum round: trusts no clock.
    Quorum,
    /// At least this revision, on whatever member is asked.
    Revision(Revision),
    /// At least this position, which tells of leases, guards and sessions too; refused by members of another cluster.
    Token(CausalToken),
    /// At most this much older than now.
    MaxAge(Duration),
    /// What the asked member has.
    Any,
}
