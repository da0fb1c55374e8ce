//! One run: a cluster is formed, works under faults, is healed, and judged.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use ringfence_canary::Canary;
use ringfence_checker::{Budget, Event, Kind, Verdict, judge};
use ringfence_consensus::rt;
use ringfence_consensus::rt::simulated::{self as executor, Finished, Host, Journal, Pauses};

use crate::clients::Clients;
use crate::invariants::Invariants;
use crate::nemesis::Nemesis;
use crate::rights::witness::{Seen, Witness};
use crate::rights::{Cast, Rights};
use crate::schedule::{self, Fault, Profile, Step};
use crate::world::{Life, NetworkCounts, Shape, Stop, World};

/// A cluster that does not form in this time never will.
const FORMING: Duration = Duration::from_secs(30);
/// A healed cluster is well again in this time: elections, replays and snapshots included.
const HEALING: Duration = Duration::from_secs(30);
/// Pause between two looks at a state that is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// What a lease may be late by for each change of leader that was not planned: what the log did not hold of the lease clock.
const LATE_PER_CHANGE: u64 = 1_000_000_000;
/// Configurations that the checker may try for one key.
const CHECK_STEPS: u64 = 2_000_000;

/// What a run is made of. Equal plans give equal runs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What all choices are drawn from.
    pub seed: u64,
    /// The cluster.
    pub shape: Shape,
    /// Number of clients.
    pub clients: usize,
    /// Mean pause of a client between two operations.
    pub pause: Duration,
    /// Clients of leases and locks. While there are leases, no cluster comes to rest.
    pub cast: Cast,
    /// What goes wrong.
    pub steps: Vec<Step>,
    /// How long faults and clients go on.
    pub length: Duration,
    /// What the product does wrong on purpose.
    pub canaries: Vec<Canary>,
}

impl Plan {
    /// The plan of a seed: its shape, its clients and its faults.
    #[must_use]
    pub fn draw(seed: u64, length: Duration, profile: Profile) -> Plan {
        let nodes = if seed.is_multiple_of(3) { 5 } else { 3 };
        let shape = Shape { nodes, forgets_soon: seed % 4 == 1, uneven_leases: false };
        Plan {
            seed,
            shape,
            clients: 4 + (seed % 5) as usize * 2,
            pause: Duration::from_millis(15 + seed % 7 * 10),
            // The others come to rest without new entries.
            cast: if seed % 5 < 3 { Cast::ALL } else { Cast::default() },
            steps: schedule::draw(seed, shape, profile, length),
            length,
            canaries: Vec::new(),
        }
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which rule or check.
    pub check: String,
    /// What was seen.
    pub facts: String,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// True time simulated, in nanoseconds.
    pub time: u64,
    /// Steps of tasks.
    pub polls: u64,
    /// The digest of all that happened.
    pub trace: u64,
    /// Operations of clients that were answered, refused, and left open.
    pub operations: [usize; 3],
    /// Steps of the schedule, and how many met something to act on.
    pub steps: (usize, u64),
    /// Looks of the invariants at changed nodes.
    pub looks: u64,
    /// Snapshots that took the place of a node's log.
    pub snapshots: u64,
    /// What was seen of leases and locks.
    pub rights: Seen,
    /// Processes that ended by themselves, as they had to.
    pub lawful_deaths: usize,
    /// What the network did.
    pub network: NetworkCounts,
    /// What must not be.
    pub findings: Vec<Finding>,
    /// What clients saw.
    pub history: Vec<Event>,
}

/// Runs a plan. Lines of the trace go to `journal`.
#[must_use]
pub fn run(plan: &Plan, journal: Option<Journal>) -> Report {
    let _armed: Vec<_> = plan.canaries.iter().map(|canary| ringfence_canary::arm_here(*canary)).collect();
    let finished = executor::run(plan.seed, journal, Stage::new(plan).play(plan.clone()));
    report(plan, finished)
}

/// What is left when a run is over.
struct Outcome {
    history: Vec<Event>,
    effects: u64,
    looks: u64,
    snapshots: u64,
    rights: Seen,
    lawful_deaths: usize,
    network: NetworkCounts,
    findings: Vec<Finding>,
}

fn report(plan: &Plan, finished: Finished<Outcome>) -> Report {
    let Finished { value: outcome, time, polls, trace, panics } = finished;
    let mut findings = outcome.findings;
    findings.extend(panics.into_iter().map(|panic| {
        let seconds = panic.time as f64 / 1e9;
        finding("panic", format!("on host {} at {seconds:.3} s: {}", panic.host.0, panic.message))
    }));
    for judged in judge(&outcome.history, Budget::steps(CHECK_STEPS)) {
        if judged.verdict != Verdict::Ok {
            let picture = judged.counterexample.map(|found| found.explanation).unwrap_or_default();
            findings
                .push(finding(&judged.check, format!("{:?}: {} {picture}", judged.verdict, judged.summary)));
        }
    }
    let count = |kind: Kind| outcome.history.iter().filter(|event| event.kind == kind).count();
    Report {
        seed: plan.seed,
        time,
        polls,
        trace,
        operations: [count(Kind::Ok), count(Kind::Fail), count(Kind::Info)],
        steps: (plan.steps.len(), outcome.effects),
        looks: outcome.looks,
        snapshots: outcome.snapshots,
        rights: outcome.rights,
        lawful_deaths: outcome.lawful_deaths,
        network: outcome.network,
        findings,
        history: outcome.history,
    }
}

fn finding(check: &str, facts: String) -> Finding {
    Finding { check: check.to_owned(), facts }
}

/// Where a run takes place.
struct Stage {
    world: Arc<World>,
    invariants: Arc<Mutex<Invariants>>,
    witness: Arc<Mutex<Witness>>,
}

impl Stage {
    fn new(plan: &Plan) -> Stage {
        let is_planned = |step: &Step| matches!(step.fault, Fault::Transfer(_));
        // A planned change loses nothing.
        let late_per_change = if plan.steps.iter().all(is_planned) { 0 } else { LATE_PER_CHANGE };
        Stage {
            world: Arc::new(World::new(plan.shape, plan.seed)),
            invariants: Arc::default(),
            witness: Arc::new(Mutex::new(Witness::new(late_per_change))),
        }
    }

