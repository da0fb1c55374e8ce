//! An operation as a workload draws it, and what came of it.

use ringfence_checker::Function;
use serde_json::Value;

use crate::client::Freshness;

/// An operation before it is done: what the history tells of it when it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// What.
    pub f: Function,
    /// To which key, where it is one.
    pub key: Option<String>,
    /// With what; the form is the function's.
    pub value: Value,
    /// How fresh a read must be.
    pub freshness: Freshness,
}

impl Operation {
    /// An operation on one key.
    pub fn on(key: impl Into<String>, f: Function, value: impl Into<Value>) -> Operation {
        Operation { f, key: Some(key.into()), value: value.into(), freshness: Freshness::Linearizable }
    }

    /// An operation that is about no single key.
    pub fn over_all(f: Function, value: impl Into<Value>) -> Operation {
        Operation { f, key: None, value: value.into(), freshness: Freshness::Linearizable }
    }

    /// The same read with another freshness.
    #[must_use]
    pub fn as_fresh_as(self, freshness: Freshness) -> Operation {
        Operation { freshness, ..self }
    }

    /// Its key.
    ///
    /// # Panics
    /// Where its workload draws it without one.
    #[must_use]
    pub fn key(&self) -> &str {
        self.key.as_deref().expect("the workload draws this operation with a key")
    }
}

/// What came of an operation that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The value that the history tells.
    pub value: Value,
    /// Of a conditional one: whether its condition held.
    pub applied: Option<bool>,
    /// The store's revision in the answer; 0 where the answer tells none that says something about it.
    pub revision: u64,
}

impl Done {
    /// Done without a condition.
    pub fn new(value: impl Into<Value>, revision: u64) -> Done {
        Done { value: value.into(), applied: None, revision }
    }

    /// Done, or seen not to be possible.
    pub fn conditional(value: impl Into<Value>, applied: bool, revision: u64) -> Done {
        Done { value: value.into(), applied: Some(applied), revision }
    }
}
