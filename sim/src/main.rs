//! `sim`: runs clusters on simulated time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use ringfence_canary::Canary;
use ringfence_consensus::rt::simulated::Journal;
use ringfence_sim::run::{Plan, Report, run};
use ringfence_sim::scenarios::Scenario;
use ringfence_sim::schedule::Profile;
use ringfence_sim::{shrink, sweep};

#[derive(Parser)]
#[command(
    name = "sim",
    about = "Runs whole Ringfence clusters on simulated time, network and disks, from a seed"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed.
    Run(RunArgs),
    /// Runs many seeds, and looks for the shortest schedule of each that fails.
    Sweep(SweepArgs),
}

#[derive(Args, Clone)]
struct Common {
    /// Virtual seconds for which clients work and faults strike.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Have the product do this wrong, to see that it is found.
    #[arg(long = "canary", value_name = "NAME")]
    canaries: Vec<String>,
    /// The largest deviation of a clock's rate, in millionths. Beyond 20000 the product promises nothing.
    #[arg(long, default_value_t = Profile::LAWFUL.clock_ppm)]
    clock_ppm: i64,
    /// Mean time between two faults, in milliseconds.
    #[arg(long, default_value_t = Profile::LAWFUL.pause_ms)]
    fault_pause: u64,
    /// Faults and cluster of a named scenario, instead of drawn ones.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(Scenario::ALL.map(Scenario::name)))]
    scenario: Option<String>,
    /// No bit rot: whatever a node finds damaged is then a bug.
    #[arg(long)]
    no_rot: bool,
}

#[derive(Args)]
struct RunArgs {
    /// The seed.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    common: Common,
    /// Only these steps of the schedule, counted from 0: `3,7,9`, or `none`.
    #[arg(long, value_name = "LIST")]
    steps: Option<String>,
    /// Print what the nodes log; RUST_LOG filters it.
    #[arg(long)]
    log: bool,
    /// Write every step of every task to this file, for comparing two runs.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write what clients saw to this file.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Print the schedule.
    #[arg(long)]
    schedule: bool,
}

#[derive(Args)]
struct SweepArgs {
    /// The seeds, as `0..2000`.
    #[arg(long)]
    seeds: String,
    #[command(flatten)]
    common: Common,
    /// Runs at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Stop at the first seed that fails.
    #[arg(long)]
    first: bool,
    /// Runs to spend on shortening the schedule of a seed that fails.
    #[arg(long, default_value_t = 60)]
    shrink: usize,
}

impl Common {
    fn plan(&self, seed: u64) -> anyhow::Result<Plan> {
        let profile =
            Profile { clock_ppm: self.clock_ppm, rot: !self.no_rot, pause_ms: self.fault_pause.max(1) };
        let length = Duration::from_secs(self.seconds);
        let mut plan = match self.scenario.as_deref().and_then(Scenario::from_name) {
            Some(scenario) => scenario.plan(seed, length),
            None => Plan::draw(seed, length, profile),
        };
        for name in &self.canaries {
            let canary = Canary::from_name(name);
            plan.canaries
                .push(canary.with_context(|| format!("there is no canary {name}; there are {}", names()))?);
        }
        Ok(plan)
    }
}

fn names() -> String {
    Canary::ALL.map(Canary::name).join(", ")
}

fn main() -> anyhow::Result<ExitCode> {
    let has_failed = match Cli::parse().command {
        Command::Run(args) => run_one(&args)?,
        Command::Sweep(args) => run_many(&args)?,
    };
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_one(args: &RunArgs) -> anyhow::Result<bool> {
    if args.log {
        ringfence_sim::logging::start();
    }
    let mut plan = args.common.plan(args.seed)?;
    if let Some(list) = &args.steps {
        keep(&mut plan, list)?;
    }
    if args.schedule {
        for (number, step) in plan.steps.iter().enumerate() {
            println!("{number:>3} {step}");
        }
    }
    let create = |path: &PathBuf| -> anyhow::Result<BufWriter<File>> {
        Ok(BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
    };
    let journal = args.trace.as_ref().map(create).transpose()?.map(|file| Box::new(file) as Journal);
    let started = Instant::now();
    let report = run(&plan, journal);
    print(&report, started.elapsed());
    if let Some(path) = &args.history {
        let mut file = create(path)?;
        for event in &report.history {
            ringfence_checker::history::write(&mut file, event)?;
        }
        file.flush()?;
    }
    Ok(!report.findings.is_empty())
}

fn keep(plan: &mut Plan, list: &str) -> anyhow::Result<()> {
    let mut kept = Vec::new();
    for number in list.split(',').filter(|number| *number != "none") {
        let number: usize =
            number.trim().parse().with_context(|| format!("{number:?} is no number of a step"))?;
        let step = plan.steps.get(number);
        kept.push(step.with_context(|| format!("there is no step {number}"))?.clone());
    }
    plan.steps = kept;
    Ok(())
}

fn run_many(args: &SweepArgs) -> anyhow::Result<bool> {
    let bounds =
        args.seeds.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let Some((from, to)) = bounds.filter(|(from, to): &(u64, u64)| from < to) else {
        bail!("{:?} is no range of seeds: give it as 0..100", args.seeds);
    };
    args.common.plan(from)?;
    let plan = |seed| args.common.plan(seed).expect("the names of canaries were checked");
    let started = Instant::now();
    let (mut runs, mut failed, mut virtual_time) = (0, Vec::new(), 0.0);
    sweep::sweep(from..to, args.jobs, plan, |report| {
        runs += 1;
        virtual_time += report.time as f64 / 1e9;
        println!("{report}");
        if !report.findings.is_empty() {
            shorten(args, &plan(report.seed), &report);
            failed.push(report.seed);
        }
        failed.is_empty() || !args.first
    });
    let real = started.elapsed().as_secs_f64();
    println!(
        "{runs} seeds, {virtual_time:.0} virtual seconds in {real:.0} s ({:.0} times as fast), {} failed: {failed:?}",
        virtual_time / real,
        failed.len()
    );
    Ok(!failed.is_empty())
}

/// Finds a short schedule, and tells how to run it again.
fn shorten(args: &SweepArgs, plan: &Plan, report: &Report) {
    let (short, shown) = shrink::shrink(plan, report, args.shrink, |_, _| ());
    let kept = plan.steps.iter().enumerate().filter(|(_, step)| short.steps.contains(step));
    let numbers: Vec<String> = kept.map(|(number, _)| number.to_string()).collect();
    println!("  shortest schedule found ({} of {} steps):", short.steps.len(), plan.steps.len());
    for step in &short.steps {
        println!("    {step}");
    }
    for finding in &shown.findings {
        println!("    {}: {}", finding.check, finding.facts);
    }
    let steps = if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") };
    let canaries: String = args.common.canaries.iter().map(|name| format!(" --canary {name}")).collect();
    let mut profile = if args.common.no_rot { " --no-rot".to_owned() } else { String::new() };
    if let Some(scenario) = &args.common.scenario {
        profile.push_str(&format!(" --scenario {scenario}"));
    }
    let program = std::env::args().next().unwrap_or_else(|| "sim".to_owned());
    println!(
        "  again, with logs: {program} run --seed {} --seconds {} --clock-ppm {} --fault-pause {}{profile}{canaries} --steps {steps} --log",
        plan.seed, args.common.seconds, args.common.clock_ppm, args.common.fault_pause
    );
}

fn print(report: &Report, real: Duration) {
    println!("{report}");
    let times = report.time as f64 / 1e9 / real.as_secs_f64();
    println!("{:.2} s real, {times:.0} times as fast as real time", real.as_secs_f64());
}
