//! Commands and their options. Reading order: this file, [`commands`] (what each does), then `progress`, `stop` and `table`.

mod commands;
mod progress;
mod stop;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ringfence_checker::Verdict;
use ringfence_jepsen::load::PROCESSES;
use ringfence_jepsen::world::Storage;

/// Runs a cluster of real servers under real faults, and judges what its clients saw.
#[derive(Debug, Parser)]
#[command(name = "jepsen", version, after_help = Exit::TABLE)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show workloads, faults, canaries, and what this machine can do.
    List,
    /// Run one workload under faults, and draw its report.
    Run(RunArguments),
    /// Judge a history, or a run's directory, again.
    Check {
        /// A `history.jsonl`, or the directory of a run.
        path: PathBuf,
    },
    /// Draw the report of a run's directory again.
    Report {
        /// The directory of a run.
        directory: PathBuf,
    },
    /// Run random workloads under random faults, one after the other.
    Soak(SoakArguments),
    /// Make the server wrong on purpose, and see that this is noticed.
    Canary(CanaryArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// What clients do.
    #[arg(long, default_value = "register")]
    workload: String,
    /// What is done to the cluster; of several, one after the other. `A+B` is both at once.
    #[arg(long, value_delimiter = ',', default_value = "mix", value_name = "NAME[,NAME]")]
    nemesis: Vec<String>,
    /// How many nodes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// How long load and faults last: `90s`, `5m`.
    #[arg(long, default_value = "60s", value_parser = duration)]
    time: Duration,
    /// Operations a second, offered whatever the cluster does.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// How many operations may be under way at once.
    #[arg(long, default_value_t = PROCESSES, value_parser = clap::value_parser!(u16).range(1..))]
    processes: u16,
    /// What everything random is drawn from [default: the time].
    #[arg(long)]
    seed: Option<u64>,
    /// A canary to arm; may be given several times.
    #[arg(long, value_name = "NAME")]
    canary: Vec<String>,
    /// One more flag of `ringfence serve`: `--serve=--leader-lease=2s`; may be given several times.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    serve: Vec<String>,
    /// The directory of the run [default: one of its own in `jepsen-runs`].
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArguments,
}

#[derive(Debug, Args)]
struct SoakArguments {
    /// For how many hours.
    #[arg(long, required_unless_present = "minutes", conflicts_with = "minutes")]
    hours: Option<f64>,
    /// For how many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// How many nodes each cluster has.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Operations a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// What the runs are drawn from [default: the time].
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    machine: MachineArguments,
}

#[derive(Debug, Args)]
struct CanaryArguments {
    /// The canaries to try [default: all].
    names: Vec<String>,
    /// The seed of each one's first try [default: the time].
    #[arg(long)]
    seed: Option<u64>,
    /// The directory of all tries [default: one of its own in `jepsen-runs`].
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArguments,
}

#[derive(Debug, Args)]
struct MachineArguments {
    /// What this machine must be able to do, so that nothing is left out in silence: `all`, or names from `jepsen list`.
    #[arg(long, value_delimiter = ',', value_name = "all|NAME[,NAME]")]
    require: Vec<String>,
    /// Where the disks of nodes are.
    #[arg(long, value_enum, default_value = "memory")]
    storage: StorageChoice,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StorageChoice {
    /// In memory: fast.
    Memory,
    /// In the run's directory: syncs cost what they cost there.
    Disk,
}

impl From<StorageChoice> for Storage {
    fn from(choice: StorageChoice) -> Storage {
        match choice {
            StorageChoice::Memory => Storage::Memory,
            StorageChoice::Disk => Storage::Disk,
        }
    }
}

/// How a command can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing wrong was seen, and all was decided.
    Good = 0,
    /// A promise was broken, or a canary not caught.
    Violation = 1,
    /// Something could not be decided, or not be run.
    Unknown = 2,
}

impl Exit {
    const TABLE: &'static str = "\
Exit codes:
  0  nothing wrong was seen, and all was decided
  1  a promise was broken, or a canary was not caught
  2  something could not be decided, or not be run; the command line cannot be understood";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Exit {
        match verdict {
            Verdict::Ok => Exit::Good,
            Verdict::Unknown => Exit::Unknown,
            Verdict::Violation => Exit::Violation,
        }
    }
}

/// Does what the command line asks for.
///
/// # Errors
/// Where it cannot be done. What servers do wrong is no error, but an exit code.
pub fn dispatch(cli: Cli) -> Result<Exit> {
    match cli.command {
        Command::List => Ok(commands::list()),
        Command::Run(arguments) => commands::run(arguments),
        Command::Check { path } => commands::check(&path),
        Command::Report { directory } => commands::report(&directory),
        Command::Soak(arguments) => commands::soak(&arguments),
        Command::Canary(arguments) => commands::canary(&arguments),
    }
}

/// Reads `90s`, `1.5m`, `2h`, or seconds without a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1.0,
        "ms" => 1e-3,
        "m" => 60.0,
        "h" => 3_600.0,
        other => return Err(format!("{other:?} is no unit of time; there are ms, s, m and h")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("{digits:?} is no number"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        let read = ["90s", "1.5m", "2h", "250ms", "60"]
            .map(|text| duration(text).expect("it is a time").as_millis());
        assert_eq!(read, [90_000, 90_000, 7_200_000, 250, 60_000]);
        for wrong in ["", "s", "-3s", "5d", "1e99h", "NaN"] {
            assert!(duration(wrong).is_err(), "{wrong:?} was taken for a time");
        }
    }

    #[test]
    fn every_verdict_has_a_code_of_its_own() {
        assert_eq!(Exit::from(Verdict::Ok) as u8, 0);
        assert_eq!(Exit::from(Verdict::Violation) as u8, 1);
        assert_eq!(Exit::from(Verdict::Unknown) as u8, 2);
    }
}