    async fn play(self, plan: Plan) -> Outcome {
        self.observe();
        for machine in &self.world.machines {
            machine.start();
        }
        let mut findings = Vec::new();
        let clients = Clients::new(self.world.clone(), plan.pause);
        let rights = Rights::new(self.world.clone(), self.witness.clone());
        let nemesis = Nemesis::new(self.world.clone());
        if self.wait(FORMING, Stage::has_formed).await {
            let supervisor = executor::spawn_on(Host::WORLD, nemesis.clone().supervise());
            if plan.cast != Cast::default() {
                rights.guard().await;
            }
            let mut working = clients.start(plan.clients);
            working.extend(rights.start(plan.cast));
            let begun = rt::now();
            let striking = nemesis.clone();
            let striking =
                executor::spawn_on(Host::WORLD, async move { striking.carry_out(plan.steps).await });
            rt::sleep_until(begun + plan.length).await;
            clients.stop();
            rights.stop();
            for client in working {
                client.await.expect("nobody crashes the clients");
            }
            // What lasts longer ends when nobody writes any more: a cluster must come to rest without new entries.
            striking.await.expect("nobody crashes the world");
            self.heal();
            if self.wait(HEALING, Stage::is_well).await {
                self.read_once_more(&clients).await;
            } else {
                findings.push(finding(
                    "liveness",
                    format!("not well {HEALING:?} after all faults: {}", self.tell()),
                ));
            }
            drop(supervisor);
        } else {
            findings.push(finding("liveness", format!("no cluster formed in {FORMING:?}: {}", self.tell())));
        }
        self.conclude(&clients, &nemesis, findings)
    }

    fn conclude(&self, clients: &Clients, nemesis: &Nemesis, mut findings: Vec<Finding>) -> Outcome {
        let invariants = self.invariants.lock();
        let mut witness = self.witness.lock();
        let rights = witness.conclude();
        let broken = invariants.broken().iter().chain(witness.broken());
        findings.extend(broken.map(|broken| finding(broken.rule, broken.facts.clone())));
        let mut lawful_deaths = 0;
        for machine in &self.world.machines {
            // No disk here is swapped or taken back: whoever is refused as an impostor is refused wrongly.
            if let Some(quarantine) = machine.node().and_then(|node| node.quarantine()) {
                findings.push(finding("quarantine", format!("n{}: {quarantine}", machine.number)));
            }
            for death in machine.deaths() {
                if death.is_lawful {
                    lawful_deaths += 1;
                } else {
                    let seconds = death.time as f64 / 1e9;
                    let facts = format!("n{} at {seconds:.3} s: {}", machine.number, death.failure);
                    findings.push(finding("node-ended", facts));
                }
            }
        }
        Outcome {
            history: clients.history(),
            effects: nemesis.effects.load(Ordering::Relaxed),
            looks: invariants.looks(),
            snapshots: invariants.snapshots(),
            rights,
            lawful_deaths,
            network: self.world.fabric.counts(),
            findings,
        }
    }

