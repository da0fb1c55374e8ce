//! Extensions as metadata, for clients that cannot set fields:
//!
//! - `ringfence-fence: lock:NAME;TOKEN` or `key:KEY;TOKEN`, several separated by commas. Names and keys are percent-encoded.
//! - `ringfence-session: LEASE;GRANT;SEQUENCE;FIRST_INCOMPLETE`, the lease in hexadecimal digits.
//! - `ringfence-ack: quorum`, `all` or a count of voters; and how long to wait for them, if that is to be said: `all;500ms`.
//!
//! Answers say in `ringfence-checked` what was evaluated: the fences in the same form, the word `session`, and with
//! `acks=2/3` how many voters of those wanted have the write.

use std::fmt::Write as _;

use bytes::Bytes;
use ringfence_types::limits::CHECKED_METADATA_BYTES_MAX;

use crate::extension::{Extended, ExtensionError};
use crate::freshness::{self, FRESHNESS_KEY, FreshnessError};
use crate::ringfence_v1 as v1;

/// What every key of ours begins with.
const PREFIX: &str = "ringfence-";
/// The key of fences.
pub const FENCE_KEY: &str = "ringfence-fence";
/// The key of a write's place in a session.
pub const SESSION_KEY: &str = "ringfence-session";
/// The key of a write's level of acknowledgement.
pub const ACK_KEY: &str = "ringfence-ack";
/// The key under which an answer says what was evaluated.
pub const CHECKED_KEY: &str = "ringfence-checked";

const FENCE_FORM: &str = "lock:NAME;TOKEN or key:KEY;TOKEN, several separated by commas, NAME and KEY percent-encoded: \
                          lock:jobs;17";
const SESSION_FORM: &str =
    "LEASE;GRANT;SEQUENCE;FIRST_INCOMPLETE, the lease in hexadecimal digits: 1f3a;905;12;11";
const ACK_FORM: &str =
    "quorum, all, or a count of voters above 0, and after a semicolon for how long to wait: all;500ms";

/// The extensions that one call carries in its metadata.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Carried {
    fences: Option<Vec<v1::Fence>>,
    session: Option<v1::SessionStamp>,
    ack: Option<v1::Ack>,
    freshness: Option<v1::Freshness>,
}

impl Carried {
    /// What the metadata of a call that may change something carries, from its keys and values in their order.
    ///
    /// # Errors
    /// Where a value is malformed or too long to be named in an answer, or a key that begins with `ringfence-` is not one of a request.
    pub fn read<'a>(pairs: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Carried, ExtensionError> {
        let mut carried = Carried::default();
        for (key, value) in pairs {
            if !key.starts_with(PREFIX) {
                continue;
            }
            match key {
                // A key that comes twice means the same as its values joined by commas.
                FENCE_KEY => carried.fences.get_or_insert_default().extend(fences(value)?),
                SESSION_KEY if carried.session.is_some() => return Err(malformed_session()),
                SESSION_KEY => carried.session = Some(session(value).ok_or_else(malformed_session)?),
                ACK_KEY if carried.ack.is_some() => return Err(malformed_ack()),
                ACK_KEY => carried.ack = Some(ack(value).ok_or_else(malformed_ack)?),
                FRESHNESS_KEY => {
                    let text = std::str::from_utf8(value).map_err(|_| FreshnessError::Malformed)?;
                    let field = freshness::to_field(freshness::parse(text)?);
                    if carried.freshness.replace(field).is_some() {
                        return Err(FreshnessError::GivenTwice.into());
                    }
                }
                other => return Err(ExtensionError::UnknownKey(other.to_owned())),
            }
        }
        if let Some(fences) = &carried.fences {
            let session = carried.session.is_some();
            let bytes = checked_value(&v1::Checked { fences: fences.clone(), session, acks: None }).len();
            if bytes > CHECKED_METADATA_BYTES_MAX {
                return Err(ExtensionError::MetadataTooLong(bytes));
            }
        }
        Ok(carried)
    }

    /// Puts them into the request's fields, which must be empty then: who says the same thing in two ways may mean two things.
    ///
    /// # Errors
    /// Where the request has them already.
    pub fn put_into(self, request: &mut impl Extended) -> Result<(), ExtensionError> {
        if let Some(fences) = self.fences {
            if !request.fences().is_empty() {
                return Err(ExtensionError::GivenTwice("fences"));
            }
            *request.fences() = fences;
        }
        if let Some(session) = self.session
            && request.session().replace(session).is_some()
        {
            return Err(ExtensionError::GivenTwice("a session"));
        }
        if let Some(ack) = self.ack
            && request.ack().replace(ack).is_some()
        {
            return Err(ExtensionError::GivenTwice("an acknowledgement level"));
        }
        if let Some(freshness) = self.freshness {
            let field = request.freshness().ok_or_else(|| unknown(FRESHNESS_KEY))?;
            if field.replace(freshness).is_some() {
                return Err(FreshnessError::GivenTwice.into());
            }
        }
        Ok(())
    }

    /// Refuses them for a call that takes none.
    ///
    /// # Errors
    /// Where there are any.
    pub fn refuse(self) -> Result<(), ExtensionError> {
        let key = match self {
            Carried { fences: None, session: None, ack: None, freshness: None } => return Ok(()),
            Carried { fences: Some(_), .. } => FENCE_KEY,
            Carried { session: Some(_), .. } => SESSION_KEY,
            Carried { ack: Some(_), .. } => ACK_KEY,
            Carried { .. } => FRESHNESS_KEY,
        };
        Err(unknown(key))
    }
}

