//! The KV service: parse once, pass the gate, propose or read, and turn the outcome into an answer.

use std::pin::Pin;

use futures_util::Stream;
use prost::Message;
use ringfence_consensus::rt::{self, Instant};
use ringfence_proto::etcdserverpb::kv_server;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_proto::extension::{self, AckWish, Checks, Extended, ExtensionError};
use ringfence_proto::freshness::{AGE_KEY, FRESHNESS_KEY};
use ringfence_proto::metadata::{CHECKED_KEY, checked_value};
use ringfence_proto::request::Transaction;
use ringfence_proto::ringfence_v1::Checked;
use ringfence_proto::{mvccpb, request, response};
use ringfence_store::View;
use ringfence_types::limits::CHECKED_METADATA_BYTES_MAX;
use ringfence_types::{
    Applied, Command, Freshness, KeyRange, Operation, RangeEnd, RangeQuery, Reply, Revision, Txn,
};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, async_trait};

use crate::limits::SHORT_TXN_KEYS_MAX;
use crate::range_stream;
use crate::served::{At, Served, unexpected};
use crate::status::Trouble;
use crate::{deadline, gate};

/// The service.
pub(crate) struct Kv {
    pub(crate) served: Served,
}

#[async_trait]
impl kv_server::Kv for Kv {
    async fn range(
        &self,
        request: Request<etcd::RangeRequest>,
    ) -> Result<Response<etcd::RangeResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let read = self.read_range(&metadata, request).await;
        let read = read.and_then(|answer| Ok((self.served.admission.answer(bytes_of(&answer.kvs))?, answer)));
        let (large, answer) = read.map_err(|trouble| self.served.status(&trouble))?;
        let mut response = Response::new(answer);
        if let Some(large) = large {
            response.extensions_mut().insert(large);
        }
        if let Some(age) = response.get_ref().age_ms {
            response.metadata_mut().insert(AGE_KEY, MetadataValue::from(age));
        }
        Ok(response)
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<etcd::RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<etcd::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let opened = self.open_range(&metadata, request).await;
        // The state is fresh enough from here on; the stream takes views of its own.
        self.served.answer(opened.map(|(_, query)| {
            Box::pin(range_stream::chunks(self.served.clone(), query)) as Self::RangeStreamStream
        }))
    }

    async fn put(&self, request: Request<etcd::PutRequest>) -> Result<Response<etcd::PutResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let written = self.write(&metadata, request, request::put).await;
        self.answer(written.map(|(applied, checked)| {
            let header = self.served.header(&applied);
            match applied.reply {
                Reply::Put(reply) => etcd::PutResponse { checked, ..response::put(reply, header) },
                reply => unexpected("a put", &reply),
            }
        }))
    }

    async fn delete_range(
        &self,
        request: Request<etcd::DeleteRangeRequest>,
    ) -> Result<Response<etcd::DeleteRangeResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let written = self.write(&metadata, request, request::delete_range).await;
        self.answer(written.map(|(applied, checked)| {
            let header = self.served.header(&applied);
            match applied.reply {
                Reply::DeleteRange(reply) => {
                    etcd::DeleteRangeResponse { checked, ..response::delete_range(reply, header) }
                }
                reply => unexpected("a deletion", &reply),
            }
        }))
    }

    async fn txn(&self, request: Request<etcd::TxnRequest>) -> Result<Response<etcd::TxnResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.answer(self.transact(&metadata, request).await)
    }

    async fn compact(
        &self,
        request: Request<etcd::CompactionRequest>,
    ) -> Result<Response<etcd::CompactionResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let compacted = self.compaction(&metadata, &request).await;
        self.served.answer(compacted.map(|applied| match applied.reply {
            Reply::Compact => etcd::CompactionResponse { header: Some(self.served.header(&applied)) },
            reply => unexpected("a compaction", &reply),
        }))
    }
}

impl Kv {
    /// The way of a write: gate, parse, propose; what `apply` refused is a refusal here. With the answer comes which extensions
    /// were evaluated.
    async fn write<R: Message + Extended>(
        &self,
        metadata: &MetadataMap,
        mut request: R,
        parse: impl FnOnce(R) -> Result<Command, request::ParseError>,
    ) -> Result<(Applied, Option<Checked>), Trouble> {
        gate::leader(metadata, &self.served.node)?;
        gate::carried(metadata)?.put_into(&mut request)?;
        gate::size(&request)?;
        let wish = AckWish::take(&mut request)?;
        let command = parse(request)?;
        self.served.hottest.notice_write(&command);
        self.propose(metadata, &command, wish).await
    }

