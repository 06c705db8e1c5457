//! Which fields a manager has applied earlier and no longer wants (pure).
//!
//! Comparing values finds what must be set; only `metadata.managedFields` tells what must go: a
//! field that this manager owns and that is not in what it wants now.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value};

use super::subset::contains;

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

/// Who else gave a field another value than `manager` wants; else, when a field was only removed, who else wrote last.
pub(super) fn interferer(
    entries: &[ManagedFieldsEntry],
    manager: &str,
    live: &Value,
    wanted: &Value,
) -> Option<String> {
    let others = || {
        let is_other = |entry: &&ManagedFieldsEntry| {
            entry.subresource.is_none() && !is_applied_by(entry, manager, None) && entry.manager.is_some()
        };
        entries.iter().filter(is_other)
    };
    let differs = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.as_object());
        fields.is_some_and(|fields| disputes(fields, live, wanted))
    };
    let last = || others().max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    others().find(differs).or_else(last)?.manager.clone()
}

/// Whether a field of the set is wanted with another value than it has.
fn disputes(fields: &Map<String, Value>, live: &Value, wanted: &Value) -> bool {
    fields.iter().any(|(key, below)| match (part(live, key), part(wanted, key)) {
        (Some(live), Some(wanted)) => match below.as_object().filter(|below| !below.is_empty()) {
            Some(below) => disputes(below, live, wanted),
            None => !contains(live, wanted),
        },
        _ => false,
    })
}

/// Whether every field of the set is in the value.
fn covers(value: &Value, fields: &Map<String, Value>) -> bool {
    fields.iter().all(|(key, below)| {
        if !["f:", "k:", "v:"].iter().any(|sort| key.starts_with(sort)) {
            return true;
        }
        match (part(value, key), below.as_object()) {
            (Some(found), Some(below)) => covers(found, below),
            (found, _) => found.is_some(),
        }
    })
}

/// What a key of a set of fields stands for.
fn part<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match key.split_once(':')? {
        ("f", name) => value.get(name),
        ("k", name) => element(value, name),
        // A member of a set of scalars.
        ("v", name) => {
            let member: Value = serde_json::from_str(name).ok()?;
            value.as_array()?.iter().find(|e| **e == member)
        }
        _ => None,
    }
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
    fn who_interferes_is_named() {
        let entry = |manager: &str, subresource: Option<&str>, time: &str, fields: Value| {
            let entry = json!({"manager": manager, "operation": "Update", "subresource": subresource,
                "time": time, "fieldsV1": fields});
            serde_json::from_value::<ManagedFieldsEntry>(entry).unwrap()
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let entries = [
            entry("scaler", None, early, json!({"f:spec": {"f:replicas": {}}})),
            entry("controller", Some("status"), late, json!({"f:status": {"f:replicas": {}}})),
            entry("painter", None, late, json!({"f:metadata": {"f:annotations": {"f:color": {}}}})),
        ];
        let live = json!({"spec": {"replicas": 3}, "metadata": {"annotations": {"color": "red"}}});
        let by = |wanted| interferer(&entries, "me", &live, &wanted);
        assert_eq!(by(json!({"spec": {"replicas": 1}})).as_deref(), Some("scaler"));
        assert_eq!(by(json!({"spec": {"replicas": 3, "paused": true}})).as_deref(), Some("painter"));
        assert_eq!(interferer(&entries[1..2], "me", &live, &json!({"spec": {"replicas": 1}})), None);
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
