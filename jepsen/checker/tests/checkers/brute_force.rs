//! Linearizability of one register by trying all orders: slow, and too simple to be wrong in the same way.

use ringfence_checker::{Event, Function, Kind};
use serde_json::Value;

struct Op<'h> {
    f: Function,
    asked: &'h Value,
    answer: Option<&'h Event>,
    start: u64,
    /// Where it was acknowledged: only then it must be in the order.
    end: Option<u64>,
    placed: bool,
}

/// Whether the operations of a history, all on one key, have an order.
pub fn is_linearizable(history: &[Event]) -> bool {
    let mut ops: Vec<(u64, Op<'_>)> = Vec::new();
    for event in history {
        if event.kind == Kind::Invoke {
            let op = Op {
                f: event.f,
                asked: &event.value,
                answer: None,
                start: event.time,
                end: None,
                placed: false,
            };
            ops.push((event.process, op));
            continue;
        }
        let place = ops.iter().rposition(|(process, _)| *process == event.process);
        let place = place.expect("what ends has begun");
        match event.kind {
            Kind::Ok => {
                ops[place].1.answer = Some(event);
                ops[place].1.end = Some(event.time);
            }
            Kind::Fail => drop(ops.remove(place)),
            Kind::Info | Kind::Invoke => {}
        }
    }
    has_order(&mut ops.into_iter().map(|(_, op)| op).collect::<Vec<_>>(), &Value::Null)
}

fn has_order(ops: &mut [Op<'_>], state: &Value) -> bool {
    if ops.iter().all(|op| op.placed || op.end.is_none()) {
        return true;
    }
    let first_end = ops.iter().filter(|op| !op.placed).filter_map(|op| op.end).min();
    for place in 0..ops.len() {
        if ops[place].placed || first_end.is_some_and(|end| end < ops[place].start) {
            continue;
        }
        let Some(next) = after(&ops[place], state) else { continue };
        ops[place].placed = true;
        if has_order(ops, &next) {
            return true;
        }
        ops[place].placed = false;
    }
    false
}

/// What the register holds after an operation; none: the operation cannot have found it like that.
fn after(op: &Op<'_>, state: &Value) -> Option<Value> {
    let applied = op.answer.and_then(|answer| answer.applied);
    match op.f {
        Function::Read => op.answer.is_none_or(|answer| answer.value == *state).then(|| state.clone()),
        Function::Write => Some(op.asked.clone()),
        Function::Delete => {
            let fits = applied.is_none_or(|applied| applied != state.is_null());
            fits.then_some(Value::Null)
        }
        Function::Cas => {
            let holds = op.asked[0] == *state;
            let next = if holds { op.asked[1].clone() } else { state.clone() };
            applied.is_none_or(|applied| applied == holds).then_some(next)
        }
        other => panic!("{other:?} is nothing that a register does"),
    }
}
