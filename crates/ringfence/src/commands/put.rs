//! `ringfence put`: store a value under a key.

use std::io::Read as _;

use bytes::Bytes;
use clap::Args;
use ringfence_proto::etcdserverpb::PutRequest;
use serde_json::json;

use crate::cli::Shared;
use crate::commands::ack::{self, AckArgs};
use crate::commands::scope::FenceArgs;
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line};
use crate::record::{ShownKey, shown};

/// Store a value under a key.
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The key.
    key: String,
    /// The value; "-" reads all of standard input, byte for byte.
    #[arg(
        required_unless_present = "ignore_value",
        conflicts_with = "ignore_value",
        allow_hyphen_values = true
    )]
    value: Option<String>,
    /// The lease that the key shall hang on.
    #[arg(long, default_value_t = 0, conflicts_with = "ignore_lease")]
    lease: i64,
    /// Print what stood there before.
    #[arg(long)]
    prev_kv: bool,
    /// Keep the value that stands there; refused if there is none.
    #[arg(long)]
    ignore_value: bool,
    /// Keep the key's lease; refused if there is no such key.
    #[arg(long)]
    ignore_lease: bool,
    #[command(flatten)]
    fences: FenceArgs,
    #[command(flatten)]
    ack: AckArgs,
}

impl Put {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let value = match self.value.as_deref() {
            Some("-") => {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes)?;
                Bytes::from(bytes)
            }
            Some(value) => Bytes::copy_from_slice(value.as_bytes()),
            None => Bytes::new(),
        };
        let request = PutRequest {
            key: Bytes::from(self.key),
            value,
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
            fences: self.fences.to_messages(),
            session: None,
            ack: self.ack.to_message(),
        };
        let answer = shared.client()?.put(request).await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        match shared.output {
            Output::Json => {
                let prev_kv = answer.prev_kv.as_ref().map(ShownKey::new);
                print_json(&json!({ "revision": revision, "prev_kv": prev_kv }))
            }
            Output::Plain => print_line(&revision.to_string()),
            Output::Table => {
                if let Some(before) = &answer.prev_kv {
                    print_line(&format!("before: {}", shown(&before.value)))?;
                }
                print_line(&format!("stored at revision {revision}"))?;
                ack::told(answer.checked.as_ref()).map_or(Ok(()), |told| print_line(&told))
            }
        }
    }
}
