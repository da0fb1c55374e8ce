//! What a peer has acknowledged to this process, by which a later process of that peer is judged.
//!
//! Of acknowledgements only those count that a leader or candidate acts on: a vote that was given, and entries that are
//! durable under a vote. Under one vote a log only grows up to what was acknowledged; under a higher one another leader may
//! lawfully have cut it off.

use std::sync::Arc;

use parking_lot::Mutex;
use ringfence_proto::peers::{Hello, LogId, Vote};

use crate::raft::codec;
use crate::raft::types::{RaftLogId, RaftVote};
use crate::rt::watch;

/// A vote, and the last entry that is known to be durable under it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Acknowledged {
    vote: Option<RaftVote>,
    last: Option<RaftLogId>,
}

/// What the processes of one peer have acknowledged, up to one of them. Shared by all connections with that process.
#[derive(Debug)]
pub(crate) struct Witness {
    acknowledged: Mutex<Acknowledged>,
    /// Whether a later process of the same peer has been admitted, or the peer was removed.
    superseded: watch::Sender<bool>,
}

impl Default for Witness {
    fn default() -> Self {
        Witness::new(Acknowledged::default())
    }
}

impl Witness {
    fn new(acknowledged: Acknowledged) -> Witness {
        Witness { acknowledged: Mutex::new(acknowledged), superseded: watch::Sender::new(false) }
    }

    pub(super) fn acknowledged(&self) -> Acknowledged {
        *self.acknowledged.lock()
    }

    /// The witness of a later process, which found this on its disk. This one takes nothing more.
    pub(super) fn succeed(&self, found: &Acknowledged) -> Arc<Witness> {
        let mut acknowledged = self.acknowledged.lock();
        self.superseded.send_replace(true);
        // Its log under that vote may still be cut off: nobody has been told of it.
        acknowledged.note(found.vote, None);
        Arc::new(Witness::new(*acknowledged))
    }

    /// Notes an acknowledgement. False where a later process was admitted meanwhile: it was judged without this one, which
    /// therefore must not count.
    pub(super) fn note(&self, vote: &Vote, last: Option<&LogId>) -> bool {
        let mut acknowledged = self.acknowledged.lock();
        if *self.superseded.borrow() {
            return false;
        }
        acknowledged.note(Some(codec::vote_from_wire(vote)), last.map(codec::log_id_from_wire));
        true
    }

    /// Ends all connections with this process: it is a member no more.
    pub(super) fn end(&self) {
        self.superseded.send_replace(true);
    }

    /// Waits until a later process of the same peer has been admitted, or the peer was removed.
    pub(super) async fn superseded(&self) {
        let mut superseded = self.superseded.subscribe();
        let waited = superseded.wait_for(|superseded| *superseded).await;
        waited.map(drop).expect("this handle keeps the channel open");
    }
}

impl Acknowledged {
    /// What a node says that it found durable at its start.
    pub(super) fn said_by(hello: &Hello) -> Acknowledged {
        Acknowledged {
            vote: hello.vote.as_ref().map(codec::vote_from_wire),
            last: hello.last_log_id.as_ref().map(codec::log_id_from_wire),
        }
    }

    fn note(&mut self, vote: Option<RaftVote>, last: Option<RaftLogId>) {
        if vote > self.vote {
            *self = Acknowledged { vote, last };
        } else if vote == self.vote {
            self.last = self.last.max(last);
        }
    }

    /// What of this is missing in what a later process found, if anything is.
    pub(super) fn lacking_in(&self, found: &Acknowledged) -> Option<String> {
        let shown = |position: Option<String>| position.unwrap_or_else(|| "none".to_owned());
        let shown_vote = |vote: Option<RaftVote>| shown(vote.map(|vote| vote.to_string()));
        let shown_log = |last: Option<RaftLogId>| shown(last.map(|last| last.to_string()));
        if found.vote < self.vote {
            return Some(format!(
                "started with vote {}, below the vote {} that it had given",
                shown_vote(found.vote),
                shown_vote(self.vote)
            ));
        }
        (found.vote == self.vote && found.last < self.last).then(|| {
            format!(
                "started with a log up to {}, but had acknowledged entries up to {} under the same vote",
                shown_log(found.last),
                shown_log(self.last)
            )
        })
    }
}
