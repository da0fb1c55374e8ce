//! Where the history is written: every event gets its time and its place here, goes to the file at once, and is kept.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};

use ringfence_checker::{Event, History, Kind, history};

use crate::client::{Applied, Failure};
use crate::workload::{Done, Operation};
use crate::world::Clock;

/// Events that wait to be written. Should the disk stall for longer than these last, the load waits, and is late.
const EVENTS_WAITING_MAX: usize = 65_536;

/// Operations that ended, by how they did.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) ok: AtomicU64,
    pub(super) fail: AtomicU64,
    pub(super) info: AtomicU64,
}

/// Takes events. Clones write to the same history; all must live on one thread, so that the order in which events are written
/// is the order of their times.
#[derive(Clone)]
pub(super) struct Recorder {
    clock: Clock,
    events: SyncSender<Event>,
    counts: Arc<Counts>,
}

/// The thread that writes.
pub(super) struct Writer(JoinHandle<io::Result<History>>);

impl Recorder {
    /// A recorder into a new file.
    pub(super) fn start(path: &Path, clock: Clock, counts: Arc<Counts>) -> io::Result<(Recorder, Writer)> {
        let file = File::create(path)?;
        let (events, received) = sync_channel(EVENTS_WAITING_MAX);
        let writing = thread::Builder::new().name("history".to_owned());
        let writer = Writer(writing.spawn(move || write(&received, file))?);
        Ok((Recorder { clock, events, counts }, writer))
    }

    pub(super) fn invoke(&self, process: u64, node: Option<u64>, operation: &Operation) {
        let event = self.event(process, node, operation, Kind::Invoke);
        self.record(event);
    }

    /// Records how an operation ended; returns which kind of an end that is.
    pub(super) fn end(
        &self,
        process: u64,
        node: Option<u64>,
        operation: &Operation,
        result: Result<Done, Failure>,
    ) -> Kind {
        let (kind, count) = match &result {
            Ok(_) => (Kind::Ok, &self.counts.ok),
            Err(Failure { applied: Applied::No, .. }) => (Kind::Fail, &self.counts.fail),
            Err(Failure { applied: Applied::Unknown, .. }) => (Kind::Info, &self.counts.info),
        };
        count.fetch_add(1, Relaxed);
        let event = self.event(process, node, operation, kind);
        self.record(match result {
            Ok(Done { value, applied, revision }) => {
                Event { value, applied, revision: Some(revision).filter(|revision| *revision > 0), ..event }
            }
            Err(failure) => Event { error: Some(failure.error), ..event },
        });
        kind
    }

    fn event(&self, process: u64, node: Option<u64>, operation: &Operation, kind: Kind) -> Event {
        Event {
            process,
            kind,
            f: operation.f,
            key: operation.key.clone(),
            value: operation.value.clone(),
            time: self.clock.now(),
            applied: None,
            node,
            freshness: operation.freshness.in_history(),
            revision: None,
            error: None,
        }
    }

    fn record(&self, event: Event) {
        // The writing thread ends early only where the disk failed; the run hears of it when it asks for the history.
        let _ = self.events.send(event);
    }
}

impl Writer {
    /// The history, once every recorder is gone.
    pub(super) fn finish(self) -> io::Result<History> {
        self.0.join().expect("the thread that writes the history does not panic")
    }
}

fn write(events: &Receiver<Event>, file: File) -> io::Result<History> {
    let mut file = BufWriter::new(file);
    let mut kept = History::new();
    loop {
        let event = match events.try_recv() {
            Ok(event) => event,
            Err(TryRecvError::Disconnected) => break,
            // Whoever looks at the file now sees whole lines.
            Err(TryRecvError::Empty) => {
                file.flush()?;
                match events.recv() {
                    Ok(event) => event,
                    Err(_) => break,
                }
            }
        };
        history::write(&mut file, &event)?;
        kept.push(event);
    }
    file.flush()?;
    Ok(kept)
}
