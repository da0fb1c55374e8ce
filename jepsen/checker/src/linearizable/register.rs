//! The specification: a register that operations look at and write to, one at a time.

use std::collections::HashMap;

use serde_json::Value;

use crate::freshness::Freshness;
use crate::history::{Function, Kind};
use crate::operation::{Malformed, Operation};

/// A value of one register, as a small number.
pub(crate) type Symbol = u32;

/// What a register holds where there is no key; so each begins.
pub(crate) const ABSENT: Symbol = 0;

/// What an operation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sees {
    /// It did not look.
    Nothing,
    /// Exactly this.
    Exactly(Symbol),
    /// Something other than this.
    AnythingBut(Symbol),
}

impl Sees {
    /// Whether it can be found where the register holds `state`.
    pub fn fits(self, state: Symbol) -> bool {
        match self {
            Sees::Nothing => true,
            Sees::Exactly(symbol) => symbol == state,
            Sees::AnythingBut(symbol) => symbol != state,
        }
    }
}

/// One operation on one register. It takes effect at one moment from `start` to `end`, or, without an `end`, at one
/// moment after `start` or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub sees: Sees,
    pub writes: Option<Symbol>,
    pub start: u64,
    pub end: Option<u64>,
}

/// The operations of one key as steps, and for each step the place of its operation among `operations`.
pub(crate) struct Register {
    pub steps: Vec<Step>,
    pub origin: Vec<usize>,
}

impl Register {
    /// What surely had no effect, and reads whose answer nobody knows, are left out.
    ///
    /// # Errors
    /// If an operation is none of a register, or its value has the wrong form.
    pub fn new(operations: &[Operation<'_>]) -> Result<Register, Malformed> {
        let mut symbols = Symbols::default();
        let mut register = Register { steps: Vec::new(), origin: Vec::new() };
        for (place, operation) in operations.iter().enumerate().filter(|(_, operation)| operation.possible())
        {
            let (sees, writes) = effect(operation, &mut symbols)?;
            let end = operation.acknowledged();
            if end.is_some() || writes.is_some() {
                register.steps.push(Step { sees, writes, start: start(operation), end });
                register.origin.push(place);
            }
        }
        Ok(register)
    }
}

/// From when on it may take effect. A read of bounded age may have done so before it began.
fn start(operation: &Operation<'_>) -> u64 {
    match operation.freshness {
        Freshness::MaxAge(age) => Freshness::oldest_question(operation.start, age),
        Freshness::Linearizable | Freshness::Revision(_) | Freshness::Any => operation.start,
    }
}

fn effect<'h>(
    operation: &Operation<'h>,
    symbols: &mut Symbols<'h>,
) -> Result<(Sees, Option<Symbol>), Malformed> {
    let known = operation.kind == Kind::Ok;
    let effect = match operation.f {
        Function::Read => {
            (operation.answer.map_or(Sees::Nothing, |answer| Sees::Exactly(symbols.of(answer))), None)
        }
        Function::Write => (Sees::Nothing, Some(symbols.of(operation.asked))),
        Function::Cas => {
            let Some([old, new]) = operation.asked.as_array().map(Vec::as_slice) else {
                return Err(operation.malformed("the value of a cas is a pair"));
            };
            let (old, new) = (symbols.of(old), symbols.of(new));
            match operation.applied {
                Some(false) => (Sees::AnythingBut(old), None),
                Some(true) | None => (Sees::Exactly(old), Some(new)),
            }
        }
        Function::Delete => match operation.applied.filter(|_| known) {
            Some(true) => (Sees::AnythingBut(ABSENT), Some(ABSENT)),
            Some(false) => (Sees::Exactly(ABSENT), None),
            None => (Sees::Nothing, Some(ABSENT)),
        },
        Function::Txn
        | Function::Add
        | Function::ReadAll
        | Function::Transfer
        | Function::Acquire
        | Function::Release
        | Function::Grant
        | Function::Renew
        | Function::Look
        | Function::WriteAll
        | Function::Watch => {
            return Err(operation.malformed("an operation on a register is read, write, cas or delete"));
        }
    };
    Ok(effect)
}

/// Numbers for values, in the order in which they are met.
#[derive(Default)]
struct Symbols<'h> {
    known: HashMap<&'h Value, Symbol>,
}

impl<'h> Symbols<'h> {
    fn of(&mut self, value: &'h Value) -> Symbol {
        if value.is_null() {
            return ABSENT;
        }
        let next = ABSENT + 1 + self.known.len() as Symbol;
        *self.known.entry(value).or_insert(next)
    }
}
