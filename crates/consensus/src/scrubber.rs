//! The scrubber: goes over the whole state, no faster than it may, once a day and whenever it is asked to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringfence_store::{Scrub, ScrubProgress, ScrubStep, StoreError};

use crate::api::{Failure, Integrity, ScrubVerdict};
use crate::node::Node;
use crate::rt;

/// A scrub reads for about this long, at its rate, before it pauses.
const STEP_TIME: Duration = Duration::from_millis(100);
/// Least that one step reads: a page or two are too little to be worth a pause.
const STEP_BYTES_MIN: u64 = 64 << 10;
/// How often a scrub begins anew because compaction has passed it; then it waits for its next turn.
const BEGINNINGS_MAX: u32 = 16;

/// One scrub at a time, and what came of them.
#[derive(Debug, Default)]
pub(crate) struct Scrubs {
    turn: tokio::sync::Mutex<()>,
    /// Scrubs that went over the whole state, sound or not.
    ended: AtomicU64,
    last_ended: Mutex<Option<rt::Instant>>,
}

impl Scrubs {
    /// How many have ended since the process started, and how long ago the last one did.
    pub(crate) fn count(&self) -> (u64, Option<Duration>) {
        (self.ended.load(Ordering::Relaxed), self.last_ended.lock().map(rt::since))
    }
}

impl Node {
    /// Computes the hashes of the whole state anew, from what is there, and compares them with what was applied; `told` hears
    /// how far it is. Waits for its turn, and takes its time. A state that turns out to be damaged is not believed any longer:
    /// the node goes into state quarantine, or ends if it is the only one that has this state.
    ///
    /// # Errors
    /// A node in state quarantine has no state to look at, and a disk may fail.
    pub async fn scrub(&self, mut told: impl FnMut(ScrubProgress) + Send) -> Result<ScrubVerdict, Failure> {
        let scrubs = &self.0.scrubs;
        let _turn = scrubs.turn.lock().await;
        let verdict = self.scrub_now(&mut told).await?;
        scrubs.ended.fetch_add(1, Ordering::Relaxed);
        *scrubs.last_ended.lock() = Some(rt::now());
        match &verdict {
            ScrubVerdict::Sound { progress, .. } => {
                tracing::info!("scrubbed {} versions of {} keys: sound", progress.versions, progress.keys);
            }
            ScrubVerdict::Damaged { reason, .. } => tracing::error!("the scrub found damage: {reason}"),
            ScrubVerdict::Overtaken => {
                tracing::warn!("the scrub was overtaken by compaction again and again")
            }
        }
        Ok(verdict)
    }

    async fn scrub_now(&self, told: &mut (dyn FnMut(ScrubProgress) + Send)) -> Result<ScrubVerdict, Failure> {
        let shelf = &self.0.shelf;
        let rate = self.0.config.integrity.scrub_bytes_per_second.max(1);
        let step_bytes = ((rate as f64 * STEP_TIME.as_secs_f64()) as u64).max(STEP_BYTES_MIN);
        for _ in 0..BEGINNINGS_MAX {
            let mut scrub = Scrub::begin(&self.view());
            loop {
                shelf.quarantine.check().map_err(Failure::StateCorrupt)?;
                let (began, read_before) = (rt::now(), scrub.progress().bytes);
                let store = shelf.store.clone();
                let stepping = move || {
                    let stepped = scrub.step(&store.view(), step_bytes);
                    (scrub, stepped)
                };
                let stepped;
                (scrub, stepped) =
                    rt::blocking(stepping).await.map_err(|error| Failure::Consensus(error.to_string()))?;
                let progress = scrub.progress();
                told(progress);
                match stepped {
                    Ok(ScrubStep::More) => {}
                    Ok(ScrubStep::Sound { revision }) => {
                        return Ok(ScrubVerdict::Sound { revision, progress });
                    }
                    Ok(ScrubStep::Overtaken) => break,
                    // What is damaged has been replaced meanwhile.
                    Err(StoreError::Corrupt(_)) if scrub.is_overtaken(&self.view()) => break,
                    Err(error @ StoreError::Corrupt(_)) => {
                        shelf.state_failed(&error);
                        return Ok(ScrubVerdict::Damaged { reason: error.to_string(), progress });
                    }
                    Err(error) => {
                        shelf.state_failed(&error);
                        return Err(Failure::Disk(error.to_string()));
                    }
                }
                let due = Duration::from_secs_f64((progress.bytes - read_before) as f64 / rate as f64);
                rt::sleep_until(began + due).await;
            }
        }
        Ok(ScrubVerdict::Overtaken)
    }
}

/// Scrubs by itself, for ever.
pub(crate) async fn run(node: Node) {
    let Integrity { scrub_interval, .. } = node.0.config.integrity;
    // Never at a start, when there is more urgent work, and at another time on each node.
    let share = node.node_id().0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut pause = scrub_interval.mul_f64(0.5 + 0.5 * share as f64 / f64::from(u32::MAX));
    loop {
        rt::sleep(pause).await;
        pause = scrub_interval;
        if let Err(failure) = node.scrub(drop).await {
            tracing::warn!("no scrub: {failure}");
        }
    }
}
