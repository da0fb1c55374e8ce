//! When what must happen: pure arithmetic on moments of `CLOCK_BOOTTIME`.
//!
//! A lease of TTL seconds that was renewed by a keep-alive cannot end before TTL has passed since that keep-alive was *sent*,
//! by the cluster's clock. Ours may run slower by 2 %, so everything must be over at `sent + 0.98 × TTL`. Before that
//! moment stand, from the last to the first:
//!
//! ```text
//! sent ........ term ............ kill ....... backup ..... kernel ..... end
//!      running       SIGTERM          SIGKILL      the             the        another may
//!                    and grace        by the       wrapper's       kernel     hold the lock
//!                                     watchdog     own SIGKILL     ends the
//!                                                                  watchdog
//! ```

use std::time::Duration;

use super::clock::Boottime;

/// What part of its TTL a lease surely lasts by our clock, in hundredths: clocks may differ in rate by 2 %.
const CERTAIN_HUNDREDTHS: u32 = 98;
/// Keep-alives in a TTL.
const KEEP_ALIVES_PER_TTL: u32 = 3;
/// The part of the TTL in which SIGKILL must have done its work, with its limits.
const MARGIN_PART: u32 = 10;
const MARGIN_MIN: Duration = Duration::from_millis(200);
const MARGIN_MAX: Duration = Duration::from_secs(2);
/// The part of the TTL that is given between SIGTERM and SIGKILL unless the user says otherwise, with its limit.
const GRACE_PART: u32 = 5;
const GRACE_MAX: Duration = Duration::from_secs(10);

/// What follows from the lease's TTL and the grace, before anything has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    ttl: Duration,
    grace: Duration,
}

/// What must have happened by when, after one acknowledged keep-alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// The watchdog asks the command to end.
    pub(super) term: Boottime,
    /// The watchdog kills everything.
    pub(super) kill: Boottime,
    /// The wrapper kills everything, if the watchdog has not.
    pub(super) backup: Boottime,
    /// The kernel ends a watchdog that still lives, since it must be one that is stopped.
    pub(super) kernel: Boottime,
    /// Another may hold the lock from now on.
    pub(super) end: Boottime,
}

impl Plan {
    /// A plan for a lease of `ttl`, with `grace` between SIGTERM and SIGKILL, or a part of the TTL.
    ///
    /// # Errors
    /// Where so much grace leaves less time than two keep-alives take: one lost keep-alive would end the command.
    pub(super) fn new(ttl: Duration, grace: Option<Duration>) -> Result<Plan, String> {
        let plan = Plan { ttl, grace: grace.unwrap_or((ttl / GRACE_PART).min(GRACE_MAX)) };
        let running = (plan.certain() - plan.margin()).checked_sub(plan.grace);
        if running.is_none_or(|running| running < 2 * plan.keep_alive_interval()) {
            let grace = plan.grace;
            return Err(format!(
                "a lease of {ttl:?} leaves no time for {grace:?} between SIGTERM and SIGKILL"
            ));
        }
        Ok(plan)
    }

    /// How long the lease lasts after a renewal.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long after one keep-alive the next is sent.
    pub(super) fn keep_alive_interval(&self) -> Duration {
        self.ttl / KEEP_ALIVES_PER_TTL
    }

    /// The deadlines once a keep-alive that was sent at `sent` has been acknowledged.
    pub(super) fn deadlines(&self, sent: Boottime) -> Deadlines {
        let margin = self.margin();
        let end = sent.plus(self.certain());
        let kill = end.minus(margin);
        Deadlines {
            term: kill.minus(self.grace),
            kill,
            backup: end.minus(margin * 2 / 3),
            kernel: end.minus(margin / 3),
            end,
        }
    }

    fn certain(&self) -> Duration {
        self.ttl * CERTAIN_HUNDREDTHS / 100
    }

    fn margin(&self) -> Duration {
        (self.ttl / MARGIN_PART).clamp(MARGIN_MIN, MARGIN_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Boottime {
        Boottime(Duration::from_millis(milliseconds))
    }

    fn plan(ttl: u64, grace: Option<u64>) -> Plan {
        Plan::new(Duration::from_secs(ttl), grace.map(Duration::from_millis)).expect("there is time")
    }

    #[test]
    fn a_lease_of_ten_seconds() {
        let deadlines = plan(10, None).deadlines(at(100_000));
        assert_eq!(deadlines.term, at(106_800));
        assert_eq!(deadlines.kill, at(108_800));
        assert_eq!(deadlines.end, at(109_800));
        assert!(deadlines.kill < deadlines.backup && deadlines.backup < deadlines.kernel);
        assert!(deadlines.kernel < deadlines.end);
    }

    #[test]
    fn everything_is_in_order_and_over_within_098_of_any_ttl() {
        for ttl in [2, 3, 5, 10, 60, 3_600, 86_400] {
            let plan = plan(ttl, None);
            let sent = at(1_000_000);
            let Deadlines { term, kill, backup, kernel, end } = plan.deadlines(sent);
            assert!(
                sent < term && term < kill && kill < backup && backup < kernel && kernel < end,
                "{ttl} s"
            );
            assert_eq!(end, sent.plus(Duration::from_secs(ttl) * 98 / 100), "{ttl} s");
            assert!(kernel.plus(Duration::from_millis(60)) < end, "{ttl} s: reaping takes time");
            // One keep-alive may be lost.
            assert!(sent.plus(2 * plan.keep_alive_interval()) <= term, "{ttl} s");
        }
    }

    #[test]
    fn a_grace_that_leaves_no_time_is_refused() {
        assert!(Plan::new(Duration::from_secs(10), Some(Duration::from_secs(2))).is_ok());
        assert!(Plan::new(Duration::from_secs(10), Some(Duration::from_secs(3))).is_err());
        assert!(Plan::new(Duration::from_secs(10), Some(Duration::from_secs(30))).is_err());
        assert!(Plan::new(Duration::from_secs(2), Some(Duration::ZERO)).is_ok());
    }

    #[test]
    fn without_grace_sigterm_and_sigkill_come_together() {
        let deadlines = plan(2, Some(0)).deadlines(at(10_000));
        assert_eq!(deadlines.term, deadlines.kill);
        assert_eq!(deadlines.kill, at(11_760));
    }
}
