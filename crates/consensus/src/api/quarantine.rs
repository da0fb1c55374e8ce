//! That a node is kept out of a part of its work.

use std::fmt;

/// That a node is kept out of a part of its work, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// What is not to be believed.
    pub kind: QuarantineKind,
    /// What is wrong, in plain words.
    pub reason: String,
}

/// What of a node is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineKind {
    /// Its log, which is not the one that the member of its id has acknowledged: it neither votes, acknowledges nor leads.
    Log,
    /// Its state: it votes and acknowledges, but neither leads nor serves, until another member's state has taken its place.
    State,
}

impl QuarantineKind {
    /// The quarantine's name, as it is shown to people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            QuarantineKind::Log => "log quarantine",
            QuarantineKind::State => "state quarantine",
        }
    }

    /// How it ends, in plain words.
    #[must_use]
    pub fn way_back(self) -> &'static str {
        match self {
            QuarantineKind::Log => "bring the node back with `ringfence member rejoin`",
            QuarantineKind::State => "the leader sends it a sound state, and it comes back by itself",
        }
    }
}

impl fmt::Display for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.kind.as_str(), self.reason, self.kind.way_back())
    }
}
