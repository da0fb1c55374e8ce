//! `ringfence scrub`: has every node read its whole state and compare it with what was applied.

use std::io::IsTerminal as _;

use clap::Args;
use futures_util::future::join_all;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use ringfence_client::Client;
use ringfence_proto::ringfence_v1::scrub_verdict::Verdict;
use ringfence_proto::ringfence_v1::{ScrubProgress, ScrubResponse};
use serde::Serialize;

use crate::cli::Shared;
use crate::commands::status::{Member, members};
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line, print_table};
use crate::units::ByteSize;

/// What is shown of a scrub while it goes on.
const TEMPLATE: &str = "{spinner} {prefix}: {msg}";

/// Have every node read its whole state and compare it with what was applied. Asks each member itself, found through any
/// endpoint. Nodes go on serving, and read no faster than their --scrub-rate.
#[derive(Debug, Args)]
pub(crate) struct Scrub {}

/// What came of one node's scrub.
#[derive(Debug, Serialize)]
struct Scrubbed {
    name: String,
    id: Option<u64>,
    client: String,
    /// sound, damaged, overtaken, or failed.
    verdict: &'static str,
    /// The revision at which the state is sound.
    revision: Option<i64>,
    /// Keys that exist.
    keys: u64,
    /// Versions of keys, tombstones included.
    versions: u64,
    /// Bytes read, about.
    bytes: u64,
    /// What is damaged, or why there is no verdict.
    reason: Option<String>,
}

impl Scrub {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client()?;
        let members = members(&client).await?;
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        let scrubbing = members.iter().map(|member| scrub(&client, member, bars.as_ref()));
        let nodes = join_all(scrubbing).await;
        match shared.output {
            Output::Json => print_json(&serde_json::json!({ "nodes": nodes }))?,
            Output::Plain => nodes.iter().try_for_each(|node| print_line(node.verdict))?,
            Output::Table => show(&nodes)?,
        }
        conclude(&nodes)
    }
}

/// Damage is told before all else: it is known, where the rest is only unknown.
fn conclude(nodes: &[Scrubbed]) -> Result<(), Failure> {
    let named = |verdicts: &[&str]| -> Vec<&str> {
        let named = nodes.iter().filter(|node| verdicts.contains(&node.verdict));
        named.map(|node| node.name.as_str()).collect()
    };
    let damaged = named(&["damaged"]);
    if !damaged.is_empty() {
        let message = format!("the state of {} is damaged", damaged.join(", "));
        return Err(Failure::new(Exit::StateCorrupt, message)
            .next("`ringfence status` shows how the others rebuild it; a node that has no others keeps its directory for inspection"));
    }
    let unknown = named(&["failed", "overtaken"]);
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Unavailable, format!("there is no verdict on {}", unknown.join(", ")))
        .next("check that the nodes run, and scrub again"))
}

/// Has one node scrub its state, to the end.
async fn scrub(client: &Client, member: &Member, bars: Option<&MultiProgress>) -> Scrubbed {
    let mut node = Scrubbed {
        name: member.name.clone(),
        id: member.id,
        client: member.client.clone(),
        verdict: "failed",
        revision: None,
        keys: 0,
        versions: 0,
        bytes: 0,
        reason: None,
    };
    let bar = bars.map(|bars| bars.add(bar(&member.name)));
    if let Err(reason) = follow(client, &mut node, bar.as_ref()).await {
        node.reason = Some(reason);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    node
}

fn bar(name: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template(TEMPLATE).expect("the template is a constant that the tests parse");
    ProgressBar::new_spinner().with_style(style).with_prefix(name.to_owned())
}

async fn follow(client: &Client, node: &mut Scrubbed, bar: Option<&ProgressBar>) -> Result<(), String> {
    if node.client.is_empty() {
        return Err("it has not told where clients reach it: has it ever been started?".to_owned());
    }
    let mut answers = client.scrub(&node.client).await.map_err(|error| error.to_string())?;
    while let Some(answer) = answers.message().await.map_err(|status| status.message().to_owned())? {
        node.take(answer);
        if let Some(bar) = bar {
            bar.set_message(format!("{} versions, {}", node.versions, ByteSize(node.bytes)));
            bar.tick();
        }
    }
    if node.verdict == "failed" { Err("it ended without a verdict".to_owned()) } else { Ok(()) }
}

impl Scrubbed {
    fn take(&mut self, answer: ScrubResponse) {
        if let Some(ScrubProgress { versions, keys, bytes }) = answer.progress {
            (self.versions, self.keys, self.bytes) = (versions, keys, bytes);
        }
        match answer.verdict.and_then(|verdict| verdict.verdict) {
            Some(Verdict::Sound(revision)) => (self.verdict, self.revision) = ("sound", Some(revision)),
            Some(Verdict::Damaged(reason)) => (self.verdict, self.reason) = ("damaged", Some(reason)),
            Some(Verdict::Overtaken(_)) => {
                self.verdict = "overtaken";
                self.reason = Some("compaction passed it again and again".to_owned());
            }
            None => {}
        }
    }
}

fn show(nodes: &[Scrubbed]) -> Result<(), Failure> {
    let row = |node: &Scrubbed| {
        [
            node.name.clone(),
            node.client.clone(),
            node.verdict.to_owned(),
            node.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string()),
            node.keys.to_string(),
            node.versions.to_string(),
            ByteSize(node.bytes).to_string(),
        ]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    print_table(["NAME", "CLIENTS", "STATE", "REVISION", "KEYS", "VERSIONS", "READ"], &rows)?;
    for node in nodes {
        if let Some(reason) = &node.reason {
            print_line(&format!("{}: {reason}", node.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(name: &str, verdict: Option<Verdict>) -> Scrubbed {
        let mut node = Scrubbed {
            name: name.to_owned(),
            id: None,
            client: String::new(),
            verdict: "failed",
            revision: None,
            keys: 0,
            versions: 0,
            bytes: 0,
            reason: None,
        };
        let verdict = ringfence_proto::ringfence_v1::ScrubVerdict { verdict };
        node.take(ScrubResponse { progress: None, verdict: Some(verdict) });
        node
    }

    #[test]
    fn damage_counts_before_what_is_unknown_and_both_before_soundness() {
        let sound = || scrubbed("a", Some(Verdict::Sound(7)));
        let damaged = || scrubbed("b", Some(Verdict::Damaged("rot".to_owned())));
        let exit = |nodes: &[Scrubbed]| conclude(nodes).err().map(|failure| failure.exit());
        assert_eq!(exit(&[sound()]), None);
        assert_eq!(exit(&[sound(), scrubbed("c", None), damaged()]), Some(Exit::StateCorrupt));
        assert_eq!(exit(&[sound(), scrubbed("c", None)]), Some(Exit::Unavailable));
        assert_eq!(exit(&[scrubbed("c", Some(Verdict::Overtaken(true)))]), Some(Exit::Unavailable));
    }

    #[test]
    fn the_template_of_the_bar_is_lawful() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
