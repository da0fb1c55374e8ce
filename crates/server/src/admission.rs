//! Admission: what clients may have under way, on one connection and on all. What is beyond the bounds is refused at once, so
//! that what was admitted is served in time, and says so; nothing waits here.
//!
//! Calls that are over soon are counted apart from those that stand (streams, waits for a lock), and with them the bytes of their
//! requests, as they arrive. A reserve beyond the bounds is for what must go on whatever else is refused: leases that are kept alive
//! or ended, locks that are given back, and questions about how the member stands.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::limits::{LARGE_ANSWER_BYTES, LARGE_ANSWERS_MAX, Limits, RESERVED_CALLS_MIN, RESERVED_PERCENT};
use crate::served::Served;
use crate::status::Trouble;

/// What kind of call stands behind a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// It may go on for as long as its client likes.
    stands: bool,
    /// It may use the reserve.
    goes_first: bool,
}

impl Kind {
    pub(crate) fn of(path: &str) -> Kind {
        let (service, method) =
            path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
        let stands = match service {
            "etcdserverpb.Watch" | "grpc.reflection.v1.ServerReflection" => true,
            "grpc.reflection.v1alpha.ServerReflection" => true,
            _ => matches!(
                (service, method),
                ("etcdserverpb.KV", "RangeStream")
                    | ("etcdserverpb.Lease", "LeaseKeepAlive")
                    | ("etcdserverpb.Maintenance", "Snapshot")
                    | ("v3lockpb.Lock", "Lock")
                    | ("v3electionpb.Election", "Campaign" | "Observe")
                    | ("ringfence.v1.Integrity", "Scrub")
                    | ("grpc.health.v1.Health", "Watch")
            ),
        };
        let goes_first = match service {
            "etcdserverpb.Lease" | "grpc.health.v1.Health" => true,
            _ => matches!(
                (service, method),
                ("etcdserverpb.Maintenance", "Status" | "Alarm")
                    | ("v3lockpb.Lock", "Unlock")
                    | ("v3electionpb.Election", "Resign")
            ),
        };
        Kind { stands, goes_first }
    }

    /// Whether the answer is to be watched to its end.
    pub(crate) fn stands(self) -> bool {
        self.stands
    }
}

/// What is under way, on one connection or on all.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicUsize,
    streams: AtomicUsize,
    bytes: AtomicUsize,
    /// Bytes of large answers that have not been sent yet; of all connections alone.
    answers: AtomicUsize,
}

/// The bounds for one set of counts.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    calls: usize,
    streams: usize,
    bytes: usize,
    /// What the bounds are about, for people.
    of: &'static str,
}

/// The counts of all connections with their bounds, as one connection sees them with its own.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    limits: Limits,
    all: Arc<Counts>,
    own: Arc<Counts>,
}

/// A call that counts as under way until this is dropped, with the bytes of its request.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Admission,
    kind: Kind,
    bytes: AtomicUsize,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Admission {
        Admission { limits, all: Arc::default(), own: Arc::default() }
    }

    /// The same bounds for a connection of its own.
    pub(crate) fn on_connection(&self) -> Admission {
        Admission { own: Arc::default(), ..self.clone() }
    }

    /// Admits a call, unless too many are under way.
    pub(crate) fn admit(&self, kind: Kind) -> Result<Arc<Permit>, Trouble> {
        // Counted first, so that of many at once none passes unseen; a refused one is taken back as its permit is dropped.
        let permit = Permit { admission: self.clone(), kind, bytes: AtomicUsize::new(0) };
        let mut refusal = None;
        for (counts, bounds) in self.both() {
            let (counter, max, what) = match kind.stands {
                true => (&counts.streams, bounds.streams, "streams and waits"),
                false => (&counts.calls, bounds.calls, "calls"),
            };
            let max = if kind.goes_first { max.saturating_add(reserve(max)) } else { max };
            if counter.fetch_add(1, Relaxed) >= max {
                refusal = Some(format!("{max} {what} are under way on {}, as many as may be", bounds.of));
            }
        }
        refusal.map_or(Ok(Arc::new(permit)), |words| Err(Trouble::Overloaded(words)))
    }

    fn both(&self) -> [(&Counts, Bounds); 2] {
        let Limits { calls, streams, bytes, connection_calls, connection_streams, connection_bytes, .. } =
            self.limits;
        let own = Bounds {
            calls: connection_calls,
            streams: connection_streams,
            bytes: connection_bytes,
            of: "this connection",
        };
        [(&self.all, Bounds { calls, streams, bytes, of: "this member" }), (&self.own, own)]
    }

    /// What is under way, in Prometheus' text format.
    pub(crate) fn write(&self, text: &mut String) {
        let limits = &self.limits;
        for (name, about, counter, max) in [
            (
                "ringfence_calls_under_way",
                "Calls under way that are over soon",
                &self.all.calls,
                limits.calls,
            ),
            (
                "ringfence_streams_under_way",
                "Streams and waits for locks under way",
                &self.all.streams,
                limits.streams,
            ),
            (
                "ringfence_request_bytes_under_way",
                "Bytes of requests under way",
                &self.all.bytes,
                limits.bytes,
            ),
        ] {
            let now = counter.load(Relaxed);
            let _ = writeln!(text, "# HELP {name} {about}.\n# TYPE {name} gauge\n{name} {now}");
            let _ = writeln!(
                text,
                "# HELP {name}_max {about}, at most; beyond that they are refused.\n# TYPE {name}_max gauge\n{name}_max {max}"
            );
        }
    }
}

