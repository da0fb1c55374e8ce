//! The text form of a transaction: one condition or operation a line.

use bytes::Bytes;
use ringfence_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ringfence_proto::etcdserverpb::request_op::Request;
use ringfence_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::commands::range::prefix_to_etcd;

/// Reads a transaction; an error names its line.
pub(super) fn parse(text: &str) -> Result<TxnRequest, String> {
    let mut request = TxnRequest::default();
    for (number, line) in text.lines().enumerate() {
        parse_line(line, &mut request).map_err(|error| format!("line {}: {error}", number + 1))?;
    }
    if request == TxnRequest::default() {
        return Err("the transaction is empty".to_owned());
    }
    Ok(request)
}

fn parse_line(line: &str, request: &mut TxnRequest) -> Result<(), String> {
    let words = words(line)?;
    let Some((first, rest)) = words.split_first() else { return Ok(()) };
    match first.as_ref() {
        b"if" => request.compare.push(condition(rest)?),
        b"then" => request.success.push(operation(rest)?),
        b"else" => request.failure.push(operation(rest)?),
        other => return Err(format!("{:?} is none of if, then, else", String::from_utf8_lossy(other))),
    }
    Ok(())
}

fn condition(words: &[Bytes]) -> Result<Compare, String> {
    let none = || "0".to_owned();
    match words {
        [kind, key] if kind == "exists" => compare(key, "version", ">", none()),
        [kind, key] if kind == "missing" => compare(key, "version", "=", none()),
        [kind, key, operator, value] if kind == "value" => {
            let result = operator_of(&String::from_utf8_lossy(operator))?;
            Ok(Compare {
                result: result.into(),
                target: CompareTarget::Value.into(),
                key: key.clone(),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::Value(value.clone())),
            })
        }
        [kind, key, operator, number] => {
            let text = |word: &Bytes| String::from_utf8_lossy(word).into_owned();
            compare(key, &text(kind), &text(operator), text(number))
        }
        _ => Err("a condition is `exists KEY`, `missing KEY`, or a field, a key, an operator and a value"
            .to_owned()),
    }
}

/// A comparison of a field that is a number.
fn compare(key: &Bytes, field: &str, operator: &str, number: String) -> Result<Compare, String> {
    let number: i64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    let (target, target_union) = target_of(field, number)?;
    Ok(Compare {
        result: operator_of(operator)?.into(),
        target: target.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(target_union),
    })
}

/// The numeric field of a comparison by its name.
pub(super) fn target_of(field: &str, number: i64) -> Result<(CompareTarget, TargetUnion), String> {
    match field {
        "version" => Ok((CompareTarget::Version, TargetUnion::Version(number))),
        "create" => Ok((CompareTarget::Create, TargetUnion::CreateRevision(number))),
        "mod" => Ok((CompareTarget::Mod, TargetUnion::ModRevision(number))),
        "lease" => Ok((CompareTarget::Lease, TargetUnion::Lease(number))),
        other => Err(format!("{other:?} is none of value, version, create, mod, lease")),
    }
}

/// The relation of a comparison by its sign.
pub(super) fn operator_of(sign: &str) -> Result<CompareResult, String> {
    match sign {
        "=" | "==" => Ok(CompareResult::Equal),
        "!=" => Ok(CompareResult::NotEqual),
        ">" => Ok(CompareResult::Greater),
        "<" => Ok(CompareResult::Less),
        other => Err(format!("{other:?} is none of = != < >")),
    }
}

fn operation(words: &[Bytes]) -> Result<RequestOp, String> {
    let range = |key: &Bytes, range_end: Bytes| (key.clone(), range_end);
    let request = match words {
        [verb, key] if verb == "get" => get(range(key, Bytes::new())),
        [verb, key, end] if verb == "get" => get(range(key, end.clone())),
        [verb, prefix] if verb == "get-prefix" => get(prefix_to_etcd(prefix)),
        [verb, key] if verb == "del" => del(range(key, Bytes::new())),
        [verb, key, end] if verb == "del" => del(range(key, end.clone())),
        [verb, prefix] if verb == "del-prefix" => del(prefix_to_etcd(prefix)),
        [verb, key, value] if verb == "put" => Request::RequestPut(PutRequest {
            key: key.clone(),
            value: value.clone(),
            ..PutRequest::default()
        }),
        _ => {
            return Err(
                "an operation is `get KEY [END]`, `get-prefix PREFIX`, `put KEY VALUE`, `del KEY [END]` or \
                        `del-prefix PREFIX`"
                    .to_owned(),
            );
        }
    };
    Ok(RequestOp { request: Some(request) })
}

