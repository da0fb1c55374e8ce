//! What is known of nodes over time, as the report needs it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::node::Node;
use super::place::Place;
use super::status::NodeStatus;
use crate::record::{Sample, What};

/// How often each node is asked how it stands.
const INTERVAL: Duration = Duration::from_millis(100);

/// Everything known so far.
#[derive(Debug)]
pub(super) struct Samples {
    clock: Clock,
    taken: Mutex<Vec<Sample>>,
    /// The nodes' numbers by their numbers among the cluster's members, as far as they have told them.
    members: Mutex<HashMap<u64, usize>>,
}

impl Samples {
    pub(super) fn new(clock: Clock) -> Samples {
        Samples { clock, taken: Mutex::default(), members: Mutex::default() }
    }

    /// Takes note of something that is so now.
    pub(super) fn push(&self, node: usize, what: What) {
        // The time is read under the lock, so that samples stand in the order of their times.
        let mut taken = locked(&self.taken);
        taken.push(Sample { time: self.clock.now(), node, what });
    }

    /// All of them, in the order of their times.
    pub(super) fn all(&self) -> Vec<Sample> {
        locked(&self.taken).clone()
    }

    /// Asks a node how it stands; `None`: it does not say.
    pub(super) fn ask(&self, node: &Node, control: &Place) -> Option<NodeStatus> {
        let (code, page) = node.http(control, "/metrics").ok()?;
        let mut status = NodeStatus::parse(&page).filter(|_| code == 200)?;
        let mut members = locked(&self.members);
        members.insert(status.id, node.number);
        status.leader = status.leader_id.and_then(|leader| members.get(&leader).copied());
        Some(status)
    }
}

/// The threads that ask, one for each node, so that one that does not answer holds up no other.
#[derive(Debug)]
pub(super) struct Sampler {
    stop: Arc<(Mutex<bool>, Condvar)>,
    threads: Vec<JoinHandle<()>>,
}

impl Sampler {
    pub(super) fn start(nodes: &[Arc<Node>], control: &Place) -> std::io::Result<Sampler> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let mut sampler = Sampler { stop: Arc::clone(&stop), threads: Vec::new() };
        for node in nodes {
            let (node, control, stop) = (Arc::clone(node), control.clone(), Arc::clone(&stop));
            let thread = thread::Builder::new().name(format!("sampler {}", node.number));
            sampler.threads.push(thread.spawn(move || watch(&node, &control, &stop))?);
        }
        Ok(sampler)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        *locked(&self.stop.0) = true;
        self.stop.1.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a sampler had failed");
            }
        }
    }
}

/// Asks one node until it is told to stop.
fn watch(node: &Node, control: &Place, stop: &(Mutex<bool>, Condvar)) {
    let mut next = Instant::now();
    loop {
        // This alone takes note of a process that has ended.
        if node.is_running()
            && let Some(status) = node.samples.ask(node, control)
        {
            let NodeStatus { leads, term, leader, applied, read_only, .. } = status;
            node.samples.push(node.number, What::Status { leads, term, leader, applied, read_only });
        }
        next = (next + INTERVAL).max(Instant::now());
        let wait = next.saturating_duration_since(Instant::now());
        let stopped = stop.1.wait_timeout_while(locked(&stop.0), wait, |stopped| !*stopped);
        if *stopped.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
