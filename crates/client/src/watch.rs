//! Watching keys: whole revisions, in order, each once, through disconnects and changes of members.

use std::collections::VecDeque;

use futures_util::stream;
use ringfence_proto::etcdserverpb::watch_client::WatchClient;
use ringfence_proto::etcdserverpb::watch_request::RequestUnion;
use ringfence_proto::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use ringfence_proto::mvccpb::Event;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::backoff::Backoff;
use crate::retry::Kind;
use crate::verdict::{Next, TOO_MANY_REQUESTS, Verdict};
use crate::{Client, Error};

/// Most requests on one stream that wait to be sent.
const REQUESTS_MAX: usize = 4;

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// All that happened to the watched keys at one revision.
    Change {
        /// The revision.
        revision: i64,
        /// The events, at least one.
        events: Vec<Event>,
    },
    /// Up to this revision nothing has happened to the watched keys but what was told.
    Progress {
        /// The revision.
        revision: i64,
    },
}

/// A watch under way; see [`Client::watch`].
///
/// Where its connection is lost, or its member has no leader, it goes on at another member, behind the last revision that it has
/// told. It keeps no more than one answer of the server.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    /// As it was asked for; `start_revision` is the first revision that was not told.
    request: WatchCreateRequest,
    open: Option<Open>,
    /// What was received whole.
    ready: VecDeque<Watched>,
    /// The events so far of a revision that comes in fragments.
    part: Vec<Event>,
    backoff: Backoff,
    /// Set once the watch can never go on.
    over: Option<Error>,
}

#[derive(Debug)]
struct Open {
    requests: mpsc::Sender<WatchRequest>,
    responses: Box<Streaming<WatchResponse>>,
    /// Whether anything has come since the stream began.
    was_useful: bool,
}

