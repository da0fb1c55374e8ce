//! Plain HTTP on the clients' port: health, readiness, version and metrics.

use std::time::Duration;

use http::{Method, StatusCode};
use ringfence_consensus::rt;
use ringfence_types::Freshness;
use tonic::body::Body;

use crate::ETCD_VERSION;
use crate::alarm;
use crate::calls::Calls;
use crate::metrics;
use crate::served::Served;

/// How long `/health` waits for the cluster.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers a request that is not gRPC.
pub(crate) async fn answer(
    served: &Served,
    calls: &Calls,
    method: &Method,
    uri: &http::Uri,
) -> http::Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is served here\n".to_owned());
    }
    match uri.path() {
        "/health" => health(served, uri.query().unwrap_or_default()).await,
        "/livez" => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => readyz(served),
        "/version" => version(served),
        "/metrics" => page(
            StatusCode::OK,
            METRICS,
            metrics::text(
                &served.node.status(),
                calls,
                served.lease_counts.totals(),
                served.watch_counts.totals(),
                &served.refusals,
            ),
        ),
        _ => page(StatusCode::NOT_FOUND, TEXT, NOTHING_HERE.to_owned()),
    }
}

/// What a request for an unknown path is told.
const NOTHING_HERE: &str = "nothing is served here: there are /health, /livez, /readyz, /version /metrics and /openapi, the gRPC API, and the same in JSON below /v3/\n";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// etcd's health: whether a linearizable read works, or a local one with `?serializable=true`.
async fn health(served: &Served, query: &str) -> http::Response<Body> {
    let serializable = query.split('&').any(|pair| pair == "serializable=true");
    let trouble = if let Some(alarm) = served.node.view().alarms().first() {
        Some(format!("ALARM {}", alarm::name(*alarm)))
    } else if serializable {
        served.node.believed_view().err().map(|error| json_safe(&error.to_string()))
    } else if served.node.leader().is_none() {
        Some("RAFT NO LEADER".to_owned())
    } else {
        let deadline = rt::now() + HEALTH_TIMEOUT;
        let barrier = served.node.read_barrier(Freshness::Linearizable, deadline).await;
        barrier.err().map(|error| format!("QGET ERROR:{}", json_safe(&error.to_string())))
    };
    match trouble {
        None => page(StatusCode::OK, JSON, r#"{"health":"true","reason":""}"#.to_owned()),
        Some(reason) => {
            let body = format!(r#"{{"health":"false","reason":"{reason}"}}"#);
            page(StatusCode::SERVICE_UNAVAILABLE, JSON, body)
        }
    }
}

/// Whether this member should be given work: it is ready and takes writes.
fn readyz(served: &Served) -> http::Response<Body> {
    let read_only = || served.node.status().read_only.map(|read_only| read_only.to_string());
    let trouble = match served.node.ready() {
        _ if served.shutdown.is_cancelled() => Some("this member is stopping".to_owned()),
        // The node's own words stay, and since when it is read-only stands beside them, once.
        Err(why) => Some(match read_only() {
            Some(read_only) if !why.contains("read-only since") => format!("{why}\n{read_only}"),
            _ => why,
        }),
        Ok(()) => read_only().or_else(|| {
            let alarm = *served.node.view().alarms().first()?;
            Some(format!("the alarm {} is raised for member {:x}", alarm::name(alarm), alarm.member.0))
        }),
    };
    match trouble {
        None => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Some(why) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
    }
}

/// etcd's version document, with our own version in a field of its own.
fn version(served: &Served) -> http::Response<Body> {
    let ours = json_safe(&served.node.status().version);
    let body = format!(
        r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{ETCD_VERSION}","storage":"{ETCD_VERSION}","ringfence":"{ours}"}}"#
    );
    page(StatusCode::OK, JSON, body)
}

/// A text as the inside of a JSON string: what would need an escape becomes a space or an apostrophe.
fn json_safe(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => '\'',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> http::Response<Body> {
    let mut response = http::Response::new(Body::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_cannot_break_out_of_its_string() {
        assert_eq!(json_safe("a \"b\"\\ c\n"), "a 'b'' c ");
    }
}
