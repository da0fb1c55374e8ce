//! `ringfence bench preload`: store all keys once, many in one transaction.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfence_client::{Client, Error, Options};
use ringfence_proto::etcdserverpb::request_op::Request;
use ringfence_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use serde_json::json;
use tokio::task::JoinSet;

use super::Preload;
use super::work::{Random, value};
use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};

/// Largest transaction, in bytes of values; servers refuse requests above 1.5 MiB.
const TXN_BYTES_MAX: u64 = 1 << 20;
/// Longest time without a success before the load gives up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

impl Preload {
    pub(super) async fn run(&self, shared: &Shared) -> Result<(), Failure> {
        let options = Options { connections_per_node: 2, ..Options::default() };
        let client = shared.client_with(options)?;
        let value = value(&mut Random::new(0), self.keys.value_size);
        let batch = batch_keys(self.batch, self.keys.value_size);
        let started = Instant::now();
        let mut under_way = JoinSet::new();
        let mut first = 0;
        while first < self.keys.key_count {
            if under_way.len() >= usize::from(self.in_flight) {
                finish_one(&mut under_way).await?;
            }
            let end = (first + batch).min(self.keys.key_count);
            let puts = (first..end).map(|number| put(self.keys.key(number), value.clone())).collect();
            let request = TxnRequest { success: puts, ..TxnRequest::default() };
            let client = client.clone();
            under_way.spawn(async move { store(&client, &request).await });
            first = end;
        }
        while !under_way.is_empty() {
            finish_one(&mut under_way).await?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let keys = self.keys.key_count;
        if self.json || shared.output == Output::Json {
            return print_json(&json!({ "workload": "preload", "keys": keys, "seconds": seconds }));
        }
        print_line(&format!("stored {keys} keys in {seconds:.1} s, {:.0} a second", keys as f64 / seconds))
    }
}

/// How many keys go into one transaction: as asked, unless their values would make it too large.
fn batch_keys(wanted: u16, value_size: u32) -> u64 {
    let fitting = TXN_BYTES_MAX / u64::from(value_size).max(1);
    u64::from(wanted).min(fitting).max(1)
}

fn put(key: String, value: Bytes) -> RequestOp {
    let put = PutRequest { key: Bytes::from(key), value, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

/// Stores a batch; repeats it while its outcome is unknown, since storing the same values twice is harmless.
async fn store(client: &Client, request: &TxnRequest) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        match client.txn(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(Error::Indefinite { .. } | Error::Unavailable { .. })
                if started.elapsed() < GIVE_UP_AFTER =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn finish_one(under_way: &mut JoinSet<Result<(), Error>>) -> Result<(), Failure> {
    match under_way.join_next().await {
        Some(Ok(result)) => Ok(result?),
        Some(Err(error)) => Err(Failure::new(Exit::General, format!("a transaction broke off: {error}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_values_make_small_batches() {
        assert_eq!(batch_keys(100, 256), 100);
        assert_eq!(batch_keys(100, 100_000), 10);
        assert_eq!(batch_keys(100, 1_500_000), 1);
        assert_eq!(batch_keys(100, 0), 100);
    }
}
