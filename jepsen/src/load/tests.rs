//! Whole histories of one process on a correct store in memory that loses answers: lawful as they are, and seen to be wrong
//! once the client sends what has no outcome again.

use std::sync::Arc;
use std::time::Duration;

use ringfence_checker::{Budget, Finding, History, Verdict};

use super::process::{Numbers, Process};
use super::recorder::{Counts, Recorder};
use crate::client::fake::Memory;
use crate::client::{Caller, Kind};
use crate::workload::{self, Workload};
use crate::world::Clock;

const OPERATIONS: usize = 400;
/// One in so many changes has no answer.
const LOST_ONE_IN: u64 = 9;

async fn history_of(workload: &dyn Workload, retry_indefinite: bool) -> History {
    let file = tempfile::NamedTempFile::new().expect("the temporary directory is writable");
    let counts = Arc::new(Counts::default());
    let recorder = Recorder::start(file.path(), Clock::start(), counts);
    let (recorder, writer) = recorder.expect("the temporary directory is writable");
    let client = Box::new(Memory::new(LOST_ONE_IN));
    let mut caller = Caller::new(client, Duration::from_secs(1), retry_indefinite);
    if let Some(founding) = workload.founding() {
        caller.call(&founding).await.expect("the first answer is not lost");
    }
    let mut process = Process::new(Kind::Etcd, &Numbers::default(), caller);
    let mut generator = workload.generator(3);
    for _ in 0..OPERATIONS {
        process.perform(workload, &generator.next(), &recorder).await;
    }
    for read in generator.final_reads() {
        process.perform(workload, &read, &recorder).await;
    }
    drop(recorder);
    writer.finish().expect("the temporary directory is writable")
}

async fn findings(name: &str, retry_indefinite: bool) -> Vec<Finding> {
    let workload = workload::named(name).expect("it is ready");
    let history = history_of(&*workload, retry_indefinite).await;
    workload.check(&history, Budget::default())
}

#[tokio::test]
async fn lost_answers_alone_are_no_violation() {
    for name in ["register", "counter", "set", "list-append", "bank", "watch"] {
        let findings = findings(name, false).await;
        assert!(!findings.is_empty());
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{name}: {findings:?}");
    }
}

/// A register cannot show it here, since nobody else writes between the two.
#[tokio::test]
async fn a_client_that_sends_them_again_is_caught() {
    for name in ["counter", "set", "list-append", "bank", "watch"] {
        let findings = findings(name, true).await;
        assert!(findings.iter().any(|finding| finding.verdict == Verdict::Violation), "{name}: {findings:?}");
    }
}
