//! What fuzz targets reach of this crate, and nobody else: the decoders of text that a user hands in.

use crate::commands::serve::settings::Settings;
use crate::record::Record;

/// One line of an import. What is read is written, and read again, as the same.
pub fn import_record(line: &str) {
    let Ok(record) = Record::parse(line) else { return };
    let again = Record::parse(&record.to_line());
    assert_eq!(again.as_ref(), Ok(&record), "a record survives its own line");
}

/// A configuration file.
pub fn configuration(text: &str) {
    if let Err(reason) = Settings::parse(text) {
        assert!(!reason.is_empty(), "a refusal says why");
    }
}
