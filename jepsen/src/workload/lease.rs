//! Leases, some of which are kept alive until the end, some for a while, some in their last moment, and some not at all; and
//! looks at all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::Function;

use super::{Done, Generator, Operation, Workload};
use crate::client::{Caller, Failure, Request, Right};

/// How long leases last, in seconds.
const TTLS: [u64; 3] = [2, 4, 10];
/// Most leases that are there or watched at a time.
const LIVE_MAX: usize = 40;
/// A lease that is kept in its last moment is renewed so often, each time when it is due or a little later.
const LAST_MOMENTS: u32 = 4;
/// How much later, in milliseconds: by then it has ended, or is about to.
const LATER_MAX: u64 = 150;
/// After so many times of its life nobody looks at a lease any more.
const WATCHED_FOR: u32 = 3;

/// The workload.
#[derive(Default)]
pub struct Lease {
    granted: Arc<Mutex<VecDeque<i64>>>,
}

#[tonic::async_trait]
impl Workload for Lease {
    fn generator(&self, seed: u64) -> Box<dyn Generator> {
        let granted = Arc::clone(&self.granted);
        Box::new(Leases { rng: StdRng::seed_from_u64(seed), granted, live: Vec::new(), made: 0 })
    }

    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        let lease = operation.key().parse().map_err(|_| Failure::definite("no number of a lease"))?;
        let ttl = operation.value.as_i64().unwrap_or(0);
        let right = match operation.f {
            Function::Grant => Right::Grant(lease, ttl),
            Function::Renew => Right::KeepAlive(lease),
            Function::Look => Right::Look(lease),
            other => unreachable!("leases draw no {other:?}"),
        };
        let answer = caller.call(&Request::Right(right)).await?;
        if operation.f == Function::Grant {
            self.granted.lock().unwrap_or_else(PoisonError::into_inner).push_back(lease);
            return Ok(Done::new(ttl, 0));
        }
        Ok(Done::conditional(ttl, answer.held, 0))
    }
}

struct Leases {
    rng: StdRng,
    /// Those whose grants were acknowledged since somebody looked here.
    granted: Arc<Mutex<VecDeque<i64>>>,
    live: Vec<Live>,
    made: i64,
}

/// A lease that is looked at.
struct Live {
    number: i64,
    ttl: u64,
    is_granted: bool,
    /// Renewals that are still to come, and the time between two of them.
    renewals: u32,
    pause: Duration,
    renewed: Instant,
}

impl Live {
    fn on(&self, f: Function) -> Operation {
        Operation::on(self.number.to_string(), f, self.ttl)
    }
}

impl Leases {
    fn grant(&mut self) -> Operation {
        self.made += 1;
        let ttl = TTLS[self.rng.random_range(0..TTLS.len())];
        let life = Duration::from_secs(ttl);
        let later = Duration::from_millis(self.rng.random_range(0..LATER_MAX));
        // Left at once, kept for some of its lives, for ever, or in its last moment.
        let (renewals, pause) = match self.rng.random_range(0..4) {
            0 => (0, life),
            1 => (self.rng.random_range(0..12), life / 4),
            2 => (u32::MAX, life / 4),
            _ => (LAST_MOMENTS, life + later),
        };
        let live =
            Live { number: self.made, ttl, is_granted: false, renewals, pause, renewed: Instant::now() };
        let operation = live.on(Function::Grant);
        self.live.push(live);
        operation
    }

    /// Hears of the grants that were acknowledged, and forgets the leases that ended long ago.
    fn catch_up(&mut self) {
        for number in self.granted.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(live) = self.live.iter_mut().find(|live| live.number == number) {
                (live.is_granted, live.renewed) = (true, Instant::now());
            }
        }
        self.live.retain(|live| {
            let life = Duration::from_secs(live.ttl);
            live.renewed.elapsed() < life * WATCHED_FOR || live.is_granted && live.renewals > 0
        });
    }
}

impl Generator for Leases {
    fn next(&mut self) -> Operation {
        self.catch_up();
        let due =
            |live: &&mut Live| live.is_granted && live.renewals > 0 && live.renewed.elapsed() > live.pause;
        if let Some(live) = self.live.iter_mut().find(due) {
            live.renewals -= 1;
            live.renewed = Instant::now();
            return live.on(Function::Renew);
        }
        if self.live.len() < LIVE_MAX && self.rng.random_range(0..4) == 0 || self.live.is_empty() {
            return self.grant();
        }
        let at = self.rng.random_range(0..self.live.len());
        self.live[at].on(Function::Look)
    }

    fn final_reads(&self) -> Vec<Operation> {
        self.live.iter().filter(|live| live.is_granted).map(|live| live.on(Function::Look)).collect()
    }
}
