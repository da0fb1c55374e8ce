//! What each command does.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use ringfence_checker::{Budget, Finding, Verdict};
use ringfence_jepsen::calendar::Moment;
use ringfence_jepsen::canary::{self, Catch};
use ringfence_jepsen::checks::Account;
use ringfence_jepsen::directory::{self, Recorded};
use ringfence_jepsen::run::{self, Order};
use ringfence_jepsen::soak::{Row, Soak};
use ringfence_jepsen::world::{Capabilities, Capability};
use ringfence_jepsen::{nemesis, report as page, workload};

use super::progress::Progress;
use super::stop::{self, STOP};
use super::table::{line, table};
use super::{CanaryArguments, Exit, MachineArguments, RunArguments, SoakArguments};

/// Where runs go if nobody says otherwise.
const RUNS: &str = "jepsen-runs";
/// Checks that ask the nodes themselves, and so cannot be asked again later.
const ASKED_ONCE: [&str; 2] = ["healthy-at-end", "hashes-equal"];

/// Shows what can be chosen.
pub(super) fn list() -> Exit {
    let capabilities = Capabilities::probe();
    let workloads: Vec<[String; 2]> = workload::registry()
        .iter()
        .map(|entry| [entry.name.to_owned(), entry.description.to_owned()])
        .collect();
    let nemeses: Vec<[String; 3]> = nemesis::registry()
        .map(|nemesis| {
            let missing: Vec<&str> = nemesis
                .needs
                .iter()
                .filter(|need| !capabilities.has(**need))
                .map(|need| need.name())
                .collect();
            let can =
                if missing.is_empty() { "yes".to_owned() } else { format!("lacks {}", missing.join(", ")) };
            [nemesis.name.to_owned(), can, nemesis.about.to_owned()]
        })
        .collect();
    let able: Vec<[String; 3]> = Capability::ALL
        .iter()
        .map(|capability| {
            let can = capabilities
                .why_not(*capability)
                .map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
            [capability.name().to_owned(), capability.description().to_owned(), can]
        })
        .collect();
    let canaries: Vec<[String; 3]> = canary::TRAPS
        .iter()
        .map(|trap| [trap.canary.to_owned(), trap.workload.to_owned(), trap.nemeses.join(", ")])
        .collect();
    println!("{}", table(["WORKLOAD", "WHAT CLIENTS DO, AND WHAT MUST HOLD"], &workloads));
    println!("{}", table(["NEMESIS", "HERE", "WHAT IS DONE"], &nemeses));
    println!("{}", table(["CANARY", "WORKLOAD", "FAULTS THAT EXPOSE IT"], &canaries));
    print!("{}", table(["CAPABILITY", "MADE OF", "HERE"], &able));
    Exit::Good
}

/// Runs once.
pub(super) fn run(arguments: RunArguments) -> Result<Exit> {
    let capabilities = capabilities(&arguments.machine)?;
    let order = Order {
        workload: arguments.workload,
        nemeses: arguments.nemesis,
        nodes: arguments.nodes.into(),
        time: arguments.time,
        rate: arguments.rate,
        processes: arguments.processes,
        seed: arguments.seed.unwrap_or_else(seed_of_the_time),
        storage: arguments.machine.storage.into(),
        canaries: arguments.canary,
        flags: arguments.serve,
        until_exit: false,
        directory: PathBuf::new(),
    };
    let directory = arguments.keep.unwrap_or_else(|| Path::new(RUNS).join(order.directory_name()));
    let order = Order { directory, ..order };
    stop::listen()?;
    let progress = Progress::new(Some(order.time));
    let outcome = run::run(&order, &capabilities, &STOP, &|glimpse| progress.show(glimpse));
    progress.clear();
    let outcome = outcome?;
    let results = &outcome.recorded.results;
    print_failures(&results.findings);
    let [ok, fail, info] = results.operations;
    println!(
        "{}: {ok} ok, {fail} fail, {info} info under {} faults, seed {}: {}",
        verdict_word(results.verdict),
        outcome.recorded.faults.len(),
        order.seed,
        outcome.report.display()
    );
    Ok(results.verdict.into())
}

