//! One run: a world, a load and faults on it, then everything healed, and the questions.
//!
//! The order matters. Faults end before the load does, so that the last one is followed by writes that must succeed; nobody
//! writes while nodes are compared; what was acknowledged is read last, through every node.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_canary::Canary;
use ringfence_checker::{Budget, Finding, History, Kind, Verdict};

use crate::calendar::Moment;
use crate::checks::{self, Account};
use crate::directory::{self, Recorded};
use crate::load::{self, Load};
use crate::nemesis::{self, Schedule};
use crate::record::{Fault, Results, Run, Sample, What};
use crate::report;
use crate::workload::{self, Workload};
use crate::world::{Capabilities, Capability, Plan, Storage, World, program};

/// The canary that lives in the harness and not in the server: clients send an indefinite write again, and tell of the second
/// answer alone.
pub const RETRYING_CLIENTS: &str = "client-retries-indefinite";
/// How long all checks together may take. What is not decided by then is unknown.
const CHECKS_MAX: Duration = Duration::from_secs(120);
/// How often whoever watches is told how it goes.
const TELL_INTERVAL: Duration = Duration::from_millis(250);
/// A node's word counts for so long.
const WORD_HOLDS: u64 = 1_000_000_000;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Order {
    /// The workload's name.
    pub workload: String,
    /// The nemeses' names.
    pub nemeses: Vec<String>,
    /// How many nodes.
    pub nodes: usize,
    /// How long load and faults last.
    pub time: Duration,
    /// Operations a second.
    pub rate: u64,
    /// How many operations may be under way at once. Where a cut makes many wait, few processes are free for others.
    pub processes: u16,
    /// Everything random is drawn from this.
    pub seed: u64,
    /// Where nodes' disks are.
    pub storage: Storage,
    /// Canaries to arm, by name.
    pub canaries: Vec<String>,
    /// More flags of `ringfence serve`; they win over the harness's own.
    pub flags: Vec<String>,
    /// Whether it ends as soon as a node has ended that must not: nothing else is to be shown then.
    pub until_exit: bool,
    /// The run's directory.
    pub directory: PathBuf,
}

impl Order {
    /// The directory that a run gets if nobody names one: its time, what it does, and its seed.
    #[must_use]
    pub fn directory_name(&self) -> String {
        format!("{}-{}-{}-{}", Moment::now().file_name(), self.workload, self.nemeses.join("+"), self.seed)
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Everything that was recorded, with the verdict.
    pub recorded: Recorded,
    /// The page.
    pub report: PathBuf,
}

/// How a run goes at a moment.
#[derive(Debug, Clone, Default)]
pub struct Glimpse {
    /// What is being done.
    pub stage: &'static str,
    /// Since the load began.
    pub elapsed: Duration,
    /// How far the load is.
    pub progress: load::Progress,
    /// The node that leads.
    pub leader: Option<usize>,
    /// The faults in force; empty: none.
    pub fault: String,
}

/// Hears how a run goes, from any thread.
pub type Watcher<'a> = &'a (dyn Fn(&Glimpse) + Sync);

/// Runs what was ordered, and leaves everything about it in its directory. `stop` ends it early and in order: faults are
/// healed, questions asked, the report drawn.
///
/// # Errors
/// Where the order makes no sense or the machine does not do what the run needs. What servers do wrong is never an error, but
/// a finding.
pub fn run(
    order: &Order,
    capabilities: &Capabilities,
    stop: &AtomicBool,
    watch: Watcher<'_>,
) -> Result<Outcome> {
    let workload = workload::named(&order.workload)?;
    let schedule = Schedule::new(&order.nemeses, order.seed, capabilities)?;
    let tell = |stage| watch(&Glimpse { stage, ..Glimpse::default() });
    tell("building the programs");
    let plan = plan(order, capabilities)?;
    let description = describe(order, capabilities, &plan.program)?;
    std::fs::create_dir_all(&order.directory)
        .with_context(|| format!("cannot make {}", order.directory.display()))?;
    directory::write_json(&order.directory.join(directory::RUN), &description)?;
    tell("starting the cluster");
    let world = World::start(plan.clone(), capabilities)?;
    let load = start_load(order, &world, &workload, plan.program)?;
    let faults = strike(order, &world, &load, &schedule, stop, watch);
    tell("healing");
    load.stop();
    let healed = nemesis::heal(&world);
    tell("reading what was acknowledged");
    let history = load.finish()?;
    let samples = world.samples();
    drop(world);
    tell("checking");
    let account = Account { nodes: order.nodes, faults: &faults, samples: &samples, history: &history };
    let mut findings = judge(&*workload, &account);
    findings.extend(healed);
    let results = results(&history, findings);
    let recorded = Recorded { run: description, history, faults, samples, results };
    recorded.write(&order.directory)?;
    let report = report::write(&order.directory, &recorded)?;
    Ok(Outcome { recorded, report })
}

/// Asks the record of a run everything that can be answered from it alone.
#[must_use]
pub fn judge(workload: &dyn Workload, account: &Account<'_>) -> Vec<Finding> {
    let begun = Instant::now();
    let expired = || begun.elapsed() > CHECKS_MAX;
    let mut findings = workload.check(account.history, Budget::default().until(&expired));
    findings.extend(checks::all(account));
    findings.push(offered(account.history));
    findings
}

/// Puts findings and counts together. The verdict is the worst of all findings.
#[must_use]
pub fn results(history: &History, findings: Vec<Finding>) -> Results {
    let count = |kind| history.iter().filter(|event| event.kind == kind).count() as u64;
    Results {
        verdict: findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Unknown),
        findings,
        operations: [Kind::Ok, Kind::Fail, Kind::Info].map(count),
    }
}

