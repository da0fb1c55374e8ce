//! `ringfence txn`: a transaction, written as text or as JSON.

mod json;
mod text;

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use ringfence_proto::etcdserverpb::response_op::Response;
use ringfence_proto::etcdserverpb::{ResponseOp, TxnRequest, TxnResponse};
use ringfence_proto::freshness;
use ringfence_types::Freshness;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::commands::ack::{self, AckArgs};
use crate::commands::scope::FenceArgs;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};
use crate::record::{ShownKey, shown};

/// The forms of a transaction, for `--help`.
const FORMS: &str = r#"As text, one condition or operation a line; all conditions must hold for "then", else "else" is done:

    # Take the lock if nobody has it.
    if missing lock/a
    then put lock/a "me and nobody else"
    else get lock/a

  if exists KEY | missing KEY | value KEY OP VALUE | version KEY OP N | create KEY OP N | mod KEY OP N | lease KEY OP N
     where OP is = != < >
  then|else get KEY [END] | get-prefix PREFIX | put KEY VALUE | del KEY [END] | del-prefix PREFIX

Words with spaces stand in double quotes, with \" \\ \n \t \xNN inside. Or as JSON, where key_b64, value_b64 and so on
may stand for bytes that are not UTF-8:

    {"compare":[{"key":"lock/a","target":"version","op":"=","operand":0}],
     "success":[{"put":{"key":"lock/a","value":"me"}}],
     "failure":[{"get":{"key":"lock/a"}},{"del":{"key":"old/","prefix":true}}]}

Exits with 4 if the conditions did not hold and there is nothing to do "else"."#;

/// Compare, then do one of two lists of operations, all at one revision.
#[derive(Debug, Args)]
#[command(after_help = FORMS)]
pub(crate) struct Txn {
    /// The file that holds the transaction; "-" for standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    fences: FenceArgs,
    #[command(flatten)]
    ack: AckArgs,
    /// How fresh the state must be that a transaction sees which only reads: linearizable, quorum, revision=N,
    /// token=CAUSAL_TOKEN, max-age=2s or any.
    #[arg(long, value_parser = freshness::parse)]
    freshness: Option<Freshness>,
}

impl Txn {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let mut text = String::new();
        if self.file.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text)?;
        } else {
            text = std::fs::read_to_string(&self.file)
                .map_err(|error| Failure::new(Exit::General, format!("{}: {error}", self.file.display())))?;
        }
        let mut request = parse(&text).map_err(|error| {
            Failure::new(Exit::General, error)
                .next("`ringfence txn --help` shows both forms of a transaction")
        })?;
        request.fences = self.fences.to_messages();
        request.ack = self.ack.to_message();
        request.freshness = self.freshness.map(freshness::to_field);
        let nothing_else = request.failure.is_empty();
        let answer = shared.client()?.txn(request).await?;
        show(shared.output, &answer)?;
        if shared.output == Output::Table {
            ack::told(answer.checked.as_ref()).map_or(Ok(()), |told| print_line(&told))?;
        }
        if !answer.succeeded && nothing_else {
            return Err(Failure::new(Exit::Refused, "the conditions did not hold: nothing has changed"));
        }
        Ok(())
    }
}

/// Reads a transaction in whichever form it is.
pub(crate) fn parse(text: &str) -> Result<TxnRequest, String> {
    if text.trim_start().starts_with('{') { json::parse(text) } else { text::parse(text) }
}

fn show(output: Output, answer: &TxnResponse) -> Result<(), Failure> {
    match output {
        Output::Json => print_json(&json!({
            "revision": answer.header.as_ref().map_or(0, |header| header.revision),
            "succeeded": answer.succeeded,
            "responses": answer.responses.iter().map(shown_response).collect::<Vec<_>>(),
        })),
        Output::Plain | Output::Table => {
            if output == Output::Table {
                print_line(if answer.succeeded {
                    "the conditions held"
                } else {
                    "the conditions did not hold"
                })?;
            }
            answer.responses.iter().try_for_each(print_response)
        }
    }
}

fn shown_response(operation: &ResponseOp) -> Value {
    match &operation.response {
        Some(Response::ResponseRange(range)) => json!({ "get": {
            "count": range.count,
            "kvs": range.kvs.iter().map(ShownKey::new).collect::<Vec<_>>(),
        }}),
        Some(Response::ResponsePut(_)) => json!({ "put": {} }),
        Some(Response::ResponseDeleteRange(deletion)) => json!({ "del": { "deleted": deletion.deleted } }),
        Some(Response::ResponseTxn(nested)) => json!({ "txn": {
            "succeeded": nested.succeeded,
            "responses": nested.responses.iter().map(shown_response).collect::<Vec<_>>(),
        }}),
        None => Value::Null,
    }
}

fn print_response(operation: &ResponseOp) -> Result<(), Failure> {
    match &operation.response {
        Some(Response::ResponseRange(range)) => range
            .kvs
            .iter()
            .try_for_each(|kv| print_line(&format!("{}  {}", shown(&kv.key), shown(&kv.value)))),
        Some(Response::ResponsePut(_)) => print_line("put"),
        Some(Response::ResponseDeleteRange(deletion)) => print_line(&format!("deleted {}", deletion.deleted)),
        Some(Response::ResponseTxn(nested)) => nested.responses.iter().try_for_each(print_response),
        None => Ok(()),
    }
}
