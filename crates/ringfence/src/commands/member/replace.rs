//! A new member in the place of another one, in one step.

use ringfence_client::Client;
use ringfence_proto::etcdserverpb::{Member, MemberAddRequest};
use serde_json::json;

use super::change::{peer_url, start_command};
use super::{Patience, find, follow, name_of};
use crate::cli::Shared;
use crate::commands::metrics::Metrics;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};

/// A member that answered its leader within this many seconds is not lost.
const ANSWERS_SECONDS: f64 = 1.0;

/// Replaces a member by one at another address.
pub(super) async fn replace(
    shared: &Shared,
    wanted: &str,
    with: &str,
    patience: &Patience,
) -> Result<(), Failure> {
    let client = shared.client()?;
    let members = client.member_list(true).await?.members;
    let url = peer_url(with)?;
    // Asked again after it was all done: the old one is gone, and the new one is there.
    if find(&members, wanted).is_err()
        && let Some(done) =
            members.iter().find(|member| member.peer_ur_ls.contains(&url) && !member.is_learner)
    {
        return told(shared, done, &format!("{wanted} was replaced by"));
    }
    let old = leaving(&members, wanted)?.clone();
    begin(shared, &client, &old, url, with, patience).await
}

/// Replaces a member whose disk is lost by one at its own address.
pub(super) async fn rejoin(shared: &Shared, wanted: &str, patience: &Patience) -> Result<(), Failure> {
    let client = shared.client()?;
    let members = client.member_list(true).await?.members;
    let old = leaving(&members, wanted)?.clone();
    let is_begun = members.iter().any(|member| member.replaces == old.id);
    if !is_begun && answers(shared, &client, &old).await {
        return Err(Failure::new(
            Exit::Refused,
            format!("{wanted} answers its leader: it does not need to rejoin"),
        )
        .next("`ringfence member replace` replaces a member that works"));
    }
    let url = old.peer_ur_ls.first().cloned().unwrap_or_default();
    let peer = url.trim_start_matches("http://").to_owned();
    begin(shared, &client, &old, url, &peer, patience).await
}

/// The member that leaves. While it does, the new one may have its name already.
fn leaving<'a>(members: &'a [Member], wanted: &str) -> Result<&'a Member, Failure> {
    let named = find(members, wanted)?;
    let replaced = members.iter().find(|member| member.id == named.replaces && named.is_learner);
    Ok(replaced.unwrap_or(named))
}

/// Whether the leader hears from a member.
async fn answers(shared: &Shared, client: &Client, member: &Member) -> bool {
    let Some(leader) = client.find_leader().await else { return false };
    let metrics = Metrics::fetch(&leader, shared.timeout()).await.unwrap_or_default();
    let is_leader = client.status(&leader).await.is_ok_and(|status| status.leader == member.id);
    let answered = metrics.of_member("ringfence_peer_answered_ago_seconds", member.id);
    is_leader || answered.is_some_and(|ago| ago < ANSWERS_SECONDS)
}

async fn begin(
    shared: &Shared,
    client: &Client,
    old: &Member,
    url: String,
    peer: &str,
    patience: &Patience,
) -> Result<(), Failure> {
    let request = MemberAddRequest { peer_ur_ls: vec![url], is_learner: false, replaces: old.id };
    let added = client.member_add(request).await?;
    let new = added.member.ok_or_else(|| Failure::new(Exit::General, "the answer names no member"))?;
    if new.replaces != old.id {
        drop(client.member_remove(new.id).await);
        return Err(Failure::new(
            Exit::Refused,
            "this server does not know replacements: nothing is left of it",
        ));
    }
    if new.name.is_empty() {
        eprintln!("member {:x} is expected at {peer}, in the place of {}", new.id, name_of(old));
        eprintln!("now start it there: {}", start_command(&added.members, peer));
    }
    if patience.no_wait {
        return told(shared, &new, &format!("{} will be replaced by", name_of(old)));
    }
    let voter = follow::until_voter(shared, client, new.id, old.id, patience.wait.0).await?;
    told(shared, &voter, &format!("{} was replaced by", name_of(old)))
}

fn told(shared: &Shared, new: &Member, what: &str) -> Result<(), Failure> {
    match shared.output {
        Output::Json => print_json(&json!({ "id": new.id, "name": new.name, "voter": !new.is_learner })),
        Output::Plain => print_line(&format!("{:x}", new.id)),
        Output::Table => print_line(&format!("{what} {} (member {:x})", name_of(new), new.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, is_learner: bool, replaces: u64) -> Member {
        Member { id, name: name.to_owned(), is_learner, replaces, ..Member::default() }
    }

    #[test]
    fn of_two_with_one_name_the_replaced_one_leaves() {
        let before = [member(1, "a", false, 0), member(3, "c", false, 0)];
        assert_eq!(leaving(&before, "c").expect("it is there").id, 3);
        let under_way = [member(0x900, "c", true, 3), member(1, "a", false, 0), member(3, "c", false, 0)];
        assert_eq!(leaving(&under_way, "c").expect("it is there").id, 3);
        let done = [member(1, "a", false, 0), member(0x900, "c", false, 3)];
        assert_eq!(leaving(&done, "c").expect("it is there").id, 0x900);
        assert_eq!(leaving(&done, "x").expect_err("nobody").exit(), Exit::NotFound);
    }
}
