//! Histories: JSON lines in the form that Jepsen's, Elle's and Porcupine's tools can be fed with.
//!
//! ```json
//! {"process":0,"type":"invoke","f":"cas","key":"r3","value":[7,9],"time":1200300}
//! {"process":0,"type":"ok","f":"cas","key":"r3","value":[7,9],"applied":false,"time":1900300,"node":2,"revision":17}
//! ```
//!
//! `fail` means: surely not applied. `info`, and an operation that never ended: perhaps applied, at any time after its
//! invocation. Intervals are closed, so operations that touch in time are concurrent. A process that had an `info` goes on
//! under a new number.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is known of an operation at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It was done.
    Ok,
    /// It was surely not done.
    Fail,
    /// Nobody can tell.
    Info,
}

/// What an operation does; the form of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    /// Reads one key. Value: null on invocation; what it held on `ok`, null where it was absent.
    Read,
    /// Writes one key. Value: a number that no other write of the history has.
    Write,
    /// Writes several keys at one revision. Value: an object of the keys' values, each as that of a write.
    WriteAll,
    /// Compare and set of one key. Value: `[old, new]`; `applied` on `ok` says whether the compare held.
    Cas,
    /// Deletes one key. Value: null.
    Delete,
    /// A transaction of appends and reads, in Elle's form: `[["append","k",1],["r","k",[1,2]]]`.
    Txn,
    /// Adds an element to a set (value: the element), or an amount to a counter (value: the amount).
    Add,
    /// Reads a whole set (value on `ok`: all elements) or all accounts (value on `ok`: an object of balances).
    ReadAll,
    /// Moves money. Value: `{"from":"a","to":"b","amount":3}`; `applied` says whether there was enough.
    Transfer,
    /// Takes a lock. Value on `ok`: `{"token":7,"key":"l/5f"}`, the fencing token and the key that holds the lock; `revision`
    /// is one at which it does.
    Acquire,
    /// Gives a lock back. Value: the same.
    Release,
    /// Grants the lease of this key. Value: how long it lasts, in seconds.
    Grant,
    /// Lets the lease of this key begin anew. Value: how long it lasts; `applied` on `ok` says whether it was there.
    Renew,
    /// Looks whether the lease of this key is there: `applied` on `ok`. Value: how long it lasts.
    Look,
    /// Watches this key, or all keys that begin with it where it ends in `/`, for a while. Value: `{"from":7}`, the first
    /// revision, 0 for what happens from now on. On `ok`: `{"from":7,"to":12,"events":[[9,"k",5],[11,"k",null]]}`, all that
    /// happened from one revision to another, a deletion with null. With `"compacted":20` it ended where history is gone below that
    /// revision, with `"broken":"why"` since the client was told what no watch can tell.
    Watch,
}

impl Function {
    /// Its name, as it stands in a history.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Function::Read => "read",
            Function::Write => "write",
            Function::WriteAll => "write-all",
            Function::Cas => "cas",
            Function::Delete => "delete",
            Function::Txn => "txn",
            Function::Add => "add",
            Function::ReadAll => "read-all",
            Function::Transfer => "transfer",
            Function::Acquire => "acquire",
            Function::Release => "release",
            Function::Grant => "grant",
            Function::Renew => "renew",
            Function::Look => "look",
            Function::Watch => "watch",
        }
    }
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Who: processes do one thing at a time.
    pub process: u64,
    /// What is known.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What is done.
    pub f: Function,
    /// To which key, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// With what, or what came of it.
    #[serde(default)]
    pub value: Value,
    /// When, in nanoseconds since the run began, on a clock that no fault touches.
    pub time: u64,
    /// On `ok` of a conditional operation: whether its condition held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<bool>,
    /// The node that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// How fresh a read asked to be; absent: linearizable. `any`, `quorum`, `max-age=500ms`, `revision=7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<String>,
    /// The store's revision in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// On `fail` and `info`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Events in the order in which they happened.
pub type History = Vec<Event>;

/// Reads a history.
///
/// # Errors
/// As the reader's, and with the number of the line that is none.
pub fn read(mut reader: impl BufRead) -> io::Result<History> {
    let mut history = Vec::new();
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let event = serde_json::from_str(&line)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {error}")))?;
        history.push(event);
    }
    Ok(history)
}

/// Writes one event as a line.
///
/// # Errors
/// As the writer's.
pub fn write(writer: &mut impl Write, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, event)?;
    writer.write_all(b"\n")
}
