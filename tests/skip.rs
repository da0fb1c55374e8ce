//! Tests that a machine cannot run say so: a test that was left out silently looks like one that passed.

use std::io::Write as _;

/// Tells that a test is skipped and why, past the capture of the test's own output.
pub fn skipped(test: &str, reason: &str) {
    // The test goes on whether or not anybody can read this.
    let _ = writeln!(std::io::stderr().lock(), "skipped: {test}: {reason}");
}

/// Whether this process may mount file systems: it is root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
