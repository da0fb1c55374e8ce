//! `ringfence elect`: lead an election until interrupted, or look on.

use std::time::Duration;

use clap::Args;
use ringfence_client::Client;
use ringfence_proto::mvccpb::KeyValue;
use ringfence_proto::v3electionpb::LeaderKey;
use serde_json::json;

use super::session::{Session, SessionFlags, interrupted};
use crate::cli::Shared;
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line};
use crate::record::{ShownKey, shown};

/// Pause before a stream that broke is begun anew.
const OBSERVE_PAUSE: Duration = Duration::from_millis(500);

/// Lead an election until interrupted, or show who leads.
#[derive(Debug, Args)]
pub(crate) struct Elect {
    /// The election's name.
    name: String,
    /// What is said by whoever leads.
    #[arg(long, required_unless_present = "observe", conflicts_with = "observe")]
    value: Option<String>,
    /// Show the leader, and each one that follows, until interrupted.
    #[arg(long)]
    observe: bool,
    #[command(flatten)]
    session: SessionFlags,
}

impl Elect {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client()?;
        match self.value.clone() {
            Some(value) => self.lead(shared.output, client, value).await,
            None => observe(shared.output, client, &self.name).await,
        }
    }

    async fn lead(self, output: Output, client: Client, value: String) -> Result<(), Failure> {
        let mut session = Session::begin(client.clone(), &self.session).await?;
        let name = self.name.clone();
        let what = format!("the election {name:?}");
        let campaign = |client: Client, lease| async move { client.campaign(name, lease, value).await };
        let won = session.win(&what, campaign).await?;
        let leader = won.leader.unwrap_or_default();
        if let Err(failure) = tell_own(output, &self.name, &leader) {
            session.end().await;
            return Err(failure);
        }
        let ended = tokio::select! {
            failure = session.keep_alive() => Err(failure),
            interrupted = interrupted() => interrupted,
        };
        let resigned = client.resign(leader).await;
        session.end().await;
        ended.and(resigned.map(drop).map_err(Failure::from))
    }
}

fn tell_own(output: Output, name: &str, leader: &LeaderKey) -> Result<(), Failure> {
    let (key, token, lease) = (shown(&leader.key), leader.rev, leader.lease);
    match output {
        Output::Json => print_json(&json!({ "name": name, "token": token, "key": key, "lease": lease })),
        Output::Plain => print_line(&format!("{token}\n{key}\n{lease}")),
        Output::Table => {
            print_line(&format!("the election {name:?} is won"))?;
            print_line(&format!("token  {token}\nkey    {key}\nlease  {lease}"))
        }
    }
}

/// Shows each leader; a stream that breaks is begun anew, at whatever node answers.
async fn observe(output: Output, client: Client, name: &str) -> Result<(), Failure> {
    let mut newest = (0, 0);
    loop {
        let mut leaders = client.observe(name.to_owned()).await?;
        loop {
            let leader = match leaders.message().await {
                Ok(Some(answer)) => answer.kv.unwrap_or_default(),
                Ok(None) => break,
                Err(status) => {
                    eprintln!("the stream broke and is begun anew: {}", status.message());
                    break;
                }
            };
            // Another node may begin with what this one has told already, or lag behind it.
            let at = (leader.create_revision, leader.mod_revision);
            if at > newest {
                newest = at;
                tell(output, &leader)?;
            }
        }
        tokio::time::sleep(OBSERVE_PAUSE).await;
    }
}

fn tell(output: Output, leader: &KeyValue) -> Result<(), Failure> {
    match output {
        Output::Json => print_json(&ShownKey::new(leader)),
        Output::Plain => print_line(&shown(&leader.value)),
        Output::Table => {
            let (token, key, value) = (leader.create_revision, shown(&leader.key), shown(&leader.value));
            print_line(&format!("token {token}  {key}  {value}"))
        }
    }
}
