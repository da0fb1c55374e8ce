//! A machine: a disk, and one life after the other of a node's process.

use std::sync::Arc;

use parking_lot::Mutex;
use ringfence_consensus::rt::simulated::{self as executor, Host};
use ringfence_consensus::simulation::Probe;
use ringfence_consensus::{Config, Failure, Node};
use ringfence_disk::{Disk, SimDisk};

use super::network::{Fabric, Port};
use super::{address, host_of};
use crate::server::lease_keeper;

/// A machine and the node on it.
pub struct Machine {
    /// The node's number, from 1.
    pub number: usize,
    /// The host that its tasks run on.
    pub host: Host,
    /// Its disk.
    pub disk: SimDisk,
    config: Config,
    fabric: Fabric,
    state: Mutex<State>,
}

/// How a process is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The process is killed; its machine goes on and says so to whoever is connected.
    Kill,
    /// The machine loses its power, with all that was not synced.
    PowerCut,
}

/// Where a machine's process stands.
#[derive(Clone)]
pub enum Life {
    /// Nothing runs.
    Down,
    /// It opens its data directory.
    Starting,
    /// It runs.
    Running(Node),
    /// It ended by itself.
    Ended(Failure),
}

/// A process that ended by itself.
#[derive(Debug, Clone)]
pub struct Death {
    /// True time in nanoseconds.
    pub time: u64,
    /// Why.
    pub failure: Failure,
    /// Whether a fault of its disk makes that lawful.
    pub is_lawful: bool,
}

struct State {
    life: Life,
    probe: Option<Arc<Probe>>,
    /// Number of starts.
    lives: u64,
    deaths: Vec<Death>,
    /// The disk refused something: the process may, and must, end.
    disk_may_fail: bool,
    /// Bits were flipped behind the node's back: it may find its data damaged, for good.
    is_rotten: bool,
}

impl State {
    /// Whether a process may end for this reason, after what was done to its disk.
    fn allows(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Disk(_) => self.disk_may_fail,
            Failure::LogCorrupt(_) | Failure::StateCorrupt(_) => self.is_rotten,
            // A storage error reaches openraft too, and whichever tells of it first is the reason.
            Failure::Consensus(reason) => {
                (self.disk_may_fail || self.is_rotten) && !reason.contains("protocol rule violated")
            }
            Failure::Config(_) | Failure::Identity(_) | Failure::Listen { .. } => false,
        }
    }
}

impl Machine {
    pub(super) fn new(number: usize, config: Config, fabric: Fabric, seed: u64) -> Machine {
        let state = State {
            life: Life::Down,
            probe: None,
            lives: 0,
            deaths: Vec::new(),
            disk_may_fail: false,
            is_rotten: false,
        };
        let disk = SimDisk::new(seed);
        Machine { number, host: host_of(number), disk, config, fabric, state: Mutex::new(state) }
    }

    /// Where its process stands.
    #[must_use]
    pub fn life(&self) -> Life {
        self.state.lock().life.clone()
    }

    /// The node, while it runs.
    #[must_use]
    pub fn node(&self) -> Option<Node> {
        match &self.state.lock().life {
            Life::Running(node) => Some(node.clone()),
            _ => None,
        }
    }

    /// A look into the node, while it runs, and the number of its life.
    #[must_use]
    pub fn probe(&self) -> Option<(u64, Arc<Probe>)> {
        let state = self.state.lock();
        Some((state.lives, state.probe.clone()?))
    }

    /// Processes of this machine that ended by themselves.
    #[must_use]
    pub fn deaths(&self) -> Vec<Death> {
        self.state.lock().deaths.clone()
    }

    /// From now on, until this life of the disk ends, the process may end because of its disk.
    pub fn allow_disk_failure(&self) {
        self.state.lock().disk_may_fail = true;
    }

    /// From now on the process may end because its data are damaged.
    pub fn allow_corruption(&self) {
        self.state.lock().is_rotten = true;
    }

    /// Whether bits of its data were flipped.
    #[must_use]
    pub fn is_rotten(&self) -> bool {
        self.state.lock().is_rotten
    }

    /// Starts a process, unless one runs.
    pub fn start(self: &Arc<Self>) {
        let life = {
            let mut state = self.state.lock();
            if matches!(state.life, Life::Starting | Life::Running(_)) {
                return;
            }
            state.life = Life::Starting;
            state.lives += 1;
            state.lives
        };
        executor::note([1, u64::from(self.host.0), life], format_args!("start n{}", self.number));
        let port = self.fabric.listen(self.host, &address(self.number));
        drop(executor::spawn_on(self.host, self.clone().live(life, port)));
    }

    async fn live(self: Arc<Self>, life: u64, port: Arc<Port>) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let failure = match Node::start(self.config.clone(), disk, port).await {
            Ok(node) => {
                {
                    let mut state = self.state.lock();
                    state.probe = Some(Arc::new(Probe::new(&node)));
                    state.life = Life::Running(node.clone());
                }
                let keeping = lease_keeper::run(node.clone(), |_| (), std::future::pending());
                drop(executor::spawn_on(self.host, keeping));
                node.failed().await
            }
            Err(failure) => failure,
        };
        // The process exits: nothing of it goes on, this task included. Its handles outlive it in nobody's hands.
        let this = self.clone();
        drop(executor::spawn_on(Host::WORLD, async move { this.bury(life, failure) }));
    }

    fn bury(&self, life: u64, failure: Failure) {
        if self.state.lock().lives != life || matches!(self.life(), Life::Down) {
            return;
        }
        executor::note([2, u64::from(self.host.0), life], format_args!("n{} ends: {failure}", self.number));
        let is_lawful = self.state.lock().allows(&failure);
        self.end(Stop::Kill);
        let mut state = self.state.lock();
        state.life = Life::Ended(failure.clone());
        state.deaths.push(Death { time: executor::true_time(), failure, is_lawful });
    }

    /// Ends the process from outside, in whatever it is doing.
    pub fn stop(&self, stop: Stop) {
        let how = if stop == Stop::Kill { "kill" } else { "power cut" };
        executor::note([3, u64::from(self.host.0), stop as u64], format_args!("{how} n{}", self.number));
        self.end(stop);
        self.state.lock().life = Life::Down;
    }

    fn end(&self, stop: Stop) {
        if stop == Stop::PowerCut {
            self.fabric.darken(self.host);
        }
        // Handles first: what the tasks drop must not be the last of the node by chance.
        let (life, probe) = {
            let mut state = self.state.lock();
            (std::mem::replace(&mut state.life, Life::Down), state.probe.take())
        };
        executor::crash(self.host);
        executor::resume(self.host);
        executor::enter(self.host, || drop((life, probe)));
        match stop {
            Stop::Kill => self.disk.kill(),
            Stop::PowerCut => self.disk.crash(),
        }
        // The disk's faults end with the life.
        self.state.lock().disk_may_fail = false;
    }
}
