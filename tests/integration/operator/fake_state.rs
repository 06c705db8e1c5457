//! The objects of the API server in memory, and what it answers: resource versions, conflicts, applies,
//! finalizers, garbage collection.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    fake_api::{Call, Fault},
    fake_ssa,
    fake_watch::Log,
};

#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<Key, Stored>,
    version: u64,
    pub(super) log: Log,
    pub(super) calls: Vec<Call>,
    pub(super) faults: Vec<Fault>,
    pub(super) terminating: bool,
}

pub(super) type Key = (String, String, String); // plural, namespace, name

#[derive(Clone, Default)]
pub(super) struct Stored {
    pub(super) value: Value,
    /// What each manager has applied, by manager and subresource.
    pub(super) applied: BTreeMap<(String, String), Value>,
}

impl Stored {
    /// Who holds which fields.
    pub(super) fn note_managers(&mut self) {
        let entries = self.applied.iter();
        self.value["metadata"]["managedFields"] = entries
            .map(|((manager, subresource), applied)| fake_ssa::entry(manager, subresource, applied))
            .collect();
    }
}

pub(super) fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "code": code, "reason": reason, "message": message})
}

fn being_terminated(namespace: &str) -> (u16, Value) {
    let message =
        format!("unable to create new content in namespace {namespace} because it is being terminated");
    (403, failure(403, "Forbidden", &message))
}

pub(super) struct Target {
    prefix: String,
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    subresource: Option<String>,
}

pub(super) fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (prefix, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ((*version).to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => ((*namespace).to_owned(), rest),
        rest => (String::new(), rest),
    };
    Some(Target {
        prefix,
        plural: (*rest.first()?).to_owned(),
        namespace,
        name: rest.get(1).map(|s| (*s).to_owned()),
        subresource: rest.get(2).map(|s| (*s).to_owned()),
    })
}

impl State {
    pub(super) fn fault_for(&mut self, call: &Call) -> Option<u16> {
        let index = self.faults.iter().position(|fault| fault.times > 0 && (fault.matches)(call))?;
        self.faults[index].times -= 1;
        Some(self.faults[index].code)
    }

    /// Tells those who watch of everything that has changed.
    pub(super) fn tell(&mut self) {
        self.log.compare(&self.objects, &mut self.version);
    }

