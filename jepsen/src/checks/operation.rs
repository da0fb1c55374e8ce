//! The history as operations, each with its beginning and its end.

use std::collections::HashMap;

use ringfence_checker::{Bar, Event, Function, Kind};

/// What a client asked for, and what came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) invocation: &'a Event,
    /// None: it never ended.
    pub(super) completion: Option<&'a Event>,
}

/// All operations, in the order in which they began.
pub(super) fn all(history: &[Event]) -> Vec<Operation<'_>> {
    let mut operations: Vec<Operation<'_>> = Vec::with_capacity(history.len() / 2);
    let mut open = HashMap::new();
    for event in history {
        if event.kind == Kind::Invoke {
            open.insert(event.process, operations.len());
            operations.push(Operation { invocation: event, completion: None });
        } else if let Some(at) = open.remove(&event.process) {
            operations[at].completion = Some(event);
        }
    }
    operations
}

impl Operation<'_> {
    pub(super) fn start(&self) -> u64 {
        self.invocation.time
    }

    /// When it was answered as done; none: it was not.
    pub(super) fn done(&self) -> Option<u64> {
        self.completion.filter(|event| event.kind == Kind::Ok).map(|event| event.time)
    }

    /// The node that was asked.
    pub(super) fn node(&self) -> Option<u64> {
        self.completion.and_then(|event| event.node).or(self.invocation.node)
    }

    /// Whether it changes something where it succeeds.
    pub(super) fn is_write(&self) -> bool {
        match self.invocation.f {
            Function::Read | Function::ReadAll | Function::Look | Function::Watch => false,
            Function::Txn => self.invocation.value.as_array().is_some_and(|steps| {
                steps.iter().any(|step| step.get(0).and_then(serde_json::Value::as_str) == Some("append"))
            }),
            Function::Write
            | Function::WriteAll
            | Function::Cas
            | Function::Delete
            | Function::Add
            | Function::Transfer
            | Function::Acquire
            | Function::Release
            | Function::Grant
            | Function::Renew => true,
        }
    }

    /// Whether it cannot be answered without a majority: a write, or a read that asked for the newest.
    pub(super) fn needs_majority(&self) -> bool {
        self.is_write() || self.invocation.freshness.as_deref().is_none_or(|freshness| freshness == "quorum")
    }

    /// As a bar of the picture of a violation.
    pub(super) fn bar(&self) -> Bar {
        let function = serde_json::to_value(self.invocation.f).unwrap_or_default();
        let function = function.as_str().unwrap_or_default().to_owned();
        let key = self.invocation.key.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
        Bar {
            process: self.invocation.process,
            start: self.start(),
            end: self.completion.map(|event| event.time),
            label: format!("{function}{key}"),
            kind: self.completion.map_or(Kind::Invoke, |event| event.kind),
            node: self.node(),
            culprit: true,
        }
    }
}
