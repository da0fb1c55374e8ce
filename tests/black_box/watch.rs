//! Watches through everything: each watcher sees exactly the events of its keys, once each, in order and whole revisions at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringfence_client::{Client, Error, Options, Watched};
use ringfence_proto::etcdserverpb::watch_client::WatchClient;
use ringfence_proto::etcdserverpb::watch_create_request::FilterType;
use ringfence_proto::etcdserverpb::watch_request::RequestUnion;
use ringfence_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, request_op,
};
use ringfence_proto::mvccpb::{Event, event::EventType};
use ringfence_tests::cluster::Cluster;
use ringfence_tests::wait::{self, PATIENCE};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

const WRITERS: usize = 16;
const WATCHERS: usize = 64;
const KILLS: usize = 3;
/// Revisions between two kills, and so about how long the test takes.
const REVISIONS_BETWEEN: i64 = 800;
/// Revisions that compaction leaves: less than what a watcher that sleeps may miss.
const REVISIONS_KEPT: i64 = 150;
/// All of the test's keys.
const KEYS: &str = "w/";

/// What happened at one revision: keys, each with its value, or none where it was deleted.
type Changes = BTreeSet<(String, Option<String>)>;

/// A source of choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the test's keys and values are text")
}

fn changes(events: &[Event]) -> Changes {
    let change = |event: &Event| {
        let kv = event.kv.as_ref().expect("an event is about a key");
        (text(&kv.key), (event.r#type() == EventType::Put).then(|| text(&kv.value)))
    };
    events.iter().map(change).collect()
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().expect("an event is about a key").mod_revision
}

/// What all parts of the test share.
#[derive(Default)]
struct Shared {
    endpoints: Vec<String>,
    /// Nothing more is written.
    is_over: AtomicBool,
    /// The last revision of all, once it is known.
    last: AtomicI64,
    /// The history is known up to here.
    known: AtomicI64,
    acknowledged: Mutex<BTreeMap<i64, Changes>>,
    resumed: AtomicU64,
    compacted: AtomicU64,
}

impl Shared {
    fn client(&self) -> Client {
        let options = Options { timeout: Duration::from_secs(3), ..Options::default() };
        Client::connect(&self.endpoints, options).expect("the endpoints are lawful")
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Whether a watcher that is up to `revision` has seen everything.
    fn is_all(&self, revision: i64) -> bool {
        let last = self.last.load(Ordering::Acquire);
        last > 0 && revision >= last
    }
}

/// Puts, deletes, and does both at once.
async fn write(writer: usize, shared: Arc<Shared>) {
    let (client, mut dice) = (shared.client(), Dice(writer as u64));
    let put = |key: String, value: &str| PutRequest {
        key: key.into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    };
    for number in 0_u64.. {
        if shared.is_over() {
            return;
        }
        let key = |at: u64| format!("{KEYS}{writer:02}/{at}");
        let value = format!("{writer}.{number}");
        let mut done = Changes::new();
        let revision = match dice.roll(10) {
            0 => {
                let request = DeleteRangeRequest {
                    key: key(0).into(),
                    range_end: key(2).into(),
                    prev_kv: true,
                    ..DeleteRangeRequest::default()
                };
                client.delete_range(request).await.map(|answer| {
                    done.extend(answer.prev_kvs.iter().map(|kv| (text(&kv.key), None)));
                    answer.header
                })
            }
            1 | 2 => {
                let operation =
                    |at| RequestOp { request: Some(request_op::Request::RequestPut(put(key(at), &value))) };
                let request =
                    TxnRequest { success: vec![operation(1), operation(3)], ..TxnRequest::default() };
                client.txn(request).await.map(|answer| {
                    done.extend([1, 3].map(|at| (key(at), Some(value.clone()))));
                    answer.header
                })
            }
            _ => {
                let at = dice.roll(4);
                client.put(put(key(at), &value)).await.map(|answer| {
                    done.insert((key(at), Some(value.clone())));
                    answer.header
                })
            }
        };
        // Of others nobody knows whether they were applied: the history will tell.
        if let Ok(Some(header)) = revision
            && !done.is_empty()
        {
            shared.acknowledged.lock().expect("nobody panics").insert(header.revision, done);
        }
        sleep(Duration::from_millis(60)).await;
    }
}

/// The history by reads alone: the keys as they are at each revision in turn.
async fn read_history(first: i64, shared: Arc<Shared>) -> BTreeMap<i64, Changes> {
    let client = shared.client();
    let mut history = BTreeMap::new();
    let mut before: BTreeMap<String, (i64, String)> = BTreeMap::new();
    let mut revision = first;
    // Any member's answer will do: a revision is the same on all that have it.
    while !shared.is_all(revision - 1) {
        let request = RangeRequest {
            key: KEYS.into(),
            range_end: "w0".into(),
            revision,
            serializable: true,
            ..RangeRequest::default()
        };
        let answer = match client.range(request).await {
            Ok(answer) => answer,
            Err(Error::Refused { message, .. }) if message.contains("future revision") => {
                sleep(Duration::from_millis(5)).await;
                continue;
            }
            Err(Error::Refused { message, .. }) => panic!("revision {revision} cannot be read: {message}"),
            Err(_) => continue,
        };
        let now: BTreeMap<String, (i64, String)> =
            answer.kvs.iter().map(|kv| (text(&kv.key), (kv.mod_revision, text(&kv.value)))).collect();
        let put = now.iter().filter(|(_, (modified, _))| *modified == revision);
        let mut changes: Changes = put.map(|(key, (_, value))| (key.clone(), Some(value.clone()))).collect();
        changes.extend(before.keys().filter(|key| !now.contains_key(*key)).map(|key| (key.clone(), None)));
        if !changes.is_empty() {
            history.insert(revision, changes);
        }
        before = now;
        shared.known.store(revision, Ordering::Release);
        revision += 1;
    }
    history
}

/// What a watcher wants and has seen.
struct Watcher {
    number: usize,
    request: WatchCreateRequest,
    dice: Dice,
    shared: Arc<Shared>,
    seen: BTreeMap<i64, Changes>,
    /// Revisions that were compacted before it could see them, without the second.
    gaps: Vec<(i64, i64)>,
}

impl Watcher {
    fn new(number: usize, first: i64, shared: Arc<Shared>) -> Watcher {
        let of_writer = format!("{KEYS}{:02}/", number % WRITERS);
        let (key, range_end) = match number % 4 {
            0 => (KEYS.to_owned(), "w0".to_owned()),
            1 => (of_writer.clone(), format!("{}0", &of_writer[..of_writer.len() - 1])),
            2 => (format!("{of_writer}1"), String::new()),
            _ => (of_writer, "\0".to_owned()),
        };
        let filters = match number % 16 {
            3 => vec![FilterType::Noput.into()],
            7 => vec![FilterType::Nodelete.into()],
            _ => Vec::new(),
        };
        let request = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision: first,
            filters,
            prev_kv: number % 3 == 0,
            ..WatchCreateRequest::default()
        };
        let dice = Dice(1_000 + number as u64);
        Watcher { number, request, dice, shared, seen: BTreeMap::new(), gaps: Vec::new() }
    }

    /// Takes note of events that came together.
    fn see(&mut self, events: &[Event]) {
        for group in events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
            let revision = revision_of(&group[0]);
            assert!(
                revision >= self.request.start_revision,
                "watcher {} is told of revision {revision} again, or of a part of it: it was up to {}",
                self.number,
                self.request.start_revision
            );
            assert_eq!(changes(group).len(), group.len(), "an event is told twice: {group:?}");
            self.seen.insert(revision, changes(group));
            self.request.start_revision = revision + 1;
        }
    }

    /// Takes note of history that is gone.
    fn miss(&mut self, oldest: i64) {
        assert!(oldest > self.request.start_revision, "{oldest} is not needed");
        assert!(oldest <= self.shared.known.load(Ordering::Acquire), "nobody has compacted that: {oldest}");
        self.gaps.push((self.request.start_revision, oldest));
        self.request.start_revision = oldest;
        self.shared.compacted.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether to go away now, for how long, and for how long to sleep otherwise.
    async fn pause(&mut self) -> bool {
        let is_slow = self.number % 8 == 5;
        if is_slow && self.dice.roll(4) == 0 {
            sleep(Duration::from_millis(50 + self.dice.roll(400))).await;
        }
        let goes = self.dice.roll(60) == 0;
        if goes {
            self.shared.resumed.fetch_add(1, Ordering::Relaxed);
            let longest = if is_slow { 4_000 } else { 100 };
            sleep(Duration::from_millis(self.dice.roll(longest))).await;
        }
        goes
    }

    /// Watches by streams of its own making.
    async fn watch_raw(mut self) -> Watcher {
        loop {
            let Some((requests, mut responses)) = self.open().await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            while !self.pause().await {
                if self.shared.last.load(Ordering::Acquire) > 0 {
                    let question = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    drop(requests.try_send(WatchRequest { request_union: Some(question) }));
                }
                let response = match timeout(Duration::from_secs(1), responses.message()).await {
                    Ok(Ok(Some(response))) => response,
                    Ok(Ok(None) | Err(_)) => break,
                    Err(_) => continue,
                };
                if response.compact_revision > 0 {
                    assert!(response.canceled, "{response:?}");
                    self.miss(response.compact_revision);
                    break;
                }
                assert!(!response.canceled && !response.fragment, "{response:?}");
                self.see(&response.events);
                let revision = response.header.expect("each answer has one").revision;
                if response.events.is_empty() && self.shared.is_all(revision) {
                    return self;
                }
            }
        }
    }

    async fn open(&mut self) -> Option<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
        let at = self.dice.roll(self.shared.endpoints.len() as u64);
        let endpoint = format!("http://{}", self.shared.endpoints[usize::try_from(at).expect("it is small")]);
        let endpoint =
            Endpoint::from_shared(endpoint).expect("it is lawful").connect_timeout(Duration::from_secs(1));
        let channel = endpoint.connect().await.ok()?;
        let (requests, waiting) = mpsc::channel(2);
        let create = RequestUnion::CreateRequest(self.request.clone());
        drop(requests.try_send(WatchRequest { request_union: Some(create) }));
        let mut request = tonic::Request::new(ReceiverStream::new(waiting));
        request.metadata_mut().insert("hasleader", "true".parse().expect("it is text"));
        let mut responses = WatchClient::new(channel).watch(request).await.ok()?.into_inner();
        let created = timeout(Duration::from_secs(2), responses.message()).await.ok()?.ok()??;
        assert!(created.created && !created.canceled, "{created:?}");
        Some((requests, responses))
    }

    /// Watches by the client, which resumes by itself too.
    async fn watch_by_client(mut self) -> Watcher {
        let client = self.shared.client();
        loop {
            let Ok(mut watch) = client.watch(self.request.clone()).await else { continue };
            while !self.pause().await {
                if self.shared.last.load(Ordering::Acquire) > 0 {
                    drop(watch.request_progress().await);
                }
                match timeout(Duration::from_secs(1), watch.next()).await {
                    Ok(Ok(Watched::Change { events, .. })) => self.see(&events),
                    Ok(Ok(Watched::Progress { revision })) if self.shared.is_all(revision) => return self,
                    Ok(Ok(Watched::Progress { .. }) | Err(Error::Unavailable { .. })) | Err(_) => {}
                    Ok(Err(Error::Compacted { oldest, .. })) => {
                        self.miss(oldest);
                        break;
                    }
                    Ok(Err(error)) => panic!("watcher {}: {error}", self.number),
                }
            }
        }
    }

    /// What it should have seen.
    fn expected(&self, history: &BTreeMap<i64, Changes>) -> BTreeMap<i64, Changes> {
        let (key, end) = (text(&self.request.key), text(&self.request.range_end));
        let is_wanted = |(changed, value): &&(String, Option<String>)| {
            let holds = match end.as_str() {
                "" => *changed == key,
                "\0" => *changed >= key,
                end => *changed >= key && changed.as_str() < end,
            };
            let filter = i32::from(if value.is_some() { FilterType::Noput } else { FilterType::Nodelete });
            holds && !self.request.filters.contains(&filter)
        };
        let is_gone = |revision: i64| self.gaps.iter().any(|(from, to)| (*from..*to).contains(&revision));
        let kept = history.iter().filter(|(revision, _)| !is_gone(**revision));
        let wanted =
            kept.map(|(revision, changes)| (*revision, changes.iter().filter(is_wanted).cloned().collect()));
        wanted.filter(|(_, changes): &(i64, Changes)| !changes.is_empty()).collect()
    }
}

/// Compacts now and then, up to what the history's reader has read.
async fn compact(shared: Arc<Shared>) {
    let client = shared.client();
    while !shared.is_over() {
        sleep(Duration::from_millis(500)).await;
        let revision = shared.known.load(Ordering::Acquire) - REVISIONS_KEPT;
        if revision > 0 {
            drop(client.compact(CompactionRequest { revision, physical: false }).await);
        }
    }
}

#[test]
fn every_watcher_sees_exactly_its_events_through_kills_compaction_and_disconnects() {
    let mut cluster = Cluster::start(3);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let endpoints = cluster.endpoints().split(',').map(str::to_owned).collect();
    let shared = Arc::new(Shared { endpoints, ..Shared::default() });
    let first =
        cluster.nodes[0].metric("etcd_debugging_mvcc_current_revision").expect("it is told") as i64 + 1;
    shared.known.store(first - 1, Ordering::Release);
    let historian = runtime.spawn(read_history(first, Arc::clone(&shared)));
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|number| Watcher::new(number, first, Arc::clone(&shared)))
        .map(|watcher| match watcher.number % 2 {
            0 if watcher.number % 8 != 0 => runtime.spawn(watcher.watch_by_client()),
            1 if watcher.number % 16 == 5 => runtime.spawn(watcher.watch_by_client()),
            _ => runtime.spawn(watcher.watch_raw()),
        })
        .collect();
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| runtime.spawn(write(writer, Arc::clone(&shared)))).collect();
    let compactor = runtime.spawn(compact(Arc::clone(&shared)));
    for _ in 0..KILLS {
        let wanted = shared.known.load(Ordering::Acquire) + REVISIONS_BETWEEN;
        wait::until("writes", PATIENCE, || match shared.known.load(Ordering::Acquire) {
            known if known >= wanted => Ok(()),
            known => Err(format!("revision {known} of {wanted}")),
        });
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        std::thread::sleep(Duration::from_millis(500));
        cluster.nodes[leader].start();
        cluster.wait_ready();
    }
    shared.is_over.store(true, Ordering::Release);
    runtime.block_on(compactor).expect("the compactor does not panic");
    for writer in writers {
        runtime.block_on(writer).expect("no writer panics");
    }
    let last = runtime.block_on(async {
        let question = RangeRequest { key: KEYS.into(), ..RangeRequest::default() };
        let answer = shared.client().range(question).await.expect("all nodes run");
        answer.header.expect("each answer has one").revision
    });
    shared.last.store(last, Ordering::Release);
    let ended = |what: &'static str| format!("{what} ends within {PATIENCE:?}");
    let history = runtime
        .block_on(async { timeout(PATIENCE, historian).await })
        .unwrap_or_else(|_| panic!("{}", ended("the history")));
    let history = history.expect("all of the history is read");
    for (revision, changes) in shared.acknowledged.lock().expect("nobody panics").iter() {
        assert_eq!(history.get(revision), Some(changes), "what was acknowledged happened");
    }
    let (mut told, mut missed) = (0, 0);
    for watcher in watchers {
        let watcher = runtime.block_on(async { timeout(PATIENCE, watcher).await });
        let watcher =
            watcher.unwrap_or_else(|_| panic!("{}", ended("a watcher"))).expect("no watcher panics");
        let expected = watcher.expected(&history);
        let wrong = watcher.seen.iter().find(|(revision, changes)| expected.get(revision) != Some(changes));
        assert_eq!(wrong, None, "watcher {} is told what did not happen to its keys", watcher.number);
        let lost = expected.iter().find(|(revision, _)| !watcher.seen.contains_key(revision));
        assert_eq!(lost, None, "watcher {} is not told; gaps: {:?}", watcher.number, watcher.gaps);
        told += watcher.seen.len();
        missed += watcher.gaps.len();
    }
    let resumed = shared.resumed.load(Ordering::Relaxed);
    println!(
        "{} revisions; {told} told, {resumed} times resumed by will, {missed} times too late for the history",
        history.len()
    );
    assert!(told > history.len() && resumed > 20, "the watchers have seen something");
}

