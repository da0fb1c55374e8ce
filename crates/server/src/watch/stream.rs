//! One client's stream: its requests come in, and what its watches are told goes out, at the pace at which the client takes it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ringfence_consensus::rt::{self, Instant};
use ringfence_proto::etcdserverpb::watch_create_request::FilterType;
use ringfence_proto::etcdserverpb::watch_request::RequestUnion;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_types::{KeyRange, Revision};
use tonic::{Status, Streaming};

use super::catch_up::{self, Part};
use super::counts::WatchCounts;
use super::group::Interest;
use super::hub::{Begun, Hub};
use super::limits::{FRAGMENT_BYTES_MAX, WATCHES_PER_STREAM_MAX};
use super::outbox::{Delivery, Outbox, WatchKey};
use super::wire::{Piece, Reply, bytes_of, fragments};
use super::{Coming, Replies};
use crate::etcd_errors;
use crate::served::Served;
use crate::status::Trouble;

/// Deliveries that are taken before requests, the history and the clock have their turn.
const DELIVERIES_A_TURN: usize = 32;
/// What etcd calls the watch that is none, and all watches of a stream.
const NO_WATCH: i64 = -1;
/// etcd's words for a watch that cannot begin.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";

/// A stream under way.
pub(super) struct WatchStream {
    served: Served,
    hub: Hub,
    outbox: Arc<Outbox>,
    /// None once the client has nothing more to ask.
    requests: Option<Streaming<etcd::WatchRequest>>,
    ended: Coming<Option<Status>>,
    /// Deliveries taken since everything had its turn.
    taken: usize,
    /// What goes out before anything else: what one request, one delivery or one part of the history has led to.
    ready: VecDeque<Reply>,
    watches: HashMap<WatchKey, Watch>,
    ids: HashMap<i64, WatchKey>,
    next_id: i64,
    /// Watches that are to read the history, each from a revision on; the first of them is next.
    behind: VecDeque<(WatchKey, Revision)>,
    reading: Option<Coming<(WatchKey, Part)>>,
    progress_interval: Duration,
    progress_due: Instant,
}

/// A watch of the stream.
struct Watch {
    id: i64,
    interest: Arc<Interest>,
    fragment: bool,
    /// Whether to tell now and then how far it is.
    progress_notify: bool,
    /// Whether events went out since the last time that this was due.
    was_told: bool,
}

/// What happens next on a stream.
enum Turn {
    Ended(Option<Status>),
    Asked(Result<Option<etcd::WatchRequest>, Status>),
    Delivered(Delivery),
    Read(WatchKey, Part),
    ProgressDue,
}

impl WatchStream {
    pub(super) fn open(
        served: &Served,
        hub: &Hub,
        requests: Streaming<etcd::WatchRequest>,
        ended: Coming<Option<Status>>,
        progress_interval: Duration,
    ) -> Result<WatchStream, Trouble> {
        let outbox = hub.open()?;
        served.watch_counts.streams.fetch_add(1, Relaxed);
        Ok(WatchStream {
            served: served.clone(),
            hub: hub.clone(),
            outbox,
            requests: Some(requests),
            ended,
            taken: 0,
            ready: VecDeque::new(),
            watches: HashMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            behind: VecDeque::new(),
            reading: None,
            progress_interval,
            progress_due: rt::now() + progress_interval,
        })
    }

    /// All that the client is told, until it goes or has to.
    pub(super) fn replies(self) -> Replies {
        let replies = stream::unfold(Some(Box::new(self)), |stream| async move {
            let mut stream = stream?;
            match stream.next().await? {
                Ok(reply) => Some((Ok(reply), Some(stream))),
                Err(status) => Some((Err(status), None)),
            }
        });
        replies.boxed()
    }

