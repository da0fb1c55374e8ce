//! Keys that are written, one or several at once, and deleted; and watchers of some or all of them, which go away all the time and
//! come back at another node, mostly where they were.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::Function;
use serde_json::{Map, Value, json};

use super::{Done, Generator, Operation, Workload, stored};
use crate::client::{self, Caller, Failure, Freshness, Request, Step, Watched, Watching};

/// What all keys begin with.
const ALL: &str = "watch/";
/// Groups of keys, and keys of each: few, so that each is in many watches.
const GROUPS: usize = 3;
const KEYS: usize = 4;
/// Watchers at a time; each takes a process for as long as it listens.
const WATCHERS: usize = 16;
/// Most revisions of which a watcher is told something before it goes.
const CHANGES_MAX: u64 = 200;
/// How long it listens at most, in milliseconds: less than an operation may take.
const LISTENS: std::ops::RangeInclusive<u64> = 20..=1_200;
/// How far back a watcher begins that looks at the past.
const PAST_MAX: u64 = 300;
/// At the end all that ever happened is watched, by watchers that are told of so many revisions.
const FINAL_CHANGES: u64 = 1_000;

/// The workload.
#[derive(Default)]
pub struct Watch {
    shared: Arc<Shared>,
}

/// What processes know.
#[derive(Default)]
struct Shared(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The highest revision that an answer told.
    newest: u64,
    /// Watchers that are away.
    away: VecDeque<Watcher>,
}

/// Somebody who watches a key, or all that begin with it where it ends in a slash, and begins anew with this revision.
struct Watcher {
    key: String,
    next: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Workload for Watch {
    fn generator(&self, seed: u64) -> Box<dyn Generator> {
        let mut rng = StdRng::seed_from_u64(seed);
        let watchers = (0..WATCHERS).map(|_| Watcher { key: watched(&mut rng), next: 0 }).collect();
        self.shared.lock().away = watchers;
        Box::new(Watches { rng, shared: Arc::clone(&self.shared), values: 0 })
    }

    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        if operation.f == Function::Watch {
            return self.watch(operation, caller).await;
        }
        let answer = caller.call(&request(operation)).await?;
        let mut known = self.shared.lock();
        known.newest = known.newest.max(answer.revision);
        Ok(match operation.f {
            Function::Delete => Done::conditional(Value::Null, answer.held, answer.revision),
            _ => Done::new(operation.value.clone(), answer.revision),
        })
    }
}

/// A change as a request.
fn request(operation: &Operation) -> Request {
    match (operation.f, &operation.value) {
        (Function::Write, value) => Request::Put(operation.key().to_owned(), value.to_string()),
        (Function::Delete, _) => Request::Delete(operation.key().to_owned()),
        (Function::WriteAll, Value::Object(values)) => {
            let put = |(key, value): (&String, &Value)| Step::Put(key.clone(), value.to_string());
            Request::Txn { demands: Vec::new(), steps: values.iter().map(put).collect() }
        }
        other => unreachable!("watches draw no {other:?}"),
    }
}

impl Watch {
    async fn watch(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        let key = operation.key().to_owned();
        let asked = |what: &str| operation.value[what].as_u64().unwrap_or(0);
        let keys = match key.ends_with('/') {
            true => client::Keys::Prefix(key.clone()),
            false => client::Keys::One(key.clone()),
        };
        let (changes_max, time) = (asked("changes"), Duration::from_millis(asked("ms")));
        let told = caller.watch(&Watching { keys, from: asked("from"), changes_max, time }).await;
        let next = match &told {
            Ok(Watched { compacted: Some(oldest), .. }) => *oldest,
            Ok(watched) => watched.to + 1,
            Err(_) => asked("from"),
        };
        self.shared.lock().away.push_back(Watcher { key, next });
        let Watched { from, to, events, compacted, broken } = told?;
        let events: Vec<Value> = events
            .into_iter()
            .map(|told| json!([told.revision, told.key, told.value.map(|value| stored(&value))]))
            .collect();
        let mut value = json!({ "from": from, "to": to, "events": events });
        if let Some(oldest) = compacted {
            value["compacted"] = json!(oldest);
        }
        if let Some(why) = broken {
            value["broken"] = json!(why);
        }
        Ok(Done::new(value, to))
    }
}