/// Puts values of 100 KB until so many bytes have passed, while a watcher that takes everything notes its delays.
async fn pass(client: &Client, bytes: usize) -> Vec<Duration> {
    let mut watch = client.watch(ringfence_client::watch_prefix("m/")).await.expect("it begins");
    let value = vec![b'v'; 100 << 10];
    let mut delays = Vec::new();
    for _ in 0..bytes / value.len() {
        let begun = Instant::now();
        client.put_value("m/key", value.clone()).await.expect("it is put");
        loop {
            if let Watched::Change { .. } = watch.next().await.expect("it goes on") {
                break;
            }
        }
        delays.push(begun.elapsed());
    }
    delays.sort();
    delays
}

/// Bytes that pass while somebody reads nothing.
const PASSED: usize = 100 << 20;
/// What waits for one stream at most, in the queue, in the connection and on the way between; and what two runs of the same
/// program differ by.
const STREAM_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
const NOISE_BYTES: f64 = 20.0 * 1024.0 * 1024.0;

#[test]
fn a_watcher_that_reads_nothing_costs_no_more_than_its_bound_and_delays_nobody() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let measure = |sleepers: usize| {
        let cluster = Cluster::start(1);
        runtime.block_on(async {
            let connect =
                || Client::connect([&cluster.nodes[0].client], Options::default()).expect("it is lawful");
            let (client, sleeper) = (connect(), connect());
            let mut idle = Vec::new();
            for _ in 0..sleepers {
                idle.push(sleeper.watch(ringfence_client::watch_prefix("m/")).await.expect("it begins"));
            }
            let before = cluster.nodes[0].metric("process_resident_memory_bytes").expect("it is told");
            let delays = pass(&client, PASSED).await;
            let after = cluster.nodes[0].metric("process_resident_memory_bytes").expect("it is told");
            let fell = cluster.nodes[0].metric("ringfence_watches_fallen_behind_total").expect("it is told");
            assert_eq!(fell > 0.0, sleepers > 0, "{fell} watches fell behind");
            drop(idle);
            (after - before, delays[delays.len() / 2], delays[delays.len() * 99 / 100])
        })
    };
    let (alone, alone_median, alone_p99) = measure(0);
    let (grown, median, p99) = measure(1);
    println!(
        "memory grew by {:.1} MB alone and {:.1} MB with a sleeper; delay {alone_median:?} and {median:?}, p99 {alone_p99:?} \
         and {p99:?}",
        alone / 1e6,
        grown / 1e6
    );
    assert!(grown - alone < STREAM_BYTES + NOISE_BYTES, "{grown} bytes, {alone} alone");
    assert!(median < 2 * alone_median + Duration::from_millis(20), "{median:?}, {alone_median:?} alone");
}
