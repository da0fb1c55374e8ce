//! The search for an order: Wing & Gong's algorithm with Lowe's memory (G. Lowe, "Testing for linearizability", 2017,
//! sections 3 and 4).
//!
//! Invocations and responses stand in one list in the order of time. The *window* is what stands before the first
//! response: exactly the steps that may come next. To take a step is to lift it and its response out of the list; when
//! no response is left, an order is found. When the window has nothing to take, the last step is put back and another
//! one tried. A configuration (which steps were taken, and what the register holds) that was entered once is not entered
//! again.
//!
//! What is special to registers, and keeps illegal histories with many open writes from exploding:
//!
//! - A step that fits and only looks is taken at once, for good: in any order that goes on from here it may be moved to
//!   the front.
//! - A step that needs not happen is taken only if the window holds a step that wants it: one that sees what it writes,
//!   or one that sees anything but what the register holds now. (In any order, such a step without a taker right behind
//!   it may be moved back until there is one, or left out.)
//! - All values that no step asks about are one. So open writes of such values differ only in when they were invoked, and
//!   the first of them stands for all.
//! - A value that a step is still going to see is not written over by anybody when no step is left to write it again.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::register::{ABSENT, Sees, Step, Symbol};
use crate::budget::Meter;

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is an order.
    Linearizable,
    /// There is none: none even of what happened until this step ended.
    Stuck(usize),
    /// The budget was spent before an end.
    Exhausted,
}

/// Looks for an order of the steps in which each sees what it saw, starting with a register that holds nothing.
pub(crate) fn search(steps: &[Step], meter: &mut Meter<'_>) -> Outcome {
    Search::new(steps).run(meter)
}

/// A value that no step asks about.
const UNSOUGHT: Symbol = Symbol::MAX;

/// The list's sentinel, and "no such event".
const END: usize = 0;

struct Search {
    moves: Vec<Move>,
    events: Vec<ListEvent>,
    /// By symbol, how many steps that are not taken write it.
    writers: Vec<u32>,
    /// By symbol, how many steps that are not taken and must happen see exactly it.
    viewers_left: Vec<u32>,
    /// By symbol, all steps that must happen and see exactly it.
    viewers: Vec<Vec<usize>>,
    /// What the register holds.
    state: Symbol,
    /// The sum of what identifies the steps taken.
    taken: u128,
    /// Responses left in the list.
    open: usize,
    trail: Vec<Taken>,
    entered: HashSet<u128, BuildHasherDefault<Identity>>,
    /// The last response, in time, that some order could not get past.
    furthest: usize,
    /// Scratch: the values that steps of the window want to see.
    wanted: Vec<Symbol>,
}

struct Move {
    sees: Sees,
    writes: Option<Symbol>,
    call: usize,
    /// [`END`] if it need not happen.
    response: usize,
    taken: bool,
}

impl Move {
    fn optional(&self) -> bool {
        self.response == END
    }

    /// What must be there for it to happen, where it must.
    fn awaits(&self) -> Option<usize> {
        match self.sees {
            Sees::Exactly(symbol) if !self.optional() => Some(symbol as usize),
            _ => None,
        }
    }

    /// An open write of a value that nobody asks about.
    fn blind(&self) -> bool {
        self.optional() && self.sees == Sees::Nothing && self.writes == Some(UNSOUGHT)
    }
}

/// An invocation or a response, in a list in the order of time.
struct ListEvent {
    step: usize,
    is_response: bool,
    previous: usize,
    next: usize,
}

struct Taken {
    step: usize,
    state_before: Symbol,
    /// Taken for good: there is no other choice to try in its place.
    forced: bool,
}

/// Where to go on looking in a window, after a step was put back.
struct Resume {
    from: usize,
    blind_tried: bool,
}

/// What a window has to offer.
enum Window {
    /// This step fits and only looks.
    Free(usize),
    /// Choices; and whether a step waits for the register to hold anything else.
    Choice { unstuck_wanted: bool },
}

