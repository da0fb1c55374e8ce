//! Runs made up: an hour of a cluster's life in a minute, with a violation if one is wanted.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringfence_checker::{Bar, Counterexample, Event, Finding, Function, History, Kind, Verdict};
use ringfence_jepsen::directory::Recorded;
use ringfence_jepsen::record::{Fault, Results, Run, Sample, What};
use serde_json::{Value, json};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const NODES: usize = 5;
const RATE: u64 = 500;
/// What clients grant an operation.
const DEADLINE: u64 = 2 * SECOND;

/// A violation that a run can have.
#[derive(Debug, Clone, Copy)]
pub enum Planted {
    StaleRead,
    LostUpdate,
    LostWrite,
    DoubleApply,
}

impl Planted {
    pub const ALL: [Planted; 4] =
        [Planted::StaleRead, Planted::LostUpdate, Planted::LostWrite, Planted::DoubleApply];

    pub fn name(self) -> &'static str {
        match self {
            Planted::StaleRead => "stale-read",
            Planted::LostUpdate => "lost-update",
            Planted::LostWrite => "lost-write",
            Planted::DoubleApply => "double-apply",
        }
    }
}

/// A minute of a cluster's life, with the findings that belong to it.
pub fn recorded(planted: Option<Planted>) -> Recorded {
    let history = history();
    let mut operations = [0; 3];
    for event in &history {
        match event.kind {
            Kind::Invoke => {}
            Kind::Ok => operations[0] += 1,
            Kind::Fail => operations[1] += 1,
            Kind::Info => operations[2] += 1,
        }
    }
    let mut findings = passed();
    findings.extend(planted.map(finding));
    Recorded {
        run: run(planted),
        history,
        faults: faults(),
        samples: samples(),
        results: Results {
            verdict: if planted.is_some() { Verdict::Violation } else { Verdict::Ok },
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

fn passed() -> Vec<Finding> {
    let passed = |check: &str, summary: &str| Finding {
        check: check.to_owned(),
        verdict: Verdict::Ok,
        summary: summary.to_owned(),
        counterexample: None,
    };
    vec![
        passed("linearizable", "98 keys, 29 412 operations, the longest key with 312, checked in 0.03 s"),
        passed("stale-reads", "3 120 reads that asked for less than linearizable got what they asked for"),
        passed("revisions", "every write has a revision of its own, and none went back in real time"),
        passed("leadership", "3 leaderships, each with one leader, no term went back"),
        passed("availability", "writes succeeded again at most 1.9 s after each of 4 faults was healed"),
        passed("exits", "no process ended by itself"),
        passed("hashes-equal", "all 5 nodes have hash 91c2e0aa at revision 20 144"),
        passed("fault-evidence", "4 of 4 faults had an effect"),
    ]
}

/// A finding with its picture, as a checker would give it.
pub fn finding(planted: Planted) -> Finding {
    let bar = |process, start: u64, end: Option<u64>, label: &str, kind, node, culprit| Bar {
        process,
        start: start * MS,
        end: end.map(|end| end * MS),
        label: label.to_owned(),
        kind,
        node: Some(node),
        culprit,
    };
    let (check, explanation, bars) = match planted {
        Planted::StaleRead => (
            "linearizable",
            "Key r17: process 9 read 7 from n3, although process 4 had been told 118 ms before that 9 was written.",
            vec![
                bar(2, 10_120, Some(10_124), "write 7", Kind::Ok, 1, false),
                bar(4, 11_871, Some(11_902), "write 9", Kind::Ok, 1, false),
                bar(7, 11_950, Some(11_953), "read → 9", Kind::Ok, 2, false),
                bar(9, 12_020, Some(12_021), "read → 7", Kind::Ok, 3, true),
            ],
        ),
        Planted::LostUpdate => (
            "linearizable",
            "Key r3: two compare-and-sets from 4 both held, although nothing wrote 4 between them: one update is lost.",
            vec![
                bar(1, 20_000, Some(20_003), "write 4", Kind::Ok, 1, false),
                bar(5, 20_010, Some(20_019), "cas 4 → 5", Kind::Ok, 2, false),
                bar(6, 20_012, Some(20_024), "cas 4 → 6", Kind::Ok, 4, true),
                bar(5, 20_031, Some(20_033), "read → 6", Kind::Ok, 2, false),
            ],
        ),
        Planted::LostWrite => (
            "linearizable",
            "Key r40: write 31 was acknowledged before the power of all nodes was cut at 28.000 s, and was gone after it.",
            vec![
                bar(3, 26_411, Some(26_415), "write 30", Kind::Ok, 5, false),
                bar(8, 27_981, Some(27_988), "write 31", Kind::Ok, 5, false),
                bar(11, 27_999, None, "write 32", Kind::Info, 5, false),
                bar(14, 34_700, Some(34_703), "read → 30", Kind::Ok, 1, true),
                bar(3, 35_100, Some(35_102), "read → 30", Kind::Ok, 2, true),
            ],
        ),
        Planted::DoubleApply => (
            "linearizable",
            "Key r8: 1 came back after 2 had overwritten it; the write of 1, whose answer was lost, was applied twice.",
            vec![
                bar(21, 44_000, Some(46_000), "write 1", Kind::Info, 3, false),
                bar(22, 44_800, Some(44_806), "write 2", Kind::Ok, 1, false),
                bar(23, 44_900, Some(44_903), "read → 1", Kind::Ok, 1, false),
                bar(22, 45_100, Some(45_104), "read → 2", Kind::Ok, 2, false),
                bar(23, 45_300, Some(45_303), "read → 1", Kind::Ok, 1, true),
            ],
        ),
    };
    Finding {
        check: check.to_owned(),
        verdict: Verdict::Violation,
        summary: format!("1 of 98 keys is not linearizable: {}", planted.name()),
        counterexample: Some(Counterexample { explanation: explanation.to_owned(), bars }),
    }
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
fn leader(time: u64) -> Option<(usize, u64)> {
    match time / MS {
        1_000..11_600 => Some((3, 1)),
        12_500..28_000 => Some((1, 2)),
        33_700..44_000 => Some((2, 3)),
        45_800.. => Some((4, 5)),
        _ => None,
    }
}

fn runs(time: u64) -> bool {
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

fn history() -> History {
    let mut random = StdRng::seed_from_u64(42);
    let mut events = Vec::new();
    for number in 0..60 * RATE {
        let start = number * SECOND / RATE;
        let (kind, latency) = outcome(&mut random, start);
        let f = match random.random_range(0..10) {
            0..5 => Function::Read,
            5..8 => Function::Write,
            8 => Function::Cas,
            _ => Function::Delete,
        };
        let event = |kind, time, value: Value| Event {
            process: number,
            kind,
            f,
            key: Some(format!("r{}", number / 300)),
            value,
            time,
            applied: None,
            node: Some(number % NODES as u64 + 1),
            freshness: None,
            revision: None,
            error: (kind == Kind::Fail || kind == Kind::Info).then(|| "no leader".to_owned()),
        };
        events.push(event(Kind::Invoke, start, json!(number)));
        // Some answers never come.
        if random.random_range(0..3_000) > 0 {
            events.push(event(kind, start + latency, json!(number)));
        }
    }
    events.sort_by_key(|event| event.time);
    events
}

/// How an operation ends, and how long it takes: as the cluster fares at the time.
fn outcome(random: &mut StdRng, start: u64) -> (Kind, u64) {
    let shape: f64 = (0..4).map(|_| random.random_range(0.0..1.0)).sum::<f64>() / 2.0;
    let typical = (250_000.0 * 6.0_f64.powf(shape * shape)) as u64;
    if leader(start).is_none() || !runs(start) {
        return match random.random_range(0..4) {
            0 if runs(start) => (Kind::Info, DEADLINE),
            0 => (Kind::Info, DEADLINE - random.random_range(0..SECOND)),
            1 | 2 => (Kind::Fail, typical * 3),
            _ => (Kind::Fail, DEADLINE - random.random_range(0..MS)),
        };
    }
    let jitter = (39_000..52_000).contains(&(start / MS));
    let slow = random.random_range(0..400) == 0;
    let latency = typical
        + if jitter { random.random_range(2 * MS..34 * MS) } else { 0 }
        + if slow { 30 * MS } else { 0 };
    (Kind::Ok, latency)
}
