//! A process of the load: a client and a number, doing one operation at a time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use ringfence_checker::Kind as End;
use tokio::time::sleep;

use super::recorder::Recorder;
use crate::client::{Caller, Cli, Client, Etcd, Kind, Node, Ringfence};
use crate::workload::{Operation, Workload};
use crate::world::Place;

/// The share of operations that go through the command line, one in so many: each costs a process.
const CLI_ONE_IN: u32 = 50;
/// The command line's processes at a time.
const CLI_PROCESSES: usize = 4;
/// How much longer than another client the command line is given, for its own start.
const CLI_START: Duration = Duration::from_secs(3);

/// How often an operation that somebody insists on is tried, and the wait between two tries.
const TRIES_MAX: usize = 20;
const TRY_INTERVAL: Duration = Duration::from_millis(250);

/// What it takes to make clients.
pub(super) struct Makings {
    pub(super) nodes: Vec<Node>,
    pub(super) program: PathBuf,
    pub(super) place: Place,
    pub(super) timeout: Duration,
    pub(super) retry_indefinite: bool,
}

impl Makings {
    /// A caller of this kind, bound to the node at this place where its kind is bound to one.
    pub(super) async fn caller(&self, kind: Kind, at: usize) -> anyhow::Result<Caller> {
        let node = self.nodes[at % self.nodes.len()].clone();
        let client: Box<dyn Client> = match kind {
            Kind::RingfenceOne => Box::new(Ringfence::new(vec![node])?),
            Kind::RingfenceAll => {
                let mut nodes = self.nodes.clone();
                nodes.rotate_left(at % self.nodes.len());
                Box::new(Ringfence::new(nodes)?)
            }
            Kind::Etcd => Box::new(Etcd::new(node).await?),
            Kind::Cli => Box::new(Cli::new(node, self.program.clone(), self.place.clone())),
        };
        let start = if kind == Kind::Cli { CLI_START } else { Duration::ZERO };
        Ok(Caller::new(client, self.timeout + start, self.retry_indefinite))
    }
}

/// Gives every process a number that no other ever had.
#[derive(Clone, Default)]
pub(super) struct Numbers(Arc<AtomicU64>);

impl Numbers {
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}

/// A process.
pub(super) struct Process {
    pub(super) kind: Kind,
    number: u64,
    numbers: Numbers,
    caller: Caller,
}

impl Process {
    pub(super) fn new(kind: Kind, numbers: &Numbers, caller: Caller) -> Process {
        Process { kind, number: numbers.next(), numbers: numbers.clone(), caller }
    }

    /// Does an operation and records it. After one without an outcome the process goes on under a new number, since that
    /// operation may still be under way.
    pub(super) async fn perform(
        &mut self,
        workload: &dyn Workload,
        operation: &Operation,
        recorder: &Recorder,
    ) -> End {
        recorder.invoke(self.number, self.caller.node(), operation);
        self.caller.begin();
        let result = workload.perform(operation, &mut self.caller).await;
        let end = recorder.end(self.number, self.caller.node(), operation, result);
        if end == End::Info {
            self.number = self.numbers.next();
        }
        end
    }

    /// Does an operation again until it is done, each attempt an operation of its own in the history; false: it was never done.
    pub(super) async fn insist(
        &mut self,
        workload: &dyn Workload,
        operation: &Operation,
        recorder: &Recorder,
    ) -> bool {
        for _ in 0..TRIES_MAX {
            if self.perform(workload, operation, recorder).await == End::Ok {
                return true;
            }
            sleep(TRY_INTERVAL).await;
        }
        false
    }
}

/// The processes that have nothing to do, by kind.
pub(super) struct Pool {
    idle: Vec<(Kind, VecDeque<Process>)>,
}

impl Pool {
    /// So many processes of the libraries' clients in equal shares, spread over the nodes, and some of the command line's.
    pub(super) async fn new(
        makings: &Makings,
        kinds: &[Kind],
        processes: usize,
        numbers: &Numbers,
    ) -> anyhow::Result<Pool> {
        let libraries = kinds.iter().filter(|kind| **kind != Kind::Cli).count();
        let mut idle = Vec::new();
        for &kind in kinds {
            let count = if kind == Kind::Cli { CLI_PROCESSES } else { processes.div_ceil(libraries) };
            let mut queue = VecDeque::new();
            for at in 0..count {
                queue.push_back(Process::new(kind, numbers, makings.caller(kind, at).await?));
            }
            idle.push((kind, queue));
        }
        Ok(Pool { idle })
    }

    /// Draws a process for the next operation; none: all are busy. Where none of the drawn kind is free, another kind's does
    /// it, but never the command line's, whose share stays small.
    pub(super) fn take(&mut self, rng: &mut StdRng) -> Option<Process> {
        let kinds = self.idle.len();
        let cli = self.idle.iter().position(|(kind, _)| *kind == Kind::Cli);
        if let Some(cli) = cli
            && (kinds == 1 || rng.random_range(0..CLI_ONE_IN) == 0)
            && let Some(process) = self.idle[cli].1.pop_front()
        {
            return Some(process);
        }
        let first = rng.random_range(0..kinds);
        let order = (0..kinds).map(|step| (first + step) % kinds).filter(|at| Some(*at) != cli);
        order.into_iter().find_map(|at| self.idle[at].1.pop_front())
    }

    /// Takes a process back.
    pub(super) fn put(&mut self, process: Process) {
        let queue = self.idle.iter_mut().find(|(kind, _)| *kind == process.kind);
        queue.expect("a process came out of its kind's queue").1.push_back(process);
    }
}
