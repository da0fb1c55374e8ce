//! `ringfence recover`: what one member of a cluster that has lost its majority still holds begins a new cluster.

mod swap;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ringfence_consensus::{Survey, Survivor};
use ringfence_disk::{Disk, OsDisk};
use ringfence_store::snapshot_file::Summary;
use serde_json::json;

use crate::cli::Shared;
use crate::commands::serve::{self, data_dir};
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};
use swap::Swap;

/// Make a new cluster of one out of a member that is left when a majority of its cluster is lost for good. The member must
/// be stopped. Everything in its log is kept; what only the lost members had is lost. Revisions and tokens go on growing, as
/// after `snapshot restore`, and the old directory is kept aside.
#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The member's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
}

impl Recover {
    pub(crate) fn run(self, shared: &Shared) -> Result<(), Failure> {
        if !self.data_dir.is_dir() {
            return Err(Failure::new(Exit::NotFound, format!("{} is no directory", self.data_dir.display()))
                .next("give the data directory of the member that is left with --data-dir"));
        }
        let _lock = data_dir::lock(&self.data_dir)?;
        let swap = Swap::new(&self.data_dir);
        if swap.is_interrupted()? {
            // It was confirmed, and all that was read from the old files has been written.
            let aside = swap.finish()?;
            return tell_end(shared.output, &self.data_dir, &aside, None);
        }
        let disk: Arc<dyn Disk> = OsDisk::open(&self.data_dir)?;
        let survivor = Survivor::open(&disk).map_err(unusable)?;
        tell_survey(survivor.survey())?;
        if !self.yes {
            confirm()?;
        }
        let target = OsDisk::open(swap.prepare()?)?;
        let summary = survivor.begin_anew(target.as_ref()).map_err(unusable)?;
        let survey = survivor.survey().clone();
        drop(survivor);
        let aside = swap.finish()?;
        tell_end(shared.output, &self.data_dir, &aside, Some((&survey, &summary)))
    }
}

/// Refuses a data directory in which a recovery has begun to move the files: what is missing there is no sign of a fresh one.
pub(crate) fn check_not_interrupted(data_dir: &Path) -> Result<(), Failure> {
    if !Swap::new(data_dir).is_interrupted()? {
        return Ok(());
    }
    let again = format!("run it again: ringfence recover --data-dir {}", data_dir.display());
    Err(Failure::new(Exit::Identity, "a recovery of the data directory was interrupted").next(again))
}

fn unusable(failure: ringfence_consensus::Failure) -> Failure {
    serve::from_node(failure).next(
        "give the data directory of a member that is left; where there is none, `ringfence snapshot restore` begins from a \
         backup",
    )
}

/// Tells what is about to happen, on standard error: standard output is for what has.
fn tell_survey(survey: &Survey) -> Result<(), Failure> {
    let index =
        |index: Option<ringfence_types::Index>| index.map_or("none".to_owned(), |index| index.to_string());
    let others: Vec<&str> =
        survey.voters.iter().map(String::as_str).filter(|name| *name != survey.name).collect();
    let mut to = io::stderr().lock();
    writeln!(
        to,
        "member {} of cluster {:016x} (voters {})",
        survey.name,
        survey.cluster_id,
        survey.voters.join(", ")
    )?;
    writeln!(
        to,
        "its log ends at entry {}, revision {}, and it knows entry {} to be committed; entries after that one: {}, kept, since \
         each was acknowledged, or its client was told that it may have happened",
        index(survey.last),
        survey.revision,
        index(survey.committed),
        survey.entries_beyond_commit()
    )?;
    writeln!(
        to,
        "lost: what was acknowledged and never reached this member, and all leases with their keys"
    )?;
    if !others.is_empty() {
        writeln!(
            to,
            "never start these with their old directories again: {}. A majority of them would go on as the old cluster",
            others.join(", ")
        )?;
    }
    Ok(())
}

/// Asks the person at the terminal.
fn confirm() -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Refused, "this ends a cluster, and nobody is there to confirm it")
            .next("run it on a terminal, or with --yes"));
    }
    write!(io::stderr(), "make a new cluster of this? Type yes: ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        return Err(Failure::new(Exit::Refused, "not confirmed: nothing has changed"));
    }
    Ok(())
}

/// `made` is what has been made of what; none where an interrupted run made it.
fn tell_end(
    output: Output,
    data_dir: &Path,
    aside: &Path,
    made: Option<(&Survey, &Summary)>,
) -> Result<(), Failure> {
    match output {
        Output::Json => print_json(&json!({
            "data_dir": data_dir,
            "set_aside": aside,
            "name": made.map(|(survey, _)| &survey.name),
            "old_cluster": made.map(|(survey, _)| format!("{:016x}", survey.cluster_id)),
            "entries_beyond_commit": made.map(|(survey, _)| survey.entries_beyond_commit()),
            "old_revision": made.map(|(survey, _)| survey.revision.0),
            "revision": made.map(|(_, summary)| summary.revision.0),
            "keys": made.map(|(_, summary)| summary.keys),
        })),
        Output::Plain => print_line(&aside.display().to_string()),
        Output::Table => {
            match made {
                Some((_, summary)) => print_line(&format!(
                    "recovered {} keys; the new cluster begins at revision {}",
                    summary.keys, summary.revision
                ))?,
                None => print_line("finished the recovery that was interrupted")?,
            }
            print_line(&format!("the old files are kept in {}", aside.display()))?;
            let name = made.map_or("NAME", |(survey, _)| &survey.name);
            print_line(&format!(
                "start it: ringfence serve --name {name} --data-dir {} --bootstrap ...",
                data_dir.display()
            ))
        }
    }
}
