//! `ringfence lock release`: give a lock back.

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use crate::cli::Shared;
use crate::commands::lease::parse_id;
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line};

/// Give a lock back, or a place among those that wait for it.
#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The key that `lock acquire` printed; with --lease, the lock's name.
    #[arg(value_name = "KEY|NAME")]
    key: String,
    /// The number of the lease that the lock was taken with.
    #[arg(long, value_parser = parse_id)]
    lease: Option<i64>,
    /// Give it back only if this is its fencing token; the one it has now if left out.
    #[arg(long)]
    token: Option<i64>,
}

impl Release {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client()?;
        let key = match self.lease {
            Some(lease) => Bytes::from(format!("{}/{lease:x}", self.key)),
            None => Bytes::from(self.key),
        };
        // Whatever is given back is what stands there now, however often the request has to be sent.
        let standing = client.get(key.clone()).await?.map(|kv| kv.create_revision);
        let released = standing.filter(|created| self.token.is_none_or(|token| token == *created));
        if let Some(token) = released {
            client.unlock(key, token).await?;
        }
        match (shared.output, released) {
            (Output::Json, _) => print_json(&json!({ "released": released.is_some(), "token": released })),
            (Output::Plain, Some(token)) => print_line(&token.to_string()),
            (Output::Plain, None) => Ok(()),
            (Output::Table, Some(token)) => print_line(&format!("given back, with token {token}")),
            (Output::Table, None) => print_line("it was given back already, or lost"),
        }
    }
}
