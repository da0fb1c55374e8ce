//! How far an import is: a moving line on a terminal, now and then a plain line elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Tells how far an import is, on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    told: Instant,
}

impl Progress {
    pub(super) fn new(skipped: u64) -> Progress {
        if skipped > 0 {
            eprintln!("going on behind the first {skipped} lines, which were imported before");
        }
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style =
                ProgressStyle::with_template("{spinner} {human_pos} acknowledged, {per_sec}, {elapsed}");
            bar.with_style(style.expect("the template is a constant that the tests parse"))
        });
        let now = Instant::now();
        Progress { bar, started: now, told: now }
    }

    /// Notes how many were acknowledged so far.
    pub(super) fn acknowledged(&mut self, count: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(count),
            None if self.told.elapsed() >= LINE_INTERVAL => {
                self.told = Instant::now();
                let rate = count as f64 / self.started.elapsed().as_secs_f64();
                eprintln!("{count} acknowledged, {rate:.0} a second");
            }
            None => {}
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_bar_is_lawful() {
        assert!(
            ProgressStyle::with_template("{spinner} {human_pos} acknowledged, {per_sec}, {elapsed}").is_ok()
        );
    }
}