/// Draws a key to write.
fn written(rng: &mut StdRng) -> String {
    format!("{ALL}{}/{}", rng.random_range(0..GROUPS), rng.random_range(0..KEYS))
}

/// Draws what to watch: one key, a group, or all.
fn watched(rng: &mut StdRng) -> String {
    match rng.random_range(0..10) {
        0..3 => written(rng),
        3..7 => format!("{ALL}{}/", rng.random_range(0..GROUPS)),
        _ => ALL.to_owned(),
    }
}

fn watch(key: String, from: u64, changes: u64, ms: u64) -> Operation {
    let value = json!({ "from": from, "changes": changes, "ms": ms });
    // What a member tells that is cut off is true, and older than what others know.
    Operation::on(key, Function::Watch, value).as_fresh_as(Freshness::Any)
}

struct Watches {
    rng: StdRng,
    shared: Arc<Shared>,
    /// Values drawn so far; each is drawn once.
    values: u64,
}

impl Watches {
    fn value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// Lets a watcher come back, if one is away.
    fn watch(&mut self) -> Option<Operation> {
        let mut known = self.shared.lock();
        let Watcher { key, next } = known.away.pop_front()?;
        let newest = known.newest;
        drop(known);
        let (key, from) = match self.rng.random_range(0..20) {
            0..14 => (key, next),
            14..16 => (key, 0),
            16..18 => (key, self.rng.random_range(newest.saturating_sub(PAST_MAX)..=newest)),
            _ => (watched(&mut self.rng), next),
        };
        Some(watch(key, from, self.rng.random_range(1..=CHANGES_MAX), self.rng.random_range(LISTENS)))
    }
}

impl Generator for Watches {
    fn next(&mut self) -> Operation {
        match self.rng.random_range(0..100) {
            0..15 => {
                if let Some(watch) = self.watch() {
                    return watch;
                }
            }
            15..35 => {
                let mut values = Map::new();
                for _ in 0..self.rng.random_range(2..=4) {
                    values.insert(written(&mut self.rng), json!(self.value()));
                }
                return Operation::over_all(Function::WriteAll, values);
            }
            35..45 => return Operation::on(written(&mut self.rng), Function::Delete, Value::Null),
            _ => {}
        }
        let key = written(&mut self.rng);
        Operation::on(key, Function::Write, self.value())
    }

    fn final_reads(&self) -> Vec<Operation> {
        let newest = self.shared.lock().newest;
        let begins = (1..=newest).step_by(usize::try_from(FINAL_CHANGES).unwrap_or(usize::MAX));
        // Of a history that was compacted the last revision is there at least.
        let begins = begins.chain((newest > 0).then_some(newest));
        begins.map(|from| watch(ALL.to_owned(), from, FINAL_CHANGES, 0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_come_back_where_they_were_and_the_end_is_watched_whole() {
        let watch = Watch::default();
        let mut generator = watch.generator(7);
        let is_watch = |operation: &Operation| operation.f == Function::Watch;
        let first: Vec<Operation> = (0..2_000).map(|_| generator.next()).collect();
        assert_eq!(first.iter().filter(|operation| is_watch(operation)).count(), WATCHERS);
        {
            let mut known = watch.shared.lock();
            known.newest = 2_500;
            let back = |number| Watcher { key: format!("back/{number}"), next: 2_400 };
            known.away.extend((0..200).map(back));
        }
        let again: Vec<Operation> = (0..4_000).map(|_| generator.next()).filter(is_watch).collect();
        assert_eq!(again.len(), 200);
        let resumed = |watch: &&Operation| watch.key().starts_with("back/") && watch.value["from"] == 2_400;
        let resumed = again.iter().filter(resumed).count();
        assert!((100..180).contains(&resumed), "{resumed} begin where they were");
        let begins: Vec<u64> =
            generator.final_reads().iter().filter_map(|watch| watch.value["from"].as_u64()).collect();
        assert_eq!(begins, [1, 1_001, 2_001, 2_500]);
    }
}
