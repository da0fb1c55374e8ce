//! Every version of every key, as the heads and the base have them together.

use bytes::Bytes;
use ringfence_types::Revision;

use crate::error::StoreError;
use crate::layout;
use crate::row::{Row, Stamp};
use crate::sources::Sources;

/// What is called for each version.
type Visit<'a> = dyn FnMut(&[u8], &Row) -> Result<(), StoreError> + 'a;
/// The same, telling whether to go on.
type VisitWhile<'a> = dyn FnMut(&[u8], &Row) -> Result<bool, StoreError> + 'a;

impl Sources {
    /// Calls `visit` for every version up to `revision`: by key, newest first.
    pub(crate) fn versions(&self, revision: Revision, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let stopped = self.versions_after(None, revision, &mut |key, row| visit(key, row).map(|()| true))?;
        assert!(!stopped, "nothing asks for an end before the last version");
        Ok(())
    }

    /// The same from behind the version `after` on, for as long as `visit` says so. Returns whether it was stopped.
    pub(crate) fn versions_after(
        &self,
        after: Option<(&[u8], Stamp)>,
        revision: Revision,
        visit: &mut VisitWhile<'_>,
    ) -> Result<bool, StoreError> {
        let visible = |(_, row): &(Bytes, Row)| row.stamp.revision <= revision;
        let mut head = self.head.versions_after(after).filter(visible).peekable();
        let mut frozen =
            self.frozen.iter().flat_map(|frozen| frozen.versions_after(after)).filter(visible).peekable();
        // Of one key the head's versions are younger than the frozen head's, and those are younger than the base's.
        let mut visit_heads =
            |bound: Option<&[u8]>, visit: &mut VisitWhile<'_>| -> Result<bool, StoreError> {
                let within = |(key, _): &&(Bytes, Row)| bound.is_none_or(|bound| key.as_ref() <= bound);
                loop {
                    let next = match (head.peek().filter(within), frozen.peek().filter(within)) {
                        (None, None) => return Ok(true),
                        (Some((young, _)), Some((old, _))) if old < young => frozen.next(),
                        (None, Some(_)) => frozen.next(),
                        (Some(_), _) => head.next(),
                    };
                    if let Some((key, row)) = next
                        && !visit(&key, &row)?
                    {
                        return Ok(false);
                    }
                }
            };
        for entry in self.base.versions_after(after)? {
            let (index_key, value) = entry?;
            let key = layout::key_of(index_key.value());
            if !visit_heads(Some(key), visit)? {
                return Ok(true);
            }
            let row = layout::decode_index_row(index_key.value(), value.value())?;
            // A checkpoint brings rows into the base that are younger than the revision asked for.
            if row.stamp.revision <= revision && !visit(key, &row)? {
                return Ok(true);
            }
        }
        Ok(!visit_heads(None, visit)?)
    }

    /// The value of the version that a key got at `stamp`, where it lies in memory still.
    pub(crate) fn in_memory(&self, key: &[u8], stamp: Stamp) -> Option<Bytes> {
        let heads = [Some(&self.head), self.frozen.as_ref()];
        heads.into_iter().flatten().find_map(|head| head.value(key, stamp))
    }
}