/// A cluster that answers nothing breaks no promise about its answers, and proves nothing.
fn offered(history: &[ringfence_checker::Event]) -> Finding {
    let done = history.iter().filter(|event| event.kind == Kind::Ok).count();
    let tried = history.iter().filter(|event| event.kind == Kind::Invoke).count();
    let summary = format!("{done} of {tried} operations were done");
    if done == 0 { Finding::unknown("operations", summary) } else { Finding::ok("operations", summary) }
}

fn plan(order: &Order, capabilities: &Capabilities) -> Result<Plan> {
    let (in_clients, in_servers): (Vec<&String>, Vec<&String>) =
        order.canaries.iter().partition(|name| *name == RETRYING_CLIENTS);
    for name in &in_servers {
        ensure!(Canary::from_name(name).is_some(), "there is no canary {name:?}; `jepsen list` shows all");
    }
    ensure!(in_clients.len() <= 1, "the canary {RETRYING_CLIENTS} is armed or not, and not several times");
    let program = if in_servers.is_empty() { program::server() } else { program::canary_server() };
    let shim = capabilities.has(Capability::Shim).then(program::shim).transpose()?;
    Ok(Plan {
        nodes: order.nodes,
        directory: order.directory.clone(),
        program: program?,
        shim,
        canaries: in_servers.into_iter().cloned().collect(),
        flags: nemesis::NODE_FLAGS
            .map(str::to_owned)
            .into_iter()
            .chain(order.flags.iter().cloned())
            .collect(),
        storage: order.storage,
        seed: order.seed,
    })
}

fn describe(order: &Order, capabilities: &Capabilities, program: &Path) -> Result<Run> {
    let output = std::process::Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("{} cannot be run", program.display()))?;
    let mut options: Vec<String> = order.flags.iter().map(|flag| format!("--serve={flag}")).collect();
    if order.storage == Storage::Disk {
        options.push("--storage=disk".to_owned());
    }
    if order.processes != load::PROCESSES {
        options.push(format!("--processes={}", order.processes));
    }
    Ok(Run {
        workload: order.workload.clone(),
        nemeses: order.nemeses.clone(),
        nodes: order.nodes,
        seconds: order.time.as_secs_f64(),
        rate: order.rate,
        seed: order.seed,
        started: Moment::now().rfc3339(),
        program: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        canaries: order.canaries.clone(),
        options,
        left_out: capabilities.missing().map(|(capability, why)| format!("{capability} ({why})")).collect(),
    })
}

fn start_load(
    order: &Order,
    world: &World,
    workload: &std::sync::Arc<dyn Workload>,
    program: PathBuf,
) -> Result<Load> {
    let addresses = (1..=world.nodes()).map(|node| world.client_address(node)).collect();
    let retry_indefinite = order.canaries.iter().any(|name| name == RETRYING_CLIENTS);
    let usual = load::Options::new(order.rate, order.seed, program);
    let options = load::Options { retry_indefinite, processes: order.processes, ..usual };
    let sink = order.directory.join(directory::HISTORY);
    Load::start(
        world.client_place(),
        addresses,
        world.clock(),
        std::sync::Arc::clone(workload),
        options,
        &sink,
    )
}

/// Lets load and faults go on for the run's time. When this returns, every fault is healed.
fn strike(
    order: &Order,
    world: &World,
    load: &Load,
    schedule: &Schedule,
    stop: &AtomicBool,
    watch: Watcher<'_>,
) -> Vec<Fault> {
    let clock = world.clock();
    let begun = Instant::now();
    let until = clock.now() + u64::try_from(order.time.as_nanos()).unwrap_or(u64::MAX);
    let in_force = Mutex::new(String::new());
    let (over, halt) = (AtomicBool::new(false), AtomicBool::new(false));
    let lock = || in_force.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let samples = world.samples();
                watch(&Glimpse {
                    stage: "running",
                    elapsed: begun.elapsed(),
                    progress: load.progress(),
                    leader: leader(&samples, clock.now()),
                    fault: lock().clone(),
                });
                if stop.load(Ordering::Relaxed) || (order.until_exit && samples.iter().any(ended_unlawfully))
                {
                    halt.store(true, Ordering::Relaxed);
                }
                thread::sleep(TELL_INTERVAL);
            }
        });
        let faults = schedule.run(world, until, &halt, &|name| name.clone_into(&mut lock()));
        // No further fault had room; the load has its whole time nevertheless.
        while clock.now() < until && !halt.load(Ordering::Relaxed) {
            thread::sleep(TELL_INTERVAL.min(Duration::from_millis(20)));
        }
        over.store(true, Ordering::Relaxed);
        faults
    })
}

fn ended_unlawfully(sample: &Sample) -> bool {
    matches!(sample.what, What::Exited { expected: false, .. })
}

/// The node that said last that it leads, and not long ago.
fn leader(samples: &[Sample], now: u64) -> Option<usize> {
    let recent = samples.iter().rev().take_while(|sample| sample.time + WORD_HOLDS >= now);
    recent
        .filter(|sample| matches!(sample.what, What::Status { leads: true, .. }))
        .map(|sample| sample.node)
        .next()
}
