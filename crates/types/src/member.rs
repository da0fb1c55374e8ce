//! Members: who belongs to the cluster, and who shall.

use crate::position::NodeId;

/// What the cluster keeps of a member: what its operators want of it, and what clients are told.
///
/// This is the wish; who votes at the moment stands in Raft's own membership, and a task of the leader brings the two
/// together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member's number, never used again.
    pub id: NodeId,
    /// The name its operator gave it; empty until it has started for the first time.
    pub name: String,
    /// Where peers reach it, as URLs.
    pub peer_urls: Vec<String>,
    /// Where clients reach it, as URLs; empty until it has started for the first time.
    pub client_urls: Vec<String>,
    /// The number of the disk that it joined with; 0 for one that has not started yet, and for founders, whose disks
    /// stand in Raft's membership alone.
    pub disk_id: u64,
    /// What it shall be.
    pub wanted: Wanted,
    /// The member that leaves in the same step in which this one becomes a voter.
    pub replaces: Option<NodeId>,
}

/// What a member shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It votes, as soon as it is close enough to the leader.
    Voter,
    /// It gets everything and votes on nothing.
    Learner,
    /// It leaves. The record stays, so that the member can be told if it ever comes back.
    Removed,
}

/// A change of what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// A member that will start later and is known by the addresses at which its peers will reach it. It counts for
    /// nothing until then.
    Add {
        /// Where peers will reach it, as URLs.
        peer_urls: Vec<String>,
        /// What it shall be.
        wanted: Wanted,
        /// The member that it shall replace.
        replaces: Option<NodeId>,
    },
    /// A node has started on a fresh disk and asks to belong to the cluster: as the member that was added with one of
    /// its addresses, or else as a new one.
    Join {
        /// Its name.
        name: String,
        /// Where peers reach it, as URLs.
        peer_urls: Vec<String>,
        /// The number of its disk, never 0. Asking again with the same one gets the same answer.
        disk_id: u64,
        /// What it shall be, where nobody has said so before.
        wanted: Wanted,
    },
    /// Peers reach the member elsewhere.
    Update {
        /// The member.
        id: NodeId,
        /// Where peers reach it from now on, as URLs.
        peer_urls: Vec<String>,
    },
    /// The learner shall vote.
    Promote {
        /// The member.
        id: NodeId,
    },
    /// The member shall leave.
    Remove {
        /// The member.
        id: NodeId,
    },
}

impl Member {
    /// Whether it belongs to the cluster, or will.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted != Wanted::Removed
    }

    /// Whether it was added and has not started yet.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.name.is_empty()
    }
}