/// How many more may be under way of what goes first.
fn reserve(max: usize) -> usize {
    (max / 100 * RESERVED_PERCENT).max(RESERVED_CALLS_MIN)
}

/// How many calls there may be on one connection, with the reserves.
pub(crate) fn connection_calls_max(limits: &Limits) -> u32 {
    let [calls, streams] =
        [limits.connection_calls, limits.connection_streams].map(|max| max.saturating_add(reserve(max)));
    // One more, so that the call too many is refused, and does not wait at the client.
    u32::try_from(calls.saturating_add(streams).saturating_add(RESERVED_CALLS_MIN)).unwrap_or(u32::MAX)
}

impl Permit {
    /// Takes more bytes of the request in.
    fn take(&self, bytes: usize) -> Result<(), Trouble> {
        self.bytes.fetch_add(bytes, Relaxed);
        let mut refusal = None;
        for (counts, bounds) in self.admission.both() {
            if counts.bytes.fetch_add(bytes, Relaxed) + bytes > bounds.bytes && !self.kind.goes_first {
                let max = bounds.bytes;
                refusal = Some(format!(
                    "{max} bytes of requests are under way on {}, as many as may be",
                    bounds.of
                ));
            }
        }
        refusal.map_or(Ok(()), |words| Err(Trouble::Overloaded(words)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        for (counts, _) in self.admission.both() {
            let counter = if self.kind.stands { &counts.streams } else { &counts.calls };
            counter.fetch_sub(1, Relaxed);
            counts.bytes.fetch_sub(bytes, Relaxed);
        }
    }
}

/// A large answer that counts as under way until it has been sent: it travels with the answer.
#[derive(Debug, Clone)]
pub(crate) struct LargeAnswer {
    _counted: Arc<Counted>,
}

#[derive(Debug)]
struct Counted {
    all: Arc<Counts>,
    bytes: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.answers.fetch_sub(self.bytes, Relaxed);
    }
}

impl Admission {
    /// Admits an answer of so many bytes, unless too many are still to be sent. None where it is too small to be counted.
    pub(crate) fn answer(&self, bytes: usize) -> Result<Option<LargeAnswer>, Trouble> {
        if bytes < LARGE_ANSWER_BYTES {
            return Ok(None);
        }
        let counted = Arc::new(Counted { all: self.all.clone(), bytes });
        let max =
            usize::try_from(self.limits.answer_bytes).unwrap_or(usize::MAX).saturating_mul(LARGE_ANSWERS_MAX);
        if self.all.answers.fetch_add(bytes, Relaxed) >= max {
            return Err(Trouble::Overloaded(format!(
                "{max} bytes of answers have not been taken by their clients yet"
            )));
        }
        Ok(Some(LargeAnswer { _counted: counted }))
    }
}

/// The body of a request: from the network, or made by the gateway.
pub(crate) trait Arriving:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static
{
}

impl<B> Arriving for B where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static
{
}

/// The body of a request, counted as it arrives. Of a call that stands it is not: each message is done with before the next.
pub(crate) struct Metered<B> {
    body: B,
    served: Served,
    permit: Arc<Permit>,
}

impl<B: Arriving> Metered<B> {
    pub(crate) fn new(body: B, served: Served, permit: Arc<Permit>) -> Metered<B> {
        Metered { body, served, permit }
    }
}

impl<B: Arriving> Body for Metered<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| Status::from_error(error.into()))?;
            if let Some(data) = frame.data_ref().filter(|_| !this.permit.kind.stands) {
                this.permit.take(data.remaining()).map_err(|trouble| this.served.status(&trouble))?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer whose call counts as under way until it has been sent.
pub(crate) struct Held<P> {
    body: tonic::body::Body,
    _permit: P,
}

impl<P> Held<P> {
    pub(crate) fn new(body: tonic::body::Body, permit: P) -> Held<P> {
        Held { body, _permit: permit }
    }
}

impl<P: Unpin> Body for Held<P> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: &str = "/etcdserverpb.KV/Put";
    const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";

    fn admission() -> Admission {
        Admission::new(Limits {
            calls: 3,
            connection_calls: 2,
            streams: 2,
            connection_streams: 1,
            bytes: 100,
            connection_bytes: 80,
            ..Limits::default()
        })
    }

    fn words<T>(result: Result<T, Trouble>) -> String {
        match result {
            Err(Trouble::Overloaded(words)) => words,
            Err(other) => panic!("{other:?} is no overload"),
            Ok(_) => panic!("it was admitted"),
        }
    }

    #[test]
    fn calls_are_bounded_on_each_connection_and_on_all() {
        let (one, two) = (admission(), admission());
        let two = Admission { all: one.all.clone(), ..two };
        let put = Kind::of(PUT);
        let held = [one.admit(put).unwrap(), one.admit(put).unwrap()];
        assert!(words(one.admit(put)).contains("2 calls are under way on this connection"));
        let third = two.admit(put).unwrap();
        assert!(words(two.admit(put)).contains("3 calls are under way on this member"));
        drop(held);
        let again = two.admit(put).unwrap();
        drop((third, again));
        assert_eq!(
            one.all.calls.load(Relaxed) + one.own.calls.load(Relaxed) + two.own.calls.load(Relaxed),
            0
        );
    }

    #[test]
    fn what_goes_first_has_a_reserve_and_streams_are_counted_apart() {
        let admission = admission();
        let put = Kind::of(PUT);
        let _full = [admission.admit(put).unwrap(), admission.admit(put).unwrap()];
        let stream = admission.admit(Kind::of("/etcdserverpb.Watch/Watch")).unwrap();
        assert!(words(admission.admit(Kind::of("/etcdserverpb.Watch/Watch"))).contains("1 streams"));
        let _keep_alive = admission.admit(Kind::of(KEEP_ALIVE)).unwrap();
        let reserve: Vec<_> =
            (0..RESERVED_CALLS_MIN).map(|_| admission.admit(Kind::of(REVOKE)).unwrap()).collect();
        assert!(words(admission.admit(Kind::of(REVOKE))).contains("18 calls"), "the reserve ends as well");
        drop((reserve, stream));
        assert_eq!(admission.all.calls.load(Relaxed), 2, "what was refused is not counted");
    }

    #[test]
    fn bytes_are_bounded_until_the_call_is_over() {
        let one = admission();
        let two = one.on_connection();
        let put = Kind::of(PUT);
        let first = one.admit(put).unwrap();
        first.take(70).unwrap();
        let second = one.admit(put).unwrap();
        assert!(words(second.take(20)).contains("80 bytes of requests are under way on this connection"));
        drop(second);
        let elsewhere = two.admit(put).unwrap();
        assert!(words(elsewhere.take(40)).contains("100 bytes of requests are under way on this member"));
        let lease = two.admit(Kind::of(REVOKE)).unwrap();
        lease.take(40).unwrap();
        drop((first, elsewhere, lease));
        assert_eq!(
            one.all.bytes.load(Relaxed) + one.own.bytes.load(Relaxed) + two.own.bytes.load(Relaxed),
            0
        );
    }

    #[test]
    fn large_answers_are_counted_until_they_are_sent() {
        let admission =
            Admission::new(Limits { answer_bytes: LARGE_ANSWER_BYTES as u64, ..Limits::default() });
        assert!(admission.answer(LARGE_ANSWER_BYTES - 1).unwrap().is_none());
        let answers: Vec<_> =
            (0..LARGE_ANSWERS_MAX).map(|_| admission.answer(LARGE_ANSWER_BYTES).unwrap().unwrap()).collect();
        assert!(words(admission.answer(LARGE_ANSWER_BYTES)).contains("bytes of answers"));
        drop(answers);
        assert_eq!(admission.all.answers.load(Relaxed), 0);
    }

    #[test]
    fn paths_of_all_kinds_are_known() {
        for (path, stands, goes_first) in [
            (PUT, false, false),
            ("/etcdserverpb.KV/RangeStream", true, false),
            (KEEP_ALIVE, true, true),
            (REVOKE, false, true),
            ("/etcdserverpb.Maintenance/Status", false, true),
            ("/etcdserverpb.Maintenance/Defragment", false, false),
            ("/v3lockpb.Lock/Lock", true, false),
            ("/v3lockpb.Lock/Unlock", false, true),
            ("/grpc.health.v1.Health/Check", false, true),
            ("nonsense", false, false),
        ] {
            let kind = Kind::of(path);
            assert_eq!((kind.stands, kind.goes_first), (stands, goes_first), "{path}");
        }
    }
}
