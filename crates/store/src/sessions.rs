//! Sessions: a write that is sent again is not done again (DESIGN, section 6).

use ringfence_proto::outcome;
use ringfence_types::{Applied, Grant, Outcome, Rejection, Resolution, SessionStamp, limits};

use crate::error::{ReadError, StoreError};
use crate::record_layout::{self, Answer, Session};
use crate::transaction::Transaction;

impl Transaction<'_> {
    /// The answer to a write of a session that is decided already; none where it is open.
    pub fn recall(&self, stamp: &SessionStamp) -> Result<Option<Outcome>, ReadError> {
        let SessionStamp { session, sequence, first_incomplete, digest } = stamp;
        let known = self.session(*session)?;
        let first_incomplete = known.first_incomplete.max(*first_incomplete);
        if *sequence < first_incomplete {
            return Err(Rejection::SequenceClosed(*sequence).into());
        }
        match self.answer(*session, *sequence)? {
            Some(Answer { resolution: Resolution::Closed, .. }) => {
                Err(Rejection::SequenceClosed(*sequence).into())
            }
            Some(answer) if answer.digest != *digest => Err(Rejection::SequenceReused(*sequence).into()),
            Some(Answer { resolution: Resolution::Answered(answered), .. }) => Ok(Some(*answered)),
            Some(Answer { resolution: Resolution::AppliedAt(revision), .. }) => {
                Err(Rejection::AnswerNotKept(revision).into())
            }
            None => {
                check_window(*sequence, first_incomplete)?;
                Ok(None)
            }
        }
    }

    /// Keeps the answer to a write of a session, and forgets what the client needs no more.
    pub fn keep_answer(&mut self, stamp: &SessionStamp, answered: &Outcome) -> Result<(), ReadError> {
        let resolution = Resolution::Answered(Box::new(answered.clone()));
        self.keep(
            stamp.session,
            stamp.sequence,
            stamp.first_incomplete,
            Answer { digest: stamp.digest, resolution },
        )
    }

    /// Makes a write definite: its answer, or it is closed from now on.
    pub fn resolve(
        &mut self,
        session: Grant,
        sequence: u64,
        first_incomplete: u64,
    ) -> Result<Resolution, ReadError> {
        let known = self.session(session)?;
        // The question moves the window as the write would have: all that came before it may have been lost on its way.
        let first_incomplete = known.first_incomplete.max(first_incomplete);
        if sequence < first_incomplete {
            return Err(Rejection::SequenceClosed(sequence).into());
        }
        if let Some(answer) = self.answer(session, sequence)? {
            return Ok(answer.resolution);
        }
        check_window(sequence, first_incomplete)?;
        let closed = Answer { digest: 0, resolution: Resolution::Closed };
        self.keep(session, sequence, first_incomplete, closed)?;
        Ok(Resolution::Closed)
    }

    /// Removes everything that is kept of a session.
    pub fn forget_session(&mut self, session: Grant) -> Result<(), StoreError> {
        let key = record_layout::session_key(session);
        if self.record(&key)?.is_none() {
            return Ok(());
        }
        self.set_record(key, None);
        for (record, _) in self.scan_records(&record_layout::answers(session))? {
            self.set_record(record, None);
        }
        Ok(())
    }

    /// What is kept of a session whose lease is in force.
    fn session(&self, session: Grant) -> Result<Session, ReadError> {
        if self.granted(session)?.is_none() {
            return Err(Rejection::SessionEnded.into());
        }
        let kept = self.record(&record_layout::session_key(session))?;
        Ok(kept.map(|value| record_layout::decode_session(&value)).transpose()?.unwrap_or_default())
    }

    fn answer(&self, session: Grant, sequence: u64) -> Result<Option<Answer>, StoreError> {
        let kept = self.record(&record_layout::answer_key(session, sequence))?;
        kept.map(|value| record_layout::decode_answer(&value)).transpose()
    }

    fn keep(
        &mut self,
        session: Grant,
        sequence: u64,
        first_incomplete: u64,
        answer: Answer,
    ) -> Result<(), ReadError> {
        let mut kept = self.session(session)?;
        if first_incomplete > kept.first_incomplete {
            kept.first_incomplete = first_incomplete;
            for (record, value) in self.scan_records(&record_layout::answers(session))? {
                if record_layout::sequence_of(&record)? < first_incomplete {
                    kept.bytes = kept.bytes.saturating_sub(value.len() as u64);
                    self.set_record(record, None);
                }
            }
        }
        let value = record_layout::encode_answer(&shortened(answer, kept.bytes));
        kept.bytes += value.len() as u64;
        self.set_record(record_layout::answer_key(session, sequence), Some(value));
        self.set_record(record_layout::session_key(session), Some(record_layout::encode_session(kept)));
        Ok(())
    }
}

/// The answer as it is kept beside others of `bytes`: one that is too large says only that the write was applied.
fn shortened(answer: Answer, bytes: u64) -> Answer {
    let Resolution::Answered(answered) = &answer.resolution else { return answer };
    let size = outcome::encode(answered).len();
    if size <= limits::SESSION_ANSWER_BYTES_MAX && bytes + size as u64 <= limits::SESSION_BYTES_MAX {
        return answer;
    }
    match answered.as_ref() {
        Ok(Applied { revision, .. }) => {
            Answer { digest: answer.digest, resolution: Resolution::AppliedAt(*revision) }
        }
        // A refusal is a sentence.
        Err(_) => answer,
    }
}

fn check_window(sequence: u64, first_incomplete: u64) -> Result<(), Rejection> {
    let max = limits::SESSION_ANSWERS_MAX;
    if sequence - first_incomplete >= max {
        return Err(Rejection::SequenceAboveWindow { sequence, max });
    }
    Ok(())
}