/// Judges a history or a run's directory.
pub(super) fn check(path: &Path) -> Result<Exit> {
    let findings = if path.is_dir() {
        judge_again(&Recorded::read(path)?)?
    } else {
        ringfence_checker::judge(&directory::read_history(path)?, Budget::default())
    };
    let rows: Vec<[String; 3]> = findings
        .iter()
        .map(|finding| {
            [verdict_word(finding.verdict).to_owned(), finding.check.clone(), finding.summary.clone()]
        })
        .collect();
    print!("{}", table(["VERDICT", "CHECK", "WHAT WAS SEEN"], &rows));
    Ok(worst(findings.iter().map(|finding| finding.verdict)))
}

/// Draws a run's page again.
pub(super) fn report(directory: &Path) -> Result<Exit> {
    let path = page::write(directory, &Recorded::read(directory)?)?;
    println!("{}", path.display());
    Ok(Exit::Good)
}

/// Runs until the time is over.
pub(super) fn soak(arguments: &SoakArguments) -> Result<Exit> {
    let capabilities = capabilities(&arguments.machine)?;
    let seed = arguments.seed.unwrap_or_else(seed_of_the_time);
    let seconds = arguments.hours.map_or(60.0 * arguments.minutes.unwrap_or(0.0), |hours| 3_600.0 * hours);
    let soak = Soak {
        time: Duration::try_from_secs_f64(seconds)?,
        nodes: arguments.nodes.into(),
        rate: arguments.rate,
        seed,
        storage: arguments.machine.storage.into(),
        directory: Path::new(RUNS).join(format!("{}-soak-{seed}", Moment::now().file_name())),
    };
    stop::listen()?;
    let progress = Progress::new(None);
    println!("soak with seed {seed}, in {}", soak.directory.display());
    print!("{}", line(&SOAK_HEAD.map(str::to_owned), &SOAK_WIDTHS));
    let mut tell = |row: &Row| {
        progress.clear();
        print!("{}", line(&soak_cells(row), &SOAK_WIDTHS));
        for failure in failures_of(row) {
            println!("     {failure}");
        }
    };
    let rows = soak.run(&capabilities, &STOP, &|glimpse| progress.show(glimpse), &mut tell);
    progress.clear();
    let summary = soak_summary(&rows);
    print!("\n{summary}");
    std::fs::create_dir_all(&soak.directory)?;
    std::fs::write(soak.directory.join("summary.txt"), &summary)?;
    Ok(worst(rows.iter().map(|row| row.outcome.as_ref().map_or(Verdict::Unknown, |figures| figures.verdict))))
}

/// Tries to catch canaries.
pub(super) fn canary(arguments: &CanaryArguments) -> Result<Exit> {
    let capabilities = capabilities(&arguments.machine)?;
    let traps = canary::traps(&arguments.names)?;
    let seed = arguments.seed.unwrap_or_else(seed_of_the_time);
    let usual = || Path::new(RUNS).join(format!("{}-canary", Moment::now().file_name()));
    let directory = arguments.keep.clone().unwrap_or_else(usual);
    stop::listen()?;
    let progress = Progress::new(None);
    let mut catches = Vec::new();
    for trap in traps {
        if let Err(why) = trap.can_be_set(&capabilities) {
            println!("{} is left out: {why:#}", trap.canary);
            continue;
        }
        let caught =
            canary::catch(trap, &directory, seed, &capabilities, &STOP, &|glimpse| progress.show(glimpse));
        progress.clear();
        if STOP.load(Ordering::Relaxed) && caught.finding.is_none() {
            bail!("interrupted before {} was caught", trap.canary);
        }
        eprintln!("{}", canary_cells(&caught).join("  "));
        catches.push(caught);
    }
    let rows: Vec<[String; 5]> = catches.iter().map(canary_cells).collect();
    print!("{}", table(["CANARY", "CAUGHT", "TRIES", "BY", "REPORT"], &rows));
    Ok(match &catches[..] {
        [] => Exit::Unknown,
        some if some.iter().all(|caught| caught.finding.is_some()) => Exit::Good,
        _ => Exit::Violation,
    })
}

/// What this machine can do, which must be all that is required.
fn capabilities(arguments: &MachineArguments) -> Result<Capabilities> {
    let capabilities = Capabilities::probe();
    let known =
        |name: &str| name == "all" || Capability::ALL.iter().any(|capability| capability.name() == name);
    if let Some(unknown) = arguments.require.iter().find(|name| !known(name)) {
        bail!("there is no capability {unknown:?}; `jepsen list` shows all");
    }
    let required = |capability: Capability| {
        arguments.require.iter().any(|name| name == "all" || name == capability.name())
    };
    let missing: Vec<String> = capabilities
        .missing()
        .filter(|(capability, _)| required(*capability))
        .map(|(capability, why)| format!("{capability} ({why})"))
        .collect();
    if !missing.is_empty() {
        bail!("this machine cannot do what is required: {}", missing.join("; "));
    }
    for (capability, why) in capabilities.missing() {
        eprintln!("left out: whatever needs the capability {capability}: {why}");
    }
    Ok(capabilities)
}

