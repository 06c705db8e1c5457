//! What a report may put into a record: bounded, and without what could be secret.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::domain::record::Change;

/// A text of a report that is longer is cut.
const MAX_TEXT: usize = 1_024;
/// A value that is longer, as JSON, is left out.
const MAX_VALUE: usize = 32 * 1024;
/// When all values together are longer, the rest is left out. An inbox takes messages of 4 MiB.
const MAX_VALUES: usize = 256 * 1024;
/// So many changes; what is more is counted.
const MAX_CHANGES: usize = 500;
/// A key of a map in an object can be long; more of a path is of no use.
const MAX_PATH: usize = 2_048;
/// Digits of the hash of a value that may be a secret: enough to tell two of them apart.
const HASH: usize = 16;

/// The text, cut between characters.
pub(super) fn text(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// Whether the API server would give this name to an object or a namespace.
pub(super) fn is_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
}

/// Every URL in the value without the user and the password that stand in it.
pub(super) fn without_passwords(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(strip(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_passwords).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(key, value)| (key, without_passwords(value))).collect())
        }
        other => other,
    }
}

fn strip(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after.find(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace());
        let authority = &after[..end.unwrap_or(after.len())];
        if let Some(at) = authority.rfind('@') {
            clean.push_str("[redacted]@");
            clean.push_str(&authority[at + 1..]);
        } else {
            clean.push_str(authority);
        }
        rest = &after[authority.len()..];
    }
    clean.push_str(rest);
    clean
}

/// What people write into the templates of pods as it is, and what can be a secret therefore: the values of variables
/// and headers, arguments, commands, annotations, attributes of volumes. A hash in its place shows whether it changed.
pub(super) fn without_literals(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(without_literals).collect()),
        Value::Object(members) => {
            let clean = |(key, value): (String, Value)| {
                let value = match key.as_str() {
                    "args" | "command" => hashed(&value),
                    "annotations" | "volumeAttributes" => each(value, |_, value| hashed(&value)),
                    "env" | "httpHeaders" => each(value, |_, entry| each(entry, literal)),
                    _ => without_literals(value),
                };
                (key, value)
            };
            Value::Object(members.into_iter().map(clean).collect())
        }
        other => other,
    }
}

/// A member of a variable or header.
fn literal(key: &str, value: Value) -> Value {
    if ["", "value"].contains(&key) { hashed(&value) } else { without_literals(value) }
}

/// Acts on every member or item; anything else is none of what stands there, and is hashed.
fn each(value: Value, act: impl Fn(&str, Value) -> Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Array(items) => Value::Array(items.into_iter().map(|item| act("", item)).collect()),
        Value::Object(members) => {
            let member = |(key, value): (String, Value)| {
                let value = act(&key, value);
                (key, value)
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        other => hashed(&other),
    }
}

fn hashed(value: &Value) -> Value {
    json!({"sha256": &hex::encode(Sha256::digest(value.to_string()))[..HASH]})
}

/// What stands in the place of a text that is left out.
pub(super) fn stand_in(text: &str) -> Value {
    json!({"bytes": text.len(), "sha256": hex::encode(Sha256::digest(text))})
}

/// The changes, with values that are too long replaced by their size and hash.
pub(super) fn changes(mut changes: Vec<Change>) -> Vec<Change> {
    let more = changes.len().saturating_sub(MAX_CHANGES);
    changes.truncate(MAX_CHANGES);
    let mut left = MAX_VALUES;
    for change in &mut changes {
        if change.path.len() > MAX_PATH {
            change.path.truncate(change.path.floor_char_boundary(MAX_PATH));
        }
        for value in [&mut change.before, &mut change.after].into_iter().flatten() {
            let json = value.to_string();
            if json.len() > MAX_VALUE || json.len() > left {
                *value = stand_in(&json);
            }
            left = left.saturating_sub(json.len());
        }
    }
    if more > 0 {
        changes.push(Change { path: "/more".to_owned(), before: None, after: Some(more.into()) });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_left_out_wherever_they_stand() {
        for (with, without) in [
            ("http://user:secret@host:8008/path", "http://[redacted]@host:8008/path"),
            ("http://host/@alice", "http://host/@alice"),
            ("two: http://a:b@c and http://d:e@f", "two: http://[redacted]@c and http://[redacted]@f"),
            ("http://a:b@c@d", "http://[redacted]@d"),
            ("://", "://"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_passwords(json!({"a": [with]})), json!({"a": [without]}));
        }
    }

    #[test]
    fn what_may_be_a_secret_in_a_pod_is_a_hash() {
        let pod = json!({
            "metadata": {"annotations": {"a": "geheim"}, "labels": {"app": "shown"}},
            "containers": [{
                "image": "shown", "args": ["--password=geheim"], "command": ["sh", "-c", "geheim"],
                "env": [
                    {"name": "SHOWN", "value": "geheim"},
                    {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "shown", "key": "password"}}},
                    ["geheim"], "geheim",
                ],
                "livenessProbe": {"httpGet": {"httpHeaders": [{"name": "Authorization", "value": "geheim"}]}},
                "lifecycle": {"preStop": {"exec": {"command": ["geheim"]}}},
            }],
            "volumes": [{"csi": {"volumeAttributes": {"token": "geheim"}}, "secret": {"secretName": "shown"}}],
            "env": "geheim", "annotations": ["geheim"], "command": null,
        });
        let clean = without_literals(pod.clone());
        let text = clean.to_string();
        assert!(!text.contains("geheim"), "{text}");
        assert_eq!(text.matches("shown").count(), 4, "{text}");
        assert_eq!(clean["containers"][0]["env"][1], pod["containers"][0]["env"][1], "no literal");
        let with = |value: &str| without_literals(json!({"env": [{"name": "a", "value": value}]}));
        assert_eq!(with("one"), with("one"));
        assert_ne!(with("one"), with("two"), "a change shows");
    }

    #[test]
    fn what_is_too_long_is_a_hash() {
        let long = |n: usize| Change {
            path: format!("/{n}"),
            before: None,
            after: Some(Value::String("x".repeat(n))),
        };
        let bounded = changes(vec![long(10), long(40_000)]);
        assert_eq!(bounded[0], long(10));
        assert_eq!(bounded[1].after.as_ref().unwrap()["bytes"], 40_002);
        let many = changes((0..2_000).map(|_| long(30_000)).collect());
        assert_eq!(many.len(), 501);
        assert_eq!(many[500].after, Some(1_500.into()));
        let size: usize = many.iter().map(|change| change.after.as_ref().unwrap().to_string().len()).sum();
        assert!(size < 512 * 1024, "{size}");
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        assert!(is_name("auditbot") && is_name("a.b-c1"));
        for name in ["", "../x", "A", "a/b", "-a", "a-", "a b", &"a".repeat(254)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