    /// Has the invariants looked at after each step, and machines ended whose disks have died.
    fn observe(&self) {
        let (world, invariants, witness) =
            (self.world.clone(), self.invariants.clone(), self.witness.clone());
        executor::observe(move |host| {
            let Some(machine) = world.machines.get((host.0 as usize).wrapping_sub(1)) else { return };
            if let Some((life, probe)) = machine.probe() {
                let mut invariants = invariants.lock();
                if machine.is_rotten() {
                    invariants.forgive(machine.number);
                }
                invariants.look(machine.number, life, &probe);
                if let Some(node) = machine.node().filter(|_| !machine.is_rotten()) {
                    let leads = invariants.leads(machine.number);
                    witness.lock().look(machine.number, host, &node, invariants.committed(), leads);
                }
            }
            if machine.disk.is_down() {
                machine.stop(Stop::PowerCut);
            }
        });
    }

    async fn wait(&self, patience: Duration, holds: impl Fn(&Stage) -> bool) -> bool {
        let begun = rt::now();
        while !holds(self) {
            if rt::since(begun) > patience {
                return false;
            }
            rt::sleep(LOOK).await;
        }
        true
    }

    fn has_formed(&self) -> bool {
        let count = self.world.machines.len();
        let knows_all = |node: ringfence_consensus::Node| node.view().members().len() == count;
        self.world.leader().is_some()
            && self.world.machines.iter().all(|machine| machine.node().is_some_and(knows_all))
    }

    /// Applied reaches committed on every node, without new writes, and somebody leads.
    fn is_well(&self) -> bool {
        let committed = self.invariants.lock().committed();
        let healthy = |machine: &&Arc<crate::world::Machine>| match (machine.probe(), machine.life()) {
            (Some((_, probe)), _) => probe.state().map(|state| state.applied) == committed,
            // Damaged data are for an operator to replace.
            (None, Life::Ended(_)) => machine.is_rotten(),
            (None, _) => false,
        };
        self.world.leader().is_some() && self.world.machines.iter().all(|machine| healthy(&machine))
    }

    /// Where everybody stands, for a person.
    fn tell(&self) -> String {
        let tell = |machine: &Arc<crate::world::Machine>| match (machine.probe(), machine.life()) {
            (Some((life, probe)), Life::Running(node)) => {
                let status = node.ready().err().unwrap_or_default();
                format!("n{} (life {life}): {:?} {status}", machine.number, probe.observe())
            }
            (_, Life::Ended(failure)) => format!("n{}: ended: {failure}", machine.number),
            (_, life) => {
                let word = if matches!(life, Life::Down) { "down" } else { "starting" };
                format!("n{}: {word}", machine.number)
            }
        };
        let told: Vec<String> = self.world.machines.iter().map(tell).collect();
        format!("committed {:?}; {}", self.invariants.lock().committed(), told.join("; "))
    }

    /// Takes back what steps leave behind on purpose.
    fn heal(&self) {
        for machine in &self.world.machines {
            executor::set_rate(machine.host, 0);
            executor::set_pauses(machine.host, Pauses::QUICK);
            machine.disk.clear_faults();
            machine.start();
        }
    }

    /// Reads the keys in use through every node: what was acknowledged must be there.
    async fn read_once_more(&self, clients: &Arc<Clients>) {
        let numbers: Vec<usize> = self.world.running().map(|machine| machine.number).collect();
        for number in numbers {
            for key in clients.keys_in_use() {
                clients.read_through(number, &key).await;
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ok, fail, info] = self.operations;
        write!(
            f,
            "seed {}: {} | {:.1} s, {} steps, ok {ok} fail {fail} info {info}, faults {} of {}, deaths {}, looks {}, snapshots {}, \
             {}, deliveries {}, held up {}, trace {:016x}",
            self.seed,
            if self.findings.is_empty() { "ok" } else { "FINDINGS" },
            self.time as f64 / 1e9,
            self.polls,
            self.steps.1,
            self.steps.0,
            self.lawful_deaths,
            self.looks,
            self.snapshots,
            self.rights,
            self.network.deliveries,
            self.network.held_up,
            self.trace,
        )?;
        for finding in &self.findings {
            write!(f, "\n  {}: {}", finding.check, finding.facts)?;
        }
        Ok(())
    }
}
