//! `ringfence get`: read a key or a range of keys.

use clap::{Args, ValueEnum};
use ringfence_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use ringfence_proto::etcdserverpb::{RangeRequest, RangeResponse};
use ringfence_proto::freshness;
use ringfence_types::Freshness;
use serde_json::json;

use crate::cli::Shared;
use crate::commands::range::RangeArgs;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print, print_json, print_line, print_table};
use crate::record::{ShownKey, shown};

/// Read a key or a range of keys. Exits with 3 if there is none.
#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    range: RangeArgs,
    /// Most keys to return; 0 for all.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    limit: i64,
    /// Read the state as it was at this revision; 0 for the newest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
    /// Let the node answer from what it has, which may be old: works without a majority.
    #[arg(long, conflicts_with = "freshness")]
    serializable: bool,
    /// How fresh the state must be: linearizable, quorum, any, revision=N, token=CAUSAL_TOKEN, or max-age=DURATION such as 2s or
    /// 500ms.
    #[arg(long, value_parser = freshness::parse)]
    freshness: Option<Freshness>,
    /// Leave the values out.
    #[arg(long, conflicts_with = "count_only")]
    keys_only: bool,
    /// Print the number of keys alone.
    #[arg(long)]
    count_only: bool,
    /// Order of the answer.
    #[arg(long, value_enum)]
    order: Option<Order>,
    /// What the order is by.
    #[arg(long, value_enum, default_value = "key")]
    sort_by: SortBy,
    /// Leave out keys last changed before this revision.
    #[arg(long, default_value_t = 0)]
    min_mod_rev: i64,
    /// Leave out keys last changed after this revision.
    #[arg(long, default_value_t = 0)]
    max_mod_rev: i64,
    /// Leave out keys created before this revision.
    #[arg(long, default_value_t = 0)]
    min_create_rev: i64,
    /// Leave out keys created after this revision.
    #[arg(long, default_value_t = 0)]
    max_create_rev: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortBy {
    Key,
    Version,
    Create,
    Mod,
    Value,
}

impl Get {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let answer = shared.client()?.range(self.request()).await?;
        self.show(shared.output, &answer)?;
        if answer.kvs.is_empty() && !self.count_only {
            return Err(Failure::new(Exit::NotFound, "no such key"));
        }
        Ok(())
    }

    fn request(&self) -> RangeRequest {
        let (key, range_end) = self.range.to_etcd();
        let sort_order = match (self.order, self.sort_by) {
            (Some(Order::Descend), _) => SortOrder::Descend,
            (Some(Order::Ascend), _) => SortOrder::Ascend,
            (None, SortBy::Key) => SortOrder::None,
            (None, _) => SortOrder::Ascend,
        };
        let sort_target = match self.sort_by {
            SortBy::Key => SortTarget::Key,
            SortBy::Version => SortTarget::Version,
            SortBy::Create => SortTarget::Create,
            SortBy::Mod => SortTarget::Mod,
            SortBy::Value => SortTarget::Value,
        };
        RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable: self.serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev,
            max_mod_revision: self.max_mod_rev,
            min_create_revision: self.min_create_rev,
            max_create_revision: self.max_create_rev,
            freshness: self.freshness.map(freshness::to_field),
        }
    }

    fn show(&self, output: Output, answer: &RangeResponse) -> Result<(), Failure> {
        match output {
            Output::Json => print_json(&json!({
                "revision": answer.header.as_ref().map_or(0, |header| header.revision),
                "count": answer.count,
                "more": answer.more,
                "age_ms": answer.age_ms,
                "member": answer.header.as_ref().map_or(0, |header| header.member_id),
                "kvs": answer.kvs.iter().map(ShownKey::new).collect::<Vec<_>>(),
            })),
            _ if self.count_only => print_line(&answer.count.to_string()),
            Output::Plain => {
                let mut bytes = Vec::new();
                for kv in &answer.kvs {
                    bytes.extend_from_slice(if self.keys_only { &kv.key } else { &kv.value });
                    bytes.push(b'\n');
                }
                print(&bytes)
            }
            Output::Table if answer.kvs.is_empty() => Ok(()),
            Output::Table => {
                let row = |kv: &ringfence_proto::mvccpb::KeyValue| {
                    [
                        shown(&kv.key),
                        shown(&kv.value),
                        kv.create_revision.to_string(),
                        kv.mod_revision.to_string(),
                        kv.version.to_string(),
                        if kv.lease == 0 { "-".to_owned() } else { kv.lease.to_string() },
                    ]
                };
                let rows: Vec<_> = answer.kvs.iter().map(row).collect();
                print_table(["KEY", "VALUE", "CREATED", "CHANGED", "VERSION", "LEASE"], &rows)?;
                if answer.more {
                    let rest = answer.count - i64::try_from(answer.kvs.len()).unwrap_or(i64::MAX);
                    print_line(&format!("({rest} more: raise --limit)"))?;
                }
                Ok(())
            }
        }
    }
}
