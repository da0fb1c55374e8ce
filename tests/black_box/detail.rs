//! What every refusal says beside etcd's code and message.

use prost::Message as _;
use ringfence_proto::ERROR_DETAIL_KEY;
use ringfence_proto::ringfence_v1::ErrorDetail;
use tonic::Status;

/// The detail of a status.
pub(crate) fn detail(status: &Status) -> ErrorDetail {
    let value = status.metadata().get_bin(ERROR_DETAIL_KEY).expect("every status carries a detail");
    ErrorDetail::decode(value.to_bytes().expect("it is base64")).expect("it is a detail")
}
