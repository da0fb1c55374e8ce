//! Ctrl-C: the first one ends a run in order, the second one at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The code with which a shell says that a program was interrupted.
const INTERRUPTED: i32 = 130;

/// True once the run shall end.
pub(super) static STOP: AtomicBool = AtomicBool::new(false);

/// Begins to listen, on a thread of its own. Everything that a run made goes with the process, however that ends.
pub(super) fn listen() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                STOP.store(true, Ordering::Relaxed);
                eprintln!("\nending in order: faults are healed and what was seen is judged; Ctrl-C again ends at once");
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(INTERRUPTED);
            }
        });
    })?;
    Ok(())
}
