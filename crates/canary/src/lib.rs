//! Canaries: ways in which Ringfence can be made wrong on purpose, so that its tests prove that they would notice.
//!
//! Each is a question that production code asks in one place, `if Canary::LyingSync.sings() { .. }`. Without the feature
//! `armed`, which no product is built with, the answer is a constant `false` and the branch is not compiled. With it, a test
//! arms canaries by name for the process (`arm`), or for its own thread while a guard lives (`arm_here`: a
//! simulation runs whole clusters on one thread, and several simulations run side by side).

/// One thing done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Canary {
    /// A sync of a file returns without having synced anything.
    LyingSync,
    /// A linearizable read is answered from the local copy, without a barrier.
    LocalRead,
    /// A leader trusts its lease to the very end and beyond, with no margin for clocks that differ.
    LeaseWithoutMargin,
    /// A vote is answered before it is on disk, and forgotten by a restart.
    VoteNotDurable,
    /// A transaction's compares all hold, whatever the state says.
    CompareSkipped,
    /// The running hash leaves out the rows of keys, so that nodes may differ unseen.
    HashWithoutTable,
    /// The log takes a torn last batch for corruption: a power cut stops nodes that could have gone on.
    TornIsCorrupt,
    /// The log takes corruption for a torn batch: rot cuts off what was acknowledged.
    CorruptIsTorn,
    /// A node votes and campaigns right after its start, although a leader lease that it granted may still run.
    NoQuarantine,
    /// A leader that restarts goes on as leader with the same vote.
    LeaderRestored,
    /// A late answer on the append stream counts for a later request that was never answered.
    LateAnswerCredited,
    /// A vote is saved without waiting for the entries before it to be durable.
    VoteBeforeFlush,
    /// After a member finished a snapshot that lies below its log's tail, nothing wakes its state machine.
    NoEntryAfterSnapshot,
    /// A lease ends if its leader believed it to be due, whatever was applied meanwhile.
    EndUnjudged,
    /// What names one grant of a lease is taken for any grant of it.
    GrantIgnored,
    /// A leader's lease clock counts seconds that its predecessor has counted already.
    TimeCountedTwice,
    /// A write is applied whatever its fences say.
    FenceSkipped,
    /// A member refuses a fence whose token it has not heard of yet.
    LaggardRefuses,
    /// A call that waited for a lock in vain takes its key out of the queue, whoever relies on it by then.
    WaiterRemovedUnseen,
    /// A watch that has read the history joins the others, although more has happened meanwhile.
    WatchJoinsUnread,
    /// A keep-alive is answered as soon as it is on its way to the log.
    KeepAliveEarly,
}

impl Canary {
    /// All of them.
    pub const ALL: [Canary; 21] = [
        Canary::LyingSync,
        Canary::LocalRead,
        Canary::LeaseWithoutMargin,
        Canary::VoteNotDurable,
        Canary::CompareSkipped,
        Canary::HashWithoutTable,
        Canary::TornIsCorrupt,
        Canary::CorruptIsTorn,
        Canary::NoQuarantine,
        Canary::LeaderRestored,
        Canary::LateAnswerCredited,
        Canary::VoteBeforeFlush,
        Canary::NoEntryAfterSnapshot,
        Canary::EndUnjudged,
        Canary::GrantIgnored,
        Canary::TimeCountedTwice,
        Canary::FenceSkipped,
        Canary::LaggardRefuses,
        Canary::WaiterRemovedUnseen,
        Canary::WatchJoinsUnread,
        Canary::KeepAliveEarly,
    ];

