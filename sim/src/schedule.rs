//! What goes wrong, and when: a list drawn from a seed before the run begins. Each step says all that it does, so that a
//! run with some steps left out is a run too, and the shortest one that still fails can be looked for.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::world::{Pace, Shape, Stop};

/// A step, and the time at which it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// After the cluster has formed.
    pub at: Duration,
    /// How long it lasts; what takes no time has none.
    pub lasts: Duration,
    /// What is done.
    pub fault: Fault,
}

/// Something done to a cluster. Nodes are numbered from 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A node's process ends, and starts again afterwards.
    Stop(usize, Stop),
    /// Whoever leads is stopped.
    StopLeader(Stop),
    /// All but the leader are stopped.
    StopFollowers(Stop),
    /// A node is away for so long that the others drop what it needs of the log, and make a checkpoint.
    LeaveBehind(usize),
    /// All processes end at once, and start again one after the other.
    StopAll(Stop),
    /// The power fails in the middle of so many operations of the disk from now on.
    PowerCutAtDiskStep(usize, u64),
    /// Nothing passes from the first nodes to the second.
    Cut(Vec<usize>, Vec<usize>),
    /// Two halves hear nothing of each other.
    Halves(Vec<usize>, Vec<usize>),
    /// Whoever leads hears nothing of the others, nor they of it.
    IsolateLeader,
    /// Whoever leads is not heard by the others, but hears them (true), or the other way round.
    LeaderOneWay(bool),
    /// Each node hears only its neighbours in a ring: every node sees a majority, no two the same.
    Ring,
    /// Clients do not reach a node.
    CutClients(usize),
    /// Bytes between two nodes take longer.
    Slow(usize, usize, Pace),
    /// Bytes from the first node to the second take longer, and those on the way back do not.
    Late(usize, usize, Pace),
    /// Connections between two nodes break.
    Reset(usize, usize),
    /// A node's clock goes at another rate from now on, by millionths.
    Rate(usize, i64),
    /// A node's process stands still; its clock does not.
    Suspend(usize),
    /// Whoever leads stands still.
    SuspendLeader,
    /// The disk takes longer; bounds in milliseconds.
    SlowDisk(usize, u64, u64),
    /// The next read, write or sync of a disk fails, after so many of its operations.
    DiskError(usize, DiskError, u64),
    /// The disk has room for so many bytes more.
    DiskFull(usize, u64),
    /// A bit flips in a file of the log or the state while the node is stopped.
    Rot(usize, Rotten),
    /// Leadership is handed over, to a drawn or a given node.
    Transfer(Option<usize>),
    /// A checkpoint is made now.
    Checkpoint(usize),
    /// The log is dropped up to the last checkpoint.
    Purge(usize),
    /// A snapshot of the state is written to a file.
    Snapshot(usize),
}

/// Which operation of a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// A read.
    Read,
    /// A write, of which a part may be done.
    Write,
    /// A sync, of which a part may be done.
    Sync,
}

/// Which data rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotten {
    /// The log.
    Log,
    /// The state file.
    State,
}

/// What may go wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The largest deviation of a clock's rate, in millionths.
    pub clock_ppm: i64,
    /// Whether bits may flip.
    pub rot: bool,
    /// Mean time between two steps, in milliseconds.
    pub pause_ms: u64,
}

impl Profile {
    /// All faults under which every promise must hold: clocks within 2 %.
    pub const LAWFUL: Profile = Profile { clock_ppm: 20_000, rot: true, pause_ms: 1_500 };
}

/// All steps of a run, in the order in which they begin.
#[must_use]
pub fn draw(seed: u64, shape: Shape, profile: Profile, length: Duration) -> Vec<Step> {
    let mut draws = Draws { rng: StdRng::seed_from_u64(seed), nodes: shape.nodes, profile, rotten: 0 };
    let mut steps = Vec::new();
    let mut at = Duration::from_millis(draws.below(2 * profile.pause_ms));
    while at < length {
        let fault = draws.fault();
        let lasts = draws.lasting(&fault);
        steps.push(Step { at, lasts, fault });
        at += Duration::from_millis(draws.below(2 * profile.pause_ms));
    }
    steps
}

