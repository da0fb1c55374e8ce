//! The hub: one task reads the events of each new revision once, and hands them to all watches that are up to date.
//!
//! `revision` says how far it is. A watch whose next revision is above it is a member of a group, and is told everything from
//! then on; one that wants older events, or whose stream has no room, reads the history by itself (`catch_up`) and joins again
//! when it is through. Both happen under one lock, so between the two nothing is lost and nothing told twice.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;
use ringfence_canary::Canary;
use ringfence_consensus::rt;
use ringfence_store::{EventChunk, EventQuery, ReadError, View};
use ringfence_types::{Event, KeyRange, KeyValue, Rejection, Revision};
use tokio_util::sync::CancellationToken;

use super::counts::WatchCounts;
use super::group::{Group, Groups, Interest, Member};
use super::limits::{
    CHUNK_BYTES_MAX, CHUNK_EVENTS_MAX, SHORT_LOOKUPS_MAX, STREAMS_MAX, UNREADABLE_PAUSE, WATCHED_BYTES_MAX,
    WATCHES_MAX,
};
use super::outbox::{Outbox, WatchKey};
use super::wire::{Piece, Pieces, encode_event, pieces};
use crate::served::Served;
use crate::status::Trouble;

/// A cheap handle on the watches of a member.
#[derive(Debug, Clone)]
pub(super) struct Hub(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    registry: Mutex<Registry>,
    /// Cancelled when nothing is handed on any more.
    ended: CancellationToken,
    /// Bytes that wait for all streams.
    waiting_bytes: Arc<AtomicUsize>,
    counts: Arc<WatchCounts>,
}

#[derive(Debug, Default)]
struct Registry {
    /// Everything up to here has been handed on.
    revision: Revision,
    groups: Groups,
    last_key: u64,
    room: Room,
    /// Streams that want to know when they are up to date.
    awaiting_progress: Vec<Arc<Outbox>>,
}

/// What there is room for yet.
#[derive(Debug)]
struct Room {
    streams: usize,
    watches: usize,
    /// Bytes of keys that bound watches.
    bytes: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room { streams: STREAMS_MAX, watches: WATCHES_MAX, bytes: WATCHED_BYTES_MAX }
    }
}

/// A watch that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    /// Its number.
    pub(super) key: WatchKey,
    /// The store's revision at that moment.
    pub(super) revision: Revision,
    /// Where it has to begin in the history; none where what it wants is still to come.
    pub(super) behind_from: Option<Revision>,
}

/// What a step of the hub's task came to.
enum Step {
    /// Everything is handed on.
    Done,
    /// There is more.
    More,
    /// The state cannot be read now.
    Unreadable,
}

impl Hub {
    /// The hub of a member, with its task that runs until the server stops.
    pub(super) fn start(served: &Served) -> Hub {
        let counts = Arc::clone(&served.watch_counts);
        let hub = Hub(Arc::new(Shared { counts, ..Shared::default() }));
        hub.0.registry.lock().revision = served.node.view().revision();
        rt::spawn(hub.clone().run(served.clone()));
        hub
    }

    /// Waits until nothing is handed on any more, because the server stops or the hub has failed.
    pub(super) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// The queue of a new stream.
    pub(super) fn open(&self) -> Result<Arc<Outbox>, Trouble> {
        let mut registry = self.0.registry.lock();
        if registry.room.streams == 0 {
            return Err(Trouble::Busy("this member serves as many streams of watches as it may"));
        }
        registry.room.streams -= 1;
        Ok(Arc::new(Outbox::new(Arc::clone(&self.0.waiting_bytes), Arc::clone(&self.0.counts))))
    }

    /// A stream has ended; its watches have left.
    pub(super) fn close(&self) {
        self.0.registry.lock().room.streams += 1;
    }

    /// How far the hub is.
    pub(super) fn revision(&self) -> Revision {
        self.0.registry.lock().revision
    }

    /// Begins a watch from revision `start`, or from what happens next where that is 0; `newest` is the store's revision as its
    /// readers see it. None where there are too many watches.
    pub(super) fn begin(
        &self,
        outbox: &Arc<Outbox>,
        interest: &Arc<Interest>,
        start: Revision,
        newest: Revision,
    ) -> Option<Begun> {
        let mut registry = self.0.registry.lock();
        let bytes = interest.bytes();
        if registry.room.watches == 0 || registry.room.bytes < bytes {
            return None;
        }
        registry.room.watches -= 1;
        registry.room.bytes -= bytes;
        registry.last_key += 1;
        let key = WatchKey(registry.last_key);
        let newest = newest.max(registry.revision);
        let from = if start == Revision(0) { newest.next() } else { start };
        let is_up_to_date = from > registry.revision;
        if is_up_to_date {
            registry.groups.add(key, interest, Member { outbox: Arc::clone(outbox), from });
        } else {
            outbox.count_behind();
        }
        Some(Begun { key, revision: newest, behind_from: (!is_up_to_date).then_some(from) })
    }

