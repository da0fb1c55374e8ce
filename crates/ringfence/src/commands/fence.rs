//! `ringfence fence`: who holds a lock or a key.

use clap::Subcommand;
use ringfence_proto::ringfence_v1::{Candidate, InspectRequest};
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::commands::scope::ScopeArg;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line, print_table};
use crate::record::shown;

/// Who holds a lock or a key, and with which token.
#[derive(Debug, Subcommand)]
pub(crate) enum Fence {
    /// Show who holds a scope, the token in force, and who waits. Exits with 3 if nobody holds it.
    Inspect {
        /// A lock by its name (or lock:NAME), or key:KEY.
        scope: ScopeArg,
        /// The most waiters to show.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        waiters: u32,
    },
}

impl Fence {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let Fence::Inspect { scope, waiters } = self;
        let request =
            InspectRequest { scope: Some(scope.to_message()), waiters_max: waiters, freshness: None };
        let answer = shared.client()?.inspect(request).await?;
        match (shared.output, &answer.holder) {
            (Output::Json, holder) => print_json(&json!({
                "scope": scope.to_string(),
                "revision": answer.revision,
                "holder": holder.as_ref().map(as_json),
                "waiters": answer.waiters.iter().map(as_json).collect::<Vec<_>>(),
            }))?,
            (Output::Plain, Some(holder)) => print_line(&holder.token.to_string())?,
            (Output::Table, Some(holder)) => {
                let rows = std::iter::once(row("holds", holder));
                let rows = rows.chain(answer.waiters.iter().map(|waiter| row("waits", waiter)));
                print_table(["", "TOKEN", "LEASE", "KEY"], &rows.collect::<Vec<_>>())?;
            }
            (Output::Plain | Output::Table, None) => {}
        }
        match answer.holder {
            Some(_) => Ok(()),
            None => Err(Failure::new(Exit::NotFound, format!("nobody holds {scope}"))),
        }
    }
}

fn as_json(candidate: &Candidate) -> Value {
    json!({ "key": shown(&candidate.key), "token": candidate.token, "lease": candidate.lease })
}

fn row(what: &str, candidate: &Candidate) -> [String; 4] {
    let lease = if candidate.lease == 0 { "none".to_owned() } else { candidate.lease.to_string() };
    [what.to_owned(), candidate.token.to_string(), lease, shown(&candidate.key)]
}
