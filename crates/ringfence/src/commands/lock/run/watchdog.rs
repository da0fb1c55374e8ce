//! The watchdog, `ringfence run-watchdog`: it ends the command when its deadline comes, or when the wrapper dies, whatever
//! else is stopped, killed or cut off.
//!
//! It knows nothing of the cluster. The wrapper tells it new deadlines; those that it has answered are in force. A timer of the
//! kernel ends a watchdog that is itself stopped; the container's first process sees that (see `init`), and so does the
//! wrapper.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;

use rustix::process::{Pid, Signal, setpriority_process, setsid};
use tokio::signal::unix::{SignalKind, signal};

use super::clock::{Alarm, Boottime, KernelTimer};
use super::container::{Container, ContainerFlags, Means};
use super::deadline::Deadlines;
use super::link::{self, Link, Message};
use super::{namespace, program, tree};
use crate::exit::Failure;

/// It must get its turn within milliseconds on a machine that may have much to do.
const NICENESS: i32 = -10;

/// The watchdog of one command.
struct Watchdog {
    container: Container,
    /// `None` once it has died.
    wrapper: Option<Link>,
    /// The container's first process; `None` once it has ended.
    init: Option<Link>,
    init_pid: Pid,
    deadlines: Deadlines,
    kernel_timer: KernelTimer,
    /// When everything is killed, once the command has ended or was asked to.
    kill_at: Option<Boottime>,
}

/// Whether to go on watching.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Watch,
    Kill,
}

/// Watches one command.
pub(crate) async fn run(flags: ContainerFlags) -> Result<(), Failure> {
    let mut wrapper = Link::inherited(flags.control)?;
    let Some(Message::Deadlines(deadlines)) = wrapper.receive().await else { return Ok(()) };
    let container = Container::made(&flags);
    let (init, init_pid, kernel_timer) = match start_init(&container, &flags.command, &deadlines) {
        Ok(started) => started,
        Err(why) => {
            wrapper.send(&Message::Failed(why));
            return Ok(());
        }
    };
    let (wrapper, init) = (Some(wrapper), Some(init));
    let mut watchdog =
        Watchdog { container, wrapper, init, init_pid, deadlines, kernel_timer, kill_at: None };
    let watched = watchdog.watch().await;
    watchdog.container.kill_and_wait(&BTreeSet::new());
    watchdog.container.remove();
    watchdog.tell(&Message::Empty);
    Ok(watched?)
}

fn start_init(
    container: &Container,
    command: &[OsString],
    deadlines: &Deadlines,
) -> Result<(Link, Pid, KernelTimer), String> {
    let told = |error: std::io::Error| format!("cannot start the container's first process: {error}");
    tree::become_subreaper().map_err(told)?;
    let timer = KernelTimer::new().map_err(told)?;
    timer.set(deadlines.kernel).map_err(told)?;
    if container.means() == Means::PidNamespace {
        namespace::unshare_children()?;
    }
    let mut init = Command::new(program().map_err(told)?);
    let arguments = |init: &mut Command, control| {
        init.args(container.arguments("run-init", control, command));
    };
    let (link, child) = Link::to_child(&mut init, arguments).map_err(told)?;
    // The command inherits the wrapper's process group, to which the terminal speaks. The watchdog is for itself: what stops
    // or ends that group, or the session, shall not reach it.
    setsid().map_err(|error| told(error.into()))?;
    // Not everybody may ask for it.
    let _ = setpriority_process(None, NICENESS);
    Ok((link, Pid::from_child(&child), timer))
}

impl Watchdog {
    /// Returns when nothing is left, or everything must be killed.
    async fn watch(&mut self) -> std::io::Result<()> {
        let alarm = Alarm::new()?;
        let mut child_ended = signal(SignalKind::child())?;
        loop {
            let wake_at = self.kill_at.unwrap_or(self.deadlines.term);
            let next = tokio::select! {
                biased;
                rung = alarm.at(wake_at) => {
                    rung?;
                    self.on_time()
                }
                message = link::receive(&mut self.wrapper) => self.on_wrapper(message),
                message = link::receive(&mut self.init) => self.on_init(message),
                _ = child_ended.recv() => if tree::reap().1 { Next::Kill } else { Next::Watch },
            };
            if next == Next::Kill {
                return Ok(());
            }
        }
    }

    fn on_time(&mut self) -> Next {
        if self.kill_at.is_some() {
            return Next::Kill;
        }
        self.tell(&Message::Overdue);
        self.ask_to_end()
    }

    fn on_wrapper(&mut self, message: Option<Message>) -> Next {
        match message {
            None => {
                self.wrapper = None;
                self.ask_to_end()
            }
            // Once it is being ended, nothing lets the command live longer.
            Some(_) if self.kill_at.is_some_and(|at| at.has_come()) => Next::Kill,
            Some(Message::Kill) => Next::Kill,
            Some(Message::Deadlines(deadlines)) if self.kill_at.is_none() => {
                if self.kernel_timer.set(deadlines.kernel).is_ok() {
                    self.deadlines = deadlines;
                    self.tell(&Message::InForce(deadlines.end));
                }
                Next::Watch
            }
            Some(Message::Go(_)) if self.kill_at.is_none() => {
                self.tell_init(&Message::Go(self.deadlines.term));
                Next::Watch
            }
            Some(message @ Message::Signal(_)) => {
                self.tell_init(&message);
                Next::Watch
            }
            Some(_) => Next::Watch,
        }
    }

    fn on_init(&mut self, message: Option<Message>) -> Next {
        match message {
            Some(message @ (Message::Ready | Message::Failed(_))) => {
                self.tell(&message);
                Next::Watch
            }
            Some(message @ Message::Ended(_)) => {
                self.tell(&message);
                self.ask_to_end()
            }
            Some(_) => Next::Watch,
            None => {
                self.init = None;
                // After the command's end the first process ends when nothing is left; before it, somebody has killed it.
                if self.kill_at.is_some() { Next::Watch } else { Next::Kill }
            }
        }
    }

    /// Asks all that is in the container to end, and sets the time for it: the grace, but never beyond the deadline.
    fn ask_to_end(&mut self) -> Next {
        if self.kill_at.is_some() {
            return Next::Watch;
        }
        let Deadlines { term, kill, .. } = self.deadlines;
        let grace = kill.0.saturating_sub(term.0);
        self.kill_at = Some(Boottime::now().plus(grace).min(kill));
        tree::signal_descendants(self.init_pid, &BTreeSet::new(), Signal::TERM);
        Next::Watch
    }

    fn tell(&self, message: &Message) {
        if let Some(wrapper) = &self.wrapper {
            wrapper.send(message);
        }
    }

    fn tell_init(&self, message: &Message) {
        if let Some(init) = &self.init {
            init.send(message);
        }
    }
}
