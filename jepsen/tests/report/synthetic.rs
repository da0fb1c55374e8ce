//! Runs made up: an hour of a cluster's life in a minute, with a violation if one is wanted.

use ringfence_checker::{Budget, Finding, Kind, Verdict};
use ringfence_jepsen::directory::Recorded;
use ringfence_jepsen::record::{Fault, Results, Run, Sample, What};

use super::clients;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
pub const NODES: usize = 5;
pub const RATE: u64 = 500;

/// A violation that a run can have.
#[derive(Debug, Clone, Copy)]
pub enum Planted {
    StaleRead,
    LostUpdate,
    LostWrite,
    DoubleApply,
}

impl Planted {
    pub fn name(self) -> &'static str {
        match self {
            Planted::StaleRead => "stale-read",
            Planted::LostUpdate => "lost-update",
            Planted::LostWrite => "lost-write",
            Planted::DoubleApply => "double-apply",
        }
    }
}

/// A minute of a cluster's life, with what the checkers say about it.
pub fn recorded(planted: Option<Planted>) -> Recorded {
    let history = clients::history(planted);
    let mut operations = [0; 3];
    for event in &history {
        match event.kind {
            Kind::Invoke => {}
            Kind::Ok => operations[0] += 1,
            Kind::Fail => operations[1] += 1,
            Kind::Info => operations[2] += 1,
        }
    }
    let mut findings = ringfence_checker::judge(&history, Budget::default());
    findings.extend(cluster());
    Recorded {
        run: run(planted),
        history,
        faults: faults(),
        samples: samples(),
        results: Results {
            verdict: findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Unknown),
            findings,
            operations,
        },
    }
}

fn run(planted: Option<Planted>) -> Run {
    Run {
        workload: "register".to_owned(),
        nemeses: ["partition-leader", "kill-all", "pause-leader", "jitter"].map(str::to_owned).into(),
        nodes: NODES,
        seconds: 60.0,
        rate: RATE,
        seed: 42,
        started: "2026-11-27T06:00:00Z".to_owned(),
        program: "ringfence 0.1.0".to_owned(),
        canaries: planted.map(|_| "local-read".to_owned()).into_iter().collect(),
        options: Vec::new(),
        left_out: vec!["cpu-starve (no cgroup controller for the CPU)".to_owned()],
    }
}

/// What is found out about the cluster, and not about what clients saw.
fn cluster() -> Vec<Finding> {
    let passed = |check: &str, summary: &str| Finding {
        check: check.to_owned(),
        verdict: Verdict::Ok,
        summary: summary.to_owned(),
        counterexample: None,
    };
    vec![
        passed("leadership", "3 leaderships, each with one leader, no term went back"),
        passed("availability", "writes succeeded again at most 1.9 s after each of 4 faults was healed"),
        passed("exits", "no process ended by itself"),
        passed("hashes-equal", "all 5 nodes have hash 91c2e0aa at revision 20 144"),
        passed("fault-evidence", "4 of 4 faults had an effect"),
    ]
}

fn faults() -> Vec<Fault> {
    let fault =
        |name: &str, nodes: &[usize], detail: &str, [start, healing, end]: [u64; 3], evidence: &str| Fault {
            name: name.to_owned(),
            nodes: nodes.to_vec(),
            detail: detail.to_owned(),
            start: start * MS,
            healing: healing * MS,
            end: end * MS,
            evidence: evidence.to_owned(),
            effective: true,
            violation: None,
        };
    vec![
        fault("partition-leader", &[3], "{3} | {1,2,4,5}", [10_000, 18_000, 18_010], "4 127 packets dropped"),
        fault(
            "kill-all",
            &[1, 2, 3, 4, 5],
            "kill -9, started again after 4 s",
            [28_000, 32_000, 33_400],
            "5 processes ended by signal 9",
        ),
        fault(
            "jitter",
            &[1, 2, 3, 4, 5],
            "2 ± 15 ms, reordered",
            [39_000, 52_000, 52_000],
            "90 312 packets delayed, 11 870 reordered",
        ),
        fault("pause-leader", &[2], "SIGSTOP", [44_000, 48_000, 48_100], "no answer for 4.0 s"),
    ]
}

/// Who leads in which term at a time.
pub fn leader(time: u64) -> Option<(usize, u64)> {
    match time / MS {
        1_000..11_600 => Some((3, 1)),
        12_500..28_000 => Some((1, 2)),
        33_700..44_000 => Some((2, 3)),
        45_800.. => Some((4, 5)),
        _ => None,
    }
}

pub fn runs(time: u64) -> bool {
    !(28_000..32_500).contains(&(time / MS))
}

fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> =
        (1..=NODES).map(|node| Sample { time: 0, node, what: What::Started }).collect();
    for time in (0..62_000).step_by(100).map(|time| time * MS) {
        for node in 1..=NODES {
            let cut_off = node == 3 && (10_000..18_000).contains(&(time / MS));
            let paused = node == 2 && (44_000..48_000).contains(&(time / MS));
            if !runs(time) || paused {
                continue;
            }
            let leads = leader(time).is_some_and(|(leader, _)| leader == node);
            samples.push(Sample {
                time,
                node,
                what: What::Status {
                    leads: leads && !cut_off,
                    term: if cut_off {
                        1
                    } else {
                        leader(time).map_or(1 + time / (15 * SECOND), |(_, term)| term)
                    },
                    leader: leader(time).map(|(leader, _)| leader).filter(|_| !cut_off),
                    applied: time / MS,
                    read_only: cut_off && time > 11_000 * MS,
                },
            });
        }
    }
    for node in 1..=NODES {
        samples.push(Sample { time: 28_000 * MS, node, what: What::Stopped { how: "kill -9".to_owned() } });
        samples.push(Sample { time: 32_000 * MS + node as u64 * 40 * MS, node, what: What::Started });
    }
    let refused = "log-3.wal: record 17 is damaged".to_owned();
    samples.push(Sample {
        time: 55_000 * MS,
        node: 5,
        what: What::Exited { code: Some(65), expected: false, reason: refused },
    });
    samples.push(Sample { time: 57_000 * MS, node: 5, what: What::Started });
    samples.retain(|sample| !(sample.node == 5 && sample.time > 55_000 * MS && sample.time < 57_000 * MS));
    samples.sort_by_key(|sample| sample.time);
    samples
}
