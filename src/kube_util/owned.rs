//! Which fields a manager has applied earlier and no longer wants (pure).
//!
//! Comparing values finds what must be set; only `metadata.managedFields` tells what must go: a
//! field that this manager owns and that is not in what it wants now.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value};

/// Whether `manager` owns, by apply on `subresource`, a field that `wanted` does not have.
pub(super) fn owns_more(
    entries: &[ManagedFieldsEntry],
    manager: &str,
    subresource: Option<&str>,
    wanted: &Value,
) -> bool {
    entries
        .iter()
        .filter(|entry| is_applied_by(entry, manager, subresource))
        .filter_map(|entry| entry.fields_v1.as_ref()?.0.as_object())
        .any(|fields| !covers(wanted, fields))
}

/// Whether the entry says what `manager` owns by apply on `subresource`.
pub(super) fn is_applied_by(entry: &ManagedFieldsEntry, manager: &str, subresource: Option<&str>) -> bool {
    entry.manager.as_deref() == Some(manager)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.as_deref().unwrap_or_default() == subresource.unwrap_or_default()
}

/// Whether every field of the set is in the value.
fn covers(value: &Value, fields: &Map<String, Value>) -> bool {
    fields.iter().all(|(key, below)| {
        let Some((sort, name)) = key.split_once(':') else { return true };
        let found = match sort {
            "f" => value.get(name),
            "k" => element(value, name),
            // A member of a set of scalars.
            "v" => serde_json::from_str::<Value>(name)
                .ok()
                .and_then(|member| value.as_array()?.iter().find(|e| **e == member)),
            _ => return true,
        };
        match (found, below.as_object()) {
            (Some(found), Some(below)) => covers(found, below),
            (found, _) => found.is_some(),
        }
    })
}

/// The element of a list whose fields have the values of `key`, a JSON object.
fn element<'a>(list: &'a Value, key: &str) -> Option<&'a Value> {
    let key: Map<String, Value> = serde_json::from_str(key).ok()?;
    list.as_array()?.iter().find(|element| {
        key.iter().all(|(name, value)| {
            // The API server fills in defaults of key fields, such as the protocol of a port.
            element.get(name).is_none_or(|found| found == value)
        })
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use serde_json::json;

    use super::*;

    fn entry(subresource: Option<&str>, fields: Value) -> Vec<ManagedFieldsEntry> {
        vec![ManagedFieldsEntry {
            manager: Some("me".into()),
            operation: Some("Apply".into()),
            subresource: subresource.map(Into::into),
            fields_v1: Some(FieldsV1(fields)),
            ..Default::default()
        }]
    }

    #[test]
    fn a_field_that_is_no_longer_wanted_is_seen() {
        let owned = entry(None, json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}));
        assert!(owns_more(&owned, "me", None, &json!({"spec": {"replicas": 1}})));
        assert!(!owns_more(&owned, "me", None, &json!({"spec": {"replicas": 1, "paused": true}})));
        assert!(!owns_more(&owned, "other", None, &json!({})));
        assert!(!owns_more(&owned, "me", Some("status"), &json!({})));
    }

    #[test]
    fn elements_of_lists_are_found_by_their_keys() {
        let owned = entry(
            Some("status"),
            json!({"f:status": {"f:conditions": {
                "k:{\"type\":\"A\"}": {".": {}, "f:type": {}, "f:status": {}},
                "k:{\"type\":\"B\"}": {".": {}, "f:type": {}, "f:status": {}},
            }}}),
        );
        let both = json!({"status": {"conditions": [
            {"type": "B", "status": "True"}, {"type": "A", "status": "True"}]}});
        let one = json!({"status": {"conditions": [{"type": "A", "status": "True"}]}});
        assert!(!owns_more(&owned, "me", Some("status"), &both));
        assert!(owns_more(&owned, "me", Some("status"), &one));
    }

    #[test]
    fn members_of_sets_are_seen() {
        let owned = entry(None, json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"mine\"": {}}}}));
        assert!(owns_more(&owned, "me", None, &json!({"metadata": {}})));
        assert!(!owns_more(&owned, "me", None, &json!({"metadata": {"finalizers": ["mine"]}})));
    }

    #[test]
    fn defaulted_key_fields_do_not_count() {
        let owned = entry(
            None,
            json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}),
        );
        assert!(!owns_more(&owned, "me", None, &json!({"ports": [{"port": 80}]})));
    }
}
