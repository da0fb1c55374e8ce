//! Clients: they write and read registers through any node, as the floors above consensus do, and write down what they
//! saw.
//!
//! A client is a row of processes: each does one thing at a time, at its own pace whatever the answers are, and one that
//! cannot tell what became of a write is followed by another. Every value is written once. Keys are given up after a
//! while, since a history of one key is hard to check when it is long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_checker::{Event, Function, Kind};
use ringfence_consensus::rt::{self, simulated as executor};
use ringfence_consensus::{Node, ProposeError};
use ringfence_types::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, Freshness, KeyRange, LeaseId,
    Operation, Put, PutLease, PutValue, RangeQuery, Reply, Revision, Txn,
};
use serde_json::{Value, json};

use crate::world::{CLIENTS, World};

/// Operations on one key before it is given up.
const KEY_OPERATIONS: u64 = 300;
/// Keys in use at once.
const KEYS: u64 = 5;
/// What a client gives an operation.
const PATIENCE: Duration = Duration::from_secs(4);
/// What the client's node gives it: an answer can still reach the client.
const DEADLINE: Duration = Duration::from_secs(3);

/// What all clients of a run share.
pub struct Clients {
    world: Arc<World>,
    history: Mutex<Vec<Event>>,
    stopping: AtomicBool,
    processes: AtomicU64,
    values: AtomicU64,
    operations: AtomicU64,
    /// Mean pause of a process between two operations.
    pause: Duration,
}

/// What one operation is.
#[derive(Debug, Clone)]
enum Action {
    Read(Freshness),
    Write(u64),
    Cas(u64, u64),
    Delete,
}

/// What an operation came to.
enum Ending {
    /// The value, whether the condition held, and the revision of the answer.
    Ok(Value, Option<bool>, Revision),
    Fail(String),
    Info(String),
}

impl Clients {
    /// Clients that do nothing yet.
    #[must_use]
    pub fn new(world: Arc<World>, pause: Duration) -> Arc<Clients> {
        Arc::new(Clients {
            world,
            history: Mutex::default(),
            stopping: AtomicBool::new(false),
            processes: AtomicU64::new(0),
            values: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            pause,
        })
    }

    /// Starts so many clients.
    pub fn start(self: &Arc<Self>, count: usize) -> Vec<rt::JoinHandle<()>> {
        (0..count).map(|_| executor::spawn_on(CLIENTS, self.clone().work())).collect()
    }

    /// Lets each client end its operation, and begin no other.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// What was seen.
    #[must_use]
    pub fn history(&self) -> Vec<Event> {
        self.history.lock().clone()
    }

    /// The keys that are written and read now.
    #[must_use]
    pub fn keys_in_use(&self) -> Vec<String> {
        let turn = self.operations.load(Ordering::Relaxed) / (KEYS * KEY_OPERATIONS);
        (turn * KEYS..(turn + 1) * KEYS).map(|number| format!("r{number}")).collect()
    }

