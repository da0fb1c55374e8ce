//! Who holds a lock: the table of candidates, and the oldest of each (DESIGN, section 6).

use bytes::Bytes;
use ringfence_types::{Holder, Revision, Scope};

use crate::error::StoreError;
use crate::record_layout;
use crate::transaction::Transaction;

impl Transaction<'_> {
    /// Who holds a lock.
    pub fn holder(&self, lock: &[u8]) -> Result<Option<Holder>, StoreError> {
        let holder = self.record(&record_layout::holder_key(lock))?;
        holder.map(|value| record_layout::decode_holder(&value)).transpose()
    }

    /// Makes candidates of the keys that this command has created with a lease. Of several of one lock none is one: they
    /// would share a token.
    pub fn enter_candidates(&mut self) -> Result<(), StoreError> {
        let created = self.next_revision();
        let mut keys = std::mem::take(&mut self.created);
        keys.sort();
        for of_lock in keys.chunk_by(|(lock, _), (other, _)| lock == other) {
            let [(lock, key)] = of_lock else { continue };
            self.set_record(record_layout::candidate_key(lock, created), Some(key.clone()));
            if self.holder(lock)?.is_none() {
                let holder = Holder { key: key.clone(), token: created };
                self.set_record(record_layout::holder_key(lock), Some(record_layout::encode_holder(&holder)));
            }
        }
        Ok(())
    }

    /// Takes a key that is deleted out of the table, if it was a candidate. If it was the holder, the next one holds.
    pub fn leave_candidates(&mut self, key: &Bytes, created: Revision) -> Result<(), StoreError> {
        let Some(lock) = Scope::lock_of(key) else { return Ok(()) };
        let candidate = record_layout::candidate_key(&lock, created);
        if self.record(&candidate)?.is_none_or(|candidate| candidate != *key) {
            return Ok(());
        }
        let was_holder = self.holder(&lock)?.is_some_and(|holder| holder.token == created);
        if was_holder {
            let next = self.candidate_after(&lock, &candidate)?;
            let next = next.map(|next| record_layout::encode_holder(&next));
            self.set_record(record_layout::holder_key(&lock), next);
        }
        self.set_record(candidate, None);
        Ok(())
    }

    /// The oldest candidate behind one: whoever is older than the holder is gone, so nobody looks there again.
    fn candidate_after(&self, lock: &[u8], candidate: &Bytes) -> Result<Option<Holder>, StoreError> {
        let prefix = record_layout::candidates(lock);
        let next = self.scan_records_after(&prefix, candidate)?;
        next.map(|(record, key)| record_layout::decode_candidate(&record, &key)).transpose()
    }
}