    /// Takes up a watch that has read the history up to, and without, `from`. Refused where there is more to read by now.
    pub(super) fn join(
        &self,
        key: WatchKey,
        outbox: &Arc<Outbox>,
        interest: &Arc<Interest>,
        from: Revision,
    ) -> bool {
        let mut registry = self.0.registry.lock();
        if from <= registry.revision && !Canary::WatchJoinsUnread.sings() {
            return false;
        }
        registry.groups.add(key, interest, Member { outbox: Arc::clone(outbox), from });
        outbox.count_up_to_date();
        outbox.answer_progress(registry.revision);
        true
    }

    /// Ends a watch.
    pub(super) fn end(&self, key: WatchKey, outbox: &Outbox, interest: &Arc<Interest>) {
        let mut registry = self.0.registry.lock();
        registry.room.watches += 1;
        registry.room.bytes += interest.bytes();
        let was_behind = !registry.groups.remove(key, interest);
        if was_behind {
            outbox.count_up_to_date();
        }
        outbox.answer_progress(registry.revision);
    }

    /// Tells a stream when all its watches are up to `revision`.
    pub(super) fn want_progress(&self, outbox: &Arc<Outbox>, revision: Revision) {
        outbox.want_progress(revision);
        let mut registry = self.0.registry.lock();
        if !outbox.answer_progress(registry.revision)
            && !registry.awaiting_progress.iter().any(|known| Arc::ptr_eq(known, outbox))
        {
            registry.awaiting_progress.push(Arc::clone(outbox));
        }
    }

    /// Forgets that a stream wants to know.
    pub(super) fn forget_progress(&self, outbox: &Arc<Outbox>) {
        self.0.registry.lock().awaiting_progress.retain(|known| !Arc::ptr_eq(known, outbox));
    }

    /// Tells how far a watch is, unless it is behind.
    pub(super) fn tell_progress(&self, key: WatchKey, outbox: &Outbox, interest: &Arc<Interest>) {
        let registry = self.0.registry.lock();
        if registry.groups.contains(key, interest) {
            outbox.push_progress(key, registry.revision);
        }
    }

