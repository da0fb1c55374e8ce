//! `ringfence lock holder` and `ringfence lock waiters`: the queue of a lock.

use bytes::Bytes;
use ringfence_proto::etcdserverpb::RangeRequest;
use ringfence_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use ringfence_proto::mvccpb::KeyValue;
use ringfence_types::KeyRange;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line, print_table};
use crate::record::{ShownKey, shown};

/// Shows whose key is the oldest: it holds the lock.
pub(crate) async fn holder(shared: &Shared, name: &str) -> Result<(), Failure> {
    let Some(holder) = queue(shared, name, 1).await?.into_iter().next() else {
        return Err(Failure::new(Exit::NotFound, format!("nobody holds the lock {name:?}")));
    };
    match shared.output {
        Output::Json => print_json(&candidate(&holder)),
        Output::Plain => print_line(&holder.create_revision.to_string()),
        Output::Table => print_table(HEADINGS, &[row(&holder)]),
    }
}

/// Shows all keys but the oldest, in the order in which they were created.
pub(crate) async fn waiters(shared: &Shared, name: &str) -> Result<(), Failure> {
    let queue = queue(shared, name, 0).await?;
    let waiters = queue.get(1..).unwrap_or_default();
    match shared.output {
        Output::Json => print_json(&json!({ "waiters": waiters.iter().map(candidate).collect::<Vec<_>>() })),
        Output::Plain => waiters.iter().try_for_each(|kv| print_line(&shown(&kv.key))),
        Output::Table => print_table(HEADINGS, &waiters.iter().map(row).collect::<Vec<_>>()),
    }
}

/// The first keys of a lock's queue, all of them for 0.
async fn queue(shared: &Shared, name: &str, limit: i64) -> Result<Vec<KeyValue>, Failure> {
    let range = KeyRange::prefix(Bytes::from(format!("{name}/")));
    let request = RangeRequest {
        range_end: range.etcd_range_end(),
        key: range.start,
        limit,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    };
    Ok(shared.client()?.range(request).await?.kvs)
}

const HEADINGS: [&str; 4] = ["TOKEN", "KEY", "LEASE", "VALUE"];

fn row(kv: &KeyValue) -> [String; 4] {
    [kv.create_revision.to_string(), shown(&kv.key), kv.lease.to_string(), shown(&kv.value)]
}

fn candidate(kv: &KeyValue) -> Value {
    let mut value = json!(ShownKey::new(kv));
    value["token"] = kv.create_revision.into();
    value
}
