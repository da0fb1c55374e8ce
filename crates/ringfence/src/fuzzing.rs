//! What fuzz targets reach of this crate, and nobody else: the decoders of text that a user hands in.

use crate::commands::serve::settings::Settings;
use crate::commands::txn;
use crate::record::Record;

/// Reads one line of an import.
///
/// # Panics
/// If a record that can be read is written as another one.
pub fn import_record(line: &str) {
    let Ok(record) = Record::parse(line) else { return };
    assert_eq!(Record::parse(&record.to_line()), Ok(record));
}

/// Reads a configuration file.
///
/// # Panics
/// If it is refused without a reason.
pub fn configuration(text: &str) {
    if let Err(reason) = Settings::parse(text) {
        assert!(!reason.trim().is_empty());
    }
}

/// Reads a transaction, as text or as JSON.
///
/// # Panics
/// If it is refused without a reason.
pub fn transaction(text: &str) {
    if let Err(reason) = txn::parse(text) {
        assert!(!reason.trim().is_empty());
    }
}
