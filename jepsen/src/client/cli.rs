//! The program itself as a client, a process for each request, as a script would use it.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::Instant;

use super::{Answer, Client, Demand, Failure, Found, Freshness, Keys, Node, Request, Step};
use crate::world::Place;

/// The exit code of a `get` that saw nothing and of a `del` that deleted nothing, which are answers.
const EXIT_NOT_FOUND: i32 = 3;
/// The exit code of a `txn` whose conditions did not hold, which is an answer if one was printed.
const EXIT_REFUSED: i32 = 4;

/// A client of one node.
pub struct Cli {
    node: Node,
    program: PathBuf,
    place: Place,
}

impl Cli {
    /// A client of this node that runs this program in this place.
    #[must_use]
    pub fn new(node: Node, program: PathBuf, place: Place) -> Cli {
        Cli { node, program, place }
    }

    async fn run(&self, arguments: Vec<String>, input: &str, deadline: Instant) -> Result<Output, Failure> {
        let timeout = deadline.saturating_duration_since(Instant::now()).as_millis();
        let mut command = std::process::Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGFENCE_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .arg("--output=json")
            .arg(format!("--endpoints={}", self.node.address))
            .arg(format!("--timeout={timeout}ms"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.place.prepare(&mut command);
        let mut command = Command::from(command);
        // A call that is given up takes its process with it.
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::definite(format!("not run: {error}")))?;
        let mut stdin = child.stdin.take().expect("it was asked for");
        // A process that ends without reading its input closes the pipe; its exit code says why it did.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.map_err(|error| Failure::indefinite(error.to_string()))
    }
}

#[tonic::async_trait]
impl Client for Cli {
    fn node(&self) -> Option<u64> {
        Some(self.node.number)
    }

    async fn call(&mut self, request: &Request, deadline: Instant) -> Result<Answer, Failure> {
        let Some((arguments, input)) = command_line(request) else {
            return Err(Failure::definite("nobody asks the command line for this again and again"));
        };
        answered(&self.run(arguments, &input, deadline).await?)
    }
}

/// A request as a command's arguments and standard input, if it is one for a command.
fn command_line(request: &Request) -> Option<(Vec<String>, String)> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    Some(match request {
        Request::Get(keys, freshness) => {
            let mut arguments = match keys {
                Keys::One(key) => words(&["get", key]),
                Keys::Prefix(prefix) => words(&["get", prefix, "--prefix"]),
            };
            match freshness {
                Freshness::Linearizable => {}
                Freshness::Any => arguments.push("--serializable".to_owned()),
            }
            (arguments, String::new())
        }
        Request::Put(key, value) => (words(&["put", key, value]), String::new()),
        Request::Delete(key) => (words(&["del", key]), String::new()),
        Request::Txn { demands, steps } => (words(&["txn"]), txn(demands, steps).to_string()),
        Request::Right(right) => (right.command_line()?, String::new()),
    })
}

fn txn(demands: &[(String, Demand)], steps: &[Step]) -> Value {
    let compare = |(key, demand): &(String, Demand)| match demand {
        Demand::Value(value) => json!({ "key": key, "target": "value", "op": "=", "operand": value }),
        Demand::ChangedAt(revision) => json!({ "key": key, "target": "mod", "op": "=", "operand": revision }),
    };
    let step = |step: &Step| match step {
        Step::Get(Keys::One(key)) => json!({ "get": { "key": key } }),
        Step::Get(Keys::Prefix(prefix)) => json!({ "get": { "key": prefix, "prefix": true } }),
        Step::Put(key, value) => json!({ "put": { "key": key, "value": value } }),
    };
    json!({
        "compare": demands.iter().map(compare).collect::<Vec<_>>(),
        "success": steps.iter().map(step).collect::<Vec<_>>(),
    })
}

/// What a command prints with `--output json`.
#[derive(Debug, Deserialize)]
struct Printed {
    revision: u64,
    succeeded: Option<bool>,
    deleted: Option<i64>,
    #[serde(default)]
    kvs: Vec<Kv>,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Debug, Deserialize)]
