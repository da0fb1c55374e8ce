//! From a history without an order to its smallest part without one: delta debugging (Zeller & Hildebrandt, 2002).
//!
//! A part shows a violation of the whole only if what was left out could not have been what went wrong. So:
//!
//! - what began after the end of the step that the search is stuck at may go, if what was under way then is left open;
//! - what a step saw may be forgotten, and with it a step that only looks: it only demands;
//! - a step that writes may go together with all steps that see its value, and only where nothing that stays saw
//!   "anything but" a value. In an order of the whole, what stays then sees what it saw without it too.

use std::collections::HashSet;
use std::ops::Range;

use super::register::{Sees, Step, Symbol};
use super::search::{Outcome, search};
use crate::budget::Meter;

/// The places of a smallest set of steps that have no order, and which of them is the one that cannot be placed.
pub(crate) struct Smallest {
    pub steps: Vec<usize>,
    pub culprit: usize,
}

/// Shrinks `steps`, which have no order because of `stuck`, as far as the budget goes.
pub(crate) fn shrink(steps: &[Step], stuck: usize, meter: &mut Meter<'_>) -> Smallest {
    let kept = (0..steps.len()).collect();
    let mut shrinking = Shrinking { steps: steps.to_vec(), kept, culprit: stuck, meter };
    shrinking.cut(steps[stuck].end);
    shrinking.forget();
    shrinking.leave_out();
    Smallest { steps: shrinking.kept, culprit: shrinking.culprit }
}

/// Invariant: the kept ones of `steps` have no order, because of `culprit`.
struct Shrinking<'m, 'c> {
    /// All steps, with what has not been forgotten of them.
    steps: Vec<Step>,
    kept: Vec<usize>,
    culprit: usize,
    meter: &'m mut Meter<'c>,
}

impl Shrinking<'_, '_> {
    /// Goes on with these, if they have no order.
    fn attempt(&mut self, steps: &[Step], kept: Vec<usize>) -> bool {
        let part: Vec<Step> = kept.iter().map(|place| steps[*place]).collect();
        match search(&part, self.meter) {
            Outcome::Stuck(step) => {
                self.culprit = kept[step];
                self.kept = kept;
                true
            }
            Outcome::Linearizable | Outcome::Exhausted => false,
        }
    }

    /// Goes on with fewer of the same steps, if they have no order.
    fn attempt_kept(&mut self, kept: Vec<usize>) -> bool {
        let steps = std::mem::take(&mut self.steps);
        let shrunk = self.attempt(&steps, kept);
        self.steps = steps;
        shrunk
    }

    /// Leaves out what was not known at `end`.
    fn cut(&mut self, end: Option<u64>) {
        let known = until(&self.steps, end);
        let kept = (0..known.len()).filter(|place| known[*place].is_some()).collect();
        let cut: Vec<Step> =
            known.iter().zip(&self.steps).map(|(known, step)| known.unwrap_or(*step)).collect();
        if self.attempt(&cut, kept) {
            self.steps = cut;
        }
    }

    /// Forgets what steps saw, many at once, then fewer.
    fn forget(&mut self) {
        let mut size = self.kept.len().div_ceil(2);
        while size > 0 && !self.meter.is_spent() {
            for from in (0..self.kept.len()).step_by(size) {
                let mut forgetful = self.steps.clone();
                for place in self.kept.iter().skip(from).take(size) {
                    forgetful[*place].sees = Sees::Nothing;
                }
                if forgetful != self.steps && self.attempt(&forgetful, self.kept.clone()) {
                    self.steps = forgetful;
                }
            }
            size /= 2;
        }
    }

    /// Leaves out steps, many at once, then fewer.
    fn leave_out(&mut self) {
        let mut size = self.kept.len().div_ceil(2);
        while size > 0 && !self.meter.is_spent() {
            let length_before = self.kept.len();
            let mut from = 0;
            while from < self.kept.len() {
                let chunk = from..(from + size).min(self.kept.len());
                let fewer = without(&self.steps, &self.kept, chunk.clone());
                let shrunk = fewer.len() < self.kept.len() && self.attempt_kept(fewer);
                // What stays of a chunk could not go lawfully, and is tried again in smaller ones.
                from = if shrunk { from } else { chunk.end };
            }
            let again = size == 1 && self.kept.len() < length_before;
            size = if again { 1 } else { size / 2 };
        }
    }
}

/// The steps as they were known at `end`: what had not begun is none, and neither is a look that had no answer yet.
fn until(steps: &[Step], end: Option<u64>) -> Vec<Option<Step>> {
    let now = end.unwrap_or(u64::MAX);
    let known = |step: &Step| {
        let end = step.end.filter(|end| *end <= now);
        let counts = step.start <= now && (end.is_some() || step.writes.is_some());
        counts.then_some(Step { end, ..*step })
    };
    steps.iter().map(known).collect()
}

/// `kept` without as much of the chunk as may go.
fn without(steps: &[Step], kept: &[usize], chunk: Range<usize>) -> Vec<usize> {
    let mut goes: Vec<bool> = (0..kept.len()).map(|place| chunk.contains(&place)).collect();
    let stays = |goes: &[bool]| -> Vec<usize> {
        kept.iter().zip(goes).filter(|(_, goes)| !**goes).map(|(step, _)| *step).collect()
    };
    loop {
        let remaining = stays(&goes);
        let picky = remaining.iter().any(|step| matches!(steps[*step].sees, Sees::AnythingBut(_)));
        let seen: HashSet<Symbol> = remaining
            .iter()
            .filter_map(|step| match steps[*step].sees {
                Sees::Exactly(symbol) => Some(symbol),
                Sees::Nothing | Sees::AnythingBut(_) => None,
            })
            .collect();
        let mut settled = true;
        for place in chunk.clone().filter(|place| steps[kept[*place]].writes.is_some()) {
            let needed = steps[kept[place]].writes.is_some_and(|writes| picky || seen.contains(&writes));
            if goes[place] && needed {
                goes[place] = false;
                settled = false;
            }
        }
        if settled {
            return remaining;
        }
    }
}