fn get((key, range_end): (Bytes, Bytes)) -> Request {
    Request::RequestRange(RangeRequest { key, range_end, ..RangeRequest::default() })
}

fn del((key, range_end): (Bytes, Bytes)) -> Request {
    Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false, ..Default::default() })
}

/// The words of a line: separated by white space, or in double quotes; a `#` outside quotes ends the line.
fn words(line: &str) -> Result<Vec<Bytes>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let word;
        (word, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_word(quoted)?,
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (Bytes::copy_from_slice(&rest.as_bytes()[..end]), &rest[end..])
            }
        };
        words.push(word);
        rest = rest.trim_start();
    }
    Ok(words)
}

/// The word that ends at the next quote, and what follows the quote.
fn quoted_word(text: &str) -> Result<(Bytes, &str), String> {
    let mut word = Vec::new();
    let mut rest = text;
    loop {
        let mut chars = rest.chars();
        let c = chars.next().ok_or("a quote is not closed")?;
        rest = chars.as_str();
        match c {
            '"' => return Ok((Bytes::from(word), rest)),
            '\\' => {
                let escape = chars.next().ok_or("a quote is not closed")?;
                rest = chars.as_str();
                match escape {
                    '"' | '\\' => word.push(escape as u8),
                    'n' => word.push(b'\n'),
                    't' => word.push(b'\t'),
                    'x' => {
                        let digits = rest.get(..2).ok_or("\\x needs two hexadecimal digits")?;
                        word.push(
                            u8::from_str_radix(digits, 16).map_err(|_| "\\x needs two hexadecimal digits")?,
                        );
                        rest = &rest[2..];
                    }
                    other => {
                        return Err(format!("\\{other} is no escape; there are \\\" \\\\ \\n \\t \\xNN"));
                    }
                }
            }
            other => word.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_read_line_by_line() {
        let text = "# take the lock\nif missing lock/a\nif value b != \"x y\" # and so on\n\n\
                    then put lock/a \"\\x00\\n\\\"\"\nelse get-prefix lock/\nelse del a c\n";
        let request = parse(text).expect("it is lawful");
        assert_eq!(request.compare.len(), 2);
        assert_eq!(request.compare[0].target_union, Some(TargetUnion::Version(0)));
        assert_eq!(request.compare[1].result, i32::from(CompareResult::NotEqual));
        assert_eq!(request.compare[1].target_union, Some(TargetUnion::Value(Bytes::from_static(b"x y"))));
        let Some(Request::RequestPut(put)) = &request.success[0].request else { panic!("{request:?}") };
        assert_eq!((put.key.as_ref(), put.value.as_ref()), (&b"lock/a"[..], &b"\0\n\""[..]));
        let Some(Request::RequestRange(range)) = &request.failure[0].request else { panic!("{request:?}") };
        assert_eq!((range.key.as_ref(), range.range_end.as_ref()), (&b"lock/"[..], &b"lock0"[..]));
        let Some(Request::RequestDeleteRange(del)) = &request.failure[1].request else {
            panic!("{request:?}")
        };
        assert_eq!((del.key.as_ref(), del.range_end.as_ref()), (&b"a"[..], &b"c"[..]));
    }

    #[test]
    fn errors_name_the_line_and_what_is_possible() {
        for (text, reason) in [
            ("", "the transaction is empty"),
            ("# nothing", "the transaction is empty"),
            ("if missing a\nwhen b", "line 2: \"when\" is none of if, then, else"),
            ("if version a = many", "line 1: \"many\" is not a number"),
            ("if size a = 1", "\"size\" is none of value, version"),
            ("if value a ~ b", "\"~\" is none of ="),
            ("then put a", "an operation is"),
            ("then put a \"b", "a quote is not closed"),
            ("then put a \"\\q\"", "\\q is no escape"),
            ("then put a \"\\xé\"", "two hexadecimal digits"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