/// What an answer says was evaluated, as the value of [`CHECKED_KEY`].
#[must_use]
pub fn checked_value(checked: &v1::Checked) -> String {
    let fence = |fence: &v1::Fence| {
        let (kind, name) = match fence.scope.as_ref()?.kind.as_ref()? {
            v1::scope::Kind::Key(key) => ("key", key),
            v1::scope::Kind::Lock(name) => ("lock", name),
        };
        Some(format!("{kind}:{};{}", percent_encode(name), fence.token))
    };
    let mut parts: Vec<String> = checked.fences.iter().filter_map(fence).collect();
    parts.extend(checked.session.then(|| "session".to_owned()));
    parts.extend(checked.acks.as_ref().map(|acks| format!("acks={}/{}", acks.reached, acks.wanted)));
    parts.join(",")
}

/// Bytes as the text of a name or key in metadata: letters, digits and `-._~/` as they are, everything else as `%XX`.
#[must_use]
pub fn percent_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn unknown(key: &str) -> ExtensionError {
    ExtensionError::UnknownKey(key.to_owned())
}

fn malformed_session() -> ExtensionError {
    ExtensionError::MalformedValue { key: SESSION_KEY, form: SESSION_FORM }
}

fn malformed_ack() -> ExtensionError {
    ExtensionError::MalformedValue { key: ACK_KEY, form: ACK_FORM }
}

fn ack(value: &[u8]) -> Option<v1::Ack> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (level, within) = text.split_once(';').map_or((text, None), |(level, within)| (level, Some(within)));
    let level = match level {
        "quorum" => v1::ack::Level::Quorum(true),
        "all" => v1::ack::Level::All(true),
        count => v1::ack::Level::Count(u32::try_from(number(count, 10)?).ok().filter(|count| *count > 0)?),
    };
    let within_ms = match within {
        None => 0,
        Some(within) => {
            let within = number(within.strip_suffix("ms")?, 10)?;
            u32::try_from(within).ok().filter(|within| *within > 0)?
        }
    };
    Some(v1::Ack { level: Some(level), within_ms })
}

fn fences(value: &[u8]) -> Result<Vec<v1::Fence>, ExtensionError> {
    let fences = std::str::from_utf8(value).ok().and_then(|text| text.split(',').map(fence).collect());
    fences.ok_or(ExtensionError::MalformedValue { key: FENCE_KEY, form: FENCE_FORM })
}

fn fence(text: &str) -> Option<v1::Fence> {
    let (scope, token) = text.trim().rsplit_once(';')?;
    let (kind, name) = scope.split_once(':')?;
    let name = Bytes::from(percent_decode(name)?);
    let kind = match kind {
        "key" => v1::scope::Kind::Key(name),
        "lock" => v1::scope::Kind::Lock(name),
        _ => return None,
    };
    let token = i64::try_from(number(token, 10)?).ok()?;
    Some(v1::Fence { scope: Some(v1::Scope { kind: Some(kind) }), token })
}