impl Search {
    fn new(steps: &[Step]) -> Search {
        let sought = sought(steps);
        let name = |symbol: Symbol| if sought[symbol as usize] { symbol } else { UNSOUGHT };
        let mut moves: Vec<Move> = steps
            .iter()
            .map(|step| Move {
                sees: step.sees,
                writes: step.writes.map(name),
                call: END,
                response: END,
                taken: false,
            })
            .collect();
        let mut writers = vec![0; sought.len()];
        for symbol in moves.iter().filter_map(|step| step.writes).filter(|symbol| *symbol != UNSOUGHT) {
            writers[symbol as usize] += 1;
        }
        let events = events(steps, &mut moves);
        let mut viewers = vec![Vec::new(); sought.len()];
        for (index, symbol) in
            moves.iter().enumerate().filter_map(|(index, step)| Some((index, step.awaits()?)))
        {
            viewers[symbol].push(index);
        }
        Search {
            open: steps.iter().filter(|step| step.end.is_some()).count(),
            trail: Vec::with_capacity(moves.len()),
            moves,
            events,
            writers,
            viewers_left: viewers.iter().map(|viewers| viewers.len() as u32).collect(),
            viewers,
            state: ABSENT,
            taken: 0,
            entered: HashSet::default(),
            furthest: END,
            wanted: Vec::new(),
        }
    }

    fn run(&mut self, meter: &mut Meter<'_>) -> Outcome {
        let mut resume = None;
        for symbol in (0..self.viewers.len()).filter(|symbol| *symbol != ABSENT as usize) {
            if let (0, Some(viewer)) = (self.writers[symbol], self.first_viewer(symbol)) {
                return Outcome::Stuck(viewer);
            }
        }
        while self.open > 0 {
            let window = self.window();
            if let (Window::Free(step), None) = (&window, &resume) {
                self.take(*step, true);
                continue;
            }
            match self.choose(window, resume.take()) {
                Some(step) => {
                    if !meter.spend() {
                        return Outcome::Exhausted;
                    }
                    self.take(step, false);
                }
                None => match self.put_back() {
                    Some(next) => resume = Some(next),
                    None => return Outcome::Stuck(self.events[self.furthest].step),
                },
            }
        }
        Outcome::Linearizable
    }

    /// Looks through the window once.
    fn window(&mut self) -> Window {
        self.wanted.clear();
        let mut unstuck_wanted = false;
        let mut event = self.events[END].next;
        while !self.events[event].is_response {
            let index = self.events[event].step;
            let step = &self.moves[index];
            let fits = step.sees.fits(self.state);
            if fits && step.writes.is_none() {
                return Window::Free(index);
            }
            match step.sees {
                Sees::Exactly(symbol) if !fits => self.wanted.push(symbol),
                Sees::AnythingBut(_) => unstuck_wanted |= !fits,
                _ => {}
            }
            event = self.events[event].next;
        }
        self.furthest = self.furthest.max(event);
        Window::Choice { unstuck_wanted }
    }

    /// The next step of the window that leads to a configuration that was not entered before.
    fn choose(&mut self, window: Window, resume: Option<Resume>) -> Option<usize> {
        let unstuck_wanted = match window {
            Window::Choice { unstuck_wanted } => unstuck_wanted,
            Window::Free(_) => unreachable!("a step that only looks is taken when the window is first seen"),
        };
        let Resume { from, mut blind_tried } =
            resume.unwrap_or(Resume { from: self.events[END].next, blind_tried: false });
        let mut event = from;
        while !self.events[event].is_response {
            let index = self.events[event].step;
            event = self.events[event].next;
            let step = &self.moves[index];
            let Some(writes) = step.writes.filter(|_| step.sees.fits(self.state)) else { continue };
            if step.optional() {
                let useful = self.wanted.contains(&writes) || (unstuck_wanted && writes != self.state);
                if !useful || (step.blind() && blind_tried) {
                    continue;
                }
                blind_tried |= step.blind();
            }
            if let Some(viewer) = self.spoils(index, writes) {
                self.furthest = self.furthest.max(self.moves[viewer].response);
                continue;
            }
            if self.entered.insert(fingerprint(self.taken ^ identity(index), writes)) {
                return Some(index);
            }
        }
        None
    }

    /// The first of the steps that could never see what they must see, if this step were taken now.
    fn spoils(&self, index: usize, writes: Symbol) -> Option<usize> {
        let lost = self.state as usize;
        if self.state == writes || self.state == UNSOUGHT || self.writers[lost] > 0 {
            return None;
        }
        let left = self.viewers_left[lost] - u32::from(self.moves[index].awaits() == Some(lost));
        if left == 0 {
            return None;
        }
        let others = self.viewers[lost].iter().copied().filter(|viewer| *viewer != index);
        others.filter(|viewer| !self.moves[*viewer].taken).min_by_key(|viewer| self.moves[*viewer].response)
    }