    async fn next(&mut self) -> Option<Result<Reply, Status>> {
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Some(Ok(reply));
            }
            // Mostly there is no more to do than this; now and then everything has its turn.
            if self.taken < DELIVERIES_A_TURN
                && let Some(delivery) = self.outbox.take()
            {
                self.taken += 1;
                self.deliver(delivery);
                continue;
            }
            self.taken = 0;
            self.begin_reading();
            match self.turn().await {
                Turn::Ended(Some(status)) => return Some(Err(status)),
                // A stream that ends well would end its watches for good in etcd's client.
                Turn::Ended(None) => return Some(Err(self.served.status(&Trouble::Stopping))),
                Turn::Asked(Ok(Some(request))) => self.take(request),
                Turn::Asked(Ok(None)) => self.requests = None,
                Turn::Asked(Err(status)) => return Some(Err(status)),
                Turn::Delivered(delivery) => self.deliver(delivery),
                Turn::Read(watch, part) => self.take_part(watch, part),
                Turn::ProgressDue => self.notify_progress(),
            }
        }
    }

    /// Waits for what comes next. Where several things have come, chance decides, so that none waits for ever.
    async fn turn(&mut self) -> Turn {
        let (requests, reading) = (&mut self.requests, &mut self.reading);
        let (is_asking, is_reading) = (requests.is_some(), reading.is_some());
        let asked = async {
            match requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        let read = async {
            match reading {
                Some(reading) => reading.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut self.ended => Turn::Ended(ended),
            request = asked, if is_asking => Turn::Asked(request),
            delivery = self.outbox.next() => Turn::Delivered(delivery),
            (watch, part) = read, if is_reading => Turn::Read(watch, part),
            () = rt::sleep_until(self.progress_due) => Turn::ProgressDue,
        }
    }

    fn take(&mut self, request: etcd::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request),
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                let newest = self.newest();
                self.hub.want_progress(&self.outbox, newest);
            }
            // As in etcd, what is none of the three is no reason to end the other watches.
            None => {}
        }
    }

    /// The store's revision as readers of this member see it.
    fn newest(&self) -> Revision {
        let known = self.served.node.believed_view().map(|view| view.revision());
        known.map_or(self.hub.revision(), |known| known.max(self.hub.revision()))
    }

    fn create(&mut self, request: etcd::WatchCreateRequest) {
        let range = range_of(&request);
        let refusal = if range.is_empty() {
            Some(EMPTY_RANGE)
        } else if request.watch_id != 0 && self.ids.contains_key(&request.watch_id) {
            Some(DUPLICATE_ID)
        } else if self.watches.len() >= WATCHES_PER_STREAM_MAX {
            Some(etcd_errors::TOO_MANY_REQUESTS.1)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.refuse(reason);
        }
        let without = |filter: FilterType| !request.filters.contains(&i32::from(filter));
        let (puts, deletes) = (without(FilterType::Noput), without(FilterType::Nodelete));
        let interest = Arc::new(Interest { range, puts, deletes, prev_kv: request.prev_kv });
        // Nothing is older than the first revision.
        let start = Revision(if request.start_revision < 0 { 1 } else { request.start_revision });
        let Some(begun) = self.hub.begin(&self.outbox, &interest, start, self.newest()) else {
            return self.refuse(etcd_errors::TOO_MANY_REQUESTS.1);
        };
        let Begun { key, revision, behind_from } = begun;
        let id = if request.watch_id == 0 { self.free_id() } else { request.watch_id };
        let watch = Watch {
            id,
            interest,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            was_told: false,
        };
        self.counts().watches.fetch_add(1, Relaxed);
        self.ids.insert(id, key);
        self.watches.insert(key, watch);
        let created = etcd::WatchResponse { created: true, ..self.response(id, revision) };
        self.ready.push_back(created.into());
        self.behind.extend(behind_from.map(|from| (key, from)));
    }

    fn refuse(&mut self, reason: &str) {
        let refused = etcd::WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..self.response(NO_WATCH, self.newest())
        };
        self.ready.push_back(refused.into());
    }

    fn free_id(&mut self) -> i64 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn cancel(&mut self, id: i64) {
        let Some(key) = self.ids.get(&id).copied() else { return };
        self.end(key);
        let canceled = etcd::WatchResponse { canceled: true, ..self.response(id, self.newest()) };
        self.ready.push_back(canceled.into());
    }

    fn end(&mut self, key: WatchKey) {
        let Some(watch) = self.watches.remove(&key) else { return };
        self.ids.remove(&watch.id);
        self.hub.end(key, &self.outbox, &watch.interest);
        self.counts().watches.fetch_sub(1, Relaxed);
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Events { watch, pieces, revision } => self.tell(watch, &pieces, revision),
            Delivery::Progress { watch: None, revision } => {
                let progress = self.response(NO_WATCH, revision);
                self.ready.push_back(progress.into());
            }
            Delivery::Progress { watch: Some(key), revision } => {
                if let Some(watch) = self.watches.get(&key) {
                    let progress = self.response(watch.id, revision);
                    self.ready.push_back(progress.into());
                }
            }
            Delivery::Behind { watch, from } => self.behind.push_back((watch, from)),
        }
    }

    /// Lets the first of the watches that are behind read on, if none does.
    fn begin_reading(&mut self) {
        while self.reading.is_none()
            && let Some((key, from)) = self.behind.pop_front()
        {
            if let Some(watch) = self.watches.get(&key) {
                let interest = Arc::clone(&watch.interest);
                self.reading = Some(Box::pin(catch_up::read(self.served.clone(), key, interest, from)));
            }
        }
    }

    /// Tells a watch a part of the history, and lets it go on with the next part or with the others.
    fn take_part(&mut self, key: WatchKey, part: Part) {
        self.reading = None;
        match part {
            Part::Events { pieces, next } => {
                self.tell(key, &pieces, Revision(next.0 - 1));
                let Some(watch) = self.watches.get(&key) else { return };
                if !self.hub.join(key, &self.outbox, &watch.interest, next) {
                    self.behind.push_back((key, next));
                }
            }
            Part::Compacted { oldest } => {
                let Some(id) = self.watches.get(&key).map(|watch| watch.id) else { return };
                self.end(key);
                self.counts().compacted.fetch_add(1, Relaxed);
                let canceled = etcd::WatchResponse {
                    canceled: true,
                    compact_revision: oldest.0,
                    cancel_reason: etcd_errors::COMPACTED.1.to_owned(),
                    ..self.response(id, self.newest())
                };
                self.ready.push_back(canceled.into());
            }
        }
    }

    /// Tells a watch events, with which it is up to `revision`.
    fn tell(&mut self, key: WatchKey, pieces: &[Piece], revision: Revision) {
        let Some(watch) = self.watches.get_mut(&key).filter(|_| !pieces.is_empty()) else { return };
        watch.was_told = true;
        let (id, fragment) = (watch.id, watch.fragment);
        let events: usize = pieces.iter().map(|piece| piece.events).sum();
        self.counts().events.fetch_add(events as u64, Relaxed);
        let front = self.response(id, revision);
        let reply = Reply { front, events: pieces.iter().map(|piece| Bytes::clone(&piece.bytes)).collect() };
        if fragment && events > 1 && bytes_of(pieces) >= FRAGMENT_BYTES_MAX {
            self.ready.extend(fragments(reply, FRAGMENT_BYTES_MAX));
        } else {
            self.ready.push_back(reply);
        }
    }

    /// Tells the watches that want it, and were told nothing for a while, how far they are.
    fn notify_progress(&mut self) {
        self.progress_due = rt::now() + self.progress_interval;
        for (key, watch) in &mut self.watches {
            if watch.progress_notify && !watch.was_told {
                self.hub.tell_progress(*key, &self.outbox, &watch.interest);
            }
            watch.was_told = false;
        }
    }

    fn response(&self, watch_id: i64, revision: Revision) -> etcd::WatchResponse {
        let header = Some(self.served.header(revision));
        etcd::WatchResponse { header, watch_id, ..Default::default() }
    }

    fn counts(&self) -> &WatchCounts {
        &self.served.watch_counts
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let keys: Vec<WatchKey> = self.watches.keys().copied().collect();
        for key in keys {
            self.end(key);
        }
        self.hub.forget_progress(&self.outbox);
        self.hub.close();
        self.counts().streams.fetch_sub(1, Relaxed);
    }
}

/// The range that a request names. As in etcd, the empty key stands for the first key of all.
fn range_of(request: &etcd::WatchCreateRequest) -> KeyRange {
    // Copied: the message is not kept for as long as the watch lasts.
    let start =
        if request.key.is_empty() { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(&request.key) };
    KeyRange::from_etcd(start, Bytes::copy_from_slice(&request.range_end))
}
