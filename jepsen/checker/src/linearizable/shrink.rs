//! From a history without an order to its smallest part without one: delta debugging (Zeller & Hildebrandt, 2002).
//!
//! A part shows a violation of the whole only if what was left out could not have been what went wrong. So:
//!
//! - what began after the end of the step that the search is stuck at may go, if what was under way then is left open;
//! - a step that only looks may go: it only demands;
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
    let all: Vec<usize> = (0..steps.len()).collect();
    let mut smallest = Smallest { steps: all, culprit: stuck };
    let cut = until(steps, steps[stuck].end);
    let invoked = (0..cut.len()).filter(|place| cut[*place].is_some()).collect();
    let cut: Vec<Step> = cut.iter().zip(steps).map(|(cut, step)| cut.unwrap_or(*step)).collect();
    let steps = if attempt(&cut, invoked, &mut smallest, meter) { &cut } else { steps };

    let mut size = smallest.steps.len().div_ceil(2);
    while size > 0 && !meter.is_spent() {
        let length_before = smallest.steps.len();
        let mut from = 0;
        while from < smallest.steps.len() {
            let chunk = from..(from + size).min(smallest.steps.len());
            let fewer = without(steps, &smallest.steps, chunk.clone());
            let shrunk = fewer.len() < smallest.steps.len() && attempt(steps, fewer, &mut smallest, meter);
            // What stays of the chunk could not be left out lawfully, and is tried again in smaller ones.
            from = if shrunk { from } else { chunk.end };
        }
        size = match size {
            1 if smallest.steps.len() < length_before => 1,
            size => size / 2,
        };
    }
    smallest
}

/// Takes `fewer` for the smallest, if they have no order.
fn attempt(steps: &[Step], fewer: Vec<usize>, smallest: &mut Smallest, meter: &mut Meter<'_>) -> bool {
    let part: Vec<Step> = fewer.iter().map(|place| steps[*place]).collect();
    match search(&part, meter) {
        Outcome::Stuck(step) => {
            *smallest = Smallest { culprit: fewer[step], steps: fewer };
            true
        }
        Outcome::Linearizable | Outcome::Exhausted => false,
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
