//! Waiting for a fact instead of for a time.

use std::thread;
use std::time::{Duration, Instant};

/// How often the fact is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Longest wait for anything that a healthy cluster does within a second or two: generous, since machines that test are
/// busy, and only reached when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something, and returns it. What it says while it finds nothing is told when time is over.
///
/// # Panics
/// When the time is over.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if Instant::now() >= deadline => {
                panic!("waited {limit:?} in vain for {what}: {why}");
            }
            Err(_) => thread::sleep(LOOK_INTERVAL),
        }
    }
}