/// Everything that can be asked again, and the answers to what cannot.
fn judge_again(recorded: &Recorded) -> Result<Vec<Finding>> {
    let workload = workload::named(&recorded.run.workload)?;
    let account = Account {
        nodes: recorded.run.nodes,
        faults: &recorded.faults,
        samples: &recorded.samples,
        history: &recorded.history,
    };
    let mut findings = run::judge(&*workload, &account);
    let once = |finding: &&Finding| ASKED_ONCE.contains(&finding.check.as_str());
    findings.extend(recorded.results.findings.iter().filter(once).cloned());
    Ok(findings)
}

/// The worst decides; of nothing nothing is known.
fn worst(verdicts: impl Iterator<Item = Verdict>) -> Exit {
    verdicts.max().unwrap_or(Verdict::Unknown).into()
}

fn print_failures(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.verdict != Verdict::Ok) {
        println!("{}: {}: {}", verdict_word(finding.verdict), finding.check, finding.summary);
    }
}

const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Unknown => "unknown",
        Verdict::Violation => "VIOLATION",
    }
}

const SOAK_HEAD: [&str; 9] =
    ["#", "VERDICT", "WORKLOAD", "NEMESES", "SECONDS", "FAULTS", "OK", "FAIL/INFO", "SEED"];
const SOAK_WIDTHS: [usize; 9] = [4, 9, 11, 34, 7, 6, 7, 11, 10];

fn soak_cells(row: &Row) -> [String; 9] {
    let order = &row.order;
    let (verdict, faults, ok, others) = match &row.outcome {
        Ok(figures) => {
            let [ok, fail, info] = figures.operations;
            let verdict = verdict_word(figures.verdict).to_owned();
            (verdict, figures.faults.to_string(), ok.to_string(), format!("{fail}/{info}"))
        }
        Err(_) => ("NOT RUN".to_owned(), String::new(), String::new(), String::new()),
    };
    [
        row.number.to_string(),
        verdict,
        order.workload.clone(),
        order.nemeses.join(","),
        order.time.as_secs().to_string(),
        faults,
        ok,
        others,
        order.seed.to_string(),
    ]
}

fn failures_of(row: &Row) -> Vec<String> {
    match &row.outcome {
        Ok(figures) if row.is_good() => {
            debug_assert!(figures.failures.is_empty(), "a good run has no failures");
            Vec::new()
        }
        Ok(figures) => {
            let kept = format!("kept in {}", row.order.directory.display());
            figures.failures.iter().cloned().chain([kept]).collect()
        }
        Err(error) => vec![error.clone()],
    }
}

fn soak_summary(rows: &[Row]) -> String {
    let cells: Vec<[String; 9]> = rows.iter().map(soak_cells).collect();
    let good = rows.iter().filter(|row| row.is_good()).count();
    let operations: u64 =
        rows.iter().filter_map(|row| row.outcome.as_ref().ok()).map(|figures| figures.operations[0]).sum();
    let faults: usize =
        rows.iter().filter_map(|row| row.outcome.as_ref().ok()).map(|figures| figures.faults).sum();
    let mut summary = table(SOAK_HEAD, &cells);
    for row in rows {
        for failure in failures_of(row) {
            summary += &format!("run {}: {failure}\n", row.number);
        }
    }
    summary
        + &format!("{good} of {} runs were good: {operations} operations under {faults} faults\n", rows.len())
}

fn canary_cells(caught: &Catch) -> [String; 5] {
    let (word, by) = match &caught.finding {
        Some(finding) => ("yes", finding.check.clone()),
        None => ("NO", String::new()),
    };
    let report = match &caught.report {
        Ok(path) => path.display().to_string(),
        Err(error) => error.clone(),
    };
    [caught.trap.canary.to_owned(), word.to_owned(), caught.tries.to_string(), by, report]
}

/// A seed that nobody chose: short enough to be typed.
fn seed_of_the_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ (since.as_secs() & 0xffff)
}
