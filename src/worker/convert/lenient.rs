//! Reads an event's JSON text however broken it is: what can be read is, the rest is said to be
//! malformed. A sender on another server may put anything that its homeserver lets through.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, value::RawValue};

/// The fields of an event, as far as they can be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields {
    /// The event as a JSON object; unreadable fields are missing.
    pub(super) value: Value,
    /// Top-level fields that are there and cannot be read, or `.` for the event as a whole.
    pub(super) malformed: Vec<String>,
}

/// Parses the text; never fails.
pub(super) fn parse(raw: &str) -> Fields {
    let text = mend_surrogates(raw);
    match serde_json::from_str::<Value>(&text) {
        Ok(value @ Value::Object(_)) => Fields { value, malformed: Vec::new() },
        Ok(_) => unreadable(),
        // Too deep or with a number out of range somewhere: save the fields that are not.
        Err(_) => match serde_json::from_str::<BTreeMap<String, &RawValue>>(&text) {
            Ok(fields) => by_field(&fields),
            Err(_) => unreadable(),
        },
    }
}

fn unreadable() -> Fields {
    Fields { value: Value::Object(serde_json::Map::new()), malformed: vec![".".to_owned()] }
}

fn by_field(fields: &BTreeMap<String, &RawValue>) -> Fields {
    let mut malformed = Vec::new();
    let mut object = serde_json::Map::new();
    for (name, raw) in fields {
        match serde_json::from_str::<Value>(raw.get()) {
            Ok(value) => {
                object.insert(name.clone(), value);
            }
            Err(_) => malformed.push(name.clone()),
        }
    }
    Fields { value: Value::Object(object), malformed }
}

/// Replaces escapes of lone surrogates (`\ud800` without its second half), which no Rust string
/// can hold, by the replacement character.
fn mend_surrogates(raw: &str) -> Cow<'_, str> {
    // Both cases of the hexadecimal digit; a cheap test that nearly every event passes.
    if !raw.contains("\\ud") && !raw.contains("\\uD") {
        return Cow::Borrowed(raw);
    }
    let mut mended = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match unit(rest) {
            Some(0xD800..=0xDBFF) if matches!(rest.get(6..).and_then(unit), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                mended.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            Some(_) => 6,
            // Any other escape is two characters long; `\\` must not be taken for the start of one.
            None => rest.chars().take(2).map(char::len_utf8).sum(),
        };
        mended.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    mended.push_str(rest);
    Cow::Owned(mended)
}

/// The UTF-16 unit of a `\uXXXX` escape at the start of the text.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

/// A string at a path of keys.
pub(super) fn str_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str()
}

/// A value at a path of keys.
pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_are_kept() {
        let fields = parse(r#"{"a":"x\ud800y","b":"\ud83d\ude00","c":"\\ud800","d":"\udc00\ud800"}"#);
        assert!(fields.malformed.is_empty());
        assert_eq!(fields.value["a"], "x\u{fffd}y");
        assert_eq!(fields.value["b"], "😀");
        assert_eq!(fields.value["c"], "\\ud800");
        assert_eq!(fields.value["d"], "\u{fffd}\u{fffd}");
    }

    #[test]
    fn an_unreadable_field_does_not_hide_the_others() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let fields = parse(&format!(r#"{{"event_id":"$a","content":{deep},"n":1e999,"sender":"@a:b"}}"#));
        assert_eq!(fields.value["event_id"], "$a");
        assert_eq!(fields.value["sender"], "@a:b");
        assert_eq!(fields.malformed, ["content", "n"]);
    }

    #[test]
    fn what_is_no_object_is_malformed_as_a_whole() {
        for raw in ["", "null", "[1]", "{", "\"\\u\"", "{\"a\":\\ud8"] {
            assert_eq!(parse(raw).malformed, ["."], "{raw}");
        }
    }
}
