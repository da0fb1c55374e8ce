//! Durable claims (Raft paper, section 5.2 and figure 2: `currentTerm`, `votedFor` and `log[]` are on stable storage before
//! a node answers; openraft: "io_completed only when the bytes are on disk"): what a node took for durable is there after
//! its next start, whatever became of its process and its machine. A vote never goes back.

use std::collections::{BTreeMap, VecDeque};

use ringfence_consensus::simulation::{Observation, Vote};
use ringfence_types::LogId;
use ringfence_wal::Ticket;

use super::log_matching::Mirror;
use super::{Holds, broken};

const RULE: &str = "durable-claims";

/// What a node holds, from the ticket on that makes it durable.
#[derive(Debug, Clone, Copy)]
struct Claim {
    staged: Ticket,
    vote: Option<Vote>,
    last: Option<LogId>,
}

#[derive(Default)]
struct Claims {
    /// Not durable yet, oldest first.
    waiting: VecDeque<Claim>,
    durable: Option<Claim>,
}

#[derive(Default)]
pub(super) struct DurableClaims {
    nodes: BTreeMap<usize, Claims>,
}

impl DurableClaims {
    pub(super) fn look(
        &mut self,
        number: usize,
        is_new_life: bool,
        observation: &Observation,
        mirror: &Mirror,
    ) -> Holds {
        let claims = self.nodes.entry(number).or_default();
        let held = if is_new_life { claims.check_kept(number, observation, mirror) } else { Ok(()) };
        if is_new_life {
            *claims = Claims::default();
        }
        let Observation { staged, vote, last, .. } = *observation;
        let newest = claims.waiting.back().or(claims.durable.as_ref());
        if newest.is_none_or(|claim| (claim.staged, claim.vote, claim.last) != (staged, vote, last)) {
            claims.waiting.push_back(Claim { staged, vote, last });
        }
        while let Some(claim) = claims.waiting.front().filter(|claim| claim.staged <= observation.durable) {
            claims.durable = Some(*claim);
            claims.waiting.pop_front();
        }
        held
    }

    pub(super) fn forgive(&mut self, number: usize) {
        self.nodes.remove(&number);
    }
}

impl Claims {
    /// Judges what a new life has found by what the one before claimed.
    fn check_kept(&self, number: usize, observation: &Observation, mirror: &Mirror) -> Holds {
        let Some(claim) = self.durable else { return Ok(()) };
        if observation.vote < claim.vote {
            let facts =
                format!("n{number} kept the vote {:?}, and starts with {:?}", claim.vote, observation.vote);
            return broken(RULE, facts);
        }
        let Some(last) = claim.last else { return Ok(()) };
        // A truncation or a replacement that was still under way may have become durable: then something claimed later
        // explains what was found.
        let later =
            self.waiting.iter().any(|waiting| waiting.last != Some(last) && waiting.last < Some(last));
        let replaced = self.waiting.iter().any(|waiting| {
            waiting.last.is_some_and(|other| (other.term, other.node) != (last.term, last.node))
        });
        if later || replaced {
            return Ok(());
        }
        let found = mirror.get(last.index.0).map(|mark| mark.log_id);
        let is_behind_log = mirror.first().is_none_or(|first| last.index.0 < first)
            && observation.last.is_some_and(|found| found.index >= last.index);
        if found != Some(last) && !is_behind_log {
            let facts = format!(
                "n{number} had {last} on disk, and starts with {found:?} there (last: {:?})",
                observation.last
            );
            return broken(RULE, facts);
        }
        Ok(())
    }
}
