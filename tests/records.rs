//! Keys with their values, as `ringfence import` reads and `ringfence export` writes them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Keys with their values, all of them text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(pub BTreeMap<String, String>);

impl Records {
    /// `count` keys under `prefix` with values that are derived from them.
    #[must_use]
    pub fn numbered(prefix: &str, count: usize) -> Records {
        let record = |number: usize| {
            // Versions as a package manager writes them, of uneven length.
            let value = format!("{}:{}.{}-{}", number % 3, number / 7, number % 97, "x".repeat(number % 41));
            (format!("{prefix}{number:06}"), value)
        };
        Records((0..count).map(record).collect())
    }

    /// Reads lines of JSON.
    ///
    /// # Panics
    /// Where a line is no record of text.
    #[must_use]
    pub fn parse(lines: &str) -> Records {
        let record = |line: &str| {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let field = |name: &str| record[name].as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
            (field("key"), field("value"))
        };
        let records: Vec<_> = lines.lines().map(record).collect();
        let count = records.len();
        let records = Records(records.into_iter().collect());
        assert_eq!(records.0.len(), count, "no key comes twice");
        records
    }

    /// Writes lines of JSON.
    #[must_use]
    pub fn lines(&self) -> String {
        self.0.iter().map(|(key, value)| format!("{}\n", json!({ "key": key, "value": value }))).collect()
    }

    /// Asserts that every record of `acknowledged` is here, as it was acknowledged.
    ///
    /// # Panics
    /// Where one is not.
    pub fn assert_contains(&self, acknowledged: &Records, holder: &str) {
        let wrong: Vec<String> = acknowledged
            .0
            .iter()
            .filter(|(key, value)| self.0.get(*key) != Some(*value))
            .map(|(key, value)| format!("{key}: acknowledged {value:?}, held {:?}", self.0.get(key)))
            .collect();
        assert!(
            wrong.is_empty(),
            "{holder} lacks {} of {} acknowledged keys, such as {}",
            wrong.len(),
            acknowledged.0.len(),
            wrong[0]
        );
    }
}
