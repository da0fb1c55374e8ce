//! Keeps the lease alive, and tells what that gives: until when the lock is ours, or that it is not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::clock::{Alarm, Boottime};
use super::deadline::Plan;
use super::service::{Held, Service};

/// A part of the interval between keep-alives: the wait before another attempt, with its limits.
const PAUSE_PART: u32 = 10;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How the lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// When the newest acknowledged keep-alive was sent.
    pub(super) sent: Boottime,
    /// That the lock is lost for certain, if it is.
    pub(super) lost: Option<Lost>,
}

/// A lock that is lost for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// Why.
    pub(super) why: &'static str,
    /// The newest moment at which it was surely ours: it may have been another's from then on.
    pub(super) since: Boottime,
}

/// A lease that is kept alive until this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    standing: watch::Receiver<Standing>,
    held: watch::Sender<Option<Held>>,
    task: JoinHandle<()>,
}

/// The changes of a lease's standing.
#[derive(Debug)]
pub(super) struct Changes {
    standing: watch::Receiver<Standing>,
}

impl Keeper {
    /// Keeps a lease alive whose grant was asked for at `sent`.
    pub(super) fn start(
        service: Arc<Service>,
        lease: i64,
        plan: Plan,
        sent: Boottime,
    ) -> std::io::Result<Keeper> {
        let (standing_to, standing) = watch::channel(Standing { sent, lost: None });
        let (held, held_seen) = watch::channel(None);
        let keeping =
            Keeping { service, lease, plan, standing: standing_to, held: held_seen, alarm: Alarm::new()? };
        Ok(Keeper { standing, held, task: tokio::spawn(keeping.run()) })
    }

    /// From now on, it is looked whether the lock's key is still there.
    pub(super) fn watch_key(&self, held: Held) {
        self.held.send_replace(Some(held));
    }

    /// How the lease stands now.
    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// A look at the standing that waits for changes; how it stands now is the first of them.
    pub(super) fn changes(&self) -> Changes {
        let mut standing = self.standing.clone();
        standing.mark_changed();
        Changes { standing }
    }
}

impl Changes {
    /// The standing after its next change. May be given up at any time.
    pub(super) async fn next(&mut self) -> Standing {
        if self.standing.changed().await.is_err() {
            // The task has ended since the lock is lost, which it has told.
            std::future::pending::<()>().await;
        }
        self.standing.borrow_and_update().clone()
    }

    /// That the lock is lost, once it is.
    pub(super) async fn lost(&mut self) -> Lost {
        loop {
            if let Some(lost) = self.next().await.lost {
                return lost;
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task's own state.
struct Keeping {
    service: Arc<Service>,
    lease: i64,
    plan: Plan,
    standing: watch::Sender<Standing>,
    held: watch::Receiver<Option<Held>>,
    alarm: Alarm,
}

impl Keeping {
    async fn run(self) {
        let interval = self.plan.keep_alive_interval();
        let mut ours_at = self.standing.borrow().sent;
        let mut next = ours_at.plus(interval);
        loop {
            if self.alarm.at(next).await.is_err() {
                // Without the clock nothing is renewed, and the command ends at its deadline.
                return;
            }
            let sent = Boottime::now();
            match self.service.keep_alive(self.lease, interval / 2).await {
                Ok(seconds) if seconds <= 0 => return self.lost("its lease has ended", ours_at),
                Ok(seconds) if seconds.unsigned_abs() >= self.plan.ttl().as_secs() => {
                    self.standing.send_modify(|standing| standing.sent = sent);
                    next = sent.plus(interval);
                    if self.key_is_gone(interval / 2).await {
                        return self.lost("its key was deleted by somebody else", ours_at);
                    }
                    ours_at = sent;
                }
                // No answer, or one that renews for less than all deadlines build on.
                Ok(_) | Err(_) => {
                    next = Boottime::now().plus((interval / PAUSE_PART).clamp(PAUSE_MIN, PAUSE_MAX));
                }
            }
        }
    }

    async fn key_is_gone(&self, limit: Duration) -> bool {
        let held = self.held.borrow().clone();
        match held {
            Some(held) => self.service.is_lost(&held, limit).await.unwrap_or(false),
            None => false,
        }
    }

    fn lost(&self, why: &'static str, since: Boottime) {
        self.standing.send_modify(|standing| standing.lost = Some(Lost { why, since }));
    }
}
