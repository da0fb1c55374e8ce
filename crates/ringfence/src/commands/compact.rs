//! `ringfence compact`: forget the history below a revision.

use bytes::Bytes;
use clap::Args;
use ringfence_client::{Client, Error};
use ringfence_proto::etcdserverpb::{CompactionRequest, RangeRequest};
use serde_json::json;

use crate::cli::Shared;
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line};

/// Forget the history below a revision. Reads at older revisions are refused from then on; the newest version of each key
/// stays, however old it is.
#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// The oldest revision that can be read from then on.
    #[arg(required_unless_present = "keep", value_parser = clap::value_parser!(i64).range(1..))]
    rev: Option<i64>,
    /// Keep this many of the newest revisions instead. Where there are no more than that, nothing is done.
    #[arg(long, conflicts_with = "rev", value_parser = clap::value_parser!(i64).range(1..))]
    keep: Option<i64>,
    /// Wait until the node that is asked has removed what is forgotten from its own file.
    #[arg(long)]
    physical: bool,
}

impl Compact {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client()?;
        let compacted = match (self.rev, self.keep) {
            (Some(revision), _) => {
                compact(&client, revision, self.physical).await.map(|()| Some(revision))?
            }
            (None, keep) => keep_newest(&client, keep.unwrap_or(i64::MAX), self.physical).await?,
        };
        match (shared.output, compacted) {
            (Output::Json, compacted) => print_json(&json!({ "compacted": compacted })),
            (Output::Plain, compacted) => print_line(&compacted.unwrap_or(0).to_string()),
            (Output::Table, Some(revision)) => {
                print_line(&format!("compacted: the oldest revision that can be read is {revision}"))
            }
            (Output::Table, None) => print_line("nothing to compact: there are no more revisions than that"),
        }
    }
}

async fn compact(client: &Client, revision: i64, physical: bool) -> Result<(), Error> {
    client.compact(CompactionRequest { revision, physical }).await.map(drop)
}

/// Compacts all but the newest `keep` revisions; returns the oldest one left, or none where there was nothing to do.
async fn keep_newest(client: &Client, keep: i64, physical: bool) -> Result<Option<i64>, Error> {
    let question =
        RangeRequest { key: Bytes::from_static(&[0]), count_only: true, limit: 1, ..RangeRequest::default() };
    let newest = client.range(question).await?.header.map_or(0, |header| header.revision);
    let revision = newest.saturating_sub(keep - 1);
    // A new store's revision is 1, which nothing lies below.
    if revision <= 1 {
        return Ok(None);
    }
    match compact(client, revision, physical).await {
        Ok(()) => Ok(Some(revision)),
        Err(Error::Refused { code: tonic::Code::OutOfRange, message, .. })
            if message.contains("has been compacted") =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
