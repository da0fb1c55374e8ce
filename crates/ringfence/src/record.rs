//! Keys and values as text: the JSON lines that `import` reads and `export` writes, and the fields that every command
//! shows. Bytes that are UTF-8 stand as they are under `key` and `value`; others stand in base64 under `key_b64` and
//! `value_b64`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ringfence_proto::mvccpb::KeyValue;
use serde::{Deserialize, Serialize};

/// One line of an import or an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// A line as it is written. Unknown fields are refused: a misspelt `value` must not become an empty one.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
}

impl Record {
    /// Reads one line.
    pub(crate) fn parse(line: &str) -> Result<Record, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let key = bytes_of("key", line.key, line.key_b64)?;
        let value = bytes_of("value", line.value, line.value_b64)?;
        if key.is_empty() {
            return Err("the key is empty".to_owned());
        }
        Ok(Record { key, value })
    }

    /// The line, without its end.
    pub(crate) fn to_line(&self) -> String {
        let (key, key_b64) = text_of(&self.key);
        let (value, value_b64) = text_of(&self.value);
        serde_json::to_string(&Line { key, key_b64, value, value_b64 })
            .expect("strings alone always have a JSON form")
    }
}

/// A key with its fields, as `--output json` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ShownKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
}

impl ShownKey {
    pub(crate) fn new(kv: &KeyValue) -> ShownKey {
        let (key, key_b64) = text_of(&kv.key);
        let (value, value_b64) = text_of(&kv.value);
        ShownKey {
            key,
            key_b64,
            value,
            value_b64,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }
}

/// The bytes of a field that may be given as text or in base64, but not as both.
pub(crate) fn bytes_of(name: &str, text: Option<String>, base64: Option<String>) -> Result<Bytes, String> {
    match (text, base64) {
        (Some(text), None) => Ok(Bytes::from(text)),
        (None, Some(base64)) => {
            BASE64.decode(base64).map(Bytes::from).map_err(|error| format!("{name}_b64: {error}"))
        }
        (Some(_), Some(_)) => Err(format!("both {name} and {name}_b64 are given")),
        (None, None) => Err(format!("neither {name} nor {name}_b64 is given")),
    }
}

/// Bytes as text if they are UTF-8, else in base64.
pub(crate) fn text_of(bytes: &Bytes) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

/// Bytes for people: as they are if they are printable text, else with escapes.
pub(crate) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_line() {
        for (key, value) in
            [(&b"pkg/zlib1g"[..], &b"1:1.3"[..]), (b"\xff\x00", b""), ("schlüssel".as_bytes(), b"\x80a\n\"")]
        {
            let record = Record { key: Bytes::from_static(key), value: Bytes::from_static(value) };
            let line = record.to_line();
            assert!(!line.contains('\n'), "a record must stay on one line: {line}");
            assert_eq!(Record::parse(&line).expect("it was just written"), record);
        }
    }

    #[test]
    fn text_stays_text_and_other_bytes_become_base64() {
        let record = Record { key: Bytes::from_static(b"a"), value: Bytes::from_static(b"\xff") };
        assert_eq!(record.to_line(), r#"{"key":"a","value_b64":"/w=="}"#);
    }

    #[test]
    fn a_line_that_leaves_doubt_is_refused() {
        for (line, reason) in [
            (r#"{"key":"a"}"#, "neither value nor value_b64"),
            (r#"{"key":"a","value":"b","value_b64":"Yg=="}"#, "both value and value_b64"),
            (r#"{"key":"a","vlaue":"b"}"#, "unknown field `vlaue`"),
            (r#"{"key":"","value":"b"}"#, "the key is empty"),
            (r#"{"key":"a","value_b64":"?"}"#, "value_b64"),
            (r#"{"key":"a","value":1}"#, "invalid type"),
            ("", "EOF"),
        ] {
            let error = Record::parse(line).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
