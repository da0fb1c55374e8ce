//! Bank accounts: money moves and is neither made nor lost (Jepsen's `bank`, a test of snapshot isolation), and where
//! answers tell their revision, each read is what the transfers up to its revision make of the read before it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::history::{Function, Kind};
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::count;

const CHECK: &str = "bank";

/// Whether reads of all accounts fit together; none: there are none.
///
/// # Errors
/// If a transfer or a read has the wrong form.
pub fn check(operations: &[Operation<'_>]) -> Result<Option<Finding>, Malformed> {
    let accounts = |operation: &Operation<'_>| match operation.f {
        Function::Transfer => true,
        Function::ReadAll => operation.answer.is_some_and(Value::is_object),
        _ => false,
    };
    if !operations.iter().any(accounts) {
        return Ok(None);
    }
    let mut bank = Bank::default();
    for operation in operations {
        match operation.f {
            Function::Transfer => bank.transfers.extend(Transfer::of(operation)?),
            Function::ReadAll => bank.reads.extend(Read::of(operation)?),
            _ => {}
        }
    }
    Ok(Some(bank.find()))
}

/// A transfer that perhaps or surely moved money.
struct Transfer<'o, 'h> {
    operation: &'o Operation<'h>,
    from: &'h str,
    to: &'h str,
    amount: i64,
}

impl<'o, 'h> Transfer<'o, 'h> {
    fn of(operation: &'o Operation<'h>) -> Result<Option<Self>, Malformed> {
        let part = |name: &str| operation.asked.get(name);
        let (Some(from), Some(to), Some(amount)) = (
            part("from").and_then(Value::as_str),
            part("to").and_then(Value::as_str),
            part("amount").and_then(Value::as_i64),
        ) else {
            return Err(operation.malformed("a transfer has from, to and amount"));
        };
        let moved = operation.possible() && operation.applied != Some(false);
        Ok(moved.then_some(Transfer { operation, from, to, amount }))
    }

    fn change(&self, account: &str) -> i64 {
        let out = if self.from == account { self.amount } else { 0 };
        let back = if self.to == account { self.amount } else { 0 };
        back - out
    }

    /// Whether it is known at which revision it moved money.
    fn revision(&self) -> Option<u64> {
        self.operation.revision.filter(|_| self.operation.kind == Kind::Ok)
    }
}

struct Read<'o, 'h> {
    operation: &'o Operation<'h>,
    balances: BTreeMap<&'h str, i64>,
    end: u64,
}

impl<'o, 'h> Read<'o, 'h> {
    fn of(operation: &'o Operation<'h>) -> Result<Option<Self>, Malformed> {
        let (Some(end), Some(answer)) = (operation.acknowledged(), operation.answer) else { return Ok(None) };
        let malformed = || operation.malformed("accounts are read as an object of whole numbers");
        let accounts = answer.as_object().ok_or_else(malformed)?;
        let balance = |(name, balance): (&'h String, &'h Value)| Some((name.as_str(), balance.as_i64()?));
        let balances: Option<BTreeMap<&str, i64>> = accounts.iter().map(balance).collect();
        Ok(Some(Read { operation, balances: balances.ok_or_else(malformed)?, end }))
    }

    fn total(&self) -> i64 {
        self.balances.values().sum()
    }
}

#[derive(Default)]
struct Bank<'o, 'h> {
    transfers: Vec<Transfer<'o, 'h>>,
    reads: Vec<Read<'o, 'h>>,
}

impl<'o, 'h> Bank<'o, 'h> {
    fn find(mut self) -> Finding {
        let all = format!(
            "{}, {}",
            count(self.transfers.len(), "possible transfer"),
            count(self.reads.len(), "read")
        );
        let Some(first) = self.reads.first() else {
            return Finding::unknown(CHECK, format!("{all}: the accounts were never read"));
        };
        let total = first.total();
        let single = self.reads.iter().find_map(|read| overdrawn(read).or_else(|| unequal(first, read)));
        let Some(picture) = single.or_else(|| self.misplaced()) else {
            return Finding::ok(CHECK, format!("{all}: the total is always {total}, no balance is negative"));
        };
        Finding::violation(CHECK, format!("{all}: {}", picture.explanation), picture)
    }

    /// Compares reads with the reads before them, in the order of their revisions.
    fn misplaced(&mut self) -> Option<Counterexample> {
        self.transfers.sort_by_key(Transfer::revision);
        let mut reads: Vec<(u64, &Read<'o, 'h>)> =
            self.reads.iter().filter_map(|read| Some((read.operation.revision?, read))).collect();
        reads.sort_by_key(|(revision, read)| (*revision, read.operation.start));
        reads.windows(2).find_map(|pair| self.wrong_step(pair[0], pair[1]))
    }

    fn wrong_step(
        &self,
        first: (u64, &Read<'o, 'h>),
        second: (u64, &Read<'o, 'h>),
    ) -> Option<Counterexample> {
        let ((low, first), (high, second)) = (first, second);
        // Sorted by revision; those without one come first.
        let from = self.transfers.partition_point(|transfer| transfer.revision() <= Some(low));
        let to = self.transfers.partition_point(|transfer| transfer.revision() <= Some(high));
        let known = &self.transfers[from..to];
        let unknown = self.transfers.iter().take_while(|transfer| transfer.revision().is_none());
        // At one revision nothing can have happened between.
        let unknown = unknown.filter(|transfer| low < high && transfer.operation.start <= second.end);
        let unknown: Vec<&Transfer<'_, '_>> = unknown.collect();
        for (account, after) in &second.balances {
            let before = first.balances.get(account).copied().unwrap_or(0);
            let expected = before + known.iter().map(|transfer| transfer.change(account)).sum::<i64>();
            let perhaps = unknown.iter().map(|transfer| transfer.change(account));
            let least = expected + perhaps.clone().map(|change| change.min(0)).sum::<i64>();
            let most = expected + perhaps.map(|change| change.max(0)).sum::<i64>();
            if !(least..=most).contains(after) {
                let why = format!(
                    "account {account} has {after} at revision {high}, but {before} at revision {low} and the transfers \
                     between make it {}.",
                    if least == most { least.to_string() } else { format!("{least} to {most}") },
                );
                let between = known.iter().chain(unknown).filter(|transfer| transfer.change(account) != 0);
                let shown: Vec<&Operation<'_>> = [second.operation, first.operation]
                    .into_iter()
                    .chain(between.map(|transfer| transfer.operation))
                    .collect();
                return Some(Counterexample::new(why, &shown, 0));
            }
        }
        None
    }
}

fn overdrawn(read: &Read<'_, '_>) -> Option<Counterexample> {
    let (account, balance) = read.balances.iter().find(|(_, balance)| **balance < 0)?;
    let why = format!(
        "read-all at {} found {balance} in account {account}, although transfers need enough money.",
        read.operation.place()
    );
    Some(Counterexample::new(why, &[read.operation], 0))
}

fn unequal(first: &Read<'_, '_>, read: &Read<'_, '_>) -> Option<Counterexample> {
    let (right, total) = (first.total(), read.total());
    if total == right {
        return None;
    }
    let why =
        format!("read-all at {} found {total} in all, where {right} had been found.", read.operation.place());
    Some(Counterexample::new(why, &[first.operation, read.operation], 1))
}
