//! The command as the wrapper has it: started in a container behind a watchdog, told new deadlines, and ended by the wrapper
//! itself where the watchdog does not.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::clock::Alarm;
use super::container::{Container, Means};
use super::deadline::Deadlines;
use super::link::{Link, Message};
use super::{program, tree};
use crate::exit::{Exit, Failure};

/// What to run, and how.
#[derive(Debug)]
pub(super) struct Order {
    /// The command with its arguments.
    pub(super) command: Vec<OsString>,
    /// What is added to its environment.
    pub(super) environment: Vec<(&'static str, String)>,
    /// The means of containment to try, in this order.
    pub(super) means: Vec<Means>,
    /// Children of this process that are none of ours.
    pub(super) strangers: BTreeSet<i32>,
}

/// A command in its container.
#[derive(Debug)]
pub(super) struct Contained {
    watchdog: Link,
    watchdog_pid: Pid,
    container: Container,
    strangers: BTreeSet<i32>,
    /// Those that the watchdog goes by.
    in_force: Deadlines,
    /// Those that it was told last.
    told: Deadlines,
    /// Why better means were not used.
    refused: Vec<String>,
}

impl Contained {
    /// Makes the container, by the first means that can be had; the command waits in it for [`Contained::go`]. `deadlines`
    /// gives the newest ones.
    pub(super) async fn prepare(
        order: Order,
        deadlines: impl Fn() -> Deadlines,
    ) -> Result<Contained, Failure> {
        let mut refused = Vec::new();
        for means in &order.means {
            let container = match Container::make(*means) {
                Ok(container) => container,
                Err(why) => {
                    refused.push(why);
                    continue;
                }
            };
            let mut contained = Contained::start(&order, container, deadlines())?;
            match contained.ready().await {
                Ok(()) => {
                    contained.refused = refused;
                    return Ok(contained);
                }
                Err(why) => {
                    contained.kill();
                    refused.push(why);
                }
            }
        }
        Err(Failure::new(Exit::General, format!("the command cannot be contained: {}", refused.join("; "))))
    }

    fn start(order: &Order, container: Container, deadlines: Deadlines) -> Result<Contained, Failure> {
        let mut watchdog = Command::new(program()?);
        watchdog.envs(order.environment.iter().map(|(name, value)| (name, value)));
        let (link, child) = Link::to_child(&mut watchdog, |watchdog, control| {
            watchdog.args(container.arguments("run-watchdog", control, &order.command));
        })
        .inspect_err(|_| container.remove())?;
        link.send(&Message::Deadlines(deadlines));
        Ok(Contained {
            watchdog: link,
            watchdog_pid: Pid::from_child(&child),
            container,
            strangers: order.strangers.clone(),
            in_force: deadlines,
            told: deadlines,
            refused: Vec::new(),
        })
    }

    async fn ready(&mut self) -> Result<(), String> {
        let alarm = Alarm::new().map_err(|error| error.to_string())?;
        tokio::select! {
            _ = alarm.at(self.in_force.backup) => Err(format!("{} was not made in time", self.container)),
            message = self.watchdog.receive() => match message {
                Some(Message::Ready) => Ok(()),
                Some(Message::Failed(why)) => Err(why),
                _ => Err(format!("{}: its processes ended while it was made", self.container)),
            },
        }
    }

    /// What the command is contained in, and why in nothing better, for people.
    pub(super) fn description(&self) -> String {
        let why = self.refused.iter().map(|why| format!("; {why}")).collect::<String>();
        format!("contained by {}{why}", self.container)
    }

    /// Lets the command start.
    pub(super) fn go(&self) {
        self.watchdog.send(&Message::Go(self.in_force.term));
    }

    /// Passes a signal on to the command.
    pub(super) fn signal(&self, number: i32) {
        self.watchdog.send(&Message::Signal(number));
    }

    /// Has the watchdog end everything at once.
    pub(super) fn ask_to_kill(&self) {
        self.watchdog.send(&Message::Kill);
    }

    /// Tells the watchdog new deadlines. They count only once it has answered: a watchdog that is stopped lets no command live
    /// longer.
    pub(super) fn postpone(&mut self, deadlines: Deadlines) {
        self.told = deadlines;
        self.watchdog.send(&Message::Deadlines(deadlines));
    }

    /// What the watchdog says next; `None` if it has died. May be given up at any time.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        let message = self.watchdog.receive().await;
        if let Some(Message::InForce(end)) = message
            && end == self.told.end
        {
            self.in_force = self.told;
        }
        message
    }

    /// Those that the watchdog goes by.
    pub(super) fn in_force(&self) -> Deadlines {
        self.in_force
    }

    /// Kills everything, the watchdog too, and returns when the last process has ended.
    pub(super) fn kill(&self) {
        self.container.kill_and_wait(&self.strangers);
        self.container.remove();
    }

    /// Returns when the watchdog has ended too, which has seen the last process end.
    pub(super) fn wait_for_watchdog(&self) {
        while waitpid(Some(self.watchdog_pid), WaitOptions::empty()).is_err_and(|error| error == Errno::INTR)
        {
        }
        // It has left nothing, but if it had, this would be the moment to end it.
        tree::kill_all(&self.strangers, || {});
    }
}