    async fn propose(
        &self,
        metadata: &MetadataMap,
        command: &Command,
        wish: Option<AckWish>,
    ) -> Result<(Applied, Option<Checked>), Trouble> {
        let node = &self.served.node;
        gate::fences(command, node)?;
        wish.map_or(Ok(()), |wish| wish.check(node.voter_count()))?;
        let deadline = deadline::of(metadata);
        let applied = node.propose(command, deadline).await??;
        let mut checked = extension::checked(command);
        if let Some(wish) = wish {
            let acks = node.acks(wish.ack, deadline::to_answer_by(deadline, wish.within)).await;
            checked.get_or_insert_default().acks = Some(extension::acks_message(&acks));
        }
        Ok((applied, checked))
    }

    async fn compaction(
        &self,
        metadata: &MetadataMap,
        request: &etcd::CompactionRequest,
    ) -> Result<Applied, Trouble> {
        gate::unextended(metadata, &self.served.node)?;
        let node = &self.served.node;
        let compacted = node.propose(&request::compaction(request), deadline::of(metadata)).await??;
        if request.physical {
            self.until_swept(Revision(request.revision), deadline::named(metadata)).await?;
        }
        Ok(compacted)
    }

    /// Waits until this member's file has been freed of what a compaction removes: as long as the client does.
    async fn until_swept(&self, revision: Revision, deadline: Option<Instant>) -> Result<(), Trouble> {
        let swept = self.served.node.until_swept(revision);
        let in_time = async {
            match deadline {
                Some(deadline) => rt::timeout_at(deadline, swept).await.is_some(),
                None => {
                    swept.await;
                    true
                }
            }
        };
        tokio::select! {
            in_time = in_time => if in_time { Ok(()) } else { Err(Trouble::Unswept) },
            () = self.served.shutdown.cancelled() => Err(Trouble::Unswept),
        }
    }

    /// As [`Served::answer`], and the metadata say too which extensions were evaluated. Where that would be longer than
    /// clients may take, the request came with fields, and the answer's field says it alone.
    fn answer<T: Checks>(&self, result: Result<T, Trouble>) -> Result<Response<T>, Status> {
        let mut response = self.served.answer(result)?;
        if let Some(checked) = response.get_ref().checked() {
            let value = checked_value(checked);
            if value.len() <= CHECKED_METADATA_BYTES_MAX
                && let Ok(value) = MetadataValue::try_from(value)
            {
                response.metadata_mut().insert(CHECKED_KEY, value);
            }
        }
        Ok(response)
    }

    async fn transact(
        &self,
        metadata: &MetadataMap,
        mut request: etcd::TxnRequest,
    ) -> Result<etcd::TxnResponse, Trouble> {
        gate::leader(metadata, &self.served.node)?;
        gate::carried(metadata)?.put_into(&mut request)?;
        gate::size(&request)?;
        let wish = AckWish::take(&mut request)?;
        let command = match request::txn(request)? {
            Transaction::Read(..) if wish.is_some() => return Err(ExtensionError::OnRead.into()),
            Transaction::Read(txn, freshness) => return self.read_txn(metadata, txn, freshness).await,
            Transaction::Write(command) => command,
        };
        self.served.hottest.notice_write(&command);
        let (applied, checked) = self.propose(metadata, &command, wish).await?;
        let header = self.served.header(&applied);
        match applied.reply {
            Reply::Txn(reply) => Ok(etcd::TxnResponse { checked, ..response::txn(reply, header) }),
            reply => unexpected("a transaction", &reply),
        }
    }

    /// A transaction that only reads.
    async fn read_txn(
        &self,
        metadata: &MetadataMap,
        txn: Txn,
        freshness: Freshness,
    ) -> Result<etcd::TxnResponse, Trouble> {
        let view = self.view(metadata, freshness).await?;
        let max = self.served.limits.answer_bytes;
        let (at, reply) = if is_short_txn(&txn) {
            (At::from(&view), view.evaluate_within(&txn, max)?)
        } else {
            drop(view);
            let read = move |view: &View| Ok((At::from(view), view.evaluate_within(&txn, max)?));
            self.served.read_long(read).await?
        };
        Ok(response::txn(reply, self.served.header(at)))
    }

