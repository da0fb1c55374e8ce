//! The crate `etcd-client`, which knows nothing of Ringfence and retries nothing.

use std::time::Duration;

use etcd_client::{
    Client as Inner, Compare, CompareOp, ConnectOptions, GetOptions, ResponseHeader, Txn, TxnOp,
    TxnOpResponse, WatchOptions,
};
use tokio::time::{Instant, timeout_at};

use super::{
    Answer, Client, Demand, Failure, Found, Freshness, Keys, Node, Request, Step, Watched, Watching, right,
    watching,
};

/// A client of one node.
pub struct Etcd {
    node: Node,
    inner: Inner,
}

impl Etcd {
    /// A client of this node; it connects when it is first used.
    ///
    /// # Errors
    /// Where the address cannot be understood.
    pub async fn new(node: Node) -> Result<Etcd, etcd_client::Error> {
        Ok(Etcd { inner: connect(&node).await?, node })
    }

    /// After a cut, TCP would wait about as long again as the cut lasted before it tries the old connection.
    async fn connect_anew(&mut self) {
        if let Ok(inner) = connect(&self.node).await {
            self.inner = inner;
        }
    }

    async fn carry_out(&mut self, request: &Request) -> Result<Answer, Failure> {
        let failed = |error: etcd_client::Error| Failure::of_etcd_client(&error);
        match request {
            Request::Get(keys, freshness) => {
                let (key, mut options) = get(keys);
                if *freshness == Freshness::Any {
                    options = options.with_serializable();
                }
                let answer = self.inner.get(key, Some(options)).await.map_err(failed)?;
                let got = vec![found(answer.kvs())?];
                Ok(Answer { revision: revision(answer.header())?, held: true, got })
            }
            Request::Put(key, value) => {
                let answer = self.inner.put(key.as_str(), value.as_str(), None).await.map_err(failed)?;
                Ok(Answer { revision: revision(answer.header())?, held: true, got: Vec::new() })
            }
            Request::Delete(key) => {
                let answer = self.inner.delete(key.as_str(), None).await.map_err(failed)?;
                let revision = revision(answer.header())?;
                Ok(Answer { revision, held: answer.deleted() > 0, got: Vec::new() })
            }
            Request::Txn { demands, steps } => {
                let answer = self.inner.txn(txn(demands, steps)).await.map_err(failed)?;
                let responses = answer.op_responses();
                let ranges = responses.iter().filter_map(|response| match response {
                    TxnOpResponse::Get(range) => Some(found(range.kvs())),
                    _ => None,
                });
                let got = ranges.collect::<Result<_, _>>()?;
                Ok(Answer { revision: revision(answer.header())?, held: answer.succeeded(), got })
            }
            Request::Right(right) => right::by_etcd(&mut self.inner, right).await,
        }
    }
}

#[tonic::async_trait]
impl Client for Etcd {
    fn node(&self) -> Option<u64> {
        Some(self.node.number)
    }

    async fn call(&mut self, request: &Request, deadline: Instant) -> Result<Answer, Failure> {
        match timeout_at(deadline, self.carry_out(request)).await {
            Ok(result) => result,
            Err(_elapsed) => {
                self.connect_anew().await;
                Err(Failure::indefinite("no answer before the deadline"))
            }
        }
    }

    async fn watch(&mut self, watching: &Watching, deadline: Instant) -> Result<Watched, Failure> {
        let options =
            WatchOptions::new().with_start_revision(i64::try_from(watching.from).unwrap_or(i64::MAX));
        let (key, options) = match &watching.keys {
            Keys::One(key) => (key, options),
            Keys::Prefix(prefix) => (prefix, options.with_prefix()),
        };
        match timeout_at(deadline, self.inner.watch(key.as_str(), Some(options))).await {
            Ok(Ok((watcher, stream))) => Ok(watching::by_etcd(watcher, stream, watching, deadline).await),
            Ok(Err(error)) => Err(Failure::of_etcd_client(&error)),
            Err(_elapsed) => {
                self.connect_anew().await;
                Err(Failure::definite("not begun before the deadline"))
            }
        }
    }
}

async fn connect(node: &Node) -> Result<Inner, etcd_client::Error> {
    let options = ConnectOptions::new().with_connect_timeout(Duration::from_millis(500));
    Inner::connect([&node.address], Some(options)).await
}

fn get(keys: &Keys) -> (&str, GetOptions) {
    match keys {
        Keys::One(key) => (key, GetOptions::new()),
        Keys::Prefix(prefix) => (prefix, GetOptions::new().with_prefix()),
    }
}

fn txn(demands: &[(String, Demand)], steps: &[Step]) -> Txn {
    let compare = |(key, demand): &(String, Demand)| match demand {
        Demand::Value(value) => Compare::value(key.as_str(), CompareOp::Equal, value.as_str()),
        Demand::ChangedAt(revision) => {
            let revision = i64::try_from(*revision).unwrap_or(i64::MAX);
            Compare::mod_revision(key.as_str(), CompareOp::Equal, revision)
        }
    };
    let step = |step: &Step| match step {
        Step::Get(keys) => {
            let (key, options) = get(keys);
            TxnOp::get(key, Some(options))
        }
        Step::Put(key, value) => TxnOp::put(key.as_str(), value.as_str(), None),
    };
    Txn::new()
        .when(demands.iter().map(compare).collect::<Vec<_>>())
        .and_then(steps.iter().map(step).collect::<Vec<_>>())
}

fn revision(header: Option<&ResponseHeader>) -> Result<u64, Failure> {
    let revision = header.and_then(|header| u64::try_from(header.revision()).ok());
    revision.ok_or_else(|| Failure::indefinite("the answer has no revision"))
}

fn found(kvs: &[etcd_client::KeyValue]) -> Result<Vec<Found>, Failure> {
    kvs.iter().map(|kv| Found::new(kv.key(), kv.value(), kv.mod_revision())).collect()
}
