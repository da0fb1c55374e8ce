//! `ringfence leader`: who leads, and who shall.

use std::time::{Duration, Instant};

use clap::Subcommand;
use ringfence_client::Client;
use ringfence_proto::etcdserverpb::Member;
use serde_json::json;

use crate::cli::Shared;
use crate::commands::member::{find, name_of};
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};

/// How often the nodes are asked who leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Move the leadership.
#[derive(Debug, Subcommand)]
pub(crate) enum Leader {
    /// Hand the leadership to another voter, without a gap in which nobody leads for long.
    Transfer {
        /// Name or (hexadecimal) id of the new leader; any other voter if left out.
        #[arg(long, value_name = "MEMBER")]
        to: Option<String>,
    },
}

impl Leader {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let Leader::Transfer { to } = self;
        let client = shared.client()?;
        let members = client.member_list(false).await?.members;
        // The cluster's own addresses reach the leader even where --endpoints names followers alone.
        let client = with_members(shared, &client, &members)?;
        let leader = wait_for_leader(&client, shared.timeout(), |_| true).await?;
        let target = choose(&members, to.as_deref(), leader)?;
        if target.id != leader {
            client.move_leader(target.id).await?;
            wait_for_leader(&client, shared.timeout(), |leader| leader == target.id).await?;
        }
        let name = name_of(target);
        match shared.output {
            Output::Json => print_json(&json!({ "leader": name, "id": target.id })),
            Output::Plain => print_line(&name),
            Output::Table if target.id == leader => print_line(&format!("{name} leads already")),
            Output::Table => print_line(&format!("{name} leads now")),
        }
    }
}

/// Waits until a node says that it leads, and that it is the wanted one. Right after an election it may take a moment.
async fn wait_for_leader(
    client: &Client,
    timeout: Duration,
    wanted: impl Fn(u64) -> bool,
) -> Result<u64, Failure> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(endpoint) = client.find_leader().await {
            let leader = client.status(&endpoint).await.map_or(0, |status| status.leader);
            if leader != 0 && wanted(leader) {
                return Ok(leader);
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::Unavailable,
                "no reachable node leads, or not the one that shall",
            )
            .next("see `ringfence status`; without a leader there is nothing to hand over"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A client of all members, as far as they told where clients reach them.
fn with_members(shared: &Shared, client: &Client, members: &[Member]) -> Result<Client, Failure> {
    let mut endpoints = client.endpoints();
    endpoints.extend(members.iter().filter_map(|member| member.client_ur_ls.first().cloned()));
    let options = ringfence_client::Options { timeout: shared.timeout(), ..Default::default() };
    Ok(Client::connect(endpoints, options)?)
}

/// The member that shall lead.
fn choose<'a>(members: &'a [Member], wanted: Option<&str>, leader: u64) -> Result<&'a Member, Failure> {
    let Some(wanted) = wanted else {
        let other = members.iter().find(|member| member.id != leader && !member.is_learner);
        return other.ok_or_else(|| Failure::new(Exit::Refused, "there is no other voter that could lead"));
    };
    find(members, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, is_learner: bool) -> Member {
        Member { id, name: name.to_owned(), is_learner, ..Member::default() }
    }

    #[test]
    fn a_target_is_found_by_name_or_id_and_never_a_learner_by_itself() {
        let members = [member(1, "a", false), member(0x100, "b", true), member(3, "c", false)];
        assert_eq!(choose(&members, Some("c"), 1).expect("it is there").id, 3);
        assert_eq!(choose(&members, Some("0x100"), 1).expect("it is there").name, "b");
        assert_eq!(choose(&members, None, 1).expect("there is another voter").name, "c");
        assert_eq!(choose(&members, Some("d"), 1).expect_err("it is not there").exit(), Exit::NotFound);
        assert_eq!(choose(&members[..2], None, 1).expect_err("no other voter").exit(), Exit::Refused);
    }
}
