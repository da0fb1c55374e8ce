//! Whether a server kept the promise that a fence is. One that does not know fences skips them, as every decoder skips what it
//! does not know, and applies the write: only its answer tells.

use ringfence_proto::extension::Checks;
use ringfence_proto::ringfence_v1::Fence;

use crate::Error;

/// The answer to a write that carried `fences`, and a place in a session or a level of acknowledgement or not, if it says that
/// all of it was evaluated, and enough voters have the write.
pub(crate) fn verify<T: Checks>(
    fences: &[Fence],
    has_session: bool,
    has_ack: bool,
    answer: T,
) -> Result<T, Error> {
    if fences.is_empty() && !has_session && !has_ack {
        return Ok(answer);
    }
    let Some(checked) = answer.checked() else {
        return Err(unchecked(
            "the server does not say that it checked what the write carries: it knows no extensions",
        ));
    };
    if fences.iter().any(|fence| !checked.fences.contains(fence)) {
        return Err(unchecked("the server does not say that it checked every fence of the write"));
    }
    if has_session && !checked.session {
        return Err(unchecked(
            "the server does not say that it checked the write's session: it may be applied twice",
        ));
    }
    match &checked.acks {
        None if has_ack => {
            Err(unchecked("the server does not say which voters have it: it knows no acknowledgement levels"))
        }
        Some(acks) if acks.reached < acks.wanted => Err(Error::TooFewAcks {
            revision: answer.revision(),
            reached: acks.reached,
            wanted: acks.wanted,
            durable_at: acks.durable_at.clone(),
        }),
        _ => Ok(answer),
    }
}

fn unchecked(message: &str) -> Error {
    Error::Unchecked { message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use ringfence_proto::etcdserverpb::{PutResponse, ResponseHeader};
    use ringfence_proto::ringfence_v1::{Acks, Checked, Scope, scope};

    use super::*;

    #[test]
    fn everything_that_was_carried_must_be_named() {
        let fence =
            |token| Fence { scope: Some(Scope { kind: Some(scope::Kind::Lock("jobs".into())) }), token };
        let answer = |checked| PutResponse { checked, ..PutResponse::default() };
        let said = |tokens: &[i64], session| {
            answer(Some(Checked {
                fences: tokens.iter().map(|token| fence(*token)).collect(),
                session,
                acks: None,
            }))
        };
        let verified = |fences: &[Fence], session, answer| verify(fences, session, false, answer).is_ok();
        assert!(verified(&[], false, answer(None)));
        assert!(verified(&[fence(1), fence(2)], true, said(&[2, 1], true)));
        assert!(!verified(&[fence(1)], false, answer(None)));
        assert!(!verified(&[], true, answer(None)));
        assert!(!verified(&[fence(1), fence(2)], false, said(&[1], false)));
        assert!(!verified(&[fence(1)], true, said(&[1], false)));
    }

    #[test]
    fn too_few_acknowledgements_are_an_error_that_says_how_far_the_write_came() {
        let answer = |acks| PutResponse {
            header: Some(ResponseHeader { revision: 7, ..ResponseHeader::default() }),
            checked: Some(Checked { acks, ..Checked::default() }),
            ..PutResponse::default()
        };
        let acks = |reached, wanted| Some(Acks { reached, wanted, durable_at: vec![1, 3] });
        assert!(verify(&[], false, true, answer(acks(2, 2))).is_ok());
        assert!(matches!(
            verify(&[], false, true, answer(acks(2, 3))),
            Err(Error::TooFewAcks { revision: 7, reached: 2, wanted: 3, durable_at }) if durable_at == [1, 3]
        ));
        assert!(matches!(verify(&[], false, true, answer(None)), Err(Error::Unchecked { .. })));
    }
}
