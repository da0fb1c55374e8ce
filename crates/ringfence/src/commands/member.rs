//! `ringfence member`: the members of the cluster.

use clap::Subcommand;
use ringfence_proto::etcdserverpb::Member as WireMember;
use serde_json::json;

use crate::cli::Shared;
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line, print_table};

/// Show the members of the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// Show the members, as any node that answers knows them.
    List {
        /// Ask a majority, so that the answer cannot be old.
        #[arg(long)]
        linearizable: bool,
    },
}

impl Member {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let Member::List { linearizable } = self;
        let members = shared.client()?.member_list(linearizable).await?.members;
        match shared.output {
            Output::Json => {
                let shown = |member: &WireMember| {
                    json!({
                        "id": member.id,
                        "name": member.name,
                        "peer_urls": member.peer_ur_ls,
                        "client_urls": member.client_ur_ls,
                        "learner": member.is_learner,
                    })
                };
                print_json(&json!({ "members": members.iter().map(shown).collect::<Vec<_>>() }))
            }
            Output::Plain => members.iter().try_for_each(|member| print_line(&member.name)),
            Output::Table => {
                let row = |member: &WireMember| {
                    [
                        format!("{:x}", member.id),
                        name_of(member),
                        member.peer_ur_ls.join(","),
                        if member.client_ur_ls.is_empty() {
                            "(not started yet)".to_owned()
                        } else {
                            member.client_ur_ls.join(",")
                        },
                        if member.is_learner { "learner" } else { "voter" }.to_owned(),
                    ]
                };
                let rows: Vec<_> = members.iter().map(row).collect();
                print_table(["ID", "NAME", "PEERS", "CLIENTS", "KIND"], &rows)
            }
        }
    }
}

/// A member's name; its number where it has none.
pub(crate) fn name_of(member: &WireMember) -> String {
    if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() }
}