    async fn read_range(
        &self,
        metadata: &MetadataMap,
        request: etcd::RangeRequest,
    ) -> Result<etcd::RangeResponse, Trouble> {
        let (view, query) = self.open_range(metadata, request).await?;
        let (at, reply) = if is_short(&query) {
            (At::from(&view), view.range(&query)?)
        } else {
            drop(view);
            let max = self.served.limits.answer_bytes;
            let read = move |view: &View| Ok((At::from(view), view.range_within(&query, max)?));
            self.served.read_long(read).await?
        };
        let age_ms = self.served.node.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Ok(etcd::RangeResponse { age_ms, ..response::range(reply, self.served.header(at)) })
    }

    /// What every read of a range begins with: the question, and a state fresh enough to answer it.
    async fn open_range(
        &self,
        metadata: &MetadataMap,
        request: etcd::RangeRequest,
    ) -> Result<(View, RangeQuery), Trouble> {
        gate::leader(metadata, &self.served.node)?;
        let wishes = metadata.get_all(FRESHNESS_KEY).iter().map(MetadataValue::as_bytes);
        let (query, freshness) = request::range(request, wishes)?;
        self.served.hottest.notice_read(&query.range.start);
        Ok((self.view(metadata, freshness).await?, query))
    }

    async fn view(&self, metadata: &MetadataMap, freshness: Freshness) -> Result<View, Trouble> {
        match freshness {
            Freshness::Any => Ok(self.served.node.believed_view()?),
            freshness => Ok(self.served.node.read_barrier(freshness, deadline::of(metadata)).await?),
        }
    }
}

/// Whether a range is surely read in a moment, so that a thread of its own would cost more than it saves.
fn is_short(query: &RangeQuery) -> bool {
    query.range.end == RangeEnd::Single || is_one_key(&query.range)
}

/// Bytes of keys and values.
fn bytes_of(kvs: &[mvccpb::KeyValue]) -> usize {
    kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum()
}

/// Whether a range holds one possible key at most, written as an interval.
fn is_one_key(range: &KeyRange) -> bool {
    matches!(&range.end, RangeEnd::Before(end)
        if end.len() == range.start.len() + 1 && end.starts_with(&range.start) && end.ends_with(&[0]))
}

fn is_short_txn(txn: &Txn) -> bool {
    let ranges = txn.success.iter().chain(&txn.failure).filter_map(|operation| match operation {
        Operation::Range(query) => Some(query),
        _ => None,
    });
    let compares = txn.compares.iter().map(|compare| &compare.range);
    ranges.clone().all(is_short)
        && compares.clone().all(|range| range.end == RangeEnd::Single)
        && ranges.count() + compares.count() <= SHORT_TXN_KEYS_MAX
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ringfence_types::{Compare, CompareOperator, CompareTarget};

    use super::*;

    fn query(start: &'static str, end: &'static str) -> RangeQuery {
        RangeQuery::new(KeyRange::from_etcd(Bytes::from_static(start.as_bytes()), end.into()))
    }

    #[test]
    fn only_reads_of_a_few_keys_run_where_the_call_runs() {
        assert!(is_short(&query("a", "")) && is_short(&query("a", "a\0")));
        assert!(!is_short(&query("a", "b")) && !is_short(&query("a", "\0")) && !is_short(&query("a", "b\0")));
        let get = |end| Operation::Range(query("a", end));
        let txn = |success, failure| Txn { compares: vec![], success, failure };
        assert!(is_short_txn(&txn(vec![get("")], vec![get("")])));
        assert!(!is_short_txn(&txn(vec![get("")], vec![get("b")])));
        assert!(!is_short_txn(&txn(vec![get(""); 65], vec![])));
        let range = KeyRange::all();
        let compare = Compare { range, operator: CompareOperator::Equal, target: CompareTarget::Version(0) };
        assert!(!is_short_txn(&Txn { compares: vec![compare], ..Txn::default() }));
    }
}
