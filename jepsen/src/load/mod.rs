//! The load: operations at times that do not depend on how the cluster fares (an open loop), done by processes of several
//! kinds and written down as a history.
//!
//! Reading order: this file, `process` (who does an operation), `recorder` (where it is written down).
//!
//! Everything runs on one thread that has gone to the clients' place on the network, so that every socket and every child
//! process is there too.

mod process;
mod recorder;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::{History, Kind as End};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{Kind, Node, Request};
use crate::workload::{Generator, Operation, Workload};
use crate::world::{Clock, Place};
use process::{Makings, Numbers, Pool, Process};
use recorder::{Counts, Recorder};

/// How many operations may be under way at once, if nobody says otherwise.
pub const PROCESSES: u16 = 48;
/// An operation that begins this much after its time is counted as late.
const LATE: Duration = Duration::from_millis(20);
/// How long the founding of a workload is tried.
const FOUNDING_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait between two tries of the founding.
const FOUNDING_WAIT: Duration = Duration::from_millis(200);

/// How the load is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Operations a second.
    pub rate: u64,
    /// What is done, when and by whom is drawn from it.
    pub seed: u64,
    /// How many operations may be under way at once, those of the command line aside.
    pub processes: u16,
    /// The kinds of clients.
    pub kinds: Vec<Kind>,
    /// Longest that an operation may take; the command line gets some seconds more, for its own start.
    pub timeout: Duration,
    /// The program that the command line's clients run.
    pub program: PathBuf,
    /// The canary: clients that send an indefinite change again and tell of the second answer alone.
    pub retry_indefinite: bool,
}

impl Options {
    /// All kinds of clients, [`PROCESSES`], two seconds for each operation.
    #[must_use]
    pub fn new(rate: u64, seed: u64, program: PathBuf) -> Options {
        Options {
            rate,
            seed,
            processes: PROCESSES,
            kinds: Kind::ALL.to_vec(),
            timeout: Duration::from_secs(2),
            program,
            retry_indefinite: false,
        }
    }
}

/// How far the load is. All numbers grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Operations that were done.
    pub ok: u64,
    /// Operations that were surely not done.
    pub fail: u64,
    /// Operations of which nobody can tell.
    pub info: u64,
    /// Operations for which no process was free at their time. They are left out.
    pub missed: u64,
    /// Operations that began late, because the harness had no time.
    pub late: u64,
}

/// What the load does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Operations begin.
    Run,
    /// None begin, those under way come to their end.
    Rest,
    /// What was acknowledged is read through every node.
    Final,
}

/// A load that runs.
pub struct Load {
    phase: watch::Sender<Phase>,
    counts: Arc<Counts>,
    schedule: Arc<Schedule>,
    thread: JoinHandle<anyhow::Result<History>>,
}

#[derive(Debug, Default)]
struct Schedule {
    missed: AtomicU64,
    late: AtomicU64,
}

impl Load {
    /// Begins a load on the nodes at these addresses, in the order of their numbers. Returns once what the workload needs is in
    /// the store; the history goes to the file at `sink` as it happens.
    ///
    /// # Errors
    /// Where the place cannot be entered, the file not be written, or the workload not be founded.
    pub fn start(
        place: Place,
        addresses: Vec<String>,
        clock: Clock,
        workload: Arc<dyn Workload>,
        options: Options,
        sink: &Path,
    ) -> anyhow::Result<Load> {
        ensure!(options.rate > 0, "a load has a rate of at least one operation a second");
        ensure!(!options.kinds.is_empty() && options.processes > 0, "a load has clients");
        ensure!(!addresses.is_empty(), "a load has nodes");
        let (counts, schedule) = (Arc::new(Counts::default()), Arc::new(Schedule::default()));
        let (phase, phases) = watch::channel(Phase::Run);
        let (founded, founding) = mpsc::sync_channel(1);
        let (recorder, writer) =
            Recorder::start(sink, clock, Arc::clone(&counts)).with_context(|| sink.display().to_string())?;
        let nodes = (1..).zip(addresses).map(|(number, address)| Node { number, address }).collect();
        let Options { program, timeout, retry_indefinite, .. } = options.clone();
        let makings = Makings { nodes, program, place: place.clone(), timeout, retry_indefinite };
        let numbers = Numbers::default();
        let loader =
            Loader { workload, options, makings, numbers, recorder, schedule: Arc::clone(&schedule) };
        let thread = thread::Builder::new().name("load".to_owned()).spawn(move || {
            place.enter().context("the clients' place on the network cannot be entered")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(loader.run(phases, founded))?;
            // What still runs holds a recorder; the history ends when all are gone.
            drop(runtime);
            Ok(writer.finish()?)
        })?;
        match founding.recv() {
            Ok(()) => Ok(Load { phase, counts, schedule, thread }),
            Err(_) => Err(join(thread).err().unwrap_or_else(|| anyhow::anyhow!("the load ended at once"))),
        }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            ok: self.counts.ok.load(Relaxed),
            fail: self.counts.fail.load(Relaxed),
            info: self.counts.info.load(Relaxed),
            missed: self.schedule.missed.load(Relaxed),
            late: self.schedule.late.load(Relaxed),
        }
    }

    /// Begins no further operation; those under way come to their end by themselves.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Rest);
    }

    /// Stops, waits for what is under way, reads through every node what the workload wants to see at the end, and returns the
    /// whole history. The cluster should be healthy by now.
    ///
    /// # Errors
    /// Where the history could not be written.
    pub fn finish(self) -> anyhow::Result<History> {
        self.phase.send_replace(Phase::Final);
        join(self.thread)
    }
}