impl Client {
    /// Watches the keys of a range: from `start_revision` on, or for 0 from what happens next; then the watch has begun when
    /// this returns. Filters, `prev_kv` and `progress_notify` are the caller's to set; `watch_id` and `fragment` are not.
    ///
    /// ```no_run
    /// # async fn example(client: ringfence_client::Client) -> Result<(), ringfence_client::Error> {
    /// use ringfence_client::{Watched, watch_prefix};
    ///
    /// let mut watch = client.watch(watch_prefix("jobs/")).await?;
    /// loop {
    ///     if let Watched::Change { revision, events } = watch.next().await? {
    ///         println!("{} events at revision {revision}", events.len());
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`]. [`Error::Compacted`] comes with the first [`Watch::next`].
    pub async fn watch(&self, request: WatchCreateRequest) -> Result<Watch, Error> {
        let options = self.nodes.options();
        let mut watch = Watch {
            client: self.clone(),
            request: WatchCreateRequest { watch_id: 0, fragment: true, ..request },
            open: None,
            ready: VecDeque::new(),
            part: Vec::new(),
            backoff: Backoff::new(options.backoff_min, options.backoff_max),
            over: None,
        };
        watch.open().await?;
        Ok(watch)
    }
}

/// The request to watch all keys that begin with `prefix`, from now on.
#[must_use]
pub fn watch_prefix(prefix: impl Into<bytes::Bytes>) -> WatchCreateRequest {
    let range = ringfence_types::KeyRange::prefix(prefix.into());
    let range_end = range.etcd_range_end();
    WatchCreateRequest { key: range.start, range_end, ..WatchCreateRequest::default() }
}

impl Watch {
    /// The first revision that the watch has not told: a watch that begins there misses nothing and repeats nothing.
    #[must_use]
    pub fn next_revision(&self) -> i64 {
        // What is ready was received, and not told yet.
        match self.ready.front() {
            Some(Watched::Change { revision, .. }) => *revision,
            Some(Watched::Progress { .. }) | None => self.request.start_revision,
        }
    }

    /// The next change, or how far the watch is. Nothing is lost where the wait is given up.
    ///
    /// # Errors
    /// [`Error::Compacted`] where the history that the watch needs is gone, and [`Error::Refused`]: the watch is over then, and says
    /// the same again. After [`Error::Unavailable`] it may be asked again, and goes on.
    pub async fn next(&mut self) -> Result<Watched, Error> {
        loop {
            if let Some(watched) = self.ready.pop_front() {
                return Ok(watched);
            }
            if let Some(over) = &self.over {
                return Err(over.clone());
            }
            let Some(open) = &mut self.open else {
                self.open().await?;
                continue;
            };
            match open.responses.message().await {
                Ok(Some(response)) => {
                    open.was_useful = true;
                    self.take(response)?;
                }
                Ok(None) => self.lose().await,
                Err(status) => {
                    let verdict = Verdict::of(&status);
                    if verdict.next == Next::GiveUp {
                        let Verdict { code, reason, message, .. } = verdict;
                        return Err(self.end(Error::Refused { code, reason, message }));
                    }
                    self.client.nodes.follow_hint(&verdict.leader);
                    self.lose().await;
                }
            }
        }
    }

    /// Asks how far the watch is: [`Watched::Progress`] follows, behind all that happened before. The question is lost with the
    /// connection.
    ///
    /// # Errors
    /// As for opening a watch, where it has no connection.
    pub async fn request_progress(&mut self) -> Result<(), Error> {
        if self.open.is_none() {
            self.open().await?;
        }
        let question =
            WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
        if let Some(open) = &self.open {
            // A full queue has such a question in it.
            drop(open.requests.try_send(question));
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), Error> {
        self.part.clear();
        let (client, request) = (&self.client, &self.request);
        let way = client.way(None);
        let opened = client.call_by(way, Kind::Read, |channel| begin(client, channel, request.clone())).await;
        match opened {
            Ok((open, revision)) => {
                if self.request.start_revision == 0 {
                    self.request.start_revision = revision + 1;
                }
                self.open = Some(open);
                Ok(())
            }
            Err(error @ Error::Refused { .. }) => Err(self.end(error)),
            Err(error) => Err(error),
        }
    }

    /// Gives up a stream that broke; where it was of no use, not at once again.
    async fn lose(&mut self) {
        let options = self.client.nodes.options();
        let was_useful = self.open.as_ref().is_none_or(|open| open.was_useful);
        if was_useful {
            self.backoff = Backoff::new(options.backoff_min, options.backoff_max);
        } else {
            tokio::time::sleep(self.backoff.draw()).await;
        }
        self.open = None;
    }

    fn end(&mut self, error: Error) -> Error {
        self.open = None;
        self.over = Some(error.clone());
        error
    }

    fn take(&mut self, response: WatchResponse) -> Result<(), Error> {
        if response.compact_revision > 0 {
            let (wanted, oldest) = (self.request.start_revision, response.compact_revision);
            return Err(self.end(Error::Compacted { wanted, oldest }));
        }
        if response.canceled {
            return Err(self.end(refused(&response)));
        }
        let revision = response.header.map_or(0, |header| header.revision);
        if response.events.is_empty() && self.part.is_empty() {
            if revision >= self.request.start_revision {
                self.request.start_revision = revision + 1;
            }
            self.ready.push_back(Watched::Progress { revision });
            return Ok(());
        }
        for event in response.events {
            let at = revision_of(&event);
            if self.part.first().is_some_and(|first| revision_of(first) != at) {
                self.complete();
            }
            if at < self.request.start_revision {
                let message = format!("an event of revision {at} after the watch was beyond it");
                return Err(self.end(Error::Protocol(message)));
            }
            self.part.push(event);
        }
        if !response.fragment {
            self.complete();
        }
        Ok(())
    }

    /// The events so far are all of their revision.
    fn complete(&mut self) {
        let events = std::mem::take(&mut self.part);
        if let Some(revision) = events.first().map(revision_of) {
            self.request.start_revision = revision + 1;
            self.ready.push_back(Watched::Change { revision, events });
        }
    }
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn refused(response: &WatchResponse) -> Error {
    Error::Refused {
        code: tonic::Code::FailedPrecondition,
        reason: "watch_canceled".to_owned(),
        message: format!("the watch was canceled: {}", response.cancel_reason),
    }
}

/// Opens a stream with one watch. Returns it with the store's revision at that moment.
async fn begin(
    client: &Client,
    channel: Channel,
    request: WatchCreateRequest,
) -> Result<(Open, i64), Status> {
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) };
    drop(requests.try_send(first));
    let outgoing = stream::unfold(waiting, |mut waiting: mpsc::Receiver<WatchRequest>| async move {
        Some((waiting.recv().await?, waiting))
    });
    let mut outgoing = Request::new(outgoing);
    // A member that is cut off would be silent for ever.
    outgoing.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut service =
        WatchClient::new(channel).max_decoding_message_size(client.nodes.options().response_bytes_max);
    let mut responses = service.watch(outgoing).await?.into_inner();
    let created = responses
        .message()
        .await?
        .ok_or_else(|| Status::unavailable("the stream ended before the watch had begun"))?;
    if !created.created {
        return Err(Status::internal(
            "the first answer on the stream is not to the request that begins the watch",
        ));
    }
    if created.canceled {
        return Err(match created.cancel_reason {
            reason if reason == TOO_MANY_REQUESTS => Status::resource_exhausted(reason),
            reason => Status::invalid_argument(reason),
        });
    }
    let revision = created.header.map_or(0, |header| header.revision);
    Ok((Open { requests, responses: Box::new(responses), was_useful: false }, revision))
}
