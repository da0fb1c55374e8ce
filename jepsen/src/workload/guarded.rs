//! Read, then change what was read if nobody else has: etcd's way of a transaction.

use crate::client::{Answer, Caller, Demand, Failure, Found, Request, Step};

/// How often a transaction is begun anew because others were faster.
const ROUNDS_MAX: usize = 4;

/// What was read of some keys, at one revision.
pub struct Seen<'k> {
    keys: &'k [String],
    answer: Answer,
}

impl Seen<'_> {
    /// The revision of the read.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.answer.revision
    }

    /// What a key was, by its place among the keys asked for; none: it did not exist.
    #[must_use]
    pub fn key(&self, place: usize) -> Option<&Found> {
        self.answer.one(place)
    }

    /// That every key is still as it was.
    fn unchanged(&self) -> Vec<(String, Demand)> {
        let demand = |(place, key): (usize, &String)| {
            let changed_at = self.key(place).map_or(0, |found| found.changed_at);
            (key.clone(), Demand::ChangedAt(changed_at))
        };
        self.keys.iter().enumerate().map(demand).collect()
    }
}

/// What is to be done after a read.
pub enum Next<T> {
    /// Nothing: this is the operation's outcome.
    Stop(T),
    /// These changes, if all keys are still as they were read; then this is the outcome.
    Change(Vec<Step>, T),
}

/// Reads the keys at one revision, lets `decide` say what follows, and does that if no key has changed meanwhile, else begins
/// anew. Returns the outcome with the revision of the change, or of the read where nothing was to be changed.
///
/// # Errors
/// As the requests'; and surely without effect after some rounds in which others were faster.
pub async fn guarded<T: Send>(
    caller: &mut Caller,
    keys: &[String],
    decide: impl Fn(&Seen<'_>) -> Result<Next<T>, Failure> + Send + Sync,
) -> Result<(T, u64), Failure> {
    for _ in 0..ROUNDS_MAX {
        let read = Request::get_all(keys.iter().map(String::as_str));
        let seen = Seen { keys, answer: caller.call(&read).await? };
        match decide(&seen)? {
            Next::Stop(outcome) => return Ok((outcome, seen.revision())),
            Next::Change(steps, outcome) => {
                let answer = caller.call(&Request::Txn { demands: seen.unchanged(), steps }).await?;
                if answer.held {
                    return Ok((outcome, answer.revision));
                }
            }
        }
    }
    Err(Failure::definite("conflict"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::fake::Script;

    fn read_at(changed_at: u64) -> Result<Answer, Failure> {
        let found = Found { key: "a".to_owned(), value: "1".to_owned(), changed_at };
        Ok(Answer { revision: changed_at, held: true, got: vec![vec![found], vec![]] })
    }

    fn not_held() -> Result<Answer, Failure> {
        Ok(Answer { revision: 9, held: false, got: vec![] })
    }

    async fn put_a(script: &Script) -> Result<((), u64), Failure> {
        let mut caller = Caller::new(Box::new(script.clone()), Duration::from_secs(1), false);
        let keys = ["a".to_owned(), "b".to_owned()];
        let put = || vec![Step::Put("a".to_owned(), "2".to_owned())];
        guarded(&mut caller, &keys, |_| Ok(Next::Change(put(), ()))).await
    }

    #[tokio::test]
    async fn a_change_demands_that_every_key_is_as_it_was_read() {
        let held = Ok(Answer { revision: 8, held: true, got: vec![] });
        let script = Script::new([read_at(5), not_held(), read_at(6), held]);
        assert_eq!(put_a(&script).await, Ok(((), 8)));
        let requests = script.requests();
        let Request::Txn { demands, .. } = &requests[3] else { panic!("{requests:?}") };
        let demanded = [("a".to_owned(), Demand::ChangedAt(6)), ("b".to_owned(), Demand::ChangedAt(0))];
        assert_eq!(demands[..], demanded);
    }

    #[tokio::test]
    async fn others_that_are_always_faster_make_it_fail_without_effect() {
        let script = Script::new((0..ROUNDS_MAX).flat_map(|_| [read_at(5), not_held()]));
        assert_eq!(put_a(&script).await, Err(Failure::definite("conflict")));
    }

    #[tokio::test]
    async fn a_change_without_an_answer_is_not_tried_again() {
        let script = Script::new([read_at(5), Err(Failure::indefinite("lost"))]);
        assert_eq!(put_a(&script).await, Err(Failure::indefinite("lost")));
    }
}
