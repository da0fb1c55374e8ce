//! The storage gate: what must be true before a byte of consensus is written, checked in production (DESIGN, section 6).
//!
//! Each rule, broken, would let two histories live in one cluster. A broken rule is therefore a bug, never an operating
//! error: the caller stops the node. The gate remembers positions alone and does no I/O.

use std::io;

use parking_lot::Mutex;
use ringfence_types::Index;

use super::types::{RaftEntry, RaftLogId, RaftVote};

/// The positions that the rules compare.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Positions {
    pub(crate) vote: Option<RaftVote>,
    pub(crate) last: Option<RaftLogId>,
    pub(crate) committed: Option<RaftLogId>,
    pub(crate) applied: Option<RaftLogId>,
    checkpointed: Option<Index>,
    /// What a snapshot in transfer still needs: entries after this one.
    transfer: Option<Index>,
}

/// The gate of one node. Log and state machine ask it before they act.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    positions: Mutex<Positions>,
    /// For openraft's storage suite, which breaks every rule.
    #[cfg(test)]
    is_open: bool,
}

/// A rule of the protocol does not hold.
fn violated(rule: &str, facts: String) -> io::Error {
    io::Error::other(format!("protocol rule violated: {rule} ({facts})"))
}

impl Gate {
    /// Takes over what the disk holds. Before that the gate knows nothing and lets nothing of consequence through.
    pub(crate) fn open(
        &self,
        vote: Option<RaftVote>,
        last: Option<RaftLogId>,
        committed: Option<RaftLogId>,
        applied: Option<RaftLogId>,
        checkpointed: Option<Index>,
    ) {
        let committed = committed.max(applied);
        *self.positions.lock() = Positions { vote, last, committed, applied, checkpointed, transfer: None };
    }

    /// Where the node stands now.
    #[cfg(feature = "simulation")]
    pub(crate) fn positions(&self) -> Positions {
        *self.positions.lock()
    }

    /// The last entry handed to the state machine.
    pub(crate) fn applied(&self) -> Option<RaftLogId> {
        self.positions.lock().applied
    }

    /// A gate that lets everything through.
    #[cfg(test)]
    pub(crate) fn without_rules() -> Gate {
        Gate { is_open: true, ..Gate::default() }
    }

    /// A vote may be saved.
    pub(crate) fn save_vote(&self, vote: &RaftVote) -> io::Result<()> {
        #[cfg(test)]
        if self.is_open {
            return Ok(());
        }
        let mut positions = self.positions.lock();
        let falls = |saved: &RaftVote| vote.partial_cmp(saved).is_none_or(std::cmp::Ordering::is_lt);
        if let Some(saved) = positions.vote.filter(falls) {
            return Err(violated("a saved vote never falls", format!("saved {saved}, now {vote}")));
        }
        positions.vote = Some(*vote);
        Ok(())
    }

    /// Entries may be appended.
    pub(crate) fn append(&self, entries: &[RaftEntry]) -> io::Result<()> {
        #[cfg(test)]
        if self.is_open {
            return Ok(());
        }
        let mut positions = self.positions.lock();
        for entry in entries {
            let log_id = entry.log_id;
            if let Some(last) = positions.last {
                if log_id.index() != last.index() + 1 {
                    return Err(violated("entries follow without a gap", format!("{log_id} after {last}")));
                }
                if log_id.committed_leader_id() < last.committed_leader_id() {
                    return Err(violated("leader ids never fall", format!("{log_id} after {last}")));
                }
            }
            if let Some(vote) = positions.vote
                && *log_id.committed_leader_id() > vote.leader_id
            {
                return Err(violated("no entry is newer than the vote", format!("{log_id} under {vote}")));
            }
            positions.last = Some(log_id);
        }
        Ok(())
    }

    /// The log may be cut off after `last`.
    pub(crate) fn truncate_after(&self, last: Option<RaftLogId>) -> io::Result<()> {
        #[cfg(test)]
        if self.is_open {
            return Ok(());
        }
        let mut positions = self.positions.lock();
        for (what, kept) in [("committed", positions.committed), ("applied", positions.applied)] {
            if kept.is_some_and(|kept| last.is_none_or(|last| last.index() < kept.index())) {
                let facts = format!("{what} {kept:?}, cut after {last:?}");
                return Err(violated("what is committed or applied is never cut off", facts));
            }
        }
        positions.last = last;
        Ok(())
    }

    /// That this position is committed.
    pub(crate) fn note_committed(&self, committed: Option<RaftLogId>) {
        let mut positions = self.positions.lock();
        positions.committed = positions.committed.max(committed);
    }

    /// An entry may be applied: the next one after the last.
    pub(crate) fn apply(&self, log_id: &RaftLogId) -> io::Result<()> {
        #[cfg(test)]
        if self.is_open {
            return Ok(());
        }
        let mut positions = self.positions.lock();
        let expected = positions.applied.map_or(0, |applied| applied.index() + 1);
        if log_id.index() != expected {
            let facts = format!("expected index {expected}, got {log_id}");
            return Err(violated("apply takes exactly the next entry", facts));
        }
        positions.applied = Some(*log_id);
        Ok(())
    }

