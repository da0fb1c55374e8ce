//! Watches: what they tell has happened, at that revision, and nothing is left out, whatever was lost on the way.
//!
//! - The events of a watch come in the order of their revisions, each once, and none from before its beginning.
//! - Each is the effect of a write or a delete that made its revision. One whose answer was lost may have made any one, but only
//!   one, and that is the same in all watches.
//! - From its first revision to its last a watch tells all of every revision, as far as it is of the keys that it watches: what was
//!   acknowledged, and what others tell.
//! - It ends for want of history only where what it still wants is gone.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::history::{Function, Kind};
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::count;

const CHECK: &str = "watch";
/// How the key of a watch ends that is of all keys which begin so.
const PREFIX_ENDS: char = '/';

/// Whether watches tell what happened; none: nobody watched.
///
/// # Errors
/// If a watch tells something that is none of its form, or a value was written twice.
pub fn check(operations: &[Operation<'_>]) -> Result<Option<Finding>, Malformed> {
    if !operations.iter().any(|operation| operation.f == Function::Watch) {
        return Ok(None);
    }
    let told =
        |operation: &&Operation<'_>| operation.f == Function::Watch && operation.acknowledged().is_some();
    let watches = operations.iter().filter(told).map(Watch::of).collect::<Result<Vec<_>, _>>()?;
    let mut changes = Changes::of(operations)?;
    let events: usize = watches.iter().map(|watch| watch.events.len()).sum();
    let compacted = watches.iter().filter(|watch| watch.compacted.is_some()).count();
    let all = format!(
        "{} told to {}, of which {compacted} met the end of history",
        count(events, "event"),
        count(watches.len(), "watcher")
    );
    let alone = watches.iter().find_map(Watch::broken);
    Ok(Some(match alone.or_else(|| changes.broken(&watches)) {
        Some(picture) => Finding::violation(CHECK, format!("{all}: {}", picture.explanation), picture),
        None if changes.are_told(&watches) => {
            Finding::ok(CHECK, format!("{all}: each change in order, once, and whole"))
        }
        None => Finding::unknown(CHECK, format!("{all}: none began and ended behind the last change")),
    }))
}

/// What one watch was told.
struct Watch<'o, 'h> {
    operation: &'o Operation<'h>,
    key: &'h str,
    from: u64,
    to: u64,
    events: Vec<Told<'h>>,
    compacted: Option<u64>,
    broken: Option<&'h str>,
}

/// An event; null is a deletion.
#[derive(Clone, Copy)]
struct Told<'h> {
    revision: u64,
    key: &'h str,
    value: &'h Value,
}

impl Told<'_> {
    fn in_words(&self) -> String {
        match self.value {
            Value::Null => format!("the end of {} at revision {}", self.key, self.revision),
            value => format!("{} = {value} at revision {}", self.key, self.revision),
        }
    }
}

impl<'o, 'h> Watch<'o, 'h> {
    fn of(operation: &'o Operation<'h>) -> Result<Watch<'o, 'h>, Malformed> {
        let answer = operation.answer.unwrap_or(operation.asked);
        let number = |value: &Value, what: &str| {
            value.as_u64().ok_or_else(|| operation.malformed(format!("a watch tells {what} as a number")))
        };
        let events = answer["events"].as_array();
        let events = events.ok_or_else(|| operation.malformed("a watch tells a list of events"))?;
        let told = |event: &'h Value| -> Result<Told<'h>, Malformed> {
            let key = event[1].as_str();
            let key = key.ok_or_else(|| operation.malformed("an event tells its key"))?;
            Ok(Told { revision: number(&event[0], "revisions")?, key, value: &event[2] })
        };
        let watch = Watch {
            operation,
            key: operation.key()?,
            from: number(&answer["from"], "its beginning")?,
            to: number(&answer["to"], "its end")?,
            events: events.iter().map(told).collect::<Result<_, _>>()?,
            compacted: answer["compacted"].as_u64(),
            broken: answer["broken"].as_str(),
        };
        if watch.events.iter().any(|event| event.revision > watch.to) {
            return Err(operation.malformed("a watch ends before an event that it tells"));
        }
        Ok(watch)
    }

    fn wants(&self, key: &str) -> bool {
        if self.key.ends_with(PREFIX_ENDS) { key.starts_with(self.key) } else { key == self.key }
    }

    fn words(&self) -> String {
        format!("The watch of {} from revision {} at {}", self.key, self.from, self.operation.place())
    }

    /// What is wrong with it, whatever others were told.
    fn broken(&self) -> Option<Counterexample> {
        let why = self.broken.map(|why| format!("was told what cannot be: {why}"));
        let why = why.or_else(|| self.disorder()).or_else(|| self.compacted_for_nothing())?;
        Some(Counterexample::new(format!("{} {why}.", self.words()), &[self.operation], 0))
    }

