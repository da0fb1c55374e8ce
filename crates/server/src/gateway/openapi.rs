//! The gateway described for programs (`/openapi.json`) and for people (`/openapi`), from the descriptors that it translates by.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use tonic::body::Body;

use super::paths::{Endpoint, Paths};
use super::{JSON, whole};

const DOCUMENT: &str = "/openapi.json";
const PAGE: &str = "/openapi";
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// The page runs its own script and talks to its own server, and nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
);

/// Both pages.
pub(super) struct Pages {
    document: Bytes,
}

/// Whether a path is one of them.
pub(super) fn is_page(path: &str) -> bool {
    path == DOCUMENT || path == PAGE
}

impl Pages {
    pub(super) fn new(paths: &Paths) -> Pages {
        Pages { document: document(paths).to_string().into() }
    }

    pub(super) fn get(&self, path: &str) -> Option<Response<Body>> {
        match path {
            DOCUMENT => Some(whole(StatusCode::OK, JSON, self.document.clone())),
            PAGE => {
                let page = Bytes::from_static(include_bytes!("openapi.html"));
                let mut response = whole(StatusCode::OK, HTML, page);
                response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
                Some(response)
            }
            _ => None,
        }
    }
}

/// The document, in OpenAPI's version 3.0.
fn document(paths: &Paths) -> Value {
    let mut schemas = Schemas::default();
    let operations: Map<String, Value> = paths
        .iter()
        .map(|(path, endpoint)| (path.to_owned(), json!({ "post": operation(path, endpoint, &mut schemas) })))
        .collect();
    let mut schemas = Value::Object(schemas.0.into_iter().collect());
    schemas["Error"] = json!({
        "type": "object",
        "description": "Why a call was refused, or failed.",
        "properties": {
            "error": { "type": "string" },
            "message": { "type": "string", "description": "The same words." },
            "code": { "type": "integer", "description": "The code of gRPC." },
            "details": {
                "type": "array",
                "items": { "type": "object" },
                "description": "What the server knows beyond that: a reason for programs, whether the write may have been applied, where the leader is.",
            },
        },
    });
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Ringfence",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "The etcd v3 API in JSON. Keys and values are base64; numbers of 64 bits are strings; what is unset is left out. \
                Fences and the like are fields, or headers: ringfence-fence, ringfence-session, ringfence-freshness, ringfence-ack.",
        },
        "paths": operations,
        "components": { "schemas": schemas },
    })
}

fn operation(path: &str, endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let method = &endpoint.method;
    let answer = schemas.reference(&endpoint.output);
    let answer = if endpoint.answers_in_stream {
        let result =
            json!({ "type": "object", "properties": { "result": answer, "error": { "type": "object" } } });
        json!({
            "description": "One object a line, as they come.",
            "content": { "application/x-ndjson": { "schema": result } },
        })
    } else {
        json!({ "description": "The answer.", "content": { "application/json": { "schema": answer } } })
    };
    let asks = if endpoint.asks_in_stream {
        " The request may hold several messages, one after the other."
    } else {
        ""
    };
    let file = method.parent_service().parent_file();
    json!({
        "operationId": path.trim_start_matches("/v3/").replace(['/', '-'], "_"),
        "tags": [method.parent_service().name()],
        "summary": method.name(),
        "description": format!("{}{asks}", comment(file.file_descriptor_proto(), method.path())),
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": schemas.reference(&endpoint.input) } },
        },
        "responses": {
            "200": answer,
            "default": {
                "description": "The call was refused, or failed.",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            },
        },
    })
}

/// The messages and enums that were named, each once.
#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// A reference to a message, which is described if it was not before.
    fn reference(&mut self, message: &MessageDescriptor) -> Value {
        let name = message.full_name();
        if !self.0.contains_key(name) {
            // Messages may hold themselves: the name stands before its fields are looked at.
            self.0.insert(name.to_owned(), Value::Null);
            let properties: Map<String, Value> =
                message.fields().map(|field| (field.name().to_owned(), self.field(&field))).collect();
            let file = message.parent_file();
            let described = json!({
                "type": "object",
                "description": comment(file.file_descriptor_proto(), message.path()),
                "properties": properties,
            });
            self.0.insert(name.to_owned(), described);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        let file = field.parent_message().parent_file();
        let words = comment(file.file_descriptor_proto(), field.path());
        let mut schema = match field.kind() {
            Kind::Message(message) => self.reference(&message),
            Kind::Enum(values) => enumeration(&values),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "format": "byte" }),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "string", "format": "int64" }),
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "format": "uint64" }),
            Kind::Double | Kind::Float => json!({ "type": "number" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => {
                json!({ "type": "integer" })
            }
        };
        if field.is_list() {
            schema = json!({ "type": "array", "items": schema });
        }
        if let (Some(schema), false) = (schema.as_object_mut(), words.is_empty()) {
            // Beside a reference nothing else counts.
            if !schema.contains_key("$ref") {
                schema.insert("description".to_owned(), words.into());
            }
        }
        schema
    }
}

fn enumeration(values: &EnumDescriptor) -> Value {
    let names: Vec<Value> = values.values().map(|value| value.name().into()).collect();
    json!({ "type": "string", "enum": names, "default": values.default_value().name() })
}

/// What the file says above a declaration.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let info = file.source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let text = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_described_and_every_reference_leads_somewhere() {
        let paths = Paths::of_this_build();
        let document = document(&paths);
        for (path, _) in paths.iter() {
            assert!(document["paths"][path]["post"]["summary"].is_string(), "{path}");
        }
        let put = &document["components"]["schemas"]["etcdserverpb.PutRequest"]["properties"];
        assert_eq!((&put["key"]["format"], &put["lease"]["format"]), (&"byte".into(), &"int64".into()));
        assert_eq!(put["fences"]["type"], "array");
        let said = document["paths"]["/v3/ringfence/fencing/inspect"]["post"]["description"].as_str();
        assert!(said.is_some_and(|said| said.contains("who holds a scope")), "{said:?}");
        let mut references = 0;
        check_references(&document, &document["components"]["schemas"], &mut references);
        assert!(references > 100, "{references} references");
    }

    fn check_references(value: &Value, schemas: &Value, references: &mut u32) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    *references += 1;
                    let name = reference.strip_prefix("#/components/schemas/").expect("all are schemas");
                    assert!(schemas[name].is_object(), "{name} is described");
                }
                fields.values().for_each(|value| check_references(value, schemas, references));
            }
            Value::Array(values) => {
                values.iter().for_each(|value| check_references(value, schemas, references));
            }
            _ => {}
        }
    }
}
