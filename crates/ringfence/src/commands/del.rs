//! `ringfence del`: delete a key or a range of keys.

use clap::Args;
use ringfence_proto::etcdserverpb::DeleteRangeRequest;
use serde_json::json;

use crate::cli::Shared;
use crate::commands::ack::{self, AckArgs};
use crate::commands::range::RangeArgs;
use crate::commands::scope::FenceArgs;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};
use crate::record::{ShownKey, shown};

/// Delete a key or a range of keys. Exits with 3 if there was none.
#[derive(Debug, Args)]
pub(crate) struct Del {
    #[command(flatten)]
    range: RangeArgs,
    /// Print what was deleted.
    #[arg(long)]
    prev_kv: bool,
    #[command(flatten)]
    fences: FenceArgs,
    #[command(flatten)]
    ack: AckArgs,
}

impl Del {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let (key, range_end) = self.range.to_etcd();
        let request = DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.prev_kv,
            fences: self.fences.to_messages(),
            session: None,
            ack: self.ack.to_message(),
        };
        let answer = shared.client()?.delete_range(request).await?;
        match shared.output {
            Output::Json => print_json(&json!({
                "revision": answer.header.as_ref().map_or(0, |header| header.revision),
                "deleted": answer.deleted,
                "prev_kvs": answer.prev_kvs.iter().map(ShownKey::new).collect::<Vec<_>>(),
            }))?,
            Output::Plain => print_line(&answer.deleted.to_string())?,
            Output::Table => {
                for kv in &answer.prev_kvs {
                    print_line(&format!("{}  {}", shown(&kv.key), shown(&kv.value)))?;
                }
                print_line(&format!("deleted {} keys", answer.deleted))?;
                ack::told(answer.checked.as_ref()).map_or(Ok(()), |told| print_line(&told))?;
            }
        }
        if answer.deleted == 0 {
            return Err(Failure::new(Exit::NotFound, "no such key"));
        }
        Ok(())
    }
}
