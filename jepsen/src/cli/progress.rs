//! The line that tells how a run goes. A terminal sees it change; a log gets it now and then.

use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use ringfence_jepsen::run::Glimpse;

/// How often a log gets a line.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The time over which the present rate is measured.
const RATE_SPAN: Duration = Duration::from_secs(1);

/// Shows how runs go, from any thread.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// How long a run lasts; none: nobody knows, since runs differ.
    total: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stage: &'static str,
    logged: Option<Instant>,
    /// Operations done at a moment of the run, and the rate until then.
    measured: (Duration, u64),
    rate: f64,
}

impl Progress {
    /// A line on standard error.
    pub(super) fn new(total: Option<Duration>) -> Progress {
        let bar = stderr().is_terminal().then(ProgressBar::new_spinner);
        Progress { bar, total, state: Mutex::default() }
    }

    /// Takes a glimpse at a run.
    pub(super) fn show(&self, glimpse: &Glimpse) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.measure(glimpse);
        let words = self.words(glimpse, state.rate);
        if let Some(bar) = &self.bar {
            bar.set_message(words);
            bar.tick();
            return;
        }
        let due = state.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
        if due || state.stage != glimpse.stage {
            eprintln!("{words}");
            state.logged = Some(Instant::now());
            state.stage = glimpse.stage;
        }
    }

    /// Takes the line away, so that something can be printed.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message("");
            bar.finish_and_clear();
            bar.reset();
        }
    }

    fn words(&self, glimpse: &Glimpse, rate: f64) -> String {
        if glimpse.elapsed.is_zero() {
            return glimpse.stage.to_owned();
        }
        let total = self.total.map_or_else(String::new, |total| format!(" of {:.0} s", total.as_secs_f64()));
        let leader = glimpse.leader.map_or_else(|| "no leader".to_owned(), |node| format!("n{node} leads"));
        let fault = if glimpse.fault.is_empty() { "no fault" } else { &glimpse.fault };
        let progress = glimpse.progress;
        let missed = match progress.missed {
            0 => String::new(),
            missed => format!(", {missed} left out"),
        };
        format!(
            "{:.0} s{total} · ok {} fail {} info {}{missed} · {rate:.0}/s · {leader} · {fault}",
            glimpse.elapsed.as_secs_f64(),
            progress.ok,
            progress.fail,
            progress.info,
        )
    }
}

impl State {
    fn measure(&mut self, glimpse: &Glimpse) {
        let (time, done) = self.measured;
        if glimpse.elapsed < time || glimpse.progress.ok < done {
            // Another run began.
            self.measured = (glimpse.elapsed, glimpse.progress.ok);
            self.rate = 0.0;
        } else if glimpse.elapsed - time >= RATE_SPAN {
            self.rate = (glimpse.progress.ok - done) as f64 / (glimpse.elapsed - time).as_secs_f64();
            self.measured = (glimpse.elapsed, glimpse.progress.ok);
        }
    }
}
