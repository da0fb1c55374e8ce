//! What follows from a failed attempt: the loop that every call runs in.
//!
//! A call goes to the node that led last. When that fails in a way that permits another attempt, all other nodes are
//! tried at once, one after the other; only when all have failed does it wait, longer each time. A write is sent again only
//! while every attempt before proved that it was not applied, unless doing it twice is the same as doing it once, or the store sees to
//! it that it is done once.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::transport::Channel;

use crate::backoff::Backoff;
use crate::nodes::Target;
use crate::routing::{ReadFrom, Survey};
use crate::verdict::{Applied, Next, Verdict};
use crate::{Client, Error};

/// What a call does to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: it may be tried as often as one likes.
    Read,
    /// It may change something.
    Write,
    /// It may change something, and doing it twice comes to the same as doing it once. It may wait for others, so each
    /// attempt is given all the time there is: giving one up early would lose its place.
    Repeatable,
    /// It may change something, and the store does it once, however often it is sent: a write of a session.
    Once,
}

/// The reason of a member that has not reached the revision that a read wants.
const FUTURE_REVISION: &str = "future_revision";

/// Where a call goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Way {
    /// Which nodes are asked.
    pub(crate) from: ReadFrom,
    /// Whether the call wants a revision that some node has: one that has not reached it is no reason to give up.
    pub(crate) wants_known_revision: bool,
}

/// The shortest time that an attempt is given before another node is asked.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);
/// The time that a read is given at a node that is preferred to others, while there are others.
const PREFERRED_ATTEMPT: Duration = Duration::from_millis(500);

/// One call under way.
struct Call<'a> {
    client: &'a Client,
    kind: Kind,
    way: Way,
    started: Instant,
    deadline: Instant,
    attempts: u32,
    /// Nodes tried since the last wait.
    tried: Vec<usize>,
    /// Nodes still to be tried before the next wait, the next one last, where the call goes by preference.
    order: Option<Vec<usize>>,
    backoff: Backoff,
    /// What the newest failed attempt said.
    last_message: String,
    /// Whether an attempt of a call that may be repeated may have been applied.
    perhaps_applied: bool,
}

impl Client {
    /// Runs `attempt` on one node after the other until one answers, or until the answer is known to be the same
    /// everywhere, or the time is over.
    pub(crate) async fn call<T, A, F>(&self, kind: Kind, attempt: A) -> Result<T, Error>
    where
        A: Fn(Channel) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        self.call_by(Way::default(), kind, attempt).await
    }

    /// As [`Client::call`], by another way.
    pub(crate) async fn call_by<T, A, F>(&self, way: Way, kind: Kind, attempt: A) -> Result<T, Error>
    where
        A: Fn(Channel) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        let options = self.nodes.options();
        let started = Instant::now();
        let mut call = Call {
            client: self,
            kind,
            way,
            started,
            deadline: started + self.timeout,
            attempts: 0,
            tried: Vec::new(),
            order: None,
            backoff: Backoff::new(options.backoff_min, options.backoff_max),
            last_message: "no attempt was made".to_owned(),
            perhaps_applied: false,
        };
        loop {
            let Some(target) = call.pick().await else {
                call.wait(Duration::ZERO).await?;
                continue;
            };
            call.attempts += 1;
            match timeout_at(call.attempt_deadline(), attempt(target.channel.clone())).await {
                Ok(Ok(answer)) => {
                    if call.way.from == ReadFrom::LastAnswered {
                        self.nodes.prefer(target.index);
                    }
                    return Ok(answer);
                }
                Ok(Err(status)) => call.judge(&target, Verdict::of(&status)).await?,
                Err(_elapsed) => call.attempt_timed_out(&target)?,
            }
        }
    }
}

