//! Watches as each kind of client makes them: begun, heard for a while, asked how far they are, and given up.

use std::time::Duration;

use etcd_client::{EventType as EtcdEventType, WatchResponse, WatchStream, Watcher};
use ringfence_client::{Client as Ringfence, Error, Watched as Heard};
use ringfence_proto::etcdserverpb::WatchCreateRequest;
use ringfence_proto::mvccpb::Event;
use ringfence_proto::mvccpb::event::EventType;
use tokio::time::{Instant, timeout_at};

use super::ringfence::bounds;
use super::{Failure, Found, Keys};

/// How long the answer to how far a watch is may take. A member without a majority may have none.
const PROGRESS_MAX: Duration = Duration::from_secs(1);

/// What is to be watched, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watching {
    /// Which keys.
    pub keys: Keys,
    /// From which revision on; 0: from now on.
    pub from: u64,
    /// It ends after so many revisions of which something was told.
    pub changes_max: u64,
    /// And after this time, once it was asked how far it is.
    pub time: Duration,
}

/// What a watch was told: everything from one revision up to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// The first revision.
    pub from: u64,
    /// The last one; less than the first where nothing was told.
    pub to: u64,
    /// What happened, in the order in which it was told.
    pub events: Vec<Told>,
    /// It ended, since history begins at this revision by now.
    pub compacted: Option<u64>,
    /// It ended, since it was told what no watch can tell.
    pub broken: Option<String>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub revision: u64,
    /// Which key.
    pub key: String,
    /// What it became; none: it was deleted.
    pub value: Option<String>,
}

impl Watched {
    /// How many revisions were told.
    fn changes(&self) -> u64 {
        let revisions = self.events.chunk_by(|one, next| one.revision == next.revision);
        revisions.count() as u64
    }

    fn hear(&mut self, key: &[u8], value: Option<&[u8]>, revision: i64) {
        match Found::new(key, value.unwrap_or_default(), revision) {
            Ok(Found { key, value: text, changed_at }) => {
                self.events.push(Told { revision: changed_at, key, value: value.is_some().then_some(text) });
            }
            Err(failure) => self.broken = Some(failure.error),
        }
    }

    fn hear_event(&mut self, event: &Event) {
        match &event.kv {
            Some(kv) => {
                let is_put = event.r#type() == EventType::Put;
                self.hear(&kv.key, is_put.then_some(kv.value.as_ref()), kv.mod_revision);
            }
            None => self.broken = Some("an event has no key".to_owned()),
        }
    }

    /// Whether there is nothing more to hear.
    fn is_over(&self, watching: &Watching) -> bool {
        self.compacted.is_some() || self.broken.is_some() || self.changes() >= watching.changes_max
    }
}

/// When a watch is asked how far it is, and when it is given up.
struct Pace {
    until: Instant,
    deadline: Instant,
    has_asked: bool,
}

impl Pace {
    fn new(watching: &Watching, deadline: Instant) -> Pace {
        Pace { until: deadline.min(Instant::now() + watching.time), deadline, has_asked: false }
    }

    /// The time is over: whether it is to be asked how far it is now.
    fn asks(&mut self) -> bool {
        let asks = !self.has_asked;
        self.has_asked = true;
        self.until = self.deadline.min(Instant::now() + PROGRESS_MAX);
        asks
    }
}

/// By the project's own client, which goes on at another member where one is lost.
pub(super) async fn by_ringfence(
    client: &Ringfence,
    watching: &Watching,
    deadline: Instant,
) -> Result<Watched, Failure> {
    let (key, range_end) = bounds(&watching.keys);
    let start_revision = i64::try_from(watching.from).unwrap_or(i64::MAX);
    let request = WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
    let begun = timeout_at(deadline, client.watch(request)).await;
    let begun = begun.map_err(|_| Failure::definite("not begun before the deadline"))?;
    let mut watch = begun.map_err(|error| Failure::of_ringfence_client(&error))?;
    let next = |watch: &ringfence_client::Watch| u64::try_from(watch.next_revision()).unwrap_or(0);
    let mut watched = Watched { from: next(&watch), ..Watched::default() };
    let mut pace = Pace::new(watching, deadline);
    while !watched.is_over(watching) {
        match timeout_at(pace.until, watch.next()).await {
            Ok(Ok(Heard::Change { events, .. })) => events.iter().for_each(|event| watched.hear_event(event)),
            Ok(Ok(Heard::Progress { .. })) if pace.has_asked => break,
            Ok(Ok(Heard::Progress { .. })) => {}
            Ok(Err(Error::Compacted { oldest, .. })) => watched.compacted = u64::try_from(oldest).ok(),
            Ok(Err(Error::Protocol(words))) => watched.broken = Some(words),
            // It goes on where it was, as soon as somebody answers.
            Ok(Err(Error::Unavailable { .. })) if Instant::now() < pace.until => {}
            Ok(Err(_)) => break,
            Err(_elapsed) if pace.asks() => {
                // Where the question is lost, so is the answer, and the time for it runs out.
                let _ = timeout_at(pace.until, watch.request_progress()).await;
            }
            Err(_elapsed) => break,
        }
    }
    watched.to = next(&watch).saturating_sub(1);
    Ok(watched)
}

/// By a client of etcd: one stream, and what was told before it broke.
pub(super) async fn by_etcd(
    mut watcher: Watcher,
    mut stream: WatchStream,
    watching: &Watching,
    deadline: Instant,
) -> Watched {
    let mut watched = Watched { to: watching.from.saturating_sub(1), ..Watched::default() };
    let mut pace = Pace::new(watching, deadline);
    while !watched.is_over(watching) {
        match timeout_at(pace.until, stream.message()).await {
            Ok(Ok(Some(answer))) => {
                let is_progress = hear_answer(&mut watched, &answer);
                if is_progress && pace.has_asked {
                    break;
                }
            }
            Ok(Ok(None) | Err(_)) => break,
            Err(_elapsed) if pace.asks() => {
                let _ = timeout_at(pace.until, watcher.request_progress()).await;
            }
            Err(_elapsed) => break,
        }
    }
    // The library does not tell at which revision a watch from now on has begun.
    let first = || watched.events.first().map_or(watched.to + 1, |told| told.revision);
    watched.from = if watching.from == 0 { first() } else { watching.from };
    watched
}

/// Takes an answer; returns whether it tells how far the watch is and nothing else.
fn hear_answer(watched: &mut Watched, answer: &WatchResponse) -> bool {
    if answer.canceled() {
        match u64::try_from(answer.compact_revision()) {
            Ok(oldest) if oldest > 0 => watched.compacted = Some(oldest),
            _ => watched.broken = Some(format!("it was canceled: {}", answer.cancel_reason())),
        }
        return false;
    }
    let is_progress = answer.events().is_empty();
    for event in answer.events() {
        match event.kv() {
            Some(kv) => {
                let value = (event.event_type() == EtcdEventType::Put).then_some(kv.value());
                watched.hear(kv.key(), value, kv.mod_revision());
            }
            None => watched.broken = Some("an event has no key".to_owned()),
        }
    }
    // Without fragments every revision comes whole; the header of an answer with events may be ahead of what is told.
    let told = match is_progress {
        true => answer.header().map_or(0, |header| u64::try_from(header.revision()).unwrap_or(0)),
        false => watched.events.iter().map(|told| told.revision).max().unwrap_or(0),
    };
    watched.to = watched.to.max(told);
    is_progress
}
