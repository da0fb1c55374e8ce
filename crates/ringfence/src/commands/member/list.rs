//! `ringfence member list`, and how a member is shown.

use ringfence_proto::etcdserverpb::Member;
use serde_json::{Value, json};

use super::name_of;
use crate::cli::Shared;
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line, print_table};

pub(super) async fn run(shared: &Shared, linearizable: bool) -> Result<(), Failure> {
    let members = shared.client()?.member_list(linearizable).await?.members;
    match shared.output {
        Output::Json => print_json(&json!({ "members": members.iter().map(as_json).collect::<Vec<_>>() })),
        Output::Plain => members.iter().try_for_each(|member| print_line(&name_of(member))),
        Output::Table => {
            let rows: Vec<_> = members.iter().map(as_row).collect();
            print_table(["ID", "NAME", "PEERS", "CLIENTS", "KIND"], &rows)
        }
    }
}

pub(super) fn as_json(member: &Member) -> Value {
    let mut shown = json!({
        "id": member.id,
        "name": member.name,
        "peer_urls": member.peer_ur_ls,
        "client_urls": member.client_ur_ls,
        "learner": member.is_learner,
    });
    if member.replaces != 0 {
        shown["replaces"] = member.replaces.into();
    }
    shown
}

fn as_row(member: &Member) -> [String; 5] {
    let clients = match member.client_ur_ls.is_empty() {
        true => "(not started yet)".to_owned(),
        false => member.client_ur_ls.join(","),
    };
    let kind = if member.is_learner { "learner" } else { "voter" };
    let kind = match member.replaces {
        // Once it votes, the other is gone.
        replaced if replaced != 0 && member.is_learner => format!("{kind}, to replace {replaced:x}"),
        _ => kind.to_owned(),
    };
    [format!("{:x}", member.id), name_of(member), member.peer_ur_ls.join(","), clients, kind]
}