    fn disorder(&self) -> Option<String> {
        if let Some(event) = self.events.iter().find(|event| event.revision < self.from) {
            return Some(format!("tells {}", event.in_words()));
        }
        if let Some(event) = self.events.iter().find(|event| !self.wants(event.key)) {
            return Some(format!("tells {}, which nobody asked for", event.in_words()));
        }
        if let Some(pair) = self.events.windows(2).find(|pair| pair[0].revision > pair[1].revision) {
            return Some(format!("tells {} after {}", pair[1].in_words(), pair[0].in_words()));
        }
        let mut met = BTreeSet::new();
        let again = self.events.iter().find(|event| !met.insert((event.revision, event.key)))?;
        Some(format!("tells {} twice", again.in_words()))
    }

    fn compacted_for_nothing(&self) -> Option<String> {
        let oldest = self.compacted.filter(|oldest| *oldest <= self.to + 1)?;
        Some(format!("ended for want of history, which begins at {oldest}, and it was up to {}", self.to))
    }
}

/// What has changed, as far as anybody knows.
struct Changes<'o, 'h> {
    /// Who wrote, or tried to write, a value.
    writers: HashMap<&'h Value, &'o Operation<'h>>,
    /// Who tried to delete a key, and nobody knows whether it was done.
    open_deletes: HashMap<&'h str, Vec<&'o Operation<'h>>>,
    /// What made a revision.
    made: BTreeMap<u64, Made<'o, 'h>>,
    /// The revision that an operation made, by the operation's place in the history.
    revisions: HashMap<usize, u64>,
    /// When the last change was acknowledged, and the highest revision of one.
    last: (u64, u64),
}

/// What made a revision, and the watch that showed it where no answer did.
#[derive(Clone, Copy)]
struct Made<'o, 'h> {
    by: &'o Operation<'h>,
    shown: Option<&'o Operation<'h>>,
}

impl<'o, 'h> Made<'o, 'h> {
    fn operations(&self) -> impl Iterator<Item = &'o Operation<'h>> + use<'o, 'h> {
        [self.by].into_iter().chain(self.shown)
    }
}

/// The keys that an operation changes, and to what.
fn effects<'h>(operation: &Operation<'h>) -> Result<Vec<(&'h str, &'h Value)>, Malformed> {
    Ok(match operation.f {
        Function::Write => vec![(operation.key()?, operation.asked)],
        Function::Delete => vec![(operation.key()?, &Value::Null)],
        Function::WriteAll => {
            let values = operation.asked.as_object();
            let values = values.ok_or_else(|| operation.malformed("a write of several keys names them"))?;
            values.iter().map(|(key, value)| (key.as_str(), value)).collect()
        }
        _ => Vec::new(),
    })
}

