//! How far a member is on its way to its vote: a bar on a terminal, now and then a line elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ringfence_client::Client;
use ringfence_proto::etcdserverpb::Member;

use super::name_of;
use crate::cli::Shared;
use crate::commands::metrics::Metrics;
use crate::exit::{Exit, Failure};
use crate::units::ByteSize;

/// How often the cluster is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
const TEMPLATE: &str = "{spinner} [{bar:30}] {msg} {elapsed}";

/// How far the new member is.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// It has not started yet.
    Awaited,
    /// It is being sent a snapshot.
    Snapshot { sent: u64, total: u64 },
    /// It lacks so many entries; none known before the leader has heard from it.
    Entries(Option<u64>),
    /// It votes, and the other is still a member.
    Voting,
    /// It is done.
    Done,
}

/// Waits until the member `new` votes and the member `old` is gone.
pub(super) async fn until_voter(
    shared: &Shared,
    client: &Client,
    new: u64,
    old: u64,
    longest: Duration,
) -> Result<Member, Failure> {
    let mut progress = Progress::start();
    let deadline = Instant::now() + longest;
    while Instant::now() < deadline {
        // An election in between is no reason to give up.
        if let Ok(answer) = client.member_list(true).await {
            let Some(member) = answer.members.iter().find(|member| member.id == new) else {
                progress.end();
                return Err(Failure::new(Exit::Refused, format!("member {new:x} was removed meanwhile")));
            };
            let stage =
                stage(shared, client, member, answer.members.iter().any(|other| other.id == old)).await;
            progress.tell(member, &stage);
            if stage == Stage::Done {
                progress.end();
                return Ok(member.clone());
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    progress.end();
    Err(Failure::new(Exit::Unavailable, format!("member {new:x} does not vote yet"))
        .next("the change goes on by itself; the same command waits for it again"))
}

async fn stage(shared: &Shared, client: &Client, member: &Member, old_is_there: bool) -> Stage {
    match (member.name.is_empty(), member.is_learner, old_is_there) {
        (true, _, _) => return Stage::Awaited,
        (false, false, true) => return Stage::Voting,
        (false, false, false) => return Stage::Done,
        (false, true, _) => {}
    }
    let Some(leader) = client.find_leader().await else { return Stage::Entries(None) };
    let metrics = Metrics::fetch(&leader, shared.timeout()).await.unwrap_or_default();
    let of = |name: &str| metrics.of_member(name, member.id).map(|value| value as u64);
    match (of("ringfence_peer_snapshot_sent_bytes"), of("ringfence_peer_snapshot_bytes")) {
        (Some(sent), Some(total)) if total > 0 => Stage::Snapshot { sent, total },
        _ => Stage::Entries(of("ringfence_peer_lag_entries")),
    }
}

/// Tells the stages on standard error.
struct Progress {
    bar: Option<ProgressBar>,
    told: Option<Instant>,
    /// When the transfer was seen for the first time, with the bytes that had been sent by then.
    transfer: Option<(Instant, u64)>,
}

impl Progress {
    fn start() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE);
            ProgressBar::new(1).with_style(style.expect("the template is a constant that the tests parse"))
        });
        Progress { bar, told: None, transfer: None }
    }

    fn tell(&mut self, member: &Member, stage: &Stage) {
        let text = format!("{}: {}", name_of(member), self.words(stage));
        if let Some(bar) = &self.bar {
            let (done, total) = match stage {
                Stage::Snapshot { sent, total } => (*sent, *total),
                Stage::Voting | Stage::Done => (1, 1),
                Stage::Awaited | Stage::Entries(_) => (0, 1),
            };
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(text);
            bar.tick();
        } else if self.told.is_none_or(|told| told.elapsed() >= LINE_INTERVAL) {
            self.told = Some(Instant::now());
            eprintln!("{text}");
        }
    }

    fn words(&mut self, stage: &Stage) -> String {
        match stage {
            Stage::Awaited => "has not started yet".to_owned(),
            Stage::Snapshot { sent, total } => {
                let (since, before) = *self.transfer.get_or_insert((Instant::now(), *sent));
                let left =
                    seconds_left(since.elapsed(), sent.saturating_sub(before), total.saturating_sub(*sent));
                let left = left.map_or_else(String::new, |left| format!(", {left} s left"));
                format!("snapshot {} of {}{left}", ByteSize(*sent), ByteSize(*total))
            }
            Stage::Entries(Some(entries)) => format!("{entries} entries behind"),
            Stage::Entries(None) => "the leader has not heard from it yet".to_owned(),
            Stage::Voting => "votes; the other leaves".to_owned(),
            Stage::Done => "votes".to_owned(),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Seconds that the rest takes at the rate so far; none while that says nothing.
fn seconds_left(elapsed: Duration, done: u64, rest: u64) -> Option<u64> {
    if elapsed < LOOK_INTERVAL || done == 0 {
        return None;
    }
    Some((elapsed.as_secs_f64() * rest as f64 / done as f64).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_bar_is_lawful() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn the_rest_takes_as_long_as_the_rate_says() {
        assert_eq!(seconds_left(Duration::from_secs(2), 100, 300), Some(6));
        assert_eq!(seconds_left(Duration::from_secs(2), 0, 300), None);
        assert_eq!(seconds_left(Duration::from_millis(1), 100, 300), None);
    }
}
