//! What a run leaves behind: a directory from which its report can be drawn again and its history checked again.
//!
//! | file | holds |
//! |---|---|
//! | `run.json` | [`Run`]: what was asked for, and what the machine could do |
//! | `history.jsonl` | the clients' history ([`ringfence_checker::history`]) |
//! | `faults.jsonl` | [`Fault`]: each fault with its time and the evidence that it had an effect |
//! | `nodes.jsonl` | [`Sample`]: what each node said of itself, and when it came and went |
//! | `results.json` | [`Results`]: every checker's finding |
//! | `nodes/NAME.log` | what the node printed |
//! | `report.html` | all of it in one page |
//!
//! Times are nanoseconds since the run began, on `CLOCK_MONOTONIC_RAW` of the harness.

use ringfence_checker::{Finding, Verdict};
use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The workload's name.
    pub workload: String,
    /// The names of the faults.
    pub nemeses: Vec<String>,
    /// How many nodes.
    pub nodes: usize,
    /// For how long load and faults lasted.
    pub seconds: f64,
    /// Operations a second, offered.
    pub rate: u64,
    /// Everything random was drawn from this.
    pub seed: u64,
    /// When it began, by the wall clock, as RFC 3339.
    pub started: String,
    /// The server under test: its path's last part and version.
    pub program: String,
    /// Canaries armed in the servers or clients.
    #[serde(default)]
    pub canaries: Vec<String>,
    /// Options of the command line beyond those above, as they were given: they too are needed to do the same again.
    #[serde(default)]
    pub options: Vec<String>,
    /// What the machine could not do, and so was left out.
    #[serde(default)]
    pub left_out: Vec<String>,
}

/// One fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// The nemesis's name.
    pub name: String,
    /// The nodes that it was done to, by number from 1.
    pub nodes: Vec<usize>,
    /// What exactly, in a few words: "{1,2} | {3,4,5}".
    pub detail: String,
    /// When it began.
    pub start: u64,
    /// Until when it was surely in force: its healing began.
    pub healing: u64,
    /// When it was over and everything was healed again.
    pub end: u64,
    /// What shows that it had an effect: "412 packets dropped".
    pub evidence: String,
    /// Whether it had one. A run with a fault that had none fails.
    pub effective: bool,
    /// What it showed to be wrong by itself: "n2 started on a rotten log". None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violation: Option<String>,
}

/// Something known of a node at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub time: u64,
    /// The node's number, from 1.
    pub node: usize,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// The node's own word.
    Status {
        /// Whether it says that it leads, with a leader lease.
        leads: bool,
        /// Its term.
        term: u64,
        /// The leader it knows, by number; none: it knows none.
        leader: Option<usize>,
        /// The last entry it applied.
        applied: u64,
        /// Whether it says that it is read-only.
        read_only: bool,
    },
    /// The process was started.
    Started,
    /// The harness ended or cut it: how.
    Stopped {
        /// `kill -9`, `power cut`, ...
        how: String,
    },
    /// It ended by itself.
    Exited {
        /// Its exit code; none: a signal.
        code: Option<i32>,
        /// Whether the fault in force makes that lawful (a disk that failed).
        expected: bool,
        /// Its last words.
        reason: String,
    },
}

/// What came of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// The worst of all findings.
    pub verdict: Verdict,
    /// Every checker's answer.
    pub findings: Vec<Finding>,
    /// Operations by outcome: ok, fail, info.
    pub operations: [u64; 3],
}
