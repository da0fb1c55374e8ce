//! The project's own client: it finds the leader, follows hints, and retries what is safe to retry.

use std::time::Duration;

use bytes::Bytes;
use ringfence_client::{Client as Inner, Options};
use ringfence_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ringfence_proto::etcdserverpb::request_op::Request as Operation;
use ringfence_proto::etcdserverpb::response_op::Response;
use ringfence_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader,
    TxnRequest, TxnResponse,
};
use ringfence_proto::mvccpb::KeyValue;
use tokio::time::Instant;

use super::{
    Answer, Client, Demand, Failure, Found, Freshness, Keys, Node, Request, Step, Watched, Watching,
    prefix_end, right, watching,
};

/// A client of some nodes of the cluster; what it learns of others it forgets again after the call, so that operations stay
/// spread over the nodes as they were.
pub struct Ringfence {
    nodes: Vec<Node>,
    inner: Inner,
}

impl Ringfence {
    /// A client that knows these nodes.
    ///
    /// # Errors
    /// Where an address cannot be understood.
    pub fn new(nodes: Vec<Node>) -> Result<Ringfence, ringfence_client::Error> {
        Ok(Ringfence { inner: connect(&nodes)?, nodes })
    }

    /// The client for one operation, which knows no more nodes than it did at first.
    fn until(&mut self, deadline: Instant) -> Result<Inner, Failure> {
        if self.inner.endpoints().len() > self.nodes.len() {
            self.inner = connect(&self.nodes).map_err(|error| Failure::of_ringfence_client(&error))?;
        }
        Ok(self.inner.with_timeout(deadline.saturating_duration_since(Instant::now())))
    }

    async fn carry_out(client: &Inner, request: &Request) -> Result<Answer, Failure> {
        let failed = |error: ringfence_client::Error| Failure::of_ringfence_client(&error);
        match request {
            Request::Get(keys, freshness) => {
                let answer = client.range(range(keys, *freshness)).await.map_err(failed)?;
                let got = vec![found(&answer)?];
                Ok(Answer { revision: revision(answer.header.as_ref())?, held: true, got })
            }
            Request::Put(key, value) => {
                let answer = client.put(put(key, value)).await.map_err(failed)?;
                Ok(Answer { revision: revision(answer.header.as_ref())?, held: true, got: Vec::new() })
            }
            Request::Delete(key) => {
                let request = DeleteRangeRequest { key: bytes(key), ..DeleteRangeRequest::default() };
                let answer = client.delete_range(request).await.map_err(failed)?;
                let revision = revision(answer.header.as_ref())?;
                Ok(Answer { revision, held: answer.deleted > 0, got: Vec::new() })
            }
            Request::Txn { demands, steps } => {
                transacted(&client.txn(txn(demands, steps)).await.map_err(failed)?)
            }
            Request::Right(right) => right::by_ringfence(client, right).await,
        }
    }
}

#[tonic::async_trait]
impl Client for Ringfence {
    fn node(&self) -> Option<u64> {
        let preferred = self.inner.preferred_endpoint();
        self.nodes.iter().find(|node| node.address == preferred).map(|node| node.number)
    }

    async fn call(&mut self, request: &Request, deadline: Instant) -> Result<Answer, Failure> {
        Ringfence::carry_out(&self.until(deadline)?, request).await
    }

    async fn watch(&mut self, watching: &Watching, deadline: Instant) -> Result<Watched, Failure> {
        watching::by_ringfence(&self.until(deadline)?, watching, deadline).await
    }
}

fn connect(nodes: &[Node]) -> Result<Inner, ringfence_client::Error> {
    let options = Options { connect_timeout: Duration::from_millis(500), ..Options::default() };
    Inner::connect(nodes.iter().map(|node| &node.address), options)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The keys as the protocol writes them.
pub(super) fn bounds(keys: &Keys) -> (Bytes, Bytes) {
    match keys {
        Keys::One(key) => (bytes(key), Bytes::new()),
        Keys::Prefix(prefix) => (bytes(prefix), bytes(&prefix_end(prefix))),
    }
}

fn range(keys: &Keys, freshness: Freshness) -> RangeRequest {
    let (key, range_end) = bounds(keys);
    RangeRequest { key, range_end, serializable: freshness == Freshness::Any, ..RangeRequest::default() }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

fn txn(demands: &[(String, Demand)], steps: &[Step]) -> TxnRequest {
    let operation = |step: &Step| {
        let request = match step {
            Step::Get(keys) => Operation::RequestRange(range(keys, Freshness::Linearizable)),
            Step::Put(key, value) => Operation::RequestPut(put(key, value)),
        };
        RequestOp { request: Some(request) }
    };
    TxnRequest {
        compare: demands.iter().map(|(key, demand)| compare(key, demand)).collect(),
        success: steps.iter().map(operation).collect(),
        failure: Vec::new(),
        ..Default::default()
    }
}

fn compare(key: &str, demand: &Demand) -> Compare {
    let (target, union) = match demand {
        Demand::Value(value) => (CompareTarget::Value, TargetUnion::Value(bytes(value))),
        Demand::ChangedAt(revision) => {
            (CompareTarget::Mod, TargetUnion::ModRevision(i64::try_from(*revision).unwrap_or(i64::MAX)))
        }
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: bytes(key),
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

fn transacted(answer: &TxnResponse) -> Result<Answer, Failure> {
    let ranges = answer.responses.iter().filter_map(|operation| match &operation.response {
        Some(Response::ResponseRange(range)) => Some(found(range)),
        _ => None,
    });
    let got = ranges.collect::<Result<_, _>>()?;
    Ok(Answer { revision: revision(answer.header.as_ref())?, held: answer.succeeded, got })
}

fn revision(header: Option<&ResponseHeader>) -> Result<u64, Failure> {
    let revision = header.and_then(|header| u64::try_from(header.revision).ok());
    revision.ok_or_else(|| Failure::indefinite("the answer has no revision"))
}

fn found(answer: &RangeResponse) -> Result<Vec<Found>, Failure> {
    answer.kvs.iter().map(one_found).collect()
}

fn one_found(kv: &KeyValue) -> Result<Found, Failure> {
    Found::new(&kv.key, &kv.value, kv.mod_revision)
}