    /// The name on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Canary::LyingSync => "lying-sync",
            Canary::LocalRead => "local-read",
            Canary::LeaseWithoutMargin => "lease-without-margin",
            Canary::VoteNotDurable => "vote-not-durable",
            Canary::CompareSkipped => "compare-skipped",
            Canary::HashWithoutTable => "hash-without-table",
            Canary::TornIsCorrupt => "torn-is-corrupt",
            Canary::CorruptIsTorn => "corrupt-is-torn",
            Canary::NoQuarantine => "no-quarantine",
            Canary::LeaderRestored => "leader-restored",
            Canary::LateAnswerCredited => "late-answer-credited",
            Canary::VoteBeforeFlush => "vote-before-flush",
            Canary::NoEntryAfterSnapshot => "no-entry-after-snapshot",
            Canary::EndUnjudged => "end-unjudged",
            Canary::GrantIgnored => "grant-ignored",
            Canary::TimeCountedTwice => "time-counted-twice",
            Canary::FenceSkipped => "fence-skipped",
            Canary::LaggardRefuses => "laggard-refuses",
            Canary::WaiterRemovedUnseen => "waiter-removed-unseen",
            Canary::WatchJoinsUnread => "watch-joins-unread",
            Canary::KeepAliveEarly => "keep-alive-early",
        }
    }

    /// The canary of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Canary> {
        Canary::ALL.into_iter().find(|canary| canary.name() == name)
    }

    /// The canaries of these names, which commas separate.
    ///
    /// # Errors
    /// The name that none has.
    pub fn from_names(names: &str) -> Result<Vec<Canary>, &str> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| Canary::from_name(name).ok_or(name)).collect()
    }

    /// Whether this is to be done wrong now: never, in a product.
    #[cfg(not(feature = "armed"))]
    #[inline(always)]
    #[must_use]
    pub const fn sings(self) -> bool {
        false
    }

    /// Whether this is to be done wrong now.
    #[cfg(feature = "armed")]
    #[must_use]
    pub fn sings(self) -> bool {
        armed::sings(self)
    }

    #[cfg(feature = "armed")]
    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

#[cfg(feature = "armed")]
pub use armed::{Armed, arm, arm_here};

#[cfg(feature = "armed")]
mod armed {
    use std::cell::Cell;
    use std::marker::PhantomData;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Canary;

    static PROCESS: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        static THREAD: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn sings(canary: Canary) -> bool {
        (PROCESS.load(Ordering::Relaxed) | THREAD.get()) & canary.bit() != 0
    }

    /// Arms a canary for the whole process, for as long as it lives.
    pub fn arm(canary: Canary) {
        PROCESS.fetch_or(canary.bit(), Ordering::Relaxed);
    }

    /// A canary that sings on this thread until this is dropped.
    #[derive(Debug)]
    pub struct Armed {
        before: u64,
        // What it undoes belongs to the thread that made it.
        on_this_thread: PhantomData<*const ()>,
    }

    /// Arms a canary for the calling thread.
    #[must_use]
    pub fn arm_here(canary: Canary) -> Armed {
        let before = THREAD.get();
        THREAD.set(before | canary.bit());
        Armed { before, on_this_thread: PhantomData }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            THREAD.set(self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Canary;

    #[test]
    fn every_name_leads_back_to_its_canary() {
        for canary in Canary::ALL {
            assert_eq!(Canary::from_name(canary.name()), Some(canary));
        }
    }

    #[test]
    fn names_are_separated_by_commas() {
        let both = Ok(vec![Canary::LyingSync, Canary::LocalRead]);
        assert_eq!(Canary::from_names(" lying-sync,local-read, "), both);
        assert_eq!(Canary::from_names(""), Ok(vec![]), "no name is no canary");
        assert_eq!(Canary::from_names("lying-sync,lying"), Err("lying"));
    }

    #[cfg(feature = "armed")]
    #[test]
    fn a_canary_sings_only_while_its_guard_lives() {
        assert!(!Canary::LocalRead.sings());
        {
            let _armed = super::arm_here(Canary::LocalRead);
            assert!(Canary::LocalRead.sings());
            assert!(!Canary::LyingSync.sings());
        }
        assert!(!Canary::LocalRead.sings());
    }

    #[cfg(not(feature = "armed"))]
    #[test]
    fn a_product_has_no_canaries() {
        assert!(Canary::ALL.into_iter().all(|canary| !canary.sings()));
    }
}