struct Draws {
    rng: StdRng,
    nodes: usize,
    profile: Profile,
    /// Nodes that rot: less than a half may be lost for good.
    rotten: usize,
}

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.random_range(0..bound)
    }

    fn coin(&mut self) -> bool {
        self.rng.next_u64().is_multiple_of(2)
    }

    fn node(&mut self) -> usize {
        self.rng.random_range(1..=self.nodes)
    }

    fn two_nodes(&mut self) -> (usize, usize) {
        let one = self.node();
        let other = 1 + (one + self.rng.random_range(0..self.nodes - 1)) % self.nodes;
        (one, other)
    }

    fn stop(&mut self) -> Stop {
        if self.coin() { Stop::Kill } else { Stop::PowerCut }
    }

    /// Two groups that are not empty, of all nodes.
    fn groups(&mut self) -> (Vec<usize>, Vec<usize>) {
        loop {
            let (one, other): (Vec<_>, Vec<_>) =
                (1..=self.nodes).partition(|_| self.rng.random_range(0..2) == 0);
            if !one.is_empty() && !other.is_empty() {
                return (one, other);
            }
        }
    }

    fn fault(&mut self) -> Fault {
        match self.below(100) {
            0..8 => Fault::Stop(self.node(), self.stop()),
            8..14 => Fault::StopLeader(self.stop()),
            14..17 => Fault::StopAll(self.stop()),
            17..23 => Fault::PowerCutAtDiskStep(self.node(), 1 + self.below(400)),
            23..28 => {
                let (from, to) = self.groups();
                Fault::Cut(from, to)
            }
            28..33 => {
                let (one, other) = self.groups();
                Fault::Halves(one, other)
            }
            33..39 => Fault::IsolateLeader,
            39..43 => Fault::LeaderOneWay(self.coin()),
            43..45 => Fault::Ring,
            45..47 => Fault::CutClients(self.node()),
            47..52 => {
                let (one, other) = self.two_nodes();
                let max = [2_000, 20_000, 150_000][self.below(3) as usize];
                Fault::Slow(
                    one,
                    other,
                    Pace { min: max / 10, max, bytes: [100_000, 1_000, 100][self.below(3) as usize] },
                )
            }
            52..56 => {
                let (one, other) = self.two_nodes();
                Fault::Reset(one, other)
            }
            56..62 => {
                let bound = self.profile.clock_ppm;
                Fault::Rate(self.node(), self.rng.random_range(-bound..=bound))
            }
            62..66 => Fault::Suspend(self.node()),
            66..70 => Fault::SuspendLeader,
            70..75 => {
                let max = [5, 50, 500, 4_000][self.below(4) as usize];
                Fault::SlowDisk(self.node(), max / 4, max)
            }
            75..80 => {
                let error = [DiskError::Read, DiskError::Write, DiskError::Sync][self.below(3) as usize];
                Fault::DiskError(self.node(), error, self.below(200))
            }
            80..82 => Fault::DiskFull(self.node(), self.below(200_000)),
            82..83 if self.profile.rot && self.rotten < (self.nodes - 1) / 2 => {
                self.rotten += 1;
                Fault::Rot(self.rotten, if self.coin() { Rotten::Log } else { Rotten::State })
            }
            83..90 => Fault::Transfer(self.coin().then(|| self.node())),
            90..93 => Fault::Purge(self.node()),
            93..94 => Fault::Snapshot(self.node()),
            94..97 => Fault::LeaveBehind(self.node()),
            97..98 => Fault::StopFollowers(self.stop()),
            _ => Fault::Checkpoint(self.node()),
        }
    }

    fn lasting(&mut self, fault: &Fault) -> Duration {
        let milliseconds = match fault {
            // Shorter than the leader lease, about as long, and long.
            Fault::Stop(..)
            | Fault::StopLeader(_)
            | Fault::StopFollowers(_)
            | Fault::StopAll(_)
            | Fault::PowerCutAtDiskStep(..) => {
                let max = [20, 300, 1_000, 6_000][self.below(4) as usize];
                self.below(max)
            }
            Fault::Suspend(_) | Fault::SuspendLeader => {
                let max = [300, 1_000, 4_000][self.below(3) as usize];
                self.below(max)
            }
            Fault::Rot(..) => 100 + self.below(1_000),
            Fault::Reset(..)
            | Fault::Transfer(_)
            | Fault::Checkpoint(_)
            | Fault::Purge(_)
            | Fault::Snapshot(_) => 0,
            _ => 200 + self.below(5_000),
        };
        Duration::from_millis(milliseconds)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7.3} s, for {:.3} s: {:?}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.fault)
    }
}
