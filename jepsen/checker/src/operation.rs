//! Operations: an invocation and what came of it, in one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use serde_json::Value;

use crate::freshness::Freshness;
use crate::history::{Event, Function, Kind};
use crate::verdict::Bar;
use crate::words::count;

/// A label in a picture shows at most this many elements of a list, the last ones.
const LABEL_ELEMENTS_MAX: usize = 6;

/// A history that no client can have seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event}: {reason}")]
pub struct Malformed {
    /// The event's place in the history, from 0.
    pub event: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'h> {
    /// The place of its invocation in the history.
    pub event: usize,
    /// Who.
    pub process: u64,
    /// What.
    pub f: Function,
    /// To which key.
    pub key: Option<&'h str>,
    /// What it was asked with.
    pub asked: &'h Value,
    /// What came of it, where it is [`Kind::Ok`].
    pub answer: Option<&'h Value>,
    /// How it ended; [`Kind::Invoke`] where it did not.
    pub kind: Kind,
    /// When it was invoked, in nanoseconds since the run began.
    pub start: u64,
    /// When the client's call ended. An [`Kind::Info`] may take effect later than that.
    pub end: Option<u64>,
    /// Whether its condition held, where it is ok and has one.
    pub applied: Option<bool>,
    /// The store's revision in the answer.
    pub revision: Option<u64>,
    /// The node that was asked.
    pub node: Option<u64>,
    /// How fresh its answer had to be.
    pub freshness: Freshness,
}

impl<'h> Operation<'h> {
    /// When it was acknowledged: by then its effect was there. None where it surely or perhaps had none.
    pub fn acknowledged(&self) -> Option<u64> {
        self.end.filter(|_| self.kind == Kind::Ok)
    }

    /// Whether it was acknowledged before `time`. Intervals are closed: touching is not before.
    pub fn acknowledged_before(&self, time: u64) -> bool {
        self.acknowledged().is_some_and(|end| end < time)
    }

    /// Whether it may have had an effect: all but what surely failed.
    pub fn possible(&self) -> bool {
        self.kind != Kind::Fail
    }

    /// Whether it changed keys, for sure, and so made a revision of its own.
    pub fn made_revision(&self) -> bool {
        self.kind == Kind::Ok
            && match self.f {
                // What leases and locks change beside keys is for their own checks.
                Function::Read
                | Function::ReadAll
                | Function::Acquire
                | Function::Release
                | Function::Grant
                | Function::Renew
                | Function::Look
                | Function::Watch => false,
                Function::Write | Function::WriteAll | Function::Add => true,
                Function::Cas | Function::Delete | Function::Transfer => self.applied == Some(true),
                Function::Txn => appends(self.asked),
            }
    }

    /// The key that it must have.
    ///
    /// # Errors
    /// If it has none.
    pub fn key(&self) -> Result<&'h str, Malformed> {
        self.key.ok_or_else(|| self.malformed(format!("a {} names no key", self.f.name())))
    }

    /// Says what is wrong with this operation.
    pub fn malformed(&self, reason: impl Into<String>) -> Malformed {
        Malformed { event: self.event, reason: reason.into() }
    }

    /// This operation in a picture.
    pub fn bar(&self, culprit: bool) -> Bar {
        Bar {
            process: self.process,
            start: self.start,
            end: self.end,
            label: self.to_string(),
            kind: self.kind,
            node: self.node,
            culprit,
        }
    }

    /// The node that was asked, in a sentence.
    pub fn place(&self) -> String {
        self.node.map_or_else(|| "an unnamed node".to_owned(), |node| format!("node {node}"))
    }

    /// This operation in a sentence: `read → 7 from node 2`.
    pub fn in_words(&self) -> String {
        match self.node {
            Some(node) if self.made_revision() => format!("{self} through node {node}"),
            Some(node) => format!("{self} from node {node}"),
            None => self.to_string(),
        }
    }
}

/// Pairs invocations with what came of them, in the order of the invocations.
///
/// # Errors
/// If a process does two things at once, ends what it never began, or answers without what its form demands.
pub fn operations(history: &[Event]) -> Result<Vec<Operation<'_>>, Malformed> {
    let mut operations: Vec<Operation<'_>> = Vec::with_capacity(history.len() / 2 + 1);
    let mut open: HashMap<u64, usize> = HashMap::new();
    for (index, event) in history.iter().enumerate() {
        let malformed = |reason: String| Malformed { event: index, reason };
        match (event.kind, open.entry(event.process)) {
            (Kind::Invoke, Entry::Vacant(slot)) => {
                slot.insert(operations.len());
                operations.push(invoked(index, event)?);
            }
            (Kind::Invoke, Entry::Occupied(_)) => {
                return Err(malformed(format!("process {} does two things at once", event.process)));
            }
            (_, Entry::Occupied(slot)) => end(&mut operations[slot.remove()], event).map_err(malformed)?,
            (_, Entry::Vacant(_)) => {
                return Err(malformed(format!("process {} ends what it never began", event.process)));
            }
        }
    }
    Ok(operations)
}

