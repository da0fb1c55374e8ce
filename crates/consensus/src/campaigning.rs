//! Whether this node may campaign, where several tasks come to know of reasons for and against it.

use parking_lot::Mutex;

/// Judges and carries out as one step. Two tasks that judged side by side could carry out in the other order, and what held
/// before would stand until somebody looked again: a node that may lead, and does not campaign.
#[derive(Debug, Default)]
pub(crate) struct Campaigning(Mutex<()>);

impl Campaigning {
    /// Has `carry_out` do what `judge` says of now. Whoever changes what `judge` looks at calls this afterwards.
    pub(crate) fn settle(&self, judge: impl FnOnce() -> bool, carry_out: impl FnOnce(bool)) {
        let _one_at_a_time = self.0.lock();
        carry_out(judge());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::rt;

    #[test]
    fn who_judged_before_a_change_does_not_undo_what_came_of_it() {
        let campaigning = Campaigning::default();
        let (may, campaigns) = (AtomicBool::new(false), AtomicBool::new(false));
        let settle = |judge: &dyn Fn() -> bool| {
            campaigning.settle(judge, |verdict| campaigns.store(verdict, Ordering::SeqCst));
        };
        let (has_judged, other_judged) = (Barrier::new(2), AtomicBool::new(false));
        thread::scope(|threads| {
            threads.spawn(|| {
                settle(&|| {
                    let verdict = may.load(Ordering::SeqCst);
                    has_judged.wait();
                    // Long enough for the other one to judge and to carry out, if it could.
                    let deadline = rt::now() + Duration::from_millis(200);
                    while !other_judged.load(Ordering::SeqCst) && rt::now() < deadline {
                        thread::yield_now();
                    }
                    verdict
                });
            });
            has_judged.wait();
            may.store(true, Ordering::SeqCst);
            settle(&|| may.load(Ordering::SeqCst));
            other_judged.store(true, Ordering::SeqCst);
        });
        assert!(campaigns.load(Ordering::SeqCst), "nothing speaks against it any more");
    }
}
