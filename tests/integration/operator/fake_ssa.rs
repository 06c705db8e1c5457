//! Server-side apply as the fake API server does it: merging, ownership, removal.

use serde_json::{Map, Value, json};

/// Lists whose elements are told apart by a key; all others are replaced as a whole.
fn list_key(name: &str) -> Option<&'static str> {
    match name {
        "conditions" => Some("type"),
        "containers" | "initContainers" | "volumes" | "env" | "webhooks" => Some("name"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

pub(crate) fn merge(live: &mut Value, wanted: &Value, name: &str) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            for (key, value) in wanted {
                merge(live.entry(key.clone()).or_insert(Value::Null), value, key);
            }
        }
        (Value::Array(live), Value::Array(wanted)) if name == "finalizers" => {
            for value in wanted {
                if !live.contains(value) {
                    live.push(value.clone());
                }
            }
        }
        (Value::Array(live), Value::Array(wanted)) if list_key(name).is_some() => {
            let key = list_key(name).unwrap();
            for value in wanted {
                match live.iter_mut().find(|l| l[key] == value[key]) {
                    Some(found) => merge(found, value, ""),
                    None => live.push(value.clone()),
                }
            }
        }
        (live, wanted) => *live = wanted.clone(),
    }
}

/// Removes from `live` what `previous` stated and `wanted` does not, unless another states it.
pub(crate) fn remove_dropped(live: &mut Value, previous: &Value, wanted: &Value, others: &[&Value]) {
    let (Some(live), Some(previous)) = (live.as_object_mut(), previous.as_object()) else { return };
    for (key, was) in previous {
        let now = &wanted[key];
        let theirs: Vec<&Value> = others.iter().map(|o| &o[key]).filter(|o| !o.is_null()).collect();
        if now.is_null() && theirs.is_empty() {
            live.remove(key);
        } else if let Some(list) = live.get_mut(key) {
            match (list_key(key), list.as_array_mut(), was.as_array()) {
                (Some(id), Some(list), Some(was)) => {
                    let of = |lists: &Value, element: &Value| {
                        lists.as_array().and_then(|l| l.iter().find(|e| e[id] == element[id]).cloned())
                    };
                    list.retain_mut(|element| {
                        let Some(was) = was.iter().find(|was| was[id] == element[id]) else { return true };
                        if let Some(now) = of(now, element) {
                            remove_dropped(element, was, &now, &[]);
                            return true;
                        }
                        let theirs: Vec<Value> = theirs.iter().filter_map(|t| of(t, element)).collect();
                        if theirs.is_empty() {
                            return false;
                        }
                        let theirs: Vec<&Value> = theirs.iter().collect();
                        remove_dropped(element, was, &Value::Null, &theirs);
                        true
                    });
                }
                _ if was.is_object() => remove_dropped(list, was, now, &theirs),
                _ => {}
            }
        }
    }
}

/// Removes from `applied` the leaves that `wanted` states with another value.
pub(crate) fn drop_conflicts(applied: &mut Value, wanted: &Value) {
    let (Some(applied), Some(wanted)) = (applied.as_object_mut(), wanted.as_object()) else { return };
    for (key, value) in wanted {
        let Some(theirs) = applied.get_mut(key) else { continue };
        if let (Some(id), Some(ours), true) = (list_key(key), value.as_array(), theirs.is_array()) {
            for element in theirs.as_array_mut().into_iter().flatten() {
                if let Some(ours) = ours.iter().find(|v| v[id] == element[id]) {
                    let kept = element[id].clone();
                    drop_conflicts(element, ours);
                    element[id] = kept;
                }
            }
        } else if theirs.is_object() {
            drop_conflicts(theirs, value);
        } else if theirs != value {
            applied.remove(key);
        }
    }
}

/// Removes from `applied` what `live` does not have, or has with another value.
pub(crate) fn drop_changed(applied: &mut Value, live: &Value) {
    let Some(applied) = applied.as_object_mut() else { return };
    applied.retain(|key, theirs| match (list_key(key), live.get(key)) {
        (_, None) => false,
        (Some(id), Some(Value::Array(live))) => {
            if let Some(list) = theirs.as_array_mut() {
                list.retain_mut(|element| {
                    let Some(found) = live.iter().find(|l| l[id] == element[id]) else { return false };
                    drop_changed(element, found);
                    true
                });
            }
            true
        }
        (_, Some(live)) if theirs.is_object() => {
            drop_changed(theirs, live);
            true
        }
        (_, Some(live)) => theirs == live,
    });
}

pub(crate) fn entry(manager: &str, subresource: &str, applied: &Value) -> Value {
    let mut fields = fields(applied, "");
    if let Some(map) = fields.as_object_mut() {
        map.remove("f:apiVersion");
        map.remove("f:kind");
        if let Some(metadata) = map.get_mut("f:metadata").and_then(Value::as_object_mut) {
            for identity in ["f:name", "f:namespace", "f:uid"] {
                metadata.remove(identity);
            }
        }
    }
    let mut entry =
        json!({"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields});
    if !subresource.is_empty() {
        entry["subresource"] = subresource.into();
    }
    entry
}

fn fields(value: &Value, name: &str) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (format!("f:{key}"), fields(value, key))).collect())
        }
        Value::Array(list) if name == "finalizers" => {
            let mut map: Map<String, Value> = list.iter().map(|v| (format!("v:{v}"), json!({}))).collect();
            map.insert(".".into(), json!({}));
            Value::Object(map)
        }
        Value::Array(list) => match list_key(name) {
            Some(id) => Value::Object(
                list.iter()
                    .map(|element| (format!("k:{}", json!({id: element[id]})), fields(element, "")))
                    .collect(),
            ),
            None => json!({}),
        },
        _ => json!({}),
    }
}