    /// A snapshot may replace the state.
    pub(crate) fn install(&self, log_id: Option<RaftLogId>) -> io::Result<()> {
        #[cfg(test)]
        if self.is_open {
            return Ok(());
        }
        let mut positions = self.positions.lock();
        if log_id < positions.applied {
            let facts = format!("applied {:?}, snapshot {log_id:?}", positions.applied);
            return Err(violated("a snapshot never takes the state back", facts));
        }
        positions.applied = log_id;
        positions.committed = positions.committed.max(log_id);
        positions.checkpointed = log_id.map(|log_id| Index(log_id.index()));
        // Whoever is sent a snapshot leads no more: what it had on the shelf for others is nobody's.
        positions.transfer = None;
        Ok(())
    }

    /// That the state file holds everything up to here.
    pub(crate) fn note_checkpoint(&self, index: Index) {
        let mut positions = self.positions.lock();
        positions.checkpointed = positions.checkpointed.max(Some(index));
    }

    /// What a snapshot in transfer needs from now on; `None` when there is none.
    pub(crate) fn note_transfer(&self, after: Option<Index>) {
        self.positions.lock().transfer = after;
    }

    /// The log may be purged up to `log_id`.
    pub(crate) fn purge(&self, log_id: &RaftLogId) -> io::Result<()> {
        #[cfg(test)]
        if self.is_open {
            return Ok(());
        }
        let mut positions = self.positions.lock();
        for (what, bound) in
            [("checkpoint", positions.checkpointed), ("snapshot in transfer", positions.transfer)]
        {
            let optional = what != "checkpoint";
            if !(optional && bound.is_none()) && bound.is_none_or(|bound| log_id.index() > bound.0) {
                let facts = format!("{what} at {bound:?}, purge up to {log_id}");
                return Err(violated("purge never passes the checkpoint or a transfer", facts));
            }
        }
        if positions.last.is_none_or(|last| last.index() < log_id.index()) {
            positions.last = Some(*log_id);
        }
        Ok(())
    }

    /// The largest index that the log may be purged up to.
    pub(crate) fn purge_bound(&self) -> Option<Index> {
        let positions = self.positions.lock();
        let checkpointed = positions.checkpointed?;
        Some(positions.transfer.map_or(checkpointed, |transfer| transfer.min(checkpointed)))
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::raft::types::LeaderId;

    fn log_id(term: u64, index: u64) -> RaftLogId {
        RaftLogId::new(LeaderId { term, node_id: 1 }, index)
    }

    fn vote(term: u64) -> RaftVote {
        RaftVote { leader_id: LeaderId { term, node_id: 1 }, committed: true }
    }

    fn entry(term: u64, index: u64) -> RaftEntry {
        openraft::Entry { log_id: log_id(term, index), payload: EntryPayload::Blank }
    }

    fn gate() -> Gate {
        let gate = Gate::default();
        gate.open(Some(vote(3)), Some(log_id(2, 9)), None, Some(log_id(2, 7)), Some(Index(5)));
        gate
    }

    #[test]
    fn a_vote_never_falls() {
        assert!(gate().save_vote(&vote(2)).is_err());
        assert!(gate().save_vote(&vote(3)).is_ok());
        assert!(gate().save_vote(&vote(4)).is_ok());
    }

    #[test]
    fn entries_have_no_gap_and_no_older_leader_and_obey_the_vote() {
        assert!(gate().append(&[entry(3, 11)]).is_err());
        assert!(gate().append(&[entry(1, 10)]).is_err());
        assert!(gate().append(&[entry(4, 10)]).is_err());
        assert!(gate().append(&[entry(2, 10), entry(3, 11)]).is_ok());
        assert!(gate().append(&[entry(3, 10), entry(2, 11)]).is_err());
    }

    #[test]
    fn what_is_committed_or_applied_stays() {
        assert!(gate().truncate_after(Some(log_id(2, 6))).is_err());
        assert!(gate().truncate_after(None).is_err());
        assert!(gate().truncate_after(Some(log_id(2, 7))).is_ok());
        let gate = gate();
        gate.note_committed(Some(log_id(2, 8)));
        assert!(gate.truncate_after(Some(log_id(2, 7))).is_err());
    }

    #[test]
    fn apply_takes_exactly_the_next_entry() {
        assert!(gate().apply(&log_id(2, 9)).is_err());
        assert!(gate().apply(&log_id(2, 7)).is_err());
        assert!(gate().apply(&log_id(2, 8)).is_ok());
    }

    #[test]
    fn a_snapshot_never_takes_the_state_back() {
        assert!(gate().install(Some(log_id(2, 6))).is_err());
        assert!(gate().install(None).is_err());
        assert!(gate().install(Some(log_id(2, 20))).is_ok());
    }

    #[test]
    fn a_former_leader_may_purge_what_an_installed_snapshot_covers() {
        let gate = gate();
        gate.note_transfer(Some(Index(3)));
        assert!(gate.install(Some(log_id(2, 20))).is_ok());
        assert!(gate.purge(&log_id(2, 20)).is_ok());
    }

    #[test]
    fn purge_passes_neither_checkpoint_nor_transfer() {
        assert!(gate().purge(&log_id(2, 6)).is_err());
        assert!(gate().purge(&log_id(2, 5)).is_ok());
        let gate = gate();
        gate.note_transfer(Some(Index(3)));
        assert_eq!(gate.purge_bound(), Some(Index(3)));
        assert!(gate.purge(&log_id(2, 4)).is_err());
        gate.note_transfer(None);
        assert!(gate.purge(&log_id(2, 5)).is_ok());
        assert!(Gate::default().purge(&log_id(1, 0)).is_err());
    }
}