fn invoked(index: usize, event: &Event) -> Result<Operation<'_>, Malformed> {
    let freshness =
        Freshness::parse(event.freshness.as_deref()).map_err(|reason| Malformed { event: index, reason })?;
    Ok(Operation {
        event: index,
        process: event.process,
        f: event.f,
        key: event.key.as_deref(),
        asked: &event.value,
        answer: None,
        kind: Kind::Invoke,
        start: event.time,
        end: None,
        applied: None,
        revision: None,
        node: event.node,
        freshness,
    })
}

fn end<'h>(operation: &mut Operation<'h>, event: &'h Event) -> Result<(), String> {
    if event.f != operation.f || event.key.as_deref().is_some_and(|key| Some(key) != operation.key) {
        return Err(format!("process {} ends something else than it began", event.process));
    }
    if event.time < operation.start {
        return Err(format!("process {} ends before it began", event.process));
    }
    let conditional =
        matches!(event.f, Function::Cas | Function::Transfer | Function::Renew | Function::Look);
    if event.kind == Kind::Ok && conditional && event.applied.is_none() {
        return Err(format!("an ok {} does not say whether it was applied", event.f.name()));
    }
    operation.kind = event.kind;
    operation.end = Some(event.time);
    operation.node = event.node.or(operation.node);
    if event.kind == Kind::Ok {
        operation.answer = Some(&event.value);
        operation.applied = event.applied;
        operation.revision = event.revision;
    }
    Ok(())
}

fn appends(txn: &Value) -> bool {
    let first_word = |micro: &Value| micro.get(0).and_then(Value::as_str) == Some("append");
    txn.as_array().is_some_and(|micros| micros.iter().any(first_word))
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |index: usize| self.asked.get(index).unwrap_or(&Value::Null);
        match self.f {
            Function::Read | Function::ReadAll => {
                f.write_str(self.f.name())?;
                if let Some(answer) = self.answer {
                    write!(f, " → {}", Short(answer))?;
                }
            }
            Function::Write | Function::WriteAll | Function::Add => {
                write!(f, "{} {}", self.f.name(), Short(self.asked))?;
            }
            Function::Cas => write!(f, "cas {} to {}", at(0), at(1))?,
            Function::Delete => f.write_str("delete")?,
            Function::Acquire | Function::Release => {
                f.write_str(self.f.name())?;
                let token = self.answer.unwrap_or(self.asked).get("token");
                if let Some(token) = token {
                    write!(f, " with token {token}")?;
                }
            }
            Function::Grant | Function::Renew | Function::Look => {
                write!(f, "{} of {} s", self.f.name(), Short(self.asked))?;
            }
            Function::Watch => write!(f, "{}", Watching(self))?,
            Function::Txn => write!(f, "{}", Micros(self.answer.unwrap_or(self.asked)))?,
            Function::Transfer => {
                let part = |part: &str| self.asked.get(part).map(Value::to_string).unwrap_or_default();
                write!(f, "transfer {} {}→{}", part("amount"), part("from"), part("to"))?;
            }
        }
        match self.applied {
            Some(false) if matches!(self.f, Function::Renew | Function::Look) => f.write_str(", gone"),
            Some(false) => f.write_str(", refused"),
            _ => Ok(()),
        }
    }
}

/// A value, shortened to what fits a picture.
struct Short<'v>(&'v Value);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Array(elements) if elements.len() > LABEL_ELEMENTS_MAX => {
                let shown = &elements[elements.len() - LABEL_ELEMENTS_MAX..];
                let shown: Vec<String> = shown.iter().map(Value::to_string).collect();
                write!(f, "[{} more, {}]", elements.len() - LABEL_ELEMENTS_MAX, shown.join(","))
            }
            Value::Null => f.write_str("nothing"),
            other => write!(f, "{other}"),
        }
    }
}

/// A watch: `watch of k/ from 7 → 2 events up to 12`.
struct Watching<'o, 'h>(&'o Operation<'h>);

impl fmt::Display for Watching<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.answer.unwrap_or(self.0.asked);
        write!(f, "watch of {} from {}", self.0.key.unwrap_or_default(), Short(&told["from"]))?;
        if let Some(events) = told["events"].as_array() {
            write!(f, " → {} up to {}", count(events.len(), "event"), Short(&told["to"]))?;
        }
        Ok(())
    }
}

/// A transaction's parts: `append x 1, r y → [1,2]`.
struct Micros<'v>(&'v Value);

impl fmt::Display for Micros<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |micro: &Value, index: usize| match micro.get(index) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => Short(other).to_string(),
            None => String::new(),
        };
        for (index, micro) in self.0.as_array().into_iter().flatten().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let arrow = if word(micro, 0) == "r" { "→ " } else { "" };
            write!(f, "{comma}{} {} {arrow}{}", word(micro, 0), word(micro, 1), word(micro, 2))?;
        }
        Ok(())
    }
}
