//! Load that remembers what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringfence_client::{Client, Options};

use crate::cli::{self, Ran};
use crate::records::Records;
use crate::wait::{self, PATIENCE};

/// One client that puts one key after the other, a new one each time, until it is told to stop.
#[derive(Debug)]
pub struct Puts {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Report>,
}

/// What a load has seen.
#[derive(Debug, Default)]
pub struct Report {
    /// What was acknowledged.
    pub acknowledged: Records,
    /// Puts that were not acknowledged, with the reasons.
    pub failed: Vec<String>,
    /// The longest time between two acknowledgements.
    pub longest_gap: Duration,
}

impl Puts {
    /// Starts the load on a thread of its own.
    ///
    /// # Panics
    /// Where no thread can be started.
    #[must_use]
    pub fn start(endpoints: &str, prefix: &str) -> Puts {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (endpoints, prefix) = (endpoints.to_owned(), prefix.to_owned());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be started").block_on(put(&endpoints, &prefix, &stopped, &counted))
        };
        let thread = thread::Builder::new().name("puts".to_owned()).spawn(work);
        Puts { stop, count, thread: thread.expect("a thread can be started") }
    }

    /// Waits until so many more puts were acknowledged than are now.
    pub fn wait_for_more(&self, more: u64) {
        let wanted = self.count.load(Ordering::Relaxed) + more;
        wait::until("more puts to be acknowledged", PATIENCE, || {
            let count = self.count.load(Ordering::Relaxed);
            if count >= wanted { Ok(()) } else { Err(format!("{count} are, {wanted} should be")) }
        });
    }

    /// Ends the load.
    ///
    /// # Panics
    /// Where the load itself panicked.
    #[must_use]
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load does not panic")
    }
}

async fn put(endpoints: &str, prefix: &str, stop: &AtomicBool, count: &AtomicU64) -> Report {
    let client = Client::connect(endpoints.split(','), Options::default()).expect("the endpoints are lawful");
    let mut report = Report::default();
    let mut last = Instant::now();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("{prefix}{number:08}"), number.to_string());
        match client.put_value(key.clone(), value.clone()).await {
            Ok(_) => {
                report.acknowledged.0.insert(key, value);
                report.longest_gap = report.longest_gap.max(last.elapsed());
                last = Instant::now();
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => report.failed.push(format!("{key}: {error}")),
        }
    }
    report
}

/// `ringfence import` under way.
#[derive(Debug)]
pub struct Import {
    thread: JoinHandle<Ran>,
}

impl Import {
    /// Starts to import these records.
    #[must_use]
    pub fn start(endpoints: &str, records: &Records) -> Import {
        let command = cli::command(["import", "-", "--output=json", "--endpoints", endpoints]);
        let input = records.lines();
        Import { thread: thread::spawn(move || cli::capture(command, &input)) }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end and returns how many records it says were acknowledged.
    ///
    /// # Panics
    /// Where it failed.
    #[must_use]
    pub fn acknowledged(self) -> u64 {
        let told = self.thread.join().expect("a command does not panic").json();
        told["acknowledged"].as_u64().unwrap_or_else(|| panic!("it says how many: {told}"))
    }
}
