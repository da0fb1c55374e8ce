//! The signals that the wrapper passes on to the command.

use std::fs::File;
use std::io;

use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals sent to this process.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// From now on these signals no longer end this process.
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The number of the next one. May be given up at any time.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.quit.recv() => libc::SIGQUIT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.hangup.recv() => libc::SIGHUP,
            _ = self.user1.recv() => libc::SIGUSR1,
            _ = self.user2.recv() => libc::SIGUSR2,
        }
    }
}

/// Whether the command has got this signal already: a terminal sends Ctrl-C and Ctrl-\ to all processes in its foreground.
pub(super) fn comes_from_the_terminal(number: i32) -> bool {
    let in_foreground = || -> io::Result<bool> { Ok(tcgetpgrp(File::open("/dev/tty")?)? == getpgrp()) };
    matches!(number, libc::SIGINT | libc::SIGQUIT) && in_foreground().unwrap_or(false)
}
