//! The JSON form of a transaction.

use bytes::Bytes;
use ringfence_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use ringfence_proto::etcdserverpb::request_op::Request;
use ringfence_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use serde::Deserialize;

use super::text::{operator_of, target_of};
use crate::commands::range::prefix_to_etcd;
use crate::record::bytes_of;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TxnJson {
    #[serde(default)]
    compare: Vec<CompareJson>,
    #[serde(default)]
    success: Vec<OperationJson>,
    #[serde(default)]
    failure: Vec<OperationJson>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareJson {
    key: Option<String>,
    key_b64: Option<String>,
    range_end: Option<String>,
    target: String,
    op: String,
    operand: Option<OperandJson>,
    operand_b64: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OperandJson {
    Number(i64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum OperationJson {
    Get(RangeJson),
    Put(PutJson),
    Del(RangeJson),
    Txn(TxnJson),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeJson {
    key: Option<String>,
    key_b64: Option<String>,
    range_end: Option<String>,
    #[serde(default)]
    prefix: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutJson {
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
    #[serde(default)]
    lease: i64,
}

/// Reads a transaction.
pub(super) fn parse(text: &str) -> Result<TxnRequest, String> {
    let txn: TxnJson = serde_json::from_str(text).map_err(|error| error.to_string())?;
    txn.into_request()
}

impl TxnJson {
    fn into_request(self) -> Result<TxnRequest, String> {
        let operations = |list: Vec<OperationJson>| -> Result<Vec<RequestOp>, String> {
            list.into_iter().map(OperationJson::into_request).collect()
        };
        Ok(TxnRequest {
            compare: self.compare.into_iter().map(CompareJson::into_request).collect::<Result<_, _>>()?,
            success: operations(self.success)?,
            failure: operations(self.failure)?,
            ..Default::default()
        })
    }
}

impl CompareJson {
    fn into_request(self) -> Result<Compare, String> {
        let key = bytes_of("key", self.key, self.key_b64)?;
        let (target, target_union) = match (self.target.as_str(), self.operand, self.operand_b64) {
            ("value", Some(OperandJson::Text(text)), None) => {
                (CompareTarget::Value, TargetUnion::Value(Bytes::from(text)))
            }
            ("value", None, Some(base64)) => {
                (CompareTarget::Value, TargetUnion::Value(bytes_of("operand", None, Some(base64))?))
            }
            ("value", ..) => {
                return Err("a compare of a value needs a text as its operand, or operand_b64".to_owned());
            }
            (field, Some(OperandJson::Number(number)), None) => target_of(field, number)?,
            (field, ..) => return Err(format!("a compare of {field} needs a number as its operand")),
        };
        Ok(Compare {
            result: operator_of(&self.op)?.into(),
            target: target.into(),
            key,
            range_end: self.range_end.map_or_else(Bytes::new, Bytes::from),
            target_union: Some(target_union),
        })
    }
}

impl OperationJson {
    fn into_request(self) -> Result<RequestOp, String> {
        let request = match self {
            OperationJson::Get(range) => {
                let (key, range_end) = range.into_etcd()?;
                Request::RequestRange(RangeRequest { key, range_end, ..RangeRequest::default() })
            }
            OperationJson::Del(range) => {
                let (key, range_end) = range.into_etcd()?;
                Request::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    range_end,
                    prev_kv: false,
                    ..Default::default()
                })
            }
            OperationJson::Put(put) => Request::RequestPut(PutRequest {
                key: bytes_of("key", put.key, put.key_b64)?,
                value: bytes_of("value", put.value, put.value_b64)?,
                lease: put.lease,
                ..PutRequest::default()
            }),
            OperationJson::Txn(nested) => Request::RequestTxn(nested.into_request()?),
        };
        Ok(RequestOp { request: Some(request) })
    }
}

impl RangeJson {
    fn into_etcd(self) -> Result<(Bytes, Bytes), String> {
        let key = bytes_of("key", self.key, self.key_b64)?;
        match (self.prefix, self.range_end) {
            (true, None) => Ok(prefix_to_etcd(&key)),
            (false, end) => Ok((key, end.map_or_else(Bytes::new, Bytes::from))),
            (true, Some(_)) => Err("both prefix and range_end are given".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::txn::text;

    #[test]
    fn both_forms_say_the_same() {
        let json = r#"{"compare":[{"key":"a","target":"version","op":"=","operand":0},
                                  {"key":"b","target":"value","op":"!=","operand":"x y"}],
                       "success":[{"put":{"key":"a","value":"v"}}],
                       "failure":[{"get":{"key":"l/","prefix":true}},{"del":{"key":"a","range_end":"c"}}]}"#;
        let text = "if missing a\nif value b != \"x y\"\nthen put a v\nelse get-prefix l/\nelse del a c\n";
        assert_eq!(parse(json), text::parse(text));
        assert!(parse(json).is_ok());
    }

    #[test]
    fn what_leaves_doubt_is_refused() {
        for (json, reason) in [
            (r#"{"sucess":[]}"#, "unknown field `sucess`"),
            (r#"{"compare":[{"key":"a","target":"value","op":"=","operand":1}]}"#, "needs a text"),
            (r#"{"compare":[{"key":"a","target":"mod","op":"=","operand":"1"}]}"#, "needs a number"),
            (
                r#"{"success":[{"get":{"key":"a","prefix":true,"range_end":"b"}}]}"#,
                "both prefix and range_end",
            ),
            (r#"{"success":[{"put":{"key":"a"}}]}"#, "neither value nor value_b64"),
        ] {
            let error = parse(json).expect_err(json);
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
