//! `ringfence lock run`: run a command only while a lock is held.
//!
//! Four processes take part, each the child of the one before it:
//!
//! - the *wrapper* (this one) holds the lock and keeps its lease alive;
//! - the *watchdog* ends the command at the deadline that the wrapper told it last, or when the wrapper dies;
//! - the container's *first process* reaps what the command leaves behind, and ends everything if the watchdog dies;
//! - the *command*, with all its descendants.
//!
//! Wrapper and watchdog each end the command in time alone, whichever of them is stopped or killed. If both are stopped at
//! once, the kernel ends the watchdog at its deadline, and with it, in a PID namespace, the kernel ends the command; in
//! another container the first process does. Reading order: [`deadline`] (when), `clock`, `link` (what they say to each other),
//! `container` with `cgroup`, `namespace` and `tree` (how everything is ended), `init`, `watchdog`, `child` (the wrapper's
//! side), `service` and `keeper` (the lock), then this file.

mod cgroup;
mod child;
mod clock;
mod container;
mod deadline;
pub(crate) mod init;
mod keeper;
mod link;
mod namespace;
mod service;
mod signals;
mod tree;
pub(crate) mod watchdog;

pub(crate) use container::ContainerFlags;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum as _};
use ringfence_types::limits::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN};

use self::child::{Contained, Order};
use self::clock::{Alarm, Boottime};
use self::container::Means;
use self::deadline::Plan;
use self::keeper::Keeper;
use self::link::Message;
use self::service::{Held, Service};
use self::signals::{Signals, comes_from_the_terminal};
use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::units::HumanDuration;

/// Longest that giving the lock back may take; it ends by itself then.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(2);
/// Why a lock was lost that could not be kept.
const OUT_OF_TIME: &str = "its lease was not renewed in time";

/// Run a command only while a lock is held.
///
/// The command finds in its environment RINGFENCE_TOKEN (what its writes must carry as a fence), RINGFENCE_SCOPE (of that
/// fence, percent-encoded) and RINGFENCE_ENDPOINTS. Before the lock can be another's by time, the command and all its
/// descendants are ended, whether this process is stopped, killed or cut off. The exit code is the command's; 20 if the lock was
/// lost.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The lock's name.
    name: String,
    /// How long the lock outlives a holder that is cut off; whole seconds.
    #[arg(long, default_value = "10s")]
    ttl: HumanDuration,
    /// Time between SIGTERM and SIGKILL when the lock is about to be lost; a fifth of the TTL, at most 10s, if left out.
    #[arg(long)]
    grace: Option<HumanDuration>,
    /// Longest to wait for the lock; for ever if left out.
    #[arg(long)]
    wait: Option<HumanDuration>,
    /// How to contain the command; the best that can be had here if left out.
    #[arg(long, value_enum)]
    containment: Option<Means>,
    /// The command with its arguments.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A lock that is held, with what holds it.
struct Lock {
    service: Arc<Service>,
    name: String,
    lease: i64,
    held: Held,
    plan: Plan,
    keeper: Keeper,
}

/// How a run ended.
struct End {
    /// The command's exit code, if it ended.
    code: Option<u8>,
    /// Why the lock was lost, if it was.
    lost: Option<String>,
    /// From when on it may have been another's, if it was lost before its time.
    lost_since: Option<Boottime>,
}

impl Run {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let (ttl, grace) = (self.ttl.0, self.grace.map(|grace| grace.0));
        let lawful = LEASE_TTL_SECONDS_MIN..=LEASE_TTL_SECONDS_MAX;
        if ttl.subsec_nanos() != 0 || !lawful.contains(&ttl.as_secs()) {
            let message = format!("--ttl takes whole seconds, from {} to {}", lawful.start(), lawful.end());
            return Err(Failure::new(Exit::Usage, message));
        }
        Plan::new(ttl, grace).map_err(|why| Failure::new(Exit::Usage, why))?;
        let strangers = tree::children_before_the_first();
        tree::become_subreaper()?;
        let mut signals = Signals::new()?;
        let lock = self.lock(shared, grace, &mut signals).await?;
        let ended = lock.run(self.order(shared, &lock.held, strangers), &mut signals).await;
        lock.end(ended).await
    }

    /// Takes the lock, however long it takes, or until a signal says otherwise.
    async fn lock(
        &self,
        shared: &Shared,
        grace: Option<Duration>,
        signals: &mut Signals,
    ) -> Result<Lock, Failure> {
        let service = Arc::new(Service::connect(shared)?);
        let sent = Boottime::now();
        let (lease, ttl) = service.grant(self.ttl.0).await?;
        let plan = Plan::new(ttl, grace).map_err(|why| Failure::new(Exit::Usage, why))?;
        let keeper = Keeper::start(Arc::clone(&service), lease, plan, sent)?;
        let mut changes = keeper.changes();
        let unavailable = |why: &str| Failure::new(Exit::Unavailable, format!("lock {:?}: {why}", self.name));
        let waited = tokio::select! {
            held = service.lock(&self.name, lease) => held,
            lost = changes.lost() => Err(unavailable(&format!("{} while it was waited for", lost.why))),
            () = after(self.wait) => Err(unavailable("it is still another's")),
            number = signals.next() => Err(Failure::passed_on(code_of_signal(number))),
        };
        match waited {
            Ok(held) => {
                keeper.watch_key(held.clone());
                Ok(Lock { service, name: self.name.clone(), lease, held, plan, keeper })
            }
            Err(failure) => {
                drop(keeper);
                service.give_back(None, lease, GIVE_BACK_LIMIT).await;
                Err(failure)
            }
        }
    }

    fn order(self, shared: &Shared, held: &Held, strangers: BTreeSet<i32>) -> Order {
        let environment = vec![
            ("RINGFENCE_TOKEN", held.token.to_string()),
            ("RINGFENCE_SCOPE", format!("lock:{}", percent_encoded(&self.name))),
            ("RINGFENCE_ENDPOINTS", shared.endpoints.join(",")),
        ];
        let means = self.containment.map_or_else(|| Means::value_variants().to_vec(), |means| vec![means]);
        Order { command: self.command, environment, means, strangers }
    }
}

