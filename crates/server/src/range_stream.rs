//! A range in several messages: the parts' keys joined are the answer's keys, and the last part alone has the header,
//! `count` and `more`, so that the parts merged are what one Range would have answered.
//!
//! The first part's view fixes the revision. Each part is read from a view of its own at that revision, so that no view
//! is held while a slow client reads; if history is compacted past the revision meanwhile, the stream ends with that
//! error.

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use ringfence_proto::{etcdserverpb as etcd, response};
use ringfence_store::{ReadError, ScanChunk, View};
use ringfence_types::{KeyValue, RangeQuery, RangeReply, Revision, SortOrder, SortTarget};
use tonic::Status;

use crate::limits::{STREAM_CHUNK_BYTES_MAX, STREAM_CHUNK_KEYS_MAX};
use crate::served::{At, Served};

/// The messages that answer `query`.
pub(crate) fn chunks(
    served: Served,
    query: RangeQuery,
) -> impl Stream<Item = Result<etcd::RangeStreamResponse, Status>> + Send {
    let left = if query.limit == 0 { u64::MAX } else { query.limit };
    let cursor = Cursor { query, opened_at: None, after: None, sent: 0, left };
    stream::unfold(Some((served, cursor)), |state| async move {
        let (served, cursor) = state?;
        let max = served.limits.answer_bytes;
        match served.read_long(move |view| cursor.read(view, max)).await {
            Ok(Part::Middle(kvs, cursor)) => {
                let part = etcd::RangeResponse { kvs: response::key_values(kvs), ..Default::default() };
                Some((Ok(message(part)), Some((served, cursor))))
            }
            Ok(Part::Last(reply, at)) => Some((Ok(message(response::range(reply, served.header(at)))), None)),
            Err(trouble) => Some((Err(served.status(&trouble)), None)),
        }
    })
}

fn message(part: etcd::RangeResponse) -> etcd::RangeStreamResponse {
    etcd::RangeStreamResponse { range_response: Some(part) }
}

/// What a step of a stream comes to.
enum Part {
    /// Keys, and where the stream stands then.
    Middle(Vec<KeyValue>, Cursor),
    /// The last keys with the counts, and when the stream began.
    Last(RangeReply, At),
}

/// Where a stream stands.
struct Cursor {
    /// The question; its revision is fixed when the first part is read.
    query: RangeQuery,
    /// When the first part was read.
    opened_at: Option<At>,
    /// The last key sent.
    after: Option<Bytes>,
    /// Number of keys sent.
    sent: u64,
    /// Number of keys that the limit still allows.
    left: u64,
}

impl Cursor {
    fn read(mut self, view: &View, answer_bytes_max: u64) -> Result<Part, ReadError> {
        let opened_at = *self.opened_at.get_or_insert(At::from(view));
        let at = *self.query.revision.get_or_insert(opened_at.revision);
        if !is_streamable(&self.query) {
            return Ok(Part::Last(view.range_within(&self.query, answer_bytes_max)?, opened_at));
        }
        let keys_max =
            usize::try_from(self.left).map_or(STREAM_CHUNK_KEYS_MAX, |left| left.min(STREAM_CHUNK_KEYS_MAX));
        let RangeQuery { range, keys_only, .. } = &self.query;
        let chunk =
            view.scan(range, Some(at), self.after.as_ref(), *keys_only, keys_max, STREAM_CHUNK_BYTES_MAX)?;
        let ScanChunk { kvs, more } = chunk;
        self.sent += kvs.len() as u64;
        self.left -= kvs.len() as u64;
        if more && self.left > 0 {
            self.after = Some(kvs.last().expect("a part before the last has a key").key.clone());
            return Ok(Part::Middle(kvs, self));
        }
        let count = if more { self.count(view)? } else { self.sent };
        Ok(Part::Last(RangeReply { kvs, more, count }, opened_at))
    }

    /// Number of keys in the whole range, for an answer that the limit cut off.
    fn count(&self, view: &View) -> Result<u64, ReadError> {
        let mut query = RangeQuery::new(self.query.range.clone());
        query.revision = self.query.revision;
        query.count_only = true;
        Ok(view.range(&query)?.count)
    }
}

/// Whether the answer lies in the store as it must be sent. What must be sorted, filtered or only counted is one
/// message: it has to be read whole before its first key is known.
fn is_streamable(query: &RangeQuery) -> bool {
    let in_order = match query.sort_order {
        SortOrder::None => true,
        SortOrder::Ascend => query.sort_target == SortTarget::Key,
        SortOrder::Descend => false,
    };
    let bounds = [
        query.min_mod_revision,
        query.max_mod_revision,
        query.min_create_revision,
        query.max_create_revision,
    ];
    in_order && !query.count_only && bounds == [Revision(0); 4]
}