    /// The first step that must see a symbol.
    fn first_viewer(&self, symbol: usize) -> Option<usize> {
        self.viewers[symbol].iter().copied().min_by_key(|viewer| self.moves[*viewer].response)
    }

    fn take(&mut self, index: usize, forced: bool) {
        let step = &mut self.moves[index];
        step.taken = true;
        if let Some(symbol) = step.awaits() {
            self.viewers_left[symbol] -= 1;
        }
        self.trail.push(Taken { step: index, state_before: self.state, forced });
        self.taken ^= identity(index);
        if let Some(writes) = step.writes {
            self.state = writes;
            if writes != UNSOUGHT {
                self.writers[writes as usize] -= 1;
            }
        }
        let (call, response) = (step.call, step.response);
        self.lift(call);
        if response != END {
            self.lift(response);
            self.open -= 1;
        }
    }

    /// Puts steps back up to the last one that was a choice; none: there was no choice left.
    fn put_back(&mut self) -> Option<Resume> {
        loop {
            let Taken { step: index, state_before, forced } = self.trail.pop()?;
            let step = &mut self.moves[index];
            step.taken = false;
            if let Some(symbol) = step.awaits() {
                self.viewers_left[symbol] += 1;
            }
            let (call, response, blind, writes) = (step.call, step.response, step.blind(), step.writes);
            if response != END {
                self.lower(response);
                self.open += 1;
            }
            self.lower(call);
            if let Some(writes) = writes.filter(|writes| *writes != UNSOUGHT) {
                self.writers[writes as usize] += 1;
            }
            self.state = state_before;
            self.taken ^= identity(index);
            if !forced {
                return Some(Resume { from: self.events[call].next, blind_tried: blind });
            }
        }
    }

    fn lift(&mut self, event: usize) {
        let ListEvent { previous, next, .. } = self.events[event];
        self.events[previous].next = next;
        self.events[next].previous = previous;
    }

    /// The inverse of [`Search::lift`], in the reverse order of lifting.
    fn lower(&mut self, event: usize) {
        let ListEvent { previous, next, .. } = self.events[event];
        self.events[previous].next = event;
        self.events[next].previous = event;
    }
}

/// Which symbols some step asks about, and room for every symbol.
fn sought(steps: &[Step]) -> Vec<bool> {
    let of = |step: &Step| match step.sees {
        Sees::Nothing => None,
        Sees::Exactly(symbol) | Sees::AnythingBut(symbol) => Some(symbol),
    };
    let largest = steps.iter().flat_map(|step| [of(step), step.writes]).flatten().max().unwrap_or(0);
    let mut sought = vec![false; largest as usize + 1];
    for symbol in steps.iter().filter_map(of) {
        sought[symbol as usize] = true;
    }
    sought
}

/// The list. Intervals are closed: of one moment's events, invocations come first.
fn events(steps: &[Step], moves: &mut [Move]) -> Vec<ListEvent> {
    let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * steps.len());
    for (index, step) in steps.iter().enumerate() {
        order.push((step.start, false, index));
        order.extend(step.end.map(|end| (end, true, index)));
    }
    order.sort_unstable();
    let mut events = Vec::with_capacity(order.len() + 1);
    // The sentinel counts as a response, so that a window always has an end.
    events.push(ListEvent { step: 0, is_response: true, previous: order.len(), next: 1 });
    for (place, (_, is_response, step)) in order.iter().enumerate() {
        let event = place + 1;
        let slot = if *is_response { &mut moves[*step].response } else { &mut moves[*step].call };
        *slot = event;
        events.push(ListEvent { step: *step, is_response: *is_response, previous: place, next: event + 1 });
    }
    if let Some(last) = events.last_mut() {
        last.next = END;
    }
    events
}

/// A configuration in 128 bits (Zobrist hashing). Two that differ are taken for one with a chance of n²/2¹²⁸ among n.
fn fingerprint(taken: u128, state: Symbol) -> u128 {
    taken ^ scatter(u64::from(state) | 1 << 62)
}

/// What a step adds to a fingerprint.
fn identity(step: usize) -> u128 {
    scatter(step as u64)
}

fn scatter(number: u64) -> u128 {
    u128::from(mix(2 * number)) << 64 | u128::from(mix(2 * number + 1))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0 ^ u64::from(*byte));
        }
    }
}