impl Lock {
    /// Runs the command, and returns when its last process has ended.
    async fn run(&self, order: Order, signals: &mut Signals) -> Result<End, Failure> {
        let alarm = Alarm::new()?;
        let mut changes = self.keeper.changes();
        let newest = || self.plan.deadlines(self.keeper.standing().sent);
        let mut contained = Contained::prepare(order, newest).await?;
        let Held { token, .. } = self.held;
        tell(&format!(
            "ringfence: lock {:?} is held with token {token}, {}",
            self.name,
            contained.description()
        ));
        contained.go();
        let mut end = End { code: None, lost: None, lost_since: None };
        loop {
            tokio::select! {
                biased;
                _ = alarm.at(contained.in_force().backup) => {
                    contained.kill();
                    end.lost.get_or_insert_with(|| OUT_OF_TIME.to_owned());
                    return Ok(end);
                }
                message = contained.receive() => match message {
                    Some(Message::Ended(code)) => end.code = Some(code),
                    Some(Message::Overdue) => end.lost = Some(OUT_OF_TIME.to_owned()),
                    Some(Message::Empty) => {
                        contained.wait_for_watchdog();
                        return Ok(end);
                    }
                    Some(_) => {}
                    None => {
                        contained.kill();
                        end.lost.get_or_insert_with(|| "its watchdog was killed".to_owned());
                        return Ok(end);
                    }
                },
                standing = changes.next() => match standing.lost {
                    Some(lost) => {
                        contained.ask_to_kill();
                        end.lost = Some(lost.why.to_owned());
                        end.lost_since = Some(lost.since);
                    }
                    None => contained.postpone(self.plan.deadlines(standing.sent)),
                },
                number = signals.next() => if !comes_from_the_terminal(number) {
                    contained.signal(number);
                },
            }
        }
    }

    /// Gives the lock back, now that nothing runs any more, and says how it went.
    async fn end(self, ended: Result<End, Failure>) -> Result<(), Failure> {
        let Lock { service, name, lease, held, keeper, .. } = self;
        drop(keeper);
        let told = ended.and_then(|end| end.told(&name));
        // Nobody else gives back a lock that was not kept for want of time or of a watchdog; and a lock that is another's by
        // now has another token.
        service.give_back(Some(&held), lease, GIVE_BACK_LIMIT).await;
        told
    }
}

impl End {
    /// What this process ends with. The last process of the command has just been seen to end.
    fn told(self, name: &str) -> Result<(), Failure> {
        let Some(why) = self.lost else {
            return match self.code {
                Some(0) => Ok(()),
                Some(code) => Err(Failure::passed_on(code)),
                None => Err(Failure::new(Exit::General, "somebody killed the command's container")),
            };
        };
        let overlap = self.lost_since.map(|since| {
            let overlap = Boottime::now().0.saturating_sub(since.0).as_millis();
            format!("; another may have held it meanwhile, for {overlap} ms at most")
        });
        let overlap = overlap.unwrap_or_default();
        Err(Failure::new(
            Exit::LockLost,
            format!("lock {name:?} was lost: {why}; the command was ended{overlap}"),
        ))
    }
}

/// Tells people on standard error; standard output is the command's. Whether anybody reads it must not matter.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// This program, to be started again in another role.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    // The file may have been replaced by a newer one meanwhile; the running one can still be had.
    Ok(if path.exists() { path } else { PathBuf::from("/proc/self/exe") })
}

async fn after(limit: Option<HumanDuration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit.0).await,
        None => std::future::pending().await,
    }
}

/// The exit code of a process that a signal ended, as shells have it.
fn code_of_signal(number: i32) -> u8 {
    u8::try_from(init::BY_SIGNAL + number).unwrap_or(u8::MAX)
}

/// A lock's name as fences in metadata carry it.
fn percent_encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_can_stand_in_metadata() {
        assert_eq!(percent_encoded("jobs/nightly-1"), "jobs/nightly-1");
        assert_eq!(percent_encoded("a b;1,%"), "a%20b%3B1%2C%25");
        assert_eq!(percent_encoded("\u{e9}"), "%C3%A9");
    }
}
