//! Panics that are no bugs: a damaged state file makes redb panic, which the store takes as an answer.

use std::panic;
use std::process;

use ringfence_consensus::Failure as NodeFailure;
use ringfence_store::{PAGES_CONTRADICT, PanicCause, cause_of_panic};

use super::node::from_node;
use crate::exit::Exit;

/// Keeps quiet of damage, which is told as a failure of the node, and tells all else as before. Where the damage makes redb
/// panic again while it cleans up, the process is about to end by a signal without a reason: it ends here, with one.
pub(super) fn tell_damage_from_bugs() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| match cause_of_panic() {
        PanicCause::Bug => tell(info),
        PanicCause::Damage => {}
        PanicCause::DamageTwice => {
            let _told = from_node(NodeFailure::StateCorrupt(PAGES_CONTRADICT.to_owned())).report();
            process::exit(Exit::StateCorrupt as i32)
        }
    }));
}
