//! What a client is asked to do: the part of the etcd API that every workload is made of, in a form that all kinds of clients
//! can carry out.

use super::{Failure, Right};

/// How fresh the answer to a read must be, as far as clients can ask for it today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// It sees every write acknowledged before the read began.
    #[default]
    Linearizable,
    /// What the asked node has: etcd's `serializable`.
    Any,
}

impl Freshness {
    /// As a history writes it: nothing for the default.
    #[must_use]
    pub fn in_history(self) -> Option<String> {
        match self {
            Freshness::Linearizable => None,
            Freshness::Any => Some("any".to_owned()),
        }
    }
}

/// Which keys are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// One.
    One(String),
    /// All that begin so.
    Prefix(String),
}

impl Keys {
    /// Whether a key is one of them.
    #[must_use]
    pub fn hold(&self, key: &str) -> bool {
        match self {
            Keys::One(one) => key == one,
            Keys::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

/// What a compare demands of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// It exists and has this value.
    Value(String),
    /// It was last changed at this revision; 0: it does not exist.
    ChangedAt(u64),
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Reads keys.
    Get(Keys),
    /// Stores a value under a key.
    Put(String, String),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Reads keys.
    Get(Keys, Freshness),
    /// Stores a value under a key.
    Put(String, String),
    /// Deletes a key.
    Delete(String),
    /// Where all keys are as demanded, does all steps at one revision; else nothing.
    Txn {
        /// What is demanded, by key.
        demands: Vec<(String, Demand)>,
        /// What is done then.
        steps: Vec<Step>,
    },
    /// Something about leases and locks.
    Right(Right),
}

impl Request {
    /// Whether it can change anything.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Request::Get(..) => false,
            Request::Put(..) | Request::Delete(..) => true,
            Request::Txn { steps, .. } => steps.iter().any(|step| matches!(step, Step::Put(..))),
            Request::Right(right) => right.changes(),
        }
    }

    /// A transaction that reads single keys at one revision.
    pub fn get_all<'a>(keys: impl IntoIterator<Item = &'a str>) -> Request {
        let steps = keys.into_iter().map(|key| Step::Get(Keys::One(key.to_owned()))).collect();
        Request::Txn { demands: Vec::new(), steps }
    }
}

/// A key that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The revision at which it was last changed.
    pub changed_at: u64,
}

impl Found {
    /// A key as the protocol tells it; the harness stores text alone.
    pub(super) fn new(key: &[u8], value: &[u8], mod_revision: i64) -> Result<Found, Failure> {
        let text = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).map(str::to_owned);
            text.map_err(|_| Failure::indefinite("the answer holds bytes that are no text"))
        };
        let changed_at = u64::try_from(mod_revision)
            .map_err(|_| Failure::indefinite(format!("the answer holds the revision {mod_revision}")))?;
        Ok(Found { key: text(key)?, value: text(value)?, changed_at })
    }
}

/// What came of a request that was carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The store's revision: after the change, or at the read.
    pub revision: u64,
    /// Of a transaction: whether all keys were as demanded; of a deletion: whether there was a key. True for everything else.
    pub held: bool,
    /// What each read found, in the order of the reads.
    pub got: Vec<Vec<Found>>,
}

impl Answer {
    /// What the only key of the read at this place was found to be; none: it does not exist, or the read was not made.
    #[must_use]
    pub fn one(&self, place: usize) -> Option<&Found> {
        self.got.get(place).and_then(|found| found.first())
    }
}

/// The first text behind all that begin with `prefix`, as etcd's ranges are written; prefixes end in plain ASCII here.
pub(super) fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let last = end.pop().expect("the workloads' prefixes are not empty");
    end.push(char::from_u32(u32::from(last) + 1).expect("an ASCII character has a successor"));
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_something_counts_as_a_change() {
        let put = Step::Put("a".to_owned(), "1".to_owned());
        let txn = |steps| Request::Txn { demands: Vec::new(), steps };
        assert!(Request::Put("a".to_owned(), "1".to_owned()).changes());
        assert!(Request::Delete("a".to_owned()).changes());
        assert!(txn(vec![Step::Get(Keys::One("b".to_owned())), put]).changes());
        assert!(!Request::get_all(["a", "b"]).changes());
        assert!(!Request::Get(Keys::Prefix("a".to_owned()), Freshness::Any).changes());
    }

    #[test]
    fn a_prefix_ends_where_the_next_text_begins() {
        assert_eq!(prefix_end("set/7/"), "set/70");
    }

    #[test]
    fn what_the_harness_never_stores_is_no_answer() {
        assert!(Found::new(b"k", b"\xff", 1).is_err());
        assert!(Found::new(b"k", b"v", -1).is_err());
        let found = Found { key: "k".to_owned(), value: "v".to_owned(), changed_at: 1 };
        assert_eq!(Found::new(b"k", b"v", 1), Ok(found));
    }
}