struct Response {
    get: Option<Got>,
}

#[derive(Debug, Deserialize)]
struct Got {
    kvs: Vec<Kv>,
}

#[derive(Debug, Deserialize)]
struct Kv {
    key: String,
    value: String,
    mod_revision: i64,
}

fn answered(output: &Output) -> Result<Answer, Failure> {
    let code = output.status.code();
    let failed = || Failure::of_exit(code, &String::from_utf8_lossy(&output.stderr));
    if !matches!(code, Some(0 | EXIT_NOT_FOUND | EXIT_REFUSED)) || output.stdout.is_empty() {
        return Err(failed());
    }
    let printed: Printed = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::indefinite(format!("what it printed cannot be read: {error}")))?;
    let found = |kvs: Vec<Kv>| -> Result<Vec<Found>, Failure> {
        kvs.iter().map(|kv| Found::new(kv.key.as_bytes(), kv.value.as_bytes(), kv.mod_revision)).collect()
    };
    // Only a transaction says whether it succeeded; every other command reads at most once.
    let got = match printed.succeeded {
        Some(_) => {
            printed.responses.into_iter().filter_map(|one| one.get).map(|got| found(got.kvs)).collect()
        }
        None => found(printed.kvs).map(|kvs| vec![kvs]),
    };
    let held = printed.succeeded.unwrap_or(true) && printed.deleted != Some(0);
    Ok(Answer { revision: printed.revision, held, got: got? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;
    use crate::client::Applied;

    fn ended(code: i32, stdout: &str, stderr: &str) -> Result<Answer, Failure> {
        let status = ExitStatus::from_raw(code << 8);
        answered(&Output { status, stdout: stdout.into(), stderr: stderr.into() })
    }

    #[test]
    fn an_answer_that_was_printed_is_one_whatever_the_code() {
        let kv = r#"{"key":"a","value":"1","create_revision":2,"mod_revision":3,"version":1,"lease":0}"#;
        let got = ended(0, &format!(r#"{{"revision":7,"count":1,"more":false,"kvs":[{kv}]}}"#), "");
        let found = Found { key: "a".to_owned(), value: "1".to_owned(), changed_at: 3 };
        assert_eq!(got, Ok(Answer { revision: 7, held: true, got: vec![vec![found.clone()]] }));
        let absent = ended(3, r#"{"revision":7,"count":0,"more":false,"kvs":[]}"#, "error: no such key");
        assert_eq!(absent, Ok(Answer { revision: 7, held: true, got: vec![vec![]] }));
        let text = format!(
            r#"{{"revision":8,"succeeded":true,"responses":[{{"put":{{}}}},{{"get":{{"kvs":[{kv}]}}}}]}}"#
        );
        assert_eq!(ended(0, &text, ""), Ok(Answer { revision: 8, held: true, got: vec![vec![found]] }));
        let not_held = ended(4, r#"{"revision":8,"succeeded":false,"responses":[]}"#, "error: did not hold");
        assert_eq!(not_held, Ok(Answer { revision: 8, held: false, got: vec![] }));
        let nothing = ended(3, r#"{"revision":8,"deleted":0,"prev_kvs":[]}"#, "error: no such key");
        assert_eq!(nothing.map(|answer| answer.held), Ok(false));
    }

    #[test]
    fn without_an_answer_the_code_decides() {
        for (code, stdout, applied) in [
            (4, "", Applied::No),
            (6, "", Applied::No),
            (5, "", Applied::Unknown),
            (0, "", Applied::Unknown),
            (0, "{", Applied::Unknown),
            (1, r#"{"revision":8}"#, Applied::Unknown),
        ] {
            let failure = ended(code, stdout, "error: words").expect_err("it is none");
            assert_eq!(failure.applied, applied, "{code} {stdout:?}");
        }
    }
}