fn session(value: &[u8]) -> Option<v1::SessionStamp> {
    let mut parts = std::str::from_utf8(value).ok()?.trim().split(';');
    let lease = number(parts.next()?, 16)?.cast_signed();
    let grant = number(parts.next()?, 10)?;
    let sequence = number(parts.next()?, 10)?;
    let first_incomplete = number(parts.next()?, 10)?;
    let session = Some(v1::Session { lease, grant });
    parts.next().is_none().then_some(v1::SessionStamp { session, sequence, first_incomplete })
}

/// A number of digits alone: no sign, no spaces.
fn number(text: &str, radix: u32) -> Option<u64> {
    let digits = text.chars().all(|c| c.is_digit(radix));
    if digits { u64::from_str_radix(text, radix).ok() } else { None }
}

/// The bytes of a percent-encoded text; none where an escape is cut off or what must be escaped is not.
#[must_use]
pub fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::try_from(number(std::str::from_utf8(digits).ok()?, 16)?).ok()?
            }
            b';' | b',' => return None,
            byte if byte.is_ascii_graphic() => *byte,
            _ => return None,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::etcdserverpb::PutRequest;

    fn read(pairs: &[(&str, &str)]) -> Result<PutRequest, ExtensionError> {
        let carried = Carried::read(pairs.iter().map(|(key, value)| (*key, value.as_bytes())))?;
        let mut request = PutRequest::default();
        carried.put_into(&mut request)?;
        Ok(request)
    }

    fn lock(name: &'static [u8], token: i64) -> v1::Fence {
        let kind = v1::scope::Kind::Lock(Bytes::from_static(name));
        v1::Fence { scope: Some(v1::Scope { kind: Some(kind) }), token }
    }

    #[test]
    fn fences_and_sessions_are_read() {
        let request = read(&[
            ("content-type", "application/grpc"),
            (FENCE_KEY, "lock:a/b;17, lock:%2c%3B%25%ff;5"),
            (FENCE_KEY, "lock:;1"),
            (SESSION_KEY, "ff;9;3;2"),
        ])
        .unwrap();
        assert_eq!(request.fences, [lock(b"a/b", 17), lock(b",;%\xff", 5), lock(b"", 1)]);
        let session = Some(v1::Session { lease: 255, grant: 9 });
        assert_eq!(request.session, Some(v1::SessionStamp { session, sequence: 3, first_incomplete: 2 }));
    }

    #[test]
    fn malformed_values_are_refused_with_their_form() {
        for value in [
            "",
            "jobs;1",
            "lock:jobs",
            "lock:jobs;",
            "lock:jobs;-1",
            "lock:jobs;+1",
            "lock:jobs; 1",
            "lock:jobs;1,",
            "lock:a b;1",
            "lock:%2;1",
            "lock:%zz;1",
            "lock:%+1;1",
            "lease:jobs;1",
            "lock:jobs;99999999999999999999",
            "lock:a;1;2",
        ] {
            let refused = read(&[(FENCE_KEY, value)]).unwrap_err();
            assert_eq!(
                refused,
                ExtensionError::MalformedValue { key: FENCE_KEY, form: FENCE_FORM },
                "{value:?}"
            );
        }
        for value in ["", "1;2;3", "1;2;3;4;5", "x;2;3;4", "1;2;3;-4", "1;2;3;", "11111111111111111;2;3;3"] {
            assert_eq!(read(&[(SESSION_KEY, value)]).unwrap_err(), malformed_session(), "{value:?}");
        }
        let twice = read(&[(SESSION_KEY, "1;2;3;3"), (SESSION_KEY, "1;2;3;3")]);
        assert_eq!(twice.unwrap_err(), malformed_session());
    }

    #[test]
    fn unknown_keys_of_ours_are_refused_and_others_are_nobodys_business() {
        for key in ["ringfence-fences", "ringfence-acks", "ringfence-", "ringfence-fence-bin"] {
            let refused = read(&[(key, "x")]).unwrap_err();
            assert_eq!(refused, ExtensionError::UnknownKey(key.to_owned()));
        }
        assert_eq!(read(&[("ringfencer", "x"), ("grpc-timeout", "1S")]).unwrap(), PutRequest::default());
    }

    #[test]
    fn fences_that_no_answer_could_name_are_refused() {
        let value = |bytes: usize| format!("lock:{};1", "%00".repeat(bytes));
        // Kind, semicolon and token stand around the name.
        let most = (CHECKED_METADATA_BYTES_MAX - 7) / 3;
        assert!(read(&[(FENCE_KEY, &value(most))]).is_ok());
        let refused = read(&[(FENCE_KEY, &value(most + 1))]).unwrap_err();
        assert_eq!(refused, ExtensionError::MetadataTooLong(7 + 3 * (most + 1)));
    }

    #[test]
    fn what_is_given_twice_or_to_a_call_that_takes_none_is_refused() {
        let carried = |pair: (&'static str, &'static str)| {
            Carried::read([pair].iter().map(|(key, value)| (*key, value.as_bytes()))).unwrap()
        };
        let (fence, session) = (carried((FENCE_KEY, "lock:a;1")), carried((SESSION_KEY, "1;2;3;3")));
        let mut request = PutRequest { fences: vec![lock(b"b", 1)], ..Default::default() };
        assert_eq!(fence.clone().put_into(&mut request), Err(ExtensionError::GivenTwice("fences")));
        assert_eq!(session.clone().put_into(&mut request), Ok(()));
        assert_eq!(session.clone().put_into(&mut request), Err(ExtensionError::GivenTwice("a session")));
        assert_eq!(fence.refuse(), Err(ExtensionError::UnknownKey(FENCE_KEY.to_owned())));
        assert_eq!(session.refuse(), Err(ExtensionError::UnknownKey(SESSION_KEY.to_owned())));
        assert_eq!(Carried::default().refuse(), Ok(()));
    }

    #[test]
    fn levels_and_freshness_are_read() {
        let ack = |value: &str| read(&[(ACK_KEY, value)]).map(|request| request.ack.expect("it was read"));
        let level = |level, within_ms| Ok(v1::Ack { level: Some(level), within_ms });
        assert_eq!(ack("quorum"), level(v1::ack::Level::Quorum(true), 0));
        assert_eq!(ack("all;250ms"), level(v1::ack::Level::All(true), 250));
        assert_eq!(ack(" 2 "), level(v1::ack::Level::Count(2), 0));
        for value in
            ["", "0", "-1", "none", "all;", "all;0ms", "all;1s", "all;1ms;1ms", "4294967296", "all,2"]
        {
            assert_eq!(ack(value).unwrap_err(), malformed_ack(), "{value:?}");
        }
        assert_eq!(read(&[(ACK_KEY, "all"), (ACK_KEY, "2")]).unwrap_err(), malformed_ack());
        let acks = Some(v1::Acks { reached: 2, wanted: 3, durable_at: vec![1, 2] });
        let checked = v1::Checked { fences: vec![lock(b"a", 1)], session: true, acks };
        assert_eq!(checked_value(&checked), "lock:a;1,session,acks=2/3");
        // A put is never a read.
        assert_eq!(read(&[(FRESHNESS_KEY, "any")]).unwrap_err(), unknown(FRESHNESS_KEY));
    }

    proptest! {
        #[test]
        fn what_an_answer_names_is_what_a_request_would_carry(
            fences in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..99), 0..i64::MAX), 1..5)
        ) {
            let fences: Vec<v1::Fence> = fences
                .into_iter()
                .map(|(is_key, name, token)| {
                    let kind = if is_key { v1::scope::Kind::Key } else { v1::scope::Kind::Lock };
                    v1::Fence { scope: Some(v1::Scope { kind: Some(kind(name.into())) }), token }
                })
                .collect();
            let value = checked_value(&v1::Checked { fences: fences.clone(), ..v1::Checked::default() });
            prop_assert_eq!(read(&[(FENCE_KEY, &value)]).unwrap().fences, fences);
        }

        #[test]
        fn no_value_is_a_panic(value in any::<Vec<u8>>()) {
            for key in [FENCE_KEY, SESSION_KEY] {
                let _ = Carried::read(std::iter::once((key, value.as_slice())));
            }
        }
    }

    #[test]
    fn an_answer_names_the_session_after_the_fences() {
        let checked = |fences, session| checked_value(&v1::Checked { fences, session, acks: None });
        assert_eq!(checked(vec![lock(b"a b", 3)], true), "lock:a%20b;3,session");
        assert_eq!(checked(vec![], true), "session");
    }
}
