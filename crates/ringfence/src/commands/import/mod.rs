//! `ringfence import`: store many keys, read as JSON lines.
//!
//! Many puts are under way at once. A put whose outcome is unknown is done again: here that is harmless, since it is the
//! same key and value. Two lines of one key are never under way together, so the later one wins.

mod progress;
mod resume;

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use ringfence_client::{Client, Error, Options};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};
use crate::record::Record;
use crate::units::HumanDuration;
use progress::Progress;
use resume::{Journal, LineDigest};

/// Lines read ahead of the puts.
const LINES_AHEAD: usize = 1_024;
/// How often the file of `--state` is brought up to date.
const STATE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for puts under way when the import ends early.
const DRAIN_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Store many keys, read as JSON lines: {"key":"a","value":"b"}, with key_b64 and value_b64 in place of what is not UTF-8.
/// Puts are repeated until they are acknowledged. Prints how many were.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file to read; "-" for standard input.
    file: PathBuf,
    /// Remember in this file how far the import came, and go on from there when it is run again with the same input.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Most puts under way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: u16,
    /// Give up when nothing was acknowledged for so long.
    #[arg(long, default_value = "60s")]
    give_up_after: HumanDuration,
}

/// A line of the input with its number, counted from 0.
struct Numbered {
    number: u64,
    digest: LineDigest,
    record: Record,
}

/// A put that was acknowledged.
struct Acknowledged {
    number: u64,
    digest: LineDigest,
    key: Bytes,
}

/// An import under way.
struct Running {
    client: Client,
    give_up_after: Duration,
    journal: Journal,
    progress: Progress,
    under_way: JoinSet<Result<Acknowledged, Failure>>,
    keys_under_way: HashSet<Bytes>,
    acknowledged: u64,
}

impl Import {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let started = Instant::now();
        let client = shared.client_with(Options { connections_per_node: 2, ..Options::default() })?;
        let journal = Journal::open(self.state.as_deref())?;
        let skipped = journal.lines_done();
        let lines = read_lines(&self.file, journal.start())?;
        let mut running = Running {
            client,
            give_up_after: self.give_up_after.0,
            journal,
            progress: Progress::new(skipped),
            under_way: JoinSet::new(),
            keys_under_way: HashSet::new(),
            acknowledged: 0,
        };
        let result = running.run(lines, usize::from(self.in_flight)).await;
        // However it ended, what was acknowledged is written down and told.
        running.journal.save()?;
        running.progress.finish();
        let seconds = started.elapsed().as_secs_f64();
        tell(shared.output, running.acknowledged, skipped, seconds)?;
        result.map_err(|failure| {
            let again = if failure.exit() == Exit::General { "correct the input, then run" } else { "run" };
            match &self.state {
                Some(path) => failure.next(format!("{again} it again: it goes on from {}", path.display())),
                None => {
                    failure.next(format!("{again} it again; with --state FILE it can go on where it stopped"))
                }
            }
        })
    }
}

impl Running {
    async fn run(
        &mut self,
        mut lines: mpsc::Receiver<Result<Numbered, Failure>>,
        in_flight: usize,
    ) -> Result<(), Failure> {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let mut save = tokio::time::interval(STATE_INTERVAL);
        let result = loop {
            tokio::select! {
                biased;
                Some(joined) = self.under_way.join_next() => {
                    if let Err(failure) = self.acknowledge(joined) {
                        break Err(failure);
                    }
                }
                _ = &mut interrupt => break Err(Failure::new(Exit::General, "interrupted")),
                _ = save.tick() => self.journal.save()?,
                line = lines.recv(), if self.under_way.len() < in_flight => match line {
                    Some(Ok(line)) => {
                        if let Err(failure) = self.start(line).await {
                            break Err(failure);
                        }
                    }
                    Some(Err(failure)) => break Err(failure),
                    None => break Ok(()),
                },
            }
        };
        // What is under way may still be acknowledged, and then counts. After a failure nobody waits for long: lines that
        // were not acknowledged are imported again.
        match result {
            Ok(()) => self.finish_all().await,
            Err(failure) => {
                let drained = tokio::time::timeout(DRAIN_AFTER_FAILURE, self.finish_all()).await;
                self.under_way.abort_all();
                // The first failure is the one to tell.
                drop(drained);
                Err(failure)
            }
        }
    }

