//! How many voters must have a write on disk before its caller is answered (DESIGN, section 9). Never fewer than a majority:
//! that is what makes it a write.

use crate::NodeId;

/// What the caller of a write waits for beyond a majority of the voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Nothing more.
    Quorum,
    /// Every voter.
    All,
    /// So many voters.
    Count(u32),
}

impl Ack {
    /// How many of `voters` that is; more than there are where a count asks for that.
    #[must_use]
    pub fn wanted(self, voters: usize) -> usize {
        match self {
            Ack::Quorum => voters / 2 + 1,
            Ack::All => voters,
            // A majority has the write before anybody is asked.
            Ack::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).max(voters / 2 + 1),
        }
    }
}

/// How far a write has come, by the leader's knowledge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acks {
    /// The voters on whose disks the write is, in ascending order.
    pub durable_at: Vec<NodeId>,
    /// How many of them the caller wanted.
    pub wanted: usize,
}

impl Acks {
    /// Whether there are as many as wanted.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.durable_at.len() >= self.wanted
    }
}
