//! Changes of one member that are made with one call.

use std::time::{Duration, Instant};

use ringfence_client::{Client, Error, endpoint_authority};
use ringfence_proto::etcdserverpb::{Member, MemberAddRequest};
use serde_json::json;

use super::list::as_json;
use super::{find, name_of};
use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};

/// How often the members are looked at while a change is under way.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A change that is written down is waited for this much longer than the call itself took.
const CARRY_OUT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn add(shared: &Shared, peer: &str, learner: bool) -> Result<(), Failure> {
    let request =
        MemberAddRequest { peer_ur_ls: vec![peer_url(peer)?], is_learner: learner, ..Default::default() };
    let added = shared.client()?.member_add(request).await?;
    let member = added.member.ok_or_else(|| Failure::new(Exit::General, "the answer names no member"))?;
    match shared.output {
        Output::Json => print_json(&json!({ "member": as_json(&member) })),
        Output::Plain => print_line(&format!("{:x}", member.id)),
        Output::Table => {
            print_line(&format!(
                "member {:x} is expected at {peer}; it counts for nothing until then",
                member.id
            ))?;
            print_line(&format!("now start it there: {}", start_command(&added.members, peer)))
        }
    }
}

pub(super) async fn remove(shared: &Shared, wanted: &str) -> Result<(), Failure> {
    let (client, member) = named(shared, wanted).await?;
    let called = client.member_remove(member.id).await.map(|_| ());
    let is_gone = |members: &[Member]| members.iter().all(|other| other.id != member.id);
    carried_out(&client, called, is_gone).await?;
    told(shared, &member, "was removed; its process ends, and its data directory can be deleted")
}

pub(super) async fn promote(shared: &Shared, wanted: &str) -> Result<(), Failure> {
    let (client, member) = named(shared, wanted).await?;
    let called = client.member_promote(member.id).await.map(|_| ());
    let votes = |members: &[Member]| members.iter().any(|other| other.id == member.id && !other.is_learner);
    carried_out(&client, called, votes).await?;
    told(shared, &member, "votes now")
}

pub(super) async fn update(shared: &Shared, wanted: &str, peer: &str) -> Result<(), Failure> {
    let (client, member) = named(shared, wanted).await?;
    let url = peer_url(peer)?;
    let called = client.member_update(member.id, vec![url.clone()]).await.map(|_| ());
    let is_there = |members: &[Member]| {
        members.iter().any(|other| other.id == member.id && other.peer_ur_ls == [url.clone()])
    };
    carried_out(&client, called, is_there).await?;
    told(shared, &member, &format!("is reached at {peer} now; start it there with --advertise-peer {peer}"))
}

/// The URL of a peer's address.
pub(super) fn peer_url(peer: &str) -> Result<String, Failure> {
    let authority = endpoint_authority(peer).map_err(|error| {
        Failure::new(Exit::Usage, format!("{peer:?}: {error}")).next("write host:port, as in 10.0.0.4:2380")
    })?;
    Ok(format!("http://{authority}"))
}

/// How the node at `peer` is started.
pub(super) fn start_command(members: &[Member], peer: &str) -> String {
    let others = members.iter().filter(|member| !member.name.is_empty());
    let known = others.flat_map(|member| &member.peer_ur_ls).filter_map(|url| endpoint_authority(url).ok());
    let join: Vec<String> = known.filter(|address| address != peer).collect();
    format!("ringfence serve --join {} --listen-peer {peer} --listen-client HOST:PORT", join.join(","))
}

/// The member of a name, as a majority knows it, with a client that reaches the cluster.
pub(super) async fn named(shared: &Shared, wanted: &str) -> Result<(Client, Member), Failure> {
    let client = shared.client()?;
    let members = client.member_list(true).await?.members;
    let member = find(&members, wanted)?.clone();
    Ok((client, member))
}

/// Waits for what a call that ended without a clear answer has begun: once written down it is carried out.
async fn carried_out(
    client: &Client,
    called: Result<(), Error>,
    is_done: impl Fn(&[Member]) -> bool,
) -> Result<(), Failure> {
    let Err(error @ Error::Indefinite { .. }) = called else { return Ok(called?) };
    let deadline = Instant::now() + CARRY_OUT_TIMEOUT;
    while Instant::now() < deadline {
        if client.member_list(true).await.is_ok_and(|answer| is_done(&answer.members)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Err(Failure::from(error)
        .next("see `ringfence member list`; a change that was written down goes on by itself"))
}

fn told(shared: &Shared, member: &Member, what: &str) -> Result<(), Failure> {
    match shared.output {
        Output::Json => print_json(&json!({ "id": member.id, "name": member.name })),
        Output::Plain => print_line(&name_of(member)),
        Output::Table => print_line(&format!("{} (member {:x}) {what}", name_of(member), member.id)),
    }
}