    /// Waits for everything under way; the first failure ends it.
    async fn finish_all(&mut self) -> Result<(), Failure> {
        while let Some(joined) = self.under_way.join_next().await {
            self.acknowledge(joined)?;
        }
        Ok(())
    }

    /// Starts the put of a line, once no other put of its key is under way.
    async fn start(&mut self, line: Numbered) -> Result<(), Failure> {
        while self.keys_under_way.contains(&line.record.key) {
            let Some(joined) = self.under_way.join_next().await else { break };
            self.acknowledge(joined)?;
        }
        self.keys_under_way.insert(line.record.key.clone());
        let client = self.client.clone();
        let give_up_after = self.give_up_after;
        self.under_way.spawn(async move {
            put_until_acknowledged(&client, &line.record, give_up_after).await.map_err(|error| {
                let failure = Failure::from(error);
                Failure::new(failure.exit(), format!("line {}: {failure}", line.number + 1))
            })?;
            Ok(Acknowledged { number: line.number, digest: line.digest, key: line.record.key })
        });
        Ok(())
    }

    fn acknowledge(
        &mut self,
        joined: Result<Result<Acknowledged, Failure>, tokio::task::JoinError>,
    ) -> Result<(), Failure> {
        let done =
            joined.map_err(|error| Failure::new(Exit::General, format!("a put broke off: {error}")))??;
        self.keys_under_way.remove(&done.key);
        self.journal.acknowledge(done.number, done.digest);
        self.acknowledged += 1;
        self.progress.acknowledged(self.acknowledged);
        Ok(())
    }
}

/// Puts a record again and again until it is acknowledged, refused, or the time is over.
async fn put_until_acknowledged(
    client: &Client,
    record: &Record,
    give_up_after: Duration,
) -> Result<(), Error> {
    let started = Instant::now();
    let mut wait = Duration::from_millis(20);
    loop {
        let error = match client.put_value(record.key.clone(), record.value.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match error {
            Error::Indefinite { .. } | Error::Unavailable { .. } if started.elapsed() < give_up_after => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_millis(500));
            }
            error => return Err(error),
        }
    }
}

/// Reads the lines on a thread of its own, behind those that were imported before.
fn read_lines(
    path: &Path,
    start: resume::Start,
) -> Result<mpsc::Receiver<Result<Numbered, Failure>>, Failure> {
    let reader: Box<dyn BufRead + Send> = if path.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = std::fs::File::open(path)
            .map_err(|error| Failure::new(Exit::General, format!("{}: {error}", path.display())))?;
        Box::new(BufReader::with_capacity(1 << 20, file))
    };
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::Builder::new().name("import-reader".to_owned()).spawn(move || {
        let mut start = start;
        for (number, line) in (0u64..).zip(reader.lines()) {
            let numbered =
                line.map_err(Failure::from).and_then(|line| number_line(number, &line, &mut start));
            let last = numbered.is_err();
            // The receiver goes away when the import ends early.
            if let Some(numbered) = numbered.transpose()
                && (sender.blocking_send(numbered).is_err() || last)
            {
                return;
            }
        }
        if let Err(failure) = start.check_reached() {
            // As above.
            let _ = sender.blocking_send(Err(failure));
        }
    })?;
    Ok(receiver)
}

/// Parses a line; `None` where it was imported before.
fn number_line(number: u64, line: &str, start: &mut resume::Start) -> Result<Option<Numbered>, Failure> {
    let digest = LineDigest::of(line);
    if start.was_done(digest)? {
        return Ok(None);
    }
    let record = Record::parse(line)
        .map_err(|error| Failure::new(Exit::General, format!("line {}: {error}", number + 1)))?;
    Ok(Some(Numbered { number, digest, record }))
}

fn tell(output: Output, acknowledged: u64, skipped: u64, seconds: f64) -> Result<(), Failure> {
    match output {
        Output::Json => {
            print_json(&json!({ "acknowledged": acknowledged, "skipped": skipped, "seconds": seconds }))
        }
        Output::Plain => print_line(&acknowledged.to_string()),
        Output::Table => {
            let before = if skipped > 0 {
                format!(" ({skipped} lines had been imported before)")
            } else {
                String::new()
            };
            print_line(&format!("acknowledged {acknowledged} keys in {seconds:.1} s{before}"))
        }
    }
}
