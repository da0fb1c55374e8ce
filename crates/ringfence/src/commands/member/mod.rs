//! `ringfence member`: the members of the cluster, and how they come and go.

mod change;
mod follow;
mod list;
mod replace;

use clap::{Args, Subcommand};
use ringfence_proto::etcdserverpb::Member as WireMember;

use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::units::HumanDuration;

/// Show the members of the cluster, and have them come and go.
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// Show the members, as any node that answers knows them.
    List {
        /// Ask a majority, so that the answer cannot be old.
        #[arg(long)]
        linearizable: bool,
    },
    /// Announce a member that will start later with `ringfence serve --join`. It counts for nothing until then. A node may
    /// also join without being announced.
    Add {
        /// Where the other nodes will reach it.
        #[arg(value_name = "HOST:PORT")]
        peer: String,
        /// It gets everything and never votes, unless it is promoted.
        #[arg(long)]
        learner: bool,
    },
    /// Remove a member. The leader hands over first; a change that would leave too few healthy voters is refused.
    Remove {
        /// Name or (hexadecimal) id.
        member: String,
    },
    /// Make a voter of a learner that has caught up.
    Promote {
        /// Name or (hexadecimal) id.
        member: String,
    },
    /// Have the others reach a member elsewhere; start it there afterwards.
    Update {
        /// Name or (hexadecimal) id.
        member: String,
        /// Where the other nodes reach it from now on.
        #[arg(value_name = "HOST:PORT")]
        peer: String,
    },
    /// Replace a member by a new one: announces it, waits until it has started and caught up, and has it take the place of
    /// the old one in one step. Interrupted, the same command goes on where it was.
    Replace {
        /// Name or (hexadecimal) id of the member that leaves.
        member: String,
        /// Where the other nodes will reach the new one.
        #[arg(long, value_name = "HOST:PORT")]
        with: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Bring back a member whose disk was lost, emptied or restored from an old copy: as a new one, at the same address,
    /// started with `ringfence serve --join` on an empty data directory.
    Rejoin {
        /// Name or (hexadecimal) id of the member.
        member: String,
        #[command(flatten)]
        patience: Patience,
    },
}

/// How long to wait for a member that comes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Patience {
    /// Longest that the command waits for the new member to vote; the change goes on without it.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    wait: HumanDuration,
    /// Do not wait.
    #[arg(long)]
    no_wait: bool,
}

impl Member {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        match self {
            Member::List { linearizable } => list::run(shared, linearizable).await,
            Member::Add { peer, learner } => change::add(shared, &peer, learner).await,
            Member::Remove { member } => change::remove(shared, &member).await,
            Member::Promote { member } => change::promote(shared, &member).await,
            Member::Update { member, peer } => change::update(shared, &member, &peer).await,
            Member::Replace { member, with, patience } => {
                replace::replace(shared, &member, &with, &patience).await
            }
            Member::Rejoin { member, patience } => replace::rejoin(shared, &member, &patience).await,
        }
    }
}

/// A member's name; its number where it has none.
pub(crate) fn name_of(member: &WireMember) -> String {
    if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() }
}

/// The member of a name or a hexadecimal id.
pub(crate) fn find<'a>(members: &'a [WireMember], wanted: &str) -> Result<&'a WireMember, Failure> {
    let named = members.iter().find(|member| member.name == wanted);
    let by_id = || {
        let id = u64::from_str_radix(wanted.trim_start_matches("0x"), 16).ok()?;
        members.iter().find(|member| member.id == id)
    };
    named.or_else(by_id).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("no member is named {wanted:?}"))
            .next("`ringfence member list` shows names and ids")
    })
}