    async fn work(self: Arc<Self>) {
        let mut process = self.processes.fetch_add(1, Ordering::Relaxed);
        let mut last_read = None;
        while !self.stopping.load(Ordering::Relaxed) {
            let pause = self.pause.as_nanos() as u64;
            rt::sleep(Duration::from_nanos(executor::random_below(2 * pause))).await;
            let keys = self.keys_in_use();
            let key = keys[executor::random_below(KEYS) as usize].clone();
            self.operations.fetch_add(1, Ordering::Relaxed);
            let action = self.draw(&mut last_read);
            if self.operate(process, &key, action, &mut last_read).await.is_none() {
                process = self.processes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Reads a key once through a node, as the last thing that anybody does.
    pub async fn read_through(self: &Arc<Self>, number: usize, key: &str) {
        let process = self.processes.fetch_add(1, Ordering::Relaxed);
        self.record(process, key, &Action::Read(Freshness::Linearizable), number).await;
    }

    fn draw(&self, last_read: &mut Option<(u64, Revision)>) -> Action {
        let expected = last_read.map(|(value, _)| value);
        match executor::random_below(100) {
            0..30 => Action::Read(Freshness::Linearizable),
            30..37 => Action::Read(Freshness::Quorum),
            37..42 => Action::Read(Freshness::Any),
            42..47 => Action::Read(Freshness::MaxAge(Duration::from_millis(executor::random_below(2_000)))),
            47..52 => {
                Action::Read(last_read.map_or(Freshness::Linearizable, |(_, at)| Freshness::Revision(at)))
            }
            52..78 => Action::Write(self.next_value()),
            78..95 => Action::Cas(expected.unwrap_or(0), self.next_value()),
            _ => Action::Delete,
        }
    }

    fn next_value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// One operation on a drawn node. None where nobody can tell what became of it.
    async fn operate(
        self: &Arc<Self>,
        process: u64,
        key: &str,
        action: Action,
        last_read: &mut Option<(u64, Revision)>,
    ) -> Option<()> {
        let number = 1 + executor::random_below(self.world.machines.len() as u64) as usize;
        match self.record(process, key, &action, number).await {
            Ending::Ok(value, _, revision) => {
                if let (Action::Read(_), Some(value)) = (&action, value.as_u64()) {
                    *last_read = Some((value, revision));
                }
                Some(())
            }
            Ending::Fail(_) => Some(()),
            Ending::Info(_) => None,
        }
    }

    /// Does it, and writes down when it began and how it ended.
    async fn record(self: &Arc<Self>, process: u64, key: &str, action: &Action, number: usize) -> Ending {
        let begun = Event {
            process,
            kind: Kind::Invoke,
            f: action.function(),
            key: Some(key.to_owned()),
            value: action.value(),
            time: executor::true_time(),
            applied: None,
            node: Some(number as u64),
            freshness: action.freshness(),
            revision: None,
            error: None,
        };
        self.history.lock().push(begun.clone());
        let asking = self.clone().ask(number, key.to_owned(), action.clone());
        let ending = rt::timeout(PATIENCE, asking).await;
        let ending = ending.unwrap_or_else(|| Ending::Info("no answer in time".to_owned()));
        let mut ended = Event { time: executor::true_time(), ..begun };
        match &ending {
            Ending::Ok(value, applied, revision) => {
                (ended.kind, ended.value, ended.applied) = (Kind::Ok, value.clone(), *applied);
                ended.revision = Some(revision.0.unsigned_abs());
            }
            Ending::Fail(error) => (ended.kind, ended.error) = (Kind::Fail, Some(error.clone())),
            // A read changes nothing: one without an answer did not happen.
            Ending::Info(error) if matches!(action, Action::Read(_)) => {
                (ended.kind, ended.error) = (Kind::Fail, Some(error.clone()));
            }
            Ending::Info(error) => (ended.kind, ended.error) = (Kind::Info, Some(error.clone())),
        }
        let outcome = match ended.kind {
            Kind::Ok => 1,
            Kind::Fail => 2,
            _ => 3,
        };
        executor::note(
            [4, process, outcome],
            format_args!("client {process}: {action:?} of {key}: {:?}", ended.kind),
        );
        self.history.lock().push(ended);
        ending
    }

    /// The question's way to the node and back.
    async fn ask(self: Arc<Self>, number: usize, key: String, action: Action) -> Ending {
        let machine = self.world.machine(number).clone();
        self.world.fabric.pass(CLIENTS, machine.host).await;
        let Some(node) = machine.node() else { return Ending::Fail("the connection is refused".to_owned()) };
        let serving = executor::spawn_on(machine.host, async move { serve(&node, &key, &action).await });
        let ending = serving.await;
        self.world.fabric.pass(machine.host, CLIENTS).await;
        ending.unwrap_or_else(|_| Ending::Info("the connection broke".to_owned()))
    }
}

/// What a node's server does for a client.
async fn serve(node: &Node, key: &str, action: &Action) -> Ending {
    let deadline = rt::now() + DEADLINE;
    let key = Bytes::copy_from_slice(key.as_bytes());
    if let Action::Read(freshness) = action {
        return match node.read_barrier(*freshness, deadline).await {
            Ok(view) => match view.range(&RangeQuery::new(KeyRange::single(key))) {
                Ok(reply) => {
                    let value = reply.kvs.first().map_or(Value::Null, |kv| number(&kv.value));
                    Ending::Ok(value, None, view.revision())
                }
                Err(error) => Ending::Fail(error.to_string()),
            },
            Err(error) => Ending::Fail(error.to_string()),
        };
    }
    match node.propose(&action.command(key), deadline).await {
        Ok(Ok(Applied { revision, reply, .. })) => {
            let applied = match (action, reply) {
                (Action::Cas(..), Reply::Txn(reply)) => Some(reply.succeeded),
                _ => None,
            };
            Ending::Ok(action.value(), applied, revision)
        }
        Ok(Err(rejection)) => Ending::Fail(rejection.to_string()),
        Err(error) => refused(&error),
    }
}

fn refused(error: &ProposeError) -> Ending {
    match error.is_definite() {
        true => Ending::Fail(error.to_string()),
        false => Ending::Info(error.to_string()),
    }
}

/// A value as it is written down; one that no client wrote stays a text.
fn number(value: &Bytes) -> Value {
    let text = String::from_utf8_lossy(value);
    text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

fn put(key: Bytes, value: u64) -> Put {
    let value = PutValue::Set(Bytes::from(value.to_string()));
    Put { key, value, lease: PutLease::Set(LeaseId(0)), prev_kv: false }
}

impl Action {
    fn function(&self) -> Function {
        match self {
            Action::Read(_) => Function::Read,
            Action::Write(_) => Function::Write,
            Action::Cas(..) => Function::Cas,
            Action::Delete => Function::Delete,
        }
    }

    fn value(&self) -> Value {
        match self {
            Action::Read(_) | Action::Delete => Value::Null,
            Action::Write(value) => json!(value),
            Action::Cas(old, new) => json!([old, new]),
        }
    }

    fn freshness(&self) -> Option<String> {
        match self {
            Action::Read(Freshness::Quorum) => Some("quorum".to_owned()),
            Action::Read(Freshness::Any) => Some("any".to_owned()),
            Action::Read(Freshness::MaxAge(age)) => Some(format!("max-age={}ms", age.as_millis())),
            Action::Read(Freshness::Revision(revision)) => Some(format!("revision={revision}")),
            _ => None,
        }
    }

    fn command(&self, key: Bytes) -> Command {
        match self {
            Action::Write(value) => Command::Put(put(key, *value)),
            Action::Delete => {
                Command::DeleteRange(DeleteRange { range: KeyRange::single(key), prev_kv: false })
            }
            Action::Cas(old, new) => Command::Txn(Txn {
                compares: vec![Compare {
                    range: KeyRange::single(key.clone()),
                    operator: CompareOperator::Equal,
                    target: CompareTarget::Value(Bytes::from(old.to_string())),
                }],
                success: vec![Operation::Put(put(key, *new))],
                failure: Vec::new(),
            }),
            Action::Read(_) => unreachable!("a read is not proposed"),
        }
    }
}
