//! Reading many keys piece by piece, all at one revision: by RangeStream where the server has it (etcd before 3.7 does
//! not), else page by page. A broken stream is taken up again behind the last key received.

use bytes::Bytes;
use ringfence_proto::etcdserverpb::{RangeRequest, RangeStreamResponse};
use ringfence_proto::mvccpb::KeyValue;
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::reads::fresh;
use crate::retry::Kind;
use crate::{Client, Error};

/// Most keys in one page.
const PAGE_KEYS: i64 = 1_000;
/// Most keys in one page after an answer was too large or too slow: values may be of any size.
const SMALL_PAGE_KEYS: i64 = 16;

/// A scan under way; see [`Client::scan`].
#[derive(Debug)]
pub struct Scan {
    client: Client,
    /// What is still to be read: its key and its limit move on with every piece.
    rest: RangeRequest,
    /// Whether `rest.limit` bounds the scan; 0 means "no limit" on the wire.
    limited: bool,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// The revision has not been chosen yet.
    Start,
    /// The server may have RangeStream, and the next piece opens a stream.
    Reopen,
    /// Pieces come from this stream.
    Stream(Box<Streaming<RangeStreamResponse>>),
    /// The server has no RangeStream; a page holds at most so many keys.
    Pages(i64),
    /// Everything was read.
    Done,
}

impl Scan {
    pub(crate) fn new(client: Client, request: RangeRequest) -> Scan {
        let limited = request.limit > 0;
        Scan { client, rest: request, limited, way: Way::Start }
    }

    /// The revision that is read; 0 until the first piece has come.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.rest.revision
    }

    /// The next keys, at least one; `None` at the end.
    ///
    /// # Errors
    /// See [`Error`]. After an error the scan may be asked again: it goes on behind the last key that it returned.
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        loop {
            match std::mem::replace(&mut self.way, Way::Reopen) {
                Way::Done => {
                    self.way = Way::Done;
                    return Ok(None);
                }
                Way::Start => {
                    self.way = Way::Start;
                    self.choose_revision().await?;
                    self.way = Way::Reopen;
                }
                Way::Reopen => self.way = self.open().await?,
                Way::Stream(stream) => {
                    if let Some(kvs) = self.next_of_stream(stream).await {
                        return Ok(Some(self.advance(kvs)));
                    }
                }
                Way::Pages(keys) => {
                    self.way = Way::Pages(keys);
                    let kvs = self.page(keys).await?;
                    if !kvs.is_empty() {
                        return Ok(Some(self.advance(kvs)));
                    }
                }
            }
        }
    }

    /// Settles the revision before anything is read, so that a scan that was broken off goes on in the same state.
    async fn choose_revision(&mut self) -> Result<(), Error> {
        if self.rest.revision == 0 {
            let question = RangeRequest { count_only: true, limit: 1, ..self.rest.clone() };
            let answer = self.client.range(question).await?;
            let header =
                answer.header.ok_or_else(|| Error::Protocol("a range answer without a header".to_owned()))?;
            self.rest.revision = header.revision;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Way, Error> {
        let wish = self.client.wish(&self.rest);
        let opened = self
            .client
            .call_by(self.client.way(wish), Kind::Read, |channel| {
                let request = fresh(self.rest.clone(), wish);
                async move { Ok(self.client.kv(channel).range_stream(request).await?.into_inner()) }
            })
            .await;
        match opened {
            Ok(stream) => Ok(Way::Stream(Box::new(stream))),
            Err(Error::Refused { code: Code::Unimplemented, .. }) => Ok(Way::Pages(PAGE_KEYS)),
            Err(error) => Err(error),
        }
    }

    /// The next keys of the stream; `None` where it ended, well or not, and `self.way` says how to go on.
    async fn next_of_stream(
        &mut self,
        mut stream: Box<Streaming<RangeStreamResponse>>,
    ) -> Option<Vec<KeyValue>> {
        loop {
            match timeout(self.client.timeout, stream.message()).await {
                Ok(Ok(Some(piece))) => {
                    let kvs = piece.range_response.map(|answer| answer.kvs).unwrap_or_default();
                    if !kvs.is_empty() {
                        self.way = Way::Stream(stream);
                        return Some(kvs);
                    }
                }
                Ok(Ok(None)) => {
                    self.way = Way::Done;
                    return None;
                }
                Ok(Err(status)) if status.code() == Code::Unimplemented => {
                    self.way = Way::Pages(PAGE_KEYS);
                    return None;
                }
                // Pages are retried with all of the retry loop's rules, so they end in the error that fits.
                Ok(Err(_)) | Err(_) => {
                    self.way = Way::Pages(SMALL_PAGE_KEYS);
                    return None;
                }
            }
        }
    }

    async fn page(&mut self, keys: i64) -> Result<Vec<KeyValue>, Error> {
        let limit = if self.limited { self.rest.limit.min(keys) } else { keys };
        let answer = self.client.range(RangeRequest { limit, ..self.rest.clone() }).await?;
        self.way = match (answer.more, answer.kvs.is_empty()) {
            (true, false) => Way::Pages((keys * 2).min(PAGE_KEYS)),
            _ => Way::Done,
        };
        Ok(answer.kvs)
    }

    /// Moves what is still to be read behind the last of `kvs`.
    fn advance(&mut self, kvs: Vec<KeyValue>) -> Vec<KeyValue> {
        if let Some(last) = kvs.last() {
            let mut next = Vec::with_capacity(last.key.len() + 1);
            next.extend_from_slice(&last.key);
            next.push(0);
            self.rest.key = Bytes::from(next);
        }
        if self.limited {
            self.rest.limit -= i64::try_from(kvs.len()).unwrap_or(i64::MAX);
            if self.rest.limit <= 0 {
                self.way = Way::Done;
            }
        }
        // A single key, or the last key before the end: nothing can follow.
        if self.rest.range_end.is_empty()
            || (self.rest.range_end != [0][..] && self.rest.key >= self.rest.range_end)
        {
            self.way = Way::Done;
        }
        kvs
    }
}
