//! Power cuts.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{LOOK_INTERVAL, Loss, World};

/// Longest wait for all threads of a process to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keep {
    /// The share of every file, from 0 to 1, that was lucky to be written back just before.
    pub share: f64,
    /// The ranges that make it up are drawn from this.
    pub seed: u64,
}

impl Keep {
    /// Nothing that was not synced is left.
    pub const NOTHING: Keep = Keep { share: 0.0, seed: 0 };
}

impl World {
    /// Cuts the power of nodes, as nearly at once as can be: their processes are gone, and what they had not synced is lost.
    ///
    /// # Errors
    /// Where a node has no disk of its own, or that does not know how.
    pub fn cut_power(&self, nodes: &[usize], keep: Keep) -> anyhow::Result<()> {
        for node in nodes {
            self.signal(*node, libc::SIGSTOP);
        }
        let cut = |node: usize| -> anyhow::Result<()> {
            let disk = self.disk(node).context("the node has no disk of its own")?;
            if let Some(process) = self.process(node) {
                wait_stopped(process)?;
            }
            let cut = disk.cut_power(keep.share, keep.seed.wrapping_add(node as u64));
            self.node(node).kill("power cut");
            cut.context("the power cannot be cut")
        };
        thread::scope(|scope| {
            let cuts: Vec<_> = nodes.iter().map(|node| scope.spawn(move || cut(*node))).collect();
            cuts.into_iter().zip(nodes).try_for_each(|(thread, node)| {
                let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.with_context(|| format!("node {node}"))
            })
        })
    }

    /// Gives a node its power back, and says what it lost; the node is not started. Also the way back for a disk that turned
    /// read-only.
    ///
    /// # Errors
    /// Where it runs, has no disk of its own, or that cannot be mounted again.
    pub fn restore_power(&self, node: usize) -> anyhow::Result<Loss> {
        ensure!(!self.is_running(node), "node {node} runs");
        let disk = self.disk(node).with_context(|| format!("node {node} has no disk of its own"))?;
        disk.restore().with_context(|| format!("the disk of node {node} cannot be mounted again"))
    }
}

/// Waits until each thread of a process stands still: on a busy machine they run on for a while after the signal.
fn wait_stopped(process: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    loop {
        let threads = fs::read_dir(format!("/proc/{process}/task"))?;
        let stopped = threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name, which stands in parentheses. A thread that is gone has no state.
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            matches!(state, None | Some('T' | 'Z' | 'X'))
        });
        if stopped {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "process {process} does not stop within {STOP_TIMEOUT:?}");
        thread::sleep(LOOK_INTERVAL);
    }
}
