//! The requests that a client of the load generator sends.

use bytes::Bytes;
use ringfence_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ringfence_proto::etcdserverpb::kv_client::KvClient;
use ringfence_proto::etcdserverpb::request_op::Request;
use ringfence_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use tonic::Status;
use tonic::transport::Channel;

use super::{Keys, Load, Workload};

/// Numbers without a pattern that matters here, the same for the same seed (splitmix64).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is even over the range to within 2^-64.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// A value of that size that no compression shrinks.
pub(super) fn value(random: &mut Random, size: u32) -> Bytes {
    std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(size as usize).collect()
}

/// What a request was, for those who count gets and writes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// Makes the requests of one client.
#[derive(Debug)]
pub(super) struct Worker {
    workload: Workload,
    keys: Keys,
    serializable: bool,
    range_keys: u64,
    read_percent: u64,
    with_txn: bool,
    random: Random,
    value: Bytes,
}

impl Worker {
    pub(super) fn new(workload: Workload, load: &Load, client: u64) -> Worker {
        let mut random = Random::new(load.seed.wrapping_mul(1_000_003).wrapping_add(client));
        let value = value(&mut random, load.keys.value_size);
        Worker {
            workload,
            keys: load.keys.clone(),
            serializable: load.serializable,
            range_keys: load.range_keys.min(load.keys.key_count),
            read_percent: u64::from(load.read_percent),
            with_txn: load.with_txn,
            random,
            value,
        }
    }

    /// Sends one request and waits for its answer.
    pub(super) async fn request(&mut self, client: &mut KvClient<Channel>) -> (Kind, Result<(), Status>) {
        let (kind, txn) = match self.workload {
            Workload::Put => (Kind::Write, false),
            Workload::Get => (Kind::Read, false),
            Workload::Txn => (Kind::Write, true),
            Workload::Mixed if self.random.below(100) < self.read_percent => (Kind::Read, false),
            Workload::Mixed => (Kind::Write, self.with_txn),
        };
        let result = match (kind, txn) {
            (Kind::Read, _) => client.range(self.range()).await.map(|_| ()),
            (Kind::Write, false) => {
                let key = self.any_key();
                client.put(self.put(key)).await.map(|_| ())
            }
            (Kind::Write, true) => {
                let key = self.any_key();
                client.txn(self.compare_and_put(key)).await.map(|_| ())
            }
        };
        (kind, result)
    }

    fn any_key(&mut self) -> Bytes {
        self.keys.key(self.random.below(self.keys.key_count)).into()
    }

    /// One key, or as many as were asked for, all of which are there after a preload.
    fn range(&mut self) -> RangeRequest {
        let first = self.random.below(self.keys.key_count - self.range_keys + 1);
        let range_end = match self.range_keys {
            1 => Bytes::new(),
            keys => self.keys.key(first + keys).into(),
        };
        let (key, serializable) = (self.keys.key(first).into(), self.serializable);
        RangeRequest { key, range_end, serializable, ..RangeRequest::default() }
    }

    fn put(&self, key: Bytes) -> PutRequest {
        PutRequest { key, value: self.value.clone(), ..PutRequest::default() }
    }

    /// One compare that holds, whether the key is there or not, and a put.
    fn compare_and_put(&self, key: Bytes) -> TxnRequest {
        let compare = Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::Version(-1)),
        };
        let put = RequestOp { request: Some(Request::RequestPut(self.put(key))) };
        TxnRequest { compare: vec![compare], success: vec![put], failure: Vec::new(), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random::new(7);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[random.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
    }

    #[test]
    fn the_same_seed_gives_the_same_value_of_the_size_asked_for() {
        assert_eq!(value(&mut Random::new(1), 257), value(&mut Random::new(1), 257));
        assert_eq!(value(&mut Random::new(1), 257).len(), 257);
        assert_ne!(value(&mut Random::new(1), 16), value(&mut Random::new(2), 16));
    }
}
