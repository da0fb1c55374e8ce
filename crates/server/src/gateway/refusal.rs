//! Errors as the gateway's clients see them: the code of HTTP that stands for gRPC's, and the same words in JSON.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use ringfence_proto::ERROR_DETAIL_KEY;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::{Code, Status};

use super::paths::Paths;
use super::{JSON, json as messages, whole};

/// The name of what every status of ours says beside its code and words.
const DETAIL: &str = "ringfence.v1.ErrorDetail";

/// A call that was refused, or failed, before anything of its answer was sent.
pub(super) fn page(paths: &Paths, status: &Status) -> Response<Body> {
    let mut document = document(status.code() as i32, status.message());
    if let Some(detail) = detail(paths, status) {
        document["details"] = json!([detail]);
    }
    whole(http_code(status.code()), JSON, document.to_string())
}

pub(super) fn not_found() -> Response<Body> {
    whole(StatusCode::NOT_FOUND, JSON, document(Code::NotFound as i32, "Not Found").to_string())
}

pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let document = document(Code::Unimplemented as i32, "Method Not Allowed");
    let mut response = whole(StatusCode::METHOD_NOT_ALLOWED, JSON, document.to_string());
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

pub(super) fn other_origin() -> Response<Body> {
    let words = "ringfence: a page of another origin asks, and only this server's own may";
    whole(StatusCode::FORBIDDEN, JSON, document(Code::PermissionDenied as i32, words).to_string())
}

/// An answer of a stream, from its JSON.
pub(super) fn result_line(object: &[u8]) -> Bytes {
    [b"{\"result\":", object, b"}\n"].concat().into()
}

/// The end of a stream that broke.
pub(super) fn error_line(status: &Status) -> Bytes {
    let code = http_code(status.code());
    let error = json!({
        "grpc_code": status.code() as i32,
        "http_code": code.as_u16(),
        "message": status.message(),
        "http_status": code.canonical_reason().unwrap_or_default(),
    });
    format!("{}\n", json!({ "error": error })).into()
}

fn document(code: i32, message: &str) -> Value {
    json!({ "error": message, "code": code, "message": message })
}

/// The detail that every status of ours carries, as JSON with the name of its message.
fn detail(paths: &Paths, status: &Status) -> Option<Value> {
    let bytes = status.metadata().get_bin(ERROR_DETAIL_KEY)?.to_bytes().ok()?;
    let text = messages::text_of(&paths.pool.get_message_by_name(DETAIL)?, bytes).ok()?;
    let mut detail: Value = serde_json::from_slice(&text).ok()?;
    detail["@type"] = format!("type.googleapis.com/{DETAIL}").into();
    Some(detail)
}

/// As etcd's gateway translates them.
fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
