//! How a state of a custom resource is named, so that the request for it and its taking effect are found together.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// So many bytes of the hash tell the specifications apart that were asked for with the same generation.
const BYTES: usize = 6;

/// A short hash of a specification as the API server has it, whatever the order of its keys.
pub fn mark(spec: Option<&Value>) -> String {
    let mut hash = Sha256::new();
    feed(&mut hash, spec.unwrap_or(&Value::Null));
    hex::encode(&hash.finalize()[..BYTES])
}

/// Names a state. The generation alone does not: a request that is refused in the end leaves its generation to the
/// next one.
pub fn name(uid: &str, generation: i64, mark: &str) -> String {
    format!("{uid}/{generation}/{mark}")
}

fn feed(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|member| member.0);
            hash.update("{");
            for (key, value) in members {
                hash.update(Value::from(key.as_str()).to_string());
                hash.update(":");
                feed(hash, value);
                hash.update(",");
            }
            hash.update("}");
        }
        Value::Array(items) => {
            hash.update("[");
            for item in items {
                feed(hash, item);
                hash.update(",");
            }
            hash.update("]");
        }
        other => hash.update(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> String {
        mark(Some(&serde_json::from_str(text).unwrap()))
    }

    #[test]
    fn a_mark_follows_from_what_is_said_and_not_from_how() {
        let one = parsed(r#"{"a": {"b": 1, "c": ["x", null]}, "d": true}"#);
        assert_eq!(one, parsed(r#"{ "d":true, "a":{"c":["x",null],"b":1} }"#));
        assert_eq!(one.len(), 12);
        for other in [
            r#"{"a": {"b": 2, "c": ["x", null]}, "d": true}"#,
            r#"{"a": {"b": 1, "c": [null, "x"]}, "d": true}"#,
            r#"{"a": {"b": 1, "c": ["x"]}, "d": true}"#,
            r#"{"a": {"b": "1", "c": ["x", null]}, "d": true}"#,
        ] {
            assert_ne!(one, parsed(other), "{other}");
        }
        assert_ne!(mark(Some(&json!([["a"], "b"]))), mark(Some(&json!([["a", "b"]]))));
        assert_ne!(mark(None), mark(Some(&json!({}))));
    }
}