impl Call<'_> {
    /// The node to try next; none once all were tried that may be.
    async fn pick(&mut self) -> Option<Target> {
        let nodes = &self.client.nodes;
        if self.way.from == ReadFrom::LastAnswered {
            let target = nodes.pick(&self.tried)?;
            self.tried.push(target.index);
            return Some(target);
        }
        if self.order.is_none() {
            let order = Survey::order(&self.client.survey, nodes, self.way.from);
            // Nobody to be asked by then is nobody that answers.
            let order = timeout_at(self.deadline, order).await.unwrap_or_default();
            self.order = Some(order.into_iter().rev().collect());
        }
        let index = self.order.as_mut().and_then(Vec::pop)?;
        Some(nodes.target(index))
    }

    /// Makes the next call begin elsewhere than at a node that could not answer.
    fn avoid(&self, target: &Target) {
        match self.way.from {
            ReadFrom::LastAnswered => self.client.nodes.avoid(target.index),
            _ => self.client.survey.lose(target.index),
        }
    }

    /// When the attempt that begins now must end. A write is given all the time there is, since giving it up early would
    /// make its outcome unknown; what may be sent again and hangs on one node gets a chance on another.
    fn attempt_deadline(&self) -> Instant {
        match self.kind {
            Kind::Write | Kind::Repeatable => self.deadline,
            Kind::Read | Kind::Once => {
                let now = Instant::now();
                if self.order.as_ref().is_some_and(|order| !order.is_empty()) {
                    return (now + PREFERRED_ATTEMPT).min(self.deadline);
                }
                let half = self.deadline.saturating_duration_since(now) / 2;
                (now + half.max(ATTEMPT_MIN)).min(self.deadline)
            }
        }
    }

    /// Decides about a failed attempt: returns if there may be another one.
    async fn judge(&mut self, target: &Target, mut verdict: Verdict) -> Result<(), Error> {
        if self.way.wants_known_revision && verdict.reason == FUTURE_REVISION {
            verdict.next = Next::OtherNode;
        }
        let message = format!("{}: {}", target.authority, verdict.message);
        // Whatever becomes of this call: the next one goes where the answer pointed, or past a node that could not answer.
        if verdict.next == Next::OtherNode {
            self.avoid(target);
            self.client.nodes.follow_hint(&verdict.leader);
        }
        match (self.kind, verdict.applied) {
            (Kind::Write, Applied::Unknown) => return Err(Error::Indefinite { message }),
            (Kind::Repeatable | Kind::Once, Applied::Unknown) => self.perhaps_applied = true,
            (Kind::Read, _) | (_, Applied::No) => {}
        }
        self.last_message = message;
        match verdict.next {
            Next::GiveUp if self.perhaps_applied => {
                Err(Error::Indefinite { message: self.last_message.clone() })
            }
            Next::GiveUp => {
                let Verdict { code, reason, message, .. } = verdict;
                Err(Error::Refused { code, reason, message })
            }
            Next::Later => self.wait(verdict.retry_after).await,
            Next::OtherNode => {
                if Instant::now() < self.deadline {
                    Ok(())
                } else {
                    Err(self.unavailable())
                }
            }
        }
    }

    fn attempt_timed_out(&mut self, target: &Target) -> Result<(), Error> {
        self.avoid(target);
        let message = format!("{}: no answer within {:?}", target.authority, self.started.elapsed());
        match self.kind {
            Kind::Write | Kind::Repeatable => return Err(Error::Indefinite { message }),
            Kind::Once => self.perhaps_applied = true,
            Kind::Read => {}
        }
        self.last_message = message;
        if Instant::now() < self.deadline { Ok(()) } else { Err(self.unavailable()) }
    }

    /// Waits, for at least `least`, before the next round, in which every node may be tried again.
    async fn wait(&mut self, least: Duration) -> Result<(), Error> {
        let until = Instant::now() + least + self.backoff.draw();
        if until >= self.deadline {
            return Err(self.unavailable());
        }
        tokio::time::sleep_until(until).await;
        self.tried.clear();
        self.order = None;
        Ok(())
    }

    fn unavailable(&self) -> Error {
        if self.perhaps_applied {
            return Error::Indefinite { message: self.last_message.clone() };
        }
        Error::Unavailable {
            message: self.last_message.clone(),
            attempts: self.attempts,
            elapsed: self.started.elapsed(),
        }
    }
}
