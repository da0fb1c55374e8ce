//! From JSON to a message and back, by its descriptor.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::{Code, Status};

use crate::limits::{GATEWAY_PARTS_MAX, GATEWAY_SMALL_BYTES_MAX};
use crate::status::Trouble;

/// What stands before each message of gRPC: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// A message as gRPC frames it, from its JSON. No text at all is a message without fields.
pub(super) fn to_frame(descriptor: &MessageDescriptor, text: &[u8]) -> Result<Bytes, Trouble> {
    // A part takes a hundred times its two bytes of text in memory: they are counted before anything is built of them.
    let parts = text.iter().filter(|byte| matches!(byte, b',' | b'{' | b'[')).count();
    if parts > GATEWAY_PARTS_MAX {
        return Err(Trouble::Malformed(format!(
            "the request has {parts} values, and at most {GATEWAY_PARTS_MAX} are accepted"
        )));
    }
    let malformed = |error: serde_json::Error| Trouble::Malformed(error.to_string());
    let message = if text.iter().all(u8::is_ascii_whitespace) {
        DynamicMessage::new(descriptor.clone())
    } else {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message =
            DynamicMessage::deserialize_with_options(descriptor.clone(), &mut deserializer, &options)
                .map_err(malformed)?;
        deserializer.end().map_err(malformed)?;
        message
    };
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut frame).expect("a buffer grows");
    Ok(frame.freeze())
}

/// The JSON of a message. A large one is written on a thread that may block, so that it delays no other call.
pub(super) async fn from_message(descriptor: &MessageDescriptor, message: Bytes) -> Result<Bytes, Status> {
    if message.len() <= GATEWAY_SMALL_BYTES_MAX {
        return text_of(descriptor, message);
    }
    let descriptor = descriptor.clone();
    match tokio::task::spawn_blocking(move || text_of(&descriptor, message)).await {
        Ok(text) => text,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The JSON of a message, as etcd's gateway writes it.
pub(super) fn text_of(descriptor: &MessageDescriptor, message: Bytes) -> Result<Bytes, Status> {
    // Both are of this build, so that neither can fail but by a bug.
    let wrong = |error: &dyn std::fmt::Display| Status::new(Code::Internal, format!("ringfence: {error}"));
    let message = DynamicMessage::decode(descriptor.clone(), message).map_err(|error| wrong(&error))?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(true)
        .stringify_64_bit_integers(true);
    let mut text = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)
        .map_err(|error| wrong(&error))?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::super::paths::Paths;
    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        Paths::of_this_build().pool.get_message_by_name(name).unwrap_or_else(|| panic!("{name} is described"))
    }

    /// What a text is, written again.
    fn again(name: &str, text: &str) -> Result<String, String> {
        let descriptor = descriptor(name);
        let frame = to_frame(&descriptor, text.as_bytes()).map_err(|trouble| format!("{trouble:?}"))?;
        let written = text_of(&descriptor, frame.slice(PREFIX_BYTES..)).expect("it was just made");
        Ok(String::from_utf8(written.to_vec()).expect("JSON is text"))
    }

    #[test]
    fn messages_are_written_as_etcds_gateway_writes_them() {
        let range = "etcdserverpb.RangeRequest";
        for (name, given, written) in [
            (range, "", "{}"),
            (range, "{\"key\":\"Zm9v\",\"range_end\":\"\",\"limit\":0}", "{\"key\":\"Zm9v\"}"),
            // Both forms of a name, numbers as strings and as numbers, enums by name and number, both alphabets of base64.
            (
                range,
                "{\"rangeEnd\":\"_w\",\"limit\":\"5\",\"min_mod_revision\":7,\"sort_order\":\"DESCEND\",\"sortTarget\":3}",
                "{\"range_end\":\"/w==\",\"limit\":\"5\",\"sort_order\":\"DESCEND\",\"sort_target\":\"MOD\",\"min_mod_revision\":\"7\"}",
            ),
            ("etcdserverpb.LeaseGrantRequest", "{\"TTL\":10,\"ID\":\"7\"}", "{\"TTL\":\"10\",\"ID\":\"7\"}"),
            (
                "etcdserverpb.LeaseTimeToLiveResponse",
                "{\"ID\":1,\"TTL\":2,\"grantedTTL\":3,\"keys\":[\"YQ==\"]}",
                "{\"ID\":\"1\",\"TTL\":\"2\",\"grantedTTL\":\"3\",\"keys\":[\"YQ==\"]}",
            ),
            (
                "etcdserverpb.Member",
                "{\"ID\":\"18446744073709551615\",\"peerURLs\":[\"a\"],\"isLearner\":true}",
                "{\"ID\":\"18446744073709551615\",\"peerURLs\":[\"a\"],\"isLearner\":true}",
            ),
            // What etcd has no place for is a field like any other.
            (
                "etcdserverpb.PutRequest",
                "{\"fences\":[{\"scope\":{\"lock\":\"YQ==\"},\"token\":\"3\"}]}",
                "{\"fences\":[{\"scope\":{\"lock\":\"YQ==\"},\"token\":\"3\"}]}",
            ),
            (
                "etcdserverpb.TxnRequest",
                "{\"success\":[{\"request_put\":{}},{\"requestRange\":null}]}",
                "{\"success\":[{\"request_put\":{}},{}]}",
            ),
        ] {
            assert_eq!(again(name, given).as_deref(), Ok(written), "{given}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused_in_words() {
        for (given, words) in [
            ("{\"kye\":\"Zm9v\"}", "unrecognized field name 'kye'"),
            ("{\"key\":\"!\"}", "base64"),
            ("{\"key\":5}", "base64"),
            ("{\"limit\":\"five\"}", "invalid digit"),
            ("{\"limit\":9223372036854775808}", "out of range"),
            ("{\"sort_order\":\"UP\"}", "unrecognized enum value 'UP'"),
            ("{\"serializable\":\"yes\"}", "a boolean"),
            ("{\"key\":\"Zm9v\"", "EOF"),
            ("{} {}", "trailing characters"),
            ("[]", "a map"),
            ("5", "a map"),
        ] {
            let refused = again("etcdserverpb.RangeRequest", given).expect_err(given);
            assert!(refused.contains(words), "{given}: {refused}");
        }
        let both = "{\"success\":[{\"request_put\":{},\"request_range\":{}}]}";
        let refused =
            again("etcdserverpb.TxnRequest", both).expect_err("a request is one thing or the other");
        assert!(refused.contains("oneof"), "{refused}");
    }

    #[test]
    fn what_would_take_much_memory_is_refused_before_it_does() {
        let many = |number: usize| format!("{{\"success\":[{}{{}}]}}", "{},".repeat(number));
        let refused = again("etcdserverpb.TxnRequest", &many(GATEWAY_PARTS_MAX)).expect_err("too many");
        assert!(refused.contains("at most"), "{refused}");
        assert!(again("etcdserverpb.TxnRequest", &many(1_000)).is_ok());
        let deep = "{\"success\":[{\"request_txn\":".repeat(1_000);
        assert!(again("etcdserverpb.TxnRequest", &deep).is_err());
    }
}