    pub(super) fn stamp(&mut self, value: &mut Value, old: &Value) {
        self.version += 1;
        let metadata = &mut value["metadata"];
        metadata["resourceVersion"] = self.version.to_string().into();
        if metadata["uid"].is_null() {
            metadata["uid"] = match &old["metadata"]["uid"] {
                Value::Null => format!("{:08x}-0000-4000-8000-000000000000", self.version).into(),
                uid => uid.clone(),
            };
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
    }

    pub(super) fn answer(&mut self, call: &Call) -> (u16, Value) {
        let Some(target) = target(&call.path) else { return (404, failure(404, "NotFound", "no such path")) };
        let key = |name: &str| (target.plural.clone(), target.namespace.clone(), name.to_owned());
        match (call.method.as_str(), target.name.as_deref()) {
            ("GET", None) => (200, self.list(&target, &call.query)),
            ("GET", Some(name)) => match self.objects.get(&key(name)) {
                Some(stored) => (200, stored.value.clone()),
                None => (404, failure(404, "NotFound", &format!("{} {name:?} not found", target.plural))),
            },
            ("POST", _) if self.terminating => being_terminated(&target.namespace),
            ("POST", _) if parameter(&call.query, "dryRun").is_some() => (201, call.body.clone()),
            ("POST", _) => {
                let name = call.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                self.create(key(&name), call.body.clone())
            }
            ("PUT", Some(name)) => self.replace(&key(name), call.body.clone()),
            ("PATCH", Some(name)) if call.query.contains("fieldManager=") => {
                let manager = parameter(&call.query, "fieldManager").unwrap_or_default();
                self.apply(key(name), &target, &manager, call.body.clone())
            }
            ("PATCH", Some(name)) => self.json_patch(&key(name), &call.body),
            ("DELETE", Some(name)) => {
                let uid = call.body["preconditions"]["uid"].as_str().map(ToOwned::to_owned);
                self.delete(&key(name), uid)
            }
            _ => (405, failure(405, "MethodNotAllowed", "not in this fake")),
        }
    }

    fn list(&self, target: &Target, query: &str) -> Value {
        let selector = parameter(query, "labelSelector").unwrap_or_default();
        let wanted: Vec<(&str, &str)> = selector.split(',').filter_map(|s| s.split_once('=')).collect();
        let items: Vec<Value> = self
            .objects
            .iter()
            .filter(|(key, _)| {
                key.0 == target.plural && (target.namespace.is_empty() || key.1 == target.namespace)
            })
            .map(|(_, stored)| stored.value.clone())
            .filter(|value| wanted.iter().all(|(k, v)| value["metadata"]["labels"][*k] == **v))
            .collect();
        json!({"kind": "List", "apiVersion": target.prefix, "items": items,
               "metadata": {"resourceVersion": self.version.to_string()}})
    }

    fn create(&mut self, key: Key, mut value: Value) -> (u16, Value) {
        if self.objects.contains_key(&key) {
            return (409, failure(409, "AlreadyExists", &format!("{} already exists", key.2)));
        }
        self.stamp(&mut value, &Value::Null);
        value["metadata"]["generation"] = 1.into();
        self.objects.insert(key, Stored { value: value.clone(), applied: BTreeMap::new() });
        (201, value)
    }

    fn replace(&mut self, key: &Key, mut value: Value) -> (u16, Value) {
        let Some(stored) = self.objects.get(key).cloned() else {
            return (404, failure(404, "NotFound", "not found"));
        };
        let version = &value["metadata"]["resourceVersion"];
        if !version.is_null() && *version != stored.value["metadata"]["resourceVersion"] {
            return (409, failure(409, "Conflict", "the object has been modified"));
        }
        self.stamp(&mut value, &stored.value);
        self.objects.insert(key.clone(), Stored { value: value.clone(), ..stored });
        (200, value)
    }

    fn apply(&mut self, key: Key, target: &Target, manager: &str, mut wanted: Value) -> (u16, Value) {
        let old = self.objects.get(&key).cloned();
        let uid = wanted["metadata"]["uid"].clone();
        match &old {
            None if target.subresource.is_some() => return (404, failure(404, "NotFound", "not found")),
            None if !uid.is_null() => return (409, failure(409, "Conflict", "uid precondition failed")),
            None if self.terminating => return being_terminated(&key.1),
            Some(old) if !uid.is_null() && uid != old.value["metadata"]["uid"] => {
                return (409, failure(409, "Conflict", "uid mismatch"));
            }
            Some(old) if old.value["immutable"] == true => {
                return (422, failure(422, "Invalid", "field is immutable when `immutable` is set"));
            }
            _ => {}
        }
        let is_new = old.is_none();
        let mut stored = old.unwrap_or_default();
        let subresource = target.subresource.clone().unwrap_or_default();
        if subresource == "status" {
            wanted = json!({"status": wanted["status"].clone()});
        } else if let Some(map) = wanted.as_object_mut() {
            map.remove("status");
        }
        let slot = (manager.to_owned(), subresource.clone());
        let before = stored.value.clone();
        let previous = stored.applied.insert(slot.clone(), wanted.clone()).unwrap_or_default();
        let others: Vec<&Value> =
            stored.applied.iter().filter(|(s, _)| **s != slot).map(|(_, v)| v).collect();
        fake_ssa::remove_dropped(&mut stored.value, &previous, &wanted, &others);
        fake_ssa::merge(&mut stored.value, &wanted, "");
        // A forced apply takes away what others hold with another value.
        for (other, applied) in &mut stored.applied {
            if *other != slot {
                fake_ssa::drop_conflicts(applied, &wanted);
            }
        }
        stored.note_managers();
        let conditions = stored.value.pointer("/status/conditions").and_then(Value::as_array);
        if conditions.into_iter().flatten().any(|condition| condition["status"].is_null()) {
            return (422, failure(422, "Invalid", "status.conditions[].status: Required value"));
        }
        if stored.value == before {
            self.objects.insert(key, stored.clone());
            return (200, stored.value);
        }
        let mut value = stored.value.clone();
        if !is_new {
            value["metadata"]["uid"] = before["metadata"]["uid"].clone();
        }
        if is_new || (subresource.is_empty() && value["spec"] != before["spec"]) {
            value["metadata"]["generation"] =
                (before["metadata"]["generation"].as_i64().unwrap_or_default() + 1).into();
        }
        self.stamp(&mut value, &before);
        stored.value = value.clone();
        self.objects.insert(key, stored);
        (if is_new { 201 } else { 200 }, value)
    }

    fn json_patch(&mut self, key: &Key, steps: &Value) -> (u16, Value) {
        let Some(mut stored) = self.objects.get(key).cloned() else {
            return (404, failure(404, "NotFound", "not found"));
        };
        for step in steps.as_array().into_iter().flatten() {
            let path = step["path"].as_str().unwrap_or_default();
            match step["op"].as_str() {
                Some("test") if stored.value.pointer(path) != Some(&step["value"]) => {
                    return (422, failure(422, "Invalid", "test failed"));
                }
                Some("remove") => {
                    let (parent, index) = path.rsplit_once('/').unwrap();
                    let list = stored.value.pointer_mut(parent).and_then(Value::as_array_mut).unwrap();
                    list.remove(index.parse().unwrap());
                }
                _ => {}
            }
        }
        let before = stored.value.clone();
        self.stamp(&mut stored.value, &before);
        let value = stored.value.clone();
        let metadata = &value["metadata"];
        let is_free = metadata["finalizers"].as_array().is_none_or(Vec::is_empty);
        if is_free && !metadata["deletionTimestamp"].is_null() {
            self.objects.remove(key);
            self.collect(metadata["uid"].as_str().unwrap_or_default());
        } else {
            self.objects.insert(key.clone(), stored);
        }
        (200, value)
    }

    pub(super) fn delete(&mut self, key: &Key, uid: Option<String>) -> (u16, Value) {
        let Some(stored) = self.objects.get_mut(key) else {
            return (404, failure(404, "NotFound", "not found"));
        };
        if uid.is_some_and(|uid| stored.value["metadata"]["uid"] != uid) {
            return (409, failure(409, "Conflict", "uid precondition failed"));
        }
        let held = stored.value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if held {
            if stored.value["metadata"]["deletionTimestamp"].is_null() {
                stored.value["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
                let generation = stored.value["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
                stored.value["metadata"]["generation"] = generation.into();
            }
            return (200, stored.value.clone());
        }
        let value = stored.value.clone();
        self.objects.remove(key);
        self.collect(value["metadata"]["uid"].as_str().unwrap_or_default());
        (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
    }

    /// Garbage collection of what the object with this UID owned.
    pub(super) fn collect(&mut self, uid: &str) {
        let orphans: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, stored)| {
                stored.value["metadata"]["ownerReferences"]
                    .as_array()
                    .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in orphans {
            self.delete(&key, None);
        }
    }
}

pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == name).map(|(_, v)| v.into_owned())
}