fn join(thread: JoinHandle<anyhow::Result<History>>) -> anyhow::Result<History> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What the load's thread works with.
struct Loader {
    workload: Arc<dyn Workload>,
    options: Options,
    makings: Makings,
    numbers: Numbers,
    recorder: Recorder,
    schedule: Arc<Schedule>,
}

/// A process that has done an operation, and the operation if it has no outcome.
type Ended = (Process, Option<Operation>);

impl Loader {
    async fn run(
        self,
        mut phases: watch::Receiver<Phase>,
        founded: mpsc::SyncSender<()>,
    ) -> anyhow::Result<()> {
        if let Some(request) = self.workload.founding() {
            self.found(&request).await?;
        }
        // The other side waits for this alone.
        let _ = founded.send(());
        let mut generator = self.workload.generator(self.options.seed);
        let mut busy = self.offer(&mut *generator, &mut phases).await?;
        while busy.join_next().await.is_some() {}
        // An error says that the load was dropped: then nobody asks for a history either.
        if phases.wait_for(|phase| *phase == Phase::Final).await.is_ok() {
            self.read_finally(generator.final_reads()).await?;
        }
        Ok(())
    }

    async fn found(&self, request: &Request) -> anyhow::Result<()> {
        let mut caller = self.makings.caller(Kind::RingfenceAll, 0).await?;
        let deadline = Instant::now() + FOUNDING_TIMEOUT;
        loop {
            caller.begin();
            match caller.call(request).await {
                Ok(_) => return Ok(()),
                Err(failure) if Instant::now() >= deadline => {
                    anyhow::bail!("the workload cannot be founded: {}", failure.error)
                }
                Err(_) => sleep(FOUNDING_WAIT).await,
            }
        }
    }

    /// Begins operations at their times until the phase changes; returns those under way.
    async fn offer(
        &self,
        generator: &mut dyn Generator,
        phases: &mut watch::Receiver<Phase>,
    ) -> anyhow::Result<JoinSet<Ended>> {
        let Options { rate, processes, kinds, seed, .. } = &self.options;
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6c6f_6164);
        let mut pool = Pool::new(&self.makings, kinds, usize::from(*processes), &self.numbers).await?;
        let mut busy: JoinSet<Ended> = JoinSet::new();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = phases.wait_for(|phase| *phase != Phase::Run) => return Ok(busy),
                Some(ended) = busy.join_next() => {
                    let (process, indefinite) = ended.context("an operation of the load panicked")?;
                    if let Some(operation) = indefinite {
                        generator.indefinite(&operation);
                    }
                    pool.put(process);
                }
                () = sleep_until(due) => {
                    if due.elapsed() > LATE {
                        self.schedule.late.fetch_add(1, Relaxed);
                    }
                    match pool.take(&mut rng) {
                        Some(process) => { busy.spawn(self.perform(process, generator.next())); }
                        None => { self.schedule.missed.fetch_add(1, Relaxed); }
                    }
                    due += interval(*rate, &mut rng);
                }
            }
        }
    }

    fn perform(
        &self,
        mut process: Process,
        operation: Operation,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let (workload, recorder) = (Arc::clone(&self.workload), self.recorder.clone());
        async move {
            let end = process.perform(&*workload, &operation, &recorder).await;
            (process, (end == End::Info).then_some(operation))
        }
    }

    /// Reads through every node, all nodes side by side.
    async fn read_finally(&self, reads: Vec<Operation>) -> anyhow::Result<()> {
        let reads = Arc::new(reads);
        let mut readers = JoinSet::new();
        for at in 0..self.makings.nodes.len() {
            let caller = self.makings.caller(Kind::Etcd, at).await?;
            let mut process = Process::new(Kind::Etcd, &self.numbers, caller);
            let (workload, recorder) = (Arc::clone(&self.workload), self.recorder.clone());
            let reads = Arc::clone(&reads);
            readers.spawn(async move {
                for read in reads.iter() {
                    if !process.insist(&*workload, read, &recorder).await {
                        // The node does not answer, which is a finding of its own: nothing is gained by asking for the rest.
                        break;
                    }
                }
            });
        }
        while let Some(ended) = readers.join_next().await {
            ended.context("a final read panicked")?;
        }
        Ok(())
    }
}

/// The time to the next operation, exponentially distributed: as independent clients together behave.
fn interval(rate: u64, rng: &mut StdRng) -> Duration {
    let unit: f64 = rng.random();
    Duration::from_secs_f64(-(1.0 - unit).ln() / rate as f64)
}
