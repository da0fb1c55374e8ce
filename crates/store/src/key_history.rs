//! The past of one key, from the index: as long as its versions are many, however long the history of all keys.

use bytes::Bytes;
use ringfence_types::{Event, EventKind, Revision};

use crate::error::ReadError;
use crate::view::View;

/// A part of a key's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyVersions {
    /// The versions, the newest first, each as the event that made it.
    pub versions: Vec<Event>,
    /// Whether older ones follow.
    pub more: bool,
}

impl View {
    /// The versions of `key` up to `revision` (the newest revision for 0), back to the oldest one that a read can still find: up
    /// to `versions_max` of them, and no further once they have `bytes_max` bytes, but at least one.
    ///
    /// # Errors
    /// Refused where the revision is gone or not there yet.
    pub fn key_versions(
        &self,
        key: &Bytes,
        revision: Revision,
        versions_max: usize,
        bytes_max: usize,
    ) -> Result<KeyVersions, ReadError> {
        let oldest = self.state.compacted;
        let mut at = self.state.readable(Some(revision))?;
        let mut versions: Vec<Event> = Vec::new();
        let mut bytes = 0;
        loop {
            let Some(found) = self.sources.newest(None, key, at)? else { break };
            let made_at = found.row.stamp.revision;
            // Whether compaction has removed a tombstone yet differs between members; nobody can read it either way.
            if found.row.deleted && made_at <= oldest {
                break;
            }
            if versions.len() >= versions_max.max(1) || (bytes >= bytes_max && !versions.is_empty()) {
                return Ok(KeyVersions { versions, more: true });
            }
            versions.push(if found.row.deleted {
                Event::deletion(key.clone(), made_at)
            } else {
                let value = self.sources.value(key, &found)?;
                bytes += key.len() + value.len();
                Event { kind: EventKind::Put, kv: found.row.key_value(key.clone(), value) }
            });
            // The version that was in force when the rest was compacted is the oldest that is kept.
            if made_at <= oldest {
                break;
            }
            at = Revision(made_at.0 - 1);
        }
        Ok(KeyVersions { versions, more: false })
    }
}
