//! What the wrapper, the watchdog and the container's first process say to each other: lines of text over a pair of
//! sockets. The end of a link is the other's death, which is the most important message of all.

use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as Socket;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::UnixStream;

use super::clock::Boottime;
use super::deadline::Deadlines;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Wrapper to watchdog: the newest deadlines.
    Deadlines(Deadlines),
    /// Watchdog to wrapper: the deadlines that end then are in force.
    InForce(Boottime),
    /// Towards the command: it may start, but not from that moment on.
    Go(Boottime),
    /// Towards the command: a signal for it.
    Signal(i32),
    /// Wrapper to watchdog: end everything now, without grace.
    Kill,
    /// From the command's side: the container stands, and nothing runs in it yet.
    Ready,
    /// From the command's side: the container cannot be had, and why.
    Failed(String),
    /// From the command's side: the command ended, with this exit code.
    Ended(u8),
    /// Watchdog to wrapper: the deadline has passed.
    Overdue,
    /// Watchdog to wrapper: the last process has ended.
    Empty,
}

/// One end of a link.
#[derive(Debug)]
pub(super) struct Link {
    lines: Lines<BufReader<UnixStream>>,
    writer: Socket,
}

impl Link {
    /// The end that a parent process left open for this one.
    pub(super) fn inherited(descriptor: RawFd) -> io::Result<Link> {
        // SAFETY: the parent opened it for this process, which names it here for the only time.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
        Link::new(Socket::from(descriptor))
    }

    /// Starts a process that has the other end of a new link open; `prepare` tells it the descriptor's number.
    pub(super) fn to_child(
        command: &mut Command,
        prepare: impl FnOnce(&mut Command, RawFd),
    ) -> io::Result<(Link, Child)> {
        let (ours, theirs) = Socket::pair()?;
        fcntl_setfd(&theirs, FdFlags::empty())?;
        prepare(command, theirs.as_raw_fd());
        let child = command.spawn()?;
        Ok((Link::new(ours)?, child))
    }

    fn new(socket: Socket) -> io::Result<Link> {
        socket.set_nonblocking(true)?;
        let writer = socket.try_clone()?;
        Ok(Link { lines: BufReader::new(UnixStream::from_std(socket)?).lines(), writer })
    }

    /// The next message; `None` once the other end is gone. May be given up at any time.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        // What makes no sense comes from nobody that we know: as good as a death.
        Message::parse(&self.lines.next_line().await.ok()??)
    }

    /// Sends a message if the other end is there and listens. Never waits: a process that is stopped must stop no other, and
    /// whoever must know whether the message arrived gets an answer to it.
    pub(super) fn send(&self, message: &Message) {
        let _ = (&self.writer).write_all(format!("{message}\n").as_bytes());
    }
}

/// The next message of a link that may have ended; waits for ever where it has.
pub(super) async fn receive(link: &mut Option<Link>) -> Option<Message> {
    match link {
        Some(link) => link.receive().await,
        None => std::future::pending().await,
    }
}

impl Message {
    fn parse(line: &str) -> Option<Message> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split(' ');
        let mut moment = || Some(Boottime(Duration::from_nanos(words.next()?.parse().ok()?)));
        Some(match word {
            "deadlines" => Message::Deadlines(Deadlines {
                term: moment()?,
                kill: moment()?,
                backup: moment()?,
                kernel: moment()?,
                end: moment()?,
            }),
            "in-force" => Message::InForce(moment()?),
            "go" => Message::Go(moment()?),
            "signal" => Message::Signal(rest.parse().ok()?),
            "kill" => Message::Kill,
            "ready" => Message::Ready,
            "failed" => Message::Failed(rest.to_owned()),
            "ended" => Message::Ended(rest.parse().ok()?),
            "overdue" => Message::Overdue,
            "empty" => Message::Empty,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Message::Deadlines(Deadlines { term, kill, backup, kernel, end }) => {
                write!(f, "deadlines {term} {kill} {backup} {kernel} {end}")
            }
            Message::InForce(end) => write!(f, "in-force {end}"),
            Message::Go(before) => write!(f, "go {before}"),
            Message::Signal(number) => write!(f, "signal {number}"),
            Message::Kill => f.write_str("kill"),
            Message::Ready => f.write_str("ready"),
            Message::Failed(why) => write!(f, "failed {}", why.replace('\n', " ")),
            Message::Ended(code) => write!(f, "ended {code}"),
            Message::Overdue => f.write_str("overdue"),
            Message::Empty => f.write_str("empty"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let at = |nanoseconds| Boottime(Duration::from_nanos(nanoseconds));
        let deadlines =
            Deadlines { term: at(1), kill: at(2), backup: at(3), kernel: at(4), end: at(u64::MAX) };
        for message in [
            Message::Deadlines(deadlines),
            Message::InForce(at(7)),
            Message::Go(at(0)),
            Message::Signal(15),
            Message::Kill,
            Message::Ready,
            Message::Failed("no such thing: a b".to_owned()),
            Message::Ended(255),
            Message::Overdue,
            Message::Empty,
        ] {
            assert_eq!(Message::parse(&message.to_string()), Some(message));
        }
        for wrong in ["", "deadlines 1 2 3 4", "go soon", "signal", "ended 256", "hello"] {
            assert_eq!(Message::parse(wrong), None, "{wrong:?}");
        }
    }
}