impl<'o, 'h> Changes<'o, 'h> {
    fn of(operations: &'o [Operation<'h>]) -> Result<Changes<'o, 'h>, Malformed> {
        let mut changes = Changes {
            writers: HashMap::new(),
            open_deletes: HashMap::new(),
            made: BTreeMap::new(),
            revisions: HashMap::new(),
            last: (0, 0),
        };
        for operation in operations {
            changes.take(operation)?;
        }
        Ok(changes)
    }

    fn take(&mut self, operation: &'o Operation<'h>) -> Result<(), Malformed> {
        let effects = effects(operation)?;
        if effects.is_empty() {
            return Ok(());
        }
        for (key, value) in effects {
            if !value.is_null() && self.writers.insert(value, operation).is_some() {
                return Err(operation.malformed(format!("{value} is written twice")));
            }
            if value.is_null() && operation.possible() && operation.kind != Kind::Ok {
                self.open_deletes.entry(key).or_default().push(operation);
            }
        }
        if let Some(revision) = operation.revision.filter(|_| operation.made_revision()) {
            self.made.entry(revision).or_insert(Made { by: operation, shown: None });
            self.revisions.insert(operation.event, revision);
            let (end, highest) = self.last;
            self.last = (end.max(operation.acknowledged().unwrap_or(0)), highest.max(revision));
        }
        Ok(())
    }

    /// Whether somebody who began after the last change was told of all.
    fn are_told(&self, watches: &[Watch<'_, '_>]) -> bool {
        let (end, highest) = self.last;
        watches.iter().any(|watch| watch.operation.start > end && watch.to >= highest)
    }

    /// What is wrong with what watches tell, if anything.
    fn broken(&mut self, watches: &[Watch<'o, 'h>]) -> Option<Counterexample> {
        let put = |told: &&Told<'_>| !told.value.is_null();
        for watch in watches {
            if let Some(wrong) = watch.events.iter().filter(put).find_map(|told| self.place(watch, told)) {
                return Some(wrong);
            }
        }
        // Only now is it known which revisions writes made whose answers were lost.
        let deletion = |told: &&Told<'_>| told.value.is_null();
        for watch in watches {
            let mut deletions = watch.events.iter().filter(deletion);
            if let Some(wrong) = deletions.find_map(|told| self.never_deleted(watch, told)) {
                return Some(wrong);
            }
        }
        let facts = self.facts(watches);
        watches.iter().find_map(|watch| left_out(watch, &facts))
    }

    /// Finds out which write an event shows, and notes which revision that made.
    fn place(&mut self, watch: &Watch<'o, 'h>, told: &Told<'h>) -> Option<Counterexample> {
        let words = format!("{} tells {}", watch.words(), told.in_words());
        let Some(&writer) = self.writers.get(told.value) else {
            let why = format!("{words}, which nobody wrote.");
            return Some(Counterexample::new(why, &[watch.operation], 0));
        };
        let wrong = |reason: String| {
            Some(Counterexample::new(format!("{words}, {reason}."), &[writer, watch.operation], 1))
        };
        if !writer.possible() {
            return wrong("which had surely not been written".to_owned());
        }
        if watch.operation.end.is_some_and(|end| end < writer.start) {
            return wrong("which was written only afterwards".to_owned());
        }
        if !has_effect(writer, told) {
            return wrong("which was written to another key".to_owned());
        }
        if let Some(made) = self.made.get(&told.revision) {
            return self.other_made(*made, watch, told, Some(writer));
        }
        match self.revisions.entry(writer.event) {
            Entry::Occupied(known) => {
                let shown = self.made.get(known.get()).and_then(|made| made.shown);
                let why = format!("{words}, and {} made revision {}.", writer.in_words(), known.get());
                let shown: Vec<_> = [writer].into_iter().chain(shown).chain([watch.operation]).collect();
                Some(Counterexample::new(why, &shown, shown.len() - 1))
            }
            Entry::Vacant(slot) => {
                slot.insert(told.revision);
                self.made.insert(told.revision, Made { by: writer, shown: Some(watch.operation) });
                None
            }
        }
    }

    /// An event at a revision that something else made.
    fn other_made(
        &self,
        made: Made<'o, 'h>,
        watch: &Watch<'o, 'h>,
        told: &Told<'h>,
        writer: Option<&'o Operation<'h>>,
    ) -> Option<Counterexample> {
        if has_effect(made.by, told) {
            return None;
        }
        let why =
            format!("{} tells {}, which is that of {}.", watch.words(), told.in_words(), made.by.in_words());
        let others = made.operations().filter(|shown| shown.event != watch.operation.event);
        let shown: Vec<_> = others.chain(writer).chain([watch.operation]).collect();
        Some(Counterexample::new(why, &shown, shown.len() - 1))
    }

    fn never_deleted(&self, watch: &Watch<'o, 'h>, told: &Told<'h>) -> Option<Counterexample> {
        if let Some(made) = self.made.get(&told.revision) {
            return self.other_made(*made, watch, told, None);
        }
        let end = watch.operation.end;
        let mut open = self.open_deletes.get(told.key).into_iter().flatten();
        if open.any(|delete| end.is_none_or(|end| delete.start <= end)) {
            return None;
        }
        let why = format!("{} tells {}, and nobody deleted it then.", watch.words(), told.in_words());
        Some(Counterexample::new(why, &[watch.operation], 0))
    }

    /// Everything that is known to have happened, by revision and key, with those who show it.
    fn facts(&self, watches: &[Watch<'o, 'h>]) -> Facts<'o, 'h> {
        let mut facts = Facts::new();
        for (revision, made) in &self.made {
            // Malformed ones were refused before.
            for (key, _) in effects(made.by).unwrap_or_default() {
                facts.insert((*revision, key), *made);
            }
        }
        for watch in watches {
            for told in &watch.events {
                let shown = Made { by: watch.operation, shown: None };
                facts.entry((told.revision, told.key)).or_insert(shown);
            }
        }
        facts
    }
}

fn has_effect(operation: &Operation<'_>, told: &Told<'_>) -> bool {
    let effects = effects(operation).unwrap_or_default();
    effects.iter().any(|(key, value)| (*key, *value) == (told.key, told.value))
}

type Facts<'o, 'h> = BTreeMap<(u64, &'h str), Made<'o, 'h>>;

/// Something that happened, and that a watch should have told.
fn left_out(watch: &Watch<'_, '_>, facts: &Facts<'_, '_>) -> Option<Counterexample> {
    if watch.from > watch.to {
        return None;
    }
    let told: BTreeSet<(u64, &str)> = watch.events.iter().map(|told| (told.revision, told.key)).collect();
    let mut due = facts.range((watch.from, "")..(watch.to + 1, "")).filter(|((_, key), _)| watch.wants(key));
    let ((revision, key), made) = due.find(|(fact, _)| !told.contains(*fact))?;
    let words = watch.words();
    let what = if watch.events.iter().any(|event| event.revision == *revision) {
        format!("{words} tells a part of revision {revision}, and not what {key} became")
    } else {
        format!("{words}, which was told all up to {}, was not told of {key} at {revision}", watch.to)
    };
    let why = format!("{what}, as {} shows.", made.by.in_words());
    let others = made.operations().filter(|shown| shown.event != watch.operation.event);
    let shown: Vec<_> = others.chain([watch.operation]).collect();
    Some(Counterexample::new(why, &shown, shown.len() - 1))
}