    async fn run(self, served: Served) {
        // Dropped by a panic too: streams that went on would be silent for ever.
        let _end = self.0.ended.clone().drop_guard();
        let mut applied = served.node.applied_changes();
        let handing_on = async {
            loop {
                match self.step(&served).await {
                    Step::More => tokio::task::yield_now().await,
                    Step::Unreadable => rt::sleep(UNREADABLE_PAUSE).await,
                    Step::Done => {
                        if applied.changed().await.is_err() {
                            return;
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = served.shutdown.cancelled() => {}
            () = handing_on => {}
        }
    }

    /// Hands on the next part of what has happened.
    async fn step(&self, served: &Served) -> Step {
        let Ok(view) = served.node.believed_view() else { return Step::Unreadable };
        let Some(from) = self.next_to_read(view.revision()) else { return Step::Done };
        let chunk = match read(served, &view, from).await {
            Ok(chunk) => chunk,
            Err(Trouble::Read(ReadError::Rejected(Rejection::Compacted { .. }))) => {
                self.skip(from, view.revision());
                return Step::More;
            }
            Err(_) => return Step::Unreadable,
        };
        let wanted = self.wanted_previous(&chunk.events);
        let Ok(previous) = look_up(served, &view, &chunk.events, wanted).await else {
            return Step::Unreadable;
        };
        let last = Revision(chunk.next.0 - 1);
        let mut batch =
            Batch { view: &view, events: &chunk.events, previous, from, last, encoded: Vec::new() };
        batch.encoded.resize(chunk.events.len(), [None, None]);
        self.hand_on(&mut batch);
        if last < view.revision() { Step::More } else { Step::Done }
    }

    /// The next revision to be read, if there is any that somebody may want.
    fn next_to_read(&self, newest: Revision) -> Option<Revision> {
        let mut registry = self.0.registry.lock();
        if newest <= registry.revision {
            return None;
        }
        if registry.groups.is_empty() {
            registry.advance(newest);
            return None;
        }
        Some(registry.revision.next())
    }

    /// The history lacks what comes next, since the state was replaced by one whose history begins later: each watch has to find
    /// out for itself whether it lost something.
    fn skip(&self, from: Revision, to: Revision) {
        let mut registry = self.0.registry.lock();
        for (at, mut group) in registry.groups.take_all() {
            let is_ahead = |member: &Member| member.from > to;
            let behind: Vec<WatchKey> =
                group.members.iter().filter(|(_, member)| !is_ahead(member)).map(|(key, _)| *key).collect();
            for key in behind {
                if let Some(member) = group.members.remove(&key) {
                    member.outbox.push_behind(key, member.from.max(from));
                }
            }
            registry.groups.put_back(at, group);
        }
        registry.advance(to);
    }

    /// Which events somebody wants to know the previous state for.
    fn wanted_previous(&self, events: &[Event]) -> Vec<bool> {
        let registry = self.0.registry.lock();
        if !registry.groups.want_previous() {
            return vec![false; events.len()];
        }
        events.iter().map(|event| registry.groups.wants_previous(event)).collect()
    }

    fn hand_on(&self, batch: &mut Batch<'_>) {
        let mut registry = self.0.registry.lock();
        for (at, mut group) in registry.groups.take_concerned(batch.events) {
            tell(&mut group, batch);
            registry.groups.put_back(at, group);
        }
        registry.advance(batch.last);
    }
}

impl Registry {
    /// Everything up to `revision` is handed on.
    fn advance(&mut self, revision: Revision) {
        self.revision = revision;
        self.awaiting_progress.retain(|outbox| !outbox.answer_progress(revision));
    }
}

/// Tells a group its events of a batch.
fn tell(group: &mut Group, batch: &mut Batch<'_>) {
    let places = std::mem::take(&mut group.events);
    let shared = batch.pieces(&places, group.interest.prev_kv);
    let first = shared.as_ref().map_or(batch.from, |pieces| pieces[0].revision);
    let mut behind = Vec::new();
    for (key, member) in &group.members {
        let from = member.from.max(batch.from);
        let Ok(shared) = &shared else {
            // The next look at the state says what is wrong with it.
            member.outbox.push_behind(*key, from);
            behind.push(*key);
            continue;
        };
        let own: Pieces = if member.from <= first {
            Arc::clone(shared)
        } else {
            shared.iter().filter(|piece| piece.revision >= member.from).cloned().collect()
        };
        if !own.is_empty() && !member.outbox.push_events(*key, own, from, batch.last) {
            behind.push(*key);
        }
    }
    for key in behind {
        group.members.remove(&key);
    }
}

/// Events that are handed on together: whole revisions from `from` to `last`.
struct Batch<'a> {
    view: &'a View,
    events: &'a [Event],
    /// What stood there before, as far as it was looked up.
    previous: Previous,
    from: Revision,
    last: Revision,
    /// Each event in its two forms, without and with what stood there before.
    encoded: Vec<[Option<bytes::Bytes>; 2]>,
}

impl Batch<'_> {
    fn pieces(&mut self, places: &[usize], prev_kv: bool) -> Result<Pieces, ReadError> {
        let mut events = Vec::with_capacity(places.len());
        for place in places {
            events.push((self.events[*place].kv.mod_revision, self.encoded(*place, prev_kv)?));
        }
        Ok(pieces(events).into())
    }

    fn encoded(&mut self, place: usize, prev_kv: bool) -> Result<bytes::Bytes, ReadError> {
        let event = &self.events[place];
        if let Some(encoded) = &self.encoded[place][usize::from(prev_kv)] {
            return Ok(encoded.clone());
        }
        let before = match (prev_kv, self.previous[place].take()) {
            (false, known) => {
                self.previous[place] = known;
                None
            }
            (true, Some(before)) => before,
            // A watch that came after the others were asked.
            (true, None) => self.view.before(event)?,
        };
        let encoded = encode_event(event, before);
        self.encoded[place][usize::from(prev_kv)] = Some(encoded.clone());
        Ok(encoded)
    }
}

/// Reads the next part of the history: what lies in memory at once, the rest where that may block.
async fn read(served: &Served, view: &View, from: Revision) -> Result<EventChunk, Trouble> {
    let chunk = move |view: &View| {
        let range = KeyRange::all();
        let (events_max, bytes_max) = (CHUNK_EVENTS_MAX, CHUNK_BYTES_MAX);
        view.events_of(&EventQuery { events_max, bytes_max, ..EventQuery::new(&range, from) })
    };
    let read = if view.remembers(from) { chunk(view) } else { blocking(view, chunk).await };
    read.map_err(|error| trouble(served, error))
}

/// What each event has replaced, as far as it was looked up.
type Previous = Vec<Option<Option<KeyValue>>>;

/// Looks up what the wanted ones of `events` have replaced.
async fn look_up(
    served: &Served,
    view: &View,
    events: &[Event],
    wanted: Vec<bool>,
) -> Result<Previous, Trouble> {
    fn all(view: &View, events: &[Event], wanted: &[bool]) -> Result<Previous, ReadError> {
        let look = |(event, wanted): (&Event, &bool)| wanted.then(|| view.before(event)).transpose();
        events.iter().zip(wanted).map(look).collect()
    }
    let looked = if wanted.iter().filter(|wanted| **wanted).count() <= SHORT_LOOKUPS_MAX {
        all(view, events, &wanted)
    } else {
        let events = events.to_vec();
        blocking(view, move |view| all(view, &events, &wanted)).await
    };
    looked.map_err(|error| trouble(served, error))
}

/// Reads on a thread that may block.
async fn blocking<T: Send + 'static>(
    view: &View,
    read: impl FnOnce(&View) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let view = view.clone();
    match tokio::task::spawn_blocking(move || read(&view)).await {
        Ok(read) => read,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// A failure to read, reported.
fn trouble(served: &Served, error: ReadError) -> Trouble {
    let trouble = Trouble::from(error);
    if !matches!(trouble, Trouble::Read(ReadError::Rejected(_))) {
        drop(served.status(&trouble));
    }
    trouble
}

/// Pieces of a part of the history that one watch wants.
pub(super) fn pieces_of(view: &View, events: &[Event], prev_kv: bool) -> Result<Vec<Piece>, ReadError> {
    let mut encoded = Vec::with_capacity(events.len());
    for event in events {
        let before = if prev_kv { view.before(event)? } else { None };
        encoded.push((event.kv.mod_revision, encode_event(event, before)));
    }
    Ok(pieces(encoded))
}

#[cfg(test)]
mod tests {
    use super::super::outbox::Delivery;
    use super::*;

    fn hub(room: Room) -> Hub {
        let registry = Registry { revision: Revision(5), room, ..Registry::default() };
        Hub(Arc::new(Shared { registry: Mutex::new(registry), ..Shared::default() }))
    }

    fn interest(key: &'static str) -> Arc<Interest> {
        let range = KeyRange::prefix(key.into());
        Arc::new(Interest { range, puts: true, deletes: true, prev_kv: false })
    }

    #[test]
    fn streams_and_watches_beyond_their_room_are_refused_until_others_have_ended() {
        let hub = hub(Room { streams: 1, watches: 2, bytes: 20 });
        let outbox = hub.open().expect("there is room for one");
        assert!(matches!(hub.open(), Err(Trouble::Busy(_))));
        let begin = |key| hub.begin(&outbox, &interest(key), Revision(0), Revision(5));
        assert!(begin("0123456789").is_some() && begin("0123456789").is_none(), "20 bytes are taken");
        let small = hub.begin(&outbox, &interest(""), Revision(0), Revision(5)).expect("it needs none");
        assert!(begin("").is_none(), "two watches are there");
        hub.end(small.key, &outbox, &interest(""));
        assert!(begin("").is_some());
        hub.close();
        assert!(hub.open().is_ok());
    }

    #[test]
    fn a_state_whose_history_begins_later_sends_its_watches_to_see_what_they_lost() {
        let hub = hub(Room::default());
        let (outbox, wanted) = (hub.open().expect("there is room"), interest("k"));
        let begin = |start| hub.begin(&outbox, &wanted, Revision(start), Revision(5)).expect("there is room");
        let (now, ahead) = (begin(0), begin(20));
        hub.skip(Revision(6), Revision(10));
        assert!(matches!(
            outbox.take(),
            Some(Delivery::Behind { watch, from: Revision(6) }) if watch == now.key
        ));
        assert!(outbox.take().is_none() && hub.revision() == Revision(10));
        hub.tell_progress(ahead.key, &outbox, &wanted);
        assert!(matches!(outbox.take(), Some(Delivery::Progress { .. })), "what it wants is still to come");
        assert!(
            !hub.join(now.key, &outbox, &wanted, Revision(10))
                && hub.join(now.key, &outbox, &wanted, Revision(11))
        );
    }

    #[test]
    fn a_watch_joins_only_where_nothing_lies_between() {
        let hub = hub(Room::default());
        let outbox = hub.open().expect("there is room");
        let wanted = interest("k");
        let begin = |start| hub.begin(&outbox, &wanted, Revision(start), Revision(7)).expect("there is room");
        // The hub has handed on everything up to 5, and readers see 7 already.
        for (start, behind_from) in [(0, None), (8, None), (6, None), (5, Some(5)), (1, Some(1))] {
            let begun = begin(start);
            assert_eq!((begun.revision, begun.behind_from.map(|from| from.0)), (Revision(7), behind_from));
        }
        let late = begin(1);
        assert!(!hub.join(late.key, &outbox, &wanted, Revision(5)));
        hub.0.registry.lock().advance(Revision(6));
        assert!(!hub.join(late.key, &outbox, &wanted, Revision(6)), "the hub has gone on meanwhile");
        assert!(hub.join(late.key, &outbox, &wanted, Revision(7)));
    }
}
